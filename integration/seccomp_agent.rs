//! SCMP_ACT_NOTIFY: the agent gets a listener for every process, and answers its system calls.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Container, eventually, patience};

const SECCOMP_IOCTL_NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const SECCOMP_IOCTL_NOTIF_SEND: libc::c_ulong = 0xc018_2101;
const CAP_SYS_PTRACE: libc::c_ulong = 19;

/// What the agent makes of a notified call.
#[derive(Clone, Copy)]
enum Answer {
    Errno(i32),
    Done,
    Continue,
}

type Judge = fn(&libc::seccomp_notif) -> Answer;

/// A real agent: a socket, a container process state for each connection, an answer for each call.
struct Agent {
    path: PathBuf,
    states: Receiver<Value>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Agent {
    fn start(bundle: &Bundle, judge: Judge) -> Agent {
        let (socket, path) = listen(bundle);
        let (send, states) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || accept(&socket, &send, judge, &stopped));
        Agent { path, states, stop, threads: vec![thread] }
    }

    /// The next container process state.
    #[track_caller]
    fn state(&self) -> Value {
        self.states.recv_timeout(patience()).expect("no container process state has come")
    }

    /// No further state has come by now. It ends the agent, to be sure that it has taken all that was sent.
    #[track_caller]
    fn has_no_state(mut self) {
        self.end();
        assert!(self.states.try_recv().is_err());
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// The agent's socket, which nobody serves yet. It does not block.
fn listen(bundle: &Bundle) -> (UnixListener, PathBuf) {
    let path = bundle.dir().join("agent.sock");
    let _ = fs::remove_file(&path);
    let socket = UnixListener::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, path)
}

fn accept(socket: &UnixListener, send: &Sender<Value>, judge: Judge, stop: &Arc<AtomicBool>) {
    let mut serving = Vec::new();
    loop {
        // Asked before the look at the socket: what came before the stop is taken.
        let stopping = stop.load(Ordering::SeqCst);
        if !readable(socket.as_raw_fd()) {
            if stopping {
                break;
            }
            continue;
        }
        let (connection, _) = socket.accept().unwrap();
        connection.set_nonblocking(false).unwrap();
        let (bytes, fds) = receive(&connection);
        let [listener] = <[OwnedFd; 1]>::try_from(fds).expect("not one descriptor");
        send.send(serde_json::from_slice(&bytes).unwrap()).unwrap();
        let stop = stop.clone();
        serving.push(std::thread::spawn(move || serve(&listener, judge, &stop)));
    }
    for thread in serving {
        thread.join().unwrap();
    }
}

fn readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&mut poll, 1, 20) > 0 && poll.revents & libc::POLLIN != 0 }
}

/// All bytes up to the end of the connection; the descriptors have to come with the first.
fn receive(connection: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let (mut all, mut fds) = (Vec::new(), Vec::new());
    loop {
        let mut bytes = [0u8; 65536];
        let mut control = [0u64; 16];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control);
        let fd = connection.as_raw_fd();
        let count = unsafe { libc::recvmsg(fd, &mut message, libc::MSG_CMSG_CLOEXEC) };
        assert!(count >= 0, "{}", std::io::Error::last_os_error());
        let header = unsafe { libc::CMSG_FIRSTHDR(&message) };
        if !header.is_null() {
            assert!(all.is_empty(), "descriptors must come with the first bytes");
            let length = unsafe { (*header).cmsg_len } - unsafe { libc::CMSG_LEN(0) } as usize;
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            let raw = (0..length / 4).map(|index| unsafe { data.add(index).read_unaligned() });
            fds.extend(raw.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        if count == 0 {
            return (all, fds);
        }
        all.extend(&bytes[..count as usize]);
    }
}

/// Answers until the filter has no process any more.
fn serve(listener: &OwnedFd, judge: Judge, stop: &AtomicBool) {
    let fd = listener.as_raw_fd();
    while !stop.load(Ordering::SeqCst) {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        unsafe { libc::poll(&mut poll, 1, 20) };
        if poll.revents & libc::POLLHUP != 0 {
            return;
        }
        if poll.revents & libc::POLLIN == 0 {
            continue;
        }
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        if unsafe { libc::ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &mut call) } != 0 {
            continue;
        }
        let mut answer: libc::seccomp_notif_resp = unsafe { std::mem::zeroed() };
        answer.id = call.id;
        match judge(&call) {
            Answer::Errno(errno) => answer.error = -errno,
            Answer::Done => {}
            Answer::Continue => answer.flags = 1,
        }
        // Its process may have been killed meanwhile.
        unsafe { libc::ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer) };
    }
}

/// A string in the memory of the process that waits.
fn string_at(call: &libc::seccomp_notif, address: u64) -> String {
    use std::os::unix::fs::FileExt;
    let memory = fs::File::open(format!("/proc/{}/mem", call.pid)).unwrap();
    let mut bytes = [0u8; 256];
    let count = memory.read_at(&mut bytes, address).unwrap();
    let end = bytes[..count].iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Makes the directory itself, under another name, so that one can see who made it.
fn mkdir_by_agent(call: &libc::seccomp_notif) -> Answer {
    if i64::from(call.data.nr) == libc::SYS_mkdirat {
        return Answer::Errno(libc::EXDEV);
    }
    let path = string_at(call, call.data.args[0]);
    match fs::create_dir(format!("/proc/{}/root{path}.agent", call.pid)) {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Errno(error.raw_os_error().unwrap()),
    }
}

fn let_all_go_on(_: &libc::seccomp_notif) -> Answer {
    Answer::Continue
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

fn notify(names: &[&str], path: &Path) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path, "listenerMetadata": "who=me",
        "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }]
    })
}

/// A bundle whose filter notifies, and the path of its agent's socket.
fn bundle_with(names: &[&str], nnp: bool) -> Bundle {
    let bundle = Bundle::new();
    let profile = notify(names, &bundle.dir().join("agent.sock"));
    bundle.edit(|config| {
        config.set("/linux/seccomp", profile).set("/process/noNewPrivileges", nnp);
        config.set("/annotations", json!({ "org.example": "note" }))
    });
    bundle
}

/// The runtime without CAP_SYS_PTRACE: it cannot take the listener out of its child.
fn without_ptrace(call: crate::support::Call) -> crate::support::Call {
    call.before_exec(|| {
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0) };
    })
}

/// config-linux.md, "Container Process State": everything in it, sent while the status is creating.
#[test]
fn agent_gets_the_container_process_state_and_the_listener_at_create() {
    require!(root);
    for nnp in [true, false] {
        let bundle = bundle_with(&MKDIR, nnp);
        // Nobody serves it: what is there to be taken was sent before create returned.
        let (socket, _) = listen(&bundle);
        let web = bundle.container("web");
        web.create().ok();
        let (connection, _) = socket.accept().expect("nobody had connected when create returned");
        connection.set_nonblocking(true).unwrap();
        let (bytes, fds) = receive(&connection);
        assert_eq!(fds.len(), 1);
        let told: Value = serde_json::from_slice(&bytes).unwrap();
        let pid = web.init().0;
        assert_eq!(told["ociVersion"], "1.0.2");
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["pid"], pid);
        assert_eq!(told["metadata"], "who=me");
        let state = &told["state"];
        assert_eq!((&state["id"], &state["status"]), (&json!("web"), &json!("creating")));
        assert_eq!((&state["pid"], &state["ociVersion"]), (&json!(pid), &json!("1.0.2")));
        assert_eq!(state["bundle"], bundle.path().to_str().unwrap());
        assert_eq!(state["annotations"], json!({ "org.example": "note" }));
        assert_eq!(web.status(), "created");
        assert!(socket.accept().is_err(), "more than one state");
    }
}

/// A waiting init must hold nothing of the agent's: with a copy of the listener, calls would wait for
/// an agent that is dead.
#[test]
fn created_init_does_not_keep_the_listener() {
    require!(root);
    let bundle = bundle_with(&MKDIR, true);
    let _agent = Agent::start(&bundle, mkdir_by_agent);
    let web = bundle.container("web");
    web.create().ok();
    let fds = web.init().fds();
    assert!(!fds.values().any(|path| path.to_string_lossy().contains("seccomp")), "{fds:?}");
    assert_eq!(fds.len(), 5, "{fds:?}");
}

/// The agent's answer is what the call returns: mkdir is emulated, mkdirat fails as it says.
#[test]
fn agent_emulates_mkdir_for_init_and_exec() {
    require!(root);
    for nnp in [true, false] {
        let bundle = bundle_with(&MKDIR, nnp);
        bundle.edit(|config| config.sh("mkdir /tmp/init; exec sleep 1000"));
        let agent = Agent::start(&bundle, mkdir_by_agent);
        let web = bundle.container("web");
        web.up();
        agent.state();
        let made = |name: &str| bundle.rootfs().join("tmp").join(name).exists();
        eventually("the agent has made it", || made("init.agent").then_some(()));
        web.exec(&["mkdir", "/tmp/exec"]).ok();
        assert!(made("exec.agent") && !made("exec") && !made("init"));
    }
}

/// One state for each process: exec's has its own pid and the state of the running container.
#[test]
fn agent_gets_a_state_of_its_own_for_exec() {
    require!(root);
    for nnp in [true, false] {
        let bundle = bundle_with(&MKDIR, nnp);
        let agent = Agent::start(&bundle, mkdir_by_agent);
        let web = bundle.container("web");
        web.up();
        agent.state();
        let file = bundle.dir().join("exec.pid");
        let options = ["--detach", "--pid-file", file.to_str().unwrap()];
        web.call("exec", &options).args(&["sleep", "999"]).run().ok();
        let told = agent.state();
        assert_eq!(told["pid"].to_string(), fs::read_to_string(&file).unwrap());
        assert_eq!((&told["metadata"], &told["fds"]), (&json!("who=me"), &json!(["seccompFd"])));
        assert_eq!(told["state"]["status"], "running");
        assert_eq!(told["state"]["pid"], web.init().0);
        agent.has_no_state();
    }
}

/// Nobody there: told before anything is made.
#[test]
fn agent_that_is_not_there_fails_create_and_exec() {
    require!(root);
    let bundle = bundle_with(&MKDIR, true);
    let web = bundle.container("web");
    let output = web.create().fails_with("/linux/seccomp/listenerPath: connect");
    output.fails_with("no such file or directory");
    bundle.assert_clean();
    let agent = Agent::start(&bundle, mkdir_by_agent);
    web.up();
    fs::remove_file(&agent.path).unwrap();
    let output = web.exec(&["true"]).exits(255);
    output.fails_with("/linux/seccomp/listenerPath: connect");
    assert_eq!(web.status(), "running");
}

/// The spec: a state that cannot be sent is an error.
#[test]
fn agent_that_hangs_up_fails_create_and_leaves_nothing() {
    require!(root);
    let bundle = bundle_with(&MKDIR, true);
    let socket = UnixListener::bind(bundle.dir().join("agent.sock")).unwrap();
    let hang_up = std::thread::spawn(move || drop(socket.accept().unwrap()));
    // It has hung up for sure when the hook has run.
    bundle.edit(|config| config.hook("createRuntime", "/bin/sh", &["sh", "-c", "sleep 0.3"]));
    let web = bundle.container("web");
    web.create().fails_with("/linux/seccomp/listenerPath: sendmsg: broken pipe");
    hang_up.join().unwrap();
    bundle.assert_clean();
}

/// The very calls with which the runtime works may be notified, too: nothing may wait for itself.
#[test]
fn agent_may_be_asked_about_every_call() {
    require!(root);
    let own = ["read", "write", "sendmsg", "recvmsg", "close", "capset", "prctl", "execve", "mmap"];
    for nnp in [true, false] {
        for default in [false, true] {
            let bundle = bundle_with(&own, nnp);
            if default {
                bundle.edit(|config| {
                    config.set("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY");
                    config.remove("/linux/seccomp/syscalls")
                });
            }
            let agent = Agent::start(&bundle, let_all_go_on);
            let web = bundle.container("web");
            web.up();
            assert_eq!(web.exec(&["echo", "hi"]).ok().stdout, "hi\n", "{nnp} {default}");
            agent.state();
            agent.state();
        }
    }
}

/// Without the right to take it, the runtime has the child send the listener.
#[test]
fn listener_is_sent_by_the_child_of_a_runtime_without_cap_sys_ptrace() {
    require!(root);
    for nnp in [true, false] {
        let bundle = bundle_with(&["mkdir", "mkdirat", "write"], nnp);
        let agent = Agent::start(&bundle, |call| match i64::from(call.data.nr) {
            libc::SYS_write => Answer::Continue,
            _ => mkdir_by_agent(call),
        });
        let web = bundle.container("web");
        without_ptrace(web.call("create", &[])).run().ok();
        web.start().ok();
        assert_eq!(agent.state()["state"]["status"], "creating");
        let exec = web.call("exec", &[]).args(&["mkdir", "/tmp/exec"]);
        without_ptrace(exec).run().ok();
        assert_eq!(agent.state()["state"]["status"], "running");
        assert!(bundle.rootfs().join("tmp/exec.agent").exists());
    }
}

/// It could never end: refused before anything is made.
#[test]
fn notified_sendmsg_is_refused_to_a_runtime_without_cap_sys_ptrace() {
    require!(root);
    let bundle = bundle_with(&["mkdir", "sendmsg"], true);
    let _agent = Agent::start(&bundle, let_all_go_on);
    let web = bundle.container("web");
    let output = without_ptrace(web.call("create", &[])).run();
    output.fails_with("/linux/seccomp/syscalls/0/names: sendmsg would be notified");
    bundle.assert_clean();
}

/// config-linux.md: without a notification the path is ignored.
#[test]
fn listener_path_without_notify_is_ignored() {
    require!(root);
    let bundle = Bundle::with(|config| {
        let rule = json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": 28 });
        let path = "/no/such/socket";
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [rule]
        });
        config.set("/linux/seccomp", profile)
    });
    let web = bundle.container("web");
    web.up();
    assert!(web.exec(&["mkdir", "/tmp/x"]).fails().stderr.contains("No space left"));
}

#[test]
fn notify_as_default_action_without_listener_path_is_refused() {
    require!(root);
    let bundle =
        Bundle::with(|config| config.set("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY"));
    refused_at(&bundle, &["/linux/seccomp/listenerPath"]);
}

/// The flag that makes the wait for an agent killable.
#[test]
fn agent_with_the_flag_wait_killable_recv() {
    require!(root);
    let bundle = bundle_with(&MKDIR, true);
    let flags = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]);
    bundle.edit(|config| config.set("/linux/seccomp/flags", flags));
    let _agent = Agent::start(&bundle, mkdir_by_agent);
    let web = bundle.container("web");
    web.up();
    web.exec(&["mkdir", "/tmp/x"]).ok();
    assert!(bundle.rootfs().join("tmp/x.agent").exists());
}

/// Nobody answers any more: calls fail instead of waiting for ever.
#[test]
fn calls_fail_with_enosys_when_the_agent_has_died() {
    require!(root);
    let bundle = bundle_with(&MKDIR, true);
    bundle.edit(|config| {
        config.sh("while test ! -e /tmp/go; do sleep 0.02; done; mkdir /tmp/x; exec sleep 1000")
    });
    let agent = Agent::start(&bundle, mkdir_by_agent);
    let web: Container = bundle.container("web");
    let created = web.create().ok();
    drop(agent);
    web.start().ok();
    fs::write(bundle.rootfs().join("tmp/go"), "").unwrap();
    let said = || created.stderr_now().contains("Function not implemented").then_some(());
    eventually("mkdir has failed", said);
}
