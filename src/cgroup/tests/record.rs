use serde_json::{Value, json};

use super::super::{Record, mounts};
use super::{hybrid, planned, v1, v2};

fn read(value: &Value) -> serde_json::Result<Record> {
    serde_json::from_value(value.clone())
}

#[test]
fn record_survives_json() {
    for layout in [v1(), v2(), hybrid()] {
        for path in ["/docker/c1", "c1"] {
            let (placement, _) = planned(&format!(r#"{{"cgroupsPath": "{path}"}}"#), &layout);
            let record = placement.record(&layout);
            assert!(!record.owned);
            assert_eq!(read(&json!(record)).ok(), Some(record));
        }
    }
}

/// The whole state has 4 KiB.
#[test]
fn record_is_small() {
    let path = format!("/kubepods/burstable/pod{}/{}", "u".repeat(36), "f".repeat(64));
    let (placement, _) = planned(&format!(r#"{{"cgroupsPath": "{path}"}}"#), &hybrid());
    assert!(json!(placement.record(&hybrid())).to_string().len() < 800);
}

#[test]
fn spoilt_records_are_refused() {
    let good = json!({"manager": "cgroupfs", "owned": true, "path": "a", "dirs": [["", "/m"]]});
    assert!(read(&good).is_ok());
    for (key, value) in [
        ("manager", json!("other")),
        ("owned", json!(1)),
        ("path", json!("../a")),
        ("dirs", json!([["", "m"]])),
        ("dirs", json!([["", "/m", "/a"]])),
        ("dirs", json!([[1, "/m"]])),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(read(&bad).is_err(), "{bad}");
    }
    assert!(read(&json!(null)).is_err());
    for (key, user) in [("unit", false), ("userUnit", true)] {
        let mut unit = good.clone();
        unit[key] = json!("docker-c1.scope");
        let record = read(&unit).expect("a record");
        assert_eq!(record.unit.as_ref().map(|unit| unit.user), Some(user));
        assert_eq!(json!(record), unit);
        unit[key] = json!("../x.scope");
        assert!(read(&unit).is_err());
    }
}

#[test]
fn mounts_of_a_hybrid_and_of_a_pure_v2_host() {
    let (placement, _) = planned(r#"{"cgroupsPath": "/c1"}"#, &hybrid());
    let shown: Vec<String> = mounts(&placement.record(&hybrid()))
        .iter()
        .map(|one| {
            format!("{} {:?} {} {:?} {}", one.name, one.links, one.fstype, one.options, one.dir)
        })
        .collect();
    let has = |line: &str| assert!(shown.iter().any(|one| one == line), "{line} not in {shown:#?}");
    has(r#"cpu,cpuacct ["cpu", "cpuacct"] cgroup "cpu,cpuacct" /sys/fs/cgroup/cpu,cpuacct/c1"#);
    has(r#"memory [] cgroup "memory" /sys/fs/cgroup/memory/c1"#);
    has(r#"systemd [] cgroup "none,name=systemd" /sys/fs/cgroup/systemd/c1"#);
    has(r#"unified [] cgroup2 "" /sys/fs/cgroup/unified/c1"#);
    let (placement, _) = planned(r#"{"cgroupsPath": "/c1"}"#, &v2());
    let all = mounts(&placement.record(&v2()));
    assert!(all.len() == 1 && all[0].name.is_empty() && all[0].fstype == "cgroup2", "{all:?}");
}
