//! `check --host`: what this machine offers a container and what it lacks.
//!
//! Owns: looking. Must not: change anything, or stop at the first thing that is not there.

use std::ffi::CStr;
use std::os::fd::AsFd;

use serde_json::Value;

use super::update::set;
use crate::error::Result;
use crate::host::{CAP_SYS_ADMIN, Host};
use crate::plan::caps;
use crate::plan::namespaces::KINDS;
use crate::sys;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    found: Value,
    lacks: Vec<String>,
    /// Without these there is no container at all.
    needs: Vec<String>,
}

/// A call, since when it is there, and how to find out.
type Call = (&'static str, &'static str, fn() -> sys::Result<()>);

/// The kernel calls that onggi has no way around, with the version that brought them.
const NEEDED: [Call; 6] = [
    ("openat2", "Linux 5.6", || sys::fs::openat2(sys::fs::CWD, c"/", libc::O_PATH, 0, 0).map(drop)),
    ("fsopen", "Linux 5.2", || sys::mount::fsopen(c"tmpfs").map(drop)),
    ("open_tree", "Linux 5.2", || sys::mount::open_tree(sys::fs::CWD, c"/", 0).map(drop)),
    ("mount_setattr", "Linux 5.12", || {
        let root = sys::fs::open(c"/", libc::O_PATH)?;
        sys::mount::mount_setattr(root.as_fd(), 0, &sys::mount::MountAttr::default())
    }),
    ("pidfd_open", "Linux 5.3", || sys::process::pidfd_open(sys::process::getpid()).map(drop)),
    ("close_range", "Linux 5.11", || sys::exec::cloexec_range(u32::MAX, u32::MAX)),
];

/// Looks at this machine with the rights of the caller.
///
/// # Errors
/// When what every command needs of /proc cannot be read.
pub fn gather() -> Result<Report> {
    let host = Host::gather()?;
    let mut report = Report::default();
    report.kernel();
    report.caller(&host);
    report.namespaces();
    report.cgroups(&host);
    report.security(&host);
    report.programs(&host);
    Ok(report)
}

impl Report {
    /// As one object.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut all = self.found.clone();
        set(&mut all, "/lacks", Value::from(self.lacks.clone()));
        set(&mut all, "/needs", Value::from(self.needs.clone()));
        all
    }

    /// As lines `name: value`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        lines("", &self.found, &mut text);
        for (word, list) in [("lacks", &self.lacks), ("needs", &self.needs)] {
            for item in list {
                text += &format!("{word}: {item}\n");
            }
        }
        text
    }

    /// Whether this kernel can run a container at all.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.needs.is_empty()
    }

    #[inline(never)]
    fn put(&mut self, pointer: &str, value: Value) {
        set(&mut self.found, pointer, value);
    }

    fn put_flag(&mut self, pointer: &str, value: bool) {
        self.put(pointer, Value::Bool(value));
    }

    #[inline(never)]
    fn put_text(&mut self, pointer: &str, value: Option<String>) {
        self.put(pointer, value.into());
    }

    #[inline(never)]
    fn put_list(&mut self, pointer: &str, list: Vec<String>) {
        self.put(pointer, list.into());
    }

    #[inline(never)]
    fn lack(&mut self, there: bool, what: &str) {
        if !there {
            self.lacks.push(what.to_owned());
        }
    }

    fn kernel(&mut self) {
        self.put_text("/kernel/release", line(c"/proc/sys/kernel/osrelease"));
        self.put_text("/kernel/machine", Some(std::env::consts::ARCH.to_owned()));
        for (name, since, probe) in NEEDED {
            // Any other refusal is about the arguments, or about the caller's rights.
            let there = probe().err().is_none_or(|error| error.errno != libc::ENOSYS);
            self.put_flag(&format!("/kernel/calls/{name}"), there);
            if !there {
                self.needs.push(format!("{name} ({since})"));
            }
        }
        let memfd = sys::exec::memfd(c"onggi", libc::MFD_EXEC);
        // Before Linux 6.3 the flag is unknown, and every memfd executable.
        let executable = memfd.err().is_none_or(|error| error.errno == libc::EINVAL);
        self.put_flag("/memfd/executable", executable);
        self.put_text("/memfd/vm.memfd_noexec", line(c"/proc/sys/vm/memfd_noexec"));
        self.lack(
            executable,
            "an executable memfd (vm.memfd_noexec): the runtime is sealed by an overlay mount",
        );
        let actions = line(c"/proc/sys/kernel/seccomp/actions_avail");
        self.put_flag("/seccomp/filter", actions.is_some());
        self.lack(actions.is_some(), "seccomp filters (CONFIG_SECCOMP_FILTER)");
        let actions = actions.unwrap_or_default();
        self.put_list(
            "/seccomp/actions",
            actions.split_ascii_whitespace().map(str::to_owned).collect(),
        );
    }

    fn caller(&mut self, host: &Host) {
        self.put("/caller/uid", host.euid.into());
        self.put("/caller/gid", host.egid.into());
        self.put_flag("/caller/userNamespace", host.user_namespace);
        self.put_flag("/caller/mayMount", host.mounts);
        self.put_list("/caller/capabilitiesMissing", caps::names(!host.capabilities));
        self.lack(
            host.capabilities & CAP_SYS_ADMIN != 0,
            "CAP_SYS_ADMIN: containers need a user namespace",
        );
    }

    fn namespaces(&mut self) {
        for kind in KINDS {
            let there = sys::cstr("open", format!("/proc/self/ns/{}", kind.file()))
                .and_then(|path| sys::fs::lstatat(sys::fs::CWD, &path))
                .is_ok();
            let most = number(&format!("/proc/sys/user/max_{}_namespaces", kind.file()));
            self.put_flag(&format!("/namespaces/{}/available", kind.name()), there);
            self.put(&format!("/namespaces/{}/max", kind.name()), most.into());
            self.lack(there && most != Some(0), &format!("{} namespaces", kind.name()));
        }
        for (name, path, refusal) in [
            ("unprivilegedUser", "/proc/sys/kernel/unprivileged_userns_clone", 0),
            ("apparmorRestrictsUser", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1),
        ] {
            if let Some(value) = number(path) {
                self.put_flag(&format!("/namespaces/{name}"), value != 0);
                self.lack(value != refusal, &format!("user namespaces without rights ({path})"));
            }
        }
    }

    fn cgroups(&mut self, host: &Host) {
        let layout = &host.cgroups;
        let form = match (&layout.v2, layout.v1.is_empty()) {
            (Some(_), true) => "v2",
            (Some(_), false) => "hybrid",
            (None, false) => "v1",
            (None, true) => "none",
        };
        self.put_text("/cgroups/layout", Some(form.to_owned()));
        self.lack(form != "none", "a mounted cgroup filesystem: no limits, no pause");
        let mut there: Vec<&str> = Vec::new();
        if let Some(v2) = &layout.v2 {
            let own = format!("{}{}/cgroup.procs", v2.mount, v2.self_path);
            self.put_text("/cgroups/v2/mount", Some(v2.mount.clone()));
            self.put_text("/cgroups/v2/own", Some(v2.self_path.clone()));
            self.put_flag("/cgroups/v2/ownIsWritable", may(&own, libc::W_OK));
            self.put_list("/cgroups/v2/controllers", v2.controllers.clone());
            there.extend(v2.controllers.iter().map(String::as_str));
        }
        for one in &layout.v1 {
            self.put_text(
                &format!("/cgroups/v1/{}", one.controllers.join(",")),
                Some(one.mount.clone()),
            );
            there.extend(one.controllers.iter().map(String::as_str));
        }
        for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
            let named = |name: &&str| *name == controller || controller == "io" && *name == "blkio";
            self.lack(there.iter().any(named), &format!("the {controller} controller"));
        }
    }

    fn security(&mut self, host: &Host) {
        let list = line(c"/sys/kernel/security/lsm").unwrap_or_default();
        self.put_list("/lsm/list", list.split_terminator(',').map(str::to_owned).collect());
        self.put_flag("/lsm/apparmor", host.apparmor);
        self.put_flag("/lsm/selinux", host.selinux);
    }

    fn programs(&mut self, host: &Host) {
        let user = user_name(host.euid);
        let mut ranges = true;
        for (name, path) in [("subuid", c"/etc/subuid"), ("subgid", c"/etc/subgid")] {
            let found = subids(path, host.euid, user.as_deref());
            ranges &= !found.is_empty();
            self.put_list(&format!("/ids/{name}"), found);
        }
        let mut tools = true;
        for name in ["newuidmap", "newgidmap"] {
            let found = find(name);
            tools &= found.is_some();
            self.put_text(&format!("/ids/{name}"), found);
        }
        let root = host.euid == 0;
        self.lack(root || tools, "newuidmap and newgidmap: only the caller's own id can be mapped");
        self.lack(root || ranges, "id ranges of the caller in /etc/subuid and /etc/subgid");
        let criu = find("criu");
        self.lack(criu.is_some(), "criu: no checkpoint and restore");
        self.put_text("/criu", criu);
    }
}

/// `name.member: value` for each member, however deep.
fn lines(name: &str, value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let dot = if name.is_empty() { "" } else { "." };
            for (member, value) in members {
                lines(&format!("{name}{dot}{member}"), value, text);
            }
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let words: Vec<_> = items.iter().filter_map(Value::as_str).collect();
            *text += &format!("{name}: {}\n", words.join(" "));
        }
        Value::String(word) => *text += &format!("{name}: {}\n", sys::visible(word)),
        Value::Null => *text += &format!("{name}: none\n"),
        Value::Bool(yes) => *text += &format!("{name}: {}\n", if *yes { "yes" } else { "no" }),
        value => *text += &format!("{name}: {value}\n"),
    }
}

fn content(path: &CStr) -> Option<String> {
    let file = sys::fs::open(path, libc::O_RDONLY | libc::O_NONBLOCK).ok()?;
    let bytes = sys::fs::read_to_end(file.as_fd(), 1 << 20).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn line(path: &CStr) -> Option<String> {
    content(path).map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    line(&sys::cstr("open", path).ok()?)?.parse().ok()
}

fn may(path: &str, mode: i32) -> bool {
    sys::cstr("access", path).and_then(|path| sys::fs::access(sys::fs::CWD, &path, mode)).is_ok()
}

/// The first executable file of that name in PATH.
fn find(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    path.split(':').map(|dir| format!("{dir}/{program}")).find(|file| may(file, libc::X_OK))
}

/// The caller's name, as /etc/subuid may use it instead of the number.
fn user_name(uid: u32) -> Option<String> {
    let text = content(c"/etc/passwd")?;
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry = text.lines().map(fields).find(|entry| entry.get(2) == Some(&uid.to_string()))?;
    entry.into_iter().next()
}

/// The caller's ranges, `first+count` each (subuid(5)).
fn subids(path: &CStr, uid: u32, name: Option<&str>) -> Vec<String> {
    let text = content(path).unwrap_or_default();
    let range = |line: &str| {
        let mut fields = line.split(':');
        let (who, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = who == uid.to_string() || Some(who) == name;
        ours.then(|| format!("{first}+{count}"))
    };
    text.lines().filter_map(range).collect()
}
