//! `update`

use std::ffi::OsStr;

use clap::ArgMatches;
use oci_spec::runtime::LinuxIntelRdt;
use serde_json::{Map, Value};

use super::{Globals, args};
use crate::container::Container;
use crate::error::{Code, Error, Finding, Result};
use crate::host::Host;
use crate::{bundle, sys};

/// What an option's text becomes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Bytes, with a suffix; -1 for no limit.
    Size,
    /// A number.
    Number,
    /// As it is.
    Text,
}

/// Each option: its name, the member of `linux.resources` it sets, how it is read, what it is for.
pub const LIMITS: [(&str, &str, Kind, &str); 14] = [
    ("blkio-weight", "/blockIO/weight", Kind::Number, "Weight of block I/O, 10 to 1000"),
    ("cpu-period", "/cpu/period", Kind::Number, "Period of the CPU quota, in microseconds"),
    ("cpu-quota", "/cpu/quota", Kind::Number, "CPU time in a period, in microseconds"),
    ("cpu-burst", "/cpu/burst", Kind::Number, "CPU time to be saved up, in microseconds"),
    ("cpu-share", "/cpu/shares", Kind::Number, "Weight of CPU time, 1024 is the usual one"),
    ("cpu-rt-period", "/cpu/realtimePeriod", Kind::Number, "Period of real-time CPU time"),
    ("cpu-rt-runtime", "/cpu/realtimeRuntime", Kind::Number, "Real-time CPU time in a period"),
    ("cpu-idle", "/cpu/idle", Kind::Number, "With 1: run only when nobody else wants the CPU"),
    ("cpuset-cpus", "/cpu/cpus", Kind::Text, "CPUs to run on, such as 0-3,8"),
    ("cpuset-mems", "/cpu/mems", Kind::Text, "Memory nodes to use"),
    ("memory", "/memory/limit", Kind::Size, "Limit of memory, such as 512m; -1 for none"),
    ("memory-reservation", "/memory/reservation", Kind::Size, "Soft limit of memory"),
    ("memory-swap", "/memory/swap", Kind::Size, "Limit of memory and swap together; -1 for none"),
    ("pids-limit", "/pids/limit", Kind::Number, "Most processes; -1 for no limit"),
];

/// Options of runc that have no effect there either.
pub const IGNORED: [&str; 2] = ["kernel-memory", "kernel-memory-tcp"];

/// `onggi update`
pub fn update(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let container = Container::open(&globals.root, &id)?;
    let asked = asked(matches)?;
    let ignored = IGNORED.iter().filter(|name| args::last(matches, name).is_some()).map(|name| {
        let text = "ignored, no kernel has had it since Linux 5.16";
        Finding::new(Code::W_OPTION_IGNORED, format_args!("--{name}"), text)
    });
    globals.log.warn(ignored.collect::<Vec<_>>());
    let schemata = schemata(matches);
    let host = Host::gather()?;
    let rootless = globals.cgroup_options(&host)?.rootless;
    let warnings = crate::update::update(&container, &asked, schemata.as_ref(), (&host, rootless))?;
    globals.log.warn(warnings);
    Ok(0)
}

/// What the options say of the container's resctrl group.
fn schemata(matches: &ArgMatches) -> Option<LinuxIntelRdt> {
    let text = |name| args::last(matches, name).map(|text| text.to_string_lossy().into_owned());
    let (l3, bandwidth) = (text("l3-cache-schema"), text("mem-bw-schema"));
    if l3.is_none() && bandwidth.is_none() {
        return None;
    }
    let mut schemata = LinuxIntelRdt::default();
    schemata.set_l3_cache_schema(l3).set_mem_bw_schema(bandwidth);
    Some(schemata)
}

/// The file, if there is one, and over it the options.
fn asked(matches: &ArgMatches) -> Result<Value> {
    let mut asked = match args::last(matches, "resources") {
        Some(name) => document(name)
            .map_err(|error| Error::text(error.code(), format!("--resources: {error}")))?,
        None => Value::Object(Map::new()),
    };
    for (name, pointer, kind, _) in LIMITS {
        let Some(text) = args::last(matches, name).map(OsStr::to_string_lossy) else { continue };
        let value = match kind {
            Kind::Text => Some(Value::from(text.as_ref())),
            Kind::Number => text.parse::<i64>().ok().map(Value::from),
            Kind::Size => size(&text).map(Value::from),
        };
        let value = value.ok_or_else(|| {
            Error::text(Code::E_OPTION, format!("--{name}: {text:?} is no such number"))
        })?;
        set(&mut asked, pointer, value);
    }
    Ok(asked)
}

fn document(name: &OsStr) -> Result<Value> {
    let bytes = match (name == "-", sys::fs::inherited(0)) {
        (true, Some(stdin)) => sys::fs::read_to_end(stdin, bundle::MAX_BYTES)?,
        (true, None) => return Err(Error::text(Code::E_CONFIG_READ, "standard input is closed")),
        (false, _) => bundle::read(name.as_ref())?,
    };
    if !bundle::scan(&bytes)? {
        let text = "not a JSON object where there has to be one";
        return Err(Error::text(Code::E_TYPE, text));
    }
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Error::text(Code::E_TYPE, "not a JSON object")),
        Err(error) => Err(Error::text(Code::E_JSON, error.to_string())),
    }
}

/// Puts a value at a pointer, in objects that are made where missing.
pub(super) fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut here = document;
    for name in pointer.split('/').skip(1) {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        let Value::Object(members) = here else { return };
        here = members.entry(name).or_insert(Value::Null);
    }
    *here = value;
}

/// `512`, `10m`, `1.5GiB`: factors of 1024, in any case.
fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = lower.get(digits.len()..)?;
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if matches!(unit, "" | "b") => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, fraction) = digits.trim_end().split_once('.').unwrap_or((digits.trim_end(), ""));
    let whole = whole.parse::<i64>().ok()?.checked_mul(1 << power)?;
    let mut part = 0i64;
    for (index, digit) in fraction.bytes().take(9).enumerate() {
        let digit = i64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        part += digit * 10i64.pow(8 - u32::try_from(index).ok()?);
    }
    let part = i128::from(part) * (1 << power) / 1_000_000_000;
    whole.checked_add(i64::try_from(part).ok()?).filter(|size| *size >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        for (text, bytes) in [
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("512", Some(512)),
            ("10b", Some(10)),
            ("10k", Some(10 << 10)),
            ("10M", Some(10 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2GiB", Some(2 << 30)),
            ("2gb", Some(2 << 30)),
            ("-2", None),
            ("", None),
            ("x", None),
            ("1z", None),
            ("1.x", None),
            ("99999999p", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn options_are_set_where_they_belong() {
        let mut document = serde_json::json!({ "cpu": { "shares": 5 } });
        set(&mut document, "/cpu/quota", 7.into());
        set(&mut document, "/memory/limit", 8.into());
        let wanted =
            serde_json::json!({ "cpu": { "shares": 5, "quota": 7 }, "memory": { "limit": 8 } });
        assert_eq!(document, wanted);
    }
}
