//! `state`, `list` and `ps`.

use std::os::fd::AsFd;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::{Globals, args, print};
use crate::cgroup::Mounts;
use crate::container::{self, Container, Status};
use crate::error::{Code, DOES_NOT_EXIST, Error, Result};
use crate::state::NEVER;

/// `onggi state`
pub fn state(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let container = Container::open(&globals.root, &id)?;
    let state = container.oci_state(container.status()?, container.pid())?;
    print(&format!("{state:#}\n"))?;
    Ok(0)
}

/// `onggi list`
pub fn list(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let format = format(matches)?;
    let Some(root) = container::open_root(&globals.root)? else {
        if globals.root_given {
            let text = format!("{}: no such file or directory", globals.root.display());
            return Err(Error::text(Code::E_STATE_ROOT, text).into());
        }
        let nothing = Listing::new(&format);
        print(&if args::is_on(matches, "quiet") { String::new() } else { nothing.text() })?;
        return Ok(0);
    };
    let ids = container::ids(root.as_fd())?;
    if args::is_on(matches, "quiet") {
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        print(&lines)?;
        return Ok(0);
    }
    let (mut listing, mut mounts) = (Listing::new(&format), Mounts::default());
    for id in ids {
        match Container::open_in(root.as_fd(), &id) {
            Ok(container) => {
                let status = container.status_with(&mut mounts)?;
                listing.add(&container, status)?;
            }
            Err(error) if error.code() == Code::E_STATE_DAMAGED => listing.add_damaged(&id),
            // Deleted since the directory was read, or reserved and not yet recorded.
            Err(error) if error.to_string() == DOES_NOT_EXIST => {}
            Err(error) => return Err(error.into()),
        }
    }
    print(&listing.text())?;
    Ok(0)
}

/// What `list` prints.
enum Listing {
    Json(Vec<Value>),
    Table(Vec<Vec<String>>),
}

impl Listing {
    fn new(format: &str) -> Self {
        if format == "json" { Self::Json(Vec::new()) } else { Self::Table(Vec::new()) }
    }

    fn add(&mut self, container: &Container, status: Status) -> Result<()> {
        let (state, pid) = (&container.state, container.pid_at(status));
        match self {
            Self::Json(states) => states.push(container.oci_state(status, pid)?),
            Self::Table(rows) => rows.push(vec![
                state.id.clone(),
                pid.to_string(),
                status.name().to_owned(),
                crate::log::clean(&state.bundle.to_string_lossy()),
                crate::log::clean(state.told_created()),
                crate::log::clean(&state.owner),
            ]),
        }
        Ok(())
    }

    fn add_damaged(&mut self, id: &str) {
        match self {
            Self::Json(states) => states.push(json!({
                "id": id, "pid": 0, "status": "damaged", "bundle": "", "created": NEVER, "owner": "",
            })),
            Self::Table(rows) => {
                rows.push([id, "0", "damaged", "", NEVER, ""].map(str::to_owned).into());
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Json(states) => format!("{}\n", json!(states)),
            Self::Table(rows) => {
                table(&["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], rows)
            }
        }
    }
}

fn format(matches: &ArgMatches) -> Result<String> {
    let format = args::last(matches, "format").map(|text| text.to_string_lossy().into_owned());
    match format.as_deref() {
        None => Ok("table".to_owned()),
        Some("table" | "json") => Ok(format.unwrap_or_default()),
        Some(other) => {
            Err(Error::text(Code::E_OPTION, format!("invalid format option: {other:?}")))
        }
    }
}

/// Columns as wide as their widest cell.
pub fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).fold(title.len(), usize::max)
        })
        .collect();
    let mut out = String::new();
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(rows) {
        for (text, width) in row.iter().zip(&widths) {
            out.push_str(text);
            let blanks = width.saturating_sub(text.chars().count()) + 3;
            out.extend(std::iter::repeat_n(' ', blanks));
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

/// `onggi ps`
pub fn ps(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let format = format(matches)?;
    let container = Container::open(&globals.root, &id)?;
    let pids = match (container.status()?, container.cgroup()?) {
        (Status::Stopped, None) => Vec::new(),
        (_, Some(group)) => group.pids()?,
        // Without a cgroup of its own only init is known.
        (_, None) => vec![container.pid()],
    };
    if format == "json" {
        print(&format!("{}\n", json!(pids)))?;
        return Ok(0);
    }
    let options: Vec<String> =
        matches.get_many::<String>("options").into_iter().flatten().cloned().collect();
    print(&host_ps(&options, &pids)?)?;
    Ok(0)
}

/// The host's ps(1), cut down to the container's processes: people know its columns.
fn host_ps(options: &[String], pids: &[i32]) -> Result<String> {
    let mut command = std::process::Command::new("ps");
    match options {
        [] => command.arg("-ef"),
        options => command.args(options),
    };
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", "/usr/bin:/bin");
    }
    let output =
        command.output().map_err(|error| Error::text(Code::E_SYSTEM, format!("ps: {error}")))?;
    if !output.status.success() {
        return Err(Error::text(
            Code::E_SYSTEM,
            format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim()),
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::text(Code::E_OPTION, "ps: couldn't find PID field in its output"))?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let chosen: String = lines.filter(ours).map(|line| format!("{line}\n")).collect();
    Ok(format!("{header}\n{chosen}"))
}
