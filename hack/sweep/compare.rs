//! What a running container looks like from outside, as text lines that two runs can be compared by.
//!
//! Everything that must differ between two runs (ids, pids, inode and peer group numbers) is
//! replaced, so any other difference means that the container is not what was asked for.

use super::guard::Place;
use super::sys;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Lines of /proc/PID/status that depend on the configuration.
#[rustfmt::skip]
const STATUS: [&str; 22] = [
    "Umask", "Uid", "Gid", "Groups", "NStgid", "NSpid", "NSpgid", "NSsid", "Threads", "SigBlk", "SigIgn", "SigCgt", "CapInh",
    "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "Mems_allowed",
];

#[rustfmt::skip]
const CGROUP_FILES: [&str; 8] = [
    "memory.limit_in_bytes", "memory.max", "pids.max", "devices.list", "cpu.max", "cpuset.cpus", "freezer.state", "cgroup.freeze",
];

/// The lines that describe process `pid` as the init of container `id`.
pub fn fingerprint(place: &Place, id: &str, pid: i32) -> Result<Vec<String>> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let mut lines = Vec::new();
    status(&proc, &mut lines)?;
    for file in [
        "limits",
        "oom_score_adj",
        "cmdline",
        "environ",
        "personality",
        "coredump_filter",
        "attr/current",
    ] {
        let text = fs::read_to_string(proc.join(file))
            .unwrap_or_else(|e| format!("unreadable: {:?}", e.kind()));
        lines.extend(text.trim_end().lines().map(|l| format!("{file}: {}", l.replace('\0', " "))));
    }
    lines.push(format!("cwd: {}", link(&proc.join("cwd"))));
    lines.push(format!("exe: {}", link(&proc.join("exe"))));
    namespaces(&proc, &mut lines)?;
    descriptors(&proc, &mut lines)?;
    mounts(&proc, &mut lines)?;
    covers(&proc, &mut lines);
    devices(&proc.join("root/dev"), &mut lines);
    cgroups(place, &proc, &mut lines)?;
    inside(&proc, &mut lines)?;
    filters(pid, &mut lines);
    let (dir, prefix) = (place.dir.to_string_lossy(), &place.prefix);
    let clean =
        |l: &String| l.replace(id, "ID").replace(dir.as_ref(), "DIR").replace(prefix, "PREFIX");
    let own = format!("\t{pid}");
    Ok(lines.iter().map(|l| clean(l).replace(&own, "\tPID")).collect())
}

/// Lines of `now` that `reference` lacks, and the other way round. Lines in `noise` do not count.
pub fn diff(reference: &[String], now: &[String], noise: &BTreeSet<String>) -> Vec<String> {
    let only = |a: &[String], b: &[String], sign: &str| -> Vec<String> {
        let b: BTreeSet<_> = b.iter().collect();
        a.iter()
            .filter(|l| !b.contains(l) && !noise.contains(*l))
            .map(|l| format!("{sign} {l}"))
            .collect()
    };
    let mut out = only(reference, now, "-");
    out.extend(only(now, reference, "+"));
    out
}

/// What differs between two undisturbed runs.
pub fn noise(a: &[String], b: &[String]) -> BTreeSet<String> {
    let (x, y): (BTreeSet<_>, BTreeSet<_>) =
        (a.iter().cloned().collect(), b.iter().cloned().collect());
    x.symmetric_difference(&y).cloned().collect()
}

fn status(proc: &Path, lines: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(proc.join("status")).context("init is gone")?;
    let wanted = |l: &&str| l.split_once(':').is_some_and(|(key, _)| STATUS.contains(&key));
    lines.extend(text.lines().filter(wanted).map(str::to_string));
    Ok(())
}

fn link(path: &Path) -> String {
    fs::read_link(path)
        .map_or_else(|e| format!("unreadable: {:?}", e.kind()), |l| l.display().to_string())
}

/// Only which kinds differ from ours: the numbers are new every time.
fn namespaces(proc: &Path, lines: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(proc.join("ns"))? {
        let name = entry?.file_name();
        let (own, its) =
            (link(&Path::new("/proc/self/ns").join(&name)), link(&proc.join("ns").join(&name)));
        lines.push(format!(
            "ns {}: {}",
            name.to_string_lossy(),
            if own == its { "the host's" } else { "own" }
        ));
    }
    Ok(())
}

fn descriptors(proc: &Path, lines: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(proc.join("fd"))? {
        let entry = entry?;
        let target = link(&entry.path());
        // pipe:[123], socket:[123]
        let target = target.split('[').next().unwrap_or_default().to_string();
        let flags =
            fs::read_to_string(proc.join("fdinfo").join(entry.file_name())).unwrap_or_default();
        let flags =
            flags.lines().find(|l| l.starts_with("flags:")).unwrap_or_default().replace('\t', " ");
        lines.push(format!("fd {}: {target} {flags}", entry.file_name().to_string_lossy()));
    }
    Ok(())
}

/// What is at the masked and read-only paths: in the host's mount namespace no mountinfo tells.
fn covers(proc: &Path, lines: &mut Vec<String>) {
    use std::os::unix::fs::MetadataExt;
    for path in crate::bundle::MASKED.iter().chain(&crate::bundle::READONLY) {
        let there = proc.join("root").join(path.trim_start_matches('/'));
        let Ok(found) = fs::metadata(&there) else { continue };
        let entries = fs::read_dir(&there).map_or(0, Iterator::count);
        let readonly = nix::sys::statvfs::statvfs(&there)
            .is_ok_and(|fs| fs.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
        let empty = if entries == 0 { "empty" } else { "full" };
        lines.push(format!(
            "at {path}: {:o} {} {empty}, read-only {readonly}",
            found.mode(),
            found.rdev()
        ));
    }
}

/// Mount ids become positions in the list, anonymous device numbers and peer groups go.
fn mounts(proc: &Path, lines: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(proc.join("mountinfo"))?;
    let ids: Vec<&str> = text.lines().filter_map(|l| l.split(' ').next()).collect();
    for line in text.lines() {
        let mut fields: Vec<String> = line.split(' ').map(str::to_string).collect();
        if fields.len() < 7 {
            continue;
        }
        let parent = ids.iter().position(|id| *id == fields[1]);
        let parent =
            parent.map_or_else(|| "outside".to_string(), |at| mount_point(text.lines().nth(at)));
        if fields[2].starts_with("0:") {
            fields[2] = "0:*".into();
        }
        for field in fields.iter_mut().skip(6) {
            for tag in ["shared:", "master:", "propagate_from:"] {
                if field.starts_with(tag) {
                    *field = format!("{tag}*");
                }
            }
        }
        lines.push(format!("mount on {parent}: {}", fields[2..].join(" ")));
    }
    Ok(())
}

fn mount_point(line: Option<&str>) -> String {
    line.and_then(|l| l.split(' ').nth(4)).unwrap_or("?").to_string()
}

fn devices(dev: &Path, lines: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dev) else {
        return lines.push("dev: unreadable".into());
    };
    for entry in entries.flatten() {
        let Ok(m) = fs::symlink_metadata(entry.path()) else { continue };
        let what = if m.file_type().is_symlink() {
            link(&entry.path())
        } else if m.file_type().is_char_device() {
            format!("char {}:{}", libc::major(m.rdev()), libc::minor(m.rdev()))
        } else {
            "other".into()
        };
        lines.push(format!(
            "dev {}: {:o} {}:{} {what}",
            entry.file_name().to_string_lossy(),
            m.mode(),
            m.uid(),
            m.gid()
        ));
    }
}

fn cgroups(place: &Place, proc: &Path, lines: &mut Vec<String>) -> Result<()> {
    for line in fs::read_to_string(proc.join("cgroup"))?.lines() {
        // The number of a hierarchy is the same for both runs; the controller list names it.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        lines.push(format!("cgroup {controllers}: {path}"));
        for root in &place.cgroup_roots {
            let dir = root.join(path.trim_start_matches('/'));
            let name = root.file_name().unwrap_or_default().to_string_lossy();
            let belongs = controllers.split(',').any(|c| c.trim_start_matches("name=") == name)
                || (controllers.is_empty() && (place.v2 || name == "unified"));
            if belongs && path.contains(&place.prefix) {
                limits(&dir, lines);
            }
        }
    }
    Ok(())
}

fn limits(dir: &Path, lines: &mut Vec<String>) {
    for file in CGROUP_FILES {
        if let Ok(text) = fs::read_to_string(dir.join(file)) {
            lines.extend(text.lines().map(|l| format!("{file}: {l}")));
        }
    }
    if dir.join("cgroup.events").exists() {
        lines.push(format!("device programs: {}", sys::device_programs(dir).unwrap_or(-1)));
    }
}

/// Facts that need the container's namespaces: hostname, a sysctl, the loopback interface.
fn inside(proc: &Path, lines: &mut Vec<String>) -> Result<()> {
    lines.push(format!(
        "loopback up: {}",
        fs::read_to_string(proc.join("net/fib_trie"))?.contains("127.0.0.1")
    ));
    let kinds = [("uts", CloneFlags::CLONE_NEWUTS), ("ipc", CloneFlags::CLONE_NEWIPC)];
    for (name, kind) in kinds {
        let own = fs::File::open(format!("/proc/self/ns/{name}"))?;
        let its = fs::File::open(proc.join("ns").join(name))?;
        setns(&its, kind)?;
        let fact = match name {
            "uts" => nix::unistd::gethostname()
                .map(|h| h.to_string_lossy().into_owned())
                .map_err(anyhow::Error::from),
            _ => fs::read_to_string("/proc/sys/kernel/msgmax").map_err(anyhow::Error::from),
        };
        setns(&own, kind)?;
        lines.push(format!("{name}: {}", fact?.trim()));
    }
    Ok(())
}

/// The loaded seccomp programs, as a hash each: the number of filters alone would not show a
/// filter that lost a rule.
fn filters(pid: i32, lines: &mut Vec<String>) {
    match sys::seccomp_filters(pid) {
        Ok(all) => {
            for code in all {
                let hash = code
                    .iter()
                    .fold(0xcbf2_9ce4_8422_2325u64, |h, w| (h ^ w).wrapping_mul(0x0100_0000_01b3));
                lines.push(format!("seccomp filter: {} instructions, {hash:016x}", code.len()));
            }
        }
        Err(e) => lines.push(format!("seccomp filter: unreadable: {e}")),
    }
}

/// The command for `exec` that prints what the process got.
pub fn exec_command() -> Vec<String> {
    let script = "grep -E '^(Umask|Uid|Gid|Groups|Sig...|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Cpus_allowed):' /proc/self/status; \
                  cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj; env; pwd; hostname; \
                  for f in /proc/$$/fd/*; do readlink $f; done; for n in /proc/self/ns/*; do readlink $n; done";
    ["/bin/sh", "-c", script].map(str::to_string).to_vec()
}

/// Output of `exec_command` with what changes from container to container removed.
pub fn exec_lines(place: &Place, id: &str, text: &str) -> Vec<String> {
    let inode =
        |l: &str| l.rsplit_once(":[").map_or_else(|| l.to_string(), |(kind, _)| kind.to_string());
    // The leaf of a contained exec is named after its runtime.
    let leaf = |l: String| match l.find("onggi-exec-") {
        Some(at) if l.contains("::/") => format!("{}onggi-exec", &l[..at]),
        _ => l,
    };
    let lines = text.lines().map(inode).map(leaf);
    lines.map(|l| l.replace(id, "ID").replace(&place.prefix, "PREFIX")).collect()
}
