//! The onggi command. Everything is in the library: see [`onggi`].

fn main() -> std::process::ExitCode {
    onggi::cli::main()
}
