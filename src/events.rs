//! What the `events` command prints: the statistics in the shape that runc gives them, from whatever
//! files there are.
//!
//! As in runc, members that are zero are left out except where the shape has them always, times are
//! in nanoseconds, and on v2 `swap` is memory and swap together, as v1 counts it.

use serde_json::{Map, Value, json};

use crate::cgroup::Group;
use crate::error::Result;
use crate::sys;

/// `USER_HZ`, the unit of `cpuacct.stat`, is 100 for all of user space.
const NANOS_PER_TICK: u64 = 10_000_000;

/// The `data` of a `stats` event.
pub fn data(group: &Group) -> Result<Value> {
    Ok(json!({
        "cpu": cpu(group)?,
        "cpuset": cpuset(group)?,
        "memory": memory(group)?,
        "pids": pids(group)?,
        "blkio": block_io(group)?,
        "hugetlb": hugetlb(group)?,
        "intel_rdt": {},
        "network_interfaces": null,
    }))
}

/// An object that leaves out zeros.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn always(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn unless_zero(self, name: &str, value: u64) -> Self {
        if value == 0 { self } else { self.always(name, value) }
    }

    fn unless_empty(self, name: &str, value: Vec<Value>) -> Self {
        if value.is_empty() { self } else { self.always(name, value) }
    }

    fn pressure(self, group: &Group, resource: &str) -> Result<Self> {
        Ok(match group.read_v2(&format!("{resource}.pressure"))? {
            Some(text) => self.always("psi", pressure(&text)),
            None => self,
        })
    }
}

/// A file with one number; `max`, and absence, as runc has them.
fn number(text: Option<String>) -> u64 {
    match text.as_deref().map(str::trim) {
        None => 0,
        Some("max") => u64::MAX,
        Some(text) => text.parse().unwrap_or(0),
    }
}

/// The number of a line `name number`.
pub fn field(text: &str, name: &str) -> u64 {
    fields(text).find(|(key, _)| *key == name).map_or(0, |(_, value)| value)
}

/// A file of lines `name number`.
pub fn fields(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// A `*.pressure` file: shares of time in percent, and the total in microseconds.
fn pressure(text: &str) -> Value {
    let mut lines = Map::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let mut values = Map::new();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let value = match name {
                "total" => value.parse::<u64>().ok().map(Value::from),
                _ => value.parse::<f64>().ok().map(Value::from),
            };
            values.extend(value.map(|value| (name.to_owned(), value)));
        }
        lines.insert(kind.to_owned(), values.into());
    }
    lines.into()
}

fn cpu(group: &Group) -> Result<Value> {
    let usage = if group.is_v1("cpuacct") { cpu_usage_v1(group)? } else { cpu_usage_v2(group)? };
    let (stat, throttled, unit) = match group.read_v1("cpu", "cpu.stat")? {
        Some(text) => (text, "throttled_time", 1),
        None => (group.read_v2("cpu.stat")?.unwrap_or_default(), "throttled_usec", 1000),
    };
    let throttling = Object::default()
        .unless_zero("periods", field(&stat, "nr_periods"))
        .unless_zero("throttledPeriods", field(&stat, "nr_throttled"))
        .unless_zero("throttledTime", field(&stat, throttled) * unit);
    let cpu = Object::default().always("usage", usage).always("throttling", throttling.0);
    Ok(cpu.pressure(group, "cpu")?.0.into())
}

fn cpu_usage_v1(group: &Group) -> Result<Map<String, Value>> {
    let read = |file| group.read_v1("cpuacct", file);
    let stat = read("cpuacct.stat")?.unwrap_or_default();
    let percpu = read("cpuacct.usage_percpu")?.unwrap_or_default();
    let percpu = percpu.split_ascii_whitespace().filter_map(|one| one.parse::<u64>().ok());
    // A heading, then lines `cpu user system`.
    let all = read("cpuacct.usage_all")?.unwrap_or_default();
    let column = |index| -> Vec<Value> {
        let lines = all.lines().skip(1);
        let cells = lines.filter_map(|line| line.split(' ').nth(index)?.parse::<u64>().ok());
        cells.map(Value::from).collect()
    };
    let usage = Object::default()
        .unless_zero("total", number(read("cpuacct.usage")?))
        .unless_empty("percpu", percpu.map(Value::from).collect())
        .unless_empty("percpu_kernel", column(2))
        .unless_empty("percpu_user", column(1))
        .always("kernel", field(&stat, "system") * NANOS_PER_TICK)
        .always("user", field(&stat, "user") * NANOS_PER_TICK);
    Ok(usage.0)
}

fn cpu_usage_v2(group: &Group) -> Result<Map<String, Value>> {
    let stat = group.read_v2("cpu.stat")?.unwrap_or_default();
    let usage = Object::default()
        .unless_zero("total", field(&stat, "usage_usec") * 1000)
        .always("kernel", field(&stat, "system_usec") * 1000)
        .always("user", field(&stat, "user_usec") * 1000);
    Ok(usage.0)
}

fn cpuset(group: &Group) -> Result<Value> {
    const FLAGS: [&str; 8] = [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
    ];
    let read = |file: &str| group.read_v1("cpuset", &format!("cpuset.{file}"));
    let list = |file: &str| -> Result<Vec<Value>> {
        let text = match read(file)? {
            None => group.read_v2(&format!("cpuset.{file}.effective"))?,
            text => text,
        };
        Ok(numbers(&text.unwrap_or_default()))
    };
    let mut object = Object::default();
    for flag in FLAGS {
        object = object.always(flag, number(read(flag)?));
    }
    let relax = read("sched_relax_domain_level")?.and_then(|text| text.trim().parse::<i64>().ok());
    let object = object
        .always("sched_relax_domain_level", relax.unwrap_or(0))
        .unless_empty("cpus", list("cpus")?)
        .unless_empty("mems", list("mems")?);
    Ok(object.0.into())
}

/// A list such as `0-2,7`.
fn numbers(text: &str) -> Vec<Value> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    });
    ranges.flatten().map(Value::from).collect()
}

fn entry(limit: u64, usage: u64, max: u64, failures: u64) -> Value {
    let entry = Object::default()
        .always("limit", limit)
        .unless_zero("usage", usage)
        .unless_zero("max", max)
        .always("failcnt", failures);
    entry.0.into()
}

fn memory(group: &Group) -> Result<Value> {
    let memory = if group.is_v1("memory") { memory_v1(group)? } else { memory_v2(group)? };
    Ok(memory.pressure(group, "memory")?.0.into())
}

fn memory_v1(group: &Group) -> Result<Object> {
    let read = |file: &str| group.read_v1("memory", file);
    let entry = |prefix: &str| -> Result<Value> {
        let one = |file: &str| read(&format!("{prefix}.{file}")).map(number);
        Ok(entry(
            one("limit_in_bytes")?,
            one("usage_in_bytes")?,
            one("max_usage_in_bytes")?,
            one("failcnt")?,
        ))
    };
    let stat = read("memory.stat")?.unwrap_or_default();
    Ok(Object::default()
        .unless_zero("cache", field(&stat, "cache"))
        .always("usage", entry("memory")?)
        .always("swap", entry("memory.memsw")?)
        .always("kernel", entry("memory.kmem")?)
        .always("kernelTCP", entry("memory.kmem.tcp")?)
        .always("raw", raw(&stat)))
}

fn memory_v2(group: &Group) -> Result<Object> {
    let read = |file: &str| group.read_v2(file).map(number);
    let stat = group.read_v2("memory.stat")?.unwrap_or_default();
    let events = group.read_v2("memory.events")?.unwrap_or_default();
    let swap_events = group.read_v2("memory.swap.events")?.unwrap_or_default();
    let (limit, usage) = (read("memory.max")?, read("memory.current")?);
    let (swap_limit, swap) = (read("memory.swap.max")?, read("memory.swap.current")?);
    let memory = Object::default()
        .unless_zero("cache", field(&stat, "file"))
        .always("usage", entry(limit, usage, read("memory.peak")?, field(&events, "max")))
        .always(
            "swap",
            entry(
                swap_limit.saturating_add(limit),
                swap.saturating_add(usage),
                0,
                field(&swap_events, "max"),
            ),
        )
        .always("kernel", entry(0, field(&stat, "kernel"), 0, 0))
        .always("kernelTCP", entry(0, 0, 0, 0));
    Ok(if stat.is_empty() { memory } else { memory.always("raw", raw(&stat)) })
}

fn raw(stat: &str) -> Map<String, Value> {
    fields(stat).map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn pids(group: &Group) -> Result<Value> {
    let read = |file: &str| -> Result<u64> {
        let text = match group.read_v1("pids", file)? {
            None => group.read_v2(file)?,
            text => text,
        };
        Ok(number(text))
    };
    let limit = match read("pids.max")? {
        u64::MAX => 0,
        limit => limit,
    };
    let mut current = read("pids.current")?;
    if current == 0 {
        // Without the controller they are counted by hand.
        current = group.pids()?.len() as u64;
    }
    Ok(Object::default().unless_zero("current", current).unless_zero("limit", limit).0.into())
}

/// What runc's lists are called, and the v1 files they come from.
const IO_LISTS: [(&str, &str); 8] = [
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queued_recursive"),
    ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"),
    ("ioMergedRecursive", "io_merged_recursive"),
    ("ioTimeRecursive", "time_recursive"),
    ("sectorsRecursive", "sectors_recursive"),
];

fn block_io(group: &Group) -> Result<Value> {
    let mut object = Object::default();
    if group.is_v1("blkio") {
        // BFQ counts what it schedules, the throttler everything.
        let bfq = group.read_v1("blkio", "blkio.bfq.io_serviced_recursive")?;
        let bfq = bfq.is_some_and(|text| text.lines().any(|line| !line.starts_with("Total")));
        let prefix = if bfq { "blkio.bfq" } else { "blkio.throttle" };
        for (name, file) in IO_LISTS {
            let text = group.read_v1("blkio", &format!("{prefix}.{file}"))?.unwrap_or_default();
            object = object.unless_empty(name, text.lines().filter_map(io_line).collect());
        }
    } else {
        let stat = group.read_v2("io.stat")?.unwrap_or_default();
        let list = |read: &str, write: &str| -> Vec<Value> {
            let lines = stat.lines().flat_map(|line| {
                [("Read", read), ("Write", write)].map(|(op, key)| {
                    let words: Vec<&str> = line.split(' ').collect();
                    let value =
                        words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
                    io_entry(words.first().copied()?, op, value?)
                })
            });
            lines.flatten().collect()
        };
        object = object
            .unless_empty("ioServiceBytesRecursive", list("rbytes", "wbytes"))
            .unless_empty("ioServicedRecursive", list("rios", "wios"));
    }
    Ok(object.pressure(group, "io")?.0.into())
}

/// `8:0 Read 123` or `8:0 123`.
fn io_line(line: &str) -> Option<Value> {
    let mut words = line.split_ascii_whitespace();
    let (device, second) = (words.next()?, words.next()?);
    match words.next() {
        Some(value) => io_entry(device, second, value),
        None => io_entry(device, "", second),
    }
}

fn io_entry(device: &str, op: &str, value: &str) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let mut entry = Object::default()
        .unless_zero("major", major.parse().ok()?)
        .unless_zero("minor", minor.parse().ok()?)
        .unless_zero("value", value.parse().ok()?);
    if !op.is_empty() {
        entry = entry.always("op", op);
    }
    Some(entry.0.into())
}

fn hugetlb(group: &Group) -> Result<Value> {
    let mut sizes = Map::new();
    for size in huge_page_sizes()? {
        let read = |file: &str| -> Result<Option<String>> {
            match group.read_v1("hugetlb", file)? {
                None => group.read_v2(file),
                text => Ok(text),
            }
        };
        // Reservations where the kernel accounts them, as the limits are for these.
        let v1 = group.is_v1("hugetlb");
        let usage_file = if v1 { "usage_in_bytes" } else { "current" };
        let reserved = read(&format!("hugetlb.{size}.rsvd.{usage_file}"))?;
        let prefix = format!("hugetlb.{size}{}", if reserved.is_some() { ".rsvd" } else { "" });
        let usage = match reserved {
            None => read(&format!("{prefix}.{usage_file}"))?,
            reserved => reserved,
        };
        if usage.is_none() {
            continue;
        }
        let (max, failures) = if v1 {
            let failures = read(&format!("{prefix}.failcnt"))?;
            (number(read(&format!("{prefix}.max_usage_in_bytes"))?), number(failures))
        } else {
            let events = read(&format!("hugetlb.{size}.events"))?.unwrap_or_default();
            (0, field(&events, "max"))
        };
        let entry = Object::default()
            .unless_zero("usage", number(usage))
            .unless_zero("max", max)
            .always("failcnt", failures);
        sizes.insert(size, entry.0.into());
    }
    Ok(sizes.into())
}

/// Whether the host has huge pages of a size, in use or not.
pub fn huge_pages_exist(size: &str) -> Result<bool> {
    let digits = size.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let kib = digits.parse::<u64>().unwrap_or(0)
        << match size.get(digits.len()..) {
            Some("GB") => 20,
            Some("MB") => 10,
            _ => 0,
        };
    let path = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages");
    match sys::fs::open(&sys::cstr("open", &path)?, libc::O_RDONLY) {
        Ok(file) => Ok(sys::fs::read_to_end(std::os::fd::AsFd::as_fd(&file), 64)? != b"0\n"),
        // Not told: they are looked for.
        Err(error) if error.errno == libc::ENOENT => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// As cgroup files have them: `64KB`, `2MB`, `1GB`.
pub fn huge_page_sizes() -> Result<Vec<String>> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let dir = match sys::fs::open(c"/sys/kernel/mm/hugepages", flags) {
        Ok(dir) => dir,
        Err(error) if error.errno == libc::ENOENT => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let names = sys::fs::list(std::os::fd::AsFd::as_fd(&dir))?;
    let sizes = names.iter().filter_map(|name| {
        let kib = name.to_str().ok()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let kib = kib.parse::<u64>().ok()?;
        Some(match kib {
            1_048_576.. => format!("{}GB", kib >> 20),
            1024.. => format!("{}MB", kib >> 10),
            _ => format!("{kib}KB"),
        })
    });
    let mut sizes: Vec<String> = sizes.collect();
    sizes.sort();
    Ok(sizes)
}
