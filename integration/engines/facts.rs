//! What this machine has and what the words of a config.json mean to the kernel.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Config, Process, onggi};

/// By number.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// As /proc/PID/limits calls them.
const RLIMITS: [(&str, &str); 16] = [
    ("RLIMIT_AS", "Max address space"),
    ("RLIMIT_CORE", "Max core file size"),
    ("RLIMIT_CPU", "Max cpu time"),
    ("RLIMIT_DATA", "Max data size"),
    ("RLIMIT_FSIZE", "Max file size"),
    ("RLIMIT_LOCKS", "Max file locks"),
    ("RLIMIT_MEMLOCK", "Max locked memory"),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
    ("RLIMIT_NICE", "Max nice priority"),
    ("RLIMIT_NOFILE", "Max open files"),
    ("RLIMIT_NPROC", "Max processes"),
    ("RLIMIT_RSS", "Max resident set"),
    ("RLIMIT_RTPRIO", "Max realtime priority"),
    ("RLIMIT_RTTIME", "Max realtime timeout"),
    ("RLIMIT_SIGPENDING", "Max pending signals"),
    ("RLIMIT_STACK", "Max stack size"),
];

/// Whether we hold a capability, by its name.
pub fn has_capability(name: &str) -> bool {
    let set = u64::from_str_radix(&Process::own().status("CapPrm"), 16).unwrap();
    set & capability_mask(name) != 0
}

/// A capability's bit; 0 for a name that this list does not know.
pub fn capability_mask(name: &str) -> u64 {
    CAPABILITIES.iter().position(|known| *known == name).map_or(0, |number| 1 << number)
}

/// Soft and hard limit of a process.
#[track_caller]
pub fn rlimit(process: Process, name: &str) -> (u64, u64) {
    let words = RLIMITS.iter().find(|(known, _)| *known == name);
    let (_, words) = words.unwrap_or_else(|| panic!("unknown {name}"));
    let text = process.read("limits");
    let values = text.lines().find_map(|line| line.strip_prefix(words)).unwrap();
    let value = |text: &str| text.parse().unwrap_or(u64::MAX);
    let mut values = values.split_whitespace().map(value);
    (values.next().unwrap(), values.next().unwrap())
}

/// The file in /proc/PID/ns of a namespace type of the spec.
pub fn namespace_file(kind: &str) -> &str {
    match kind {
        "network" => "net",
        "mount" => "mnt",
        other => other,
    }
}

/// Whether a mount of config.json is a bind mount: engines write that as type, option or both.
pub fn is_bind(mount: &Value) -> bool {
    has_option(mount, "bind") || has_option(mount, "rbind") || mount["type"] == "bind"
}

pub fn has_option(mount: &Value, name: &str) -> bool {
    mount["options"].as_array().is_some_and(|options| options.iter().any(|one| one == name))
}

/// How much a file system holds.
pub fn capacity(path: &Path) -> u64 {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &mut facts) }, 0, "{path:?}");
    facts.f_blocks * facts.f_frsize
}

/// A size as mount options write it: `65536k`.
pub fn bytes(size: &str) -> u64 {
    let units = [("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30)];
    let unit = units.iter().find_map(|(unit, factor)| Some((size.strip_suffix(unit)?, factor)));
    unit.map_or_else(
        || size.parse().unwrap(),
        |(number, factor)| number.parse::<u64>().unwrap() * factor,
    )
}

/// The file of a sysctl: `net.ipv4.ip_forward`, or with slashes.
pub fn sysctl_path(root: &str, name: &str) -> PathBuf {
    let name = if name.contains('/') { name.to_string() } else { name.replace('.', "/") };
    Path::new(root).join(name)
}

/// The pointers of labels that this machine cannot give, and whether onggi must refuse each.
pub fn refused_labels(config: &Config, process: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let label = |at: &str| config.pointer(at).and_then(Value::as_str).unwrap_or("").to_string();
    let at = format!("{process}/apparmorProfile");
    let profile = label(&at);
    if profile == "unconfined" && onggi::name() != "onggi" {
        found.push((at, false));
    } else if !profile.is_empty() && profile != "unconfined" && !is_loaded(&profile) {
        found.push((at, true));
    }
    for at in [format!("{process}/selinuxLabel"), "/linux/mountLabel".to_string()] {
        if !label(&at).is_empty() && !Path::new("/sys/fs/selinux/enforce").exists() {
            found.push((at, true));
        }
    }
    found
}

/// Whether AppArmor is here and knows the profile. The list has lines like `name (enforce)`.
fn is_loaded(profile: &str) -> bool {
    let list = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles");
    let list = list.unwrap_or_default();
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile))
}
