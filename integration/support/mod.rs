//! The harness: bundles, calls of the runtime, and what the host looks like afterwards.

#[macro_use]
pub mod need;

pub mod attack;
pub mod bundle;
pub mod config;
pub mod container;
pub mod fake_bus;
pub mod fds;
pub mod host;
pub mod onggi;
pub mod process;
pub mod pty;
pub mod raw;
pub mod reaper;
pub mod refusal;

#[allow(unused_imports)]
pub use {
    bundle::Bundle,
    config::Config,
    container::Container,
    onggi::{Call, Output, Running},
    process::Process,
};

use std::time::{Duration, Instant};

/// How long a call of the runtime, or a state that must come about, may take. A longer wait is a
/// failure of the test, never an endless one. `ONGGI_IT_PATIENCE` gives other seconds.
pub fn patience() -> Duration {
    let seconds = std::env::var("ONGGI_IT_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// Asks `question` again and again until it answers, and fails the test when it never does.
#[track_caller]
pub fn eventually<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    match poll(patience(), &mut question) {
        Some(answer) => answer,
        None => panic!("still not so after {:?}: {what}", patience()),
    }
}

/// Asks `question` until it answers or the time is over.
pub fn poll<T>(patience: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
