//! `stats`

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::query::table;
use super::{Globals, args, duration, print};
use crate::cgroup::{Group, Mounts};
use crate::container::{self, Container};
use crate::error::{Code, DOES_NOT_EXIST, Error, Result};
use crate::stats::{Id, Kind, METRICS, Metric, Pass, Sample, Values};
use crate::sys::{self, notify};

/// With `--watch`, events that follow each other so closely are told together.
const GAP: Duration = Duration::from_millis(200);

/// One container.
struct Row {
    id: String,
    status: &'static str,
    values: Values,
}

#[derive(Clone, Copy)]
enum Format {
    Table,
    Json,
    OpenMetrics,
}

/// `onggi stats`
pub fn stats(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let format = match args::last(matches, "format").map(|text| text.to_str().unwrap_or_default()) {
        None | Some("table") => Format::Table,
        Some("json") => Format::Json,
        Some("openmetrics") => Format::OpenMetrics,
        other => {
            let text = format!("invalid format option: {:?}", other.unwrap_or_default());
            return Err(Error::text(Code::E_OPTION, text).into());
        }
    };
    let interval = duration::option(matches, "interval")?.unwrap_or(Duration::from_secs(5));
    if interval.is_zero() {
        return Err(Error::text(Code::E_OPTION, "--interval: must be more than 0").into());
    }
    let asked: Vec<String> =
        matches.get_many::<String>("ids").into_iter().flatten().cloned().collect();
    loop {
        let watch = args::is_on(matches, "watch").then(notify::inotify).transpose()?;
        let rows = look(globals, &asked, watch.as_ref())?;
        print(&match format {
            Format::Table => as_table(&rows),
            Format::Json => as_json(&rows)?,
            Format::OpenMetrics => as_openmetrics(&rows),
        })?;
        let Some(watch) = watch else { return Ok(0) };
        wait(&watch, interval)?;
    }
}

/// All containers, or those asked for, in one pass.
fn look(globals: &Globals, asked: &[String], watch: Option<&OwnedFd>) -> Result<Vec<Row>> {
    let all = asked.is_empty();
    let Some(root) = container::open_root(&globals.root)? else {
        return match (all, globals.root_given) {
            (true, false) => Ok(Vec::new()),
            (true, true) => {
                let text = format!("{}: no such file or directory", globals.root.display());
                Err(Error::text(Code::E_STATE_ROOT, text))
            }
            (false, _) => Err(Error::text(Code::E_NOT_FOUND, DOES_NOT_EXIST)),
        };
    };
    let notice = |dir: &OwnedFd| match watch {
        Some(watch) => {
            let mask = libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_TO;
            notify::watch(watch.as_fd(), dir.as_fd(), mask)
        }
        None => Ok(()),
    };
    notice(&root)?;
    let ids = if all { container::ids(root.as_fd())? } else { asked.to_vec() };
    let (pass, mut mounts) = (Pass::begin()?, Mounts::default());
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        if let (true, Some(_)) = (all, watch) {
            // Before the record is looked for: one that comes later is noticed.
            container::open_dir_in(root.as_fd(), &id)?.as_ref().map_or(Ok(()), notice)?;
        }
        let container = match Container::open_in(root.as_fd(), &id) {
            // Deleted since the directory was read, or reserved and not yet recorded.
            Err(error) if all && error.to_string() == DOES_NOT_EXIST => continue,
            other => other.map_err(|error| Error::text(error.code(), format!("{id}: {error}")))?,
        };
        notice(&container.dir)?;
        let group = container.cgroup_by(|record| Group::open_counting(record, &mut mounts))?;
        let values = group.as_ref().map_or(Ok(Values::new()), |group| pass.values(group))?;
        if let (Some(watch), Some(group)) = (watch, &group) {
            group.watch_events(watch.as_fd())?;
        }
        rows.push(Row { status: container.status_in(group.as_ref())?.name(), id, values });
    }
    Ok(rows)
}

/// Until the interval is over, or something has happened: a container came or went, ended, or ran out
/// of memory (the latter two are told on v2).
fn wait(watch: &OwnedFd, interval: Duration) -> Result<()> {
    let start = Instant::now();
    for (limit, fds) in [(GAP, &[][..]), (interval, &[(watch.as_fd(), libc::POLLIN)][..])] {
        let left = limit.min(interval).saturating_sub(start.elapsed());
        let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        match sys::fs::poll(fds, millis) {
            Err(error) if error.errno == libc::EINTR => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// Those of one metric.
fn values(row: &Row, id: Id) -> impl Iterator<Item = &Sample> {
    row.values.iter().filter(move |sample| sample.id == id)
}

fn as_json(rows: &[Row]) -> Result<String> {
    let text = serde_json::to_string(rows);
    text.map(|text| text + "\n").map_err(|error| Error::text(Code::E_INTERNAL, error.to_string()))
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(None)?;
        object.serialize_entry("id", &self.id)?;
        object.serialize_entry("status", self.status)?;
        let mut rest = self.values.as_slice();
        for metric in &METRICS {
            let count = rest.iter().take_while(|sample| sample.id == metric.id).count();
            let (samples, others) = rest.split_at(count);
            if count > 0 {
                object.serialize_entry(metric.name, &Shown { metric, samples })?;
            }
            rest = others;
        }
        object.end()
    }
}

/// A number, or with a label an object of numbers.
struct Shown<'a> {
    metric: &'a Metric,
    samples: &'a [Sample],
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let time = is_time(self.metric);
        if self.metric.label.is_some() {
            let mut object = to.serialize_map(None)?;
            for Sample { label, value, .. } in self.samples {
                if time {
                    object.serialize_entry(label, &seconds(*value))?;
                } else {
                    object.serialize_entry(label, value)?;
                }
            }
            return object.end();
        }
        let value = self.samples.first().map_or(0, |sample| sample.value);
        if time { to.serialize_f64(seconds(value)) } else { to.serialize_u64(value) }
    }
}

#[allow(clippy::cast_precision_loss, reason = "of 100 days the last microsecond")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn is_time(metric: &Metric) -> bool {
    metric.name.ends_with("_seconds")
}

/// The OpenMetrics text format 1.0: everything of one metric together.
fn as_openmetrics(rows: &[Row]) -> String {
    let mut out = String::with_capacity(256 * rows.len());
    out.push_str(
        "# TYPE onggi_container_status gauge\n\
         # HELP onggi_container_status 1 for the status that the container has\n",
    );
    for row in rows {
        let (id, status) = (&row.id, row.status);
        out.push_str(&format!("onggi_container_status{{id=\"{id}\",status=\"{status}\"}} 1\n"));
    }
    for metric in &METRICS {
        let name = format!("onggi_container_{}", metric.name);
        let (kind, suffix) = match metric.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
        };
        out.push_str(&format!("# TYPE {name} {kind}\n"));
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
        if let Some(unit) = unit {
            out.push_str(&format!("# UNIT {name} {unit}\n"));
        }
        out.push_str(&format!("# HELP {name} {}\n", metric.help));
        for row in rows {
            for Sample { label, value, .. } in values(row, metric.id) {
                // Ids and labels have no letter that would need an escape.
                out.push_str(&format!("{name}{suffix}{{id=\"{}\"", row.id));
                if let Some(key) = metric.label {
                    out.push_str(&format!(",{key}=\"{label}\""));
                }
                out.push_str("} ");
                if is_time(metric) {
                    out.push_str(&format!(
                        "{}.{:09}\n",
                        value / 1_000_000_000,
                        value % 1_000_000_000
                    ));
                } else {
                    out.push_str(&format!("{value}\n"));
                }
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

fn as_table(rows: &[Row]) -> String {
    const TITLES: [&str; 10] =
        ["ID", "STATUS", "CPU", "MEMORY", "PEAK", "LIMIT", "PROCS", "READ", "WRITTEN", "OOM KILLS"];
    let line = |row: &Row| {
        let sum = |id| values(row, id).map(|sample| sample.value).reduce(u64::saturating_add);
        let show = |id, how: fn(u64) -> String| sum(id).map_or("-".to_owned(), how);
        vec![
            row.id.clone(),
            row.status.to_owned(),
            show(Id::CpuUsage, |nanos| {
                format!("{}.{:02}s", nanos / 1_000_000_000, nanos / 10_000_000 % 100)
            }),
            show(Id::MemoryUsage, size),
            show(Id::MemoryPeak, size),
            show(Id::MemoryLimit, size),
            show(Id::Processes, |number| number.to_string()),
            show(Id::IoRead, size),
            show(Id::IoWritten, size),
            show(Id::OomKills, |number| number.to_string()),
        ]
    };
    table(&TITLES, &rows.iter().map(line).collect::<Vec<_>>())
}

/// `0B`, `1023B`, `1.0K`, `12.5M`
fn size(bytes: u64) -> String {
    let mut value = u128::from(bytes) * 10;
    let mut units = ["K", "M", "G", "T", "P", "E"].into_iter();
    let mut unit = "B";
    while value >= 10240 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024, next);
    }
    if unit == "B" { format!("{bytes}B") } else { format!("{}.{}{unit}", value / 10, value % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (10 << 20, "10.0M"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn every_metric_is_told_with_all_its_samples_together() {
        let sample = |id, label: &str, value| Sample { id, label: label.to_owned(), value };
        let values = |n: u64| -> Values {
            vec![
                sample(Id::CpuUsage, "", 1_500_000_000 * n),
                sample(Id::IoReads, "8:0", n),
                sample(Id::IoReads, "8:16", 7),
            ]
        };
        let row = |id: &str, n| Row { id: id.into(), status: "running", values: values(n) };
        let rows = [row("a", 1), row("b", 2)];
        let text = as_openmetrics(&rows);
        for wanted in [
            "onggi_container_status{id=\"a\",status=\"running\"} 1\n",
            "# TYPE onggi_container_cpu_usage_seconds counter\n\
             # UNIT onggi_container_cpu_usage_seconds seconds\n\
             # HELP onggi_container_cpu_usage_seconds CPU time used\n\
             onggi_container_cpu_usage_seconds_total{id=\"a\"} 1.500000000\n\
             onggi_container_cpu_usage_seconds_total{id=\"b\"} 3.000000000\n",
            "onggi_container_io_reads_total{id=\"b\",device=\"8:0\"} 2\n\
             onggi_container_io_reads_total{id=\"b\",device=\"8:16\"} 7\n",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let json = as_json(&rows).unwrap_or_default();
        let wanted = "{\"id\":\"b\",\"status\":\"running\",\"cpu_usage_seconds\":3.0,\
                      \"io_reads\":{\"8:0\":2,\"8:16\":7}}]\n";
        assert!(json.ends_with(wanted), "{json}");
    }
}
