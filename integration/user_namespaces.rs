//! Containers in a user namespace of their own, made by root: new, or joined by path.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::pty::FdSocket;
use crate::support::refusal::refused_at;
use crate::support::{Bundle, Config, Container, Process, eventually, host};

/// Root of the container is this user of the host.
const HOST: u32 = 100_000;

/// A new user namespace whose ids 0 to 65535 are 100000 and on.
pub fn mapped(config: &mut Config) -> &mut Config {
    let map = json!([{ "containerID": 0, "hostID": HOST, "size": 65536 }]);
    config.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    config.push("/linux/namespaces", json!({ "type": "user" }))
}

/// Gives the root file system to the container's root, as engines do.
pub fn own(bundle: &Bundle) {
    let owner = format!("{HOST}:{HOST}");
    let (status, text) = host::tool(&["chown", "-Rh", &owner, bundle.rootfs().to_str().unwrap()]);
    assert!(status.success(), "{text}");
}

fn bundle(edit: impl FnOnce(&mut Config) -> &mut Config) -> Bundle {
    let bundle = Bundle::with(|config| edit(mapped(config)));
    own(&bundle);
    bundle
}

#[test]
fn new_user_namespace_has_the_mapped_ids() {
    require!(root);
    let user = json!({ "uid": 33, "gid": 44, "additionalGids": [55] });
    let bundle = bundle(|config| config.set("/process/user", user));
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let words = |text: String| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    assert_eq!(words(init.read("uid_map")), ["0", "100000", "65536"]);
    assert_eq!(words(init.read("gid_map")), ["0", "100000", "65536"]);
    let four = |id: u32| vec![(HOST + id).to_string(); 4];
    assert_eq!(words(init.status("Uid")), four(33));
    assert_eq!(words(init.status("Gid")), four(44));
    assert_eq!(init.status("Groups"), (HOST + 55).to_string());
    // All that is new belongs to it: it may change its own host name, not ours.
    for kind in ["user", "mnt", "pid", "uts", "ipc", "net"] {
        assert_ne!(init.ns(kind), Process::own().ns(kind), "{kind}");
    }
    let exec = web.call("exec", &["--user", "0", "--cap", "CAP_SYS_ADMIN"]);
    exec.args(&["hostname", "other"]).run().ok();
    assert_eq!(web.exec(&["hostname"]).ok().stdout, "other\n");
}

/// Nobody makes device nodes in a user namespace; the host's are bound, and work.
#[test]
fn devices_of_a_user_namespace_are_the_hosts_own_nodes() {
    require!(root);
    let bundle = bundle(|config| config);
    let web = bundle.container("web");
    web.up();
    let minors = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
    for (name, minor) in minors {
        let mounts = web.init().mounts();
        let mount = mounts.iter().find(|mount| mount.target == format!("/dev/{name}"));
        assert_eq!(mount.expect(name).root, format!("/{name}"));
        let node = std::fs::metadata(web.init().path(&format!("/dev/{name}"))).unwrap();
        assert_eq!((libc::major(node.rdev()), libc::minor(node.rdev())), (1, minor), "{name}");
    }
    let script = "echo gone > /dev/null && head -c 2 /dev/zero | od -An -tx1 && ls /dev/fd/0";
    assert_eq!(web.sh(script).ok().stdout, " 00 00\n/dev/fd/0\n");
    // None of them can be made.
    web.sh("mknod /tmp/null c 1 3").fails();
}

#[test]
fn device_that_the_host_does_not_have_is_refused_with_its_pointer() {
    require!(root);
    let device = json!({ "path": "/dev/none", "type": "c", "major": 240, "minor": 77 });
    let bundle = bundle(|config| config.set("/linux/devices", json!([device])));
    refused_at(&bundle, &["/linux/devices/0"]).fails_with("240:77");
}

#[test]
fn processes_of_exec_are_in_the_user_namespace() {
    require!(root);
    let bundle = bundle(|config| config);
    let web = bundle.container("web");
    web.up();
    let script = "readlink /proc/self/ns/user; id -u; id -g; grep -E '^(Groups|CapEff|CapBnd)' \
                  /proc/self/status";
    let found = web.sh(script).ok().stdout;
    let own = web.sh("readlink /proc/1/ns/user; grep -E '^(CapEff|CapBnd)' /proc/1/status").ok();
    let (found, own): (Vec<_>, Vec<_>) = (found.lines().collect(), own.stdout.lines().collect());
    assert_eq!(found[0], own[0]);
    assert_ne!(found[0], Process::own().ns("user"));
    assert_eq!(found[1..4], ["0", "0", "Groups:\t "]);
    assert_eq!(found[4..], own[1..]);
    let output = web.call("exec", &["--user", "5:6"]).args(&["id"]).run().ok();
    assert_eq!(output.stdout.trim(), "uid=5 gid=6");
    let output = web.call("exec", &["--user", "70000"]).arg("id").run();
    output.exits(255).fails_with("not mapped in the user namespace");
}

/// Else a user of the container could not open it again, and root not give it away.
#[test]
fn terminals_belong_to_the_root_of_the_user_namespace() {
    require!(root);
    let bundle = bundle(|config| config.set("/process/terminal", true));
    let socket = FdSocket::bind(bundle.dir());
    let web = bundle.container("web");
    web.call("create", &["--console-socket", socket.path()]).run().ok();
    let _terminal = socket.receive();
    web.start().ok();
    assert_eq!(web.sh("stat -c %u /dev/console /dev/pts/0").ok().stdout, "0\n0\n");
    let socket = FdSocket::bind(&bundle.path());
    let exec = web.call("exec", &["--detach", "--tty", "--console-socket", socket.path()]);
    exec.args(&["sleep", "1000"]).run().ok();
    let _terminal = socket.receive();
    assert_eq!(web.sh("stat -c %u /dev/pts/1").ok().stdout, "0\n");
}

/// A pipe of the caller's belongs to the host's root, whom the container does not even know.
#[test]
fn stdout_can_be_opened_again_in_a_user_namespace() {
    require!(root);
    let user = json!({ "uid": 33, "gid": 33 });
    let bundle = bundle(|config| {
        config.sh("echo from init > /dev/stdout; sleep 1000").set("/process/user", user)
    });
    let web = bundle.container("web");
    let created = web.up();
    eventually("init has written", || created.stdout_now().contains("from init").then_some(()));
    assert_eq!(web.sh("echo from exec > /dev/stdout").ok().stdout, "from exec\n");
}

#[test]
fn sysctls_of_a_user_namespace_are_written() {
    require!(root);
    let bundle = bundle(|config| {
        config.set("/linux/sysctl", json!({ "kernel.shmmni": "1234", "net.ipv4.ip_forward": "1" }))
    });
    let web = bundle.container("web");
    web.up();
    let script = "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward";
    assert_eq!(web.sh(script).ok().stdout, "1234\n1\n");
}

/// `podman run --pid host`: a user namespace may not mount a procfs of a pid namespace that is not its own.
#[test]
fn sysctls_of_a_user_namespace_in_the_hosts_pid_namespace_are_written() {
    require!(root);
    let bundle = bundle(|config| {
        config.share_namespace("pid").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
        let mut mounts = config["mounts"].as_array().unwrap().iter();
        let index = mounts.position(|mount| mount["destination"] == "/proc").unwrap();
        let mount = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
        config.set(&format!("/mounts/{index}"), mount);
        config.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
    });
    let web = bundle.container("web");
    web.up();
    let host = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    assert_eq!(web.sh("cat /proc/sys/net/ipv4/ip_forward").ok().stdout, "1\n");
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), host);
}

/// Sources are opened with the caller's rights, not with those of the container's root.
#[test]
fn a_source_that_only_root_can_reach_is_bound() {
    require!(root);
    let bundle = bundle(|config| config);
    let private = bundle.dir().join("private");
    std::fs::create_dir(&private).unwrap();
    let source = private.join("file");
    std::fs::write(&source, "reached\n").unwrap();
    host::tool(&["chmod", "700", private.to_str().unwrap()]);
    // Somebody else's: without CAP_DAC_OVERRIDE over the host not even uid 0 comes in.
    host::tool(&["chown", "4321", private.to_str().unwrap()]);
    bundle.edit(|config| config.bind(source.to_str().unwrap(), "/mnt/file", &["bind", "ro"]));
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.exec(&["cat", "/mnt/file"]).ok().stdout, "reached\n");
}

/// A shell that sees a directory `host` of the bundle with every restriction that a mount can have, and
/// something below a mount in it.
fn restricted(bundle: &Bundle) -> [String; 6] {
    let dir = bundle.dir().join("host");
    std::fs::create_dir(&dir).unwrap();
    let script = format!(
        "set -e; cd {dir}; mount -t tmpfs host .; cd .; mkdir {dir}/below; echo hidden > {dir}/below/file; \
         mount -t tmpfs -o ro,nosuid,nodev,noexec below {dir}/below; \
         mount -o remount,bind,ro,nosuid,nodev,noexec {dir}; exec \"$@\"",
        dir = dir.to_str().unwrap()
    );
    ["unshare", "--mount", "--propagation=private", "sh", "-c", &script].map(str::to_string)
}

/// The kernel locks what a more privileged mount namespace has set on its mounts; a clone of the host's own
/// mount has no such locks (mount_namespaces(7)).
#[test]
fn flags_that_the_host_has_set_on_a_mount_cannot_be_cleared_in_a_user_namespace() {
    require!(root, program("unshare"));
    let bundle = bundle(|config| {
        for set in ["bounding", "permitted", "effective"] {
            config.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
        }
        config.sh(
            "for at in /mnt /mnt/below; do for to in rw suid dev exec; do
                 all=ro,nosuid,nodev,noexec
                 case $to in rw) all=rw,nosuid,nodev,noexec;; *) all=$(echo $all | sed s/no$to/$to/);; esac
                 mount -o remount,bind,$all $at 2>/dev/null && echo cleared $to of $at
             done; done
             umount /mnt/below 2>/dev/null && cat /mnt/below/file
             grep -c ' /mnt[a-z/]* ro,nosuid,nodev,noexec,' /proc/self/mountinfo
             mount -t tmpfs own /tmp && mount -o remount,bind,ro /tmp && mount -o remount,bind,rw /tmp && \
                 echo able",
        )
    });
    let host = bundle.dir().join("host");
    bundle.edit(|config| config.bind(host.to_str().unwrap(), "/mnt", &["rbind"]));
    let shell = restricted(&bundle);
    let mut shell: Vec<&str> = shell.iter().map(String::as_str).collect();
    shell.push("sh");
    let output = bundle.container("web").call("run", &[]).through(&shell).run().ok();
    assert_eq!(output.stdout, "2\nable\n", "{output}");
    // What cannot be had is an error, and not left away.
    bundle.edit(|config| {
        let last = config.0["mounts"].as_array().unwrap().len() - 1;
        config.set(&format!("/mounts/{last}/options"), json!(["rbind", "rw"]))
    });
    let output = bundle.container("web").call("run", &[]).through(&shell).run();
    output.fails_with("mount_setattr");
    assert!(bundle.leftovers().is_empty(), "{:?}", bundle.leftovers());
}

/// Without its submounts a directory would show what the host has covered.
#[test]
fn what_a_mount_of_the_host_covers_is_not_shown_in_a_user_namespace() {
    require!(root, program("unshare"));
    let bundle = bundle(|config| config.sh("cat /mnt/below/file"));
    let host = bundle.dir().join("host");
    bundle.edit(|config| config.bind(host.to_str().unwrap(), "/mnt", &["bind"]));
    let shell = restricted(&bundle);
    let mut shell: Vec<&str> = shell.iter().map(String::as_str).collect();
    shell.push("sh");
    let output = bundle.container("web").call("run", &[]).through(&shell).run();
    output.fails_with("/source: open_tree");
}

/// Where 0 is not mapped the container is built by its process' own user.
#[test]
fn user_namespace_without_a_root() {
    require!(root);
    let map = json!([{ "containerID": 1000, "hostID": HOST, "size": 1 }]);
    let bundle = bundle(|config| {
        config.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        config.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        // Its group, tty, is not mapped.
        let mounts = config["mounts"].as_array_mut().unwrap();
        for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/dev/pts") {
            mount["options"].as_array_mut().unwrap().retain(|option| option != "gid=5");
        }
        config
    });
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.exec(&["id"]).ok().stdout.trim(), "uid=1000 gid=1000");
}

#[test]
fn id_mappings_that_cannot_be_are_refused_with_their_pointers() {
    require!(root);
    let edited = |edit: fn(&mut Config) -> &mut Config| bundle(edit);
    let refuse = |edit: fn(&mut Config) -> &mut Config, pointers: &[&str], text: &str| {
        refused_at(&edited(edit), pointers).fails_with(text);
    };
    let missing: fn(&mut Config) -> &mut Config = |config| config.remove("/linux/gidMappings");
    refuse(missing, &["/linux/gidMappings"], "missing");
    let both: fn(&mut Config) -> &mut Config =
        |config| config.remove("/linux/uidMappings").remove("/linux/gidMappings");
    refuse(both, &["/linux/uidMappings", "/linux/gidMappings"], "missing");
    let overlap: fn(&mut Config) -> &mut Config = |config| {
        let range = json!({ "containerID": 65535, "hostID": 900_000, "size": 1 });
        config.push("/linux/uidMappings", range)
    };
    refuse(overlap, &["/linux/uidMappings"], "overlaps");
    let user: fn(&mut Config) -> &mut Config = |config| {
        config.set("/process/user", json!({"uid": 65536, "gid": 65537, "additionalGids": [65538]}))
    };
    let pointers = ["/process/user/uid", "/process/user/gid", "/process/user/additionalGids"];
    refuse(user, &pointers, "65538 is not mapped");
    let none = Bundle::with(|config| {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        config.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    });
    let pointers = ["/linux/uidMappings", "/linux/gidMappings"];
    refused_at(&none, &pointers).fails_with("needs a user namespace");
}

/// A hook sees init as it is while the container is built: not to be traced by the container's own
/// users, and gone when the runtime dies, also after the changes of credentials that forget that.
fn survives_nothing(bundle: &Bundle, container: &Container) {
    let pid_file = bundle.dir().join("init.pid");
    let script = format!(
        "sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' > {0}.part; mv {0}.part {0}; exec sleep 1000",
        pid_file.display()
    );
    let sleep = bundle.dir().join("hook");
    std::fs::write(&sleep, format!("#!/bin/sh\n{script}\n")).unwrap();
    host::tool(&["chmod", "755", sleep.to_str().unwrap()]);
    let _ = std::fs::remove_file(&pid_file);
    let running = container.call("create", &[]).spawn();
    let pid = eventually("the hook runs", || std::fs::read_to_string(&pid_file).ok());
    let init = Process(pid.trim().parse().unwrap());
    let owner = std::fs::metadata(format!("/proc/{}/status", init.0)).unwrap().uid();
    assert_eq!(owner, 0, "dumpable: it belongs to its user");
    running.signal(libc::SIGKILL);
    eventually("init is gone", || (!init.is_alive()).then_some(()));
    drop(running.wait());
    for hook in host::processes_of(bundle.name()) {
        unsafe { libc::kill(hook.0, libc::SIGKILL) };
    }
    container.delete_force().ok();
    let _ = std::fs::remove_file(&pid_file);
}

fn hook_of(bundle: &Bundle) -> Value {
    json!([{ "path": bundle.dir().join("hook").to_str().unwrap() }])
}

#[test]
fn init_in_a_user_namespace_dies_with_the_runtime_and_is_not_dumpable() {
    require!(root);
    let bundle = bundle(|config| config);
    let hooks = hook_of(&bundle);
    bundle.edit(|config| config.set("/hooks/createRuntime", hooks));
    survives_nothing(&bundle, &bundle.container("web"));
}

/// Another container joins a container's namespaces, all or some.
fn join<'b>(bundle: &'b Bundle, id: &str, pod: Process, kinds: &[&str]) -> Container<'b> {
    bundle.another(id, |config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap();
            if kinds.contains(&kind) {
                let file = if kind == "network" { "net" } else { kind };
                namespace["path"] = json!(format!("/proc/{}/ns/{file}", pod.0));
            }
        }
        config.remove("/hostname")
    })
}

/// Kubernetes: the containers of a pod. Two children, for the pid namespace has to be made inside.
#[test]
fn joined_user_namespace_with_a_new_pid_namespace() {
    require!(root);
    let bundle = bundle(|config| config);
    let pod = bundle.container("pod");
    pod.up();
    let kinds = ["user", "network", "ipc", "uts"];
    let web = join(&bundle, "web", pod.init(), &kinds);
    web.up();
    let (mine, theirs) = (web.init(), pod.init());
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(mine.ns(kind), theirs.ns(kind), "{kind}");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(mine.ns(kind), theirs.ns(kind), "{kind}");
        assert_ne!(mine.ns(kind), Process::own().ns(kind), "{kind}");
    }
    assert_eq!(
        web.sh("echo $$; ps -o pid,args | grep -c '[s]leep'").ok().stdout.lines().nth(1),
        Some("1")
    );
    let uid = mine.status("Uid");
    assert!(uid.starts_with("100000"), "{uid}");
    // Nothing of the first child is left: init is our own child.
    assert_eq!(mine.status("PPid"), theirs.status("PPid"));
    web.stop();
    web.delete().ok();
}

#[test]
fn joined_user_and_pid_namespace() {
    require!(root);
    let bundle = bundle(|config| config);
    let pod = bundle.container("pod");
    pod.up();
    let web = join(&bundle, "web", pod.init(), &["user", "pid"]);
    web.up();
    assert_eq!(web.init().ns("pid"), pod.init().ns("pid"));
    assert_eq!(web.init().ns("user"), pod.init().ns("user"));
    assert_eq!(web.sh("ps -o args | grep -c '[s]leep'").ok().stdout, "2\n");
    web.stop();
    web.delete().ok();
}

#[test]
fn init_in_a_joined_user_namespace_dies_with_the_runtime_and_is_not_dumpable() {
    require!(root);
    let bundle = bundle(|config| config);
    let pod = bundle.container("pod");
    pod.up();
    let hooks = hook_of(&bundle);
    bundle.edit(|config| config.set("/hooks/createRuntime", hooks));
    survives_nothing(&bundle, &join(&bundle, "web", pod.init(), &["user", "network"]));
}

/// containerd gives path and maps at once; they must agree.
#[test]
fn joined_user_namespace_with_other_maps_is_refused() {
    require!(root);
    let bundle = bundle(|config| config);
    let pod = bundle.container("pod");
    pod.up();
    let web = join(&bundle, "web", pod.init(), &["user"]);
    let path = bundle.dir().join("bundle-web/config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let with = |edit: fn(&mut Config) -> &mut Config| {
        let mut config = Config(config.clone());
        edit(&mut config);
        std::fs::write(&path, config.0.to_string()).unwrap();
        web.create()
    };
    with(|config| config.set("/linux/gidMappings/0/size", 65535)).fails_with("its id maps are not");
    with(|config| config.set("/process/user/uid", 65536)).fails_with("/process/user/uid");
    // Maps are not needed, and unknown users are found out all the same.
    let bare: fn(&mut Config) -> &mut Config =
        |config| config.remove("/linux/uidMappings").remove("/linux/gidMappings");
    with(|config| config.remove("/linux/uidMappings")).fails_with("/linux/uidMappings: missing");
    with(bare).ok();
    web.delete_force().ok();
    assert!(!Path::new(&web.id()).exists());
}

#[test]
fn own_user_namespace_cannot_be_joined() {
    require!(root);
    let bundle = bundle(|config| config);
    let web = join(&bundle, "web", Process::own(), &["user"]);
    web.create().fails_with("the user namespace of the runtime itself");
}

/// Whatever goes wrong late, nothing stays.
#[test]
fn failed_create_in_a_user_namespace_leaves_nothing() {
    require!(root);
    let bundle = bundle(|config| config.args(&["/no/such/program"]));
    refused_at(&bundle, &[]).fails_with("no such file or directory");
    let pod = bundle.another("pod", |config| config.args(&["sleep", "1000"]));
    pod.up();
    let web = join(&bundle, "web", pod.init(), &["user"]);
    web.create().fails_with("no such file or directory");
    pod.remove();
}

/// config-linux.md, "Cgroup ownership": with a cgroup namespace and a mount for writing the user may
/// make cgroups of its own, and not change its limits.
#[test]
fn cgroup_that_is_writable_belongs_to_the_process_user() {
    require!(root, cgroup_v2);
    let writable = |config: &mut Config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/sys/fs/cgroup") {
            mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
        }
    };
    let user = json!({ "uid": 33, "gid": 33 });
    let bundle = bundle(|config| {
        writable(config);
        config.set("/process/user", user)
    });
    let web = bundle.container("web");
    web.up();
    let owner = |file: &str| std::fs::metadata(bundle.cgroup("").join(file)).unwrap().uid();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        assert_eq!(owner(file), HOST + 33, "{file}");
    }
    assert_eq!(owner("cgroup.max.depth"), 0);
    web.sh("mkdir /sys/fs/cgroup/own && echo $$ > /sys/fs/cgroup/own/cgroup.procs").ok();
    web.sh("echo 1 > /sys/fs/cgroup/cgroup.max.depth").fails();
    web.remove();
    // For reading only it stays the host's, and so it does without a new cgroup namespace.
    let inherited = |config: &mut Config| {
        writable(config);
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "cgroup");
    };
    let edits: [&dyn Fn(&mut Config); 2] = [&|_| {}, &inherited];
    for edit in edits {
        let bundle = self::bundle(|config| {
            edit(config);
            config
        });
        let web = bundle.container("web");
        web.up();
        assert_eq!(std::fs::metadata(bundle.cgroup("")).unwrap().uid(), 0);
        web.remove();
    }
}
