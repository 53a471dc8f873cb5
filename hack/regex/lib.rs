//! The interface of the regex crate by regex-lite.
pub use regex_lite::*;
