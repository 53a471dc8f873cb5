//! sd_notify(3): the container's READY=1 reaches who waits for the runtime.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::json;

use crate::support::{Bundle, Call, Container, patience};

/// A service manager's socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        Manager(socket)
    }

    /// One message, and the descriptor that came with it; reading it closes it, as systemd does.
    fn receive(&self) -> (String, Option<OwnedFd>) {
        use std::os::fd::AsRawFd;
        let (mut bytes, mut control) = ([0u8; 4096], [0u64; 16]);
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = std::mem::size_of_val(&control) as _;
        let flags = libc::MSG_CMSG_CLOEXEC;
        let got = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut header, flags) };
        assert!(got >= 0, "nothing came: {}", std::io::Error::last_os_error());
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        let fd = (!first.is_null()).then(|| unsafe {
            OwnedFd::from_raw_fd(libc::CMSG_DATA(first).cast::<i32>().read_unaligned())
        });
        (String::from_utf8_lossy(&bytes[..got as usize]).into_owned(), fd)
    }

    /// READY with the pid to watch, then the barrier.
    #[track_caller]
    fn is_told(&self, web: &Container<'_>) {
        let (ready, none) = self.receive();
        assert_eq!(ready, format!("MAINPID={}\nREADY=1\n", web.init().0));
        assert!(none.is_none());
        let (barrier, fd) = self.receive();
        assert_eq!((barrier.as_str(), fd.is_some()), ("BARRIER=1", true));
    }

    /// Nothing more has come.
    #[track_caller]
    fn is_silent(&self) {
        self.0.set_nonblocking(true).unwrap();
        let got = self.0.recv(&mut [0; 64]);
        assert!(got.is_err(), "{got:?}");
        self.0.set_nonblocking(false).unwrap();
    }
}

/// A script that says READY=1 by what busybox has: its logger writes to the datagram socket /dev/log, and
/// the second line of its message is a line of its own.
const SAY_READY: &str = "ln -s \"$NOTIFY_SOCKET\" /dev/log && logger \"STATUS=soon\nREADY=1\"";

fn told(call: Call, socket: &Path) -> Call {
    call.env("NOTIFY_SOCKET", socket)
}

#[test]
fn notify_start_waits_for_ready_and_passes_it_on_with_the_pid() {
    require!(root);
    let script = format!("until [ -e /go ]; do sleep 0.01; done; {SAY_READY}; exec sleep 1000");
    let bundle = Bundle::sh(&script);
    let path = bundle.dir().join("manager");
    let manager = Manager::at(&path);
    let web = bundle.container("web");
    told(web.call("create", &[]), &path).run().ok();
    let start = told(web.call("start", &[]), &path).spawn();
    web.becomes("running");
    assert!(!start.has_ended(), "start did not wait");
    manager.is_silent();
    fs::write(bundle.rootfs().join("go"), "").unwrap();
    manager.is_told(&web);
    start.wait().ok();
    web.remove();
}

#[test]
fn notify_run_detached_waits_and_in_the_foreground_stays() {
    require!(root);
    let bundle = Bundle::sh(&format!("{SAY_READY}; exec sleep 1000"));
    let path = bundle.dir().join("manager");
    let manager = Manager::at(&path);
    let web = bundle.container("web");
    let detached = told(web.call("run", &["-d"]), &path).spawn();
    manager.is_told(&web);
    detached.wait().ok();
    web.remove();
    let foreground = told(web.call("run", &[]), &path).spawn();
    manager.is_told(&web);
    assert!(!foreground.has_ended());
    web.kill("KILL").ok();
    foreground.wait().exits(137);
}

/// The container's environment names the socket, and its directory holds nothing that it could change.
#[test]
fn notify_socket_is_in_a_read_only_directory_of_the_container() {
    require!(root);
    let script =
        "echo $NOTIFY_SOCKET; grep ' /run/notify ' /proc/self/mountinfo; touch /run/notify/x";
    let bundle = Bundle::with(|config| {
        config.push("/process/env", json!("NOTIFY_SOCKET=/from/the/config"));
        config.sh(script)
    });
    let path = bundle.dir().join("manager");
    let _manager = Manager::at(&path);
    let output = told(bundle.container("web").call("run", &[]), &path).run();
    assert!(output.stdout.starts_with("/run/notify/notify.sock\n"), "{output}");
    assert!(output.stdout.contains("ro,nosuid,nodev,noexec"), "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
}

/// Whoever the process is, and whatever the caller's mask is.
#[test]
fn notify_socket_is_for_any_user() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.sh("stat -c %a /run/notify /run/notify/notify.sock");
        config.set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
    });
    let path = bundle.dir().join("manager");
    let _manager = Manager::at(&path);
    let call = told(bundle.container("web").call("run", &[]), &path);
    let call = call.before_exec(|| {
        unsafe { libc::umask(0o077) };
    });
    assert_eq!(call.run().ok().stdout, "755\n777\n");
}

/// A container that ends without a word ends the wait.
#[test]
fn notify_start_returns_when_the_container_ends() {
    require!(root);
    let bundle = Bundle::sh("exit 3");
    let path = bundle.dir().join("manager");
    let manager = Manager::at(&path);
    let web = bundle.container("web");
    told(web.call("create", &[]), &path).run().ok();
    told(web.call("start", &[]), &path).run().ok();
    manager.is_silent();
    web.remove();
}

#[test]
fn notify_socket_that_is_not_there_fails_start_before_it_starts() {
    require!(root);
    let bundle = Bundle::new();
    let path = bundle.dir().join("manager");
    let web = bundle.container("web");
    told(web.call("create", &[]), &path).run().ok();
    let failed = told(web.call("start", &[]), &path).run().fails_with("NOTIFY_SOCKET: ");
    assert_eq!(failed.log()[0]["code"], "E_NOTIFY", "{failed}");
    assert_eq!(web.status(), "created");
    web.start().ok();
    web.becomes("running");
}

/// systemd ends a line at a carriage return, too: what comes behind one is the container's, and not READY.
#[test]
fn notify_passes_on_nothing_behind_a_carriage_return() {
    require!(root);
    let bundle = Bundle::sh(
        "ln -s \"$NOTIFY_SOCKET\" /dev/log && logger \"$(printf 'x\\nREADY=1\\rMAINPID=1\\rX=')\"; exec sleep 1000",
    );
    let path = bundle.dir().join("notify");
    let manager = Manager::at(&path);
    let web = bundle.container("web");
    told(web.call("create", &[]), &path).run().ok();
    let start = told(web.call("start", &[]), &path).spawn();
    manager.is_told(&web);
    start.wait().ok();
}

#[test]
fn notify_abstract_socket() {
    require!(root);
    use std::os::linux::net::SocketAddrExt;
    let bundle = Bundle::sh(&format!("{SAY_READY}; exec sleep 1000"));
    let name = format!("{}-manager", bundle.name());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    let manager = Manager(socket);
    let web = bundle.container("web");
    let run = web.call("run", &["-d"]).env("NOTIFY_SOCKET", format!("@{name}")).spawn();
    manager.is_told(&web);
    run.wait().ok();
}

/// Without the variable there is no trace of it.
#[test]
fn notify_is_not_there_when_nobody_asks() {
    require!(root);
    let bundle = Bundle::sh("env; ls /run/notify");
    let web = bundle.container("web");
    let output = web.run();
    assert!(
        !output.stdout.contains("NOTIFY") && output.stderr.contains("No such file"),
        "{output}"
    );
    assert!(!bundle.rootfs().join("run/notify").exists());
}
