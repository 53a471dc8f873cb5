//! AppArmor on a kernel that has it: which profile a process really has, what it forbids, and that
//! nobody in the container can lead the label elsewhere. hack/test-vm runs these.
//!
//! The last line of each comment names the protection whose removal the test would notice.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::support::{Bundle, Container, Process, eventually, host, onggi};
use crate::user_namespaces::{mapped, own};

/// A loaded profile; taken out again when dropped.
struct Profile {
    name: String,
    file: String,
}

impl Profile {
    /// Allows everything but what `rules` deny.
    fn load(bundle: &Bundle, name: &str, rules: &str) -> Profile {
        let name = format!("{}-{name}", bundle.name());
        let file = bundle.dir().join(format!("profile-{name}")).to_str().unwrap().to_string();
        let all = "file, network, capability, mount, remount, umount, pivot_root, signal, ptrace, \
                   unix, dbus, change_profile,";
        let flags = "flags=(attach_disconnected,mediate_deleted)";
        let text = format!("profile \"{name}\" {flags} {{ {all}\n{rules}\n}}\n");
        fs::write(&file, text).unwrap();
        let profile = Profile { name, file };
        profile.parser("--replace");
        profile
    }

    #[track_caller]
    fn parser(&self, action: &str) {
        let (status, text) = host::tool(&["apparmor_parser", action, "--skip-cache", &self.file]);
        assert!(status.success(), "{text}");
    }

    /// As /proc/PID/attr/current writes it.
    fn enforced(&self) -> String {
        format!("{} (enforce)", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = host::tool(&["apparmor_parser", "--remove", &self.file]);
    }
}

/// What the kernel says, asked from the host.
fn label_of(process: Process) -> String {
    process.read("attr/current").trim_end_matches(['\n', '\0']).to_string()
}

fn with_profile(script: &str, rules: &str) -> (Bundle, Profile) {
    let bundle = Bundle::sh(script);
    let profile = Profile::load(&bundle, "inner", rules);
    bundle.edit(|config| config.set("/process/apparmorProfile", profile.name.as_str()));
    (bundle, profile)
}

/// T5, CVE-2019-16884: init and exec'd processes have the profile, seen from the host and from
/// inside, and what it denies is denied to root.
/// Notices: the label not written, or written elsewhere.
#[test]
fn t5_label_read_back_from_the_host_is_the_one_asked_for() {
    require!(root, apparmor);
    let script = "cat /proc/self/attr/current; cat /secret; exec sleep 1000";
    let (bundle, profile) = with_profile(script, "deny /secret r, deny /**/secret r,");
    fs::write(bundle.rootfs().join("secret"), "password").unwrap();
    let web = bundle.container("web");
    let created = web.up();
    eventually("it has tried", || created.stderr_now().contains("/secret").then_some(()));
    assert_eq!(created.stdout_now().trim_end_matches(['\n', '\0']), profile.enforced());
    assert!(created.stderr_now().contains("Permission denied"), "{created}");
    assert_eq!(label_of(web.init()), profile.enforced());
    let exec = web.sh("cat /proc/self/attr/current; cat /secret");
    assert!(exec.stdout.starts_with(&profile.enforced()), "{exec}");
    assert!(exec.stderr.contains("Permission denied"), "{exec}");
}

/// docker exec and podman exec pass the profile in the process object; `--apparmor` is the user's.
#[test]
fn exec_takes_the_profile_it_is_given() {
    require!(root, apparmor);
    let (bundle, profile) = with_profile("exec sleep 1000", "");
    let other = Profile::load(&bundle, "other", "");
    let web = bundle.container("web");
    web.up();
    let read = ["cat", "/proc/self/attr/current"];
    let exec = web.call("exec", &["--apparmor", &other.name]).args(&read).run().ok();
    assert_eq!(exec.stdout.trim(), other.enforced());
    let exec = web.call("exec", &["--apparmor", "unconfined"]).args(&read).run().ok();
    assert_eq!(exec.stdout.trim(), "unconfined");
    assert_eq!(web.exec(&read).ok().stdout.trim(), profile.enforced());
}

/// An empty variable of a script, and a process object that names none: never more than the container may.
/// Notices: a process under the runtime's own label.
#[test]
fn exec_without_a_profile_has_the_containers() {
    require!(root, apparmor);
    let (bundle, profile) = with_profile("exec sleep 1000", "");
    let web = bundle.container("web");
    web.up();
    let read = ["cat", "/proc/self/attr/current"];
    let exec = web.call("exec", &["--apparmor", ""]).args(&read).run().ok();
    assert_eq!(exec.stdout.trim(), profile.enforced());
    let mut process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": read });
    let file = bundle.dir().join("process.json");
    let file_name = file.to_str().unwrap();
    for (given, label) in [
        (None, profile.enforced()),
        (Some(""), profile.enforced()),
        (Some("unconfined"), "unconfined".to_owned()),
    ] {
        process["apparmorProfile"] = given.into();
        if given.is_none() {
            process.as_object_mut().unwrap().remove("apparmorProfile");
        }
        fs::write(&file, process.to_string()).unwrap();
        let exec = web.call("exec", &["--process", file_name]).run().ok();
        assert_eq!(exec.stdout.trim(), label, "{given:?}");
    }
}

/// With noNewPrivileges the profile still takes effect: it is asked for before.
#[test]
fn profile_with_no_new_privileges() {
    require!(root, apparmor);
    let (bundle, profile) = with_profile("exec sleep 1000", "");
    bundle.edit(|config| config.set("/process/noNewPrivileges", true));
    let web = bundle.container("web");
    web.up();
    assert_eq!(label_of(web.init()), profile.enforced());
    let exec = web.exec(&["cat", "/proc/self/attr/current"]).ok();
    assert_eq!(exec.stdout.trim(), profile.enforced());
}

/// Engines set `unconfined` for privileged containers.
#[test]
fn unconfined_is_unconfined() {
    require!(root, apparmor);
    let bundle = Bundle::with(|config| config.set("/process/apparmorProfile", "unconfined"));
    let web = bundle.container("web");
    web.up();
    assert_eq!(label_of(web.init()), "unconfined");
}

/// A profile that is not loaded: create says which, and where config.json asks for it.
#[test]
fn missing_profile_is_refused_and_leaves_nothing() {
    require!(root, apparmor);
    let bundle =
        Bundle::with(|config| config.set("/process/apparmorProfile", "onggi-it-not-loaded"));
    let web = bundle.container("web");
    let output = web.create().fails();
    assert!(output.stderr.contains("/process/apparmorProfile"), "{output}");
    assert!(output.stderr.contains("onggi-it-not-loaded"), "{output}");
    assert_eq!(output.log()[0]["code"], "E_LSM_LABEL", "{output}");
    bundle.assert_clean();
}

/// exec with a profile that is not loaded runs nothing.
#[test]
fn exec_with_a_missing_profile_is_refused() {
    require!(root, apparmor);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let exec = web.call("exec", &["--apparmor", "onggi-it-not-loaded"]).args(&["echo", "ran"]);
    let output = exec.run().fails();
    assert!(!output.stdout.contains("ran"), "{output}");
    assert!(output.stderr.contains("onggi-it-not-loaded"), "{output}");
}

/// A confined runtime (in a container, say) with noNewPrivileges: the kernel allows no other profile
/// at execve then, only one more on top.
/// Notices: `stack` in place of `exec`.
#[test]
fn confined_runtime_with_no_new_privileges_stacks_the_profile() {
    require!(root, apparmor, program("aa-exec"));
    let (bundle, profile) = with_profile("exec sleep 1000", "");
    bundle.edit(|config| config.set("/process/noNewPrivileges", true));
    let outer = Profile::load(&bundle, "outer", "change_profile -> **,\nchange_profile -> &**,");
    let web = bundle.container("web");
    let confine = ["aa-exec", "-p", outer.name.as_str(), "--"];
    web.call("create", &[]).through(&confine).run().ok();
    web.call("start", &[]).through(&confine).run().ok();
    let label = label_of(web.init());
    assert!(label.contains(&profile.name) && label.contains(&outer.name), "{label}");
}

/// A confined runtime without noNewPrivileges goes over to the profile, if its own allows that.
#[test]
fn confined_runtime_changes_the_profile() {
    require!(root, apparmor, program("aa-exec"));
    let (bundle, profile) = with_profile("exec sleep 1000", "");
    bundle.edit(|config| config.set("/process/noNewPrivileges", false));
    let outer = Profile::load(&bundle, "outer", "change_profile -> **,");
    let web = bundle.container("web");
    let confine = ["aa-exec", "-p", outer.name.as_str(), "--"];
    web.call("create", &[]).through(&confine).run().ok();
    web.call("start", &[]).through(&confine).run().ok();
    assert_eq!(label_of(web.init()), profile.enforced());
}

/// A user namespace changes nothing of it: init and exec'd processes have the profile, and what it denies is denied
/// to the namespace's root.
/// Notices: the label not written there.
#[test]
fn user_namespace_has_the_profile() {
    require!(root, apparmor);
    let (bundle, profile) = with_profile("exec sleep 1000", "deny /secret r,");
    bundle.edit(mapped);
    fs::write(bundle.rootfs().join("secret"), "x").unwrap();
    own(&bundle);
    let web = bundle.container("web");
    web.up();
    assert_eq!(label_of(web.init()), profile.enforced());
    let exec = web.exec(&["cat", "/proc/self/attr/current"]).ok();
    assert_eq!(exec.stdout.trim(), profile.enforced());
    web.exec(&["cat", "/secret"]).fails();
}

/// There, too, what confines the runtime stays beneath the profile: a user namespace's root that gets rid of it
/// would have more than the runtime has.
/// Notices: `stack` in place of `exec`.
#[test]
fn user_namespace_stacks_the_profile_on_that_of_a_confined_runtime() {
    require!(root, apparmor, program("aa-exec"));
    let (bundle, profile) = with_profile("exec sleep 1000", "");
    bundle.edit(|config| mapped(config.set("/process/noNewPrivileges", true)));
    own(&bundle);
    let all = "change_profile -> **,\nchange_profile -> &**,\nuserns,";
    let outer = Profile::load(&bundle, "outer", all);
    let web = bundle.container("web");
    let confine = ["aa-exec", "-p", outer.name.as_str(), "--"];
    web.call("create", &[]).through(&confine).run().ok();
    web.call("start", &[]).through(&confine).run().ok();
    let label = label_of(web.init());
    assert!(label.contains(&profile.name) && label.contains(&outer.name), "{label}");
}

/// T16, CVE-2025-52881: root in the container has put a false procfs over /proc, in which the label's
/// file of whatever process comes next is core_pattern.
/// Notices: a label that is written through the container's /proc.
#[test]
fn t16_false_proc_in_the_container_does_not_lead_a_label_astray() {
    require!(root, apparmor);
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let (bundle, profile) = with_profile("exec sleep 1000", "");
    bundle.edit(|config| {
        config.remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
        for set in ["bounding", "effective", "permitted"] {
            config.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
        }
        config
    });
    let web = bundle.container("web");
    web.up();
    web.sh(FALSE_PROC).ok();
    for _ in 0..10 {
        let seen = detached_label(&bundle, &web);
        assert_eq!(seen, profile.enforced());
    }
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// A tmpfs over /proc with a directory for every pid to come, whose label files are core_pattern.
const FALSE_PROC: &str = "mkdir -p /real && mount -t proc proc /real && mount -t tmpfs tmpfs /proc \
    && mkdir -p /proc/fake/attr/apparmor && ln -s fake /proc/self && ln -s fake /proc/thread-self \
    && for f in exec apparmor/exec; do : > /proc/fake/attr/$f; \
       mount --bind /real/sys/kernel/core_pattern /proc/fake/attr/$f || exit 1; done; \
    i=1; while [ $i -lt 200 ]; do mkdir -p /proc/$i/task; ln -s ../../fake /proc/$i/task/$i; \
    ln -s ../fake/attr /proc/$i/attr; i=$((i+1)); done";

/// Execs a process that stays, and asks the host's own /proc for its label.
fn detached_label(bundle: &Bundle, web: &Container) -> String {
    let file = bundle.dir().join("exec.pid");
    let options = ["--detach", "--pid-file", file.to_str().unwrap()];
    web.call("exec", &options).args(&["sleep", "1000"]).run().ok();
    let process = Process::of_pid_file(&file);
    eventually("it runs", || (process.cmdline() == ["sleep", "1000"]).then_some(()));
    let label = label_of(process);
    let _ = process.kill(libc::SIGKILL);
    crate::support::reaper::wait(process.0, Duration::from_secs(10));
    label
}

/// The record of `features` is what engines look at before they ask for a profile.
#[test]
fn features_tells_of_apparmor() {
    require!(root, apparmor);
    let bundle = Bundle::new();
    let features = bundle.onggi(&["features"]).without_log().run().ok().json();
    assert_eq!(features["linux"]["apparmor"]["enabled"], true, "{}", onggi::name());
}
