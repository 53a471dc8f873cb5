//! The onggi command. Everything is in the library: see [`onggi`].

#[global_allocator]
static HEAP: onggi::sys::heap::Heap = onggi::sys::heap::Heap;

fn main() -> std::process::ExitCode {
    onggi::cli::main()
}
