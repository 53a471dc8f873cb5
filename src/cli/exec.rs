//! `exec`

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use oci_spec::runtime::Process;

use super::{Globals, args};
use crate::cgroup::{Group, Mounts, SubCgroup};
use crate::container::{Container, Status};
use crate::error::{Code, Error, Finding, Findings, Result};
use crate::foreground::Foreground;
use crate::host::Host;
use crate::plan::exec::{ExecPlan, Kept, Overrides};
use crate::plan::listener::Listener;
use crate::plan::memory_policy::MemoryPolicy;
use crate::spawn::exec::{Contain, Deadline, Entry, Request};
use crate::{bundle, plan, seccomp, spawn, state, sys};

/// Largest kept filter, in bytes: 4096 instructions of 8.
const FILTER_MAX: usize = 4096 * 8;

/// `onggi exec`
pub fn exec(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let container = Container::open(&globals.root, &id)?;
    let entry = enter(matches, &container)?;
    let detach = args::is_on(matches, "detach");
    let (contain, deadline) = containment(matches, &container, detach)?;
    let (mut exec_plan, warnings) = read_and_plan(matches, &container)?;
    globals.log.warn(warnings);
    if exec_plan.process.terminal && !detach {
        exec_plan.process.size_as(Foreground::terminal_size());
    }
    terminal(&exec_plan, matches, detach)?;
    let request = Request {
        pid_file: args::path(matches, "pid-file")?,
        console_socket: args::path(matches, "console-socket")?,
        pidfd_socket: args::path(matches, "pidfd-socket")?,
        sub_cgroups: SubCgroup::read(&args::all(matches, "cgroup"))?,
        contain,
        deadline,
        inherited: args::inherited("exec", matches),
    };
    let foreground = if detach { None } else { Some(Foreground::begin()?) };
    let (created, contained) = spawn::exec::exec(&container, entry, &exec_plan, &request)?;
    globals.log.tell();
    let Some(foreground) = foreground else { return Ok(0) };
    sys::deadline::clear();
    let exit = foreground.wait_until(&created, deadline.map(|deadline| deadline.end));
    // One that cannot be waited for must not go on: its caller is told of a failure.
    let exit = exit.map_err(|error| match created.end() {
        Ok(()) => error,
        Err(left) => error.and(format_args!("ending it: {left}")),
    });
    let ended = contained.map_or(Ok(()), spawn::Contained::end);
    let exit = match (exit, ended) {
        (Ok(exit), ended) => ended.map(|()| exit)?,
        (Err(error), Ok(())) => return Err(error.into()),
        (Err(error), Err(left)) => return Err(error.and(left).into()),
    };
    match (exit, deadline) {
        (Some(exit), _) => Ok(u8::try_from(exit.status()).unwrap_or(1)),
        (None, Some(deadline)) => {
            sys::process::wait(created.pidfd.as_fd(), true)?;
            Err(deadline.error().into())
        }
        (None, None) => Ok(1),
    }
}

/// What is to be entered, if the container is in a state for it.
fn enter(matches: &ArgMatches, container: &Container) -> Result<Entry> {
    let mut mounts = Mounts::default();
    let look = container.look(&mut mounts)?;
    let refuse = |text: &str| Err(Error::text(Code::E_STATUS, text));
    match (look.status, look.init) {
        (Status::Stopped, _) | (_, None) => refuse("cannot exec in a stopped container"),
        (Status::Creating, _) => refuse("cannot exec in a container that is being created"),
        (Status::Paused, _) if !args::is_on(matches, "ignore-paused") => {
            refuse("cannot exec in a paused container (use --ignore-paused to override)")
        }
        (_, Some(init)) => {
            let group = container.cgroup_by(|record| Group::open_in(record, &mut mounts))?;
            Ok(Entry { init, group })
        }
    }
}

/// Whether the process gets a cgroup of its own, and when it is killed.
fn containment(
    matches: &ArgMatches,
    container: &Container,
    detach: bool,
) -> Result<(Option<Contain>, Option<Deadline>)> {
    let timeout = args::all(matches, "timeout").pop().map(|text| duration(&text)).transpose()?;
    let deadline = timeout.map(|timeout| Deadline { timeout, end: Instant::now() + timeout });
    let with_parent = args::is_on(matches, "die-with-parent");
    if detach && (with_parent || deadline.is_some()) {
        let text = "--timeout and --die-with-parent need a runtime that stays, not --detach";
        return Err(Error::text(Code::E_OPTION, text));
    }
    let contain = container.state.exec_contained
        || with_parent
        || deadline.is_some()
        || args::is_on(matches, "contain");
    let caller = if with_parent { Some(spawn::caller()?) } else { None };
    Ok((contain.then_some(Contain { caller }), deadline))
}

/// A number of seconds, or of what its unit says: `ms`, `s`, `m`, `h`.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => Some(1),
        "" | "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let millis = millis.zip(number.parse::<u64>().ok()).and_then(|(unit, n)| n.checked_mul(unit));
    // A year is longer than any runtime should wait, and far from where clocks overflow.
    match millis.filter(|millis| (1..=365 * 24 * 3_600_000).contains(millis)) {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => {
            let text = format!("--timeout: {text:?} is no time, such as 500ms, 10s, 2m, 1h");
            Err(Error::text(Code::E_OPTION, text))
        }
    }
}

fn terminal(plan: &ExecPlan, matches: &ArgMatches, detach: bool) -> Result<()> {
    let socket = args::last(matches, "console-socket").is_some();
    match (plan.process.terminal, detach, socket) {
        (true, true, false) => Err(Error::text(
            Code::E_CONSOLE_SOCKET,
            "cannot allocate tty if onggi will detach without setting console socket",
        )),
        (false, _, true) => Err(Error::text(
            Code::E_CONSOLE_SOCKET,
            "cannot use console socket if onggi will not allocate tty",
        )),
        _ => Ok(()),
    }
}

fn read_and_plan(matches: &ArgMatches, container: &Container) -> Result<(ExecPlan, Vec<Finding>)> {
    let user = spawn::exec::has_user_namespace(container.pid())?;
    let host = Host::for_exec()?.inside(user);
    let seccomp = filter(container)?;
    let notified = seccomp.as_ref().is_some_and(|program| program.notify);
    let policy = container.state.memory_policy.clone();
    let kept = Kept {
        listener: if notified { listener(container, &host)? } else { None },
        seccomp,
        keyring: container.state.keyring,
        personality: container.state.personality,
        keep_groups: container.state.keep_groups,
        memory_policy: policy.map(|(mode, nodes)| MemoryPolicy { mode, nodes }),
    };
    if let Some(file) = args::path(matches, "process")? {
        let (mut process, mut warnings) = bundle::parse::<Process>(&bundle::read(&file)?)?;
        if plan::exec::lacks_confinement(&process, &host) {
            let (spec, _) = bundle::config(&container.config()?)?;
            plan::exec::confine(&mut process, spec.process.as_ref());
        }
        let (plan, more) = plan::exec::plan(&process, None, &host, kept)?;
        warnings.extend(more);
        return Ok((plan, warnings));
    }
    let overrides = overrides(matches)?;
    let (spec, mut warnings) = bundle::config(&container.config()?)?;
    let process = spec.process.clone().unwrap_or_default();
    let (plan, more) = plan::exec::plan(&process, Some(&overrides), &host, kept)?;
    warnings.extend(more);
    Ok((plan, warnings))
}

/// The agent of the container's filter.
fn listener(container: &Container, host: &Host) -> Result<Option<Listener>> {
    let (spec, _) = bundle::config(&container.config()?)?;
    let profile = spec.linux.as_ref().and_then(|linux| linux.seccomp().as_ref());
    let mut findings = Findings::default();
    let listener = profile.and_then(|profile| {
        plan::listener::plan(profile, &container.state.bundle, host, &mut findings)
    });
    findings.finish()?;
    Ok(listener)
}

/// The container's own filter, as create compiled it.
fn filter(container: &Container) -> Result<Option<seccomp::Program>> {
    let Some(flags) = container.state.seccomp_flags else { return Ok(None) };
    let bytes = state::read_file(container.dir.as_fd(), c"seccomp.bpf", FILTER_MAX)?;
    // Without its filter a process would be weaker than its container: no container, then.
    let program = seccomp::from_bytes(&bytes, flags);
    program
        .map(Some)
        .ok_or_else(|| Error::text(Code::E_STATE_DAMAGED, "the kept seccomp filter is damaged"))
}

fn overrides(matches: &ArgMatches) -> Result<Overrides> {
    let command = matches.get_many::<String>("command").into_iter().flatten().cloned().collect();
    let groups = args::all(matches, "additional-gids")
        .iter()
        .map(|text| number("--additional-gids", text))
        .collect::<Result<_>>()?;
    // As for runc: an empty value, such as of a variable that is not set, asks for nothing. An empty profile or
    // label in particular must not take the container's away.
    let text = |name: &str| args::all(matches, name).pop().filter(|text| !text.is_empty());
    Ok(Overrides {
        args: command,
        cwd: text("cwd"),
        env: args::all(matches, "env"),
        user: text("user").map(|user| parse_user(&user)).transpose()?,
        groups,
        caps: args::all(matches, "cap"),
        no_new_privs: args::is_on(matches, "no-new-privs"),
        apparmor: text("apparmor"),
        label: text("process-label"),
        tty: args::is_on(matches, "tty"),
    })
}

/// `UID[:GID]`, digits only: nothing is looked up, nothing is guessed (CVE-2026-30892).
fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Ok((number("--user", text)?, None)),
        Some((uid, gid)) => Ok((number("--user", uid)?, Some(number("--user", gid)?))),
    }
}

/// A decimal number as it is written back: no sign, no blank, no leading zero, no 2^32-1.
fn number(option: &str, text: &str) -> Result<u32> {
    match text.parse::<u32>() {
        Ok(number) if number.to_string() == text && number != u32::MAX => Ok(number),
        _ => Err(Error::text(Code::E_OPTION, format!("{option}: {text:?} is no user or group id"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit_or_are_seconds() {
        let parse = |text: &str| duration(text).ok().map(|time| time.as_millis());
        assert_eq!(parse("5"), Some(5000));
        assert_eq!(parse("500ms"), Some(500));
        assert_eq!(parse("10s"), Some(10_000));
        assert_eq!(parse("2m"), Some(120_000));
        assert_eq!(parse("1h"), Some(3_600_000));
        for bad in ["", "0", "0s", "-1", "1.5s", "s", "5 s", "5d", "1m30s", "99999999999999999999"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn t21_user_is_exact_or_refused() {
        let parse = |text: &str| parse_user(text).ok();
        assert_eq!(parse("0"), Some((0, None)));
        assert_eq!(parse("1"), Some((1, None)));
        assert_eq!(parse("1:2"), Some((1, Some(2))));
        assert_eq!(parse("4294967294"), Some((4_294_967_294, None)));
        for bad in [
            "01",
            "+1",
            "-1",
            "",
            ":",
            "1:",
            ":1",
            "4294967295",
            "4294967296",
            "0x1",
            " 1",
            "1 ",
            "root",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
