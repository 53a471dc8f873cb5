//! Tests of the compiler: its own rules, a naive evaluator, and two oracles.
//!
//! `data/` holds profiles as engines write them into a config, for amd64 and
//! their default capabilities. `podman.json` and `docker-20.10.json` come from the
//! files of Debian 12's golang-github-containers-common and
//! golang-github-docker-docker-dev, `podman-new.json` from a 2026 version of the
//! former, all by `hack/seccomp-profiles/expand`; `containerd.json` is the list of
//! containerd 2.1, `docker.json` the same with the names Docker has added since.

mod differential;
mod interpreter;
mod libseccomp;
mod naive;
mod random;
mod seccompiler_crate;
mod semantics;
mod tables;

use crate::seccomp::{Problem, Program, compile};
use oci_spec::runtime::LinuxSeccomp;

const PROFILES: [(&str, &str); 5] = [
    ("containerd", include_str!("data/containerd.json")),
    ("docker", include_str!("data/docker.json")),
    ("docker-20.10", include_str!("data/docker-20.10.json")),
    ("podman", include_str!("data/podman.json")),
    ("podman-new", include_str!("data/podman-new.json")),
];

fn parse(text: &str) -> LinuxSeccomp {
    serde_json::from_str(text).unwrap()
}

fn program(profile: &LinuxSeccomp) -> Program {
    match compile(profile, &mut Vec::new()) {
        Ok(program) => program,
        Err(problems) => panic!("{problems:?}"),
    }
}

fn problems(text: &str) -> Vec<Problem> {
    compile(&parse(text), &mut Vec::new()).err().unwrap_or_default()
}
