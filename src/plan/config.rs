//! config.json as it is read.

use std::collections::BTreeMap;

use oci_spec::runtime::{Hooks, Linux, Mount, Process, Root};
use serde::Deserialize;

/// config.json, as far as it is about Linux: the sections of other systems are not even looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the spec's names")]
pub struct Config {
    #[serde(default)]
    pub oci_version: String,
    pub root: Option<Root>,
    pub mounts: Option<Vec<Mount>>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub hooks: Option<Hooks>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub linux: Option<Linux>,
}
