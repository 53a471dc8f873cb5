//! What a config.json says, held against what the kernel says about the running process.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::Value;

use super::facts;
use crate::support::process::Mount;
use crate::support::{Container, Process};

/// Everything about the process itself, for init and exec alike; `linux` is of config.json.
#[track_caller]
pub fn process(wanted: &Value, linux: &Value, found: Process) {
    identity(&wanted["user"], linux, found);
    capabilities(wanted, found);
    let no_new_privileges = wanted["noNewPrivileges"].as_bool().unwrap_or(false);
    assert_eq!(found.status("NoNewPrivs"), u8::from(no_new_privileges).to_string());
    // 2 is a filter; without one of its own the process has what we have.
    let mode = if linux["seccomp"].is_object() {
        "2".to_string()
    } else {
        Process::own().status("Seccomp")
    };
    assert_eq!(found.status("Seccomp"), mode);
    rlimits(wanted, found);
    apparmor(wanted, found);
    if let Some(score) = wanted["oomScoreAdj"].as_i64() {
        assert_eq!(found.read("oom_score_adj").trim(), score.to_string());
    }
    environment(wanted, found);
    let cwd = fs::read_link(format!("/proc/{}/cwd", found.0)).unwrap();
    assert_eq!(cwd.to_str(), wanted["cwd"].as_str());
    let terminal = found.fds()[&0].starts_with("/dev/pts/");
    assert_eq!(terminal, wanted["terminal"].as_bool().unwrap_or(false));
}

/// Everything about the container.
#[track_caller]
pub fn container(config: &Value, init: Process, peer: Option<Process>, container: &Container) {
    namespaces(config, init, peer);
    mounts(config, init);
    root(config, init);
    masked_paths(config, init);
    readonly_paths(config, init);
    devices(config, init);
    names(config, container);
    sysctls(config, container);
    let annotations = &config["annotations"];
    if annotations.is_object() {
        let state = container.state();
        for (key, value) in annotations.as_object().unwrap() {
            assert_eq!(&state["annotations"][key], value, "{key}");
        }
    }
    if config["linux"]["personality"]["domain"] == "LINUX32" {
        assert_eq!(init.read("personality").trim(), "00000008");
    }
}

#[track_caller]
fn identity(user: &Value, linux: &Value, found: Process) {
    let number = |key: &str| user[key].as_u64().unwrap_or(0);
    let (uids, gids) = (&linux["uidMappings"], &linux["gidMappings"]);
    for (key, id) in [("Uid", on_host(number("uid"), uids)), ("Gid", on_host(number("gid"), gids))]
    {
        assert_eq!(found.status(key), [id.to_string().as_str(); 4].join("\t"), "{key}");
    }
    let groups = user["additionalGids"].as_array().into_iter().flatten().flat_map(Value::as_u64);
    let mut groups: Vec<u64> = groups.map(|gid| on_host(gid, gids)).collect();
    groups.sort_unstable();
    let words: Vec<String> = groups.iter().map(u64::to_string).collect();
    assert_eq!(found.status("Groups"), words.join(" "));
    let umask = user["umask"].as_u64().unwrap_or(0o022);
    assert_eq!(found.status("Umask"), format!("{umask:04o}"));
}

/// A container's id as the host's /proc shows it.
fn on_host(id: u64, mappings: &Value) -> u64 {
    let number = |map: &Value, key: &str| map[key].as_u64().unwrap();
    let offset = |map: &Value| id.checked_sub(number(map, "containerID"));
    let maps = mappings.as_array().into_iter().flatten();
    let mapped = |map: &Value| {
        offset(map).filter(|by| *by < number(map, "size")).map(|by| number(map, "hostID") + by)
    };
    maps.map(mapped).find(Option::is_some).flatten().unwrap_or(id)
}

/// The sets after execve. Root gets what is inheritable or in the bounding set, but with
/// noNewPrivileges nothing new; another user keeps only the ambient ones (capabilities(7)).
#[track_caller]
fn capabilities(wanted: &Value, found: Process) {
    let set = |name: &str| {
        let names = wanted["capabilities"][name].as_array().into_iter().flatten();
        let names = names.flat_map(Value::as_str).filter(|name| facts::has_capability(name));
        names.fold(0, |mask, name| mask | facts::capability_mask(name))
    };
    let (bounding, inheritable) = (set("bounding"), set("inheritable"));
    // An inheritable set goes no further than the permitted one, an ambient one than both.
    let ambient = set("ambient") & set("permitted") & inheritable;
    let permitted = match (wanted["user"]["uid"].as_u64(), wanted["noNewPrivileges"].as_bool()) {
        (Some(0) | None, Some(true)) => (bounding | inheritable) & set("permitted"),
        (Some(0) | None, _) => bounding | inheritable,
        _ => ambient,
    };
    let expected = [
        ("CapBnd", bounding),
        ("CapInh", inheritable),
        ("CapPrm", permitted),
        ("CapEff", permitted),
        ("CapAmb", ambient),
    ];
    for (key, mask) in expected {
        assert_eq!(found.status(key), format!("{mask:016x}"), "{key}");
    }
}

/// The profile is really the process's, not only asked for.
#[track_caller]
fn apparmor(wanted: &Value, found: Process) {
    let profile = wanted["apparmorProfile"].as_str().unwrap_or_default();
    if profile.is_empty() || !crate::support::need::apparmor().met {
        return;
    }
    let current = found.read("attr/current");
    let name = current.trim_end().rsplit_once(" (").map_or(current.trim_end(), |(name, _)| name);
    assert_eq!(name, profile, "the AppArmor profile");
}

#[track_caller]
fn rlimits(wanted: &Value, found: Process) {
    for limit in wanted["rlimits"].as_array().into_iter().flatten() {
        let name = limit["type"].as_str().unwrap();
        let expected = (limit["soft"].as_u64().unwrap(), limit["hard"].as_u64().unwrap());
        assert_eq!(facts::rlimit(found, name), expected, "{name}");
    }
}

/// Exactly the given variables, and HOME, which the runtime adds or fills in.
#[track_caller]
fn environment(wanted: &Value, found: Process) {
    let mut expected: Vec<String> = Vec::new();
    let given = wanted["env"].as_array().into_iter().flatten().flat_map(Value::as_str);
    expected.extend(given.map(str::to_string));
    expected.sort();
    let mut there = found.environ();
    if !expected.iter().any(|entry| entry.starts_with("HOME=") && entry != "HOME=") {
        expected.retain(|entry| entry != "HOME=");
        there.retain(|entry| !entry.starts_with("HOME="));
    }
    assert_eq!(there, expected);
}

/// A listed kind is new, or that of the peer if it was to be joined; any other kind is ours.
#[track_caller]
fn namespaces(config: &Value, init: Process, peer: Option<Process>) {
    let list = config["linux"]["namespaces"].as_array().unwrap();
    for kind in ["pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time"] {
        let file = facts::namespace_file(kind);
        let own = Process::own().ns(file);
        let listed = list.iter().find(|namespace| namespace["type"] == kind);
        match listed.map(|namespace| namespace["path"].as_str().unwrap_or("")) {
            None => assert_eq!(init.ns(file), own, "{kind}"),
            Some("") => assert_ne!(init.ns(file), own, "{kind}"),
            Some(_) => assert_eq!(init.ns(file), peer.unwrap().ns(file), "{kind}"),
        }
    }
}

/// Every mount is there, of its type, and with the flags that were asked for.
#[track_caller]
fn mounts(config: &Value, init: Process) {
    // A recursive propagation of the root file system comes last and has the final say.
    let propagation = config["linux"]["rootfsPropagation"].as_str().unwrap_or_default();
    let private = !propagation.starts_with('r');
    for mount in config["mounts"].as_array().unwrap() {
        let target = mount["destination"].as_str().unwrap();
        let Some(found) = init.mount_at(target) else { panic!("no mount at {target}") };
        let kind = mount["type"].as_str().unwrap_or_default();
        // On cgroup v1 that is a directory with a mount for each hierarchy.
        let as_asked = found.fstype == kind || kind == "cgroup" || facts::is_bind(mount);
        assert!(as_asked, "{target} is {} instead of {kind}", found.fstype);
        if kind == "cgroup" && found.fstype == "tmpfs" {
            let below = |one: &Mount| one.target.starts_with(target) && one.fstype == "cgroup";
            let hierarchies: Vec<Mount> = init.mounts().into_iter().filter(below).collect();
            assert!(!hierarchies.is_empty(), "no hierarchy below {target}");
            // A bind mount of the host's /sys may have brought others, which these cover.
            let upper = |one: &Mount| init.mount_at(&one.target).unwrap();
            hierarchies.iter().map(upper).for_each(|hierarchy| flags(mount, &hierarchy));
        } else {
            flags(mount, &found);
        }
        if found.fstype == "tmpfs" && kind == "tmpfs" {
            tmpfs(mount, &init.path(target));
        }
        let tags = found.tags.as_str();
        if facts::has_option(mount, "rshared") {
            assert!(tags.contains("shared:"), "{target} is not shared: {found:?}");
        }
        if private && (facts::has_option(mount, "rprivate") || facts::has_option(mount, "private"))
        {
            assert_eq!(tags, "", "{target} is not private: {found:?}");
        }
    }
}

/// Size and mode of a tmpfs, where they were asked for.
#[track_caller]
fn tmpfs(mount: &Value, path: &Path) {
    for option in mount["options"].as_array().into_iter().flatten().flat_map(Value::as_str) {
        if let Some(size) = option.strip_prefix("size=") {
            assert_eq!(facts::capacity(path), facts::bytes(size), "{option} of {path:?}");
        }
        if let Some(mode) = option.strip_prefix("mode=") {
            let found = fs::metadata(path).unwrap().mode() & 0o7777;
            assert_eq!(found, u32::from_str_radix(mode, 8).unwrap(), "{option} of {path:?}");
        }
    }
}

/// A mount is read-only when that was asked for and only then.
#[track_caller]
fn flags(mount: &Value, found: &Mount) {
    let flags: Vec<&str> = found.options.split(',').collect();
    for flag in ["nosuid", "nodev", "noexec"] {
        if facts::has_option(mount, flag) {
            assert!(flags.contains(&flag), "{} is not {flag}: {found:?}", found.target);
        }
    }
    let readonly = facts::has_option(mount, "ro") || facts::has_option(mount, "rro");
    assert_eq!(flags.contains(&"ro"), readonly, "{} read-only: {found:?}", found.target);
}

#[track_caller]
fn root(config: &Value, init: Process) {
    let root = init.mount_at("/").unwrap();
    let readonly = config["root"]["readonly"].as_bool().unwrap_or(false);
    assert_eq!(root.options.split(',').any(|flag| flag == "ro"), readonly, "{root:?}");
    if config["linux"]["rootfsPropagation"].as_str().is_some_and(|kind| kind.ends_with("shared")) {
        assert!(root.tags.contains("shared:"), "{root:?}");
    }
}

/// A masked file reads as empty, a masked directory has no entry.
#[track_caller]
fn masked_paths(config: &Value, init: Process) {
    for path in strings(&config["linux"]["maskedPaths"]) {
        let inside = init.path(path);
        let Ok(facts) = fs::metadata(&inside) else { continue };
        assert!(init.mount_at(path).is_some(), "{path} is not masked");
        match facts.is_dir() {
            true => assert_eq!(fs::read_dir(&inside).unwrap().count(), 0, "{path}"),
            false => assert!(fs::read(&inside).is_ok_and(|bytes| bytes.is_empty()), "{path}"),
        }
    }
}

#[track_caller]
fn readonly_paths(config: &Value, init: Process) {
    for path in strings(&config["linux"]["readonlyPaths"]) {
        if fs::metadata(init.path(path)).is_err() {
            continue;
        }
        let Some(found) = init.mount_at(path) else { panic!("no mount at {path}") };
        assert!(found.options.split(',').any(|flag| flag == "ro"), "{path}: {found:?}");
    }
}

/// The listed nodes with their numbers and owners, and those that every container has.
#[track_caller]
fn devices(config: &Value, init: Process) {
    for device in config["linux"]["devices"].as_array().into_iter().flatten() {
        let path = device["path"].as_str().unwrap();
        let facts = fs::symlink_metadata(init.path(path)).expect(path);
        if path == "/dev/ptmx" {
            // A privileged container lists the host's; its own is that of its /dev/pts.
            assert!(facts.is_symlink(), "{path}");
            continue;
        }
        let number = |key: &str| device[key].as_u64().unwrap_or(0);
        let kind = facts.file_type();
        assert_eq!(kind.is_block_device(), device["type"] == "b", "{path}");
        assert_eq!(kind.is_char_device(), device["type"] != "b", "{path}");
        let rdev = facts.rdev();
        let found = (u64::from(libc::major(rdev)), u64::from(libc::minor(rdev)));
        assert_eq!(found, (number("major"), number("minor")), "{path}");
        let mode = device["fileMode"].as_u64().unwrap_or(0o666) & 0o7777;
        assert_eq!(u64::from(facts.mode() & 0o7777), mode, "{path}");
    }
    for (path, minor) in [("/dev/null", 3), ("/dev/zero", 5), ("/dev/urandom", 9)] {
        let rdev = fs::symlink_metadata(init.path(path)).expect(path).rdev();
        assert_eq!((libc::major(rdev), libc::minor(rdev)), (1, minor), "{path}");
    }
}

/// Names are only asked for, never changed, in a uts namespace of another.
#[track_caller]
fn names(config: &Value, container: &Container) {
    if let Some(name) = config["hostname"].as_str().filter(|name| !name.is_empty()) {
        assert_eq!(container.exec(&["/bin/hostname"]).ok().stdout.trim(), name);
    }
}

#[track_caller]
fn sysctls(config: &Value, container: &Container) {
    for (name, value) in config["linux"]["sysctl"].as_object().into_iter().flatten() {
        let path = facts::sysctl_path("/proc/sys", name);
        let text = container.exec(&["/bin/cat", path.to_str().unwrap()]).ok().stdout;
        let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(words(&text), words(value.as_str().unwrap()), "{name}");
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().flat_map(Value::as_str)
}
