//! Tests of the pure parts: nothing here needs root, cgroups or a fork.

mod bpf;
mod devices;
mod layout;
mod plan;
mod record;
mod update;

use std::collections::BTreeMap;

use oci_spec::runtime::Linux;

use super::layout::{Hierarchy, Layout, V2};
use super::plan::{Options, Placement, plan};
use crate::error::Findings;

/// A host with every controller on v1, one hierarchy each but for two pairs.
fn v1() -> Layout {
    let names = [
        "cpuset",
        "cpu,cpuacct",
        "blkio",
        "memory",
        "devices",
        "freezer",
        "net_cls,net_prio",
        "hugetlb",
        "pids",
        "rdma",
        "name=systemd",
    ];
    let hierarchy = |names: &&str| Hierarchy {
        controllers: names.split(',').map(str::to_owned).collect(),
        mount: format!("/sys/fs/cgroup/{}", names.trim_start_matches("name=")),
        self_path: "/user.slice".to_owned(),
    };
    Layout { v1: names.iter().map(hierarchy).collect(), v2: None }
}

fn v2() -> Layout {
    let controllers = "cpuset cpu io memory hugetlb pids rdma misc";
    Layout { v1: Vec::new(), v2: Some(unified("/sys/fs/cgroup", controllers)) }
}

/// As on this project's machines: most on v1, hugetlb on v2.
fn hybrid() -> Layout {
    let mut layout = v1();
    layout.v1.retain(|hierarchy| !hierarchy.controllers.iter().any(|name| name == "hugetlb"));
    layout.v2 = Some(unified("/sys/fs/cgroup/unified", "hugetlb"));
    layout
}

fn unified(mount: &str, controllers: &str) -> V2 {
    V2 {
        mount: mount.to_owned(),
        self_path: "/user.slice/session.scope".to_owned(),
        controllers: controllers.split(' ').map(str::to_owned).collect(),
    }
}

fn linux(json: &str) -> Linux {
    match serde_json::from_str(json) {
        Ok(linux) => linux,
        Err(error) => panic!("{error}: {json}"),
    }
}

/// Plans a `linux` object.
fn planned(json: &str, layout: &Layout) -> (Placement, Findings) {
    let mut findings = Findings::default();
    let none = BTreeMap::new();
    let options = Options::default();
    let placement = plan(&linux(json), &none, "c1", &options, layout, &mut findings);
    (placement, findings)
}

/// Plans `linux.resources`, and returns its problems only.
fn problems(resources: &str, layout: &Layout) -> Vec<String> {
    let json = format!(r#"{{"cgroupsPath": "/c1", "resources": {resources}}}"#);
    planned(&json, layout).1.problems.iter().map(ToString::to_string).collect()
}
