//! Effects of create that few containers want: each is recorded, or lies in the state directory.

use std::os::fd::AsFd;

use super::prepare::{self, Prepared};
use super::{Making, netdev};
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::mounts::{Mount, Source};
use crate::sys;

impl Making<'_> {
    /// The directory in which `start` will make the socket for sd_notify(3), as the source of its mount.
    pub(super) fn make_notify(&self, plan: &Plan, prepared: &mut Prepared) -> Result<()> {
        let is_notify = |mount: &Mount| mount.source == Source::Notify;
        let Some(index) = plan.mounts.iter().position(is_notify) else { return Ok(()) };
        let (dir, name) = (self.dir.as_fd(), crate::sd_notify::DIRECTORY);
        sys::fs::mkdirat(dir, name, 0o755)?;
        // Whatever the caller's mask is.
        sys::fs::fchmodat(dir, name, 0o755)?;
        // Otherwise the child clones it, with all others.
        if let Some(sources) = prepared.sources.get_mut() {
            if let Some(slot) = sources.mounts.get_mut(index) {
                *slot = Some(prepare::clone_tree(
                    dir,
                    name,
                    false,
                    &sys::mount::MountAttr::propagates(plan.propagation),
                )?);
            }
        }
        Ok(())
    }

    /// Makes the container's resctrl group, recorded first.
    pub(super) fn make_rdt(&mut self, plan: &Plan, prepared: &Prepared) -> Result<()> {
        let (Some(rdt), Some(record)) = (&plan.rdt, &prepared.rdt) else { return Ok(()) };
        self.state.rdt = Some(record.clone());
        self.state.save(self.dir.as_fd())?;
        crate::rdt::make(record, rdt)
    }

    /// Moves the network devices of the plan into the container.
    pub(super) fn give_devices(&mut self, plan: &Plan) -> Result<()> {
        if plan.net_devices.is_empty() {
            return Ok(());
        }
        let networks = self.networks.insert(netdev::Networks::of(self.pid())?);
        self.state.net_devices = networks.intend(&plan.net_devices)?;
        self.state.save(self.dir.as_fd())?;
        networks.give(&plan.net_devices, &self.state.net_devices)
    }
}
