//! The pid file: what is in it, how it is written, and when it is not.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{Bundle, Container, Output};

fn pid_file(bundle: &Bundle) -> PathBuf {
    bundle.dir().join("init.pid")
}

fn create(web: &Container, file: &Path) -> Output {
    web.call("create", &["--pid-file", file.to_str().unwrap()]).run()
}

/// containerd, buildkit and conmon-rs parse it without trimming: `parsing "24101\n"`.
#[test]
fn row28_pid_file_exact_bytes_no_newline() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    create(&web, &pid_file(&bundle)).ok();
    let bytes = fs::read(pid_file(&bundle)).unwrap();
    assert_eq!(bytes, web.init().0.to_string().into_bytes());
}

/// The pid is one of the caller's namespace, also where the container has none of its own.
#[test]
fn row28_pid_file_of_a_container_in_the_hosts_pid_namespace() {
    require!(root);
    let bundle = Bundle::with(|config| config.share_namespace("pid"));
    let web = bundle.container("web");
    create(&web, &pid_file(&bundle)).ok();
    let bytes = fs::read(pid_file(&bundle)).unwrap();
    assert_eq!(bytes, web.init().0.to_string().into_bytes());
}

/// CRI-O makes it empty beforehand and watches; a reader must never see half of a number.
#[test]
fn row29_pid_file_replaces_an_existing_one_by_rename() {
    require!(root);
    let bundle = Bundle::new();
    let file = pid_file(&bundle);
    fs::write(&file, "old text that is longer than any pid").unwrap();
    let before = fs::metadata(&file).unwrap().ino();
    let web = bundle.container("web");
    create(&web, &file).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), web.init().0.to_string());
    assert_ne!(fs::metadata(&file).unwrap().ino(), before);
    let names = fs::read_dir(bundle.dir()).unwrap().flatten().map(|entry| entry.file_name());
    let strangers: Vec<_> = names.filter(|name| name.to_string_lossy().contains("pid")).collect();
    assert_eq!(strangers, ["init.pid"]);
}

/// A link at its place is replaced: what it leads to stays as it is.
#[test]
fn row29_pid_file_does_not_follow_a_symlink() {
    require!(root);
    let bundle = Bundle::new();
    let (file, precious) = (pid_file(&bundle), bundle.dir().join("precious"));
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, &file).unwrap();
    let web = bundle.container("web");
    create(&web, &file).ok();
    assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
    assert_eq!(fs::read_to_string(file).unwrap(), web.init().0.to_string());
}

/// containerd and podman run the runtime in different directories: relative is to the caller.
#[test]
fn row29_relative_pid_file_belongs_to_the_callers_directory() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.call("create", &["--pid-file", "init.pid"]).cwd(bundle.dir()).run().ok();
    assert_eq!(fs::read_to_string(pid_file(&bundle)).unwrap(), web.init().0.to_string());
    let exec = web.call("exec", &["--detach", "--pid-file", "exec.pid"]).cwd(bundle.dir());
    exec.args(&["sleep", "1000"]).run().ok();
    assert!(bundle.dir().join("exec.pid").is_file());
}

/// conmon takes its absence for "the runtime failed" and its presence for "the command did".
#[test]
fn row30_no_pid_file_after_a_failed_create() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    create(&bundle.container("web"), &pid_file(&bundle)).fails();
    assert!(!pid_file(&bundle).exists());
}

/// A hook that fails comes late; the file must not be there by then.
#[test]
fn row30_no_pid_file_after_a_failed_hook() {
    require!(root);
    let bundle = Bundle::with(|config| config.hook("createRuntime", "/bin/false", &["false"]));
    create(&bundle.container("web"), &pid_file(&bundle)).fails();
    assert!(!pid_file(&bundle).exists());
}

/// `run` follows the same rule.
#[test]
fn row30_no_pid_file_after_a_failed_run() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    let file = pid_file(&bundle);
    let web = bundle.container("web");
    web.call("run", &["--pid-file", file.to_str().unwrap()]).run().fails();
    assert!(!file.exists());
}

/// A pid file that cannot be written fails the create and leaves nothing.
#[test]
fn row30_unwritable_pid_file_fails_the_create() {
    require!(root);
    let bundle = Bundle::new();
    create(&bundle.container("web"), Path::new("/no/such/directory/pid")).fails();
    bundle.assert_clean();
}
