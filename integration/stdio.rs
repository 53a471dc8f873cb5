//! The three streams of a container without a terminal, and the descriptors that it is given.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;

use crate::support::{Bundle, Call, Process, eventually, fds, host};

/// A file of the bundle, as a descriptor to give away.
fn file(bundle: &Bundle, text: &str) -> OwnedFd {
    let path = bundle.dir().join(text);
    fs::write(&path, text).unwrap();
    File::open(path).unwrap().into()
}

/// The descriptors of the container's process above the standard ones, once it only sleeps.
fn extra_fds(process: Process) -> Vec<i32> {
    eventually("init runs sleep", || (process.cmdline() == ["sleep", "1000"]).then_some(()));
    process.fds().into_keys().filter(|number| *number > 2).collect()
}

/// The kubelet's log pipes are the container's own stdio, not copies by way of somebody.
#[test]
fn row46_stdio_of_create_is_the_containers_same_objects() {
    require!(root);
    let bundle = Bundle::sh("cat; echo out; echo err >&2");
    let web = bundle.container("web");
    let (their_in, our_in) = fds::pipe();
    let (mut our_out, their_out) = fds::pipe();
    let (mut our_err, their_err) = fds::pipe();
    let inodes = [&their_in, &our_out, &our_err].map(|end| end.metadata().unwrap().ino());
    web.call("create", &[]).stdin(their_in).stdout(their_out).stderr(their_err).run().ok();
    let links = web.init().fds();
    for (number, inode) in inodes.into_iter().enumerate() {
        assert_eq!(links[&(number as i32)].to_str(), Some(format!("pipe:[{inode}]").as_str()));
    }
    web.start().ok();
    File::from(our_in).write_all(b"in\n").unwrap();
    assert_eq!(fds::read_to_end(&mut our_out), "in\nout\n");
    assert_eq!(fds::read_to_end(&mut our_err), "err\n");
}

/// The pipes are made by root; the user inside must own them.
#[test]
fn row46_stdio_is_given_to_the_user_of_the_process() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/user/uid", 1000));
    let web = bundle.container("web");
    let (our_out, their_out) = fds::pipe();
    let (our_err, their_err) = fds::pipe();
    web.call("create", &[]).stdout(their_out).stderr(their_err).run().ok();
    for end in [our_out, our_err] {
        assert_eq!(end.metadata().unwrap().uid(), 1000);
    }
}

/// But never the null device of the host, which everybody else needs.
#[test]
fn row46_dev_null_of_the_host_is_not_given_away() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/user/uid", 1000));
    let before = fs::metadata("/dev/null").unwrap();
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
    let web = bundle.container("web");
    web.call("create", &[]).stdin(null()).stdout(null()).stderr(null()).run().ok();
    let after = fs::metadata("/dev/null").unwrap();
    assert_eq!((before.uid(), before.gid()), (after.uid(), after.gid()));
}

/// A null device of the test's own in the place of the host's, which a broken runtime would spoil.
struct Null(PathBuf);

impl Null {
    fn new(bundle: &Bundle) -> Null {
        let path = bundle.dir().join("null");
        let (status, _) =
            host::tool(&["mknod", "-m", "666", path.to_str().unwrap(), "c", "1", "3"]);
        assert!(status.success());
        Null(path)
    }

    /// Descriptors 0 to 2 of a call on it.
    fn give(&self, call: Call) -> Call {
        let open = || File::options().read(true).write(true).open(&self.0).unwrap();
        call.stdin(open()).stdout(open()).stderr(open())
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let now = fs::metadata(&self.0).unwrap();
        assert_eq!((now.mode() & 0o7777, now.uid()), (0o666, 0));
    }
}

/// What root of the container tries with the null devices that it has been given, and what it sees.
const SPOIL: &str = "cd /proc/$$/fd; s=; \
     for n in 0 1 2; do s=\"$s$(readlink $n) $(stat -L -c %t:%T $n) \"; done; \
     chmod 600 0 1 2; echo \"$s$(stat -c %a /dev/null)\" > /seen";

/// The rights on the host's null device would be root's of any container to take, by /proc/self/fd.
#[test]
fn null_device_of_the_caller_is_not_the_containers_stdio() {
    require!(root);
    let bundle = Bundle::sh(SPOIL);
    let null = Null::new(&bundle);
    null.give(bundle.container("web").call("run", &[])).run().ok();
    null.assert_untouched();
    let seen = fs::read_to_string(bundle.rootfs().join("seen")).unwrap();
    assert_eq!(seen, format!("{}600\n", "/dev/null 1:3 ".repeat(3)));
}

/// The same for exec, whose standard input is the null device for most probes.
#[test]
fn null_device_of_the_caller_is_not_the_stdio_of_exec() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let null = Null::new(&bundle);
    null.give(web.call("exec", &[]).args(&["sh", "-c", SPOIL])).run().ok();
    null.assert_untouched();
    let seen = fs::read_to_string(bundle.rootfs().join("seen")).unwrap();
    assert_eq!(seen, format!("{}600\n", "/dev/null 1:3 ".repeat(3)));
}

/// Where the container has spoiled its own /dev/null, it gets one that is nobody else's.
#[test]
fn null_device_of_the_caller_is_not_the_stdio_where_the_container_has_none() {
    require!(root);
    for spoil in ["rm /dev/null", "rm /dev/null; echo > /dev/null", "ln -sf zero /dev/null"] {
        let bundle = Bundle::new();
        let web = bundle.container("web");
        web.up();
        web.sh(spoil).ok();
        let null = Null::new(&bundle);
        null.give(web.call("exec", &[]).args(&["sh", "-c", SPOIL])).run().ok();
        null.assert_untouched();
        let seen = fs::read_to_string(bundle.rootfs().join("seen")).unwrap();
        assert!(seen.starts_with(&"/null 1:3 ".repeat(3)), "{spoil}: {seen}");
    }
}

/// Files are masked with the host's null device: whose mode a chmod of /proc/keys would change.
#[test]
fn null_device_of_the_host_that_masks_is_read_only() {
    require!(root);
    let masked = "/proc/keys /proc/timer_list /proc/interrupts";
    let bundle =
        Bundle::sh(&format!("cd /; chmod 600 {masked} 2>&1; echo > /proc/keys; cat {masked}"));
    let paths: Vec<&str> = masked.split(' ').collect();
    bundle.edit(|config| config.set("/linux/maskedPaths", json!(paths)));
    let null = Null::new(&bundle);
    let script = "mount --bind \"$0\" /dev/null && exec \"$@\"";
    let null_path = null.0.to_str().unwrap();
    let prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, null_path];
    let output = bundle.container("web").call("run", &[]).through(&prefix).run().ok();
    null.assert_untouched();
    let refused = |path: &str| format!("chmod: {path}: Read-only file system\n");
    assert_eq!(output.stdout, masked.split(' ').map(refused).collect::<String>());
}

/// Nor any other device: a terminal of root's would be for the host's user of that number to read.
#[test]
fn row46_devices_of_the_caller_are_not_given_away() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["true"]).set("/process/user/uid", 1000));
    let path = bundle.dir().join("zero");
    assert!(host::tool(&["mknod", path.to_str().unwrap(), "c", "1", "5"]).0.success());
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let web = bundle.container("web");
    web.call("run", &[]).stdin(open()).stdout(open()).stderr(open()).run().ok();
    assert_eq!(fs::metadata(&path).unwrap().uid(), 0);
}

/// A stream on a read-only file system cannot be given away, and that is no reason to fail.
#[test]
fn row46_stdio_on_a_read_only_filesystem_is_no_error() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["cat"]).set("/process/user/uid", 1000));
    let dir = bundle.dir().join("read-only");
    fs::create_dir(&dir).unwrap();
    let target = dir.to_str().unwrap();
    assert!(host::tool(&["mount", "-t", "tmpfs", "tmpfs", target]).0.success());
    fs::write(dir.join("input"), "some input").unwrap();
    assert!(host::tool(&["mount", "-o", "remount,ro", target]).0.success());
    let input = File::open(dir.join("input")).unwrap();
    let output = bundle.container("web").call("run", &[]).stdin(input).run();
    assert!(host::tool(&["umount", target]).0.success());
    assert_eq!(output.ok().stdout, "some input");
}

/// nginx and many others open /dev/stdout and /dev/stderr by name, as a user.
#[test]
fn row47_a_user_can_reopen_dev_stdout_and_dev_stderr() {
    require!(root);
    let bundle = Bundle::sh("echo out > /dev/stdout; echo err > /dev/stderr");
    bundle.edit(|config| config.set("/process/user/uid", 1000));
    let web = bundle.container("web");
    let (mut stdout, their_out) = fds::pipe();
    let (mut stderr, their_err) = fds::pipe();
    web.call("create", &[]).stdout(their_out).stderr(their_err).run().ok();
    web.start().ok();
    assert_eq!(fds::read_to_end(&mut stdout), "out\n");
    assert_eq!(fds::read_to_end(&mut stderr), "err\n");
}

/// podman --preserve-fds: the same numbers inside, and not one more.
#[test]
fn row48_preserve_fds_keeps_the_numbers_and_nothing_more() {
    require!(root);
    let bundle = Bundle::sh("cat <&3; cat <&4; exec sleep 1000");
    let web = bundle.container("web");
    let create = web.call("create", &["--preserve-fds", "2"]);
    let create = create.fd(file(&bundle, "three"), 3).fd(file(&bundle, "four"), 4);
    let created = create.fd(file(&bundle, "five"), 5).run().ok();
    web.start().ok();
    eventually("both are read", || (created.stdout_now() == "threefour").then_some(()));
    assert_eq!(extra_fds(web.init()), [3, 4]);
}

/// podman --preserve-fd=5 leaves 3 and 4 closed.
#[test]
fn row48_preserve_fds_tolerates_holes() {
    require!(root);
    let bundle = Bundle::sh("cat <&5; exec sleep 1000");
    let web = bundle.container("web");
    let create = web.call("create", &["--preserve-fds", "3"]).fd(file(&bundle, "five"), 5);
    let created = create.run().ok();
    web.start().ok();
    eventually("it is read", || (created.stdout_now() == "five").then_some(()));
    assert_eq!(extra_fds(web.init()), [5]);
}

/// exec has the same option.
#[test]
fn row48_preserve_fds_of_exec() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let exec = web.call("exec", &["--preserve-fds=1"]).args(&["sh", "-c", "cat <&3"]);
    assert_eq!(exec.fd(file(&bundle, "three"), 3).run().ok().stdout, "three");
}

/// A hole below it, and our own descriptors in the hole.
#[test]
fn row48_preserve_fds_of_exec_with_a_hole() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    for preserved in 3..=8 {
        let number = 2 + preserved;
        let exec = web.call("exec", &["--preserve-fds", &preserved.to_string()]);
        let script = format!("cat <&{number}; ls /proc/self/fd | wc -l");
        let exec = exec.args(&["sh", "-c", &script]).fd(file(&bundle, "last"), number);
        // The three of stdio, this one, and the one that ls reads by.
        assert_eq!(exec.run().ok().stdout, "last5\n", "{preserved}");
    }
}

/// Socket activation: the descriptors are meant for the runtime whose pid LISTEN_PID names.
fn activated(call: Call, pid: &str) -> Call {
    let script = format!("LISTEN_FDS=1 LISTEN_PID={pid} exec \"$0\" \"$@\"");
    call.through(&["sh", "-c", &script])
}

/// The container sees them under its own pid, which is 1.
#[test]
fn row49_listen_fds_are_passed_on_when_listen_pid_matches() {
    require!(root);
    let bundle = Bundle::sh("cat <&3; echo \" $LISTEN_FDS $LISTEN_PID\"");
    let web = bundle.container("web");
    let run = activated(web.call("run", &[]).fd(file(&bundle, "three"), 3), "$$");
    assert_eq!(run.run().ok().stdout, "three 1 1\n");
}

/// Of exec only what --preserve-fds names goes to the process, which is not pid 1 either.
#[test]
fn row49_listen_fds_of_exec_are_not_passed_on() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let exec = web.call("exec", &[]).fd(file(&bundle, "three"), 3);
    let script = "echo ${LISTEN_FDS-none} ${LISTEN_PID-none}; [ ! -e /proc/self/fd/3 ] || cat <&3";
    let output = activated(exec.args(&["sh", "-c", script]), "$$").run().ok();
    assert_eq!(output.stdout, "none none\n");
}

/// They were for somebody else, such as conmon's parent.
#[test]
fn row49_listen_fds_of_another_pid_are_ignored() {
    require!(root);
    let bundle = Bundle::sh("echo \"${LISTEN_FDS-none} ${LISTEN_PID-none}\"; exec sleep 1000");
    let web = bundle.container("web");
    let create = web.call("create", &[]).fd(file(&bundle, "three"), 3);
    let created = activated(create, "1").run().ok();
    web.start().ok();
    eventually("it speaks", || (created.stdout_now() == "none none\n").then_some(()));
    assert_eq!(extra_fds(web.init()), [0; 0]);
}

/// podman passes both; counting both would shift and double the descriptors.
#[test]
fn row49_preserve_fds_with_a_foreign_listen_pid_counts_once() {
    require!(root);
    let bundle = Bundle::sh("cat <&3; exec sleep 1000");
    let web = bundle.container("web");
    let create = web.call("create", &["--preserve-fds", "1"]);
    let create = create.fd(file(&bundle, "three"), 3).fd(file(&bundle, "four"), 4);
    let created = activated(create, "1").run().ok();
    web.start().ok();
    eventually("it is read", || (created.stdout_now() == "three").then_some(()));
    assert_eq!(extra_fds(web.init()), [3]);
}

/// Detached, the container keeps only its own stdio: the runtime's pipes to its caller end.
#[test]
fn runtime_that_has_created_holds_nothing_of_its_callers() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let (mut ours, theirs) = fds::pipe();
    web.call("create", &[]).fd(theirs, 9).run().ok();
    assert_eq!(fds::read_to_end(&mut ours), "");
}
