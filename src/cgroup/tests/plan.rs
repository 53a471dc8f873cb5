use std::collections::BTreeMap;
use std::path::Path;

use super::super::plan::{Manager, Options, plan};
use super::super::resources::weight_of;
use super::{hybrid, linux, planned, problems, v1, v2};
use crate::error::Findings;

/// The same config on three kinds of host. `UPDATE_GOLDEN=1` rewrites the expectations.
#[test]
fn golden() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cgroup/testdata");
    for name in ["docker", "everything"] {
        let config = std::fs::read_to_string(dir.join(format!("{name}.json"))).expect(name);
        for (host, layout) in [("v1", v1()), ("v2", v2()), ("hybrid", hybrid())] {
            let (placement, findings) = planned(&config, &layout);
            let mut text = placement.to_string();
            for place in placement.record(&layout).places {
                text.push_str(&format!("dir {:?} {}\n", place.controllers, place.dir()));
            }
            for problem in findings.problems {
                text.push_str(&format!("problem {problem}\n"));
            }
            for warning in findings.warnings {
                text.push_str(&format!("warning {warning}\n"));
            }
            let file = dir.join(format!("{name}.{host}.txt"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&file, &text).expect(name);
            }
            let wanted = std::fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(text, wanted, "{}", file.display());
        }
    }
}

#[test]
fn cgroups_path() {
    let place = |path: &str| {
        let (placement, findings) = planned(&format!(r#"{{"cgroupsPath": "{path}"}}"#), &hybrid());
        let problems: Vec<String> = findings.problems.iter().map(ToString::to_string).collect();
        if !problems.is_empty() {
            return problems.join("; ");
        }
        let places = placement.record(&hybrid()).places;
        [places.first(), places.last()]
            .into_iter()
            .flatten()
            .map(super::super::Place::dir)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        place("/docker/c1"),
        "/sys/fs/cgroup/cpuset/docker/c1 /sys/fs/cgroup/unified/docker/c1"
    );
    // Relative: below our own cgroup on v1, beside it on v2.
    assert_eq!(
        place("a/c1"),
        "/sys/fs/cgroup/cpuset/user.slice/a/c1 /sys/fs/cgroup/unified/user.slice/a/c1"
    );
    assert_eq!(
        place("system.slice:docker:c1"),
        "/sys/fs/cgroup/cpuset/user.slice/system.slice:docker:c1 \
         /sys/fs/cgroup/unified/user.slice/system.slice:docker:c1"
    );
    assert_eq!(
        place(""),
        "/sys/fs/cgroup/cpuset/user.slice/onggi-c1 /sys/fs/cgroup/unified/user.slice/onggi-c1"
    );
    for (path, wanted) in [
        ("/", "names no cgroup below the root"),
        ("/a/../b", "has the component \"..\""),
        ("..", "has the component \"..\""),
        ("/a/./b", "has the component \".\""),
        ("//a", "has an empty component"),
        ("/a/", "has an empty component"),
        ("/a\\nb", "has the control character '\\n'"),
        ("/a\\u0000b", "has the control character '\\0'"),
    ] {
        assert_eq!(place(path), format!("/linux/cgroupsPath: {wanted}"), "{path}");
    }
}

#[test]
fn relative_path_needs_a_visible_own_cgroup() {
    let mut layout = v2();
    if let Some(v2) = &mut layout.v2 {
        "/../../x".clone_into(&mut v2.self_path);
    }
    let (_, findings) = planned(r#"{"cgroupsPath": "c1"}"#, &layout);
    assert_eq!(findings.problems.len(), 1, "{findings:?}");
}

#[test]
fn shares_become_weight_by_the_curve() {
    let pairs = [(0, 1), (2, 1), (1024, 100), (2000, 170), (262_144, 10_000), (u64::MAX, 10_000)];
    for (shares, weight) in pairs {
        assert_eq!(weight_of(shares), weight, "{shares}");
    }
    let mut last = 0;
    for shares in 2..=262_144 {
        let weight = weight_of(shares);
        assert!(weight >= last && (1..=10_000).contains(&weight), "{shares}");
        last = weight;
    }
}

#[test]
fn what_cannot_be_is_a_problem_at_its_pointer() {
    for (resources, layout, wanted) in [
        (r#"{"memory": {"limit": -2}}"#, v2(), "/linux/resources/memory/limit: -2 is neither"),
        (
            r#"{"memory": {"limit": 9, "swap": 8}}"#,
            v2(),
            "/linux/resources/memory/swap: memory and",
        ),
        (r#"{"memory": {"swap": 8}}"#, v1(), "/linux/resources/memory/swap: a limit of memory and"),
        (
            r#"{"memory": {"swappiness": 10}}"#,
            v2(),
            "/linux/resources/memory/swappiness: cgroup v2 has",
        ),
        (
            r#"{"memory": {"swappiness": 101}}"#,
            v1(),
            "/linux/resources/memory/swappiness: 101 is not",
        ),
        (
            r#"{"memory": {"disableOOMKiller": true}}"#,
            v2(),
            "/linux/resources/memory/disableOOMKiller: ",
        ),
        (
            r#"{"cpu": {"quota": 5, "burst": 6}}"#,
            v2(),
            "/linux/resources/cpu/burst: 6 is more than",
        ),
        (r#"{"cpu": {"idle": 2}}"#, v1(), "/linux/resources/cpu/idle: 2 is neither"),
        (
            r#"{"cpu": {"realtimeRuntime": 2}}"#,
            v2(),
            "/linux/resources/cpu/realtimeRuntime: cgroup v2",
        ),
        (r#"{"cpu": {"cpus": "0-3\n"}}"#, v1(), "/linux/resources/cpu/cpus: '\\n' in a list"),
        (r#"{"pids": {"limit": -2}}"#, v1(), "/linux/resources/pids/limit: -2 is neither"),
        (r#"{"blockIO": {"weight": 9}}"#, v2(), "/linux/resources/blockIO/weight: 9 is not from"),
        (
            r#"{"blockIO": {"leafWeight": 90}}"#,
            v2(),
            "/linux/resources/blockIO/leafWeight: cgroup v2",
        ),
        (
            r#"{"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]}"#,
            v2(),
            "/linux/resources/hugepageLimits/0/pageSize: \"2mb\" is no size",
        ),
        (
            r#"{"network": {"classID": 1}}"#,
            v2(),
            "/linux/resources/network/classID: the net_cls controller",
        ),
        (
            r#"{"memory": {"limit": 1}}"#,
            hugetlb_only(),
            "/linux/resources/memory: the memory controller is not",
        ),
        (
            r#"{"unified": {"memory.high": "1"}}"#,
            v1(),
            "/linux/resources/unified/memory.high: cgroup v2 has no memory",
        ),
        (
            r#"{"unified": {"nope.x": "1"}}"#,
            v2(),
            "/linux/resources/unified/nope.x: cgroup v2 has no nope",
        ),
        (
            r#"{"unified": {"memory.a/../b": "1"}}"#,
            v2(),
            "/linux/resources/unified/memory.a~1..~1b: is no controller.file",
        ),
        (
            r#"{"unified": {"cgroup.procs": "1"}}"#,
            v2(),
            "/linux/resources/unified/cgroup.procs: is no resource",
        ),
        (
            r#"{"devices": [{"allow": true, "type": "p", "access": "r"}]}"#,
            v2(),
            "/linux/resources/devices/0/type: \"p\"",
        ),
        (
            r#"{"devices": [{"allow": true, "access": "rx"}]}"#,
            v1(),
            "/linux/resources/devices/0/access: \"rx\"",
        ),
        (
            r#"{"devices": [{"allow": true, "access": ""}]}"#,
            v1(),
            "/linux/resources/devices/0/access: \"\"",
        ),
        (
            r#"{"devices": [{"allow": true, "type": "c", "major": 4096, "access": "r"}]}"#,
            v2(),
            "/linux/resources/devices/0/major: 4096",
        ),
        (
            r#"{"devices": [{"allow": true, "type": "c", "minor": -2, "access": "r"}]}"#,
            v2(),
            "/linux/resources/devices/0/minor: -2",
        ),
        (
            r#"{"devices": [{"allow": true, "type": "c", "major": 4, "access": "r"}, {"allow": false, "type": "c", "major": 4, "minor": 1, "access": "r"}]}"#,
            v1(),
            "/linux/resources/devices/1: takes away a part",
        ),
    ] {
        let problems = problems(resources, &layout);
        assert!(
            problems.len() == 1 && problems[0].starts_with(wanted),
            "{resources}: {problems:?}"
        );
    }
}

fn hugetlb_only() -> super::super::Layout {
    let mut layout = hybrid();
    layout.v1.clear();
    layout
}

#[test]
fn zero_is_not_set_except_for_pids() {
    let zeros = r#"{"resources": {"memory": {"limit": 0, "swap": 0, "reservation": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "realtimePeriod": 0},
        "blockIO": {"weight": 0}, "network": {"classID": 0}}}"#;
    // None of it needs a controller, either.
    let (placement, findings) = planned(zeros, &hugetlb_only());
    assert!(
        findings.problems.is_empty() && placement.writes.is_empty(),
        "{findings:?} {placement}"
    );
    let (placement, _) = planned(r#"{"resources": {"pids": {"limit": 0}}}"#, &v2());
    assert!(placement.writes[0].value == "0" && placement.writes[0].late, "{placement}");
    let (placement, _) = planned(r#"{"resources": {"pids": {"limit": 0}}}"#, &v1());
    assert!(placement.writes[0].value == "0" && !placement.writes[0].late, "{placement}");
}

#[test]
fn unified_beats_what_was_converted() {
    let json = r#"{"resources": {"memory": {"limit": 5, "swap": 9},
        "unified": {"memory.max": "7", "io.max": "8:0 rbps=1\n8:16 rbps=2"}}}"#;
    let (placement, _) = planned(json, &v2());
    let writes: Vec<String> =
        placement.writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect();
    assert_eq!(
        writes,
        ["memory.swap.max=4", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.max=7"]
    );
}

#[test]
fn check_before_update_is_for_v2() {
    let json = r#"{"resources": {"memory": {"limit": 5, "checkBeforeUpdate": true}}}"#;
    assert_eq!(planned(json, &v2()).0.memory_at_most, Some((5, "/linux/resources/memory/limit")));
    assert_eq!(planned(json, &v1()).0.memory_at_most, None);
}

#[test]
fn disabled_systemd_and_rootless() {
    let config = linux(
        r#"{"cgroupsPath": "/a", "resources": {"pids": {"limit": 1}, "devices": [{"allow": false, "access": "rwm"}]}}"#,
    );
    let with = |options: &Options, layout| {
        let mut findings = Findings::default();
        (plan(&config, &BTreeMap::new(), "c1", options, &layout, &mut findings), findings)
    };
    let options = Options { manager: Manager::Disabled, ..Options::default() };
    let (placement, findings) = with(&options, v2());
    assert!(placement.record(&v2()).places.is_empty() && placement.devices.is_none());
    assert!(findings.problems.is_empty() && findings.warnings.len() == 1, "{findings:?}");
    let options = Options { manager: Manager::Systemd, ..Options::default() };
    let (placement, findings) = with(&options, v2());
    assert_eq!(findings.problems.len(), 1, "{findings:?}");
    assert!(findings.problems[0].text.contains("slice:prefix:name") && placement.unit.is_none());
    let options = Options { rootless: true, ..Options::default() };
    let (placement, findings) = with(&options, v2());
    assert!(placement.optional && placement.devices.is_none() && placement.writes.len() == 1);
    assert!(findings.problems.is_empty() && findings.warnings.len() == 1, "{findings:?}");
}

/// The unit that the same configuration gets on each kind of host.
#[test]
fn systemd_unit_golden() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cgroup/testdata");
    let text = std::fs::read_to_string(dir.join("everything.json")).expect("everything");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("json");
    json["cgroupsPath"] = "a-b.slice:docker:c1".into();
    let annotations = [("KillSignal", "15"), ("CollectMode", "'inactive'"), ("ExecStart", "'x'")]
        .map(|(name, value)| (format!("org.systemd.property.{name}"), value.to_owned()))
        .into();
    for (host, layout) in [("v1", v1()), ("v2", v2()), ("hybrid", hybrid())] {
        let mut findings = Findings::default();
        let options = Options { manager: Manager::Systemd, ..Options::default() };
        let linux = linux(&json.to_string());
        let placement = plan(&linux, &annotations, "c1", &options, &layout, &mut findings);
        let record = placement.record(&layout);
        let mut text = format!("{:?} in {}\n", record.unit, placement.path);
        for property in placement.unit.into_iter().flat_map(|planned| planned.properties) {
            text.push_str(&format!("{property}\n"));
        }
        for warning in findings.warnings {
            text.push_str(&format!("warning {warning}\n"));
        }
        let file = dir.join(format!("unit.{host}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &text).expect("golden");
        }
        let wanted = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, wanted, "{}", file.display());
        assert!(!record.owned && record.unit.is_some(), "an intent");
    }
}

/// systemd on v1 knows no exceptions to everything, and would allow all after a reload.
#[test]
fn systemd_exceptions_to_all_devices_are_refused_on_v1() {
    let config = linux(
        r#"{"cgroupsPath": ":a:b", "resources": {"devices": [{"allow": true, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "minor": 0, "access": "w"}]}}"#,
    );
    let problems = |layout: &super::super::Layout| {
        let mut findings = Findings::default();
        let options = Options { manager: Manager::Systemd, ..Options::default() };
        plan(&config, &BTreeMap::new(), "c1", &options, layout, &mut findings);
        findings.problems
    };
    assert_eq!(problems(&v2()), []);
    assert!(problems(&v1())[0].text.contains("systemd cannot keep that"));
}
