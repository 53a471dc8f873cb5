//! What a stopwatch does not show: system calls, memory, descriptors, size of the binary.

use super::harness::{Contestant, Harness};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Name, value and unit.
pub type Fact = (&'static str, f64, &'static str);

/// All counts of one contestant; those that need a working container come first.
pub fn collect(h: &Harness, who: &Contestant) -> Result<Vec<Fact>> {
    let id = h.new_id(who);
    let bundle = h.bundles.write(&who.name, true, false, &id)?;
    let pid_file = h.io("pid").display().to_string();
    let create =
        h.traced(who, &["create", "--bundle", &bundle, "--pid-file", &pid_file, &id], None)?;
    let pid = h.pid()?;
    let mut facts = waiting_init(pid)?;
    facts.extend(state_directory(&who.root.join(&id)));
    let start = h.traced(who, &["start", &id], Some(pid))?;
    let process = h.bundles.exec_process()?;
    let exec = h.traced(who, &["exec", "--process", &process, &id], None)?;
    let state = h.traced(who, &["state", &id], None)?;
    h.call(who, &["delete", "--force", &id])?;
    let (c, s) = (create.totals, start.totals);
    facts.extend([
        ("system calls, create + start", (c.calls + s.calls) as f64, ""),
        ("processes, create + start", (c.processes + s.processes) as f64, ""),
        ("threads, create + start", (c.threads + s.threads) as f64, ""),
        ("execs, create + start", (c.execs + s.execs) as f64, ""),
        ("system calls, exec", exec.totals.calls as f64, ""),
        ("peak memory, create", c.peak_kib as f64, "KiB"),
        ("peak memory, exec", exec.totals.peak_kib as f64, "KiB"),
        ("peak memory, state", state.totals.peak_kib as f64, "KiB"),
    ]);
    facts.extend(binary(&who.path)?);
    Ok(facts)
}

fn waiting_init(pid: i32) -> Result<Vec<Fact>> {
    let proc = Path::new("/proc").join(pid.to_string());
    let rollup = fs::read_to_string(proc.join("smaps_rollup")).context("the init does not wait")?;
    let value = |key: &str| -> f64 {
        let line = rollup.lines().find(|l| l.starts_with(key));
        line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0.0)
    };
    let count = |dir: &str| fs::read_dir(proc.join(dir)).map_or(0, Iterator::count) as f64;
    Ok(vec![
        ("waiting init, private", value("Private_Clean:") + value("Private_Dirty:"), "KiB"),
        ("waiting init, descriptors", count("fd"), ""),
        ("waiting init, threads", count("task"), ""),
    ])
}

fn state_directory(dir: &Path) -> Vec<Fact> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes: Vec<u64> =
        files.filter_map(|f| f.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).collect();
    vec![("state directory", sizes.iter().sum::<u64>() as f64 / 1024.0, "KiB")]
}

/// Size of the file and of the libraries that the loader brings in.
fn binary(path: &Path) -> Result<Vec<Fact>> {
    let size = |p: &Path| fs::metadata(p).map_or(0, |m| m.len()) as f64 / 1024.0;
    let listed = Command::new("ldd").arg(path).output();
    let text = listed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let libraries: BTreeSet<&str> =
        text.split_whitespace().filter(|w| w.starts_with('/')).collect();
    let total: f64 = libraries.iter().map(|l| size(Path::new(l))).sum();
    Ok(vec![
        ("binary", size(path), "KiB"),
        ("shared libraries", libraries.len() as f64, ""),
        ("  their size", total, "KiB"),
    ])
}
