//! `linux.resources` and a later change of it, put together. Pure.
//!
//! Done on the JSON, so that a member this version does not know is kept as well.

use serde_json::{Map, Value};

/// Members whose `0` or `""` means "not given", as everywhere in this runtime.
const UNSET: [&str; 15] = [
    "/memory/limit",
    "/memory/reservation",
    "/memory/swap",
    "/memory/kernel",
    "/memory/kernelTCP",
    "/cpu/shares",
    "/cpu/quota",
    "/cpu/period",
    "/cpu/realtimeRuntime",
    "/cpu/realtimePeriod",
    "/cpu/cpus",
    "/cpu/mems",
    "/blockIO/weight",
    "/blockIO/leafWeight",
    "/network/classID",
];

/// What an item of a list is about: a new one takes the place of the old one with the same.
const KEYS: [(&str, &[&str]); 7] = [
    ("/hugepageLimits", &["pageSize"]),
    ("/network/priorities", &["name"]),
    ("/blockIO/weightDevice", &["major", "minor"]),
    ("/blockIO/throttleReadBpsDevice", &["major", "minor"]),
    ("/blockIO/throttleWriteBpsDevice", &["major", "minor"]),
    ("/blockIO/throttleReadIOPSDevice", &["major", "minor"]),
    ("/blockIO/throttleWriteIOPSDevice", &["major", "minor"]),
];

/// Files of `unified` and the members that mean the same. The later of the two counts.
const UNIFIED: [(&str, &str); 12] = [
    ("memory.max", "/memory/limit"),
    ("memory.swap.max", "/memory/swap"),
    ("memory.low", "/memory/reservation"),
    ("cpu.weight", "/cpu/shares"),
    ("cpu.weight.nice", "/cpu/shares"),
    ("cpu.max", "/cpu/quota"),
    ("cpu.max", "/cpu/period"),
    ("cpu.max.burst", "/cpu/burst"),
    ("cpu.idle", "/cpu/idle"),
    ("cpuset.cpus", "/cpu/cpus"),
    ("cpuset.mems", "/cpu/mems"),
    ("pids.max", "/pids/limit"),
];

/// Lists of devices, and the file and key of `unified` that mean the same; no key: the whole line of the device.
const BY_DEVICE: [(&str, &str, &str); 6] = [
    ("/blockIO/throttleReadBpsDevice", "io.max", "rbps="),
    ("/blockIO/throttleWriteBpsDevice", "io.max", "wbps="),
    ("/blockIO/throttleReadIOPSDevice", "io.max", "riops="),
    ("/blockIO/throttleWriteIOPSDevice", "io.max", "wiops="),
    ("/blockIO/weightDevice", "io.weight", ""),
    ("/blockIO/weightDevice", "io.bfq.weight", ""),
];

/// The resources of a container after a change: what is not given stays.
#[must_use]
pub fn merge(kept: &Value, asked: &Value) -> Value {
    let mut merged = kept.clone();
    if let Some(Value::Object(unified)) = merged.get_mut("unified") {
        forget_files(unified, asked);
    }
    overlay(&mut merged, asked, "");
    if let (false, Some(both), Some(swap)) =
        (given(asked, "/memory/swap"), together(kept, asked), merged.pointer_mut("/memory/swap"))
    {
        *swap = both.into();
    }
    merged
}

/// The limit of memory and swap together, where only a new one of memory is given: it means nothing without that,
/// and is no less. Then as much swap stays as there was (docker update -m 4g --memory-swap -1 says no more).
fn together(kept: &Value, asked: &Value) -> Option<i64> {
    let number = |of: &Value, at| of.pointer(at).and_then(Value::as_i64);
    let (limit, both) = (number(asked, "/memory/limit")?, number(kept, "/memory/swap")?);
    match limit {
        -1 => Some(-1),
        _ if (1..limit).contains(&both) => {
            Some(limit.saturating_add(both - number(kept, "/memory/limit")?))
        }
        _ => None,
    }
}

/// Takes out of `unified` what is asked for in another way: files, and of some the lines of devices.
fn forget_files(unified: &mut Map<String, Value>, asked: &Value) {
    for (file, pointer) in UNIFIED {
        if given(asked, pointer) {
            unified.remove(file);
        }
    }
    let items = |list: &str| asked.pointer(list).and_then(Value::as_array).into_iter().flatten();
    for (list, file, key) in BY_DEVICE {
        for item in items(list) {
            let number = |name: &str| item.get(name).and_then(Value::as_i64).unwrap_or_default();
            forget(unified, file, &format!("{}:{}", number("major"), number("minor")), key);
        }
    }
    if given(asked, "/blockIO/weight") {
        forget(unified, "io.weight", "default", "");
        forget(unified, "io.bfq.weight", "default", "");
    }
    for (device, limits) in asked.pointer("/rdma").and_then(Value::as_object).into_iter().flatten()
    {
        for (member, key) in [("hcaHandles", "hca_handle="), ("hcaObjects", "hca_object=")] {
            if limits.get(member).is_some_and(Value::is_number) {
                forget(unified, "rdma.max", device, key);
            }
        }
    }
    for size in items("/hugepageLimits").filter_map(|item| item.get("pageSize")?.as_str()) {
        unified.remove(&format!("hugetlb.{size}.max"));
        unified.remove(&format!("hugetlb.{size}.rsvd.max"));
    }
}

/// Takes the words with this key out of a device's line, and a line with nothing left out of the file. A line of
/// a weight without a device is the default's.
fn forget(unified: &mut Map<String, Value>, file: &str, device: &str, key: &str) {
    let Some(text) = unified.get(file).and_then(Value::as_str) else { return };
    let rest = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let first = words.first().copied().unwrap_or_default();
        let is_default = device == "default" && !first.contains(':');
        if first != device && !is_default {
            return Some(line.to_owned());
        }
        let left: Vec<&str> = words.into_iter().filter(|word| !word.starts_with(key)).collect();
        (left.len() > 1).then(|| left.join(" "))
    };
    let left = text.lines().filter_map(rest).collect::<Vec<_>>().join("\n");
    if left.is_empty() {
        unified.remove(file);
    } else {
        unified.insert(file.to_owned(), left.into());
    }
}

fn given(asked: &Value, pointer: &str) -> bool {
    asked.pointer(pointer).is_some_and(|value| is_given(value, pointer))
}

fn is_given(value: &Value, at: &str) -> bool {
    let unset = match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0) && UNSET.contains(&at),
        Value::String(text) => text.is_empty() && UNSET.contains(&at),
        _ => false,
    };
    !unset
}

fn overlay(into: &mut Value, from: &Value, at: &str) {
    match from {
        Value::Object(from) => {
            if !into.is_object() {
                *into = Value::Object(Map::new());
            }
            let Value::Object(into) = into else { return };
            for (name, value) in from {
                let at = format!("{at}/{name}");
                if is_given(value, &at) {
                    overlay(into.entry(name.as_str()).or_insert(Value::Null), value, &at);
                }
            }
        }
        Value::Array(from) => match (KEYS.iter().find(|(list, _)| *list == at), into) {
            (Some((_, keys)), Value::Array(into)) => replace_items(into, from, keys),
            (_, into) => *into = Value::Array(from.clone()),
        },
        plain => *into = plain.clone(),
    }
}

fn replace_items(into: &mut Vec<Value>, from: &[Value], keys: &[&str]) {
    for item in from {
        let same = |other: &&mut Value| keys.iter().all(|key| other.get(key) == item.get(key));
        match into.iter_mut().find(same) {
            Some(other) => overlay(other, item, ""),
            None => into.push(item.clone()),
        }
    }
}
