//! `spec`: the configuration that scripts and test suites start from.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::args;
use crate::error::{Code, Error, Result};
use crate::sys;

/// `onggi spec`
pub fn spec(matches: &ArgMatches) -> anyhow::Result<u8> {
    let directory = match args::path(matches, "bundle")? {
        Some(directory) => directory,
        None => crate::bundle::absolute(std::path::Path::new(""))?,
    };
    let mut config = default_config();
    if args::is_on(matches, "rootless") {
        make_rootless(&mut config);
    }
    write_new(&directory, &format!("{config:#}\n"))?;
    Ok(0)
}

/// Writes config.json, never over one that is there.
fn write_new(directory: &std::path::Path, text: &str) -> Result<()> {
    let name = sys::cstr("open", directory.as_os_str().as_bytes())?;
    let dir = sys::fs::open(&name, libc::O_RDONLY | libc::O_DIRECTORY)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = match sys::fs::openat(dir.as_fd(), c"config.json", flags, 0o666) {
        Err(error) if error.errno == libc::EEXIST => {
            return Err(Error::text(Code::E_OPTION, "file config.json exists. Remove it first"));
        }
        result => result?,
    };
    Ok(sys::fs::write_all(file.as_fd(), text.as_bytes())?)
}

/// What `runc spec` writes.
#[must_use]
pub fn default_config() -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": crate::plan::check::OCI_VERSION_MAX,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "onggi",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                "/sys/devices/virtual/powercap", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    })
}

fn mounts() -> Value {
    let mount = |to: &str, kind: &str, source: &str, options: &[&str]| {
        let mut mount = json!({"destination": to, "type": kind, "source": source});
        if let (false, Some(object)) = (options.is_empty(), mount.as_object_mut()) {
            object.insert("options".into(), json!(options));
        }
        mount
    };
    json!([
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"]
        )
    ])
}

/// As runc does for a user without rights: a user namespace with one id, no network of its own, /sys
/// from the host, no gid for devpts, no resources.
fn make_rootless(config: &mut Value) {
    let (uid, gid) = (sys::cred::euid(), sys::cred::egid());
    if let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) {
        mounts.retain(|mount| mount.get("destination") != Some(&json!("/sys/fs/cgroup")));
        for mount in mounts.iter_mut() {
            if mount.get("type") == Some(&json!("sysfs")) {
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            }
            if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
                options.retain(|option| option != "gid=5");
            }
        }
    }
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("resources");
        linux.insert(
            "namespaces".into(),
            json!([
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"}, {"type": "user"}
            ]),
        );
        linux.insert("uidMappings".into(), json!([{"containerID": 0, "hostID": uid, "size": 1}]));
        linux.insert("gidMappings".into(), json!([{"containerID": 0, "hostID": gid, "size": 1}]));
    }
}
