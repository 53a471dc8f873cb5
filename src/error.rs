//! The errors that cross module borders, and where in config.json they come from.

use std::fmt;

pub use crate::code::Code;
use crate::sys;

/// A place in config.json (or process.json) as a JSON pointer (RFC 6901), cheap to copy.
///
/// `At::item("/mounts", 4).leaf("/options")` shows as `/mounts/4/options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    base: &'static str,
    index: Option<u32>,
    leaf: &'static str,
}

impl At {
    /// A place with a fixed name.
    #[must_use]
    pub const fn of(base: &'static str) -> Self {
        Self { base, index: None, leaf: "" }
    }

    /// The `index`-th item of the array `base`.
    #[must_use]
    pub fn item(base: &'static str, index: usize) -> Self {
        Self { base, index: Some(u32::try_from(index).unwrap_or(u32::MAX)), leaf: "" }
    }

    /// A member of this place; `leaf` starts with `/`.
    #[must_use]
    pub const fn leaf(mut self, leaf: &'static str) -> Self {
        self.leaf = leaf;
        self
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base)?;
        if let Some(index) = self.index {
            write!(f, "/{index}")?;
        }
        f.write_str(self.leaf)
    }
}

/// A member name in a JSON pointer.
#[must_use]
pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1").escape_debug().to_string()
}

/// One thing that cannot be done, or is odd, found before anything was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its stable name.
    pub code: Code,
    /// JSON pointer, or a command-line option; may be empty.
    pub pointer: String,
    /// What is wrong with it.
    pub text: String,
}

impl Finding {
    /// A finding at a place.
    pub fn new(code: Code, at: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self { code, pointer: at.to_string(), text: text.to_string() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            return f.write_str(&self.text);
        }
        write!(f, "{}: {}", self.pointer, self.text)
    }
}

/// All that is wrong with a configuration, and what is merely odd.
#[derive(Debug, Default)]
pub struct Findings {
    /// Each of them alone forbids the container.
    pub problems: Vec<Finding>,
    /// Tolerated, and told after success.
    pub warnings: Vec<Finding>,
}

impl Findings {
    /// Notes a problem at a place.
    pub fn problem(&mut self, code: Code, at: impl fmt::Display, text: impl fmt::Display) {
        self.problems.push(Finding::new(code, at, text));
    }

    /// Notes something odd at a place.
    pub fn warn(&mut self, code: Code, at: impl fmt::Display, text: impl fmt::Display) {
        self.warnings.push(Finding::new(code, at, text));
    }

    /// The warnings, or all problems as one error.
    pub fn finish(self) -> Result<Vec<Finding>> {
        if self.problems.is_empty() {
            return Ok(self.warnings);
        }
        Err(Error::Config(Box::new(self)))
    }
}

/// Every failure below the command layer.
#[derive(Debug)]
pub enum Error {
    /// The configuration cannot be done: all its problems at once.
    Config(Box<Findings>),
    /// A kernel call failed while doing what `step` says.
    Sys {
        /// Its stable name.
        code: Code,
        /// JSON pointer and step, such as `/mounts/4: mount tmpfs on /run`; may be empty.
        step: String,
        /// The call.
        error: sys::Error,
    },
    /// Anything else, already in words. Engines match some of these: see the constants below.
    Text(Code, String),
}

/// The container is not there. Engines take this as "already deleted".
pub const DOES_NOT_EXIST: &str = "container does not exist";
/// The container has no process. containerd and CRI-O end their kill loops on it.
pub const NOT_RUNNING: &str = "container not running";

/// Most bytes of all problems in one message: engines read one write of 8191 bytes, see [`crate::log`].
const MESSAGE_LIMIT: usize = 7400;

impl Error {
    /// An error in words.
    pub fn text(code: Code, text: impl Into<String>) -> Self {
        Self::Text(code, text.into())
    }

    /// For `map_err`: a kernel call that failed at a step.
    pub fn at(code: Code, step: impl fmt::Display) -> impl FnOnce(sys::Error) -> Self {
        move |error| Self::Sys { code, step: step.to_string(), error }
    }

    /// The same failure, and in words what could not be put right after it.
    #[must_use]
    pub fn and(self, what: impl fmt::Display) -> Self {
        let text = format!("{self}; {what}");
        Self::Text(self.code(), text)
    }

    /// Gives a failure that has no name of its own the name of what it happened in.
    #[must_use]
    pub fn or_code(self, code: Code) -> Self {
        match self {
            Self::Sys { code: Code::E_SYSTEM, step, error } => Self::Sys { code, step, error },
            other => other,
        }
    }

    /// Several failures as one; none is none.
    #[must_use]
    pub fn all(mut errors: Vec<Self>) -> Option<Self> {
        if errors.len() < 2 {
            return errors.pop();
        }
        let mut findings = Findings::default();
        for error in errors {
            findings.problems.extend(error.findings().problems);
        }
        Some(Self::Config(Box::new(findings)))
    }

    /// The failure as what it is about: each part with its place.
    #[must_use]
    pub fn findings(self) -> Findings {
        let place = |text: &str| text.starts_with('/') || text.starts_with("--");
        let problem = match self {
            Self::Config(findings) => return *findings,
            Self::Sys { code, step, error } => Finding::new(code, step, error),
            Self::Text(code, text) => match text.split_once(": ") {
                Some((at, rest)) if place(at) => Finding::new(code, at, rest),
                _ => Finding::new(code, "", text),
            },
        };
        Findings { problems: vec![problem], warnings: Vec::new() }
    }

    /// Its stable name: that of the first problem where there are many.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Config(findings) => {
                findings.problems.first().map_or(Code::E_INTERNAL, |problem| problem.code)
            }
            Self::Sys { code, .. } | Self::Text(code, _) => *code,
        }
    }

    /// The errno of the call, if a call it was.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Sys { error, .. } => Some(error.errno),
            _ => None,
        }
    }
}

impl From<sys::Error> for Error {
    fn from(error: sys::Error) -> Self {
        // No other call of ours ends in time-out.
        let late = error.errno == libc::ETIMEDOUT;
        let code = if late { Code::E_DEADLINE } else { Code::E_SYSTEM };
        Self::Sys { code, step: String::new(), error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sys { step, error, .. } if step.is_empty() => error.fmt(f),
            Self::Sys { step, error, .. } => write!(f, "{step}: {error}"),
            Self::Text(_, text) => f.write_str(text),
            Self::Config(findings) => {
                let problems = &findings.problems;
                let mut length = 0;
                for (index, problem) in problems.iter().enumerate() {
                    let text = problem.to_string();
                    length += text.len() + 2;
                    if index > 0 && length > MESSAGE_LIMIT {
                        return write!(f, " (+{} more)", problems.len() - index);
                    }
                    if index > 0 {
                        f.write_str("; ")?;
                    }
                    f.write_str(&text)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Error {}

/// What functions below the command layer return.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_is_a_json_pointer() {
        assert_eq!(At::item("/mounts", 4).leaf("/options").to_string(), "/mounts/4/options");
        assert_eq!(At::of("/process/cwd").to_string(), "/process/cwd");
    }

    #[test]
    fn all_problems_are_told_at_once_up_to_the_limit() {
        let mut findings = Findings::default();
        findings.problem(
            Code::E_RLIMIT_VALUE,
            At::item("/process/rlimits", 1),
            "duplicate RLIMIT_NOFILE",
        );
        findings.problem(Code::E_NOT_ABSOLUTE, At::of("/process/cwd"), "not absolute");
        let text = findings.finish().map_err(|error| error.to_string());
        assert_eq!(
            text,
            Err("/process/rlimits/1: duplicate RLIMIT_NOFILE; /process/cwd: not absolute".into())
        );
        let mut many = Findings::default();
        for index in 0..1000 {
            many.problem(
                Code::E_MOUNT_DESTINATION,
                At::item("/mounts", index),
                "destination is not absolute",
            );
        }
        let text = many.finish().map_err(|error| error.to_string()).err().unwrap_or_default();
        assert!(text.len() < 7500 && text.contains(" (+"), "{}", text.len());
    }
}
