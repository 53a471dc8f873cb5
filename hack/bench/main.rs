//! bench: OCI runtimes side by side.
//!
//!     bench [--rounds N] [--crowd N] [--cgroup host|v1|v2|systemd] [--seccomp PROFILE.json] [--only WORKLOAD]
//!           [--busybox PATH] name=/path/to/runtime [name=/path ...]
//!
//! The runtimes take turns within every round and the first in turn rotates, so drift of the machine
//! meets all of them alike; every other round goes backwards, so that nobody always comes after the same one, for
//! a large one leaves its successor cold caches; one round is a warm-up. Ratios are of medians of CPU time, which is user
//! and system time of the runtime and of all it reaped; wall time is what the caller waits. On a busy
//! machine read CPU and p10. Reference columns appear for contestants named `crun` and `runc`.
//!
//! Workloads: run, run-minimal, life (create start state kill delete), exec, delete-force of a container
//! with 1000 processes, stats of 500 containers where a runtime has that, and `run`, `list` and `state` among --crowd other state directories, mounts and cgroups. The docker-like bundle has 6
//! namespaces, 14 capabilities, 12 mounts, 17 protected paths, 8 device rules, the limits that the
//! host's controllers allow, and the seccomp profile given (an engine's default.json is expanded for
//! this machine) or a stand-in of like size. The counts come from ptrace over the whole tree.
//!
//! --cgroup v2 puts a fresh cgroup2 mount over /sys/fs/cgroup, v1 hides the unified hierarchy of a
//! hybrid host; both in a private mount namespace; systemd has systemd make scopes, with the host's
//! hierarchies. Figures of v1 and v2 do not compare: the limits differ. Needs root; with cc the payload is a program without libc, otherwise busybox.

// Tools, not the runtime: they may print, stop at once, and speak to the kernel themselves.
#![allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::exit,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::let_underscore_must_use,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks
)]

mod bundles;
mod facts;
mod harness;
mod workloads;

#[path = "../sweep/guard.rs"]
#[allow(dead_code)]
mod guard;
#[path = "../sweep/names.rs"]
#[allow(dead_code)]
mod names;
#[path = "../sweep/sys.rs"]
#[allow(dead_code)]
mod sys;
#[path = "../sweep/trace.rs"]
#[allow(dead_code)]
mod trace;

use anyhow::{Context, Result, bail};
use guard::{Cgroup, Place};
use harness::{Contestant, Cost, Harness};
use std::collections::HashMap;
use std::path::PathBuf;
use workloads::Workload;

struct Args {
    rounds: usize,
    crowd: usize,
    cgroup: Cgroup,
    seccomp: Option<PathBuf>,
    only: Option<String>,
    busybox: PathBuf,
    contestants: Vec<String>,
}

fn main() {
    let result = parse(std::env::args().skip(1)).and_then(|args| {
        let cgroup = args.cgroup;
        guard::guarded("onggi-bench", cgroup, move |place| bench(place, &args))
    });
    std::process::exit(result.unwrap_or_else(|e| {
        eprintln!("bench: {e:#}");
        2
    }));
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
    let mut args = Args {
        rounds: 30,
        crowd: 1000,
        cgroup: Cgroup::Host,
        seccomp: None,
        only: None,
        busybox: "/bin/busybox".into(),
        contestants: Vec::new(),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--rounds" => args.rounds = value()?.parse::<usize>()?.max(1),
            "--crowd" => args.crowd = value()?.parse()?,
            "--cgroup" => args.cgroup = value()?.parse()?,
            "--seccomp" => args.seccomp = Some(value()?.into()),
            "--only" => args.only = Some(value()?),
            "--busybox" => args.busybox = value()?.into(),
            _ if word.starts_with('-') => {
                bail!("unknown option {word}; the head of main.rs lists them")
            }
            _ => args.contestants.push(word),
        }
    }
    if args.contestants.is_empty() {
        bail!("no contestant given (name=/path/to/runtime)");
    }
    Ok(args)
}

/// Costs by row, in the order the rows first appeared, then by contestant.
#[derive(Default)]
struct Results {
    rows: Vec<&'static str>,
    costs: HashMap<(&'static str, String), Vec<Cost>>,
}

impl Results {
    fn add(&mut self, row: &'static str, who: &Contestant, cost: Cost) {
        if !self.rows.contains(&row) {
            self.rows.push(row);
        }
        self.costs.entry((row, who.name.clone())).or_default().push(cost);
    }
}

fn bench(place: &Place, args: &Args) -> Result<i32> {
    let bundles = bundles::make(place, args.seccomp.as_deref(), &args.busybox)?;
    let (rules, payload) = (bundles.rules, bundles.payload);
    let h = Harness::new(place, bundles)?;
    let contestants =
        args.contestants.iter().map(|s| h.contestant(s)).collect::<Result<Vec<_>>>()?;
    let mut results = Results::default();
    let mut trouble = false;
    let wanted =
        |w: &&Workload| args.only.as_ref().is_none_or(|only| w.name.starts_with(only.as_str()));
    for workload in workloads::ALL.iter().filter(wanted) {
        trouble |= measure(&h, &contestants, workload, args, &mut results);
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "kernel {}, cgroup {}, payload {payload}, {rules} seccomp names, {} rounds, crowd {}, load {}",
        kernel.trim(),
        match (place.v2, place.systemd) {
            (true, false) => "v2",
            (false, false) => "v1",
            (true, true) => "v2 by systemd",
            (false, true) => "v1 by systemd",
        },
        args.rounds,
        args.crowd,
        load.split(' ').next().unwrap_or_default()
    );
    print_times(&results, &contestants);
    if args.only.is_none() {
        trouble |= print_facts(&h, &contestants);
    }
    Ok(i32::from(trouble))
}

/// All rounds of one workload; a contestant that fails is reported and left out of the rest.
fn measure(
    h: &Harness,
    contestants: &[Contestant],
    w: &Workload,
    args: &Args,
    results: &mut Results,
) -> bool {
    let mut trouble = false;
    let mut live = Vec::new();
    for who in contestants {
        match (w.set_up)(h, who, args.crowd) {
            Ok(scene) => live.push((who, scene, true)),
            Err(e) => {
                eprintln!("{}: {}: {e:#}", w.name, who.name);
                trouble = true;
            }
        }
    }
    let rounds = (args.rounds / w.slow).max(2);
    let n = live.len().max(1);
    // Round 0 is the warm-up.
    for round in 0..=rounds {
        for turn in 0..live.len() {
            let turn = if round % 2 == 0 { turn } else { n - 1 - turn };
            let (who, scene, working) = &mut live[(turn + round) % n];
            if !*working {
                continue;
            }
            match (w.once)(h, who, scene) {
                Ok(rows) if round > 0 => {
                    rows.into_iter().for_each(|(row, cost)| results.add(row, who, cost))
                }
                Ok(_) => {}
                Err(e) => {
                    eprintln!("{}: {}: {e:#}", w.name, who.name);
                    (*working, trouble) = (false, true);
                }
            }
            guard::reap();
        }
    }
    for (who, scene, _) in &live {
        if let Err(e) = (w.tear_down)(h, who, scene) {
            eprintln!("{}: {}: {e:#}", w.name, who.name);
            trouble = true;
        }
    }
    trouble
}

/// The value at a fraction of the sorted list.
fn quantile(values: impl Iterator<Item = f64>, at: f64) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}

fn print_times(results: &Results, contestants: &[Contestant]) {
    let names = |name: &&str| contestants.iter().any(|c| c.name == *name);
    let references: Vec<&str> = ["crun", "runc"].into_iter().filter(names).collect();
    print!(
        "{:22} {:10} {:>3} {:>9} {:>9} {:>9}",
        "milliseconds", "", "n", "CPU", "wall p10", "median"
    );
    references.iter().for_each(|r| print!(" {:>9}", format!("CPU/{r}")));
    println!();
    for row in &results.rows {
        let median_cpu = |name: &str| -> Option<f64> {
            let costs = results.costs.get(&(*row, name.to_string()))?;
            Some(quantile(costs.iter().map(|c| c.cpu), 0.5))
        };
        for who in contestants {
            let Some(costs) = results.costs.get(&(*row, who.name.clone())) else { continue };
            let cpu = quantile(costs.iter().map(|c| c.cpu), 0.5);
            let wall = |at: f64| quantile(costs.iter().map(|c| c.wall), at);
            print!(
                "{row:22} {:10} {:3} {cpu:9.2} {:9.2} {:9.2}",
                who.name,
                costs.len(),
                wall(0.1),
                wall(0.5)
            );
            for reference in &references {
                match median_cpu(reference) {
                    Some(base) if base > 0.0 => print!(" {:9.2}", cpu / base),
                    _ => print!(" {:>9}", "-"),
                }
            }
            println!();
        }
    }
}

fn print_facts(h: &Harness, contestants: &[Contestant]) -> bool {
    let mut trouble = false;
    let mut table: Vec<(&str, &str, Vec<Option<f64>>)> = Vec::new();
    for (column, who) in contestants.iter().enumerate() {
        let facts = facts::collect(h, who).unwrap_or_else(|e| {
            eprintln!("counts: {}: {e:#}", who.name);
            trouble = true;
            Vec::new()
        });
        for (name, value, unit) in facts {
            let at = table.iter().position(|(n, _, _)| *n == name).unwrap_or_else(|| {
                table.push((name, unit, vec![None; contestants.len()]));
                table.len() - 1
            });
            table[at].2[column] = Some(value);
        }
    }
    print!("\n{:34}", "counts, docker-like");
    contestants.iter().for_each(|c| print!(" {:>10}", c.name));
    println!();
    for (name, unit, values) in table {
        print!(
            "{:34}",
            if unit.is_empty() { name.to_string() } else { format!("{name} ({unit})") }
        );
        for value in values {
            print!(" {:>10}", value.map_or_else(|| "-".to_string(), |v| format!("{v:.0}")));
        }
        println!();
    }
    trouble
}
