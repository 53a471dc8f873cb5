//! Becoming the container's user: limits, capabilities, ids, seccomp, and the check that it is so.

use super::Child;
use crate::error::{Code, Error, Result};
use crate::plan::process::Process;
use crate::sys;
use crate::sys::cred::CapSets;

/// Sets one limit, exactly.
pub fn rlimit(child: &Child<'_>, index: usize) -> Result<()> {
    let Some(limit) = child.process()?.rlimits.get(index) else { return Ok(()) };
    sys::sched::set_rlimit(0, limit.resource, limit.soft, limit.hard)
        .map_err(|error| error.about(&limit.name).into())
}

/// Sets the NUMA memory policy, in the container's cgroup, whose nodes it may not leave.
pub fn memory_policy(child: &Child<'_>) -> Result<()> {
    let Some(policy) = &child.process()?.memory_policy else { return Ok(()) };
    Ok(sys::memory::set_mempolicy(policy.mode, &policy.nodes)?)
}

/// Sets the container's file mode creation mask.
pub fn umask(child: &Child<'_>) -> Result<()> {
    sys::fs::umask(child.process()?.umask);
    Ok(())
}

/// Drops from the bounding set what the container may never have. Needs `CAP_SETPCAP`, so it comes
/// before the ids.
pub fn bounding_set(child: &Child<'_>) -> Result<()> {
    let keep = child.process()?.caps.bounding;
    for capability in 0..64 {
        if keep & 1 << capability != 0 {
            continue;
        }
        match sys::cred::bounding_drop(capability) {
            // Past the kernel's last capability.
            Err(error) if error.errno == libc::EINVAL && capability > 0 => break,
            result => result?,
        }
    }
    Ok(())
}

/// Groups, gid, uid; the permitted set survives for what is left to do.
pub fn ids(child: &mut Child<'_>) -> Result<()> {
    let process = child.process()?;
    if !process.keep_groups {
        child.work.groups_denied = groups(process)?;
    }
    sys::cred::setresgid(process.gid).map_err(mapped)?;
    if process.uid != 0 {
        sys::cred::set_keepcaps(true)?;
    }
    sys::cred::setresuid(process.uid).map_err(mapped)?;
    super::user::rearm()?;
    // What comes next, finding the program, is judged by the rights it will have.
    let held = sys::cred::capget()?;
    let caps = process.caps;
    Ok(sys::cred::capset(&CapSets {
        effective: caps.effective & held.permitted,
        permitted: held.permitted,
        inheritable: held.inheritable,
    })?)
}

/// An id of the process that its user namespace does not have.
fn mapped(error: sys::Error) -> sys::Error {
    match error.errno {
        libc::EINVAL => {
            let what = format!("{}, which is not mapped in the user namespace", error.what);
            error.about(what)
        }
        _ => error,
    }
}

/// Sets the supplementary groups; true where that is denied, and none were asked for.
///
/// A user namespace whose one group was mapped without privilege denies setgroups(2): who could drop
/// a group could get at files that are forbidden to it. The caller's groups stay then.
fn groups(process: &Process) -> Result<bool> {
    match sys::cred::setgroups(&process.groups) {
        // With the capability there is no other reason.
        Err(error) if error.errno == libc::EPERM && has_cap_setgid()? => {
            let adds = process.groups.iter().any(|group| *group != process.gid);
            if adds {
                return Err(Error::text(
                    Code::E_IDENTITY,
                    "/process/user/additionalGids: the user namespace denies setgroups",
                ));
            }
            Ok(true)
        }
        result => result.map(|()| false).map_err(Into::into),
    }
}

fn has_cap_setgid() -> Result<bool> {
    const CAP_SETGID: u64 = 1 << 6;
    Ok(sys::cred::capget()?.effective & CAP_SETGID != 0)
}

/// Loads the filter with `CAP_SYS_ADMIN`, because `no_new_privs` is to stay off.
pub fn seccomp_privileged(child: &Child<'_>) -> Result<()> {
    let held = sys::cred::capget()?;
    sys::cred::capset(&CapSets { effective: held.permitted, ..held })?;
    // Nothing but the last capability calls and the gate runs under the filter: check now.
    check_ids(child)?;
    seccomp(child)
}

/// Loads the filter.
pub fn seccomp(child: &Child<'_>) -> Result<()> {
    let Some(program) = child.seccomp else { return Ok(()) };
    if program.notify {
        return super::listener::load(child, program);
    }
    sys::bpf::load_seccomp(&program.filter, program.flags)?;
    Ok(())
}

/// The five sets as they shall be at execve.
pub fn capabilities(child: &Child<'_>) -> Result<()> {
    let caps = child.process()?.caps;
    sys::cred::capset(&CapSets {
        effective: caps.effective,
        permitted: caps.permitted,
        inheritable: caps.inheritable,
    })?;
    sys::cred::ambient_clear()?;
    for capability in 0..64 {
        if caps.ambient & 1 << capability != 0 {
            sys::cred::ambient_raise(capability)?;
        }
    }
    Ok(())
}

/// Reads back what we have become and refuses to go on as anything else.
pub fn check(child: &Child<'_>) -> Result<()> {
    check_ids(child)?;
    let process = child.process()?;
    let wrong =
        |what: &str| Err(Error::text(Code::E_IDENTITY, format!("{what} is not what was set")));
    let held = sys::cred::capget()?;
    let caps = process.caps;
    if (held.effective, held.permitted, held.inheritable)
        != (caps.effective, caps.permitted, caps.inheritable)
    {
        return wrong("the capability set");
    }
    if process.no_new_privs && !sys::cred::no_new_privs()? {
        return wrong("no_new_privs");
    }
    Ok(())
}

fn check_ids(child: &Child<'_>) -> Result<()> {
    let process = child.process()?;
    let wrong =
        |what: &str| Err(Error::text(Code::E_IDENTITY, format!("{what} is not what was set")));
    if sys::cred::getresuid()? != [process.uid; 3] {
        return wrong("the user id");
    }
    if sys::cred::getresgid()? != [process.gid; 3] {
        return wrong("the group id");
    }
    if process.keep_groups || child.work.groups_denied {
        // They are whatever the caller had: nothing was set that could be compared.
        return Ok(());
    }
    let (mut held, mut asked) = (sys::cred::getgroups()?, process.groups.clone());
    held.sort_unstable();
    asked.sort_unstable();
    if held != asked {
        return wrong("the list of groups");
    }
    Ok(())
}
