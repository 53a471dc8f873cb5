//! Limits of a config.json and the files of the cgroup hierarchies that hold them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::substitute::Adapted;
use crate::support::{Bundle, host};

/// One member of `linux.resources`, the controllers and files it goes to, and how cgroup v2 writes
/// it; `None` for a value that is converted by a formula.
struct Limit {
    at: &'static str,
    v1: (&'static str, &'static str),
    v2: (&'static str, &'static str),
    in_v2: fn(u64, &Value) -> Option<String>,
}

const LIMITS: [Limit; 9] = [
    Limit {
        at: "/memory/limit",
        v1: ("memory", "memory.limit_in_bytes"),
        v2: ("memory", "memory.max"),
        in_v2: plain,
    },
    Limit {
        at: "/memory/reservation",
        v1: ("memory", "memory.soft_limit_in_bytes"),
        v2: ("memory", "memory.low"),
        in_v2: plain,
    },
    Limit {
        at: "/memory/swap",
        v1: ("memory", "memory.memsw.limit_in_bytes"),
        v2: ("memory", "memory.swap.max"),
        in_v2: |value, all| Some((value - all["memory"]["limit"].as_u64()?).to_string()),
    },
    Limit {
        at: "/cpu/shares",
        v1: ("cpu", "cpu.shares"),
        v2: ("cpu", "cpu.weight"),
        in_v2: |_, _| None,
    },
    Limit {
        at: "/cpu/quota",
        v1: ("cpu", "cpu.cfs_quota_us"),
        v2: ("cpu", "cpu.max"),
        in_v2: |value, all| Some(format!("{value} {}", all["cpu"]["period"].as_u64()?)),
    },
    Limit {
        at: "/cpu/period",
        v1: ("cpu", "cpu.cfs_period_us"),
        v2: ("cpu", "cpu.max"),
        in_v2: |_, _| None,
    },
    Limit {
        at: "/cpu/cpus",
        v1: ("cpuset", "cpuset.cpus"),
        v2: ("cpuset", "cpuset.cpus"),
        in_v2: |_, _| None,
    },
    Limit { at: "/pids/limit", v1: ("pids", "pids.max"), v2: ("pids", "pids.max"), in_v2: plain },
    Limit {
        at: "/blockIO/weight",
        v1: ("blkio", "blkio.bfq.weight"),
        v2: ("io", "io.bfq.weight"),
        in_v2: |_, _| None,
    },
];

fn plain(value: u64, _: &Value) -> Option<String> {
    Some(value.to_string())
}

/// A limit whose controller or file this machine lacks must be refused and is then left out: the
/// captured machine had a complete cgroup v2.
pub fn without_controller(adapted: &mut Adapted) {
    const ALL: &str = "/linux/resources";
    for limit in &LIMITS {
        let at = format!("{ALL}{}", limit.at);
        if adapted.config.pointer(&at).is_none() || is_there(limit, adapted.bundle()) {
            continue;
        }
        adapted.config.remove(&at);
        // `pids` needs its limit, and a refusal may name the controller alone.
        let controller = at.rsplit_once('/').unwrap().0;
        if adapted.config.pointer(controller) == Some(&json!({})) {
            adapted.config.remove(controller);
        }
        adapted.note(controller, "this machine has no such cgroup controller or file", true);
    }
    // Throttles are files of the same controller; on v2 they need it, on v1 blkio has them always.
    let throttles = format!("{ALL}/blockIO");
    if host::is_v2() && !controllers().iter().any(|one| one == "io") {
        let whole = adapted.config.pointer(&throttles).and_then(Value::as_object);
        if whole.is_some_and(|whole| whole.keys().any(|key| key.starts_with("throttle"))) {
            adapted.config.remove(&throttles);
            adapted.note(throttles, "this machine has no io controller on v2", true);
        }
    }
    let at = format!("{ALL}/unified");
    let keys = adapted.config.pointer(&at).and_then(Value::as_object).cloned().unwrap_or_default();
    let controllers = controllers();
    let known = |key: &String| controllers.iter().any(|one| key.starts_with(&format!("{one}.")));
    if !keys.is_empty() && !keys.keys().all(known) {
        adapted.config.remove(&at);
        adapted.note(at, "this machine has no cgroup v2 with these controllers", true);
    }
}

/// Every limit of the configuration must stand in the container's cgroup.
#[track_caller]
pub fn check(config: &Value, bundle: &Bundle) {
    let all = &config["linux"]["resources"];
    for limit in &LIMITS {
        let Some(wanted) = all.pointer(limit.at) else { continue };
        let (controller, file) = if host::is_v2() { limit.v2 } else { limit.v1 };
        let path = bundle.cgroup(controller).join(file);
        // Without the bfq scheduler the kernel has only its own file for weights.
        if file == "io.bfq.weight" && !path.exists() {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let expected = match (wanted.as_u64(), host::is_v2()) {
            (Some(value), true) => (limit.in_v2)(value, all),
            (Some(value), false) => Some(value.to_string()),
            (None, _) => wanted.as_str().map(str::to_string),
        };
        if let Some(expected) = expected {
            assert_eq!(text.trim(), expected, "{path:?}");
        }
    }
    for (file, value) in all["unified"].as_object().into_iter().flatten() {
        let path = bundle.cgroup("").join(file);
        let text = fs::read_to_string(&path).unwrap();
        // The kernel rounds bytes down to pages.
        let bytes = |text: &str| text.trim().parse::<u64>().map(|bytes| bytes / 4096);
        assert_eq!(bytes(&text), bytes(value.as_str().unwrap()), "{path:?}");
    }
}

fn is_there(limit: &Limit, bundle: &Bundle) -> bool {
    if host::is_v2() {
        return controllers().iter().any(|name| name == limit.v2.0);
    }
    // Many files are not in the root of a hierarchy, so a cgroup is made to look.
    let Some(root) = host::v1_dir(limit.v1.0) else { return false };
    let probe = root.join(format!("{}-probe", bundle.name()));
    fs::create_dir(&probe).unwrap();
    let there = Path::new(&probe).join(limit.v1.1).exists();
    fs::remove_dir(&probe).unwrap();
    there
}

/// The controllers of a cgroup v2 at the usual place.
fn controllers() -> Vec<String> {
    let file = Path::new(host::CGROUP_ROOT).join("cgroup.controllers");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_string).collect()
}
