use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::super::Layout;
use super::super::merge::merge;
use super::super::plan::Options;
use super::super::update::{plan, taking_back};
use super::{linux, v1, v2};
use crate::error::Findings;

fn resources(value: &Value) -> LinuxResources {
    let linux = linux(&json!({ "resources": value }).to_string());
    linux.resources().clone().unwrap_or_default()
}

/// The writes from one configuration to another, and the problems.
fn changes(kept: Value, asked: Value, layout: &Layout) -> String {
    let merged = merge(&kept, &asked);
    let mut findings = Findings::default();
    let [kept, asked, merged] = [&kept, &asked, &merged].map(resources);
    let update = plan(&kept, &asked, &merged, &Options::default(), layout, &mut findings);
    let devices = update.v1_devices.iter().flat_map(|(change, _)| change);
    let writes = update.writes.iter().chain(devices);
    let mut lines: Vec<String> =
        writes.map(|write| format!("{} = {}", write.file, write.value)).collect();
    let bpf = update.devices.iter().filter(|_| update.v1_devices.is_none());
    lines.extend(bpf.flat_map(|(_, after)| after).map(ToString::to_string));
    lines.extend(findings.problems.iter().map(ToString::to_string));
    lines.join("; ")
}

#[test]
fn update_keeps_what_is_not_given() {
    let kept = json!({
        "memory": { "limit": 100, "swap": 300 },
        "cpu": { "shares": 512, "quota": 5000, "period": 10000 },
        "pids": { "limit": 10 }, "unknown": 1
    });
    let asked = json!({
        "memory": { "limit": 200, "swap": 0, "reservation": null },
        "cpu": { "quota": 7000, "shares": 0, "cpus": "" }
    });
    assert_eq!(
        merge(&kept, &asked),
        json!({
            "memory": { "limit": 200, "swap": 300 },
            "cpu": { "shares": 512, "quota": 7000, "period": 10000 },
            "pids": { "limit": 10 }, "unknown": 1
        })
    );
    // The period stays beside the new quota; swap alone changes as the two together stay.
    assert_eq!(
        changes(kept.clone(), asked.clone(), &v2()),
        "memory.max = 200; memory.swap.max = 100; cpu.max = 7000 10000"
    );
    assert_eq!(changes(kept, asked, &v1()), "memory.limit_in_bytes = 200; cpu.cfs_quota_us = 7000");
}

#[test]
fn update_writes_what_is_given_even_if_it_is_not_new() {
    let kept = json!({ "pids": { "limit": 10 }, "cpu": { "shares": 512 } });
    assert_eq!(changes(kept, json!({ "pids": { "limit": 10 } }), &v2()), "pids.max = 10");
}

#[test]
fn update_of_zero_processes_is_a_limit() {
    let kept = json!({ "pids": { "limit": 10 } });
    assert_eq!(changes(kept, json!({ "pids": { "limit": 0 } }), &v2()), "pids.max = 0");
}

#[test]
fn update_to_unlimited_memory_lifts_swap_too() {
    let kept = json!({ "memory": { "limit": 100, "swap": 300 } });
    let asked = json!({ "memory": { "limit": -1 } });
    assert_eq!(changes(kept, asked, &v2()), "memory.max = max; memory.swap.max = max");
}

#[test]
fn update_of_memory_above_what_is_kept_of_both_leaves_as_much_swap() {
    let kept = json!({ "memory": { "limit": 100, "swap": 300 } });
    let asked = json!({ "memory": { "limit": 400 } });
    assert_eq!(merge(&kept, &asked), json!({ "memory": { "limit": 400, "swap": 600 } }));
    assert_eq!(changes(kept.clone(), asked.clone(), &v2()), "memory.max = 400");
    assert!(changes(kept, asked, &v1()).contains("memory.memsw.limit_in_bytes = 600"));
    // Swap that is given below is a mistake as ever.
    let kept = json!({ "memory": { "limit": 100, "swap": 300 } });
    let text = changes(kept, json!({ "memory": { "limit": 400, "swap": 350 } }), &v2());
    assert!(text.contains("/linux/resources/memory/swap: memory and swap together"), "{text}");
}

#[test]
fn update_of_a_device_beats_its_line_in_the_kept_unified_key() {
    let kept = json!({ "unified": {
        "io.max": "8:0 rbps=1000 wbps=3000\n8:16 rbps=2000", "io.weight": "300\n8:0 50", "hugetlb.2MB.max": "1", "rdma.max": "mlx hca_handle=1",
    } });
    let rate = json!([{ "major": 8, "minor": 0, "rate": 5000 }]);
    let asked = json!({
        "blockIO": { "throttleReadBpsDevice": rate, "weight": 100 },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 2 }],
        "rdma": { "mlx": { "hcaHandles": 3 } },
    });
    let merged = merge(&kept, &asked);
    assert_eq!(
        merged["unified"],
        json!({ "io.max": "8:0 wbps=3000\n8:16 rbps=2000", "io.weight": "8:0 50" })
    );
    let text = changes(kept, asked, &v2());
    assert!(text.contains("io.max = 8:0 rbps=5000"), "{text}");
    assert!(!text.contains("rbps=1000"), "{text}");
}

#[test]
fn update_of_a_member_beats_the_kept_unified_key_and_the_other_way_round() {
    let kept = json!({ "unified": { "memory.max": "1000", "memory.high": "900" } });
    let asked = json!({ "memory": { "limit": 500 } });
    assert_eq!(changes(kept.clone(), asked, &v2()), "memory.max = 500");
    let asked = json!({ "unified": { "memory.max": "700" } });
    assert_eq!(changes(kept, asked.clone(), &v2()), "memory.max = 700");
    assert_eq!(changes(json!({ "memory": { "limit": 500 } }), asked, &v2()), "memory.max = 700");
}

#[test]
fn update_of_lists_replaces_items_by_what_they_are_about() {
    let item = |minor: u32, rate: u32| json!({ "major": 8, "minor": minor, "rate": rate });
    let kept = json!({ "blockIO": { "throttleReadBpsDevice": [item(0, 5), item(16, 6)] } });
    let asked = json!({ "blockIO": { "throttleReadBpsDevice": [item(16, 0), item(32, 9)] } });
    let merged = merge(&kept, &asked);
    assert_eq!(
        merged["blockIO"]["throttleReadBpsDevice"],
        json!([item(0, 5), item(16, 0), item(32, 9)])
    );
    let kept = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 }] });
    let asked = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 2 }] });
    assert_eq!(merge(&kept, &asked), asked);
}

#[test]
fn update_leaves_device_rules_alone_unless_others_are_given() {
    let kmsg = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" });
    let fuse = json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" });
    let kept = json!({ "devices": [kmsg] });
    for layout in [v1(), v2()] {
        assert_eq!(changes(kept.clone(), json!({ "cpu": {} }), &layout), "");
        assert_eq!(changes(kept.clone(), json!({ "devices": [] }), &layout), "");
        assert_eq!(changes(kept.clone(), kept.clone(), &layout), "");
    }
    let asked = json!({ "devices": [fuse] });
    // v1: no moment without the rules that stay.
    assert_eq!(
        changes(kept.clone(), asked.clone(), &v1()),
        "devices.deny = c 1:11 r; devices.allow = c 10:229 rwm"
    );
    let text = changes(kept, asked, &v2());
    assert!(text.contains("allow c 10:229 rwm") && !text.contains("1:11"), "{text}");
}

#[test]
fn update_knows_what_takes_a_write_back() {
    let io = "8:0 rbps=1000 wbps=max riops=max wiops=max\n";
    for (file, text, value, wanted) in [
        ("memory.max", "max\n", "5", "max"),
        ("cpu.max", "max 100000\n", "5000 10000", "max 100000"),
        ("cpuset.cpus", "\n", "0", "\n"),
        ("cpuset.cpus", "", "0", "\n"),
        ("io.weight", "default 100\n8:0 50\n", "70", "default 100"),
        ("io.weight", "default 100\n8:0 50\n", "8:0 7", "8:0 50"),
        ("io.weight", "default 100\n", "8:0 7", "8:0 default"),
        ("io.max", io, "8:0 rbps=7", io.trim()),
        ("io.max", io, "8:16 rbps=7", "8:16 rbps=max wbps=max riops=max wiops=max"),
        ("blkio.throttle.read_bps_device", "", "8:0 7", "8:0 0"),
        ("net_prio.ifpriomap", "lo 3\neth0 0\n", "lo 5", "lo 3"),
        ("rdma.max", "", "mlx5_0 hca_handle=2", "mlx5_0 hca_handle=max hca_object=max"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "1", "0"),
    ] {
        assert_eq!(taking_back(file, text, value), wanted, "{file} {value}");
    }
}

#[test]
fn update_that_ends_idling_writes_the_weight_again() {
    let kept = json!({ "cpu": { "shares": 512, "idle": 1 } });
    let asked = json!({ "cpu": { "idle": 0 } });
    assert_eq!(changes(kept.clone(), asked.clone(), &v2()), "cpu.idle = 0; cpu.weight = 59");
    assert_eq!(changes(kept.clone(), asked.clone(), &v1()), "cpu.idle = 0; cpu.shares = 512");
    assert_eq!(changes(kept, json!({ "cpu": { "quota": 5000 } }), &v2()), "cpu.max = 5000");
    let kept = json!({ "cpu": { "idle": 1 } });
    assert_eq!(changes(kept.clone(), asked.clone(), &v2()), "cpu.idle = 0; cpu.weight = 100");
    assert_eq!(changes(kept, asked.clone(), &v1()), "cpu.idle = 0; cpu.shares = 1024");
    assert_eq!(changes(json!({}), asked, &v2()), "cpu.idle = 0");
}

#[test]
fn update_writes_an_idle_cgroup_no_weight_after_systemd() {
    let layout = v2();
    let shares = json!({ "cpu": { "shares": 512, "quota": 12345, "period": 100_000 } });
    for (kept, asked) in [
        (shares.clone(), json!({ "cpu": { "idle": 1 } })),
        (
            json!({ "cpu": { "shares": 512, "quota": 12345, "period": 100_000, "idle": 1 } }),
            json!({ "cpu": { "burst": 7 } }),
        ),
    ] {
        let merged = merge(&kept, &asked);
        let [kept, asked, merged] = [&kept, &asked, &merged].map(resources);
        let none = &mut Findings::default();
        let update = plan(&kept, &asked, &merged, &Options::default(), &layout, none);
        let files: Vec<&str> = update.exact.1.iter().map(|write| write.file.as_str()).collect();
        assert!(files.contains(&"cpu.max") && !files.contains(&"cpu.weight"), "{files:?}");
    }
}
