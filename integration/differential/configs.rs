//! The configurations: one base, and patches of it, each about one property.

use serde_json::{Value, json};

use super::mounts;
use crate::support::Config;

type Patch = Box<dyn Fn(&mut Config) + Send + Sync>;

/// A patch and its name.
pub struct Named {
    pub name: String,
    pub patch: Patch,
}

struct List(Vec<Named>);

impl List {
    fn add(
        &mut self,
        name: impl Into<String>,
        patch: impl Fn(&mut Config) + Send + Sync + 'static,
    ) {
        self.0.push(Named { name: name.into(), patch: Box::new(patch) });
    }

    /// Sets one value.
    fn set(&mut self, name: impl Into<String>, pointer: &'static str, value: Value) {
        self.add(name, move |config| {
            config.set(pointer, value.clone());
        });
    }

    fn mount(&mut self, name: impl Into<String>, mount: Value) {
        self.add(name, move |config| mounts(config).push(mount.clone()));
    }
}

/// The base: what `runc spec` writes, and the probe.
pub fn base(config: &mut Config, probe: &str) {
    config.set("/linux/resources", json!({}));
    config.args(&["sh", "-c", probe, "probe"]);
    config.set(
        "/process/env",
        json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root"]),
    );
}

/// All of them.
pub fn all() -> Vec<Named> {
    let mut list = List(Vec::new());
    list.add("base", |_| {});
    process(&mut list);
    capabilities_and_limits(&mut list);
    new_mounts(&mut list);
    bind_mounts(&mut list);
    namespaces(&mut list);
    paths_and_devices(&mut list);
    seccomp_and_cgroups(&mut list);
    list.0
}

fn process(list: &mut List) {
    list.set("uid", "/process/user", json!({ "uid": 1000, "gid": 0 }));
    list.set("gid", "/process/user", json!({ "uid": 0, "gid": 1000 }));
    list.set("user", "/process/user", json!({ "uid": 1000, "gid": 1000 }));
    list.set("user-unknown", "/process/user", json!({ "uid": 4711, "gid": 4712 }));
    list.set(
        "groups",
        "/process/user",
        json!({ "uid": 1000, "gid": 1000, "additionalGids": [10, 20, 20, 5] }),
    );
    list.set(
        "groups-of-root",
        "/process/user",
        json!({ "uid": 0, "gid": 0, "additionalGids": [1, 2, 3] }),
    );
    for umask in [0, 0o22, 0o77, 0o777] {
        list.set(format!("umask-{umask:o}"), "/process/user/umask", json!(umask));
    }
    list.set("cwd", "/process/cwd", json!("/work"));
    list.set("cwd-missing", "/process/cwd", json!("/new/deep/dir"));
    list.set("cwd-link", "/process/cwd", json!("/link"));
    list.set("cwd-dots", "/process/cwd", json!("/work/../work/."));
    list.set("cwd-proc", "/process/cwd", json!("/proc"));
    list.set("env-none", "/process/env", json!([]));
    list.set("env-no-home", "/process/env", json!(["PATH=/bin"]));
    list.set("env-no-path", "/process/env", json!(["HOME=/x"]));
    list.set("env-empty-values", "/process/env", json!(["PATH=/bin", "HOME=", "A=", "B==x=y"]));
    list.set("env-twice", "/process/env", json!(["PATH=/bin", "A=1", "A=2"]));
    list.set("env-unicode", "/process/env", json!(["PATH=/bin", "A=\u{fc}\t x"]));
    list.add("args-path", |config| config["process"]["args"][0] = json!("/bin/sh"));
    list.add("args-relative", |config| {
        config["process"]["args"][0] = json!("bin/sh");
    });
    list.set("no-new-privileges", "/process/noNewPrivileges", json!(true));
    list.set("no-new-privileges-off", "/process/noNewPrivileges", json!(false));
    list.add("no-new-privileges-absent", |config| {
        config.remove("/process/noNewPrivileges");
    });
    list.set("oom-score-500", "/process/oomScoreAdj", json!(500));
    list.set("oom-score-0", "/process/oomScoreAdj", json!(0));
    list.set("hostname", "/hostname", json!("other-name"));
    list.add("hostname-absent", |config| {
        config.remove("/hostname");
    });
    list.set("personality-linux32", "/linux/personality", json!({ "domain": "LINUX32" }));
    list.set("personality-linux", "/linux/personality", json!({ "domain": "LINUX" }));
    list.set("annotations", "/annotations", json!({ "org.example": "x" }));
    list.set("version-1.0.2", "/ociVersion", json!("1.0.2"));
    list.set("version-2.0.0", "/ociVersion", json!("2.0.0"));
    list.set("unknown-property", "/unknown", json!({ "a": 1 }));
}

fn capabilities_and_limits(list: &mut List) {
    const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];
    list.add("capabilities-absent", |config| {
        config.remove("/process/capabilities");
    });
    list.set("capabilities-empty", "/process/capabilities", json!({}));
    for user in [0, 1000] {
        for (name, sets) in [
            ("all-sets", &SETS[..]),
            ("without-ambient", &SETS[..4]),
            ("bounding-only", &SETS[..1]),
        ] {
            list.add(format!("capabilities-{name}-{user}"), move |config| {
                config.set("/process/user", json!({ "uid": user, "gid": user }));
                config.set("/process/capabilities", json!({}));
                for set in sets {
                    config["process"]["capabilities"][*set] =
                        json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
                }
            });
        }
    }
    list.set(
        "capabilities-unknown",
        "/process/capabilities/bounding",
        json!(["CAP_KILL", "CAP_NONESUCH"]),
    );
    for kind in [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ] {
        let (soft, hard): (u64, u64) = match kind {
            "AS" | "DATA" | "FSIZE" | "STACK" => (1 << 31, 1 << 32),
            "NICE" | "RTPRIO" | "MEMLOCK" | "MSGQUEUE" | "SIGPENDING" => (0, 0),
            _ => (200, 400),
        };
        list.set(
            format!("rlimit-{}", kind.to_lowercase()),
            "/process/rlimits",
            json!([{ "type": format!("RLIMIT_{kind}"), "soft": soft, "hard": hard }]),
        );
    }
    list.add("rlimits-absent", |config| {
        config.remove("/process/rlimits");
    });
    let twice = json!({ "type": "RLIMIT_CORE", "soft": 1, "hard": 1 });
    list.set("rlimits-twice", "/process/rlimits", json!([twice, twice]));
    list.set(
        "rlimits-unknown",
        "/process/rlimits",
        json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]),
    );
}

fn new_mounts(list: &mut List) {
    for options in [
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "sync",
        "async",
        "dirsync",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "defaults",
        "lazytime",
        "silent",
        "iversion",
        "size=64k",
        "mode=0700",
        "uid=7,gid=8",
        "nr_inodes=100",
        "private",
        "shared",
        "slave",
        "unbindable",
        "rprivate",
        "rshared",
        "rslave",
        "runbindable",
        "tmpcopyup",
        "nosuid,nodev,ro,mode=755",
        "ro,rw",
        "size=bogus",
        "nosymfollow",
    ] {
        let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
            "options": options.split(',').collect::<Vec<_>>() });
        list.mount(format!("tmpfs-{options}"), mount);
    }
    list.mount(
        "tmpfs-new-target",
        json!({ "destination": "/new/place", "type": "tmpfs", "source": "tmpfs" }),
    );
    list.mount(
        "tmpfs-relative-target",
        json!({ "destination": "mnt", "type": "tmpfs", "source": "tmpfs" }),
    );
    list.mount(
        "tmpfs-by-a-link",
        json!({ "destination": "/link", "type": "tmpfs", "source": "tmpfs" }),
    );
    list.mount(
        "mount-unknown-type",
        json!({ "destination": "/mnt", "type": "nonesuch", "source": "x" }),
    );
    list.add("cgroup-rw", |config| {
        mounts(config).retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        let options = ["nosuid", "noexec", "nodev", "relatime"];
        mounts(config).push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }));
    });
    list.add("cgroup-absent", |config| {
        mounts(config).retain(|mount| mount["destination"] != "/sys/fs/cgroup")
    });
    list.add("sys-absent", |config| {
        mounts(config).retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
    });
    list.add("dev-absent", |config| {
        mounts(config).retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    });
    list.set("root-readonly", "/root/readonly", json!(true));
    for propagation in
        ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"]
    {
        list.set(format!("rootfs-{propagation}"), "/linux/rootfsPropagation", json!(propagation));
    }
}

fn bind_mounts(list: &mut List) {
    for options in [
        "",
        "ro",
        "rw",
        "nosuid,nodev,noexec",
        "noatime",
        "shared",
        "slave",
        "private",
        "unbindable",
        "rslave",
        "rro",
        "rnosuid",
        "mode=755",
        "size=1k,ro",
        "ro,rw",
    ] {
        for bind in ["bind", "rbind"] {
            let mut all = vec![bind];
            all.extend(options.split(',').filter(|option| !option.is_empty()));
            let mount = json!({ "destination": "/mnt", "type": "none", "source": "source", "options": all });
            list.mount(format!("{bind}-{options}"), mount);
        }
    }
    list.mount("bind-file", json!({ "destination": "/mnt/ro/file", "type": "bind", "source": "source/file", "options": ["bind", "ro"] }));
    list.mount("bind-new-file", json!({ "destination": "/mnt/new/file", "type": "bind", "source": "source/file", "options": ["bind"] }));
    list.mount(
        "bind-missing-source",
        json!({ "destination": "/mnt", "type": "bind", "source": "nonesuch", "options": ["bind"] }),
    );
}

fn namespaces(list: &mut List) {
    for kind in ["pid", "network", "ipc", "uts"] {
        list.add(format!("inherit-{kind}"), move |config| {
            config.share_namespace(kind);
            if kind == "uts" {
                config.remove("/hostname");
            }
        });
    }
    list.add("cgroup-namespace", |config| {
        config.push("/linux/namespaces", json!({ "type": "cgroup" }));
    });
    list.add("no-cgroup-namespace", |config| {
        config.share_namespace("cgroup");
    });
    list.add("namespace-twice", |config| {
        config.push("/linux/namespaces", json!({ "type": "pid" }));
    });
    list.add("join-own-net", |config| {
        config.join_namespace("network", "/proc/self/ns/net");
    });
    list.add("join-wrong-kind", |config| {
        config.join_namespace("network", "/proc/self/ns/ipc");
    });
    list.add("hostname-without-uts", |config| {
        config.share_namespace("uts");
    });
    list.set("sysctl-ipc", "/linux/sysctl", json!({ "kernel.shmmax": "65536" }));
    list.set("sysctl-net", "/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    list.set("sysctl-mqueue", "/linux/sysctl", json!({ "fs.mqueue.msg_max": "11" }));
    list.set("sysctl-of-the-host", "/linux/sysctl", json!({ "vm.swappiness": "60" }));
}

fn paths_and_devices(list: &mut List) {
    list.add("masked-none", |config| {
        config.remove("/linux/maskedPaths");
    });
    list.set(
        "masked-own",
        "/linux/maskedPaths",
        json!(["/mnt/mask", "/mnt/mask/file", "/nonesuch"]),
    );
    list.set("masked-file", "/linux/maskedPaths", json!(["/mnt/mask/file"]));
    list.add("readonly-none", |config| {
        config.remove("/linux/readonlyPaths");
    });
    list.set("readonly-own", "/linux/readonlyPaths", json!(["/mnt/ro", "/nonesuch"]));
    list.set("readonly-and-masked", "/linux/readonlyPaths", json!(["/mnt/mask", "/mnt/ro/file"]));
    let fuse = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6 });
    list.set("device", "/linux/devices", json!([fuse]));
    list.set(
        "device-defaults",
        "/linux/devices",
        json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 }]),
    );
    list.set(
        "device-fifo",
        "/linux/devices",
        json!([{ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }]),
    );
    list.set(
        "device-outside-dev",
        "/linux/devices",
        json!([{ "path": "/mnt/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]),
    );
    list.set(
        "device-conflict",
        "/linux/devices",
        json!([{ "path": "/mnt/ro", "type": "c", "major": 1, "minor": 3 }]),
    );
}

fn seccomp_and_cgroups(list: &mut List) {
    let profile = |action: &str, default: &str| json!({ "defaultAction": default, "syscalls": [{ "names": ["kexec_load", "nonesuch"], "action": action }] });
    list.set("seccomp-errno", "/linux/seccomp", profile("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"));
    list.set("seccomp-kill", "/linux/seccomp", profile("SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ALLOW"));
    list.set("seccomp-log", "/linux/seccomp", profile("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"));
    list.set("seccomp-unknown-action", "/linux/seccomp", profile("SCMP_ACT_X", "SCMP_ACT_ALLOW"));
    list.add("seccomp-of-a-user", move |config| {
        config.set("/linux/seccomp", profile("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"));
        config
            .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
            .set("/process/noNewPrivileges", false);
    });
    list.set("pids-limit", "/linux/resources/pids", json!({ "limit": 100 }));
    list.set("memory-limit", "/linux/resources/memory", json!({ "limit": 104_857_600 }));
    list.set("cpu-shares", "/linux/resources/cpu", json!({ "shares": 512 }));
    list.set("cpu-quota", "/linux/resources/cpu", json!({ "quota": 50_000, "period": 100_000 }));
    list.set("cpuset", "/linux/resources/cpu", json!({ "cpus": "0", "mems": "0" }));
    list.add("resources-absent", |config| {
        config.remove("/linux/resources");
    });
}
