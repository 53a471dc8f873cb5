//! The command line: parse, dispatch, print one error, choose the exit code.
//!
//! Owns: options, texts and exit codes that engines rely on. Must not: do anything a command does.

mod args;
mod check;
mod create;
mod duration;
mod events;
mod exec;
mod features;
mod freeze;
mod gc;
mod host_report;
mod kill;
#[cfg(test)]
mod manual;
mod options;
mod query;
mod spec;
mod stats;
mod update;

#[cfg(test)]
pub use spec::default_config;

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::ArgMatches;

use crate::cgroup::Manager;
use crate::error::{Code, Error, Finding, Result};
use crate::host::{CAP_SYS_ADMIN, Host};
use crate::log::{Level, Log};
use crate::{bundle, spawn, sys};

/// Exit status of `exec` that failed before there was a process.
const EXEC_FAILED: u8 = 255;

/// Exit status of `exec` whose `--timeout` is over: that of timeout(1).
const EXEC_TIMED_OUT: u8 = 124;

/// What every command gets.
#[derive(Debug)]
pub struct Globals {
    /// The state root, absolute.
    pub root: PathBuf,
    /// Whether `--root` was given.
    pub root_given: bool,
    /// The log.
    pub log: Log,
    /// How create makes cgroups.
    pub manager: Manager,
    /// `--rootless`, or found out: errors of cgroups that we may not make are let pass.
    pub rootless: bool,
}

impl Globals {
    /// How create makes cgroups.
    pub fn cgroup_options(&self, host: &Host) -> Result<crate::cgroup::Options> {
        Ok(crate::cgroup::Options {
            manager: self.manager,
            no_mknod: false,
            // Whoever may administer the host must not lose device rules to a flag.
            rootless: self.rootless
                && (host.user_namespace || host.capabilities & CAP_SYS_ADMIN == 0),
            user: has_own_systemd(host),
            uid: outside_uid(host)?,
        })
    }
}

/// Whether the systemd driver asks a user's own systemd. Root of somebody else's user namespace (rootless
/// podman, buildah) is told where that somebody's is; root of a whole system in a user namespace is not:
/// engines of root leave these variables unset or empty.
fn has_own_systemd(host: &Host) -> bool {
    let told = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let user = host.user_namespace && (told("DBUS_SESSION_BUS_ADDRESS") || told("XDG_RUNTIME_DIR"));
    host.euid != 0 || user
}

/// The caller's uid as that systemd knows it.
fn outside_uid(host: &Host) -> Result<u32> {
    if !host.user_namespace {
        return Ok(host.euid);
    }
    let own = spawn::userns::maps_of_process(std::process::id().cast_signed())?;
    Ok(own.host_uid(host.euid).unwrap_or(host.euid))
}

/// The whole program: takes its arguments and returns its exit status.
#[must_use]
pub fn main(argv: Vec<OsString>) -> u8 {
    let argv: Vec<_> = argv.into_iter().map(OsStringExt::into_vec).collect();
    let args = args::normalize(argv.iter().skip(1).cloned().collect());
    let command = args::command_of(&args).unwrap_or_default();
    let sealed = if args::enters_container(&command) {
        spawn::seal::ensure(argv)
    } else {
        spawn::seal::refuse_set_id()
    };
    if let Err(error) = sealed {
        return refuse(&command, args, error);
    }
    let matches = match args::parse(&command, args) {
        Ok(matches) => matches,
        Err(args::Stop::Printed) => return 0,
        Err(args::Stop::Usage(text, log)) => {
            let log = log.unwrap_or_default();
            return fail(&log, &command, "", &Error::text(Code::E_USAGE, text).into());
        }
    };
    // What it holds goes with the process.
    run(&command, &ManuallyDrop::new(matches))
}

/// The command line has not been read yet, but who has named a log looks only there. With the rights of somebody
/// else no file is opened for the caller.
fn refuse(command: &str, args: Vec<OsString>, error: Error) -> u8 {
    let mut log = Log::default();
    let mut id = String::new();
    if error.code() != Code::E_SET_ID {
        match args::parse(command, args) {
            Ok(matches) => {
                if let Some((_, sub)) = matches.subcommand() {
                    id = args::optional_id(sub).unwrap_or_default();
                    log = open_log(&matches, sub).unwrap_or_default();
                }
            }
            Err(args::Stop::Usage(_, named)) => log = named.unwrap_or_default(),
            Err(args::Stop::Printed) => {}
        }
    }
    fail(&log, command, &id, &error.into())
}

fn run(command: &str, matches: &ArgMatches) -> u8 {
    let Some((_, sub)) = matches.subcommand() else { return 1 };
    let id = args::optional_id(sub).unwrap_or_default();
    let log = match open_log(matches, sub) {
        Ok(log) => log,
        Err(error) => return fail(&Log::default(), command, &id, &error.into()),
    };
    let globals = match globals(matches, sub) {
        Ok(globals) => Globals { log, ..globals },
        Err(error) => return fail(&log, command, &id, &error.into()),
    };
    match duration::option(sub, "deadline").and_then(|deadline| match deadline {
        None => duration::option(matches, "deadline"),
        given => Ok(given),
    }) {
        Ok(Some(deadline)) => sys::deadline::set(deadline),
        Ok(None) => {}
        Err(error) => return fail(&globals.log, command, &id, &error.into()),
    }
    if text_given(matches, sub, "criu") {
        let text = "has no effect: criu is found in PATH";
        globals.log.warn(vec![Finding::new(Code::W_OPTION_IGNORED, "--criu", text)]);
    }
    // features prints nothing but its document, to either stream: CRI-O parses both together.
    if command != "features" {
        globals.log.debug(|| format!("{command} {id}"));
    }
    let done = match command {
        "create" => create::create(&globals, sub),
        "run" => create::run(&globals, sub),
        "start" => create::start(&globals, sub),
        "exec" => exec::exec(&globals, sub),
        "state" => query::state(&globals, sub),
        "list" => query::list(&globals, sub),
        "ps" => query::ps(&globals, sub),
        "pause" => freeze::pause(&globals, sub),
        "resume" => freeze::resume(&globals, sub),
        "update" => update::update(&globals, sub),
        "events" => events::events(&globals, sub),
        "stats" => stats::stats(&globals, sub),
        "gc" => gc::gc(&globals, sub),
        "kill" => kill::kill(&globals, sub),
        "delete" => kill::delete(&globals, sub),
        "spec" => spec::spec(sub),
        "features" => features::features(),
        "check" => check::check(&globals, sub),
        other => Err(Error::text(Code::E_USAGE, format!("no such command: {other}")).into()),
    };
    match done {
        Ok(code) => {
            if command != "features" {
                globals.log.tell();
            }
            code
        }
        Err(error) => fail(&globals.log, command, &id, &error),
    }
}

fn text_given(matches: &ArgMatches, sub: &ArgMatches, name: &str) -> bool {
    args::global(matches, sub, name).is_some_and(|text| !text.is_empty())
}

/// One error, once.
fn fail(log: &Log, command: &str, id: &str, error: &anyhow::Error) -> u8 {
    let place = if id.is_empty() { command.to_owned() } else { format!("{command} {id}") };
    log.error(&place, error);
    let cause = error.downcast_ref::<Error>().map(Error::code);
    match (command, cause) {
        ("exec", Some(Code::E_EXEC_TIMEOUT)) => EXEC_TIMED_OUT,
        ("exec", _) => EXEC_FAILED,
        _ => 1,
    }
}

fn open_log(matches: &ArgMatches, sub: &ArgMatches) -> Result<Log> {
    // An unexpected descriptor of the caller (a shim's socket) is nobody's business here.
    let ours = 3 + args::inherited(matches.subcommand_name().unwrap_or_default(), sub);
    sys::exec::close_range(ours, u32::MAX)?;
    if ours > 3 {
        occupy_holes(ours)?;
    }
    let path = args::global(matches, sub, "log").filter(|path| !path.is_empty());
    let path = path.map(|path| bundle::absolute(path.as_ref())).transpose()?;
    let format = args::global(matches, sub, "log-format").unwrap_or_else(|| "text".to_owned());
    let level = match args::global(matches, sub, "log-level") {
        _ if args::global_flag(matches, sub, "debug") => Level::Debug,
        None => Level::default(),
        Some(name) => Level::from_name(&name).ok_or_else(|| {
            let text = format!("--log-level: {name:?} is none of error, warning, debug");
            Error::text(Code::E_OPTION, text)
        })?,
    };
    Log::open(path.as_deref(), &format, level)
}

/// Numbers that the caller preserves and has nothing at (podman may leave some) are taken until execve: one of
/// ours there, of a directory of the host, would be passed over when ours are closed (CVE-2024-21626).
fn occupy_holes(ours: u32) -> Result<()> {
    loop {
        // The lowest free number (open(2)).
        let null = sys::fs::open(c"/dev/null", libc::O_PATH)?;
        if null.as_raw_fd().cast_unsigned() >= ours {
            return Ok(());
        }
        std::mem::forget(null);
    }
}

/// The global options, but for the log.
fn globals(matches: &ArgMatches, sub: &ArgMatches) -> Result<Globals> {
    let text = |name: &str| args::global(matches, sub, name);
    let systemd = args::global_flag(matches, sub, "systemd-cgroup");
    let manager = match text("cgroup-manager").as_deref() {
        None | Some("cgroupfs") if !systemd => Manager::Cgroupfs,
        None | Some("cgroupfs" | "systemd") => Manager::Systemd,
        Some("disabled") => Manager::Disabled,
        Some(other) => {
            let text =
                format!("--cgroup-manager: {other:?} is none of cgroupfs, systemd, disabled");
            return Err(Error::text(Code::E_OPTION, text));
        }
    };
    let euid = sys::cred::euid();
    let rootless = match text("rootless").as_deref() {
        None | Some("auto") => euid != 0 || in_user_namespace(),
        Some("true") => true,
        Some("false") => false,
        Some(other) => {
            let text = format!("--rootless: {other:?} is none of auto, true, false");
            return Err(Error::text(Code::E_OPTION, text));
        }
    };
    let given = text("root").filter(|root| !root.is_empty());
    let root_given = given.is_some();
    let root = match given {
        Some(root) => bundle::absolute(root.as_ref())?,
        None => default_root(euid),
    };
    if root == std::path::Path::new("/") {
        return Err(Error::text(Code::E_STATE_ROOT, "--root: / is refused"));
    }
    Ok(Globals { root, root_given, log: Log::default(), manager, rootless })
}

/// `/run/onggi`, or below the user's runtime directory; an empty variable counts as unset (podman).
fn default_root(euid: u32) -> PathBuf {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    // Root of a user namespace is a user without rights to the host, unless it says that it is root
    // (runc's rule: podman and buildah rely on it).
    let user = || {
        euid != 0
            || (std::env::var_os("USER").is_none_or(|user| user != "root") && in_user_namespace())
    };
    match runtime_dir {
        Some(dir) if user() => PathBuf::from(dir).join("onggi"),
        _ => PathBuf::from("/run/onggi"),
    }
}

/// Where /proc cannot be read nothing of all this will work; the command says so.
fn in_user_namespace() -> bool {
    crate::host::in_user_namespace().unwrap_or(false)
}

/// Writes to stdout; a reader that has gone away is no error of ours to explain.
pub(crate) fn print(text: &str) -> Result<()> {
    match sys::fs::inherited(1) {
        Some(stdout) => Ok(sys::fs::write_all(stdout, text.as_bytes())?),
        None => Ok(()),
    }
}
