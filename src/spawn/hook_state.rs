//! The state that hooks of a container in the making read.

use serde_json::Value;

use crate::container::{self, Status};
use crate::state::State;

/// What hooks read on stdin.
#[derive(Debug)]
pub struct HookState<'a> {
    pub(super) state: State,
    pub(super) annotations: &'a Value,
}

impl HookState<'_> {
    /// The state of runtime.md, with a pid as the hook sees it.
    #[must_use]
    pub fn json(&self, status: &str, pid: i32) -> String {
        self.value(status, pid).to_string()
    }

    pub(super) fn value(&self, status: &str, pid: i32) -> Value {
        let mut json = container::oci_state(&self.state, Status::Creating, pid, self.annotations);
        if let Some(object) = json.as_object_mut() {
            object.insert("status".into(), status.into());
        }
        json
    }
}
