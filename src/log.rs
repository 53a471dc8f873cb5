//! Where messages go: one line to the log file, one to stderr.
//!
//! Engines read the last error line of the log (containerd), the whole file as one object (podman), or
//! stderr in one read (conmon), so a failing command writes exactly one line to each, in one write.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Code, Error, Finding, Result};
use crate::{state, sys};

/// The log, and what it will be told when the command has succeeded.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<OwnedFd>,
    json: bool,
    level: Level,
    warnings: RefCell<Vec<Finding>>,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the usual names")]
pub enum Level {
    Debug,
    #[default]
    Warning,
    Error,
}

impl Level {
    /// The level of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Debug, Self::Warning, Self::Error].into_iter().find(|level| level.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Log {
    /// Opens the log; failing that is a failure of the command.
    pub fn open(path: Option<&Path>, format: &str, level: Level) -> Result<Self> {
        let json = match format {
            "" | "text" => false,
            "json" => true,
            other => {
                return Err(Error::text(
                    Code::E_OPTION,
                    format!("invalid log-format: {}", clean(other)),
                ));
            }
        };
        let file = path
            .map(|path| {
                let name = sys::cstr("open", path.as_os_str().as_bytes())?;
                // Links are followed: /dev/stderr is one. A FIFO that nobody reads must not hang.
                let flags = libc::O_CREAT | libc::O_APPEND | libc::O_WRONLY | libc::O_NONBLOCK;
                let file = sys::fs::openat(sys::fs::CWD, &name, flags, 0o644)?;
                sys::fs::set_nonblocking(&file, false)?;
                Ok(file)
            })
            .transpose()
            .map_err(Error::at(Code::E_LOG, "--log"))?;
        Ok(Self { file, json, level, warnings: RefCell::default() })
    }

    /// Tells a failure: to the log, with its code and the warnings so far, and, in plain words, to stderr.
    pub fn error(&self, command: &str, error: &anyhow::Error) {
        let text = cut(clean(&format!("{error:#}")), LIMIT);
        let command = cut(clean(command), 300);
        let cause = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
        let extra = self.extra(cause);
        if self.file.is_some() {
            self.line(Level::Error, &text, &extra);
        }
        if self.json && self.file.is_none() {
            stderr_line(&self.format(Level::Error, &text, &extra));
        } else if command.is_empty() {
            stderr_line(&format!("onggi: {text}"));
        } else {
            stderr_line(&format!("onggi: {command}: {text}"));
        }
    }

    /// The further members of a failure's line.
    fn extra(&self, cause: Option<&Error>) -> Map<String, Value> {
        let mut extra = Map::new();
        let Some(cause) = cause else { return extra };
        extra.insert("code".into(), cause.code().name().into());
        if !cause.code().hint().is_empty() {
            extra.insert("hint".into(), cause.code().hint().into());
        }
        // Without a file the line is stderr's, of which engines read little.
        if self.file.is_none() {
            return extra;
        }
        let mut warnings = self.warnings.take();
        if let Error::Config(findings) = cause {
            let problems = findings.problems.iter().take(FINDINGS_MAX).map(pair).collect();
            extra.insert("problems".into(), problems);
            warnings.extend_from_slice(&findings.warnings);
        }
        if !warnings.is_empty() {
            let told = warnings.iter().take(FINDINGS_MAX).map(triple).collect();
            extra.insert("warnings".into(), told);
        }
        extra
    }

    /// Keeps something odd until the command has succeeded or failed.
    pub fn warn(&self, warnings: Vec<Finding>) {
        self.warnings.borrow_mut().extend(warnings);
    }

    /// Tells what was kept, after success; to stderr only where there is no log.
    pub fn tell(&self) {
        let warnings = self.warnings.take();
        if self.level > Level::Warning {
            return;
        }
        for warning in warnings {
            let text = clean(&warning.to_string());
            let mut extra = Map::new();
            extra.insert("code".into(), warning.code.name().into());
            if self.file.is_some() {
                self.line(Level::Warning, &text, &extra);
            } else if self.json {
                stderr_line(&self.format(Level::Warning, &text, &extra));
            } else {
                stderr_line(&format!("onggi: warning: {text}"));
            }
        }
    }

    /// At that level, tells a detail: to the log, or to stderr, never to stdout.
    pub fn debug(&self, text: impl FnOnce() -> String) {
        if self.level > Level::Debug {
            return;
        }
        let text = clean(&text());
        if self.file.is_some() {
            self.line(Level::Debug, &text, &Map::new());
        } else {
            stderr_line(&self.format(Level::Debug, &text, &Map::new()));
        }
    }

    fn line(&self, level: Level, text: &str, extra: &Map<String, Value>) {
        let Some(file) = &self.file else { return };
        let mut line = self.format(level, text, extra);
        line.push('\n');
        if let Err(error) = sys::fs::write_all(file.as_fd(), line.as_bytes()) {
            stderr_line(&format!("onggi: --log: {error}"));
        }
    }

    fn format(&self, level: Level, text: &str, extra: &Map<String, Value>) -> String {
        let (time, level) = (state::now_rfc3339(), level.name());
        if self.json {
            let mut line = json!({"level": level, "msg": text, "time": time});
            if let Some(line) = line.as_object_mut() {
                line.extend(extra.clone());
            }
            return line.to_string();
        }
        let mut line = format!("time=\"{time}\" level={level} msg={text:?}");
        for (name, value) in extra {
            line += &match value {
                Value::String(text) if !text.contains(' ') => format!(" {name}={text}"),
                Value::String(text) => format!(" {name}={text:?}"),
                value => format!(" {name}={:?}", value.to_string()),
            };
        }
        line
    }
}

/// Most problems and warnings beside a message.
const FINDINGS_MAX: usize = 50;

/// What the message does not say of a problem that it tells.
fn pair(problem: &Finding) -> Value {
    json!({"code": problem.code.name(), "pointer": clean(&problem.pointer)})
}

fn triple(warning: &Finding) -> Value {
    json!({"code": warning.code.name(), "pointer": clean(&warning.pointer), "text": clean(&warning.text)})
}

/// One line to stderr in one write. With nobody to read it there is nothing left to do.
pub fn stderr_line(text: &str) {
    if let Some(stderr) = sys::fs::inherited(2) {
        drop(sys::fs::write_all(stderr, format!("{text}\n").as_bytes()));
    }
}

/// Longest message in bytes: conmon reads 8191 at once.
const LIMIT: usize = 7600;

/// At most what engines read of stderr at once, and how much is missing.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let missing = text.len() - end;
    text.truncate(end);
    text + &format!(" (+{missing} bytes)")
}

/// Text for people and parsers: control characters (of ids, arguments, file names) made visible, so
/// that nothing can draw on a terminal or forge a second line.
#[must_use]
pub fn clean(text: &str) -> String {
    sys::visible(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t27_control_characters_are_made_visible() {
        assert_eq!(clean("a\u{1b}[31m\nb\tc"), "a\\u{1b}[31m\\nb\\tc");
        assert_eq!(clean("ü \"quoted\" \\"), "ü \"quoted\" \\");
    }
}
