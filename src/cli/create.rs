//! `create`, `run` and `start`.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::{Value, json};

use super::{Globals, args};
use crate::container::{Container, Status};
use crate::error::{Code, Error, Finding, NOT_RUNNING, Result};
use crate::foreground::Foreground;
use crate::host::Host;
use crate::plan::{self, Options, Plan};
use crate::sd_notify::{self, Proxy};
use crate::spawn::protocol::Failure;
use crate::spawn::{self, Created, Request};
use crate::{bundle, delete, hooks, sys};

/// How long an init that has told why it could not start may take to end, in ms.
const LAST_WORDS_MS: i32 = 10_000;

/// A container's configuration, planned.
struct Planned {
    host: Host,
    plan: Plan,
    config: Vec<u8>,
    oci_version: String,
    annotations: Value,
}

/// `onggi create`
pub fn create(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    // What is left of all this goes with the process, in a moment.
    let planned = ManuallyDrop::new(read_and_plan(globals, matches, true)?);
    std::mem::forget(make(globals, matches, &planned, true)?);
    Ok(0)
}

/// `onggi run`
pub fn run(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let detach = args::is_on(matches, "detach");
    let planned = read_and_plan(globals, matches, detach)?;
    let foreground = if detach { None } else { Some(Foreground::begin()?) };
    let (created, container) = make(globals, matches, &planned, false)?;
    let proxy = match start_created(&container, &created, &planned.plan) {
        Ok(proxy) => proxy,
        Err(error) => return Err(also_delete(globals, &container, error).into()),
    };
    globals.log.tell();
    let Some(foreground) = foreground else {
        wait_for_ready(globals, proxy.as_ref(), &created.pidfd);
        return Ok(0);
    };
    sys::deadline::clear();
    let exit = match foreground.wait(&created, proxy) {
        Ok(exit) => exit,
        Err(error) => return Err(also_delete(globals, &container, error).into()),
    };
    if !args::is_on(matches, "keep") {
        // The container's status is what the caller waits for, whatever becomes of its traces.
        globals.log.warn(delete::delete_own(&globals.root, &container).unwrap_or_else(|left| {
            vec![Finding::new(Code::E_DELETE, "", format!("{}: {left}", container.state.id))]
        }));
    }
    Ok(u8::try_from(exit.status()).unwrap_or(1))
}

/// `onggi start`
pub fn start(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let container = Container::open(&globals.root, &id)?;
    let (init, opened) = {
        let _lock = container.lock()?;
        let look = container.look(&mut crate::cgroup::Mounts::default())?;
        let (Status::Created, Some(gate), Some(init)) = (look.status, look.gate, look.init) else {
            return Err(not_startable(look.status).into());
        };
        (init, open_gate(&container, &gate)?)
    };
    let proxy = see_started(&container, &init, opened, None)?;
    wait_for_ready(globals, proxy.as_ref(), &init);
    Ok(0)
}

/// The same for a container that this process has just created: nobody else has seen it wait.
fn start_created(container: &Container, created: &Created, plan: &Plan) -> Result<Option<Proxy>> {
    let opened = {
        let _lock = container.lock()?;
        match container.gate()? {
            Some(gate) => open_gate(container, &gate)?,
            None => return Err(not_startable(container.status()?)),
        }
    };
    see_started(container, &created.pidfd, opened, Some(plan))
}

/// Stays until the container says that it is ready, or has ended. It runs by now: what fails is told, and
/// no more.
fn wait_for_ready(globals: &Globals, proxy: Option<&Proxy>, init: &OwnedFd) {
    if let Some(Err(error)) = proxy.map(|proxy| proxy.wait(init.as_fd())) {
        globals.log.warn(vec![Finding::new(Code::W_NOTIFY, "NOTIFY_SOCKET", error)]);
    }
}

fn also_delete(globals: &Globals, container: &Container, error: Error) -> Error {
    sys::deadline::clear();
    match delete::delete_own(&globals.root, container) {
        Ok(_) => error,
        Err(left) => error.and(format_args!("deleting: {left}")),
    }
}

fn read_and_plan(globals: &Globals, matches: &ArgMatches, detach: bool) -> Result<Planned> {
    let id = args::optional_id(matches).unwrap_or_default();
    plan::check::container_id(&id).map_err(|text| Error::text(Code::E_ID_INVALID, text))?;
    if let Some(text) = args::last(matches, "preserve-fds") {
        let text = text.to_string_lossy();
        if text.parse::<u16>().is_err() {
            return Err(Error::text(
                Code::E_OPTION,
                format!("--preserve-fds: {text:?} is no number of descriptors"),
            ));
        }
    }
    let bundle_dir =
        args::path(matches, "bundle")?.map_or_else(|| bundle::absolute(Path::new("")), Ok)?;
    let name =
        args::last(matches, "config").map_or_else(|| PathBuf::from("config.json"), PathBuf::from);
    let config = bundle::read(&bundle_dir.join(name))?;
    let (spec, warnings) = bundle::config(&config)?;
    globals.log.warn(warnings);
    let host = Host::gather()?;
    let options = Options {
        no_pivot: args::is_on(matches, "no-pivot"),
        no_new_keyring: args::is_on(matches, "no-new-keyring"),
        cgroup: globals.cgroup_options(&host)?,
        console_socket: args::last(matches, "console-socket").is_some(),
        notify: sd_notify::wanted().is_some(),
        detach,
    };
    let (mut plan, warnings) = plan::create(&id, &spec, &bundle_dir, &host, &options)?;
    globals.log.warn(warnings);
    if let (false, Some(process)) = (detach, &mut plan.process) {
        process.size_as(Foreground::terminal_size());
    }
    let oci_version = spec.oci_version.clone();
    let annotations = spec.annotations.as_ref().map_or_else(|| json!({}), |map| json!(map));
    // The parsed configuration is not needed any more, and the child would inherit a copy of it.
    drop(spec);
    Ok(Planned { host, plan, config, oci_version, annotations })
}

fn make(
    globals: &Globals,
    matches: &ArgMatches,
    planned: &Planned,
    waits: bool,
) -> Result<(Created, Container)> {
    let request = Request {
        root: &globals.root,
        config: &planned.config,
        oci_version: &planned.oci_version,
        annotations: &planned.annotations,
        pid_file: args::path(matches, "pid-file")?,
        console_socket: args::path(matches, "console-socket")?,
        pidfd_socket: args::path(matches, "pidfd-socket")?,
        waits,
        inherited: args::inherited("create", matches),
        extra_env: listen_env(),
    };
    spawn::create(&planned.plan, &planned.host, &request)
}

/// What tells the container of descriptors meant for it (sd_listen_fds(3)); it will be pid 1.
fn listen_env() -> Vec<String> {
    match args::listen_fds() {
        0 => Vec::new(),
        count => {
            let mut env = vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
            env.extend(
                std::env::var("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")),
            );
            env
        }
    }
}

/// Why a container in this state is not started.
fn not_startable(status: Status) -> Error {
    Error::text(
        Code::E_STATUS,
        match status {
            Status::Stopped => "cannot start a container that has stopped",
            Status::Running => "cannot start an already running container",
            Status::Paused => "cannot start a paused container",
            Status::Creating => "cannot start a container that is being created",
            Status::Created => NOT_RUNNING,
        },
    )
}

/// Lets init go on, under the container's lock. Where it will tell what fails, and who speaks for it.
fn open_gate(container: &Container, gate: &OwnedFd) -> Result<(OwnedFd, Option<Proxy>)> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let failures = sys::fs::openat(container.dir.as_fd(), c"error", flags, 0)?;
    let proxy = Proxy::listen(container)?;
    sys::fs::write_all(gate.as_fd(), b"1")?;
    // From here on it counts as running: nobody else can start it.
    sys::fs::unlinkat(container.dir.as_fd(), c"gate", 0)?;
    Ok((failures, proxy))
}

/// Waits until init has become the program, runs the poststart hooks. With a plan at hand the hooks are
/// taken from it, else from the kept configuration.
fn see_started(
    container: &Container,
    init: &OwnedFd,
    (failures, proxy): (OwnedFd, Option<Proxy>),
    plan: Option<&Plan>,
) -> Result<Option<Proxy>> {
    if let Some(failure) = read_failure(&failures)? {
        // Its last words are followed by its end, and until then it would be taken for running.
        return Err(match sys::fs::poll(&[(init.as_fd(), libc::POLLIN)], LAST_WORDS_MS) {
            Ok(_) => failure,
            Err(error) => failure.and(format_args!("waiting for its end: {error}")),
        });
    }
    poststart(container, plan).map(|()| proxy).map_err(|error| {
        // The spec wants the container stopped when a poststart hook fails (runtime.md, 1.3).
        match delete::kill(container, libc::SIGKILL, false) {
            Ok(()) => error,
            Err(stopped) if stopped.to_string() == NOT_RUNNING => error,
            Err(left) => error.and(format_args!("stopping it: {left}")),
        }
    })
}

/// Reads what init says until its end of the FIFO closes: nothing, if execve succeeded, even when the
/// program has ended already. That it could not be read says nothing of init.
fn read_failure(failures: &OwnedFd) -> Result<Option<Error>> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        match sys::fs::read(failures.as_fd(), &mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.errno == libc::EAGAIN => {
                match sys::fs::poll(&[(failures.as_fd(), libc::POLLIN)], -1) {
                    Err(error) if error.errno == libc::EINTR => {}
                    result => drop(result?),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(match Failure::decode(&bytes) {
        Some(failure) => Error::text(failure.code, failure.text),
        None => {
            let text = "container init failed to start and did not say why";
            Error::text(Code::E_INIT_DIED, text)
        }
    }))
}

fn poststart(container: &Container, plan: Option<&Plan>) -> Result<()> {
    let planned;
    let list = match plan {
        Some(plan) => &plan.hooks.poststart,
        None => {
            if !container.state.poststart {
                return Ok(());
            }
            let config = container.config()?;
            let (spec, _) = bundle::config(&config)?;
            planned = plan::hooks::plan(&spec, &mut crate::error::Findings::default());
            &planned.poststart
        }
    };
    if list.is_empty() {
        return Ok(());
    }
    let state = container.oci_state(Status::Running, container.pid())?.to_string();
    hooks::run_all(list, &state)
}
