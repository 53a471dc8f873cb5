//! What `check` tries: the container's new namespaces and filesystems, made by a child that ends, and
//! nothing attached anywhere.
//!
//! Owns: finding out what only the kernel can tell. Must not: leave anything.

use std::os::fd::{AsFd, OwnedFd};

use super::protocol::{self, Failure, Message};
use super::{render, userns};
use crate::error::{Code, Error, Result};
use crate::host::Host;
use crate::init;
use crate::plan::Plan;
use crate::plan::mounts::{Mount, Source};
use crate::plan::namespaces::Kind;
use crate::plan::steps::Do;
use crate::sys;

/// Clones into the namespaces, and configures every new filesystem there. Returns what was refused.
///
/// # Errors
/// When the trial itself could not be made, other than by a refusal.
pub fn run(plan: &Plan, host: &Host) -> Result<Vec<Error>> {
    let (socket, theirs) = sys::socket::seqpacket_pair()?;
    let flags = u64::from(plan.namespaces.cloned().cast_unsigned());
    let child = match sys::process::clone3(flags, None) {
        Ok(Some(child)) => child,
        Ok(None) => {
            drop(socket);
            child(plan, &theirs)
        }
        Err(error) => {
            let error = Error::at(Code::E_NAMESPACE, "/linux/namespaces")(error);
            return Ok(vec![error]);
        }
    };
    drop(theirs);
    let mut refused = Vec::new();
    if let (true, Some(ids)) = (plan.namespaces.is_new(Kind::User), &plan.ids) {
        refused.extend(userns::write_maps(child.pid, ids, host).err());
    }
    protocol::send(socket.as_fd(), &Message::Go(None))?;
    // The end of the socket is the end of the child, whatever it dies of.
    while let Message::Failed(failure) = protocol::receive(socket.as_fd())? {
        refused.push(render(&plan.steps, &failure));
    }
    drop(socket);
    sys::process::wait(child.pidfd.as_fd(), true)?;
    Ok(refused)
}

/// In the child: the namespaces, and each filesystem up to where it would be attached.
fn child(plan: &Plan, socket: &OwnedFd) -> ! {
    let mut told = sys::process::set_pdeathsig(libc::SIGKILL);
    // Its ids may have to be mapped first.
    told = told.and_then(|()| protocol::receive(socket.as_fd()).map(drop));
    for (index, step) in plan.steps.iter().enumerate() {
        let Err(error) = act(plan, step.act) else { continue };
        let failure = Failure {
            step: u32::try_from(index).unwrap_or(u32::MAX),
            errno: error.errno().unwrap_or(0),
            code: match error.code() {
                Code::E_SYSTEM => step.act.code(),
                code => code,
            },
            text: error.to_string(),
        };
        told = told.and_then(|()| protocol::write(socket.as_fd(), &Message::Failed(failure)));
    }
    sys::process::exit_now(i32::from(told.is_err()))
}

fn act(plan: &Plan, act: Do) -> Result<()> {
    match act {
        Do::Unshare(flags) => Ok(sys::process::unshare(flags)?),
        Do::ContainerRoot if plan.namespaces.is_new(Kind::User) => {
            init::user::container_root(plan.process.as_ref())
        }
        Do::Mount(index) => match plan.mounts.get(index) {
            Some(mount @ Mount { source: Source::Fs { fstype, source }, .. }) => {
                init::mount::try_out(mount, fstype, source)
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
