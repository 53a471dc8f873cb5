//! The integration tests: the real binary, a real kernel, bundles like those that engines write.
//!
//! `support/` holds the harness; every other file is one subject. A test whose name starts with
//! `rowN_` proves row N of the table in docs/compatibility.md: something that an engine (docker, containerd,
//! podman, CRI-O, buildkit, buildah) relies on; its comment says which one breaks without it.
//!
//! Environment: `ONGGI_BIN` names another binary to test, `ONGGI_SKIPS` a file that gets one line
//! per skipped test, `ONGGI_IT_CGROUP=v2` says that the run happens in a private mount namespace
//! with a cgroup2 over /sys/fs/cgroup, `ONGGI_IT_DRIVER=systemd` that containers are made with
//! `--systemd-cgroup` (tests of literal cgroup paths fail then), `ONGGI_IT_PATIENCE` how many seconds a
//! call may take.

// The lints of the runtime forbid these because it must not panic or touch paths by name.
// A test does both on purpose, and its unsafe blocks are plain system calls on its own values.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::exit,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    clippy::multiple_unsafe_ops_per_block,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used
)]

// The harness offers more than the tests of one moment use.
#[allow(dead_code)]
#[macro_use]
mod support;

mod annotations;
mod apparmor;
mod bad_input;
mod cgroup;
mod cgroup_faults;
mod cgroup_v2;
mod check;
mod conformance;
mod console;
mod contract;
mod contract_args;
mod contract_cli;
mod contract_env;
mod contract_info;
mod contract_pid_file;
mod create_failure;
mod cwd;
mod delete;
mod device_nodes;
mod devices;
mod differential;
mod drivers;
mod engines;
mod error_codes;
mod events;
mod exec;
mod exec_contained;
mod exec_process;
mod faults;
mod gc;
mod global_options;
mod harness;
mod hooks;
mod hooks_failure;
mod idmapped;
mod input;
mod kill;
mod lifecycle;
mod mount_options;
mod mounts;
mod names;
mod namespaces;
mod namespaces_rootless;
mod namespaces_rootless_cgroup;
mod netdevices;
mod notify;
mod parallel;
mod pause;
mod placement;
mod process;
mod rootfs;
mod rootless_session;
mod run;
mod seccomp;
mod seccomp_agent;
mod security;
mod security_bounds;
mod security_exec;
mod security_host;
mod security_races;
mod selinux;
mod servers;
mod start;
mod state;
mod stdio;
mod systemd;
mod systemd_bus;
mod time_offsets;
mod update;
mod update_devices;
mod update_idle;
mod user_namespaces;
