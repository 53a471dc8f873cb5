//! What a refused config.json must look like from outside.

use super::{Bundle, Output};

/// create must fail, name every given JSON pointer (or a member of it) and leave nothing.
#[track_caller]
pub fn refused_at(bundle: &Bundle, pointers: &[&str]) -> Output {
    let output = refused(bundle);
    for pointer in pointers {
        let named = [':', '/'].iter().any(|end| output.stderr.contains(&format!("{pointer}{end}")));
        assert!(named, "no pointer {pointer} in the error of {output}");
    }
    output
}

/// create must fail in an orderly way, before the first side effect: no state directory of the
/// container, no cgroup, no process.
#[track_caller]
pub fn refused(bundle: &Bundle) -> Output {
    let web = bundle.container("web");
    let output = web.create();
    assert_eq!(output.code(), 1, "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
    bundle.assert_clean();
    output
}
