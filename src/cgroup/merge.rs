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
const UNIFIED: [(&str, &str); 13] = [
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
    ("io.weight", "/blockIO/weight"),
];

/// The resources of a container after a change: what is not given stays.
#[must_use]
pub fn merge(kept: &Value, asked: &Value) -> Value {
    let mut merged = kept.clone();
    overlay(&mut merged, asked, "");
    let given =
        |pointer: &str| asked.pointer(pointer).is_some_and(|value| is_given(value, pointer));
    // A limit of memory and swap together means nothing without one of memory.
    let unlimited = asked.pointer("/memory/limit").and_then(Value::as_i64) == Some(-1);
    if let (true, false, Some(swap)) =
        (unlimited, given("/memory/swap"), merged.pointer_mut("/memory/swap"))
    {
        *swap = (-1).into();
    }
    if let Some(Value::Object(unified)) = merged.get_mut("unified") {
        for (file, pointer) in UNIFIED {
            if given(pointer) && asked.pointer(&format!("/unified/{file}")).is_none() {
                unified.remove(file);
            }
        }
    }
    merged
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
