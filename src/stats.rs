//! What the `stats` command tells of containers: a table of metrics, and their values in one pass.

use crate::cgroup::Group;
use crate::error::Result;
use crate::events::{field, huge_page_sizes, huge_pages_exist};

/// How a metric behaves over time (OpenMetrics).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is now.
    Gauge,
}

/// Which metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "METRICS says what each is")]
pub enum Id {
    CpuUsage,
    CpuUser,
    CpuSystem,
    CpuPeriods,
    CpuThrottledPeriods,
    CpuThrottled,
    MemoryUsage,
    MemoryPeak,
    MemoryLimit,
    SwapUsage,
    MemoryFailures,
    OomKills,
    Processes,
    ProcessesLimit,
    IoRead,
    IoWritten,
    IoReads,
    IoWrites,
    PressureWaiting,
    PressureStalled,
    HugetlbUsage,
}

/// A metric. Those that end in `_seconds` are kept in nanoseconds.
#[derive(Debug)]
pub struct Metric {
    /// Which one.
    pub id: Id,
    /// As in JSON; for OpenMetrics with `onggi_container_` in front.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What tells its values of one container apart, if there are several.
    pub label: Option<&'static str>,
    /// What it is.
    pub help: &'static str,
}

const fn counter(id: Id, name: &'static str, help: &'static str) -> Metric {
    Metric { id, name, kind: Kind::Counter, label: None, help }
}

const fn gauge(id: Id, name: &'static str, help: &'static str) -> Metric {
    Metric { id, name, kind: Kind::Gauge, label: None, help }
}

const fn by(label: &'static str, metric: Metric) -> Metric {
    Metric { label: Some(label), ..metric }
}

/// All metrics, in the order in which they are told.
pub const METRICS: [Metric; 21] = [
    counter(Id::CpuUsage, "cpu_usage_seconds", "CPU time used"),
    counter(Id::CpuUser, "cpu_user_seconds", "CPU time used in user mode"),
    counter(Id::CpuSystem, "cpu_system_seconds", "CPU time used in the kernel"),
    counter(Id::CpuPeriods, "cpu_periods", "Periods of the CPU quota in which it wanted to run"),
    counter(
        Id::CpuThrottledPeriods,
        "cpu_throttled_periods",
        "Periods in which the CPU quota was used up",
    ),
    counter(
        Id::CpuThrottled,
        "cpu_throttled_seconds",
        "Time in which it could not run for the CPU quota",
    ),
    gauge(Id::MemoryUsage, "memory_usage_bytes", "Memory in use, page cache included"),
    gauge(Id::MemoryPeak, "memory_peak_bytes", "Most memory that was in use"),
    gauge(Id::MemoryLimit, "memory_limit_bytes", "Limit of memory, if there is one"),
    gauge(Id::SwapUsage, "swap_usage_bytes", "Swap in use"),
    counter(Id::MemoryFailures, "memory_failures", "Times that memory was at its limit"),
    counter(Id::OomKills, "oom_kills", "Processes that the OOM killer has killed"),
    gauge(Id::Processes, "processes", "Processes and threads"),
    gauge(Id::ProcessesLimit, "processes_limit", "Limit of processes and threads, if there is one"),
    by("device", counter(Id::IoRead, "io_read_bytes", "Bytes read from a block device")),
    by("device", counter(Id::IoWritten, "io_written_bytes", "Bytes written to a block device")),
    by("device", counter(Id::IoReads, "io_reads", "Reads from a block device")),
    by("device", counter(Id::IoWrites, "io_writes", "Writes to a block device")),
    by(
        "resource",
        counter(
            Id::PressureWaiting,
            "pressure_waiting_seconds",
            "Time in which some process waited",
        ),
    ),
    by(
        "resource",
        counter(
            Id::PressureStalled,
            "pressure_stalled_seconds",
            "Time in which all processes waited",
        ),
    ),
    by("size", gauge(Id::HugetlbUsage, "hugetlb_usage_bytes", "Huge pages in use or reserved")),
];

/// A value of one container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// Of which metric.
    pub id: Id,
    /// The label's value, empty without a label.
    pub label: String,
    /// The value.
    pub value: u64,
}

/// The values of one container, sorted: those of one metric stand together, in the order of [`METRICS`].
pub type Values = Vec<Sample>;

/// What is the same for all containers.
#[derive(Debug)]
pub struct Pass {
    /// The sizes, and whether the host has any page of each.
    huge_pages: Vec<(String, bool)>,
}

impl Pass {
    /// Begins a look at containers.
    pub fn begin() -> Result<Self> {
        let with = |size: String| {
            let exist = huge_pages_exist(&size)?;
            Ok((size, exist))
        };
        Ok(Self { huge_pages: huge_page_sizes()?.into_iter().map(with).collect::<Result<_>>()? })
    }

    /// The values of one container. What the kernel does not count is not among them.
    pub fn values(&self, group: &Group) -> Result<Values> {
        let mut look = Look { group, values: Values::new() };
        look.cpu()?;
        look.memory()?;
        look.processes()?;
        look.io()?;
        for resource in ["cpu", "memory", "io"] {
            look.pressure(resource)?;
        }
        for (size, exist) in &self.huge_pages {
            look.huge_pages(size, *exist)?;
        }
        look.values.sort_unstable();
        Ok(look.values)
    }
}

struct Look<'a> {
    group: &'a Group,
    values: Values,
}

impl Look<'_> {
    fn put(&mut self, id: Id, value: u64) {
        self.put_for(id, "", value);
    }

    fn put_for(&mut self, id: Id, label: &str, value: u64) {
        self.values.push(Sample { id, label: label.to_owned(), value });
    }

    /// A file with one number, on v1 or v2; `max`, and v1's nearly 2^63 for it, is none.
    fn number(&mut self, id: Id, controller: &str, v1: &str, v2: &str) -> Result<()> {
        const NO_LIMIT: u64 = 1 << 62;
        let text = if self.group.is_v1(controller) {
            self.group.read_v1(controller, v1)?
        } else {
            self.group.read_v2(v2)?
        };
        let number = text.and_then(|text| text.trim().parse::<u64>().ok());
        if let Some(number) = number.filter(|number| *number < NO_LIMIT) {
            self.put(id, number);
        }
        Ok(())
    }

    fn cpu(&mut self) -> Result<()> {
        const NANOS_PER_TICK: u64 = 10_000_000;
        let v1 = self.group.is_v1("cpuacct");
        let v2 = if v1 { None } else { self.group.read_v2("cpu.stat")? };
        if v1 {
            self.number(Id::CpuUsage, "cpuacct", "cpuacct.usage", "")?;
            let stat = self.group.read_v1("cpuacct", "cpuacct.stat")?.unwrap_or_default();
            self.put(Id::CpuUser, field(&stat, "user") * NANOS_PER_TICK);
            self.put(Id::CpuSystem, field(&stat, "system") * NANOS_PER_TICK);
        } else if let Some(stat) = &v2 {
            self.put(Id::CpuUsage, field(stat, "usage_usec") * 1000);
            self.put(Id::CpuUser, field(stat, "user_usec") * 1000);
            self.put(Id::CpuSystem, field(stat, "system_usec") * 1000);
        }
        let (stat, throttled, unit) = match self.group.read_v1("cpu", "cpu.stat")? {
            Some(text) => (text, "throttled_time", 1),
            None => (v2.unwrap_or_default(), "throttled_usec", 1000),
        };
        if stat.contains("nr_periods") {
            self.put(Id::CpuPeriods, field(&stat, "nr_periods"));
            self.put(Id::CpuThrottledPeriods, field(&stat, "nr_throttled"));
            self.put(Id::CpuThrottled, field(&stat, throttled) * unit);
        }
        Ok(())
    }

    fn memory(&mut self) -> Result<()> {
        for (id, v1, v2) in [
            (Id::MemoryUsage, "memory.usage_in_bytes", "memory.current"),
            (Id::MemoryPeak, "memory.max_usage_in_bytes", "memory.peak"),
            (Id::MemoryLimit, "memory.limit_in_bytes", "memory.max"),
        ] {
            self.number(id, "memory", v1, v2)?;
        }
        if self.group.is_v1("memory") {
            self.number(Id::MemoryFailures, "memory", "memory.failcnt", "")?;
            let both = self.group.read_v1("memory", "memory.memsw.usage_in_bytes")?;
            let both = both.and_then(|text| text.trim().parse::<u64>().ok());
            let memory = self.values.iter().find(|sample| sample.id == Id::MemoryUsage);
            if let (Some(both), Some(memory)) = (both, memory) {
                // Not read in the same moment.
                self.put(Id::SwapUsage, both.saturating_sub(memory.value));
            }
        } else {
            self.number(Id::SwapUsage, "memory", "", "memory.swap.current")?;
            if let Some(events) = self.group.read_v2("memory.events")? {
                self.put(Id::MemoryFailures, field(&events, "max"));
                self.put(Id::OomKills, field(&events, "oom_kill"));
                return Ok(());
            }
        }
        if let Some(kills) = self.group.oom_kills() {
            self.put(Id::OomKills, kills);
        }
        Ok(())
    }

    fn processes(&mut self) -> Result<()> {
        self.number(Id::Processes, "pids", "pids.current", "pids.current")?;
        self.number(Id::ProcessesLimit, "pids", "pids.max", "pids.max")
    }

    fn io(&mut self) -> Result<()> {
        if self.group.is_v1("blkio") {
            let prefix = "blkio.throttle";
            for (file, read, written) in [
                ("io_service_bytes_recursive", Id::IoRead, Id::IoWritten),
                ("io_serviced_recursive", Id::IoReads, Id::IoWrites),
            ] {
                let text = self.group.read_v1("blkio", &format!("{prefix}.{file}"))?;
                for line in text.unwrap_or_default().lines() {
                    let words: Vec<&str> = line.split(' ').collect();
                    let [device, op, value] = words.as_slice() else { continue };
                    let id = match *op {
                        "Read" => read,
                        "Write" => written,
                        _ => continue,
                    };
                    self.put_for(id, device, value.parse().unwrap_or(0));
                }
            }
            return Ok(());
        }
        let text = self.group.read_v2("io.stat")?.unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let device = words.next().unwrap_or_default();
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let id = match key {
                    "rbytes" => Id::IoRead,
                    "wbytes" => Id::IoWritten,
                    "rios" => Id::IoReads,
                    "wios" => Id::IoWrites,
                    _ => continue,
                };
                self.put_for(id, device, value.parse().unwrap_or(0));
            }
        }
        Ok(())
    }

    fn pressure(&mut self, resource: &str) -> Result<()> {
        let text = self.group.read_v2(&format!("{resource}.pressure"))?.unwrap_or_default();
        for line in text.lines() {
            let id = match line.split(' ').next() {
                Some("some") => Id::PressureWaiting,
                Some("full") => Id::PressureStalled,
                _ => continue,
            };
            let total = line.rsplit_once("total=").and_then(|(_, total)| total.parse::<u64>().ok());
            self.put_for(id, resource, total.unwrap_or(0) * 1000);
        }
        Ok(())
    }

    fn huge_pages(&mut self, size: &str, exist: bool) -> Result<()> {
        if !exist {
            // Nobody uses or has reserved what is not there.
            self.put_for(Id::HugetlbUsage, size, 0);
            return Ok(());
        }
        let v1 = self.group.is_v1("hugetlb");
        let file = if v1 { "usage_in_bytes" } else { "current" };
        for file in [format!("hugetlb.{size}.rsvd.{file}"), format!("hugetlb.{size}.{file}")] {
            let text = if v1 {
                self.group.read_v1("hugetlb", &file)?
            } else {
                self.group.read_v2(&file)?
            };
            if let Some(number) = text.and_then(|text| text.trim().parse::<u64>().ok()) {
                self.put_for(Id::HugetlbUsage, size, number);
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::METRICS;

    #[test]
    fn metrics_have_different_names() {
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        assert!(METRICS.is_sorted_by_key(|metric| metric.id));
    }
}
