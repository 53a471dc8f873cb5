//! What ties a captured config.json to the machine it was captured on, and what takes its place
//! here. One function is one such thing, with the reason; nothing else may be changed.
//!
//! Each function notes where it has changed something, and whether the runtime must have refused
//! the captured value on this machine. A test holds the unmodified config.json against that.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{facts, resources};
use crate::support::{Bundle, Config, Process, host, onggi};

/// One change.
#[derive(Debug)]
#[allow(dead_code)] // The reason is for the reader, of the source and of a failure.
pub struct Change {
    /// The JSON pointer of what has been changed.
    pub at: String,
    pub why: &'static str,
    /// The captured value cannot work here: the runtime must refuse it.
    pub refused: bool,
}

/// A config.json on its way to this machine.
pub struct Adapted<'b> {
    pub config: Config,
    pub changes: Vec<Change>,
    bundle: &'b Bundle,
    peer: Option<Process>,
}

/// Replaces all that belongs to the captured machine. Namespaces that were joined become those of
/// `peer`.
pub fn adapt(captured: Value, bundle: &Bundle, peer: Option<Process>) -> Adapted<'_> {
    let mut adapted = Adapted { config: Config(captured), changes: Vec::new(), bundle, peer };
    root_filesystem(&mut adapted);
    bind_sources(&mut adapted);
    locked_access_times(&mut adapted);
    overlay_directories(&mut adapted);
    joined_namespaces(&mut adapted);
    cgroups_path(&mut adapted);
    hooks(&mut adapted);
    sysctls(&mut adapted);
    process(&mut adapted, "/process");
    resources::without_controller(&mut adapted);
    adapted
}

/// Replaces what belongs to the captured machine in a process at a pointer: `/process` of a
/// config.json, or nothing for the process.json of an exec.
pub fn process(adapted: &mut Adapted, at: &str) {
    security_labels(adapted, at);
    rlimits(adapted, at);
    oom_score(adapted, at);
    capabilities(adapted, at);
    program(adapted, at);
}

impl Adapted<'_> {
    /// A lone process, as exec gets it.
    pub fn of_process(process: Value, bundle: &Bundle) -> Adapted<'_> {
        Adapted { config: Config(process), changes: Vec::new(), bundle, peer: None }
    }

    pub fn note(&mut self, at: impl Into<String>, why: &'static str, refused: bool) {
        self.changes.push(Change { at: at.into(), why, refused });
    }

    pub fn bundle(&self) -> &Bundle {
        self.bundle
    }

    /// The array at a pointer, or nothing.
    pub fn items(&self, at: &str) -> Vec<Value> {
        self.config.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// A new file or directory of the host for the container to see, readable for every user.
    fn stand_in(&self, number: usize, is_file: bool) -> PathBuf {
        let path = self.bundle.dir().join(format!("stand-in-{number}"));
        match is_file {
            true => fs::write(&path, "stands in for the engine's file\n").unwrap(),
            false => fs::create_dir_all(&path).unwrap(),
        }
        path
    }
}

/// The image's layers are on the captured machine; here is a busybox in the bundle. containerd's
/// `rootfs` is where the bundle has it anyway.
fn root_filesystem(adapted: &mut Adapted) {
    let path = adapted.config["root"]["path"].as_str().unwrap().to_string();
    if adapted.bundle.path().join(path).is_dir() {
        return;
    }
    adapted.config.set("/root/path", "rootfs");
    adapted.note("/root/path", "the image was unpacked on the captured machine", true);
}

/// Engines bind files that they have made for the container; an empty stand-in of the right kind
/// takes the place of each that is not here.
fn bind_sources(adapted: &mut Adapted) {
    for (index, mount) in adapted.items("/mounts").iter().enumerate() {
        let source = mount["source"].as_str().unwrap_or_default();
        if !facts::is_bind(mount) || adapted.bundle.path().join(source).exists() {
            continue;
        }
        let target = mount["destination"].as_str().unwrap();
        let own = adapted.stand_in(index, is_file(target));
        adapted.config.set(&format!("/mounts/{index}/source"), own.to_str().unwrap());
        let why = "the engine had made the source on the captured machine";
        adapted.note(format!("/mounts/{index}"), why, true);
    }
}

/// Whether engines mount a file at this place of the container.
fn is_file(target: &str) -> bool {
    let files = ["/dev/termination-log", "/sbin/docker-init", "/run/podman-init", "/dev/init"];
    let secret = target.strip_prefix("/run/secrets/").is_some_and(|name| !name.contains('/'));
    files.contains(&target) || target.starts_with("/etc/") || target.contains("/.") || secret
}

/// In a user namespace a bind mount cannot change how its source keeps access times. docker writes
/// down what it has found there, and the captured machine's disk was mounted without them.
fn locked_access_times(adapted: &mut Adapted) {
    let namespaces = adapted.items("/linux/namespaces");
    if !namespaces.iter().any(|namespace| namespace["type"] == "user") {
        return;
    }
    for (index, mount) in adapted.items("/mounts").iter().enumerate() {
        if facts::is_bind(mount) && facts::has_option(mount, "noatime") {
            let mut options = mount["options"].as_array().unwrap().clone();
            options.retain(|option| option != "noatime");
            let at = format!("/mounts/{index}");
            adapted.config.set(&format!("{at}/options"), json!(options));
            adapted.note(at, "the captured machine's disk was mounted noatime", false);
        }
    }
}

/// podman's `-v DIR:DIR:O` keeps the upper and work directories with its container.
fn overlay_directories(adapted: &mut Adapted) {
    for (index, mount) in adapted.items("/mounts").iter().enumerate() {
        if mount["type"] != "overlay" {
            continue;
        }
        for (number, option) in mount["options"].as_array().unwrap().iter().enumerate() {
            let Some((key, path)) = option.as_str().unwrap().split_once('=') else { continue };
            let is_directory = ["lowerdir", "upperdir", "workdir"].contains(&key);
            if !is_directory || Path::new(path).is_dir() {
                continue;
            }
            let own = adapted.stand_in(1000 + 10 * index + number, false);
            let option = format!("{key}={}", own.display());
            adapted.config.set(&format!("/mounts/{index}/options/{number}"), option);
            let why = "the engine had made the directory on the captured machine";
            adapted.note(format!("/mounts/{index}"), why, true);
        }
    }
}

/// A namespace to join was that of another container of the captured machine; a container of the
/// same bundle stands in for it.
fn joined_namespaces(adapted: &mut Adapted) {
    for (index, namespace) in adapted.items("/linux/namespaces").iter().enumerate() {
        let path = namespace["path"].as_str().unwrap_or_default();
        if path.is_empty() {
            continue;
        }
        let file = facts::namespace_file(namespace["type"].as_str().unwrap());
        if let Some(peer) = adapted.peer {
            let own = format!("/proc/{}/ns/{file}", peer.0);
            adapted.config.set(&format!("/linux/namespaces/{index}/path"), own);
        }
        // A process of this machine may happen to have that number.
        let refused = !Path::new(path).exists();
        let why = "the namespace was of another container on the captured machine";
        adapted.note(format!("/linux/namespaces/{index}"), why, refused);
    }
}

/// The harness finds what a container leaves by the bundle's name, so that must be in the path.
/// A systemd name (`slice:prefix:name`) is a directory name like any other to the cgroupfs driver.
fn cgroups_path(adapted: &mut Adapted) {
    let path = adapted.config["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    let own = format!("/{}{}", adapted.bundle.name(), format!("/{path}").replace('/', "-"));
    adapted.config.set("/linux/cgroupsPath", own);
    adapted.note("/linux/cgroupsPath", "leftovers are found by the bundle's name", false);
}

/// docker's hook is dockerd itself, podman's and nerdctl's are programs of their packages.
/// Something that succeeds is run in their place.
fn hooks(adapted: &mut Adapted) {
    let kinds = adapted.config["hooks"].as_object().cloned().unwrap_or_default();
    for (kind, hooks) in kinds {
        for (index, hook) in hooks.as_array().unwrap().iter().enumerate() {
            let path = hook["path"].as_str().unwrap();
            // /proc/PID/exe is a process of the captured machine even where the number is taken.
            let there = Path::new(path).exists();
            if there && !path.starts_with("/proc/") {
                continue;
            }
            let own = host::find_program("true").expect("true");
            let at = format!("/hooks/{kind}/{index}");
            adapted.config.set(&format!("{at}/path"), own.to_str().unwrap());
            adapted.note(at, "the hook's program is on the captured machine", !there);
        }
    }
}

/// A kernel built without a subsystem lacks its sysctls.
fn sysctls(adapted: &mut Adapted) {
    let sysctls = adapted.config["linux"]["sysctl"].as_object().cloned().unwrap_or_default();
    for name in sysctls.keys() {
        if facts::sysctl_path("/proc/sys", name).exists() {
            continue;
        }
        adapted.config.remove(&format!("/linux/sysctl/{name}"));
        adapted.note("/linux/sysctl", "this kernel has no such sysctl", true);
    }
}

/// A label needs its security module, and a profile must be loaded there. `unconfined` asks for
/// nothing where there is no AppArmor; runc tries to write it all the same.
fn security_labels(adapted: &mut Adapted, process: &str) {
    for (at, refused) in facts::refused_labels(&adapted.config, process) {
        adapted.config.remove(&at);
        adapted.note(at, "the security module is not enabled, or has no such profile", refused);
    }
}

/// Without CAP_SYS_RESOURCE nobody raises a hard limit: the highest possible one is asked for.
fn rlimits(adapted: &mut Adapted, process: &str) {
    if facts::has_capability("CAP_SYS_RESOURCE") {
        return;
    }
    for (index, limit) in adapted.items(&format!("{process}/rlimits")).iter().enumerate() {
        let (_, own) = facts::rlimit(Process::own(), limit["type"].as_str().unwrap());
        if limit["hard"].as_u64().unwrap() <= own {
            continue;
        }
        let at = format!("{process}/rlimits/{index}");
        let soft = limit["soft"].as_u64().unwrap().min(own);
        adapted.config.set(&format!("{at}/hard"), own).set(&format!("{at}/soft"), soft);
        adapted.note(at, "raising a hard limit needs CAP_SYS_RESOURCE", true);
    }
}

/// Without CAP_SYS_RESOURCE nobody becomes less likely a victim of the OOM killer.
fn oom_score(adapted: &mut Adapted, process: &str) {
    let at = format!("{process}/oomScoreAdj");
    let own: i64 = Process::own().read("oom_score_adj").trim().parse().unwrap();
    let lower = adapted.config.pointer(&at).and_then(Value::as_i64).is_some_and(|want| want < own);
    if lower && !facts::has_capability("CAP_SYS_RESOURCE") {
        adapted.config.set(&at, own);
        adapted.note(at, "lowering the OOM score needs CAP_SYS_RESOURCE", true);
    }
}

/// A privileged container asks for every capability. What a runtime does not have it cannot
/// grant: onggi warns and grants the rest, so nothing is changed for it, but runc refuses.
fn capabilities(adapted: &mut Adapted, process: &str) {
    if onggi::name() == "onggi" {
        return;
    }
    let sets = adapted.config.pointer(&format!("{process}/capabilities")).cloned();
    for (set, names) in sets.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let all = names.as_array().cloned().unwrap_or_default();
        let mut ours = all.clone();
        ours.retain(|name| facts::has_capability(name.as_str().unwrap()));
        if ours.len() < all.len() {
            let at = format!("{process}/capabilities/{set}");
            adapted.config.set(&at, json!(ours));
            adapted.note(at, "we have not all of these to give", true);
        }
    }
}

/// The image's or the engine's program is not in our root file system: busybox's `true` or
/// `sleep` is run. Its path is absolute because an image without variables has no PATH.
fn program(adapted: &mut Adapted, process: &str) {
    let at = format!("{process}/args");
    let args = adapted.items(&at);
    let program = args.first().and_then(Value::as_str).unwrap_or_default();
    let rootfs = adapted.bundle.rootfs();
    let there = match program.contains('/') {
        true => rootfs.join(program.trim_start_matches('/')).exists(),
        false => rootfs.join("bin").join(program).exists(),
    };
    if !there {
        // A sandbox's program does nothing until it is killed.
        let pauses = program.ends_with("/pause") || args.iter().any(|arg| arg == "-P");
        let own = if pauses { json!(["/bin/sleep", "1000"]) } else { json!(["/bin/true"]) };
        adapted.config.set(&at, own);
        adapted.note(at, "the program is in the engine's image or package", true);
    }
}

/// The checks look at a process that is still there; most captured ones end at once.
pub fn stays(config: &mut Config, process: &str) {
    config.set(&format!("{process}/args"), json!(["/bin/sleep", "1000"]));
}

/// An engine gives the files of a container with mapped ids to its mapped root.
pub fn mapped_owner(config: &Value, bundle: &Bundle) {
    let Some(first) = config.pointer("/linux/uidMappings/0/hostID").and_then(Value::as_u64) else {
        return;
    };
    let owner = format!("{first}:{first}");
    let (status, text) = host::tool(&["chown", "-Rh", &owner, bundle.rootfs().to_str().unwrap()]);
    assert!(status.success(), "{text}");
}
