//! Build script: leaves the unwind tables out of the static program.
//!
//! A panic aborts, so nobody reads them but a backtrace; they are a twelfth of the file, which is copied
//! at every start (`src/spawn/seal.rs`). The C run-time's own must stay: its start-up code names them.
//! Without the tables there are no backtraces: `no_backtrace` says so, and what would print them, a seventh
//! of the file, is left out, too (`src/sys/unwind.rs`).

// What cargo listens to, and a file of its own folder.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::error::Error;
use std::path::Path;
use std::{env, fs};

const SCRIPT: &str = "SECTIONS {
  /DISCARD/ : {
    *(EXCLUDE_FILE(*crtbegin*.o *crtend*.o *crti.o *crtn.o) .eh_frame)
    *(.gcc_except_table .gcc_except_table.*)
  }
} INSERT AFTER .text;
";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=hack/build.rs");
    println!("cargo::rustc-check-cfg=cfg(no_backtrace)");
    let release = env::var("PROFILE")? == "release" && env::var("DEBUG")? == "false";
    if release && env::var("CARGO_CFG_TARGET_ENV")? == "musl" {
        let path = Path::new(&env::var("OUT_DIR")?).join("discard.ld");
        fs::write(&path, SCRIPT)?;
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", path.display());
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo::rustc-cfg=no_backtrace");
    }
    Ok(())
}
