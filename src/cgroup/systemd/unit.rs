//! Starting, changing and stopping units.

use std::time::Duration;

use super::bus::{self, Bus};
use super::wire::{Kind, Message, Writer};
use super::{Property, Unit, Value};
use crate::error::{Code, Error, Result};

/// What systemd says of a unit that is not, or no longer, there.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// What a bus says that no systemd is on.
const NO_SYSTEMD: &str = "org.freedesktop.DBus.Error.ServiceUnknown";
/// What it says of one that is.
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// What it says of a property that it does not know.
const UNKNOWN_PROPERTY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";
/// What it says of a value that it does not take.
const BAD_VALUE: &str = "org.freedesktop.DBus.Error.InvalidArgs";

/// Properties without which a container is not what it should be.
const NEEDED: [&str; 6] =
    ["Slice", "PIDs", "Delegate", "DefaultDependencies", "DevicePolicy", "DeviceAllow"];

/// Starts a transient unit with a process in it, and waits until that is done. `ours` becomes true as
/// soon as systemd has agreed to make it: from then on it is to be stopped, also after a failure.
///
/// # Errors
/// When there is no bus, it does not answer within `deadline`, or systemd refuses: a unit of that name
/// that is already there, a property it does not take.
pub fn start(
    unit: &Unit,
    properties: &[Property],
    pid: i32,
    deadline: Duration,
    ours: &mut bool,
) -> Result<()> {
    let named = |error: Error| Error::text(Code::E_SYSTEMD, format!("{unit}: {error}"));
    let mut bus = Bus::connect(unit.user, deadline).map_err(named)?;
    bus.watch_jobs(&unit.name);
    let mut all = properties.to_vec();
    let pids = vec![pid.cast_unsigned()];
    all.push(Property { name: "PIDs".to_owned(), value: Value::U32s(pids), at: String::new() });
    let mut jobs = Jobs::default();
    let mut reset = false;
    let job = loop {
        let mut body = Writer::default();
        body.text(&unit.name);
        body.text("fail");
        body.properties(&all);
        body.nothing();
        let serial = bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", body);
        let reply = jobs.reply(&mut bus, serial).map_err(named)?;
        if reply.kind == Kind::Return {
            break reply.texts.into_iter().next().unwrap_or_default();
        }
        // What a crash may have left: a unit that has failed, which keeps its name until it is reset.
        if reply.error == UNIT_EXISTS && !reset {
            reset = true;
            reset_failed(&mut bus, &mut jobs, unit)?;
        } else {
            without_unknown(unit, &reply, &mut all)?;
        }
    };
    *ours = true;
    match jobs.result(&mut bus, &job).map_err(named)?.as_str() {
        "done" => Ok(()),
        result => {
            Err(Error::text(Code::E_SYSTEMD, format!("{unit}: its start ends as {result:?}")))
        }
    }
}

/// Changes properties of a running unit, until it is stopped.
///
/// # Errors
/// As [`start`]; nothing is changed if one property is refused.
pub fn set_properties(unit: &Unit, properties: &[Property], deadline: Duration) -> Result<()> {
    if properties.is_empty() {
        return Ok(());
    }
    let named = |error: Error| Error::text(Code::E_SYSTEMD, format!("{unit}: {error}"));
    let mut bus = Bus::connect(unit.user, deadline).map_err(named)?;
    let mut all = properties.to_vec();
    loop {
        let mut body = Writer::default();
        body.text(&unit.name);
        body.bool(true);
        body.properties(&all);
        let serial = bus.call("SetUnitProperties", "sba(sv)", body);
        let reply = Jobs::default().reply(&mut bus, serial).map_err(named)?;
        if reply.kind == Kind::Return {
            return Ok(());
        }
        without_unknown(unit, &reply, &mut all)?;
    }
}

/// Moves a process into a unit's cgroup.
///
/// # Errors
/// When there is no bus, it does not answer within `deadline`, or systemd refuses.
pub fn attach(unit: &Unit, pid: i32, deadline: Duration) -> Result<()> {
    let named = |error: Error| Error::text(Code::E_SYSTEMD, format!("{unit}: {error}"));
    let mut bus = Bus::connect(unit.user, deadline).map_err(named)?;
    let mut body = Writer::default();
    body.text(&unit.name);
    body.text("/");
    body.numbers(&[pid.cast_unsigned()]);
    let serial = bus.call("AttachProcessesToUnit", "ssau", body);
    let reply = Jobs::default().reply(&mut bus, serial).map_err(named)?;
    match reply.kind {
        Kind::Return => Ok(()),
        _ => Err(named(Error::text(Code::E_SYSTEMD, bus::refusal(&reply)))),
    }
}

/// Stops a unit and waits until it is gone. One that is not there is fine, and so is no systemd at all:
/// it takes its units with it.
///
/// # Errors
/// When systemd does not answer within `deadline`, or refuses.
pub fn stop(unit: &Unit, deadline: Duration) -> Result<()> {
    let named = |error: Error| Error::text(Code::E_SYSTEMD, format!("left {unit}: {error}"));
    let mut bus = match Bus::connect(unit.user, deadline) {
        Err(error) if error.errno().is_some_and(bus::is_absent) => return Ok(()),
        other => other.map_err(named)?,
    };
    bus.watch_jobs(&unit.name);
    let mut jobs = Jobs::default();
    let mut body = Writer::default();
    body.text(&unit.name);
    body.text("replace");
    let serial = bus.call("StopUnit", "ss", body);
    let reply = jobs.reply(&mut bus, serial).map_err(named)?;
    match (reply.kind, reply.error.as_str()) {
        (Kind::Return, _) => {
            let job = reply.texts.into_iter().next().unwrap_or_default();
            let result = jobs.result(&mut bus, &job).map_err(named)?;
            if result != "done" {
                return Err(Error::text(
                    Code::E_SYSTEMD,
                    format!("left {unit}: its stop ends as {result:?}"),
                ));
            }
        }
        (_, NO_SUCH_UNIT | NO_SYSTEMD) => return Ok(()),
        _ => return Err(named(Error::text(Code::E_SYSTEMD, bus::refusal(&reply)))),
    }
    // Only matters if an annotation has asked to keep failed units.
    reset_failed(&mut bus, &mut jobs, unit)
}

/// Lets systemd forget a unit that has failed.
fn reset_failed(bus: &mut Bus, jobs: &mut Jobs, unit: &Unit) -> Result<()> {
    let mut body = Writer::default();
    body.text(&unit.name);
    let serial = bus.call("ResetFailedUnit", "s", body);
    let reply = jobs.reply(bus, serial)?;
    match (reply.kind, reply.error.as_str()) {
        // Nothing to forget.
        (Kind::Return, _) | (_, NO_SUCH_UNIT) => Ok(()),
        _ => Err(Error::text(
            Code::E_SYSTEMD,
            format!("{unit}: ResetFailedUnit: {}", bus::refusal(&reply)),
        )),
    }
}

/// Takes a property away that this systemd is too old for, if it only repeats a limit whose file is
/// written anyway. Every other refusal is an error. That of an idle cgroup is a value, new in systemd 252.
fn without_unknown(unit: &Unit, reply: &Message, all: &mut Vec<Property>) -> Result<()> {
    let said = reply.texts.first().map_or("", String::as_str);
    let unknown = said
        .strip_prefix("Cannot set property ")
        .and_then(|rest| rest.split(',').next())
        .filter(|name| reply.error == UNKNOWN_PROPERTY && !NEEDED.contains(name))
        .and_then(|name| all.iter().position(|property| property.name == name));
    let idle = Property::new("CPUWeight", Value::U64(0));
    let refused = reply.error == BAD_VALUE && said.contains("CPUWeight");
    let unknown = unknown.or_else(|| all.iter().position(|property| refused && *property == idle));
    let text = format!("{unit}: {}", bus::refusal(reply));
    match unknown.and_then(|at| all.get(at).map(|property| (at, property.at.clone()))) {
        Some((at, asked)) if asked.is_empty() => {
            all.remove(at);
            Ok(())
        }
        Some((_, asked)) => Err(Error::text(Code::E_SYSTEMD, format!("{asked}: {text}"))),
        None if reply.error == UNIT_EXISTS => Err(Error::text(
            Code::E_CGROUP_IN_USE,
            format!("/linux/cgroupsPath: {unit} already exists"),
        )),
        None => Err(Error::text(Code::E_SYSTEMD, text)),
    }
}

/// The jobs that have ended, with how: the signal may come before the answer that names the job.
#[derive(Debug, Default)]
struct Jobs {
    ended: Vec<(String, String)>,
}

impl Jobs {
    fn note(&mut self, message: &Message) {
        // id, job, unit, result; numbers are left out.
        if let (Kind::Signal, "JobRemoved", [job, _, result]) =
            (message.kind, message.member.as_str(), message.texts.as_slice())
        {
            self.ended.push((job.clone(), result.clone()));
        }
    }

    /// The answer to a call.
    fn reply(&mut self, bus: &mut Bus, serial: u32) -> Result<Message> {
        loop {
            let message = bus.receive()?;
            if matches!(message.kind, Kind::Return | Kind::Error) && message.reply_to == serial {
                return Ok(message);
            }
            self.note(&message);
        }
    }

    /// How a job has ended, when it has.
    fn result(&mut self, bus: &mut Bus, job: &str) -> Result<String> {
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| ended == job) {
                return Ok(result.clone());
            }
            let message = bus.receive()?;
            self.note(&message);
        }
    }
}
