//! Writes `man/*.8` and `completions/` from the options and from `man/text.mdoc`, and tests that they are
//! up to date: `ONGGI_WRITE_DOCS=1 cargo test --lib manual`.
//!
//! `text.mdoc` has what help lines cannot say. Its parts begin with `## KEY`: `COMMAND` is a page's
//! description, `COMMAND --OPTION` (or `--OPTION`, of any command) goes on after an option's line, and
//! `COMMAND, after` are sections behind the options. `onggi` is the page of the program itself.
#![allow(clippy::disallowed_methods)]

mod completions;

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, Command};

use super::options::{COMMANDS, definition, program};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The hand-written parts by key; the date is the part without one.
fn parts(text: &str) -> BTreeMap<&str, &str> {
    let mut parts = BTreeMap::new();
    for (index, part) in text.split("\n## ").enumerate() {
        let (key, body) =
            if index == 0 { ("", part) } else { part.split_once('\n').unwrap_or((part, "")) };
        assert!(parts.insert(key, body.trim_end()).is_none(), "text.mdoc: twice: {key}");
    }
    parts
}

fn visible(command: &Command) -> Vec<Arg> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    shown.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")).cloned().collect()
}

fn options(command: &Command) -> Vec<Arg> {
    visible(command).into_iter().filter(|arg| arg.get_long().is_some()).collect()
}

fn positionals(command: &Command) -> Vec<Arg> {
    visible(command).into_iter().filter(|arg| arg.get_long().is_none()).collect()
}

/// The name of an option's value; none for switches.
fn value_name(arg: &Arg) -> Option<String> {
    let takes = arg.get_action().takes_values();
    takes.then(|| arg.get_value_names().and_then(<[_]>::first).map(ToString::to_string)).flatten()
}

fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

fn choices(arg: &Arg) -> Option<Vec<String>> {
    let name = value_name(arg)?;
    name.contains('|').then(|| name.split('|').map(str::to_owned).collect())
}

/// `.It Fl b , Fl -bundle Ar dir` and what it is for.
fn item(command: &str, arg: &Arg, parts: &BTreeMap<&str, &str>) -> String {
    let long = arg.get_long().unwrap_or_default();
    let short = arg.get_short().map(|letter| format!("Fl {letter} , ")).unwrap_or_default();
    let value = match (choices(arg), value_name(arg)) {
        (Some(choices), _) => format!(" Cm {}", choices.join(" | ")),
        (None, Some(name)) => format!(" Ar {}", name.to_lowercase()),
        (None, None) => String::new(),
    };
    let mut out = format!(".It {short}Fl -{long}{value}\n{}.\n", help(arg));
    let own = parts.get(format!("{command} --{long}").as_str());
    if let Some(more) = own.or_else(|| parts.get(format!("--{long}").as_str())) {
        out += &format!("{more}\n");
    }
    out
}

fn list(command: &str, args: &[Arg], parts: &BTreeMap<&str, &str>) -> String {
    let items: String = args.iter().map(|arg| item(command, arg, parts)).collect();
    format!(".Bl -tag -width Ds\n{items}.El\n")
}

fn head(page: &str, about: &str, date: &str) -> String {
    format!(
        ".\\\" Written from src/cli/options.rs and man/text.mdoc: see there.\n.Dd {date}\n.Dt {} 8\n.Os\n\
         .Sh NAME\n.Nm {page}\n.Nd {about}\n.Sh SYNOPSIS\n",
        page.to_uppercase()
    )
}

/// One command's page.
fn command_page(name: &str, about: &str, parts: &BTreeMap<&str, &str>) -> String {
    let command = definition(name);
    let about =
        about.to_lowercase().chars().take(1).chain(about.chars().skip(1)).collect::<String>();
    let mut out = head(&format!("onggi-{name}"), &about, parts[""].trim());
    out += &format!(".Nm onggi\n.Op Ar global options\n.Cm {name}\n");
    let options = options(&command);
    if !options.is_empty() {
        out += ".Op Ar options\n";
    }
    for arg in positionals(&command) {
        let name = arg.get_value_names().and_then(<[_]>::first).map(|name| name.to_lowercase());
        let more = if arg.get_num_args().is_some_and(|count| count.max_values() > 1) {
            " ..."
        } else {
            ""
        };
        let name = name.unwrap_or_default() + more;
        out += &if arg.is_required_set() {
            format!(".Ar {name}\n")
        } else {
            format!(".Op Ar {name}\n")
        };
    }
    out += &format!(
        ".Sh DESCRIPTION\n{}\n",
        parts.get(name).copied().unwrap_or("Nothing more to say.")
    );
    if !options.is_empty() {
        out += &format!(".Sh OPTIONS\n{}", list(name, &options, parts));
    }
    if let Some(after) = parts.get(format!("{name}, after").as_str()) {
        out += &format!("{after}\n");
    }
    out + ".Sh SEE ALSO\n.Xr onggi 8 ,\nfor global options, environment, files and exit codes\n"
}

/// The page of the program.
fn program_page(parts: &BTreeMap<&str, &str>) -> String {
    let mut out = head("onggi", "OCI container runtime", parts[""].trim());
    out += ".Nm\n.Op Ar global options\n.Ar command\n.Op Ar argument ...\n.Nm\n.Fl -version | Fl -help\n";
    out += &format!(".Sh DESCRIPTION\n{}\n.Sh GLOBAL OPTIONS\n", parts["onggi"]);
    let last = ".It Fl h , Fl -help\nPrint the options, of a command if there is one.\n\
                .It Fl v , Fl -version\nPrint the version, the commit and the version of the specification.\n.El\n";
    out += &list("onggi", &options(&program("features")), parts).replace(".El\n", last);
    out += ".Sh COMMANDS\nEach has a page of its own.\n.Bl -tag -width Ds\n";
    for (name, about) in COMMANDS {
        out += &format!(".It Xr onggi-{name} 8\n{about}.\n");
    }
    out + ".El\n" + parts["onggi, after"] + "\n"
}

/// Every file that is written, by its path in the repository.
fn files() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("man/text.mdoc")).unwrap_or_default();
    let parts = parts(&text);
    let mut files = BTreeMap::from([
        ("man/onggi.8".to_owned(), program_page(&parts)),
        ("completions/onggi.bash".to_owned(), completions::bash()),
        ("completions/_onggi".to_owned(), completions::zsh()),
        ("completions/onggi.fish".to_owned(), completions::fish()),
    ]);
    for (name, about) in COMMANDS {
        files.insert(format!("man/onggi-{name}.8"), command_page(name, about, &parts));
    }
    files
}

#[test]
fn manual_pages_and_completions_are_written_from_the_options() {
    for (path, text) in files() {
        let path = Path::new(ROOT).join(path);
        if std::env::var_os("ONGGI_WRITE_DOCS").is_some() {
            assert!(std::fs::write(&path, &text).is_ok(), "{}", path.display());
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let name = path.display();
        assert!(kept == text, "{name} is out of date: ONGGI_WRITE_DOCS=1 cargo test --lib manual");
    }
}

#[test]
fn manual_has_no_page_of_a_command_that_is_gone() {
    let files = files();
    for entry in std::fs::read_dir(Path::new(ROOT).join("man")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name == "text.mdoc" || files.contains_key(&format!("man/{name}")), "{name}");
    }
}

#[test]
fn manual_text_is_of_commands_and_options_that_are_there() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("man/text.mdoc")).unwrap_or_default();
    let has = |command: &Command, long: &str| {
        options(command).iter().any(|arg| arg.get_long() == long.strip_prefix("--"))
    };
    let commands: Vec<Command> = COMMANDS.iter().map(|(name, _)| definition(name)).collect();
    for key in parts(&text).keys().filter(|key| !key.is_empty()) {
        let name = key.strip_suffix(", after").unwrap_or(key);
        let (name, option) = name
            .split_once("--")
            .map_or((name, None), |(name, long)| (name.trim(), Some(format!("--{long}"))));
        let of = commands.iter().find(|command| command.get_name() == name);
        let known = match (name, of, option) {
            ("onggi", _, None) | (_, Some(_), None) => true,
            ("onggi", _, Some(option)) => has(&program("features"), &option),
            ("", _, Some(option)) => commands.iter().any(|command| has(command, &option)),
            (_, Some(command), Some(option)) => has(command, &option),
            _ => false,
        };
        assert!(known, "man/text.mdoc: {key}: no such command or option");
    }
}

#[test]
fn help_says_something_short_of_every_command_and_option() {
    let mut commands: Vec<Command> = COMMANDS.iter().map(|(name, _)| definition(name)).collect();
    commands.push(program("features"));
    for command in &commands {
        for arg in visible(command) {
            let (name, help) = (arg.get_id(), help(&arg));
            let place = format!("{} {name}: {help:?}", command.get_name());
            assert!(help.chars().next().is_some_and(char::is_uppercase), "{place}");
            assert!(help.len() < 90 && !help.ends_with('.'), "{place}");
            assert!(value_name(&arg).is_some() == arg.get_action().takes_values(), "{place}");
        }
    }
}
