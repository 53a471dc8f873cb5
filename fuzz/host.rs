//! Plans one document on hosts of every kind.

use std::path::Path;

use onggi::bundle;
use onggi::cgroup::{Hierarchy, Layout, V2};
use onggi::host::Host;
use onggi::plan::config::Config;
use onggi::plan::{self, Options};

fn hosts() -> [Host; 2] {
    let v2 = V2 {
        mount: "/sys/fs/cgroup".into(),
        self_path: "/user.slice".into(),
        controllers: ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"]
            .map(str::to_owned)
            .to_vec(),
    };
    let hierarchy = |name: &str| Hierarchy {
        controllers: vec![name.to_owned()],
        mount: format!("/sys/fs/cgroup/{name}"),
        self_path: "/".into(),
    };
    let v1 =
        ["memory", "devices", "pids", "cpu", "cpuset", "blkio", "freezer"].map(hierarchy).to_vec();
    let root = Host {
        euid: 0,
        egid: 0,
        user_namespace: false,
        mounts: true,
        cgroups: Layout { v1: Vec::new(), v2: Some(v2) },
        last_cap: 40,
        capabilities: (1 << 41) - 1,
        apparmor: true,
        selinux: true,
    };
    let user = Host {
        euid: 1000,
        egid: 1000,
        mounts: false,
        cgroups: Layout { v1, v2: None },
        capabilities: 0,
        apparmor: false,
        selinux: false,
        ..root.clone()
    };
    [root, user]
}

/// Parses and plans. What is told of it must be printable, too.
pub fn plan(data: &[u8]) {
    let (config, warnings) = match bundle::parse::<Config>(data) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for host in hosts() {
        let options = Options { detach: true, ..Options::default() };
        match plan::create("fuzz", &config, Path::new("/bundle"), &host, &options) {
            Ok((plan, _)) => assert!(!plan.steps.is_empty()),
            Err(error) => {
                assert!(!error.to_string().is_empty() && error.findings().problems.len() < 1 << 20)
            }
        }
    }
    assert!(warnings.len() < 1 << 20);
}
