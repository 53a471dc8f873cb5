//! The captured calls of real engines in `fixtures/`: what hack/capture-configs has written.

use std::fs;
use std::path::PathBuf;

use crate::support::host;

use serde_json::Value;

/// One container, or one exec, of a real engine.
pub struct Fixture {
    pub name: String,
    dir: PathBuf,
}

impl Fixture {
    /// config.json as it was in the engine's bundle.
    pub fn config(&self) -> Value {
        serde_json::from_str(&self.text("config.json")).unwrap()
    }

    /// The process that the engine gave to exec.
    pub fn exec_process(&self) -> Option<Value> {
        let text = fs::read_to_string(self.dir.join("process.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    pub fn text(&self, file: &str) -> String {
        let path = self.dir.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// A path of this repository, given from `integration/`.
pub fn repository(path: &str) -> PathBuf {
    host::sources().join("integration").join(path)
}

/// All fixtures, by name. No fixture at all is a failure: it would prove nothing.
pub fn all() -> Vec<Fixture> {
    let dir = directory();
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut fixtures: Vec<Fixture> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| Fixture {
            name: entry.file_name().to_string_lossy().into_owned(),
            dir: entry.path(),
        })
        .collect();
    assert!(!fixtures.is_empty(), "no fixture in {}", dir.display());
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

/// One of them.
pub fn named(name: &str) -> Fixture {
    Fixture { name: name.to_string(), dir: directory().join(name) }
}

/// `ONGGI_FIXTURES` names a set that has just been captured and is not checked in yet.
fn directory() -> PathBuf {
    match std::env::var_os("ONGGI_FIXTURES") {
        Some(dir) => dir.into(),
        None => repository("fixtures"),
    }
}
