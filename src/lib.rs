//! onggi: an OCI container runtime.
//!
//! The way from `main` to `execve`:
//!
//! 1. [`cli`] parses the command line; `create` begins in `cli::create`.
//! 2. [`bundle`] reads config.json once; [`host`] gathers what this machine is.
//! 3. [`plan`] decides everything and refuses what cannot be done. It is pure.
//! 4. [`spawn`] is the parent: it opens what the child needs ([`spawn::prepare`]), records the intent
//!    ([`state`]), makes the cgroup ([`cgroup`]), clones, and drives the [`spawn::protocol`].
//! 5. [`init`] is the child: it walks the plan's steps ([`plan::steps`]) to `execve`.
//! 6. [`container`] is how every later command finds the container again.
//!
//! Imports point downwards: `cli → spawn, container → init, hooks, cgroup, seccomp, plan → error, sys`.
//! `plan` imports neither `sys` calls nor `std::fs`; `unsafe` is in [`sys`] only.

// By this name fuzz/host.rs, which the unit tests share, knows it.
#[cfg(test)]
extern crate self as onggi;

pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod code;
pub mod console;
pub mod container;
pub mod delete;
pub mod error;
pub mod events;
pub mod foreground;
pub mod gc;
pub mod hooks;
pub mod host;
pub mod init;
#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod layering;
pub mod log;
pub mod mountinfo;
pub mod plan;
pub mod rdt;
pub mod sd_notify;
pub mod seccomp;
pub mod spawn;
pub mod state;
pub mod stats;
#[allow(unsafe_code)]
pub mod sys;
pub mod update;
