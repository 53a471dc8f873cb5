//! Terminals: the console socket of detached containers, the caller's own terminal in the
//! foreground.

use std::fs;
use std::os::fd::OwnedFd;

use serde_json::json;

use crate::support::pty::{self, FdSocket, Pty};
use crate::support::{Bundle, Call, Container, Process, eventually, fds};
use crate::user_namespaces::{mapped, own};

/// A bundle with a terminal that runs a shell script.
fn terminal(script: &str) -> Bundle {
    Bundle::with(|config| config.sh(script).set("/process/terminal", true))
}

/// Creates with a console socket and returns the master of the terminal.
fn create_with_console(bundle: &Bundle, web: &Container) -> fs::File {
    let socket = FdSocket::bind(bundle.dir());
    web.call("create", &["--console-socket", socket.path()]).run().ok();
    master_of(socket)
}

fn master_of(socket: FdSocket) -> fs::File {
    let mut received = socket.receive();
    assert_eq!(received.fds.len(), 1, "{received:?}");
    received.fds.remove(0).into()
}

/// Gives a call the slave of a terminal as all three streams.
fn on_terminal(call: Call, pty: &Pty) -> Call {
    let slave = || fds::duplicate(&pty.slave);
    call.stdin(slave()).stdout(slave()).stderr(slave())
}

/// docker and podman rely on the error: a container without its console would hang.
#[test]
fn row42_terminal_without_a_console_socket_is_refused() {
    require!(root);
    let bundle = terminal("true");
    let web = bundle.container("web");
    web.create().fails_with("console socket");
    web.call("run", &["--detach"]).run().fails_with("console socket");
    bundle.assert_clean();
}

/// And the other way round.
#[test]
fn row42_console_socket_without_a_terminal_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let socket = FdSocket::bind(bundle.dir());
    for command in [&["create"][..], &["run", "--detach"], &["run"]] {
        let options = [&command[1..], &["--console-socket", socket.path()]].concat();
        web.call(command[0], &options).run().fails();
    }
    bundle.assert_clean();
}

/// A console that nobody listens for is an error of create, which leaves nothing.
#[test]
fn row42_console_socket_that_does_not_exist() {
    require!(root);
    let bundle = terminal("true");
    let web = bundle.container("web");
    web.call("create", &["--console-socket", "/no/such/socket"]).run().fails();
    bundle.assert_clean();
}

/// containerd accepts only after create has returned: waiting for an answer would be a deadlock.
#[test]
fn row43_console_socket_gets_one_message_with_one_descriptor() {
    require!(root);
    let bundle = terminal("echo hello; tty; sleep 1000");
    let web = bundle.container("web");
    let socket = FdSocket::bind(bundle.dir());
    web.call("create", &["--console-socket", socket.path()]).run().ok();
    let mut received = socket.receive();
    assert_eq!(received.fds.len(), 1, "{received:?}");
    assert!((1..4096).contains(&received.payload.len()), "{received:?}");
    assert!(received.closed, "{received:?}");
    web.start().ok();
    let mut master = received.fds.remove(0).into();
    assert!(pty::read_until(&mut master, "/dev/pts/0").contains("hello"));
}

/// podman runs the runtime in another directory than the bundle.
#[test]
fn row43_relative_console_socket_belongs_to_the_callers_directory() {
    require!(root);
    let bundle = terminal("echo hello; sleep 1000");
    let web = bundle.container("web");
    let socket = FdSocket::bind(bundle.dir());
    web.call("create", &["--console-socket", "fd.sock"]).cwd(bundle.dir()).run().ok();
    web.start().ok();
    pty::read_until(&mut master_of(socket), "hello");
}

/// docker run -t gives the size of the user's terminal.
#[test]
fn row44_console_size_is_applied() {
    require!(root);
    let bundle = terminal("stty size; sleep 1000");
    bundle.edit(|config| config.set("/process/consoleSize", json!({ "height": 33, "width": 77 })));
    let web = bundle.container("web");
    let mut master = create_with_console(&bundle, &web);
    assert_eq!(pty::size(&master), (33, 77));
    web.start().ok();
    pty::read_until(&mut master, "33 77");
}

/// Job control and getpass need the controlling terminal; systemd needs /dev/console.
#[test]
fn row44_terminal_is_controlling_and_bound_to_dev_console() {
    require!(root);
    let bundle = terminal("echo one > /dev/tty; echo two > /dev/console; sleep 1000");
    let web = bundle.container("web");
    let mut master = create_with_console(&bundle, &web);
    let init = web.init();
    web.start().ok();
    let text = pty::read_until(&mut master, "two");
    assert!(text.contains("one"), "{text}");
    // Field 7 is the controlling terminal, 8 its foreground process group.
    assert_ne!(init.stat(7).as_deref(), Some("0"));
    assert_eq!(init.stat(8), Some(init.0.to_string()));
    let console = init.mount_at("/dev/console").expect("no mount on /dev/console");
    assert_eq!(console.fstype, "devpts");
}

/// The slave belongs to the user of the process, who must be able to open it again.
#[test]
fn row44_terminal_belongs_to_the_user() {
    require!(root);
    let bundle = terminal("echo again > /dev/tty; stat -c %u $(tty); sleep 1000");
    bundle.edit(|config| config.set("/process/user/uid", 1000));
    let web = bundle.container("web");
    let mut master = create_with_console(&bundle, &web);
    web.start().ok();
    assert!(pty::read_until(&mut master, "1000").contains("again"));
}

/// containerd reads create's output to its end; init must not keep it open.
#[test]
fn row45_with_a_terminal_init_does_not_hold_the_runtimes_stdio() {
    require!(root);
    let bundle = terminal("sleep 1000");
    let web = bundle.container("web");
    let socket = FdSocket::bind(bundle.dir());
    let (mut stdout, out) = fds::pipe();
    let (mut stderr, err) = fds::pipe();
    let create = web.call("create", &["--console-socket", socket.path()]);
    create.stdout(out).stderr(err).run().ok();
    assert_eq!(fds::read_to_end(&mut stdout), "");
    assert_eq!(fds::read_to_end(&mut stderr), "");
    let links = web.init().fds();
    for number in 0..3 {
        assert!(links[&number].starts_with("/dev/pts"), "{links:?}");
    }
}

/// docker build -t and people: input, output, and raw mode for as long as it runs.
#[test]
fn row61_run_on_the_callers_terminal() {
    require!(root);
    let bundle = terminal("echo up; read line; echo \"got <$line>\"; exit 5");
    let web = bundle.container("web");
    let mut caller = Pty::open(20, 60);
    assert!(!caller.is_raw());
    let run = on_terminal(web.call("run", &[]), &caller).spawn();
    pty::read_until(&mut caller.master, "up");
    assert!(caller.is_raw());
    pty::write(&mut caller.master, "typed\r");
    pty::read_until(&mut caller.master, "got <typed>");
    run.wait().exits(5);
    assert!(!caller.is_raw());
}

/// systemd, getty and login close every descriptor of theirs for a terminal and open it again.
#[test]
fn row61_terminal_that_is_closed_and_opened_again() {
    require!(root);
    let bundle = terminal(
        "echo up; exec < /dev/null > /dev/null 2>&1; sleep 1; \
         exec < /dev/console > /dev/console 2>&1; echo again; read line; echo \"got <$line>\"",
    );
    let web = bundle.container("web");
    let mut caller = Pty::open(20, 60);
    let run = on_terminal(web.call("run", &[]), &caller).spawn();
    pty::read_until(&mut caller.master, "again");
    pty::write(&mut caller.master, "typed\r");
    pty::read_until(&mut caller.master, "got <typed>");
    run.wait().exits(0);
}

/// podman run -it -v /dev:/dev without rights: ptmx of the host's devpts is closed to the user.
#[test]
fn terminal_of_the_hosts_dev_in_a_user_namespace() {
    require!(root);
    let bundle = terminal("tty && echo fine");
    bundle.edit(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let options = ["rbind", "rslave"];
        let dev = json!({ "destination": "/dev", "source": "/dev", "options": options });
        mapped(config.push("/mounts", dev))
    });
    own(&bundle);
    let web = bundle.container("web");
    let mut caller = Pty::open(20, 60);
    let run = on_terminal(web.call("run", &[]), &caller).spawn();
    pty::read_until(&mut caller.master, "fine");
    run.wait().exits(0);
}

/// Ctrl-C goes through the raw terminal to the process inside, not to the runtime.
#[test]
fn row61_control_characters_reach_the_process() {
    require!(root);
    let bundle =
        terminal("trap 'echo interrupted; exit 6' INT; echo up; while :; do sleep 0.02; done");
    let web = bundle.container("web");
    let mut caller = Pty::open(20, 60);
    let run = on_terminal(web.call("run", &[]), &caller).spawn();
    pty::read_until(&mut caller.master, "up");
    pty::write(&mut caller.master, "\x03");
    pty::read_until(&mut caller.master, "interrupted");
    run.wait().exits(6);
}

/// CVE-2017-5226, T32: the process gets a terminal of its own, in which it can push characters
/// without the caller's shell ever reading them.
#[test]
fn row61_process_never_holds_the_callers_terminal() {
    require!(root);
    let bundle = terminal("echo up; sleep 1000");
    let web = bundle.container("web");
    let mut caller = Pty::open(20, 60);
    let run = on_terminal(web.call("run", &[]), &caller).spawn();
    pty::read_until(&mut caller.master, "up");
    let init = web.init();
    let theirs = caller_device(&caller.slave);
    for number in 0..3 {
        assert_ne!(device(&init, number), theirs, "fd {number}");
    }
    web.kill("KILL").ok();
    run.wait().exits(128 + 9);
}

/// buildkit sends SIGWINCH to the runtime when the user's window changes.
#[test]
fn row60_sigwinch_resizes_the_terminal_inside() {
    require!(root);
    let script = "until stty size | grep '20 60'; do sleep 0.02; done 2>/dev/null; \
        trap 'stty size' WINCH; echo up; while :; do sleep 0.02; done";
    let bundle = terminal(script);
    let web = bundle.container("web");
    let mut caller = Pty::open(20, 60);
    let run = on_terminal(web.call("run", &[]), &caller).spawn();
    pty::read_until(&mut caller.master, "up");
    pty::resize(&caller.master, 41, 141);
    run.signal(libc::SIGWINCH);
    pty::read_until(&mut caller.master, "41 141");
    web.kill("KILL").ok();
    run.wait().exits(128 + 9);
}

/// kubectl exec -t.
#[test]
fn row61_exec_on_the_callers_terminal() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let mut caller = Pty::open(20, 60);
    let script = "until stty size | grep '20 60'; do sleep 0.02; done 2>/dev/null; tty; \
        read line; echo \"got <$line>\"; exit 5";
    let call = web.call("exec", &["--tty"]).args(&["sh", "-c", script]);
    let exec = on_terminal(call, &caller).spawn();
    pty::read_until(&mut caller.master, "/dev/pts/");
    assert!(caller.is_raw());
    pty::write(&mut caller.master, "typed\r");
    pty::read_until(&mut caller.master, "got <typed>");
    exec.wait().exits(5);
    assert!(!caller.is_raw());
}

/// docker exec -t: process file with a terminal, console socket, detached.
#[test]
fn row67_exec_detached_with_a_process_file_and_console_socket() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let env = json!(["PATH=/bin"]);
    let object = json!({
        "terminal": true, "consoleSize": { "height": 12, "width": 34 }, "env": env, "cwd": "/",
        "user": { "uid": 0, "gid": 0 }, "args": ["sh", "-c", "stty size; tty; sleep 999"]
    });
    let (file, pid) = (bundle.dir().join("process.json"), bundle.dir().join("pid"));
    fs::write(&file, object.to_string()).unwrap();
    let socket = FdSocket::bind(bundle.dir());
    let options = ["--process", file.to_str().unwrap(), "--console-socket", socket.path()];
    let options = [&options[..], &["--detach", "--pid-file", pid.to_str().unwrap()]].concat();
    web.call("exec", &options).run().ok();
    // Kept open: it would hang up.
    let mut master = master_of(socket);
    let text = pty::read_until(&mut master, "/dev/pts/");
    assert!(text.contains("12 34"), "{text}");
    let process = Process::of_pid_file(&pid);
    assert_eq!(process.status("PPid"), Process::own().0.to_string());
}

/// conmon-rs has no process file: `--tty` on the command line.
#[test]
fn row67_exec_detached_with_tty_and_console_socket() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let socket = FdSocket::bind(bundle.dir());
    let console = format!("--console-socket={}", socket.path());
    let exec = web.call("exec", &["-d", &console, "--tty"]);
    exec.args(&["sh", "-c", "echo up; sleep 999"]).run().ok();
    pty::read_until(&mut master_of(socket), "up");
}

/// The same rule as for create.
#[test]
fn row67_exec_detached_with_tty_needs_a_console_socket() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.call("exec", &["--detach", "--tty"]).args(&["true"]).run().fails_with("console socket");
}

/// go-runc asks for a pidfd of init and of an exec'd process.
#[test]
fn row51_pidfd_socket_gets_a_pidfd_of_the_process() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let socket = FdSocket::bind(bundle.dir());
    web.call("create", &["--pidfd-socket", socket.path()]).run().ok();
    assert_eq!(pidfd_of(&socket), web.init().0);
    web.start().ok();
    let pid = bundle.dir().join("pid");
    let options = ["--pidfd-socket", socket.path(), "--pid-file", pid.to_str().unwrap(), "-d"];
    web.call("exec", &options).args(&["sleep", "999"]).run().ok();
    assert_eq!(pidfd_of(&socket).to_string(), fs::read_to_string(pid).unwrap());
}

/// The pid that a received pidfd is for.
fn pidfd_of(socket: &FdSocket) -> i32 {
    use std::os::fd::AsRawFd;
    let received = socket.receive();
    assert_eq!(received.fds.len(), 1, "{received:?}");
    let info = Process::own().read(&format!("fdinfo/{}", received.fds[0].as_raw_fd()));
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("not a pidfd");
    line.trim().parse().unwrap()
}

/// The terminal behind a descriptor of a process, as file system and inode.
fn device(process: &Process, number: i32) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let facts = eventually("the descriptor is open", || {
        fs::metadata(format!("/proc/{}/fd/{number}", process.0)).ok()
    });
    (facts.dev(), facts.ino())
}

fn caller_device(slave: &OwnedFd) -> (u64, u64) {
    use std::os::fd::AsRawFd;
    device(&Process::own(), slave.as_raw_fd())
}
