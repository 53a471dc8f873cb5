//! exec: what the new process is, where it lands, what it returns.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, Process, eventually, fds, host, patience, reaper};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `exec --detach` with more options: the process, as the pid file names it.
fn detached(bundle: &Bundle, web: &Container, options: &[&str], args: &[&str]) -> Process {
    let file = bundle.dir().join("exec.pid");
    let mut all = vec!["--detach", "--pid-file", file.to_str().unwrap()];
    all.extend(options);
    web.call("exec", &all).args(args).run().ok();
    Process::of_pid_file(&file)
}

/// A process object in a file, as every engine passes it.
fn process_file(bundle: &Bundle, process: &Value) -> PathBuf {
    let path = bundle.dir().join("process.json");
    fs::write(&path, process.to_string()).unwrap();
    path
}

/// conmon and the shim wait for it: it must become their child, with its own exit status.
#[test]
fn row32_exec_detached_becomes_a_child_of_the_subreaper() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let wait = "while test ! -e /tmp/go; do sleep 0.02; done; exit 7";
    let process = detached(&bundle, &web, &[], &["sh", "-c", wait]);
    assert_eq!(process.status("PPid"), Process::own().0.to_string());
    fs::write(bundle.rootfs().join("tmp/go"), "").unwrap();
    assert_eq!(reaper::wait(process.0, patience()).unwrap().code(), Some(7));
}

/// conmon ends a timed-out exec by its process group, which must not be conmon's own.
#[test]
fn row33_exec_process_leads_its_session_and_process_group() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let process = detached(&bundle, &web, &[], &["sleep", "999"]);
    let pid = Some(process.0.to_string());
    assert_eq!((process.stat(5), process.stat(6)), (pid.clone(), pid));
}

/// The file is the whole process: nothing of the config's own process may shine through.
#[test]
fn row63_process_file_replaces_the_process_entirely() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.push("/process/env", "SECRET=1".into()).set("/process/cwd", "/home");
        config.set("/process/user/additionalGids", json!([4711]))
    });
    let web = bundle.container("web");
    web.up();
    let object = json!({
        "args": ["sleep", "999"], "env": [PATH, "HOME=/x", "OWN=2"], "cwd": "/tmp",
        "user": { "uid": 1000, "gid": 1001, "additionalGids": [1002] },
        "capabilities": { "bounding": ["CAP_KILL"] },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 333, "hard": 333 }]
    });
    let file = process_file(&bundle, &object);
    let process = detached(&bundle, &web, &["--process", file.to_str().unwrap()], &[]);
    assert_eq!(process.cmdline(), ["sleep", "999"]);
    assert_eq!(process.environ(), ["HOME=/x", "OWN=2", PATH]);
    assert_eq!(process.cwd(), "/tmp");
    assert_eq!(process.status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(process.status("Gid"), "1001\t1001\t1001\t1001");
    assert_eq!(process.status("Groups"), "1002");
    assert_eq!(process.status("CapBnd"), "0000000000000020");
    assert_eq!(process.status("CapEff"), "0000000000000000");
    assert_eq!(process.status("NoNewPrivs"), "0");
    let limits = process.read("limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("333"));
}

/// But for what would take rights away, or give more, by not being said: as with runc and crun.
#[test]
fn row63_process_file_without_capabilities_has_the_containers() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let user = json!({ "uid": 0, "gid": 0 });
    let mut object = json!({ "args": ["sleep", "999"], "env": [PATH], "cwd": "/", "user": user });
    for capabilities in [None, Some(json!(null)), Some(json!({}))] {
        let none = capabilities == Some(json!({}));
        if let Some(capabilities) = capabilities {
            object["capabilities"] = capabilities;
        }
        let file = process_file(&bundle, &object);
        let process = detached(&bundle, &web, &["--process", file.to_str().unwrap()], &[]);
        let own = if none { "0000000000000000".to_owned() } else { web.init().status("CapEff") };
        assert_eq!(process.status("CapEff"), own, "{object}");
        assert_ne!(web.init().status("CapEff"), "0000000000000000");
    }
}

/// The child that enters the namespaces is killed (for memory) after its clone is there, which has its line to exec.
#[test]
fn exec_whose_entering_child_is_killed_fails_and_leaves_no_process() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let kill = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=sendmsg", "-e"];
    let kill = [&kill[..], &["inject=sendmsg:signal=KILL:when=1"]].concat();
    let output = web.call("exec", &[]).args(&["true"]).through(&kill).run();
    output.fails_with("the process that enters the namespaces was killed");
    assert_eq!(web.call("ps", &["-f", "json"]).run().ok().stdout, format!("[{}]\n", web.init().0));
}

/// containerd removes the file as soon as exec has returned.
#[test]
fn row63_process_file_may_be_removed_after_exec_returns() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let user = json!({ "uid": 0, "gid": 0 });
    let object = json!({ "args": ["sleep", "999"], "env": [PATH], "cwd": "/", "user": user });
    let file = process_file(&bundle, &object);
    let process = detached(&bundle, &web, &["--process", file.to_str().unwrap()], &[]);
    fs::remove_file(file).unwrap();
    assert_eq!(process.cmdline(), ["sleep", "999"]);
}

/// The shim reads the pid file when exec has returned: by then the program itself runs.
#[test]
fn row64_exec_detached_returns_after_the_program_has_started() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    for _ in 0..10 {
        let process = detached(&bundle, &web, &[], &["sleep", "999"]);
        assert_eq!(process.cmdline(), ["sleep", "999"]);
        assert_eq!(process.ns("pid"), web.init().ns("pid"));
        process.kill(libc::SIGKILL).unwrap();
    }
}

/// Detached, its streams are those that exec was called with.
#[test]
fn row64_exec_detached_writes_to_the_stdout_of_exec() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let (mut stdout, theirs) = fds::pipe();
    let exec = web.call("exec", &["--detach"]).args(&["echo", "hi"]).stdout(theirs);
    exec.run().ok();
    assert_eq!(fds::read_to_end(&mut stdout), "hi\n");
}

/// conmon: no pid file means that the runtime has failed, not the command.
#[test]
fn row65_exec_of_a_missing_command() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let file = bundle.dir().join("exec.pid");
    let texts = [
        ("no-such-command", r#"exec: "no-such-command": executable file not found in $PATH"#),
        ("/no/such", r#"exec: "/no/such": stat /no/such: no such file or directory"#),
    ];
    for (command, text) in texts {
        for options in [&["--pid-file", file.to_str().unwrap()][..], &["--detach"]] {
            let output = web.call("exec", options).args(&[command]).run();
            let output = output.fails_with(text).exits(255);
            assert!(output.errors()[0].contains(text), "{output}");
            assert!(!file.exists());
        }
    }
    assert_eq!(web.status(), "running");
}

/// execve itself may fail: that, too, before exec returns.
#[test]
fn row65_exec_of_a_file_that_cannot_be_executed() {
    require!(root);
    let bundle = Bundle::new();
    fs::write(bundle.rootfs().join("plain"), "text").unwrap();
    let web = bundle.container("web");
    web.up();
    let exec = |command| web.exec(&[command]).exits(255);
    exec("/plain").fails_with("permission denied");
    exec("/tmp").fails_with("permission denied");
    exec("/plain/x").fails_with("not a directory");
}

/// kubectl exec shows the code.
#[test]
fn row66_exec_exits_with_the_code_of_the_process() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    for code in [0, 1, 7, 255] {
        web.sh(&format!("exit {code}")).exits(code);
    }
    web.sh("kill -KILL $$").exits(128 + 9);
    web.sh("kill -TERM $$").exits(128 + 15);
}

/// podman exec between create and start.
#[test]
fn row68_exec_in_a_created_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(web.exec(&["echo", "hi"]).ok().stdout, "hi\n");
    assert_eq!(web.status(), "created");
}

/// The text that says why.
#[test]
fn row68_exec_in_a_stopped_container_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    web.exec(&["true"]).fails_with("cannot exec in a stopped container");
    web.call("exec", &[]).args(&["true"]).run().exits(255);
}

/// People use the options instead of a file.
#[test]
fn row69_exec_options_override_the_config() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let options = ["--cwd", "/tmp", "-e", "A=1", "-e", "TERM=dumb", "--user", "1000:1001"];
    let options = [&options[..], &["-g", "7", "-g", "8"]].concat();
    let process = detached(&bundle, &web, &options, &["sleep", "999"]);
    eventually("it runs sleep", || (process.cmdline() == ["sleep", "999"]).then_some(()));
    assert_eq!(process.environ(), ["A=1", "HOME=/", PATH, "TERM=dumb"]);
    assert_eq!(process.cwd(), "/tmp");
    assert_eq!(process.status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(process.status("Gid"), "1001\t1001\t1001\t1001");
    let groups = process.status("Groups");
    assert_eq!(groups.split_whitespace().collect::<Vec<_>>(), ["7", "8"]);
}

/// A script's variable that is not set.
#[test]
fn exec_options_that_are_empty_ask_for_nothing() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let empty = ["--user", "", "--cwd", "", "--apparmor", "", "--process-label", ""];
    let exec = web.call("exec", &empty).global(&["--log-format", ""]);
    assert_eq!(exec.args(&["sh", "-c", "id -u; pwd"]).run().ok().stdout, "0\n/\n");
}

/// CVE-2022-29162, T10: a capability of the command line is never inheritable.
#[test]
fn row69_exec_cap_adds_to_bounding_effective_and_permitted_only() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let process = detached(&bundle, &web, &["--cap", "CAP_CHOWN"], &["sleep", "999"]);
    let mask = |key: &str| u64::from_str_radix(&process.status(key), 16).unwrap();
    for key in ["CapBnd", "CapEff", "CapPrm"] {
        // CAP_CHOWN, and the three of the config: KILL, NET_BIND_SERVICE, AUDIT_WRITE.
        assert_eq!(mask(key), 1 | 1 << 5 | 1 << 10 | 1 << 29, "{key}");
    }
    assert_eq!((mask("CapInh"), mask("CapAmb")), (0, 0));
}

/// The other way round: less than the config.
#[test]
fn row69_exec_no_new_privs() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/noNewPrivileges", false));
    let web = bundle.container("web");
    web.up();
    let with = detached(&bundle, &web, &["--no-new-privs"], &["sleep", "999"]);
    let without = detached(&bundle, &web, &[], &["sleep", "999"]);
    assert_eq!((with.status("NoNewPrivs"), without.status("NoNewPrivs")), ("1".into(), "0".into()));
}

/// A user that is not a plain number is refused, never taken for root (T21).
#[test]
fn row69_exec_user_is_exact_or_refused() {
    require!(root);
    let bundle = Bundle::new();
    let passwd = "root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n";
    fs::write(bundle.rootfs().join("etc/passwd"), passwd).unwrap();
    let web = bundle.container("web");
    web.up();
    let id = |user: &str| {
        let call = web.call("exec", &["--user", user]);
        call.args(&["sh", "-c", "echo $(id -u):$(id -g)"]).run()
    };
    assert_eq!(id("1").ok().stdout, "1:0\n");
    assert_eq!(id("1:2").ok().stdout, "1:2\n");
    assert_eq!(id("1000").ok().stdout, "1000:0\n");
    assert_eq!(id("4294967294:4294967294").ok().stdout, "4294967294:4294967294\n");
    for user in ["-1", ":", "1:", ":1", "4294967295", "4294967296", "0x1", " 1", "1e3", "root"] {
        let output = id(user).fails();
        assert_eq!(output.stdout, "", "{output}");
    }
}

/// The kubelet counts on it: exec'd processes are in the same cgroup and all namespaces.
#[test]
fn row70_exec_joins_the_cgroup_and_all_namespaces() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.share_namespace("cgroup").push("/linux/namespaces", json!({ "type": "cgroup" }))
    });
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let process = detached(&bundle, &web, &[], &["sleep", "999"]);
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        assert_eq!(process.ns(kind), init.ns(kind), "{kind}");
    }
    assert_eq!(process.cgroups(), init.cgroups());
    assert_ne!(process.ns("cgroup"), Process::own().ns("cgroup"));
    assert_eq!(process.read("mountinfo"), init.read("mountinfo"));
}

/// A time namespace is joined by the new process itself, not only by its children.
#[test]
fn row70_exec_joins_a_new_time_namespace() {
    require!(root, path("/proc/self/ns/time"));
    let time = json!({ "type": "time" });
    let bundle = Bundle::with(|config| config.push("/linux/namespaces", time));
    let web = bundle.container("web");
    web.up();
    let process = detached(&bundle, &web, &[], &["sleep", "999"]);
    assert_ne!(process.ns("time"), Process::own().ns("time"));
    assert_eq!(process.ns("time"), web.init().ns("time"));
}

/// Probes run while kubectl exec is open: a lock over a foreground exec would stop them all.
#[test]
fn row71_a_foreground_exec_blocks_nobody() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let long = web.call("exec", &[]).args(&["sh", "-c", "echo up; exec sleep 999"]).spawn();
    eventually("it runs", || (long.stdout_now() == "up\n").then_some(()));
    assert_eq!(web.status(), "running");
    assert_eq!(web.exec(&["echo", "hi"]).ok().stdout, "hi\n");
    web.call("ps", &["--format", "json"]).run().ok();
    web.kill("KILL").ok();
    long.wait().exits(128 + 9);
    web.becomes("stopped");
}

/// All output, also what is still in the pipe when the process ends.
#[test]
fn row62_exec_drains_the_output() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let (mut stdout, theirs) = fds::pipe();
    let script = "head -c 3000000 /dev/zero | tr '\\0' x";
    let exec = web.call("exec", &[]).args(&["sh", "-c", script]).stdout(theirs).spawn();
    let text = fds::read_to_end(&mut stdout);
    assert_eq!((text.len(), text.trim_matches('x')), (3_000_000, ""));
    exec.wait().ok();
}

/// kubectl exec -i: input and its end arrive.
#[test]
fn row62_exec_passes_stdin_and_its_end() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let mut exec = web.call("exec", &[]).args(&["cat"]).stdin(Stdio::piped()).spawn();
    exec.stdin.take().unwrap().write_all(b"some input").unwrap();
    assert_eq!(exec.wait().ok().stdout, "some input");
}

/// buildkit and CRI-O signal the foreground runtime instead of the process.
#[test]
fn row60_exec_forwards_signals_to_the_process() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let script = "trap 'echo usr1' USR1; trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done";
    let exec = web.call("exec", &[]).args(&["sh", "-c", script]).spawn();
    eventually("it runs", || exec.stdout_now().contains("up").then_some(()));
    exec.signal(libc::SIGUSR1);
    eventually("USR1 arrives", || exec.stdout_now().contains("usr1").then_some(()));
    exec.signal(libc::SIGTERM);
    exec.wait().exits(9);
}

/// Its caller is told that it failed, and will not look for the process again.
#[test]
fn exec_that_cannot_wait_for_the_process_ends_it() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let exec = web.call("exec", &[]).args(&["sh", "-c", "echo up; exec sleep 999"]).spawn();
    eventually("it runs", || (exec.stdout_now() == "up\n").then_some(()));
    let runtime = exec.process();
    let [process] = runtime.children().try_into().expect("one child");
    // poll(2) takes no more descriptors than may be open, and this waits for two.
    let pid = runtime.0.to_string();
    let (status, text) = host::tool(&["prlimit", "--pid", &pid, "--nofile=1:"]);
    assert!(status.success(), "{text}");
    // Wakes it up and is nothing for the process.
    exec.signal(libc::SIGURG);
    exec.wait().fails_with("poll");
    assert!(!process.is_alive(), "the process goes on");
}
