//! The bundles that are measured: one as an engine makes it, and a minimal one.

use super::{guard::Place, names};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[rustfmt::skip]
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
];
#[rustfmt::skip]
const MASKED: [&str; 12] = [
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
];
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Left out of the stand-in profile: what engines refuse without extra capabilities, or allow by argument.
#[rustfmt::skip]
const PRIVILEGED: [&str; 34] = [
    "mount", "umount2", "pivot_root", "reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
    "setns", "unshare", "bpf", "swapon", "swapoff", "acct", "settimeofday", "clone", "personality", "socket", "add_key",
    "request_key", "keyctl", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "quotactl",
    "nfsservctl", "userfaultfd", "perf_event_open", "lookup_dcookie",
];

/// Config templates; `@ID@` stands for the container's id.
pub struct Bundles {
    dir: PathBuf,
    docker: Value,
    minimal: Value,
    pub rules: usize,
    /// The payload that waits: device and inode.
    pub pause: PathBuf,
    pub payload: &'static str,
    ends: Vec<String>,
    waits: Vec<String>,
    crowd: Vec<String>,
}

/// Makes rootfs, bind sources, payloads and templates.
pub fn make(place: &Place, profile: Option<&Path>, busybox: &Path) -> Result<Bundles> {
    let rootfs = place.dir.join("rootfs");
    for d in ["bin", "etc", "proc", "dev", "sys", "tmp", "root", "data", "conf"] {
        fs::create_dir_all(rootfs.join(d))?;
    }
    for d in ["etc", "data", "conf", "bundles"] {
        fs::create_dir_all(place.dir.join(d))?;
    }
    for file in ["resolv.conf", "hostname", "hosts"] {
        fs::write(place.dir.join("etc").join(file), "127.0.0.1 bench\n")?;
        fs::write(rootfs.join("etc").join(file), "")?;
    }
    let tiny = compile(&rootfs, "ends", &["-DTRUE"])?
        && compile(&rootfs, "waits", &[])?
        && compile(&rootfs, "crowd", &["-DCROWD"])?;
    let words = |list: &[&str]| list.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
    let (pause, ends, waits, crowd) = if tiny {
        ("bin/waits", words(&["/bin/ends"]), words(&["/bin/waits"]), words(&["/bin/crowd"]))
    } else {
        fs::copy(busybox, rootfs.join("bin/busybox"))
            .with_context(|| busybox.display().to_string())?;
        (
            "bin/busybox",
            words(&["/bin/busybox", "true"]),
            words(&["/bin/busybox", "sleep", "1000000"]),
            words(&[
                "/bin/busybox",
                "sh",
                "-c",
                "for i in $(busybox seq 999); do busybox sleep 1000000 & done; wait",
            ]),
        )
    };
    let seccomp = match profile {
        Some(path) => expand(&serde_json::from_str(&fs::read_to_string(path)?)?)?,
        None => stand_in(),
    };
    let count = |s: &Value| s["names"].as_array().map_or(0, Vec::len);
    let rules = seccomp["syscalls"].as_array().map_or(0, |s| s.iter().map(count).sum());
    Ok(Bundles {
        dir: place.dir.join("bundles"),
        docker: docker_like(place, seccomp),
        minimal: minimal(place),
        rules,
        pause: rootfs.join(pause),
        payload: if tiny { "without libc" } else { "busybox" },
        ends,
        waits,
        crowd,
    })
}

/// False where there is no compiler: busybox takes its place then.
fn compile(rootfs: &Path, name: &str, flags: &[&str]) -> Result<bool> {
    let source = rootfs.join("payload.c");
    fs::write(&source, include_str!("payload.c"))?;
    let made = Command::new("cc")
        .args(["-O2", "-static", "-nostdlib", "-nostartfiles", "-o"])
        .arg(rootfs.join("bin").join(name))
        .args(flags)
        .arg(&source)
        .output();
    fs::remove_file(&source)?;
    Ok(made.is_ok_and(|m| m.status.success()))
}

impl Bundles {
    /// Writes the bundle of one contestant's next container and returns its directory.
    pub fn write(&self, who: &str, docker: bool, ends: bool, id: &str) -> Result<String> {
        let dir = self.dir.join(format!("{who}-{docker}-{ends}"));
        fs::create_dir_all(&dir)?;
        let mut config = if docker { self.docker.clone() } else { self.minimal.clone() };
        config["process"]["args"] = json!(if ends { &self.ends } else { &self.waits });
        fs::write(dir.join("config.json"), serde_json::to_string(&config)?.replace("@ID@", id))?;
        Ok(dir.display().to_string())
    }

    /// A minimal one whose init makes 999 children.
    pub fn write_crowd(&self, who: &str, id: &str) -> Result<String> {
        let dir = self.dir.join(format!("{who}-crowd"));
        fs::create_dir_all(&dir)?;
        let mut config = self.minimal.clone();
        config["process"]["args"] = json!(self.crowd);
        fs::write(dir.join("config.json"), serde_json::to_string(&config)?.replace("@ID@", id))?;
        Ok(dir.display().to_string())
    }

    /// The process description for `exec`.
    pub fn exec_process(&self) -> Result<String> {
        let file = self.dir.join("process.json");
        let mut process = self.docker["process"].clone();
        process["args"] = json!(self.ends);
        fs::write(&file, serde_json::to_string(&process)?)?;
        Ok(file.display().to_string())
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &str) -> Value {
    let options: Vec<_> = options.split(' ').collect();
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

fn minimal(place: &Place) -> Value {
    let kinds = ["pid", "ipc", "uts", "mount", "network"];
    json!({
        "ociVersion": "1.0.2",
        "hostname": "bench",
        "root": { "path": place.dir.join("rootfs"), "readonly": false },
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": [],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
        },
        "mounts": [
            mount("/proc", "proc", "proc", "nosuid noexec nodev"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
            mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
            mount("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
            mount("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
            mount("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
        ],
        "linux": {
            "namespaces": kinds.map(|k| json!({ "type": k })),
            "cgroupsPath": place.cgroups_path(),
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
        },
    })
}

/// 6 namespaces, 14 capabilities, a long seccomp list, 12 mounts with 5 binds, 12 masked and 5
/// read-only paths, 8 device rules, limits where the host has the controllers.
fn docker_like(place: &Place, seccomp: Value) -> Value {
    let mut config = minimal(place);
    let source = |name: &str| place.dir.join(name).display().to_string();
    let mut more = vec![mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro nosuid noexec nodev")];
    for file in ["resolv.conf", "hostname", "hosts"] {
        more.push(mount(
            &format!("/etc/{file}"),
            "bind",
            &source(&format!("etc/{file}")),
            "rbind rprivate",
        ));
    }
    more.push(mount("/data", "bind", &source("data"), "rbind rprivate"));
    more.push(mount("/conf", "bind", &source("conf"), "rbind rprivate ro"));
    extend(&mut config["mounts"], more);
    let linux = &mut config["linux"];
    extend(&mut linux["namespaces"], vec![json!({ "type": "cgroup" })]);
    let devices = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
    let rule = |allow: bool, (major, minor): (u32, u32)| json!({ "allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    extend(
        &mut linux["resources"]["devices"],
        devices.into_iter().map(|d| rule(true, d)).collect(),
    );
    extend(&mut linux["resources"]["devices"], vec![rule(false, (10, 229))]);
    let limits = [
        ("memory", json!({ "limit": 512 << 20 })),
        ("cpu", json!({ "shares": 1024, "quota": 100_000, "period": 100_000 })),
        ("pids", json!({ "limit": 4096 })),
    ];
    for (name, limit) in limits {
        if has_controller(place, name) {
            linux["resources"][name] = limit;
        }
    }
    linux["maskedPaths"] = json!(MASKED);
    linux["readonlyPaths"] = json!(READONLY);
    linux["seccomp"] = seccomp;
    config["process"]["oomScoreAdj"] = json!(0);
    config
}

fn extend(list: &mut Value, more: Vec<Value>) {
    if let Value::Array(list) = list {
        list.extend(more);
    }
}

fn has_controller(place: &Place, name: &str) -> bool {
    place.cgroup_roots.iter().any(|root| {
        let listed = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        root.file_name().is_some_and(|f| f == name) || listed.split_whitespace().any(|c| c == name)
    })
}

fn architectures() -> Value {
    if cfg!(target_arch = "x86_64") {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    } else {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    }
}

/// An allow list of the size and kind that engines use.
fn stand_in() -> Value {
    let names: Vec<_> = names::all().filter(|n| !PRIVILEGED.contains(n)).collect();
    let when = |name: &str, arg: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [arg] });
    let mut rules = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        when(
            "clone",
            json!({ "index": 0, "value": 0x7E02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }),
        ),
        when("socket", json!({ "index": 0, "value": 40, "op": "SCMP_CMP_NE" })),
    ];
    for value in [0u32, 8, 0x20000, 0x20008, 0xFFFF_FFFF] {
        rules.push(when("personality", json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" })));
    }
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures(), "syscalls": rules })
}

/// An engine's default profile for this machine and our capabilities; a plain OCI one stays as it is.
fn expand(profile: &Value) -> Result<Value> {
    let Some(rules) = profile["syscalls"].as_array() else {
        bail!("the seccomp profile has no syscalls")
    };
    let plain = |rule: &Value| {
        let mut rule = rule.clone();
        if let Value::Object(map) = &mut rule {
            map.retain(|k, v| {
                ["names", "action", "args", "errnoRet"].contains(&k.as_str()) && !v.is_null()
            });
        }
        rule
    };
    let kept: Vec<_> = rules.iter().filter(|r| applies(r)).map(plain).collect();
    let mut out = json!({ "defaultAction": profile["defaultAction"], "architectures": architectures(), "syscalls": kept });
    if profile["defaultErrnoRet"].is_number() {
        out["defaultErrnoRet"] = profile["defaultErrnoRet"].clone();
    }
    Ok(out)
}

fn applies(rule: &Value) -> bool {
    let list = |v: &Value| -> Vec<String> {
        v.as_array()
            .map(|a| a.iter().filter_map(Value::as_str).map(str::to_string).collect())
            .unwrap_or_default()
    };
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let (inc, exc) = (&rule["includes"], &rule["excludes"]);
    let kept = |c: &String| CAPABILITIES.contains(&c.as_str());
    let arches = list(&inc["arches"]);
    let new_enough = |v: &Value| v.as_str().is_none_or(|wanted| kernel() >= version(wanted));
    !list(&exc["arches"]).iter().any(|a| a == arch)
        && !list(&exc["caps"]).iter().any(kept)
        && (arches.is_empty() || arches.iter().any(|a| a == arch))
        && list(&inc["caps"]).iter().all(kept)
        && new_enough(&inc["minKernel"])
        && exc["minKernel"].as_str().is_none_or(|limit| kernel() < version(limit))
}

fn kernel() -> (u32, u32) {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
