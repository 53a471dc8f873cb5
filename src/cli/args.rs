//! What the command line may look like, and what engines do to it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::ArgMatches;

use super::options::{COMMANDS, definition, program};
use crate::bundle;
use crate::log::{Level, Log};

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Stop {
    /// Help or version was printed.
    Printed,
    /// A usage error, and the log it should go to.
    Usage(String, Option<Log>),
}

/// Global options that take a value.
const GLOBAL_VALUES: &[&str] =
    &["root", "log", "log-format", "log-level", "cgroup-manager", "rootless", "criu", "deadline"];
/// Global options that are on or off.
const GLOBAL_FLAGS: &[&str] = &["debug", "systemd-cgroup"];
/// Options of commands that are on or off, for `--flag=true`.
const FLAGS: &[&str] = &[
    "all",
    "contain",
    "detach",
    "die-with-parent",
    "dry-run",
    "force",
    "host",
    "ignore-paused",
    "keep",
    "no-new-keyring",
    "no-new-privs",
    "no-pivot",
    "no-subreaper",
    "quiet",
    "rootless",
    "stats",
    "tty",
    "watch",
];

/// Commands whose process enters a container.
#[must_use]
pub fn enters_container(command: &str) -> bool {
    matches!(command, "create" | "run" | "exec")
}

/// Brings what engines write into one form: long options with one dash (`-no-subreaper`, containerd)
/// get two, `--flag=true` becomes `--flag` and `--flag=false` nothing (go-runc). What comes after the
/// command's first own word is left alone where it belongs to the container.
#[must_use]
pub fn normalize(args: Vec<Vec<u8>>) -> Vec<OsString> {
    let mut out = Vec::with_capacity(args.len());
    let mut command: Option<Vec<u8>> = None;
    let mut free = false;
    let mut value_follows = false;
    for arg in args {
        if free || value_follows {
            value_follows = false;
            out.push(OsString::from_vec(arg));
            continue;
        }
        if arg.first() != Some(&b'-') || arg == b"-" {
            match &command {
                None => command = Some(arg.clone()),
                Some(name) => free = stops_at_id(name),
            }
            out.push(OsString::from_vec(arg));
            continue;
        }
        if arg == b"--" {
            free = true;
            out.push(OsString::from_vec(arg));
            continue;
        }
        let arg = one_form(&arg, command.as_deref());
        value_follows = takes_value(&arg, command.as_deref());
        match arg.strip_suffix(b"=true") {
            Some(flag) if is_flag(flag, command.as_deref()) => {
                out.push(OsString::from_vec(flag.to_vec()));
            }
            _ => match arg.strip_suffix(b"=false") {
                Some(flag) if is_flag(flag, command.as_deref()) => {}
                _ => out.push(OsString::from_vec(arg)),
            },
        }
    }
    out
}

/// A long option with two dashes.
fn one_form(arg: &[u8], command: Option<&[u8]>) -> Vec<u8> {
    let name = arg.get(1..).unwrap_or_default();
    let word = name.split(|byte| *byte == b'=').next().unwrap_or_default();
    if !arg.starts_with(b"--") && word.len() > 1 && is_long_option(word, command) {
        return [b"-", arg].concat();
    }
    arg.to_vec()
}

fn is_long_option(word: &[u8], command: Option<&[u8]>) -> bool {
    let word = String::from_utf8_lossy(word);
    GLOBAL_VALUES.contains(&&*word)
        || GLOBAL_FLAGS.contains(&&*word)
        || matches!(&*word, "help" | "version")
        || command.is_some_and(|command| {
            let command = definition(&String::from_utf8_lossy(command));
            command.get_arguments().any(|arg| arg.get_long() == Some(&*word))
        })
}

fn is_flag(arg: &[u8], command: Option<&[u8]>) -> bool {
    let name = String::from_utf8_lossy(arg.strip_prefix(b"--").unwrap_or_default());
    // The global --rootless has a value; that of spec has none.
    let spec = command == Some(b"spec");
    GLOBAL_FLAGS.contains(&&*name) || (FLAGS.contains(&&*name) && (name != "rootless" || spec))
}

/// Whether an option's value is the next word.
fn takes_value(arg: &[u8], command: Option<&[u8]>) -> bool {
    if arg.contains(&b'=') {
        return false;
    }
    let text = String::from_utf8_lossy(arg);
    if let Some(name) = text.strip_prefix("--") {
        if GLOBAL_VALUES.contains(&name) && !(name == "rootless" && command == Some(b"spec")) {
            return true;
        }
        return command.is_some_and(|command| {
            let command = definition(&String::from_utf8_lossy(command));
            let found = command.get_arguments().find(|arg| arg.get_long() == Some(name));
            found.is_some_and(|arg| arg.get_action().takes_values())
        });
    }
    let mut letters = text.chars().skip(1);
    match (letters.next(), letters.next()) {
        (Some(letter), None) => command.is_some_and(|command| {
            let command = definition(&String::from_utf8_lossy(command));
            let found = command.get_arguments().find(|arg| arg.get_short() == Some(letter));
            found.is_some_and(|arg| arg.get_action().takes_values())
        }),
        _ => false,
    }
}

/// The command's name: the first word that is no option and no option's value.
#[must_use]
pub fn command_of(args: &[OsString]) -> Option<String> {
    let mut skip = false;
    for arg in args {
        if std::mem::take(&mut skip) {
            continue;
        }
        let text = arg.to_string_lossy();
        match text.strip_prefix("--") {
            Some(name) => skip = GLOBAL_VALUES.contains(&name),
            None if text.starts_with('-') => {}
            None => return Some(text.into_owned()),
        }
    }
    None
}

/// Parses a normalized command line.
pub fn parse(command: &str, args: Vec<OsString>) -> Result<ArgMatches, Stop> {
    let log = || open_log(own_words(&args));
    if command.is_empty() && args.iter().any(|arg| arg == "--version" || arg == "-v") {
        return print(&super::features::version());
    }
    if command.is_empty() || COMMANDS.iter().all(|(known, _)| *known != command) {
        let asked = command.is_empty() || command == "help";
        if asked {
            return print(&program("").render_help().to_string());
        }
        return Err(Stop::Usage(format!("no such command: {command:?}"), log()));
    }
    let words = std::iter::once(OsString::from("onggi")).chain(args.iter().cloned());
    program(command).try_get_matches_from(words).map_err(|error| match error.kind() {
        clap::error::ErrorKind::DisplayHelp => match print(&error.render().to_string()) {
            Ok(_) | Err(Stop::Printed) => Stop::Printed,
            Err(stop) => stop,
        },
        _ => Stop::Usage(usage_text(command, &error), log()),
    })
}

fn print(text: &str) -> Result<ArgMatches, Stop> {
    match super::print(text) {
        Ok(()) => Err(Stop::Printed),
        Err(error) => Err(Stop::Usage(error.to_string(), None)),
    }
}

/// clap's message in one line, in the words engines know for a missing id.
fn usage_text(command: &str, error: &clap::Error) -> String {
    if error.kind() == clap::error::ErrorKind::MissingRequiredArgument {
        let count = usize::from(command != "list");
        return format!("\"{command}\" requires a minimum of {count} argument(s)");
    }
    let text = error.render().to_string();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    first.trim_start_matches("error: ").to_owned()
}

/// The words of a normalized command line in which options are the runtime's: those after the id of some
/// commands, and after `--`, are the container's.
fn own_words(args: &[OsString]) -> &[OsString] {
    let mut command: Option<&[u8]> = None;
    let mut value_follows = false;
    for (index, arg) in args.iter().map(|arg| arg.as_bytes()).enumerate() {
        let is_option = arg.first() == Some(&b'-') && arg != b"-";
        let ends = match command {
            _ if std::mem::take(&mut value_follows) => false,
            _ if is_option => {
                value_follows = takes_value(arg, command);
                arg == b"--"
            }
            None => {
                command = Some(arg);
                false
            }
            Some(command) => stops_at_id(command),
        };
        if ends {
            return args.get(..index).unwrap_or_default();
        }
    }
    args
}

/// Whether options after the command's first own word belong to the container.
fn stops_at_id(command: &[u8]) -> bool {
    matches!(command, b"exec" | b"kill" | b"ps")
}

/// The log of a command line that does not parse, as far as it can be made out.
fn open_log(args: &[OsString]) -> Option<Log> {
    let find = |name: &str| {
        let with_value = format!("--{name}=");
        args.iter().enumerate().rev().find_map(|(index, arg)| {
            let text = arg.to_string_lossy();
            if let Some(value) = text.strip_prefix(&with_value) {
                return Some(value.to_owned());
            }
            let follows = text == format!("--{name}");
            follows.then(|| args.get(index + 1).map(|v| v.to_string_lossy().into_owned())).flatten()
        })
    };
    let path = bundle::absolute(find("log")?.as_ref()).ok()?;
    let format = find("log-format").unwrap_or_else(|| "text".to_owned());
    Log::open(Some(&path), &format, Level::default()).ok()
}

/// The last value of an option of the command.
#[must_use]
pub fn last<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a OsStr> {
    let mut values = matches.try_get_many::<OsString>(name).ok().flatten()?;
    values.next_back().map(OsString::as_os_str)
}

/// All values of an option, as text.
#[must_use]
pub fn all(matches: &ArgMatches, name: &str) -> Vec<String> {
    let values = matches.try_get_many::<OsString>(name).ok().flatten();
    values.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect()
}

/// Whether an on-or-off option of the command is on.
#[must_use]
pub fn is_on(matches: &ArgMatches, name: &str) -> bool {
    matches.try_get_one::<bool>(name).ok().flatten().is_some_and(|on| *on)
}

/// A global option's last value: after the command it wins over before it.
#[must_use]
pub fn global(top: &ArgMatches, sub: &ArgMatches, name: &str) -> Option<String> {
    last(sub, name).or_else(|| last(top, name)).map(|value| value.to_string_lossy().into_owned())
}

/// Whether a global on-or-off option is on.
#[must_use]
pub fn global_flag(top: &ArgMatches, sub: &ArgMatches, name: &str) -> bool {
    is_on(top, name) || is_on(sub, name)
}

/// The container id, where the command has one.
#[must_use]
pub fn optional_id(matches: &ArgMatches) -> Option<String> {
    matches.try_get_one::<String>("id").ok().flatten().cloned()
}

/// A path option made absolute against the caller's directory.
pub fn path(matches: &ArgMatches, name: &str) -> crate::error::Result<Option<std::path::PathBuf>> {
    last(matches, name)
        .filter(|value| !value.as_bytes().is_empty())
        .map(|value| bundle::absolute(value.as_ref()))
        .transpose()
}

/// `LISTEN_FDS`, if they are for this very process (sd_listen_fds(3)).
#[must_use]
pub fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let own = |pid| pid == crate::sys::process::getpid().cast_unsigned();
    if number("LISTEN_PID").is_some_and(own) { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}

/// How many descriptors from 3 on are the container's. Those of socket activation are for its first process
/// only, as with runc and crun.
#[must_use]
pub fn inherited(command: &str, matches: &ArgMatches) -> u32 {
    let activated = if command == "exec" { 0 } else { listen_fds() };
    let preserved = last(matches, "preserve-fds")
        .and_then(|value| value.to_str())
        .and_then(|value| value.parse::<u32>().ok())
        .unwrap_or(0);
    activated.saturating_add(preserved).min(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::{normalize, own_words};

    #[test]
    fn options_behind_the_id_are_the_containers() {
        for (line, own) in [
            ("--log L exec --unknown ID prog --log F", 4),
            ("--log L exec --cwd /x ID prog --log F", 5),
            ("exec --log L ID --log F", 3),
            ("--debug kill ID --log F", 2),
            ("ps ID --log F", 1),
            ("create --log L ID --log F", 6),
            ("create ID -- --log F", 2),
            ("exec", 1),
            ("", 0),
        ] {
            let words = line.split_ascii_whitespace().map(|word| word.as_bytes().to_vec());
            let words = normalize(words.collect());
            assert_eq!(own_words(&words).len(), own, "{line}");
        }
    }
}
