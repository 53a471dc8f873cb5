//! The moment after which nothing is waited for any more (`--deadline`). None, unless it is set.
//!
//! [`poll`](super::fs::poll), [`receive`](super::socket::receive) and [`flock`](super::fs::flock) heed it
//! and fail with `ETIMEDOUT`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Error;

static END: OnceLock<Instant> = OnceLock::new();
static OVER: AtomicBool = AtomicBool::new(false);

/// From now on, once per process.
pub fn set(after: Duration) {
    let end = Instant::now().checked_add(after);
    if let Some(end) = end {
        END.get_or_init(|| end);
    }
}

/// For what must be done however late it is: taking back, and being a container's parent.
pub fn clear() {
    OVER.store(true, Ordering::Relaxed);
}

/// How much time is left; `None` without a deadline.
#[must_use]
pub fn left() -> Option<Duration> {
    if OVER.load(Ordering::Relaxed) {
        return None;
    }
    END.get().map(|end| end.saturating_duration_since(Instant::now()))
}

/// Milliseconds to wait, of those that were asked for (negative: for ever); and whether it is the
/// deadline that ends the wait.
#[must_use]
pub(super) fn cap(millis: i32) -> (i32, bool) {
    let Some(left) = left() else { return (millis, false) };
    // Rounded up, so that the end has come when it is over.
    let left = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
    if millis < 0 || left <= millis { (left, true) } else { (millis, false) }
}

/// The failure of a wait that it has ended.
#[must_use]
pub(super) fn passed(call: &'static str) -> Error {
    Error::new(call, "the --deadline has passed", libc::ETIMEDOUT)
}
