//! Containers of an ordinary user, with the whole test program run as that user: hack/test-vm does so
//! in a systemd session with a delegated cgroup, and without any session.

use std::fs;

use serde_json::json;

use crate::support::{Bundle, Config, Process, eventually, host};

/// A bundle whose container has a user namespace with the caller as its root.
pub fn own(edit: impl FnOnce(&mut Config) -> &mut Config) -> Bundle {
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Bundle::with(|config| {
        let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        config.set("/linux/uidMappings", map(uid)).set("/linux/gidMappings", map(gid));
        config.push("/linux/namespaces", json!({ "type": "user" }));
        config.remove("/linux/resources").remove("/linux/cgroupsPath");
        for mount in config["mounts"].as_array_mut().unwrap() {
            if let Some(options) = mount["options"].as_array_mut() {
                // A group that is not mapped.
                options.retain(|option| option != "gid=5");
            }
        }
        edit(config)
    })
}

/// The life of a container, without any right to the host.
#[test]
fn rootless_life_of_an_ordinary_users_container() {
    require!(user);
    let bundle = own(|config| config);
    let web = bundle.container(bundle.name());
    web.create().ok();
    assert_eq!(web.status(), "created");
    let init = web.init();
    let own_uid = unsafe { libc::geteuid() }.to_string();
    assert_eq!(init.status("Uid"), [own_uid.as_str(); 4].join("\t"));
    web.start().ok();
    assert_eq!(web.exec(&["id", "-u"]).ok().stdout, "0\n");
    web.kill("KILL").ok();
    web.becomes("stopped");
    web.delete().ok();
    bundle.assert_clean();
}

/// In a delegated cgroup limits are set as for anybody.
#[test]
fn rootless_limits_hold_in_a_delegated_cgroup() {
    require!(user, session, v2_controller("pids"));
    let bundle = own(|config| {
        config.set("/linux/resources/pids/limit", 7).set("/linux/resources/memory/limit", 64 << 20)
    });
    let web = bundle.container(bundle.name());
    web.up();
    let dir = format!("/sys/fs/cgroup{}", web.init().cgroups()[""]);
    assert!(dir.contains(bundle.name()), "{dir}");
    assert_eq!(fs::read_to_string(format!("{dir}/pids.max")).unwrap(), "7\n");
    assert_eq!(fs::read_to_string(format!("{dir}/memory.max")).unwrap(), "67108864\n");
    let forks = web.sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait");
    assert!(forks.stderr.contains("fork"), "{forks}");
    web.remove();
}

/// T11, CVE-2023-25809: without a cgroup namespace, too, a user's container sees its own cgroup only,
/// or none.
/// Notices: a bind of the host's tree in place of the container's own part.
#[test]
fn t11_rootless_cgroup_mount_is_not_the_hosts_tree() {
    require!(user, session);
    let bundle = own(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "cgroup");
        config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/sys/fs/cgroup");
        let options = ["nosuid", "noexec", "nodev", "ro"];
        config.push(
            "/mounts",
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": options }),
        )
    });
    let web = bundle.container(bundle.name());
    let created = web.create();
    if created.code() != 0 {
        bundle.assert_clean();
        return;
    }
    let mounts = web.init().mounts().into_iter();
    for mount in mounts.filter(|mount| mount.fstype.starts_with("cgroup")) {
        assert!(mount.root.contains(bundle.name()), "{mount:?}");
    }
}

/// Without delegation a limit cannot be set: that is an error, not a container without it.
#[test]
fn rootless_limit_without_delegation_is_refused() {
    require!(user, no_session);
    let bundle = own(|config| config.set("/linux/resources/pids/limit", 7));
    let output = bundle.container(bundle.name()).create().fails();
    assert!(output.stderr.contains("pids"), "{output}");
    bundle.assert_clean();
}

/// A user's shell over ssh is in a cgroup of root's, from which the kernel lets nobody clone into one that systemd
/// has delegated to the user: systemd moves the process.
#[test]
fn rootless_exec_from_a_login_is_in_the_containers_scope() {
    require!(user, no_session, systemd(), v2_controller("pids"));
    let run = format!("/run/user/{}", unsafe { libc::geteuid() });
    let bundle = own(|config| config.sh("exec sleep 1000"));
    let path = format!("user.slice:it:{}", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path));
    let web = bundle.container("web");
    let call = |command: &str, options: &[&str]| {
        let call = web.call(command, options).global(&["--systemd-cgroup"]);
        call.env("XDG_RUNTIME_DIR", &run)
    };
    call("create", &[]).run().ok();
    let cgroup = web.init().cgroups()[""].clone();
    assert!(cgroup.ends_with(&format!("/user.slice/it-{}.scope", bundle.name())), "{cgroup}");
    call("start", &[]).run().ok();
    let pid_file = bundle.dir().join("exec.pid");
    let options = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    call("exec", &options).args(&["sleep", "1000"]).run().ok();
    let pid = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(Process(pid).cgroups()[""], cgroup);
    // One of its own cannot be got that way: an error, not a process elsewhere.
    call("exec", &["--contain"]).args(&["true"]).run().fails();
    call("delete", &["--force"]).run().ok();
    bundle.assert_clean();
}

/// podman of a user in a session: the scope is the user's own systemd's.
#[test]
fn rootless_scope_of_the_users_own_systemd() {
    require!(user, session, systemd());
    let bundle = own(|config| config.set("/linux/resources/pids/limit", 7));
    let path = format!("user.slice:it:{}", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path));
    let web = bundle.container("web");
    web.call("create", &[]).global(&["--systemd-cgroup"]).run().ok();
    let cgroup = web.init().cgroups()[""].clone();
    assert!(cgroup.ends_with(&format!("/user.slice/it-{}.scope", bundle.name())), "{cgroup}");
    assert!(cgroup.contains("/user@"), "{cgroup}");
    let limit = fs::read_to_string(format!("{}{cgroup}/pids.max", host::CGROUP_ROOT)).unwrap();
    assert_eq!(limit, "7\n");
    web.start().ok();
    web.kill("KILL").ok();
    web.becomes("stopped");
    web.delete().ok();
    eventually("its scope is gone", || {
        (!fs::exists(format!("{}{cgroup}", host::CGROUP_ROOT)).unwrap()).then_some(())
    });
}
