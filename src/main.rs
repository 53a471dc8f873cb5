//! The onggi command. Everything is in the library: see [`onggi`].

#![no_main]

#[global_allocator]
static HEAP: onggi::sys::heap::Heap = onggi::sys::heap::Heap;

onggi::entry!(onggi::cli::main);
