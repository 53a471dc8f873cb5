//! Namespaces: new, joined by path, inherited; what is refused; what the host keeps.

use std::fs;

use serde_json::json;

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Config, Process, attack, eventually, host, reaper};

/// The spec's names of the kinds that this version can make and join, and the files in /proc/PID/ns.
const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("mount", "mnt"),
    ("time", "time"),
];

/// The pointer of the namespace that was added last.
fn last_pointer(bundle: &Bundle) -> String {
    let config = bundle.config();
    let count = config["linux"]["namespaces"].as_array().unwrap().len();
    format!("/linux/namespaces/{}", count - 1)
}

fn new_namespace(config: &mut Config, kind: &str) {
    config.share_namespace(kind);
    config.push("/linux/namespaces", json!({ "type": kind }));
}

/// One kind at a time; the other kinds must not change with it.
fn new_kind(kind: &str, file: &str) {
    let bundle = Bundle::with(|config| {
        new_namespace(config, kind);
        config
    });
    let web = bundle.container("web");
    web.create().ok();
    let (init, own) = (web.init(), Process::own());
    assert_ne!(init.ns(file), own.ns(file));
    web.start().ok();
    assert_ne!(init.ns(file), own.ns(file), "after start");
    assert_eq!(init.ns("user"), own.ns("user"));
}

#[test]
fn new_pid_network_ipc_uts_and_mount_namespaces() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        assert_ne!(web.init().ns(kind), Process::own().ns(kind));
    }
}

#[test]
fn new_cgroup_namespace() {
    require!(root);
    new_kind("cgroup", "cgroup");
}

#[test]
fn new_time_namespace() {
    require!(root, path("/proc/self/ns/time"));
    new_kind("time", "time");
}

/// In its own cgroup namespace a container sees its cgroup as the root.
#[test]
fn new_cgroup_namespace_begins_at_the_containers_own_cgroup() {
    require!(root);
    let bundle = Bundle::with(|config| {
        new_namespace(config, "cgroup");
        config.args(&["cat", "/proc/self/cgroup"])
    });
    let output = bundle.container("web").run().ok();
    // A named or disabled hierarchy that nobody has mounted has no cgroup of ours.
    let controllers = ["memory", "freezer", "pids", "devices"];
    let ours = |line: &&str| {
        line.starts_with("0::") && host::is_v2()
            || controllers.iter().any(|name| line.contains(name))
    };
    let lines: Vec<_> = output.stdout.lines().filter(ours).collect();
    assert!(!lines.is_empty(), "{output}");
    assert!(lines.iter().all(|line| line.ends_with(":/")), "{lines:?}");
}

#[test]
fn new_pid_namespace_has_the_container_as_pid_1() {
    require!(root);
    let bundle = Bundle::sh("echo $$; ls -d /proc/[0-9]*");
    let output = bundle.container("web").run().ok();
    assert!(output.stdout.starts_with("1\n/proc/1\n"), "{output}");
}

#[test]
fn new_network_namespace_has_loopback_up_and_nothing_else() {
    require!(root);
    let bundle = Bundle::sh("ls /sys/class/net; cat /sys/class/net/lo/flags");
    let output = bundle.container("web").run().ok();
    // Devices that every namespace gets when their modules are there: tunl0, sit0, ip6tnl0, …
    let devices: Vec<_> = output.stdout.lines().filter(|line| !line.starts_with("0x")).collect();
    assert!(devices.contains(&"lo") && !devices.contains(&"eth0"), "{output}");
    let flags = output.stdout.lines().find_map(|line| line.strip_prefix("0x")).unwrap();
    assert_eq!(u32::from_str_radix(flags, 16).unwrap() & 1, 1, "IFF_UP: {output}");
}

/// A kind that config.json does not name is the runtime's.
#[test]
fn inherited_namespaces_are_the_runtimes() {
    require!(root);
    for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("cgroup", "cgroup")] {
        let bundle = Bundle::with(|config| config.share_namespace(kind));
        let web = bundle.container("web");
        web.up();
        assert_eq!(web.init().ns(file), Process::own().ns(file));
        web.stop();
        web.delete().ok();
    }
}

#[test]
fn inherited_uts_namespace_needs_a_config_without_hostname() {
    require!(root);
    let bundle = Bundle::with(|config| config.share_namespace("uts").remove("/hostname"));
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.init().ns("uts"), Process::own().ns("uts"));
}

/// A hostname in the host's uts namespace would rename the host.
#[test]
fn hostname_with_inherited_uts_namespace_is_refused() {
    require!(root);
    let before = fs::read("/proc/sys/kernel/hostname").unwrap();
    let bundle = Bundle::with(|config| config.share_namespace("uts"));
    let web = bundle.container("web");
    let output = web.create().fails();
    assert_eq!(fs::read("/proc/sys/kernel/hostname").unwrap(), before);
    bundle.assert_clean();
    assert!(output.stderr.contains("/hostname:"), "{output}");
}

/// What a container in somebody else's mount namespace has nevertheless: its mounts, masks, read-only paths and
/// root, for exec, too.
const OWN_TREE: &str = "set -e; test -d /proc/self; test -c /dev/null; test -d /sys/class; test -c /dev/pts/ptmx; \
     test $(ls -A /etc/hidden | wc -l) = 0; test $(wc -c </etc/secret) = 0; \
     for f in /etc/frozen/file /file; do if touch $f 2>/dev/null; then echo $f; fi; done; touch /dev/shm/file; \
     test $(ls -di /.. | sed 's/ .*//') = $(ls -di / | sed 's/ .*//'); echo as asked";

/// A bundle for that, in the mount namespace that `edit` says.
fn in_others_mounts(edit: impl FnOnce(&mut Config) -> &mut Config) -> Bundle {
    let bundle = Bundle::with(|config| {
        let masked = json!(["/etc/hidden", "/etc/secret", "/etc/not-there"]);
        config
            .set("/linux/maskedPaths", masked)
            .set("/linux/readonlyPaths", json!(["/etc/frozen"]));
        edit(config.set("/root/readonly", true))
    });
    for dir in ["etc/hidden", "etc/frozen"] {
        fs::create_dir_all(bundle.rootfs().join(dir)).unwrap();
    }
    fs::write(bundle.rootfs().join("etc/hidden/file"), "x").unwrap();
    fs::write(bundle.rootfs().join("etc/secret"), "x").unwrap();
    bundle
}

/// The spec asks for the mounts, whoever the mount namespace belongs to. They are the container's alone, and end
/// with it: nobody could unmount them.
#[test]
fn inherited_mount_namespace_has_the_mounts_and_the_host_has_not() {
    require!(root);
    let bundle = in_others_mounts(|config| config.share_namespace("mount"));
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(web.init().ns("mnt"), Process::own().ns("mnt"));
    web.start().ok();
    assert_eq!(web.init().ns("mnt"), Process::own().ns("mnt"));
    assert_eq!(host::mounts_of(bundle.name()), [""; 0]);
    assert_eq!(web.sh(OWN_TREE).ok().stdout, "as asked\n");
    web.stop();
    web.delete().ok();
    bundle.assert_clean();
}

/// With a path of the host as its root, as runc has it, root of a container would climb out of it, and take away
/// what covers its masked paths. A tree that is attached nowhere has nothing above it and cannot be changed.
#[test]
fn inherited_mount_namespace_is_neither_climbed_out_of_nor_changed() {
    const CLIMB: &str = r#"
        #define _GNU_SOURCE
        #include <stdio.h>
        #include <sys/mount.h>
        #include <unistd.h>
        int main(void) {
            if (umount2("/etc/secret", MNT_DETACH) == 0) puts("unmasked");
            if (mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0) == 0) puts("writable");
            if (mount("tmpfs", "/mnt", "tmpfs", 0, 0) == 0) puts("mounted");
            if (chroot("/dev/shm")) return 1;
            for (int i = 0; i < 64; i++) if (chdir("..")) return 2;
            if (chroot(".")) return 3;
            if (access("/etc/the-container", F_OK)) puts("out");
            puts("done");
            return 0;
        }"#;
    require!(root, program("cc"));
    let bundle = in_others_mounts(|config| {
        for set in ["effective", "permitted", "bounding"] {
            config.set(
                &format!("/process/capabilities/{set}"),
                json!(["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"]),
            );
        }
        config.share_namespace("mount")
    });
    fs::create_dir_all(bundle.rootfs().join("mnt")).unwrap();
    fs::write(bundle.rootfs().join("etc/the-container"), "x").unwrap();
    attack::compile(CLIMB, &bundle.rootfs().join("bin/climb"));
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.exec(&["/bin/climb"]).ok().stdout, "done\n");
}

/// Such a tree is a clone, and what is unbindable cannot be cloned: it would be missing.
#[test]
fn unbindable_without_a_new_mount_namespace_is_refused() {
    require!(root);
    let bundle = Bundle::with(|config| {
        let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["unbindable"] });
        config.share_namespace("mount").push("/mounts", mount)
    });
    let count = bundle.config()["mounts"].as_array().unwrap().len();
    refused_at(&bundle, &[&format!("/mounts/{}/options", count - 1)]);
}

/// Every kind that can be joined, one at a time: the second container is in the first one's.
#[test]
fn joined_by_path_pid_network_ipc_uts_and_cgroup() {
    require!(root);
    let bundle = Bundle::with(|config| {
        new_namespace(config, "cgroup");
        config
    });
    let pause = bundle.container("pause");
    pause.up();
    let first = pause.init();
    for (kind, file) in KINDS.iter().filter(|(kind, _)| *kind != "mount" && *kind != "time") {
        let path = format!("/proc/{}/ns/{file}", first.0);
        let web = bundle.another(&format!("web-{kind}"), |config| {
            if *kind == "uts" {
                config.remove("/hostname");
            }
            config.join_namespace(kind, &path)
        });
        web.up();
        for (_, other) in &KINDS {
            let same = web.init().ns(other) == first.ns(other);
            assert_eq!(same, other == file || *other == "time", "{other} when {kind} is joined");
        }
        web.stop();
        web.delete().ok();
    }
}

/// Somebody else's mount namespace: the container is in it, with its own mounts, which nobody else in it sees.
#[test]
fn joined_by_path_mount_namespace_has_the_mounts_and_its_owner_has_not() {
    require!(root);
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sleep", "1000"]);
    let holder = Process(reaper::spawn(&mut command).unwrap().pid);
    eventually("it sleeps", || {
        (holder.cmdline().first().is_some_and(|name| name == "sleep")).then_some(())
    });
    let mounts = holder.mounts();
    let path = format!("/proc/{}/ns/mnt", holder.0);
    let bundle = in_others_mounts(|config| config.join_namespace("mount", &path));
    let web = bundle.container("web");
    let created = web.create();
    let left = holder.mounts();
    let joined = (created.code() == 0).then(|| (web.init().ns("mnt"), holder.ns("mnt")));
    let inside = (created.code() == 0).then(|| {
        web.start().ok();
        web.sh(OWN_TREE)
    });
    holder.kill(libc::SIGKILL).unwrap();
    let created = created.ok();
    assert_eq!(left, mounts, "mounted something in it: {created}");
    let (own, others) = joined.unwrap();
    assert_eq!(own, others);
    assert_eq!(inside.unwrap().ok().stdout, "as asked\n");
}

/// Time namespaces are entered by the path to those of another's children, too.
#[test]
fn joined_by_path_time_namespace() {
    require!(root, path("/proc/self/ns/time"));
    let bundle = Bundle::with(|config| {
        new_namespace(config, "time");
        config
    });
    let pause = bundle.container("pause");
    pause.up();
    let path = format!("/proc/{}/ns/time", pause.init().0);
    let web = bundle.another("web", |config| config.join_namespace("time", &path));
    web.up();
    assert_eq!(web.init().ns("time"), pause.init().ns("time"));
}

/// A namespace that a bind mount keeps alive without any process, as `ip netns` makes it.
#[test]
fn joined_by_path_network_namespace_without_a_process() {
    require!(root);
    let bundle = Bundle::new();
    let file = bundle.dir().join("netns");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let script = "mount --bind /proc/self/ns/net \"$0\"";
    let (status, text) = host::tool(&["unshare", "--net", "sh", "-c", script, file]);
    assert!(status.success(), "{text}");
    bundle.edit(|config| config.join_namespace("network", file));
    let web = bundle.container("web");
    web.up();
    use std::os::unix::fs::MetadataExt;
    let inode = fs::metadata(file).unwrap().ino();
    assert_eq!(web.init().ns("net"), format!("net:[{inode}]"));
    web.stop();
    web.delete().ok();
    assert!(host::tool(&["umount", file]).0.success());
}

/// The spec: a wrong type at the path must be an error, and ours names the entry.
#[test]
fn joined_namespace_of_the_wrong_kind_is_an_error_with_its_pointer() {
    require!(root);
    for (kind, wrong) in [("network", "uts"), ("uts", "net"), ("ipc", "mnt"), ("pid", "ipc")] {
        let bundle = Bundle::with(|config| config.remove("/hostname"));
        bundle.edit(|config| config.join_namespace(kind, &format!("/proc/self/ns/{wrong}")));
        refused_at(&bundle, &[&last_pointer(&bundle)]);
    }
}

#[test]
fn joined_path_that_is_no_namespace_is_an_error_with_its_pointer() {
    require!(root);
    let bundle = Bundle::new();
    bundle.edit(|config| config.join_namespace("network", "/etc/passwd"));
    refused_at(&bundle, &[&last_pointer(&bundle)]);
}

/// A path that leads to a FIFO must not make the runtime wait.
#[test]
fn joined_path_that_is_a_fifo_does_not_hang() {
    require!(root);
    let bundle = Bundle::new();
    let fifo = bundle.dir().join("fifo");
    assert!(host::tool(&["mkfifo", fifo.to_str().unwrap()]).0.success());
    bundle.edit(|config| config.join_namespace("network", fifo.to_str().unwrap()));
    refused_at(&bundle, &[&last_pointer(&bundle)]);
}

#[test]
fn joined_path_that_does_not_exist_is_an_error_with_its_pointer() {
    require!(root);
    let bundle = Bundle::new();
    bundle.edit(|config| config.join_namespace("ipc", "/no/such/namespace"));
    let output = refused_at(&bundle, &[&last_pointer(&bundle)]);
    output.fails_with("no such file or directory");
}

#[test]
fn duplicate_namespace_is_an_error_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| config.push("/linux/namespaces", json!({ "type": "ipc" })));
    refused_at(&bundle, &[&last_pointer(&bundle)]).fails_with("duplicate");
}

#[test]
fn unknown_namespace_type_is_an_error_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| config.push("/linux/namespaces", json!({ "type": "disk" })));
    refused_at(&bundle, &[&format!("{}/type", last_pointer(&bundle))]);
}

/// What a Kubernetes pod is: a pause container, and others in its namespaces.
#[test]
fn pod_members_share_network_ipc_uts_and_pid_and_see_each_other() {
    require!(root);
    let bundle = Bundle::new();
    let pause = bundle.container("pause");
    pause.up();
    let first = pause.init();
    let web = bundle.another("web", |config| {
        config.remove("/hostname");
        for (kind, file) in &KINDS[..4] {
            config.join_namespace(kind, &format!("/proc/{}/ns/{file}", first.0));
        }
        config.sh("hostname; exec sleep 4321")
    });
    let output = web.up();
    for (_, file) in &KINDS[..4] {
        assert_eq!(web.init().ns(file), first.ns(file));
    }
    assert_ne!(web.init().ns("mnt"), first.ns("mnt"));
    eventually("it sleeps", || web.init().cmdline().contains(&"4321".to_string()).then_some(()));
    assert_eq!(output.stdout_now(), "onggi\n", "the pod's hostname");
    let seen = pause.exec(&["ps", "-o", "pid,args"]).ok();
    assert!(seen.stdout.contains("sleep 4321"), "{seen}");
    let inside = web.exec(&["sh", "-c", "readlink /proc/self/ns/pid"]).ok();
    assert_eq!(inside.stdout.trim(), first.ns("pid"));
}

/// The member of a shared pid namespace can be killed and deleted alone.
#[test]
fn pod_members_end_does_not_end_the_pod() {
    require!(root);
    let bundle = Bundle::new();
    let pause = bundle.container("pause");
    pause.up();
    let first = pause.init();
    let path = format!("/proc/{}/ns/pid", first.0);
    let web = bundle.another("web", |config| config.join_namespace("pid", &path));
    web.up();
    web.stop();
    web.delete().ok();
    assert!(first.is_alive());
    assert_eq!(pause.status(), "running");
}

/// A pid namespace whose init has ended can have no new process.
#[test]
fn joined_pid_namespace_of_the_dead_is_a_clean_error() {
    require!(root);
    let bundle = Bundle::new();
    let pause = bundle.container("pause");
    pause.up();
    let file = bundle.dir().join("pidns");
    fs::write(&file, "").unwrap();
    let (file, source) = (file.to_str().unwrap(), format!("/proc/{}/ns/pid", pause.init().0));
    assert!(host::tool(&["mount", "--bind", &source, file]).0.success());
    pause.stop();
    let web = bundle.another("web", |config| config.join_namespace("pid", file));
    let output = web.create();
    assert!(host::tool(&["umount", file]).0.success());
    assert_eq!(output.code(), 1, "{output}");
    pause.delete().ok();
    bundle.assert_clean();
}

/// exec enters each of the container's namespaces, cgroup and time included.
#[test]
fn exec_is_in_all_namespaces_of_the_container() {
    require!(root);
    let bundle = Bundle::with(|config| {
        new_namespace(config, "cgroup");
        config
    });
    let web = bundle.container("web");
    web.up();
    let files = ["pid", "net", "ipc", "uts", "cgroup", "mnt", "time", "user"];
    let script = format!("for f in {}; do readlink /proc/self/ns/$f; done", files.join(" "));
    let seen = web.sh(&script).ok().stdout;
    let init = web.init();
    assert_eq!(seen.lines().map(str::to_string).collect::<Vec<_>>(), files.map(|f| init.ns(f)));
}

/// The runtime borrows joined namespaces and must give them back; the host keeps its own.
#[test]
fn hosts_namespaces_are_untouched() {
    require!(root);
    let all = ["pid", "net", "ipc", "uts", "cgroup", "mnt", "time", "user"];
    let facts = || {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let domainname = fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
        let sysctl = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
        (hostname, domainname, sysctl, all.map(|kind| Process::own().ns(kind)))
    };
    let before = facts();
    let bundle = Bundle::with(|config| {
        config.set("/domainname", "elsewhere").set("/linux/sysctl/net.ipv4.ip_default_ttl", "77")
    });
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(facts(), before, "after create");
    web.start().ok();
    let inside = web.sh("hostname; cat /proc/sys/net/ipv4/ip_default_ttl").ok();
    assert_eq!(inside.stdout, "onggi\n77\n");
    assert_eq!(facts(), before, "after exec");
    web.remove();
    assert_eq!(facts(), before, "after delete");
}
