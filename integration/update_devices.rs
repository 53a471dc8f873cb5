//! update, as far as devices are in it: limits of block I/O, and the rules of who may be opened, which it leaves
//! alone where they are not asked for.

use std::fs;
use std::os::fd::AsRawFd;

use serde_json::{Value, json};

use crate::support::need::v2_controller;
use crate::support::{Bundle, Container, host};
use crate::update::{limited, read, update, update_with};

/// The controller of block I/O has two names.
fn block_io() -> &'static str {
    if host::is_v2() { "io" } else { "blkio" }
}

/// The container's limits on a device: bytes read and written, calls that read and write, each per second.
fn throttles(bundle: &Bundle, device: &str) -> [String; 4] {
    let dir = bundle.cgroup("blkio");
    let of_device = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
        line.unwrap_or_default().to_owned()
    };
    let limit = |v1: &str, v2: &str| {
        if host::is_v2() {
            let line = of_device(read(&dir, "io.max"));
            let key = format!("{v2}=");
            let value = line.split(' ').find_map(|word| word.strip_prefix(&key)).map(str::to_owned);
            return value.unwrap_or_else(|| "max".to_owned());
        }
        let value = of_device(read(&dir, &format!("blkio.throttle.{v1}_device")));
        if value.is_empty() { "max".to_owned() } else { value }
    };
    [("read_bps", "rbps"), ("write_bps", "wbps"), ("read_iops", "riops"), ("write_iops", "wiops")]
        .map(|(v1, v2)| limit(v1, v2))
}

/// docker update --device-read-bps and so on; what is not given stays.
#[test]
fn row89_update_of_block_io_throttles() {
    require!(root, controller(block_io()), disk);
    let (major, minor) = host::disk().unwrap();
    let device = format!("{major}:{minor}");
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let bundle = limited(json!({ "blockIO": { "throttleReadBpsDevice": rate(1_000_000) } }));
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(throttles(&bundle, &device), ["1000000", "max", "max", "max"]);
    let others = json!({ "throttleWriteBpsDevice": rate(2_000_000),
        "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400) });
    update_with(&bundle, &web, json!({ "blockIO": others })).ok();
    assert_eq!(throttles(&bundle, &device), ["1000000", "2000000", "300", "400"]);
    let again = json!({ "throttleReadBpsDevice": rate(3_000_000) });
    update_with(&bundle, &web, json!({ "blockIO": again })).ok();
    assert_eq!(throttles(&bundle, &device), ["3000000", "2000000", "300", "400"]);
    let lifted = json!({ "throttleReadBpsDevice": rate(0), "throttleWriteIOPSDevice": rate(0) });
    update_with(&bundle, &web, json!({ "blockIO": lifted })).ok();
    assert_eq!(throttles(&bundle, &device), ["max", "2000000", "300", "max"]);
}

/// By the option, and as docker and podman send it.
#[test]
fn row89_update_of_block_io_weight() {
    require!(root, controller(block_io()));
    let bundle = limited(json!({}));
    let web = bundle.container("web");
    web.create().ok();
    let dir = bundle.cgroup("blkio");
    // BFQ's own; what was before it on v1; iocost's, which goes from 1 to 10000.
    let names = [format!("{}.bfq.weight", block_io()), format!("{}.weight", block_io())];
    let name = names.iter().find(|name| dir.join(name).exists()).unwrap_or(&names[0]);
    require!(path(dir.join(name).to_str().unwrap()));
    let weight = || read(&dir, name).split(' ').next_back().map(str::to_owned).unwrap();
    let is = |config, iocost| if name == "io.weight" { iocost } else { config };
    assert_eq!(weight(), "100");
    update(&web, &["--blkio-weight", "300"]).ok();
    assert_eq!(weight(), is("300", "2930"));
    update_with(&bundle, &web, json!({ "blockIO": { "weight": 1000 } })).ok();
    assert_eq!(weight(), is("1000", "10000"));
    update(&web, &["--blkio-weight", "9"]).fails_with("/linux/resources/blockIO/weight");
    assert_eq!(weight(), is("1000", "10000"));
}

/// Whether the device rules let the container open 240:77. No driver has it, which is found out later
/// than what the rules say.
#[track_caller]
fn may_open(web: &Container) -> bool {
    let error = web.exec(&["sh", "-c", "exec 3< /dev/any"]).fails().stderr;
    let denied = error.contains("Operation not permitted");
    assert!(denied || error.contains("No such device or address"), "{error}");
    !denied
}

fn device_bundle(devices: Value) -> Bundle {
    let bundle = limited(json!({ "devices": devices }));
    let node = json!({ "path": "/dev/any", "type": "c", "major": 240, "minor": 77 });
    bundle.edit(|config| config.push("/linux/devices", node));
    bundle
}

/// opencontainers/runc#3401: device rules of a running container.
#[test]
fn update_changes_device_rules_when_they_are_given() {
    require!(root);
    let deny = json!({ "allow": false, "access": "rwm" });
    let allow = json!({ "allow": true, "type": "c", "major": 240, "minor": 77, "access": "rw" });
    let bundle = device_bundle(json!([deny]));
    let web = bundle.container("web");
    web.up();
    assert!(!may_open(&web));
    web.sh("echo > /dev/null").ok();
    update_with(&bundle, &web, json!({ "devices": [deny, allow] })).ok();
    assert!(may_open(&web));
    web.sh("echo > /dev/null").ok();
    update_with(&bundle, &web, json!({ "devices": [deny] })).ok();
    assert!(!may_open(&web));
    web.sh("echo > /dev/null").ok();
}

/// runc has it as a rule: what a GPU hook has allowed besides must not get lost by
/// `docker update --cpus`.
#[test]
fn row89_update_leaves_device_rules_of_v1_alone() {
    require!(root, any_cgroup_v1(), controller("cpu"));
    let deny = json!({ "allow": false, "access": "rwm" });
    let bundle = device_bundle(json!([deny]));
    let web = bundle.container("web");
    web.up();
    fs::write(bundle.cgroup("devices").join("devices.allow"), "c 240:77 rw").unwrap();
    assert!(may_open(&web));
    update(&web, &["--cpu-share", "100"]).ok();
    // containerd's CRI sends the whole of its resources back.
    update_with(&bundle, &web, json!({ "devices": [deny], "cpu": { "shares": 200 } })).ok();
    assert!(may_open(&web));
}

/// The ids of the device programs that are attached to the container's cgroup.
fn device_programs(bundle: &Bundle) -> Vec<u32> {
    const BPF_PROG_QUERY: libc::c_long = 16;
    const BPF_CGROUP_DEVICE: u32 = 6;
    /// The part of `union bpf_attr` that is about it (linux/bpf.h).
    #[repr(C)]
    struct Query {
        target_fd: i32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        pad: u32,
    }
    let dir = fs::File::open(bundle.cgroup("")).unwrap();
    let mut ids = [0u32; 64];
    let mut query = Query {
        target_fd: dir.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        pad: 0,
    };
    let (attr, size) = (&raw mut query, std::mem::size_of::<Query>());
    let rc = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, attr, size) };
    assert_eq!(rc, 0, "BPF_PROG_QUERY: {}", std::io::Error::last_os_error());
    ids[..query.prog_cnt as usize].to_vec()
}

/// The same on v2: the program is not even attached anew, so what others have attached beside it stays, too.
#[test]
fn row89_update_leaves_the_device_program_of_v2_alone() {
    let (controller, file, value) = if v2_controller("pids").met {
        ("pids", "pids.max", "40")
    } else {
        ("hugetlb", "hugetlb.2MB.max", "4194304")
    };
    require!(root, cgroup_v2(), v2_controller(controller));
    let deny = json!({ "allow": false, "access": "rwm" });
    let bundle = device_bundle(json!([deny]));
    let web = bundle.container("web");
    web.up();
    assert!(!may_open(&web));
    let programs = device_programs(&bundle);
    assert_ne!(programs, [0; 0]);
    // By itself, and with the device rules that containerd's CRI sends back.
    for asked in [
        json!({ "unified": { file: value } }),
        json!({ "devices": [deny], "unified": { file: value } }),
    ] {
        update_with(&bundle, &web, asked).ok();
        assert_eq!(read(&bundle.cgroup(controller), file), value);
        assert!(!may_open(&web));
        web.sh("echo > /dev/null").ok();
        if !host::by_systemd() {
            assert_eq!(device_programs(&bundle), programs);
        }
    }
}
