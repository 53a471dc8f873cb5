//! Every command and every option: what `--help` prints, and what man pages and completions are written from.
//!
//! A value's name says what it is: `DIR`, `FILE` and `SOCKET` are of the host, `a|b` is a choice.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::update::{IGNORED, Kind, LIMITS};

/// Every command and what it is for.
pub const COMMANDS: &[(&str, &str)] = &[
    ("create", "Create a container from a bundle"),
    ("start", "Start a created container"),
    ("run", "Create and start a container, wait for its end and delete it"),
    ("exec", "Run a process in a container"),
    ("state", "Print the state of a container"),
    ("kill", "Send a signal to a container"),
    ("delete", "Delete a container"),
    ("pause", "Stop all processes of a container for a while"),
    ("resume", "Let the processes of a paused container go on"),
    ("update", "Change the limits of a container"),
    ("events", "Print statistics and memory shortages of a container as they come"),
    ("stats", "Print what containers use"),
    ("gc", "Remove what runtimes that were killed have left"),
    ("list", "List containers"),
    ("ps", "List the processes of a container"),
    ("spec", "Write a default config.json"),
    ("check", "Tell whether a bundle could be created on this host"),
    ("features", "Print what this runtime can do"),
];

/// An option; without a name for its value it is a flag. Tables of these and not calls for each: a call's
/// value passes through a stack of its own, page after page, at every start.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: &'static str,
    short: Option<char>,
    value_name: Option<&'static str>,
    help: &'static str,
    hidden: bool,
}

const fn flag(name: &'static str, help: &'static str) -> Entry {
    Entry { name, short: None, value_name: None, help, hidden: false }
}

const fn value(name: &'static str, value_name: &'static str, help: &'static str) -> Entry {
    Entry { value_name: Some(value_name), ..flag(name, help) }
}

impl Entry {
    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn hide(self) -> Self {
        Self { hidden: true, ..self }
    }

    fn arg(self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).help(self.help).short(self.short);
        let arg = if self.hidden { arg.hide(true) } else { arg };
        let Some(value_name) = self.value_name else { return arg.action(ArgAction::SetTrue) };
        arg.value_name(value_name)
            .action(ArgAction::Append)
            .num_args(1)
            .allow_hyphen_values(true)
            .value_parser(clap::value_parser!(OsString))
    }
}

const GLOBALS: &[Entry] = &[
    value("root", "DIR", "Where containers' states are kept [default: /run/onggi]"),
    value("log", "FILE", "Append messages to this file, too"),
    value("log-format", "text|json", "Form of the log's lines [default: text]"),
    value("log-level", "error|warning|debug", "What to tell [default: warning]"),
    flag("debug", "Write debug messages to the log, or to stderr without one"),
    flag("systemd-cgroup", "Let systemd make cgroups, as --cgroup-manager systemd"),
    value("cgroup-manager", "cgroupfs|systemd|disabled", "Who makes cgroups [default: cgroupfs]"),
    value(
        "rootless",
        "auto|true|false",
        "Let errors of cgroups pass for want of rights [default: auto]",
    ),
    value("deadline", "TIME", "Give up, and take everything back, after this time"),
    value("criu", "FILE", "Ignored, for old callers").hide(),
];

const PROCESS: &[Entry] = &[
    value("console-socket", "SOCKET", "Send the terminal's master to this unix socket"),
    value("pidfd-socket", "SOCKET", "Send a pidfd of the process to this unix socket"),
    value("pid-file", "FILE", "Write the pid of the process to this file"),
    value("preserve-fds", "N", "Pass N more descriptors, from 3 on, to the process"),
];

const BUNDLE: &[Entry] = &[
    value("bundle", "DIR", "Directory of the bundle [default: the current one]").short('b'),
    value("config", "FILE", "The configuration in it [default: config.json]").short('f'),
];

const CREATE: &[Entry] = &[
    flag("no-pivot", "Do not use pivot_root(2), which an initramfs does not allow"),
    flag("no-new-keyring", "Keep the caller's session keyring"),
    flag("no-subreaper", "Accepted: the runtime never is a subreaper"),
];

const DETACH: Entry = flag("detach", "Return when the program has been executed").short('d');
const RUN: &[Entry] = &[DETACH, flag("keep", "Do not delete the container when it has ended")];
const KILL: &[Entry] = &[flag("all", "Signal every process of the container").short('a')];
const DELETE: &[Entry] =
    &[flag("force", "Kill it if it runs; succeed if it is not there").short('f')];
const TABLE_OR_JSON: Entry =
    value("format", "table|json", "Form of the output [default: table]").short('f');
const LIST: &[Entry] = &[TABLE_OR_JSON, flag("quiet", "Print only ids").short('q')];
const EVENTS: &[Entry] = &[
    value("interval", "TIME", "Time between statistics [default: 5s]"),
    flag("stats", "Print the statistics once"),
];
const STATS: &[Entry] = &[
    value("format", "table|json|openmetrics", "Form of the output [default: table]").short('f'),
    flag("watch", "Go on, and print again when something happens").short('w'),
    value("interval", "TIME", "With --watch: print at least so often [default: 5s]"),
];
const GC: &[Entry] = &[flag("dry-run", "Only tell what would be removed").short('n')];
const SPEC: &[Entry] = &[
    value("bundle", "DIR", "Where to write it [default: here]").short('b'),
    flag("rootless", "Write one for a user without rights to the host"),
];
const CHECK: &[Entry] = &[
    value("bundle", "DIR", "Directory of the bundle [default: the current one]").short('b'),
    flag("host", "Tell what this host offers and lacks"),
    value("format", "text|json", "Form of the output [default: text]").short('f'),
];
const UPDATE: &[Entry] = &[
    value("resources", "FILE", "JSON like linux.resources; - for standard input").short('r'),
    value("l3-cache-schema", "LINES", "Lines for the schemata of its resctrl group"),
    value("mem-bw-schema", "LINE", "Its line MB: there"),
];
const EXEC: &[Entry] = &[
    value("process", "FILE", "Take the whole process from this JSON file").short('p'),
    value("cwd", "PATH", "Working directory in the container"),
    value("env", "NAME=VALUE", "Set a variable; may be repeated").short('e'),
    flag("tty", "Give the process a terminal").short('t'),
    value("user", "UID[:GID]", "Run as this user; numbers only").short('u'),
    value("additional-gids", "GID", "Add a group; may be repeated").short('g'),
    value("cap", "CAPABILITY", "Add a capability; may be repeated").short('c'),
    value("apparmor", "PROFILE", "AppArmor profile of the process"),
    value("process-label", "LABEL", "SELinux label of the process"),
    flag("no-new-privs", "Never let the process gain privileges"),
    DETACH,
    value("cgroup", "[CTRL:]PATH", "Use this sub-cgroup of the container's"),
    flag("ignore-paused", "Enter a paused container, too"),
    flag("contain", "End what the process has started when it ends"),
    value("timeout", "TIME", "Kill it and all it has started after this time"),
    flag("die-with-parent", "Kill it and all it has started when the caller dies"),
];

/// The options of one command.
fn entries(name: &str) -> Vec<Entry> {
    let lists: &[&[Entry]] = match name {
        "create" => &[BUNDLE, PROCESS, CREATE],
        "run" => &[BUNDLE, PROCESS, CREATE, RUN],
        "exec" => &[EXEC, PROCESS],
        "kill" => &[KILL],
        "delete" => &[DELETE],
        "list" => &[LIST],
        "ps" => &[&[TABLE_OR_JSON]],
        "update" => return update_entries(),
        "events" => &[EVENTS],
        "stats" => &[STATS],
        "gc" => &[GC],
        "spec" => &[SPEC],
        "check" => &[CHECK],
        _ => &[],
    };
    lists.concat()
}

fn update_entries() -> Vec<Entry> {
    let limits = LIMITS.iter().map(|(name, _, kind, help)| {
        let value_name = match kind {
            Kind::Size => "BYTES",
            Kind::Number => "N",
            Kind::Text => "LIST",
        };
        value(name, value_name, help)
    });
    let ignored = IGNORED.iter().map(|name| value(name, "N", "Ignored").hide());
    limits.chain(ignored).chain(UPDATE.iter().copied()).collect()
}

/// What one command takes besides options, in order.
fn operands(name: &str) -> Vec<Arg> {
    let id = || Arg::new("id").required(true).value_name("ID").help("The container's id");
    let rest = |name| Arg::new(name).num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    match name {
        "list" | "gc" | "spec" | "features" => Vec::new(),
        "kill" => vec![
            id(),
            Arg::new("signal")
                .value_name("SIGNAL")
                .help("Name or number [default: TERM]")
                .allow_hyphen_values(true),
        ],
        "ps" => vec![
            id(),
            rest("options")
                .value_name("PS-OPTIONS")
                .help("Options of ps(1) for the table [default: -ef]"),
        ],
        "exec" => {
            vec![id(), rest("command").value_name("COMMAND").help("The program and its arguments")]
        }
        "stats" => {
            vec![Arg::new("ids").num_args(0..).value_name("ID").help("Containers [default: all]")]
        }
        "check" => vec![
            Arg::new("file").value_name("FILE").help("The configuration [default: config.json]"),
        ],
        _ => vec![id()],
    }
}

/// The definition of one command.
pub fn definition(name: &str) -> Command {
    define(name, entries(name))
}

fn define(name: &str, entries: Vec<Entry>) -> Command {
    let known = COMMANDS.iter().find(|(known, _)| *known == name).copied();
    let (name, about) = known.unwrap_or(("help", ""));
    Command::new(name).about(about).args(entries.into_iter().map(Entry::arg)).args(operands(name))
}

/// The program's definition with one command, or with all of them for help.
pub fn program(command: &str) -> Command {
    let top = Command::new("onggi")
        .about("A small OCI container runtime that leaves nothing behind")
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .term_width(120)
        .arg(flag("version", "Print version, commit and specification").short('v').arg())
        .args(GLOBALS.iter().map(|entry| entry.arg()));
    if COMMANDS.iter().any(|(known, _)| *known == command) {
        top.subcommand(with_globals(command))
    } else {
        COMMANDS.iter().fold(top, |top, (name, _)| top.subcommand(with_globals(name)))
    }
}

/// A command whose options may be the global ones, too, except those whose name it uses itself.
fn with_globals(name: &str) -> Command {
    let mut all = entries(name);
    let own = all.clone();
    let free = GLOBALS.iter().filter(|global| own.iter().all(|own| own.name != global.name));
    all.extend(free.map(|global| global.hide()));
    define(name, all)
}
