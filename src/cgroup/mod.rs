//! Control groups: where a container's processes are put, limited, found, stopped and killed.
//!
//! Owns: everything under `/sys/fs/cgroup`. [`Layout`] holds the host's facts, [`plan()`] turns
//! `linux.resources` into a [`Placement`] without touching anything, [`Record`] is what the state
//! keeps of it, [`Group`] acts on it, [`remove()`] takes it away. v1, v2 and hybrid hosts are one
//! code path: a container has one directory per hierarchy, and each planned [`Write`] names the
//! controller, whose directory is then looked up. With systemd as the maker the directories come with
//! a unit, which is started around the child ([`Group::enter_unit`]). Must not: fork, know the container's state, or
//! write `cgroup.procs` (a migration waits for an RCU grace period, 10 ms and more), but for what annotations
//! ask for (`inner`): the child is born in the v2 cgroup (`CLONE_INTO_CGROUP`) and writes `0` to the v1 `tasks` files itself.

mod apply;
mod bpf;
mod devices;
mod dir;
mod files;
mod freeze;
mod group;
mod inner;
mod kill;
mod layout;
mod leaf;
mod merge;
mod mounts;
mod path;
mod plan;
mod probe;
mod record;
mod remove;
mod resources;
mod sub;
mod systemd;
#[cfg(test)]
#[allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::items_after_statements,
    clippy::unwrap_used,
    clippy::let_underscore_must_use,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks
)]
mod tests;
mod update;
mod v1;
mod v2;
mod walk;
mod watch;

pub use devices::{Access, DeviceKind, DeviceRule};
pub use dir::Mounts;
pub use group::Group;
pub use inner::{DELEGATE, Inner, SUBGROUP};
pub use layout::{Hierarchy, Layout, V2, detect};
pub use leaf::ExecLeaf;
pub use merge::merge;
pub use mounts::{CgroupMount, mounts};
pub use plan::{Manager, Options, Placement, PlannedUnit, Write, plan};
pub use probe::probe;
pub use record::{Place, Record};
pub use remove::is_another;
pub use remove::remove;
pub use sub::SubCgroup;
pub use systemd::{Property, Unit, Value};
pub use update::{Update, plan as plan_update};
pub use v1::enter;
pub use watch::OomWatch;
