//! `events`

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use serde_json::{Value, json};

use super::{Globals, args, duration, print};
use crate::cgroup::Group;
use crate::container::{Container, Status};
use crate::error::{Code, Error, Result};
use crate::{events, sys};

/// `onggi events`: with `--stats` once, else until the container has ended.
pub fn events(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let interval = duration::option(matches, "interval")?.unwrap_or(Duration::from_secs(5));
    if interval.is_zero() {
        return Err(Error::text(Code::E_OPTION, "--interval: must be more than 0").into());
    }
    let container = Container::open(&globals.root, &id)?;
    let init = container.init()?;
    let (Some(init), true) = (init, container.status()? != Status::Stopped) else {
        let text = format!("container with id {id} is not running");
        return Err(Error::text(Code::E_NOT_RUNNING, text).into());
    };
    let group = container
        .cgroup()?
        .ok_or_else(|| Error::text(Code::E_STATUS, "the container has no cgroup"))?;
    if args::is_on(matches, "stats") {
        tell(&id, "stats", Some(events::data(&group)?))?;
        return Ok(0);
    }
    follow(&id, &group, init.as_fd(), interval)?;
    Ok(0)
}

fn tell(id: &str, kind: &str, data: Option<Value>) -> Result<()> {
    let mut event = json!({ "type": kind, "id": id });
    if let (Some(object), Some(data)) = (event.as_object_mut(), data) {
        object.insert("data".to_owned(), data);
    }
    print(&format!("{event}\n"))
}

/// Sleeps until init ends, memory runs out or it is time for the next statistics.
fn follow(id: &str, group: &Group, init: BorrowedFd<'_>, interval: Duration) -> Result<()> {
    let mut watch = group.watch_oom()?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let mut fds = vec![(init, libc::POLLIN)];
        fds.extend(watch.as_ref().map(|watch| (watch.fd(), libc::POLLIN)));
        let ready = match sys::fs::poll(&fds, millis) {
            Err(error) if error.errno == libc::EINTR => continue,
            other => other?,
        };
        let ended = ready.first().is_some_and(|events| *events != 0);
        if let Some(watch) = &mut watch {
            if watch.fired(group)? {
                tell(id, "oom", None)?;
            }
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            tell(id, "stats", Some(events::data(group)?))?;
            next += interval;
        }
    }
}
