//! What a hostile neighbour, image or configuration can make the runtime itself do: take too much,
//! open what others can reach, leave a container frozen, write to a procfs that is none.
//!
//! The last line of each comment names the protection whose removal the test would notice.

use std::fs;
use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Bundle, Config, Container, Process, Running, eventually, host, reaper};

/// Puts a long path or name at a place of config.json.
fn lengthen(config: &mut Config, place: &str, length: usize) {
    let long = format!("/{}", "a/".repeat(length / 2));
    let text = "a".repeat(length);
    let tmpfs = |target: &str, option: String| json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": [option] });
    match place {
        "namespace" => {
            config.push("/linux/namespaces", json!({ "type": "time", "path": long }));
        }
        "destination" => {
            config.push("/mounts", tmpfs(&long, "ro".into()));
        }
        "option" => {
            config.push("/mounts", tmpfs("/tmp", format!("size={text}")));
        }
        "source" => {
            config.bind(&long, "/tmp/x", &[]);
        }
        "masked path" => {
            config.set("/linux/maskedPaths", json!([long]));
        }
        "device" => {
            let device = json!({ "path": long, "type": "c", "major": 1, "minor": 3 });
            config.push("/linux/devices", device);
        }
        "cgroup" => {
            config.set("/linux/cgroupsPath", long.as_str());
        }
        "cwd" => {
            config.set("/process/cwd", long.as_str());
        }
        _ => {
            config.set("/hostname", text.as_str());
        }
    }
}

/// T9, CVE-2021-43784: strings of 70 KiB and of 2 MiB, at every place where a path or a name goes
/// to the kernel or over the socket between the runtime's two sides.
/// Notices: a narrow length field, a length that is cut off.
#[test]
fn t9_strings_longer_than_64_kib_are_a_clean_error() {
    require!(root);
    let places = [
        "namespace",
        "destination",
        "option",
        "source",
        "masked path",
        "device",
        "cgroup",
        "cwd",
        "hostname",
    ];
    for (length, place) in
        [70 << 10, 2 << 20].into_iter().flat_map(|length| places.map(|place| (length, place)))
    {
        let bundle = Bundle::with(|config| {
            lengthen(config, place, length);
            config
        });
        let web = bundle.container("web");
        let output = web.call("create", &[]).timeout(Duration::from_secs(20)).run();
        assert_eq!(output.code(), 1, "{place} of {length} bytes");
        assert!(!output.stderr.contains("panicked"), "{place}: {}", output.stderr);
        assert!(output.stderr.len() < 9000, "{place}: {} bytes told", output.stderr.len());
        bundle.assert_clean();
    }
}

/// T9: arguments and environment go to execve as they are; what it does not take, start tells.
/// Notices: a length that is cut off.
#[test]
fn t9_argument_longer_than_the_kernel_takes_fails_start() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["true", &"a".repeat(200 << 10)]));
    let web = bundle.container("web");
    web.create().ok();
    let output = web.start().fails();
    assert!(output.stderr.contains("argument list too long (E2BIG)"), "{}", output.stderr.len());
    web.remove();
}

/// T11, CVE-2023-25809: without a cgroup namespace, too, the container sees its own cgroup and cannot
/// write to it, let alone to its parent's.
/// Notices: a bind of the host's tree in place of the container's own part.
/// A clone of a cgroup's directory can be attached once only.
#[test]
fn two_cgroup_mounts_without_a_cgroup_namespace_show_the_same() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "cgroup");
        config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/sys/fs/cgroup");
        let mount = |at: &str, options: Value| json!({ "destination": at, "type": "cgroup", "source": "cgroup", "options": options });
        config.push("/mounts", mount("/sys/fs/cgroup", json!(["ro"])));
        config.push("/mounts", mount("/mnt/again", json!([])))
    });
    let web = bundle.container("web");
    web.up();
    let mounts: Vec<_> = web.init().mounts().into_iter().collect();
    let below = |at: &str| {
        let of = mounts.iter().filter(|mount| mount.fstype.starts_with("cgroup"));
        let of = of.filter_map(|mount| Some((mount.target.strip_prefix(at)?, &mount.root)));
        of.map(|(name, root)| format!("{name} {root}")).collect::<Vec<_>>()
    };
    assert!(!below("/sys/fs/cgroup").is_empty());
    assert_eq!(below("/sys/fs/cgroup"), below("/mnt/again"));
    assert!(below("/mnt/again").iter().all(|line| line.ends_with(&bundle.name())));
}

#[test]
fn t11_cgroup_mount_without_a_cgroup_namespace_shows_only_the_own_cgroup() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "cgroup");
        config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/sys/fs/cgroup");
        config.push(
            "/mounts",
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }),
        )
    });
    let web = bundle.container("web");
    web.up();
    let mounts = web.init().mounts().into_iter();
    let cgroups: Vec<_> = mounts.filter(|mount| mount.fstype.starts_with("cgroup")).collect();
    assert!(!cgroups.is_empty());
    for mount in &cgroups {
        assert_eq!(mount.root, format!("/{}", bundle.name()), "{mount:?}");
        let files = ["cgroup.procs", "../cgroup.procs", "../../cgroup.procs"];
        for file in files {
            let target = format!("{}/{file}", mount.target);
            let output = web.sh(&format!("echo $$ > {target}"));
            assert_ne!(output.code(), 0, "{target} could be written: {output}");
        }
        let seen = web.sh(&format!("ls {}/..", mount.target)).ok().stdout;
        assert!(!seen.contains("init.scope") && !seen.contains("system.slice"), "{seen}");
    }
}

/// T16, CVE-2025-52881: a container that joins the mount namespace of a hostile one, whose /proc is
/// a tmpfs with a file in the sysctl's place. The kernel's is set, that file is not.
/// Notices: sysctls written through the container's /proc.
#[test]
fn t16_false_proc_of_a_joined_mount_namespace_does_not_get_the_sysctl() {
    require!(root);
    let bundle = Bundle::sh(
        "mount -t tmpfs tmpfs /proc && mkdir -p /proc/sys/net/ipv4 && \
         echo false > /proc/sys/net/ipv4/ip_default_ttl && : > /ready && exec sleep 1000",
    );
    bundle.edit(|config| {
        config.remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
        for set in ["bounding", "effective", "permitted"] {
            config.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
        }
        config
    });
    let hostile = bundle.container("hostile");
    hostile.up();
    eventually("it is ready", || bundle.rootfs().join("ready").exists().then_some(()));
    let namespace = format!("/proc/{}/ns/mnt", hostile.init().0);
    let web = bundle.another("web", |config| {
        config.args(&["sleep", "1000"]).set("/mounts", json!([]));
        config.remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
        for one in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if one["type"] == "mount" {
                one["path"] = namespace.as_str().into();
            }
        }
        config.set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "77" }))
    });
    web.create().ok();
    let pid = web.init().0.to_string();
    let args = ["nsenter", "--net", "--target", &pid, "cat", "/proc/sys/net/ipv4/ip_default_ttl"];
    assert_eq!(host::tool(&args).1, "77\n");
    let false_file = hostile.init().path("/proc/sys/net/ipv4/ip_default_ttl");
    assert_eq!(fs::read_to_string(false_file).unwrap(), "false\n");
}

/// T24: a kill or delete that is itself killed, at any moment, leaves nothing that the next delete
/// could not end: on v1 a frozen process does not even die of SIGKILL.
/// Notices: delete that does not thaw.
#[test]
fn t24_killed_kill_and_delete_never_leave_a_container_frozen() {
    require!(root);
    let commands: [&[&str]; 3] = [&["kill", "--all"], &["kill"], &["delete", "--force"]];
    for round in 0..24u64 {
        let script = "sleep 1001 & sleep 1002 & sleep 1003 & exec sleep 1004";
        let bundle = Bundle::with(|config| config.sh(script).share_namespace("pid"));
        let web = bundle.container("web");
        web.up();
        let words = commands[(round % 3) as usize];
        let mut call = web.call(words[0], &words[1..]);
        if words[0] == "kill" {
            call = call.arg("KILL");
        }
        let running = call.spawn();
        std::thread::sleep(Duration::from_micros(300 * (round / 3)));
        // It may have ended by now.
        let _ = running.process().kill(libc::SIGKILL);
        reaper::wait(running.process().0, Duration::from_secs(10)).expect("it does not die");
        web.call("delete", &["--force"]).timeout(Duration::from_secs(20)).run().ok();
        bundle.assert_clean();
    }
}

/// T24: somebody else has frozen the container; neither kill nor delete waits for that to end.
/// Notices: SIGKILL sent to what is frozen, without a thaw.
#[test]
fn t24_frozen_container_is_killed_and_deleted() {
    require!(root);
    for command in [&["kill", "web", "KILL"][..], &["delete", "--force", "web"]] {
        let bundle = Bundle::with(|config| config.share_namespace("pid"));
        let web = bundle.container("web");
        web.up();
        let init = web.init();
        let dir = bundle.cgroup("freezer");
        match host::is_v2() {
            true => fs::write(dir.join("cgroup.freeze"), "1").unwrap(),
            false => fs::write(dir.join("freezer.state"), "FROZEN").unwrap(),
        }
        eventually("it is frozen", || (web.status() == "paused").then_some(()));
        bundle.onggi(command).timeout(Duration::from_secs(20)).run().ok();
        eventually("init is dead", || (!init.is_alive()).then_some(()));
        web.remove();
    }
}

/// T29, CVE-2020-15257: nobody can connect to the runtime. No socket of it has a name, neither in
/// the file system nor in the abstract space.
/// Notices: bind.
#[test]
fn t29_runtime_binds_no_socket() {
    require!(root, program("strace"));
    let bundle = Bundle::with(|config| config.args(&["sleep", "0.3"]));
    let trace = bundle.dir().join("trace");
    let strace = ["strace", "-f", "-o", trace.to_str().unwrap(), "-e", "trace=network"];
    bundle.container("web").call("run", &[]).through(&strace).run().ok();
    let mut text = fs::read_to_string(&trace).unwrap();
    let other = bundle.another("other", |config| config.args(&["sleep", "1000"]));
    other.up();
    other.call("exec", &[]).arg("true").through(&strace).run().ok();
    text += &fs::read_to_string(&trace).unwrap();
    assert!(text.contains("socketpair("), "the trace shows nothing: {text}");
    for call in ["bind(", "listen(", "sun_path=@"] {
        assert!(!text.contains(call), "{call}: {text}");
    }
}

/// An exec on a terminal of the runtime's, whose output nobody reads.
fn unread_exec(web: &Container) -> (Running, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let exec = web.call("exec", &["--tty"]).args(&["yes", "0123456789abcdef"]);
    let running = exec.stdout(writer).spawn();
    (running, reader)
}

/// The most memory that a process has had, in KiB.
fn peak(process: Process) -> u64 {
    let text = process.status("VmHWM");
    text.trim_end_matches(" kB").trim().parse().unwrap()
}

/// T31, CVE-2022-1708: a process that writes for ever, and nobody who reads. The runtime holds no more
/// than a buffer of it, passes signals on, and ends.
/// Notices: output that is collected; a write that blocks for ever.
#[test]
fn t31_output_that_nobody_reads_is_not_collected() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let (running, reader) = unread_exec(&web);
    let process = running.process();
    // A pipe of 16 buffers is full with less than 64 KiB in it.
    eventually("output comes", || (waiting(&reader) >= 4 << 10).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    assert!(peak(process) < 16 << 10, "{} KiB", peak(process));
    // A signal gets through all the same, and ends what writes.
    let writers = || host::processes_of(bundle.name()).into_iter().filter(writes).count();
    assert_eq!(writers(), 1);
    running.signal(libc::SIGTERM);
    eventually("the signal has arrived", || (writers() == 0).then_some(()));
    drop(reader);
    reaper::wait(process.0, Duration::from_secs(20)).expect("exec does not end");
}

fn writes(process: &Process) -> bool {
    process.cmdline().first().is_some_and(|name| name == "yes")
}

/// How many bytes lie in a pipe.
fn waiting(reader: &PipeReader) -> i32 {
    let mut count = 0;
    assert_eq!(unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &mut count) }, 0);
    count
}

/// T31: 256 MiB through the runtime's terminal: its memory does not grow with what it has copied.
/// Notices: output that is collected.
#[test]
fn t31_memory_does_not_grow_with_the_output() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let (running, mut reader) = unread_exec(&web);
    let mut buffer = vec![0; 1 << 16];
    let (mut count, begin) = (0, Instant::now());
    while count < 256 << 20 && begin.elapsed() < Duration::from_secs(20) {
        count += reader.read(&mut buffer).unwrap();
    }
    let peak = peak(running.process());
    assert!(peak < 16 << 10, "{peak} KiB after {count} bytes");
    drop(reader);
    let process = running.process();
    web.kill("KILL").ok();
    reaper::wait(process.0, Duration::from_secs(20)).expect("exec does not end");
}

/// T31: the output of a hook is not collected either.
/// Notices: the bound on what is kept of it.
#[test]
fn t31_output_of_a_hook_is_not_collected() {
    require!(root);
    let bundle = Bundle::with(|config| {
        let script = "yes 0123456789abcdef | head -c 200000000; exit 3";
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
        config.push("/hooks/createRuntime", hook)
    });
    let web = bundle.container("web");
    let running = web.call("create", &[]).spawn();
    let process = running.process();
    let mut highest = 0;
    while !running.has_ended() {
        // Before its execve it has our memory.
        if let Some(text) = process.try_read("status").filter(|text| text.contains("onggi\n")) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            highest = highest.max(kib.unwrap_or(0u64));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = running.wait().fails();
    assert!((1..16 << 10).contains(&highest), "{highest} KiB");
    assert!(output.stderr.len() < 9000, "{} bytes told", output.stderr.len());
    bundle.assert_clean();
}

/// T31: nobody is left to copy for.
/// Notices: EPIPE taken for nothing.
#[test]
fn t31_reader_that_goes_away_ends_the_copying() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let (running, reader) = unread_exec(&web);
    drop(reader);
    reaper::wait(running.process().0, Duration::from_secs(20)).expect("exec does not end");
}
