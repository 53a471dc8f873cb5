//! config.json as a value that a test can bend.

use std::ops::{Deref, DerefMut};

use serde_json::{Value, json};

use super::host;

/// A config.json. It starts as what `runc spec` writes, without a terminal, with a writable root
/// and with `sleep 1000` as its process, and is a `serde_json::Value` besides.
#[derive(Clone, Debug)]
pub struct Config(pub Value);

impl Config {
    /// The default container with its cgroup at the given absolute path.
    pub fn new(cgroups_path: &str) -> Config {
        let mut config = Config(json!({
            "ociVersion": "1.0.2",
            "process": process(),
            "root": { "path": "rootfs", "readonly": false },
            "hostname": "onggi",
            "mounts": mounts(),
            "linux": linux(),
        }));
        config.set("/linux/cgroupsPath", cgroups_path);
        if host::is_v2() {
            config.push("/linux/namespaces", json!({ "type": "cgroup" }));
        }
        config
    }

    /// The command to run.
    pub fn args(&mut self, args: &[&str]) -> &mut Config {
        self.set("/process/args", args)
    }

    /// A shell script to run.
    pub fn sh(&mut self, script: &str) -> &mut Config {
        self.args(&["sh", "-c", script])
    }

    /// Sets the value at a JSON pointer and makes the objects on the way.
    pub fn set(&mut self, pointer: &str, value: impl Into<ValueOf>) -> &mut Config {
        let mut place = &mut self.0;
        for key in pointer.split('/').skip(1) {
            place = match place {
                Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
                other => &mut other[key.replace("~1", "/").replace("~0", "~")],
            };
        }
        *place = value.into().0;
        self
    }

    /// Adds to the array at a JSON pointer and makes the array if it is not there.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Config {
        if self.0.pointer(pointer).is_none_or(Value::is_null) {
            self.set(pointer, json!([]));
        }
        self.0.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
        self
    }

    /// Takes the value at a JSON pointer out.
    pub fn remove(&mut self, pointer: &str) -> &mut Config {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match self.0.pointer_mut(parent) {
            Some(Value::Object(members)) => drop(members.remove(key)),
            Some(Value::Array(items)) => drop(items.remove(key.parse().unwrap())),
            _ => {}
        }
        self
    }

    /// Takes a namespace out, so that the container shares the runtime's.
    pub fn share_namespace(&mut self, kind: &str) -> &mut Config {
        let list = self.0["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        self
    }

    /// Joins a namespace by path.
    pub fn join_namespace(&mut self, kind: &str, path: &str) -> &mut Config {
        self.share_namespace(kind);
        self.push("/linux/namespaces", json!({ "type": kind, "path": path }))
    }

    /// Adds a bind mount of a host path.
    pub fn bind(&mut self, source: &str, target: &str, options: &[&str]) -> &mut Config {
        let mut all = vec!["bind"];
        all.extend(options);
        let mount =
            json!({ "destination": target, "type": "bind", "source": source, "options": all });
        self.push("/mounts", mount)
    }

    /// Adds a hook: `hook("prestart", "/bin/sh", &["sh", "-c", "…"])`.
    pub fn hook(&mut self, kind: &str, path: &str, args: &[&str]) -> &mut Config {
        let path_env = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let hook = json!({ "path": path, "args": args, "env": [path_env] });
        self.push(&format!("/hooks/{kind}"), hook)
    }
}

impl Deref for Config {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.0
    }
}

impl DerefMut for Config {
    fn deref_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

/// What `Config::set` takes: a value, or something that has an obvious one.
pub struct ValueOf(Value);

impl From<&[&str]> for ValueOf {
    fn from(list: &[&str]) -> ValueOf {
        ValueOf(json!(list))
    }
}

macro_rules! value_of {
    ($($kind:ty),*) => {$(
        impl From<$kind> for ValueOf {
            fn from(value: $kind) -> ValueOf {
                ValueOf(Value::from(value))
            }
        }
    )*};
}
value_of!(Value, &str, String, bool, i32, i64, u32, u64);

fn process() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "terminal": false,
        "user": { "uid": 0, "gid": 0 },
        "args": ["sleep", "1000"],
        "env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM=xterm"
        ],
        "cwd": "/",
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities
        },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
        "noNewPrivileges": true
    })
}

fn mounts() -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
          "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs",
          "options": ["nosuid", "noexec", "nodev", "ro"] },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
          "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
    ])
}

fn linux() -> Value {
    json!({
        "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
        "namespaces": [
            { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
            { "type": "mount" }
        ],
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
            "/proc/scsi"
        ],
        "readonlyPaths": [
            "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
        ]
    })
}
