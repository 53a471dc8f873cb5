//! The shells' completions: commands, options, choices, files, and the ids of containers that are there.

use clap::Command;
use nix::sys::signal::Signal;

use super::super::options::{COMMANDS, definition, program};
use super::{choices, help, options, positionals, value_name};

const NOTE: &str = "Written from src/cli/options.rs: ONGGI_WRITE_DOCS=1 cargo test --lib manual";

/// What the shell offers for a value.
enum Offer {
    Nothing,
    Words(String),
    Files,
    Directories,
}

fn offer(arg: &clap::Arg) -> Offer {
    match (choices(arg), value_name(arg).as_deref()) {
        (Some(choices), _) => Offer::Words(choices.join(" ")),
        (_, Some("FILE" | "SOCKET")) => Offer::Files,
        (_, Some("DIR")) => Offer::Directories,
        _ => Offer::Nothing,
    }
}

fn commands() -> Vec<Command> {
    COMMANDS.iter().map(|(name, _)| definition(name)).collect()
}

/// Commands whose id is that of a container that is there; `stats` takes any number.
fn takes_id(command: &Command) -> bool {
    let is_id = |arg: &clap::Arg| value_name(arg).as_deref() == Some("ID");
    positionals(command).iter().any(is_id) && !matches!(command.get_name(), "create" | "run")
}

fn signals() -> String {
    Signal::iterator()
        .map(|signal| signal.as_str().trim_start_matches("SIG"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// `-b --bundle` of every option.
fn words(command: &Command) -> String {
    let names = options(command).into_iter().flat_map(|arg| {
        let short = arg.get_short().map(|letter| format!("-{letter}"));
        short.into_iter().chain(arg.get_long().map(|long| format!("--{long}")))
    });
    names.collect::<Vec<_>>().join(" ")
}

/// The lines of a bash `case` for options that take a value.
fn bash_values(command: &Command, name: &str) -> String {
    let mut out = String::new();
    // spec --rootless is a switch, the global one is not.
    if name == "spec" {
        out += "    spec:--rootless) ;;\n";
    }
    for arg in options(command).iter().filter(|arg| arg.get_action().takes_values()) {
        let short = arg.get_short().map(|letter| format!("{name}:-{letter}|")).unwrap_or_default();
        let act = match offer(arg) {
            Offer::Nothing => ":".to_owned(),
            Offer::Words(words) => {
                format!("mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$cur\")")
            }
            Offer::Files => "mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")".to_owned(),
            Offer::Directories => "mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")".to_owned(),
        };
        let long = arg.get_long().unwrap_or_default();
        out += &format!("    {short}{name}:--{long}) {act}; return ;;\n");
    }
    out
}

/// Options that take a value, as a pattern, so that the value is not taken for the command or the id.
fn bash_skip() -> String {
    let mut names = Vec::new();
    for (command, name) in commands()
        .iter()
        .map(|command| (command, command.get_name()))
        .chain([(&program("features"), "*")])
    {
        for arg in options(command).iter().filter(|arg| arg.get_action().takes_values()) {
            names.extend(arg.get_short().map(|letter| format!("{name}:-{letter}")));
            names.extend(arg.get_long().map(|long| format!("{name}:--{long}")));
        }
    }
    names.join("|")
}

pub fn bash() -> String {
    let globals = program("features");
    let names = COMMANDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    let values: String = commands()
        .iter()
        .map(|command| bash_values(command, command.get_name()))
        .chain([bash_values(&globals, "*")])
        .collect();
    let mut lists =
        format!("    '') words='{names} {} -h --help -v --version' ;;\n", words(&globals));
    for command in commands() {
        let ids = match (takes_id(&command), command.get_name()) {
            (false, _) => "",
            (true, "stats") => "; ids=all",
            (true, _) => "; ids=one",
        };
        lists +=
            &format!("    {}) words='{} --help'{ids} ;;\n", command.get_name(), words(&command));
    }
    include_str!("onggi.bash.in")
        .replace("@NOTE@", NOTE)
        .replace("@SKIP@", &bash_skip())
        .replace("@VALUES@\n", &values)
        .replace("@LISTS@\n", &lists)
        .replace("@SIGNALS@", &signals())
}

fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

/// An option for zsh's `_arguments`: `'(-b --bundle)-b[help]:DIR:_files -/'`.
fn zsh_options(command: &Command) -> String {
    let mut out = String::new();
    for arg in options(command) {
        let text = quoted(&help(&arg)).replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
        let name = value_name(&arg).unwrap_or_default().replace(':', "\\:");
        let value = match (arg.get_action().takes_values(), offer(&arg)) {
            (false, _) => String::new(),
            (_, Offer::Nothing) => format!(":{name}: "),
            (_, Offer::Words(words)) => format!(":value:({words})"),
            (_, Offer::Files) => format!(":{name}:_files"),
            (_, Offer::Directories) => format!(":{name}:_files -/"),
        };
        let long = arg.get_long().unwrap_or_default();
        let equals = if value.is_empty() { "" } else { "=" };
        let short = arg.get_short();
        let group = match (text.contains("may be repeated"), short) {
            (true, _) => "*".to_owned(),
            (_, Some(letter)) => format!("(-{letter} --{long})"),
            (_, None) => format!("(--{long})"),
        };
        if let Some(letter) = short {
            out += &format!("            '{group}-{letter}[{text}]{value}' \\\n");
        }
        out += &format!("            '{group}--{long}{equals}[{text}]{value}' \\\n");
    }
    out
}

pub fn zsh() -> String {
    let mut cases = String::new();
    let mut list = String::new();
    for command in commands() {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        list += &format!("            '{name}:{}'\n", quoted(&about));
        let rest = match (takes_id(&command), name) {
            (true, "exec") => "'1:id:_onggi_ids' '*:: :_default'",
            (true, "ps") => "'1:id:_onggi_ids' '*:: : '",
            (true, "kill") => &format!("'1:id:_onggi_ids' '2:signal:({})'", signals()),
            (true, "stats") => "'*:id:_onggi_ids'",
            (true, _) => "'1:id:_onggi_ids'",
            (false, "create" | "run") => "'1:id: '",
            (false, _) => "'*:file:_files'",
        };
        cases += &format!(
            "        {name}) _arguments -S \\\n{}            '--help[Print help]' {rest} ;;\n",
            zsh_options(&command)
        );
    }
    include_str!("_onggi.in")
        .replace("@NOTE@", NOTE)
        .replace("@GLOBALS@\n", &zsh_options(&program("features")))
        .replace("@COMMANDS@\n", &list)
        .replace("@CASES@\n", &cases)
}

fn fish_options(command: &Command, when: &str) -> String {
    let mut out = String::new();
    for arg in options(command) {
        let short = arg.get_short().map(|letter| format!(" -s {letter}")).unwrap_or_default();
        let value = match (arg.get_action().takes_values(), offer(&arg)) {
            (false, _) => String::new(),
            (_, Offer::Nothing) => " -x".to_owned(),
            (_, Offer::Words(words)) => format!(" -x -a '{words}'"),
            (_, Offer::Files) => " -r -F".to_owned(),
            (_, Offer::Directories) => " -x -a '(__fish_complete_directories)'".to_owned(),
        };
        let long = arg.get_long().unwrap_or_default();
        let text = help(&arg).replace('\'', "\\'");
        out += &format!("complete -c onggi{when}{short} -l {long}{value} -d '{text}'\n");
    }
    out
}

pub fn fish() -> String {
    let mut out = include_str!("onggi.fish.in").replace("@NOTE@", NOTE);
    out += &fish_options(&program("features"), "");
    for (name, about) in COMMANDS {
        out += &format!("complete -c onggi -n __fish_use_subcommand -a {name} -d '{about}'\n");
    }
    for command in commands() {
        let name = command.get_name();
        let seen = format!(" -n '__fish_seen_subcommand_from {name}'");
        out += &fish_options(&command, &seen);
        if takes_id(&command) {
            out += &format!("complete -c onggi{seen} -a '(__onggi_ids)'\n");
        }
    }
    out + &format!("complete -c onggi -n '__fish_seen_subcommand_from kill' -a '{}'\n", signals())
}
