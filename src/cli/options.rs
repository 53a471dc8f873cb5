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

fn value(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value_name)
        .help(help)
        .action(ArgAction::Append)
        .num_args(1)
        .allow_hyphen_values(true)
        .value_parser(clap::value_parser!(OsString))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn id() -> Arg {
    Arg::new("id").required(true).value_name("ID").help("The container's id")
}

fn with_globals(command: Command) -> Command {
    command
        .arg(value("root", "DIR", "Where containers' states are kept [default: /run/onggi]"))
        .arg(value("log", "FILE", "Append messages to this file, too"))
        .arg(value("log-format", "text|json", "Form of the log's lines [default: text]"))
        .arg(value("log-level", "error|warning|debug", "What to tell [default: warning]"))
        .arg(flag("debug", "Write debug messages to the log, or to stderr without one"))
        .arg(flag("systemd-cgroup", "Let systemd make cgroups, as --cgroup-manager systemd"))
        .arg(value(
            "cgroup-manager",
            "cgroupfs|systemd|disabled",
            "Who makes cgroups [default: cgroupfs]",
        ))
        .arg(value(
            "rootless",
            "auto|true|false",
            "Let errors of cgroups pass for want of rights [default: auto]",
        ))
        .arg(value("deadline", "TIME", "Give up, and take everything back, after this time"))
        .arg(value("criu", "FILE", "Ignored, for old callers").hide(true))
}

fn pid_options(command: Command) -> Command {
    command
        .arg(value("console-socket", "SOCKET", "Send the terminal's master to this unix socket"))
        .arg(value("pidfd-socket", "SOCKET", "Send a pidfd of the process to this unix socket"))
        .arg(value("pid-file", "FILE", "Write the pid of the process to this file"))
        .arg(value("preserve-fds", "N", "Pass N more descriptors, from 3 on, to the process"))
}

fn bundle_options(command: Command) -> Command {
    let bundle = value("bundle", "DIR", "Directory of the bundle [default: the current one]");
    let config = value("config", "FILE", "The configuration in it [default: config.json]");
    pid_options(command.arg(bundle.short('b')).arg(config.short('f')))
        .arg(flag("no-pivot", "Do not use pivot_root(2), which an initramfs does not allow"))
        .arg(flag("no-new-keyring", "Keep the caller's session keyring"))
        .arg(flag("no-subreaper", "Accepted: the runtime never is a subreaper"))
}

/// The definition of one command.
pub fn definition(name: &str) -> Command {
    let known = COMMANDS.iter().find(|(known, _)| *known == name).copied();
    let (name, about) = known.unwrap_or(("help", ""));
    let command = Command::new(name).about(about);
    let format = |choice| value("format", choice, "Form of the output [default: table]").short('f');
    match name {
        "create" => bundle_options(command).arg(id()),
        "run" => bundle_options(command)
            .arg(flag("detach", "Return when the program has been executed").short('d'))
            .arg(flag("keep", "Do not delete the container when it has ended"))
            .arg(id()),
        "exec" => exec_definition(command),
        "kill" => command
            .arg(flag("all", "Signal every process of the container").short('a'))
            .arg(id())
            .arg(
                Arg::new("signal")
                    .value_name("SIGNAL")
                    .help("Name or number [default: TERM]")
                    .allow_hyphen_values(true),
            ),
        "delete" => command
            .arg(flag("force", "Kill it if it runs; succeed if it is not there").short('f'))
            .arg(id()),
        "list" => command.arg(format("table|json")).arg(flag("quiet", "Print only ids").short('q')),
        "ps" => command.arg(format("table|json")).arg(id()).arg(
            Arg::new("options")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_name("PS-OPTIONS")
                .help("Options of ps(1) for the table [default: -ef]"),
        ),
        "update" => update_definition(command),
        "events" => command
            .arg(value("interval", "TIME", "Time between statistics [default: 5s]"))
            .arg(flag("stats", "Print the statistics once"))
            .arg(id()),
        "stats" => command
            .arg(format("table|json|openmetrics"))
            .arg(flag("watch", "Go on, and print again when something happens").short('w'))
            .arg(value("interval", "TIME", "With --watch: print at least so often [default: 5s]"))
            .arg(Arg::new("ids").num_args(0..).value_name("ID").help("Containers [default: all]")),
        "gc" => command.arg(flag("dry-run", "Only tell what would be removed").short('n')),
        "spec" => command
            .arg(value("bundle", "DIR", "Where to write it [default: here]").short('b'))
            .arg(flag("rootless", "Write one for a user without rights to the host")),
        "check" => check_definition(command),
        "features" => command,
        _ => command.arg(id()),
    }
}

fn check_definition(command: Command) -> Command {
    command
        .arg(
            value("bundle", "DIR", "Directory of the bundle [default: the current one]").short('b'),
        )
        .arg(flag("host", "Tell what this host offers and lacks"))
        .arg(value("format", "text|json", "Form of the output [default: text]").short('f'))
        .arg(Arg::new("file").value_name("FILE").help("The configuration [default: config.json]"))
}

fn update_definition(command: Command) -> Command {
    let command = LIMITS.iter().fold(command, |command, (name, _, kind, help)| {
        let value_name = match kind {
            Kind::Size => "BYTES",
            Kind::Number => "N",
            Kind::Text => "LIST",
        };
        command.arg(value(name, value_name, help))
    });
    let command = IGNORED
        .iter()
        .fold(command, |command, name| command.arg(value(name, "N", "Ignored").hide(true)));
    command
        .arg(
            value("resources", "FILE", "JSON like linux.resources; - for standard input")
                .short('r'),
        )
        .arg(value("l3-cache-schema", "LINES", "Lines for the schemata of its resctrl group"))
        .arg(value("mem-bw-schema", "LINE", "Its line MB: there"))
        .arg(id())
}

fn exec_definition(command: Command) -> Command {
    let command = command
        .arg(value("process", "FILE", "Take the whole process from this JSON file").short('p'))
        .arg(value("cwd", "PATH", "Working directory in the container"))
        .arg(value("env", "NAME=VALUE", "Set a variable; may be repeated").short('e'))
        .arg(flag("tty", "Give the process a terminal").short('t'))
        .arg(value("user", "UID[:GID]", "Run as this user; numbers only").short('u'))
        .arg(value("additional-gids", "GID", "Add a group; may be repeated").short('g'))
        .arg(value("cap", "CAPABILITY", "Add a capability; may be repeated").short('c'))
        .arg(value("apparmor", "PROFILE", "AppArmor profile of the process"))
        .arg(value("process-label", "LABEL", "SELinux label of the process"))
        .arg(flag("no-new-privs", "Never let the process gain privileges"))
        .arg(flag("detach", "Return when the program has been executed").short('d'))
        .arg(value("cgroup", "[CTRL:]PATH", "Use this sub-cgroup of the container's"))
        .arg(flag("ignore-paused", "Enter a paused container, too"))
        .arg(flag("contain", "End what the process has started when it ends"))
        .arg(value("timeout", "TIME", "Kill it and all it has started after this time"))
        .arg(flag("die-with-parent", "Kill it and all it has started when the caller dies"));
    pid_options(command).arg(id()).arg(
        Arg::new("command")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .value_name("COMMAND")
            .help("The program and its arguments"),
    )
}

/// The program's definition with one command, or with all of them for help.
pub fn program(command: &str) -> Command {
    let top = Command::new("onggi")
        .about("A small OCI container runtime that leaves nothing behind")
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .term_width(120)
        .arg(flag("version", "Print version, commit and specification").short('v'));
    let top = with_globals(top);
    // Options may come after the command as well.
    let with = |name: &str| with_globals_where_free(definition(name));
    if COMMANDS.iter().any(|(known, _)| *known == command) {
        top.subcommand(with(command))
    } else {
        COMMANDS.iter().fold(top, |top, (name, _)| top.subcommand(with(name)))
    }
}

/// The global options, except those whose name the command uses itself.
fn with_globals_where_free(command: Command) -> Command {
    let taken: Vec<String> =
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
    with_globals(Command::new("globals")).get_arguments().fold(command, |command, arg| {
        let long = arg.get_long().unwrap_or_default().to_owned();
        if taken.contains(&long) { command } else { command.arg(arg.clone().hide(true)) }
    })
}
