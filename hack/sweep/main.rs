//! sweep: fails, or kills at, every system call of a container command, and looks what is left.
//!
//!     sweep [--runtime PATH] [--verb create] [--mode fail|kill|kill-task|both|all]
//!           [--errnos usual,ENOMEM,EPERM,...] [--every K] [--sample N [--seed S]] [--from N] [--to N]
//!           [--userns] [--host-mounts] [--cgroup host|v1|v2|systemd] [--cgroup2] [--recreate] [--busybox PATH] [--verbose]
//!
//! One run counts the system calls of the whole process tree (the runtime, its children, hooks and
//! the container's init up to the payload; memory, signal and thread housekeeping left out). Then
//! for each N the command runs again and its N-th call
//!   fail       is not made and returns an errno, the usual one of that call or each of --errnos;
//!   kill       is where the runtime's main process gets SIGKILL;
//!   kill-task  is where the process that makes the call gets SIGKILL (the init, a hook).
//! `both` is fail and kill. Afterwards state directory, cgroups, mounts, processes and files are
//! compared with before, `delete --force` must return 0 and leave nothing, and the same id must be
//! usable again (every tenth point, with --recreate every point). If the command returned 0 all
//! the same, the container must be identical to an undisturbed one.
//!
//! Verbs: create run start state exec exec-contained update pause resume kill delete delete-force (update needs
//! the pids controller). "init died later, said so" counts runs that returned 0 although a call of
//! the waiting init failed or the init was killed: `state` says stopped, so that is not a lie.
//! --userns gives the container a user namespace whose ids are 100000 and on; --host-mounts leaves it in the
//! mount namespace of the host.
//! --cgroup v2 (or --cgroup2) puts a fresh cgroup2 mount over /sys/fs/cgroup, v1 hides the unified
//! hierarchy of a hybrid host; both in a private mount namespace. --cgroup systemd has systemd make
//! scopes, whose units are looked for, too. Needs root and a static busybox.
//! Prints bad points (with --verbose all), a table and `N passed, N failed`; exit status 1 if any failed.

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

mod bundle;
mod compare;
mod guard;
mod host;
#[allow(dead_code)] // the benchmark uses the rest
mod names;
mod point;
mod report;
mod runtime;
#[allow(dead_code)] // the benchmark uses the rest
mod sys;
#[allow(dead_code)] // the benchmark uses the rest
mod trace;
mod verbs;

use anyhow::{Context, Result, bail};
use guard::{Cgroup, Place};
use std::path::PathBuf;
use std::time::Instant;
use trace::Act;

struct Args {
    runtime: String,
    verb: verbs::Verb,
    modes: Vec<&'static str>,
    errnos: Vec<Option<i32>>,
    every: u64,
    sample: Option<u64>,
    seed: u64,
    from: u64,
    to: u64,
    userns: bool,
    host_mounts: bool,
    cgroup: Cgroup,
    recreate: bool,
    busybox: PathBuf,
    verbose: bool,
}

fn main() {
    let result = parse(std::env::args().skip(1)).and_then(|args| {
        let cgroup = args.cgroup;
        guard::guarded("onggi-sweep", cgroup, move |place| sweep(place, &args))
    });
    std::process::exit(result.unwrap_or_else(|e| {
        eprintln!("sweep: {e:#}");
        2
    }));
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
    let mut args = Args {
        runtime: "onggi".into(),
        verb: verbs::Verb::named("create")?,
        modes: vec!["fail", "kill"],
        errnos: vec![None],
        every: 1,
        sample: None,
        seed: 1,
        from: 1,
        to: u64::MAX,
        userns: false,
        host_mounts: false,
        cgroup: Cgroup::Host,
        recreate: false,
        busybox: "/bin/busybox".into(),
        verbose: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--runtime" => args.runtime = value()?,
            "--verb" => args.verb = verbs::Verb::named(&value()?)?,
            "--mode" => args.modes = modes(&value()?)?,
            "--errnos" => args.errnos = errnos(&value()?)?,
            "--every" => args.every = value()?.parse::<u64>()?.max(1),
            "--sample" => args.sample = Some(value()?.parse()?),
            "--seed" => args.seed = value()?.parse()?,
            "--from" => args.from = value()?.parse::<u64>()?.max(1),
            "--to" => args.to = value()?.parse()?,
            "--cgroup" => args.cgroup = value()?.parse()?,
            "--userns" => args.userns = true,
            "--host-mounts" => args.host_mounts = true,
            "--cgroup2" => args.cgroup = Cgroup::V2,
            "--recreate" => args.recreate = true,
            "--busybox" => args.busybox = value()?.into(),
            "--verbose" => args.verbose = true,
            _ => bail!("unknown option {word}; the head of main.rs lists them"),
        }
    }
    Ok(args)
}

fn modes(name: &str) -> Result<Vec<&'static str>> {
    Ok(match name {
        "fail" => vec!["fail"],
        "kill" => vec!["kill"],
        "kill-task" => vec!["kill-task"],
        "both" => vec!["fail", "kill"],
        "all" => vec!["fail", "kill", "kill-task"],
        _ => bail!("--mode {name}: fail, kill, kill-task, both or all"),
    })
}

fn errnos(list: &str) -> Result<Vec<Option<i32>>> {
    let one = |name: &str| match name {
        "usual" => Ok(None),
        _ => names::errno(name).map(Some).with_context(|| format!("--errnos: unknown {name}")),
    };
    list.split(',').map(one).collect()
}

/// Which calls are disturbed.
fn points(args: &Args, counted: u64) -> Vec<u64> {
    let mut all: Vec<u64> =
        (args.from..=args.to.min(counted)).step_by(args.every as usize).collect();
    let Some(n) = args.sample else { return all };
    // A partial shuffle with xorshift: the same seed gives the same points.
    let mut x = args.seed.max(1);
    let n = (n as usize).min(all.len());
    for i in 0..n {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let j = i + (x % (all.len() - i) as u64) as usize;
        all.swap(i, j);
    }
    all.truncate(n);
    all.sort_unstable();
    all
}

fn acts(args: &Args, mode: &str) -> Vec<Act> {
    match mode {
        "kill" => vec![Act::KillMain],
        "kill-task" => vec![Act::KillTask],
        _ => args.errnos.iter().map(|e| Act::Fail(*e)).collect(),
    }
}

fn sweep(place: &Place, args: &Args) -> Result<i32> {
    let bundle = bundle::make(place, &args.busybox, (args.userns, args.host_mounts))?;
    let runtime = runtime::Runtime::new(place, &args.runtime, bundle)?;
    warm_up(&runtime)?;
    let host = host::Host::baseline(place)?;
    let sweeper = point::Sweeper { runtime: &runtime, host: &host, verb: args.verb };
    let reference = sweeper.reference()?;
    let points = points(args, reference.counted);
    println!(
        "{} {}: {} calls counted, {} points",
        args.runtime,
        args.verb.name,
        reference.counted,
        points.len()
    );
    reference.noise.iter().for_each(|line| println!("not compared, varies: {line}"));
    let mut columns = Vec::new();
    for mode in &args.modes {
        let begin = Instant::now();
        let mut tally = report::Tally::default();
        for (i, at) in points.iter().enumerate() {
            for act in acts(args, mode) {
                let id = format!("{}-{mode}-{at}", args.verb.name);
                let recreate = args.recreate || i % 10 == 0;
                let verdict = sweeper.run(&reference, &id, *at, act, recreate);
                let verdict = verdict.with_context(|| format!("{mode} {at}"))?;
                tally.add(act, verdict.as_ref());
                if let Some(v) = &verdict {
                    report::point(mode, *at, act, v, args.verbose);
                }
            }
        }
        println!("{mode}: {:.0} s", begin.elapsed().as_secs_f32());
        columns.push(((*mode).to_string(), tally));
    }
    report::table(&columns);
    let (passed, failed) =
        columns.iter().fold((0, 0), |(p, f), (_, t)| (p + t.passed(), f + t.bad));
    println!("{passed} passed, {failed} failed");
    Ok(i32::from(failed > 0))
}

/// Lets the runtime make what it keeps between containers (caches, parent cgroups, mount points).
fn warm_up(runtime: &runtime::Runtime) -> Result<()> {
    runtime.prepare("warm-up", verbs::Stage::Running)?;
    let said = runtime.command(&["delete", "--force", "warm-up"])?;
    if said.code != Some(0) {
        bail!("undisturbed delete --force: code {:?}: {}", said.code, said.stderr.trim());
    }
    guard::kill_descendants();
    Ok(())
}
