//! Plans one document on hosts of every kind.

use std::path::Path;

use onggi::bundle;
use onggi::cgroup::{Hierarchy, Layout, V2};
use onggi::host::Host;
use onggi::plan::config::Config;
use onggi::plan::{self, Options};

/// A host with all controllers on v2, all capabilities, no LSM.
pub fn v2() -> Host {
    let v2 = V2 {
        mount: "/sys/fs/cgroup".into(),
        self_path: "/user.slice".into(),
        controllers: ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"]
            .map(str::to_owned)
            .to_vec(),
    };
    Host {
        euid: 0,
        egid: 0,
        user_namespace: false,
        mounts: true,
        cgroups: Layout { v1: Vec::new(), v2: Some(v2) },
        last_cap: 40,
        capabilities: (1 << 41) - 1,
        apparmor: false,
        selinux: false,
    }
}

/// The same with hierarchies of v1.
pub fn v1(controllers: &[&str]) -> Host {
    let hierarchy = |name: &&str| Hierarchy {
        controllers: vec![(*name).to_owned()],
        mount: format!("/sys/fs/cgroup/{name}"),
        self_path: "/".into(),
    };
    let v1 = controllers.iter().map(hierarchy).collect();
    Host { cgroups: Layout { v1, v2: None }, ..v2() }
}

/// Root of one, with both LSMs, and a user of another.
pub fn hosts() -> [Host; 2] {
    let controllers = ["memory", "devices", "pids", "cpu", "cpuset", "blkio", "freezer"];
    let user = Host { euid: 1000, egid: 1000, mounts: false, capabilities: 0, ..v1(&controllers) };
    [Host { apparmor: true, selinux: true, ..v2() }, user]
}

/// Parses and plans. What is told of it must be printable, too. Whether it is worth to go on from: of a
/// document that is wrong in many places most changes show nothing new, slowly.
pub fn plan(data: &[u8]) -> bool {
    let (config, warnings) = match bundle::config(data) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return error.findings().problems.len() <= 2;
        }
    };
    assert!(warnings.len() < 1 << 20);
    let few = hosts().map(|host| few_problems(&config, &host));
    few.contains(&true)
}

fn few_problems(config: &Config, host: &Host) -> bool {
    let options = Options { detach: true, ..Options::default() };
    match plan::create("fuzz", config, Path::new("/bundle"), host, &options) {
        Ok((plan, _)) => {
            assert!(!plan.steps.is_empty());
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let problems = error.findings().problems.len();
            assert!(problems < 1 << 20);
            problems <= 8
        }
    }
}
