//! Options before the command: where messages go, how many, and how long anything may take.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::Bundle;

/// What a crash or a full disk may have made of the record: what it knew of must not be forgotten.
#[test]
fn a_damaged_record_is_told_and_nothing_is_forgotten() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let record = bundle.root().join("web/state.json");
    let good = fs::read(&record).unwrap();
    for bad in [&good[..good.len() / 2], b"", b"{}", b"null", b"\0\0\0\0"] {
        fs::write(&record, bad).unwrap();
        for args in [&["state", "web"][..], &["delete", "web"], &["delete", "--force", "web"]] {
            let output = bundle.onggi(args).run().fails();
            assert_eq!(output.log()[0]["code"], "E_STATE_DAMAGED", "{output}");
        }
        let list = bundle.onggi(&["list", "--format", "json"]).run().ok().json();
        assert_eq!(list[0]["id"], "web");
        assert_eq!(list[0]["status"], "damaged");
        assert!(bundle.onggi(&["list"]).run().ok().stdout.contains("damaged"));
    }
    fs::write(&record, good).unwrap();
    web.delete_force().ok();
    bundle.assert_clean();
}

/// T22: an id that looks like an option would become one in somebody's script.
#[test]
fn t22_an_id_that_begins_with_a_dash_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    let path = bundle.path();
    let output = bundle.onggi(&["create", "-b", path.to_str().unwrap(), "--", "-v"]).run().fails();
    assert_eq!(output.log()[0]["code"], "E_ID_INVALID", "{output}");
}

#[test]
fn criu_is_ignored_with_a_warning() {
    require!(root);
    let bundle = Bundle::new();
    let output = bundle.onggi(&["--criu", "/usr/sbin/criu", "check", "--host"]).run().ok();
    assert_eq!(output.log()[0]["code"], "W_OPTION_IGNORED", "{output}");
}

/// crun's option: errors alone, warnings as well, or every detail.
#[test]
fn log_level_chooses_what_is_told() {
    require!(root);
    let bundle = Bundle::new();
    let lines = |level: &str| -> Vec<String> {
        let output =
            bundle.onggi(&["--criu", "x", "--log-level", level, "check", "--host"]).run().ok();
        output.log().iter().map(|line| line["level"].as_str().unwrap().to_string()).collect()
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(lines("error"), none);
    assert_eq!(lines("warning"), ["warning"]);
    assert_eq!(lines("debug"), ["debug", "warning"]);
    let output = bundle.onggi(&["--log-level", "loud", "list"]).run().fails();
    assert!(output.stderr.contains("--log-level: "), "{output}");
}

/// As with runc; /dev/stderr is a symbolic link.
#[test]
fn log_may_be_standard_error() {
    require!(root);
    let bundle = Bundle::new();
    let call = bundle.onggi(&["--log", "/dev/stderr", "--log-format", "json", "state", "nobody"]);
    // Through a pipe: a file would be written to from two places.
    let pipe = "\"$@\" 2>&1 >/dev/null | cat";
    let output = call.without_log().through(&["sh", "-c", pipe, "sh"]).run();
    assert!(output.stdout.contains("\"code\":\"E_NOT_FOUND\""), "{output}");
}

/// A hook that never ends, and a lock that is never given back.
#[test]
fn deadline_bounds_hooks_and_waits() {
    require!(root);
    let bundle = Bundle::with(|config| config.hook("prestart", "/bin/sleep", &["sleep", "300"]));
    let path = bundle.path();
    let begun = Instant::now();
    let create = ["--deadline", "300ms", "create", "-b", path.to_str().unwrap(), "web"];
    let output = bundle.onggi(&create).run().fails();
    assert!(begun.elapsed() < Duration::from_secs(30), "{output}");
    assert!(output.stderr.contains("the --deadline has passed"), "{output}");
    bundle.assert_clean();

    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let lock = fs::File::open(bundle.root().join("web")).unwrap();
    assert_eq!(unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&lock), libc::LOCK_EX) }, 0);
    let output = bundle.onggi(&["--deadline", "300ms", "start", "web"]).run().fails();
    assert_eq!(output.log()[0]["code"], "E_DEADLINE", "{output}");
    drop(lock);
    bundle.onggi(&["--deadline", "1m", "start", "web"]).run().ok();
}

/// A usage error goes to the log of the runtime; an option of the program that exec was to run is none of its.
#[test]
fn a_usage_error_is_not_logged_to_a_file_that_an_argument_of_the_program_names() {
    let bundle = Bundle::new();
    let file = bundle.dir().join("program.log");
    let program = ["exec", "--unknown", "web", "prog", "--log", file.to_str().unwrap()];
    let output = bundle.onggi(&program).run().fails();
    assert!(!file.exists(), "{output}");
    assert_eq!(output.errors().len(), 1, "{output}");
}
