//! Containers of users without rights to the host, in cgroups that are, or are partly, theirs.

use std::fs;
use std::os::unix::fs::chown;

use serde_json::json;

use crate::namespaces_rootless::{Rootless, words};
use crate::support::{Bundle, eventually, host};

/// A directory of the user's in the cgroup tree, and the runtime in it, as systemd gives it to a user.
struct Delegated {
    dir: std::path::PathBuf,
}

impl Delegated {
    fn new(user: &mut Rootless) -> Delegated {
        let name = format!("{}-delegated", user.bundle.name());
        let dir = host::cgroup_dir("", &format!("/{name}"));
        fs::create_dir_all(dir.join("runner")).unwrap();
        let (status, text) = host::tool(&["chown", "-R", "1000:1000", dir.to_str().unwrap()]);
        assert!(status.success(), "{text}");
        let procs = dir.join("runner/cgroup.procs");
        let script = format!("echo $$ > {} && exec \"$@\"", procs.display());
        let mut through = words("sh -c");
        through.extend([script, "sh".to_string()]);
        through.append(&mut user.through);
        user.through = through;
        user.bundle.edit(|config| config.set("/linux/cgroupsPath", format!("/{name}/web")));
        Delegated { dir }
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in [self.dir.join("runner"), self.dir.clone()] {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[test]
fn rootless_with_a_delegated_cgroup() {
    require!(root, cgroup_v2, program("setpriv"));
    let mut user = Rootless::new(|config| config);
    let outside = user.through.clone();
    let delegated = Delegated::new(&mut user);
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    let own = delegated.dir.join("web");
    let pids = || host::cgroup_procs(&own);
    assert_eq!(pids(), [user.init().0]);
    user.exec(&["--detach"], &["sleep", "1000"]);
    assert_eq!(pids().len(), 2);
    assert_eq!(user.call(&["ps", "--format", "json", "web"]).run().ok().json(), json!(pids()));
    // From elsewhere the kernel lets nobody in, and exec puts nobody elsewhere.
    let through: Vec<&str> = outside.iter().map(String::as_str).collect();
    let call = user.bundle.onggi(&["exec", "web", "true"]).through(&through).without_log();
    call.run().exits(255).fails_with("permission denied");
    user.call(&["kill", "web", "KILL"]).run().ok();
    eventually("it is stopped", || {
        let state = user.call(&["state", "web"]).run().ok().json();
        (state["status"] == "stopped").then_some(())
    });
    user.call(&["delete", "web"]).run().ok();
    assert!(!own.exists());
    drop(delegated);
    user.bundle.assert_clean();
}

/// A limit of a controller that is passed down holds.
#[test]
fn rootless_limits_in_a_delegated_cgroup() {
    require!(root, v2_controller("pids"), program("setpriv"));
    let mut user = Rootless::new(|config| config.set("/linux/resources/pids/limit", 50));
    let delegated = Delegated::new(&mut user);
    // Who delegates passes the controllers down.
    fs::write(delegated.dir.parent().unwrap().join("cgroup.subtree_control"), "+pids").unwrap();
    user.create().run().ok();
    assert_eq!(fs::read_to_string(delegated.dir.join("web/pids.max")).unwrap(), "50\n");
    user.call(&["delete", "--force", "web"]).run().ok();
    drop(delegated);
    user.bundle.assert_clean();
}

/// A controller that is not passed down cannot limit anything: an error that says so, while others hold.
#[test]
fn rootless_limit_of_a_controller_that_is_not_delegated_is_refused() {
    require!(root, v2_controller("pids"), v2_controller("memory"), program("setpriv"));
    let mut user = Rootless::new(|config| config.set("/linux/resources/pids/limit", 50));
    let delegated = Delegated::new(&mut user);
    // By hand, and not from the root of the tree: nothing else is passed down further.
    let inner = delegated.dir.join("inner");
    fs::create_dir_all(&inner).unwrap();
    fs::write(delegated.dir.parent().unwrap().join("cgroup.subtree_control"), "+pids").unwrap();
    fs::write(delegated.dir.join("cgroup.subtree_control"), "+pids").unwrap();
    chown(delegated.dir.join("cgroup.subtree_control"), Some(0), Some(0)).unwrap();
    let (status, text) = host::tool(&["chown", "-R", "1000:1000", inner.to_str().unwrap()]);
    assert!(status.success(), "{text}");
    let path = format!("/{}/inner/web", delegated.dir.file_name().unwrap().to_str().unwrap());
    user.bundle.edit(|config| config.set("/linux/cgroupsPath", path));
    user.create().run().ok();
    assert_eq!(fs::read_to_string(inner.join("web/pids.max")).unwrap(), "50\n");
    user.call(&["delete", "--force", "web"]).run().ok();
    user.bundle.edit(|config| config.set("/linux/resources/memory/limit", 64 << 20));
    user.create().run().fails_with("/linux/resources/memory/limit");
    assert!(!inner.join("web").exists());
    fs::remove_dir(inner).unwrap();
    drop(delegated);
    user.bundle.assert_clean();
}

/// The directory, but not the right to put processes into it.
#[test]
fn rootless_in_a_partly_delegated_cgroup_stays_where_the_caller_is() {
    require!(root, cgroup_v2, program("setpriv"));
    let mut user = Rootless::new(|config| config);
    let delegated = Delegated::new(&mut user);
    chown(delegated.dir.join("cgroup.procs"), Some(0), Some(0)).unwrap();
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    assert_eq!(host::cgroup_procs(&delegated.dir.join("runner")), [user.init().0]);
    assert!(!delegated.dir.join("web").exists());
    user.call(&["delete", "--force", "web"]).run().ok();
    drop(delegated);
    user.bundle.assert_clean();
}

/// As create does: device rules take rights over the host that root of a user namespace has not, so they are left
/// out with a warning, and the rest of the update holds.
#[test]
fn update_by_root_of_a_user_namespace_warns_of_device_rules() {
    require!(root, controller("pids"), program("unshare"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let file = bundle.dir().join("resources.json");
    let device = json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" });
    let resources = json!({ "pids": { "limit": 40 }, "devices": [device] });
    fs::write(&file, resources.to_string()).unwrap();
    let update = web.call("update", &["--resources", file.to_str().unwrap()]);
    let output = update.through(&["unshare", "--user", "--map-root-user"]).run().ok();
    assert!(output.log().iter().any(|line| line["code"] == "W_NOT_APPLIED"), "{output}");
    assert_eq!(fs::read_to_string(bundle.cgroup("pids").join("pids.max")).unwrap(), "40\n");
}
