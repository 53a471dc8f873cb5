//! The grammar of the command line: which forms of options and arguments are understood.

use std::fs;

use serde_json::json;

use crate::support::{Bundle, eventually};

/// An unknown option or command is an error like any other: logged, on stderr, code 1.
#[test]
fn row5_unknown_option_and_command_are_logged_errors() {
    require!(root);
    let bundle = Bundle::new();
    for args in [&["state", "--nonsense", "web"][..], &["nonsense"], &["kill"], &["state"]] {
        let output = bundle.onggi(args).run().exits(1);
        assert!(!output.errors().is_empty(), "{output}");
        assert!(!output.stderr.is_empty(), "{output}");
    }
}

/// containerd passes `-no-subreaper` with one dash; runc takes every long option so.
#[test]
fn row13_long_options_with_a_single_dash() {
    require!(root);
    let bundle = Bundle::sh("exit 3");
    let log = bundle.dir().join("dash.json");
    let call = bundle.onggi_without_root(&["-root"]).without_log().arg(bundle.root());
    let call = call.args(&["-log"]).arg(&log).args(&["-log-format", "json"]);
    let call = call.args(&["run", "-no-subreaper", "-no-new-keyring", "-bundle"]);
    call.arg(bundle.path()).arg("web").run().exits(3);
}

/// docker's runtimeArgs stand before the engine's own flags: the engine's, which come last, win.
#[test]
fn row15_the_last_of_a_repeated_global_option_wins() {
    require!(root);
    let bundle = Bundle::new();
    let other = bundle.dir().join("other");
    let call = bundle.onggi_without_root(&["--root"]).arg(&other).arg("--root");
    let log = bundle.dir().join("other.log");
    let call = call.arg(bundle.root()).without_log();
    let call = call.global(&["--log", log.to_str().unwrap(), "--log-format", "text"]);
    let last = bundle.dir().join("last.json");
    let call = call.global(&["--log", last.to_str().unwrap(), "--log-format", "json"]);
    call.args(&["create", "--bundle"]).arg(bundle.path()).arg("web").run().ok();
    assert_eq!(bundle.state_entries(), ["web"]);
    assert!(!other.exists() || fs::read_dir(&other).unwrap().count() == 0);
    assert!(last.exists());
}

/// `exec ID sh -c …` and `ps ID -ef`: what follows the id is not ours.
#[test]
fn options_after_the_id_belong_to_the_command() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.exec(&["echo", "--help", "-d"]).ok().stdout, "--help -d\n");
    assert!(web.call("ps", &[]).args(&["-ef"]).run().ok().stdout.contains("PPID"));
}

/// CRI-O gives options before or after the id for commands that take no command line.
#[test]
fn options_stand_before_or_after_the_id() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    bundle.onggi(&["create", "web", "--bundle"]).arg(bundle.path()).run().ok();
    assert_eq!(web.status(), "created");
    bundle.onggi(&["delete", "web", "--force"]).run().ok();
    bundle.assert_clean();
}

/// go-runc writes booleans with a value.
#[test]
fn boolean_options_take_true_and_false() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.call("create", &["--no-pivot=false", "--no-new-keyring=true"]).run().ok();
    web.start().ok();
    web.call("delete", &["--force=false"]).run().fails_with("not stopped");
    assert_eq!(web.status(), "running");
    web.call("delete", &["--force=true"]).run().ok();
    bundle.assert_clean();
}

/// CRI-O writes `kill -a`, conmon-rs `exec -d`, people all of them.
#[test]
fn short_options_mean_the_same_as_long_ones() {
    require!(root);
    let bundle = Bundle::new();
    bundle.onggi(&["create", "-b"]).arg(bundle.path()).arg("web").run().ok();
    let web = bundle.container("web");
    web.start().ok();
    assert_eq!(bundle.onggi(&["list", "-q"]).run().ok().stdout, "web\n");
    let list = bundle.onggi(&["list", "-f", "json"]).run().ok().json();
    assert_eq!(list[0]["id"], "web");
    assert_eq!(web.call("ps", &["-f", "json"]).run().ok().json(), json!([web.init().0]));
    let exec = web.call("exec", &["-e", "A=1", "-u", "1:2"]);
    assert_eq!(exec.args(&["sh", "-c", "echo $A $(id -u) $(id -g)"]).run().ok().stdout, "1 1 2\n");
    let process = json!({ "args": ["touch", "/tmp/by-p"], "env": ["PATH=/bin"], "cwd": "/",
                          "user": { "uid": 0, "gid": 0 } });
    fs::write(bundle.dir().join("process.json"), process.to_string()).unwrap();
    let file = bundle.dir().join("process.json");
    web.call("exec", &["-d", "-p", file.to_str().unwrap()]).run().ok();
    eventually("-d -p has run", || bundle.rootfs().join("tmp/by-p").exists().then_some(()));
    web.call("kill", &["-a"]).arg("9").run().ok();
    web.becomes("stopped");
    web.call("delete", &["-f"]).run().ok();
    bundle.assert_clean();
}

/// Too few or too many arguments: one error in the words that people know from runc.
#[test]
fn wrong_number_of_arguments_is_named() {
    require!(root);
    let bundle = Bundle::new();
    let cases: [(&[&str], &str); 6] = [
        (&["kill"], r#""kill" requires a minimum of 1 argument"#),
        (&["exec"], r#""exec" requires a minimum of 1 argument"#),
        (&["create"], r#""create" requires "#),
        (&["state"], r#""state" requires "#),
        (&["start", "a", "b"], "argument"),
        (&["delete", "a", "b"], "argument"),
    ];
    for (args, text) in cases {
        // exec has its own code for whatever goes wrong before the process runs.
        let code = if args[0] == "exec" { 255 } else { 1 };
        let output = bundle.onggi(args).run().fails_with(text);
        assert!([1, code].contains(&output.code()), "{output}");
    }
}

/// An id that looks like an option is a mistake, not an option.
#[test]
fn double_dash_ends_the_options() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let exec = bundle.onggi(&["exec", "--", "web", "echo", "--", "-x"]);
    assert_eq!(exec.run().ok().stdout, "-- -x\n");
    bundle.onggi(&["state", "--", "-v"]).run().fails();
}
