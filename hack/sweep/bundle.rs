//! The container that is swept: one that uses most of what a runtime sets up, so that a skipped
//! step shows. The payload is busybox as another user with three capabilities.

use super::guard::Place;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The capabilities the container keeps.
pub const CAPABILITIES: [&str; 3] = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// A bundle directory whose config.json is rewritten for each container id.
pub struct Bundle {
    pub dir: PathBuf,
    pub payload: PathBuf,
    template: String,
}

const APPLETS: [&str; 8] = ["sleep", "sh", "cat", "grep", "readlink", "hostname", "env", "true"];

/// What the container masks, and what it has read-only.
pub const MASKED: [&str; 6] =
    ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"];
pub const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Makes rootfs, bind sources, a hook program and the config template.
pub fn make(place: &Place, busybox: &Path, (userns, host_mounts): (bool, bool)) -> Result<Bundle> {
    let dir = place.dir.join("bundle");
    let rootfs = dir.join("rootfs");
    for d in ["bin", "etc", "proc", "dev", "sys", "tmp", "data"] {
        fs::create_dir_all(rootfs.join(d))?;
    }
    fs::create_dir_all(place.dir.join("volume"))?;
    fs::write(place.dir.join("hosts"), "127.0.0.1 localhost\n")?;
    fs::write(rootfs.join("etc/hosts"), "")?;
    let payload = rootfs.join("bin/busybox");
    fs::copy(busybox, &payload)
        .with_context(|| format!("{}: a static busybox is needed", busybox.display()))?;
    // Its own copy, so that the tracer can tell a hook from the payload by inode.
    fs::copy(busybox, place.dir.join("hook"))?;
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    let mut config = config(place);
    if userns {
        map_ids(&mut config, &rootfs)?;
    }
    if let (true, Some(list)) = (host_mounts, config["linux"]["namespaces"].as_array_mut()) {
        list.retain(|namespace| namespace["type"] != "mount");
    }
    let template = serde_json::to_string(&config)?;
    Ok(Bundle { dir, payload, template })
}

impl Bundle {
    /// Makes the bundle that of container `id`.
    pub fn name(&self, id: &str) -> Result<()> {
        Ok(fs::write(self.dir.join("config.json"), self.template.replace("@ID@", id))?)
    }
}

fn config(place: &Place) -> Value {
    let hook = json!([{ "path": place.dir.join("hook"), "args": ["true"], "timeout": 5 }]);
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    json!({
        "ociVersion": "1.0.2",
        "hostname": "swept",
        "process": process(),
        "root": { "path": "rootfs", "readonly": false },
        "mounts": mounts(place),
        "hooks": { "createRuntime": hook, "poststop": hook },
        "linux": {
            "namespaces": kinds.map(|k| json!({ "type": k })),
            "cgroupsPath": place.cgroups_path(),
            "resources": resources(place),
            "sysctl": { "kernel.msgmax": "4096" },
            "seccomp": seccomp(),
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
        },
    })
}

/// A user namespace, and the rootfs given to its root.
fn map_ids(config: &mut Value, rootfs: &Path) -> Result<()> {
    const FIRST: u32 = 100_000;
    let map = json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
    let linux = &mut config["linux"];
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    if let Some(list) = linux["namespaces"].as_array_mut() {
        list.push(json!({ "type": "user" }));
    }
    let mut all = vec![rootfs.to_path_buf()];
    while let Some(path) = all.pop() {
        std::os::unix::fs::lchown(&path, Some(FIRST), Some(FIRST))?;
        if path.is_dir() && !path.is_symlink() {
            for entry in fs::read_dir(&path)? {
                all.push(entry?.path());
            }
        }
    }
    Ok(())
}

fn process() -> Value {
    // Lower limits only: raising one needs CAP_SYS_RESOURCE.
    let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_or(512, |(_, h)| h.min(512));
    json!({
        "terminal": false,
        "user": { "uid": 1000, "gid": 1000, "additionalGids": [10, 20], "umask": 23 },
        "args": ["/bin/sleep", "1000000"],
        "cwd": "/tmp",
        "env": ["PATH=/bin", "SWEPT=yes"],
        "noNewPrivileges": true,
        "oomScoreAdj": 100,
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": hard, "hard": hard },
                    { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }],
        "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
                          "inheritable": CAPABILITIES, "ambient": CAPABILITIES },
    })
}

fn mounts(place: &Place) -> Vec<Value> {
    let volume = place.dir.join("volume").display().to_string();
    let hosts = place.dir.join("hosts").display().to_string();
    let table = [
        ("/proc", "proc", "proc", "nosuid noexec nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
        ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620"),
        ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
        ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
        ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
        ("/data", "bind", &volume, "rbind rprivate nosuid nodev ro"),
        ("/etc/hosts", "bind", &hosts, "bind rprivate"),
    ];
    let entry = |(destination, kind, source, options): (&str, &str, &str, &str)| {
        let options: Vec<_> = options.split(' ').collect();
        json!({ "destination": destination, "type": kind, "source": source, "options": options })
    };
    table.into_iter().map(entry).collect()
}

/// Only limits whose controllers this machine has.
fn resources(place: &Place) -> Value {
    let allow = |major: u32, minor: u32| json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }, allow(1, 3), allow(1, 5), allow(1, 9)] });
    let listed = place
        .cgroup_roots
        .iter()
        .find_map(|r| fs::read_to_string(r.join("cgroup.controllers")).ok());
    let has = |name: &str| {
        place.cgroup_roots.iter().any(|r| r.file_name().is_some_and(|f| f == name))
            || listed.as_ref().is_some_and(|l| l.split_whitespace().any(|c| c == name))
    };
    if has("memory") {
        resources["memory"] = json!({ "limit": 128 << 20 });
    }
    if has("pids") {
        resources["pids"] = json!({ "limit": 128 });
    }
    resources
}

fn seccomp() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": if cfg!(target_arch = "x86_64") {
            json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
        } else {
            json!(["SCMP_ARCH_AARCH64"])
        },
        "syscalls": [
            { "names": ["kexec_load", "reboot", "swapon", "mount", "umount2", "bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
            { "names": ["personality"], "action": "SCMP_ACT_ERRNO",
              "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
        ],
    })
}
