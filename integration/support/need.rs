//! What a test needs from the machine, and the one line that says which fact is missing.

use std::io::Write;
use std::path::Path;

use super::host;

/// Leaves the test, with one `SKIP` line, unless the machine has every fact named.
///
/// `require!(root, cgroup_v1("memory"), program("redis-server"));`
#[macro_export]
macro_rules! require {
    ($($fact:ident $(($($arg:expr),*))?),+ $(,)?) => {
        let needs = [
            $crate::support::need::busybox(),
            $($crate::support::need::$fact($($($arg),*)?)),+
        ];
        if let Some(need) = needs.iter().find(|need| !need.met) {
            fn here() {}
            need.skip(std::any::type_name_of_val(&here));
            return;
        }
    };
}

/// One fact and whether this machine has it.
pub struct Need {
    pub fact: String,
    pub met: bool,
}

impl Need {
    fn new(fact: impl Into<String>, met: bool) -> Need {
        Need { fact: fact.into(), met }
    }

    /// Says which test is skipped and why, on stderr and in the file named by `ONGGI_SKIPS`.
    pub fn skip(&self, place: &str) {
        let name = place.trim_end_matches("::here");
        let name = name.split_once("::").map_or(name, |(_, name)| name);
        let line = format!("SKIP {name}: needs {}\n", self.fact);
        // Not eprint!: libtest would swallow it together with the output of passed tests.
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Some(path) = std::env::var_os("ONGGI_SKIPS") {
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        }
    }
}

/// What every root file system of these tests is made of; every test with a container needs it.
pub fn busybox() -> Need {
    let path = host::find_program("busybox");
    let bytes = path.map(std::fs::read).and_then(Result::ok).unwrap_or_default();
    // A dynamic program names its loader, such as /lib64/ld-linux-x86-64.so.2, near its start.
    let start = &bytes[..bytes.len().min(8192)];
    let is_static = !bytes.is_empty() && !start.windows(4).any(|word| word == b"/ld-");
    Need::new("a static busybox (package busybox-static)", is_static)
}

pub fn root() -> Need {
    let uid = unsafe { libc::geteuid() };
    Need::new("root", uid == 0)
}

/// Somebody without rights to the host.
pub fn user() -> Need {
    Need::new("an ordinary user (make test-vm)", !root().met)
}

/// A systemd session of the user's own, with a delegated cgroup: `ONGGI_IT_USER=session`.
pub fn session() -> Need {
    let named = std::env::var_os("ONGGI_IT_USER").is_some_and(|user| user == "session");
    Need::new("a session of the user's own (make test-vm)", named)
}

/// No session: `ONGGI_IT_USER=alone`.
pub fn no_session() -> Need {
    let named = std::env::var_os("ONGGI_IT_USER").is_some_and(|user| user == "alone");
    Need::new("a user without a session (make test-vm)", named)
}

/// A cgroup v1 hierarchy of the controller, mounted where the runtime looks for it.
pub fn cgroup_v1(controller: &str) -> Need {
    Need::new(format!("cgroup v1 {controller}"), host::v1_dir(controller).is_some())
}

/// Some v1 hierarchy at all, in whatever set.
pub fn any_cgroup_v1() -> Need {
    Need::new("cgroup v1", !host::is_v2())
}

/// A cgroup2 at /sys/fs/cgroup.
pub fn cgroup_v2() -> Need {
    Need::new("cgroup v2 at /sys/fs/cgroup", host::is_v2())
}

/// A controller that cgroup v2 offers at its root.
pub fn v2_controller(controller: &str) -> Need {
    let controllers =
        std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let met = host::is_v2() && controllers.split_whitespace().any(|name| name == controller);
    Need::new(format!("cgroup v2 controller {controller}"), met)
}

/// A controller on whichever side this host has it.
pub fn controller(name: &str) -> Need {
    if host::is_v2() { v2_controller(name) } else { cgroup_v1(name) }
}

/// Not a run with the systemd driver.
pub fn cgroupfs_driver() -> Need {
    Need::new("the cgroupfs driver", !host::by_systemd())
}

/// A running systemd as the init of this machine.
pub fn systemd() -> Need {
    Need::new("systemd", Path::new("/run/systemd/system").is_dir())
}

/// AppArmor in force, and the program that loads profiles.
pub fn apparmor() -> Need {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let met = enabled.is_ok_and(|text| text.starts_with('Y'));
    Need::new("AppArmor", met && host::find_program("apparmor_parser").is_some())
}

/// SELinux with a policy, in whatever mode.
pub fn selinux() -> Need {
    Need::new("SELinux", Path::new("/sys/fs/selinux/enforce").exists())
}

/// A program on PATH or in one of the system's directories.
pub fn program(name: &str) -> Need {
    Need::new(format!("the program {name}"), host::find_program(name).is_some())
}

/// A module of python3, by its full name.
pub fn python_module(name: &str) -> Need {
    let import = format!("import {name}");
    let met = host::find_program("python3").is_some()
        && host::tool(&["python3", "-c", &import]).0.success();
    Need::new(format!("the Python module {name}"), met)
}

/// A file or directory of the host.
pub fn path(path: &str) -> Need {
    Need::new(path, Path::new(path).exists())
}

/// A disk, to be named in limits.
pub fn disk() -> Need {
    Need::new("a disk in /sys/block", host::disk().is_some())
}

/// A capability in our effective set, by its number (24 is CAP_SYS_RESOURCE).
pub fn capability(name: &str, number: u32) -> Need {
    let own = super::Process::own();
    let set = u64::from_str_radix(&own.status("CapEff"), 16).unwrap();
    Need::new(name, set & (1 << number) != 0)
}
