//! Planned writes and device rules in systemd's words. Pure.
//!
//! systemd writes what it knows of a unit again when it feels like it (`daemon-reload`), and what it
//! does not know of goes back to the default. So each limit that it has a property for is told to it,
//! besides being written to its file, which alone has the exact value, and the only one of limits
//! without a property (hugetlb, rdma, bursts): those systemd leaves alone.

use super::super::devices::{self, Access, DeviceKind, DeviceRule};
use super::super::plan::Write;
use super::{Property, Value};

/// `infinity`, to systemd.
const NO_LIMIT: u64 = u64::MAX;

/// Properties whose value is the file's number, `max` or `-1`.
const NUMBERS: [(&str, &str); 9] = [
    ("memory.max", "MemoryMax"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("memory.zswap.max", "MemoryZSwapMax"),
    ("cpu.weight", "CPUWeight"),
    ("memory.limit_in_bytes", "MemoryLimit"),
    ("cpu.shares", "CPUShares"),
];

/// Properties of single devices: v2 by the key in `io.max`, v1 by its file.
const THROTTLES: [(&str, &str); 6] = [
    ("rbps", "IOReadBandwidthMax"),
    ("wbps", "IOWriteBandwidthMax"),
    ("riops", "IOReadIOPSMax"),
    ("wiops", "IOWriteIOPSMax"),
    ("blkio.throttle.read_bps_device", "BlockIOReadBandwidth"),
    ("blkio.throttle.write_bps_device", "BlockIOWriteBandwidth"),
];

/// The properties that say the same as these writes, as far as systemd has some. Of several writes to
/// one file the last counts, as in the kernel.
pub fn properties(writes: &[Write]) -> Vec<Property> {
    let mut all: Vec<Property> = Vec::new();
    for write in writes {
        for new in of_write(write) {
            let Some(same) = all.iter_mut().find(|old| old.name == new.name) else {
                all.push(new);
                continue;
            };
            match (&mut same.value, new.value) {
                (Value::Numbers(old), Value::Numbers(new)) => {
                    old.retain(|(device, _)| new.iter().all(|(other, _)| other != device));
                    old.extend(new);
                }
                (old, new) => *old = new,
            }
        }
    }
    all.extend(v1_quota(writes));
    all
}

fn of_write(write: &Write) -> Vec<Property> {
    let value = write.value.trim();
    let one = |name: &str, number: Option<u64>| {
        number.map(|number| Property::new(name, Value::U64(number))).into_iter().collect()
    };
    if let Some((_, name)) = NUMBERS.iter().find(|(file, _)| *file == write.file) {
        return one(name, number(value));
    }
    match write.file.as_str() {
        // systemd has no limit of 0: the next is 1, until it writes nothing.
        "pids.max" => one("TasksMax", number(value).map(|number| number.max(1))),
        // A weight of 0 is systemd's word for idle.
        "cpu.idle" if value == "1" => one("CPUWeight", Some(0)),
        "cpu.max" => quota_v2(value),
        "cpuset.cpus" => {
            bits(value).map(|bits| Property::new("AllowedCPUs", bits)).into_iter().collect()
        }
        "cpuset.mems" => {
            bits(value).map(|bits| Property::new("AllowedMemoryNodes", bits)).into_iter().collect()
        }
        "io.weight" => weight("IO", value, |weight| weight),
        "io.bfq.weight" => weight("IO", value, from_bfq),
        "blkio.bfq.weight" | "blkio.weight" | "blkio.bfq.weight_device" | "blkio.weight_device" => {
            weight("BlockIO", value, |weight| weight)
        }
        "io.max" => throttles(value),
        file => throttle(file, value).into_iter().collect(),
    }
}

/// `max`, `-1` or decimal digits. With a unit, as `unified` may have, it is left to the file.
fn number(value: &str) -> Option<u64> {
    match value {
        "max" | "-1" => Some(NO_LIMIT),
        digits => digits.parse().ok(),
    }
}

/// Microseconds per second, rounded up to whole percents: that is what a transient unit's file has,
/// and below 1 % it would be nothing.
fn per_second(quota: u64, period: u64) -> u64 {
    let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(NO_LIMIT)
}

/// `QUOTA [PERIOD]`
fn quota_v2(value: &str) -> Vec<Property> {
    let mut words = value.split_ascii_whitespace();
    let quota = words.next().and_then(number);
    let period = words.next().map(|period| period.parse::<u64>().ok());
    quota_properties(quota, period.flatten())
}

fn quota_properties(quota: Option<u64>, period: Option<u64>) -> Vec<Property> {
    /// The kernel's default.
    const PERIOD: u64 = 100_000;
    let mut all = Vec::new();
    if let Some(quota) = quota {
        let value =
            if quota == NO_LIMIT { quota } else { per_second(quota, period.unwrap_or(PERIOD)) };
        all.push(Property::new("CPUQuotaPerSecUSec", Value::U64(value)));
    }
    all.extend(period.map(|period| Property::new("CPUQuotaPeriodUSec", Value::U64(period))));
    all
}

/// v1 has a file for each of the two.
fn v1_quota(writes: &[Write]) -> Vec<Property> {
    let of = |file: &str| {
        writes.iter().rev().find(|write| write.file == file).and_then(|write| number(&write.value))
    };
    quota_properties(of("cpu.cfs_quota_us"), of("cpu.cfs_period_us"))
}

/// A list such as `0-3,7` as systemd takes it: a bit for each number, lowest first.
fn bits(list: &str) -> Option<Value> {
    /// More processors or nodes than any kernel has.
    const MAX: usize = 1 << 16;
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) =
            (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if first > last || last >= MAX {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        for number in first..=last {
            if let Some(byte) = bytes.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    (!bytes.is_empty()).then_some(Value::Bytes(bytes))
}

/// The weight that systemd turns into this BFQ weight (1 to 1000, 100 is the default of both).
fn from_bfq(weight: u64) -> u64 {
    if weight <= 100 { weight.max(1) } else { 100 + (weight.min(1000) - 100) * 9900 / 900 }
}

/// `W`, `default W` or `MAJOR:MINOR W`
fn weight(prefix: &str, value: &str, convert: impl Fn(u64) -> u64) -> Vec<Property> {
    let (device, weight) = value.split_once(' ').unwrap_or(("default", value));
    let Ok(weight) = weight.trim().parse().map(convert) else { return Vec::new() };
    if device == "default" {
        return vec![Property::new(&format!("{prefix}Weight"), Value::U64(weight))];
    }
    let device = vec![(format!("/dev/block/{device}"), weight)];
    vec![Property::new(&format!("{prefix}DeviceWeight"), Value::Numbers(device))]
}

/// `MAJOR:MINOR KEY=N…`
fn throttles(value: &str) -> Vec<Property> {
    let Some((device, limits)) = value.split_once(' ') else { return Vec::new() };
    let limits = limits.split_ascii_whitespace().filter_map(|limit| limit.split_once('='));
    limits.filter_map(|(key, rate)| throttle(key, &format!("{device} {rate}"))).collect()
}

/// `MAJOR:MINOR RATE`; 0 is v1's word for no limit.
fn throttle(key: &str, value: &str) -> Option<Property> {
    let (_, name) = THROTTLES.iter().find(|(known, _)| *known == key)?;
    let (device, rate) = value.split_once(' ')?;
    let rate = number(rate.trim()).map(|rate| if rate == 0 { NO_LIMIT } else { rate })?;
    Some(Property::new(name, Value::Numbers(vec![(format!("/dev/block/{device}"), rate)])))
}

/// `DevicePolicy` and `DeviceAllow`, so that systemd's own filter, which counts beside ours, lets
/// through what ours does, now and after it has been made anew. systemd knows only what is allowed,
/// so what is forbidden within something allowed is left to our filter.
pub fn devices(rules: &[DeviceRule]) -> Vec<Property> {
    let policy = |name: &str| Property::new("DevicePolicy", Value::Text(name.to_owned()));
    let (all, exceptions) = devices::allowed(rules);
    if all {
        return vec![policy("auto"), Property::new("DeviceAllow", Value::Pairs(Vec::new()))];
    }
    let entry = |rule: &DeviceRule| {
        let kind = if rule.kind == DeviceKind::Block { "block" } else { "char" };
        let device = match (rule.major, rule.minor) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (Some(major), None) => format!("{kind}-{major}"),
            (None, _) => format!("{kind}-*"),
        };
        (device, rule.access)
    };
    let mut pairs: Vec<(String, Access)> = Vec::new();
    for (device, access) in exceptions.iter().map(entry) {
        match pairs.iter_mut().find(|(same, _)| *same == device) {
            Some((_, old)) => old.0 |= access.0,
            None => pairs.push((device, access)),
        }
    }
    let pairs = pairs.into_iter().map(|(device, access)| (device, access.to_string())).collect();
    vec![policy("strict"), Property::new("DeviceAllow", Value::Pairs(pairs))]
}

#[cfg(test)]
#[allow(clippy::panic, clippy::expect_used, clippy::let_underscore_must_use, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(writes: &[(&str, &str)]) -> Vec<String> {
        let writes: Vec<Write> = writes
            .iter()
            .map(|(file, value)| {
                Write::new(file.split_once('.').map_or("", |(name, _)| name), file, value, "/x")
            })
            .collect();
        properties(&writes).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn systemd_properties_say_what_the_files_say() {
        let max = format!("U64({NO_LIMIT})");
        assert_eq!(of(&[("memory.max", "1048576")]), ["MemoryMax = U64(1048576)"]);
        assert_eq!(of(&[("memory.swap.max", "max")]), [format!("MemorySwapMax = {max}")]);
        assert_eq!(of(&[("memory.limit_in_bytes", "-1")]), [format!("MemoryLimit = {max}")]);
        assert_eq!(of(&[("memory.high", "512M")]), [""; 0]);
        assert_eq!(of(&[("pids.max", "0")]), ["TasksMax = U64(1)"]);
        assert_eq!(of(&[("pids.max", "max")]), [format!("TasksMax = {max}")]);
        assert_eq!(of(&[("cpu.weight", "59"), ("cpu.idle", "1")]), ["CPUWeight = U64(0)"]);
        assert_eq!(of(&[("cpuset.cpus", "0-1,9")]), ["AllowedCPUs = Bytes([3, 2])"]);
        assert_eq!(of(&[("cpuset.mems", "0")]), ["AllowedMemoryNodes = Bytes([1])"]);
        assert_eq!(of(&[("cpuset.cpus", "3-1")]), [""; 0]);
        assert_eq!(of(&[("hugetlb.2MB.max", "1"), ("rdma.max", "a b=1")]), [""; 0]);
    }

    #[test]
    fn systemd_quota_is_whole_percents_rounded_up() {
        let quota = |value: &str| of(&[("cpu.max", value)]);
        let period = "CPUQuotaPeriodUSec = U64(100000)";
        assert_eq!(quota("50000 100000"), ["CPUQuotaPerSecUSec = U64(500000)", period]);
        assert_eq!(quota("12345 100000"), ["CPUQuotaPerSecUSec = U64(130000)", period]);
        assert_eq!(quota("1"), ["CPUQuotaPerSecUSec = U64(10000)"]);
        assert_eq!(quota("max"), [format!("CPUQuotaPerSecUSec = U64({NO_LIMIT})")]);
        assert_eq!(
            of(&[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")]),
            ["CPUQuotaPerSecUSec = U64(500000)", period]
        );
    }

    #[test]
    fn systemd_io_limits_name_devices_by_number() {
        assert_eq!(of(&[("io.weight", "default 200")]), ["IOWeight = U64(200)"]);
        assert_eq!(of(&[("io.bfq.weight", "1000")]), ["IOWeight = U64(10000)"]);
        assert_eq!(of(&[("io.bfq.weight", "10")]), ["IOWeight = U64(10)"]);
        assert_eq!(
            of(&[("io.weight", "8:0 200"), ("io.weight", "8:16 10"), ("io.weight", "8:0 20")]),
            [r#"IODeviceWeight = Numbers([("/dev/block/8:16", 10), ("/dev/block/8:0", 20)])"#]
        );
        assert_eq!(
            of(&[("io.max", "8:0 rbps=1000 wiops=max")]),
            [
                r#"IOReadBandwidthMax = Numbers([("/dev/block/8:0", 1000)])"#.to_owned(),
                format!(r#"IOWriteIOPSMax = Numbers([("/dev/block/8:0", {NO_LIMIT})])"#)
            ]
        );
        assert_eq!(
            of(&[("blkio.throttle.read_bps_device", "8:0 5")]),
            [r#"BlockIOReadBandwidth = Numbers([("/dev/block/8:0", 5)])"#]
        );
    }
}
