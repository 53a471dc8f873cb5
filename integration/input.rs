//! Bad input: everything rejectable is rejected before the first side effect, all errors of a
//! config at once, each with its JSON pointer.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::refusal::{refused, refused_at};
use crate::support::{Bundle, Config, Output, host, patience};

/// One thing at a time: set the value at the first pointer; the error must be at the second.
#[track_caller]
fn each_is_refused(cases: &[(&str, Value, &str)]) {
    for (place, value, pointer) in cases {
        let bundle = Bundle::with(|config| config.set(place, value.clone()));
        let web = bundle.container("web");
        let output = web.create();
        assert_eq!(output.code(), 1, "{place} = {value}: {output}");
        assert!(output.stderr.contains(&format!("{pointer}:")), "{place} = {value}: {output}");
        bundle.assert_clean();
    }
}

/// T26, CVE-2024-40635: what is no id must never become root. (uid 4294967295 is "leave alone".)
#[test]
fn t26_uid_and_gid_that_are_no_ids_are_refused() {
    require!(root);
    let numbers = [
        json!(4_294_967_295_u64),
        json!(4_294_967_296_u64),
        json!(-1),
        json!(1.5),
        json!("0"),
        json!(null),
    ];
    for value in numbers {
        each_is_refused(&[
            ("/process/user/uid", value.clone(), "/process/user/uid"),
            ("/process/user/gid", value, "/process/user/gid"),
        ]);
    }
    each_is_refused(&[
        (
            "/process/user/additionalGids",
            json!([1, 4_294_967_295_u64]),
            "/process/user/additionalGids/1",
        ),
        ("/process/user/umask", json!(0o1777), "/process/user/umask"),
    ]);
}

/// T26: numbers that only look like whole ones.
#[test]
fn t26_uid_as_1e3_or_1_0_is_refused_or_exact() {
    require!(root);
    for (text, exact) in [("1e3", "1000"), ("1.0", "1")] {
        let bundle =
            Bundle::with(|config| config.set("/process/user/uid", 77_777).args(&["id", "-u"]));
        let config = bundle.config().0.to_string();
        bundle.write(config.replace("77777", text));
        let web = bundle.container("web");
        let output = web.run();
        let clean = output.code() == 1 && output.stderr.contains("/process/user/uid:");
        assert!(clean || output.stdout.trim() == exact, "{text}: {output}");
    }
}

#[test]
fn process_that_cannot_be_is_refused() {
    require!(root);
    each_is_refused(&[
        ("/process/cwd", json!("relative"), "/process/cwd"),
        ("/process/cwd", json!(""), "/process/cwd"),
        ("/process/args", json!([]), "/process/args"),
        ("/process/args", json!(["", "x"]), "/process/args"),
        ("/process/args/0", json!(7), "/process/args/0"),
        ("/process/env", json!(["=x"]), "/process/env/0"),
        ("/process/oomScoreAdj", json!(1001), "/process/oomScoreAdj"),
        ("/process/noNewPrivileges", json!("yes"), "/process/noNewPrivileges"),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "/process/ioPriority/priority",
        ),
        ("/process/scheduler", json!({ "policy": "SCHED_NO_SUCH" }), "/process/scheduler/policy"),
        (
            "/process/capabilities/effective",
            json!(["CAP_CHOWN"]),
            "/process/capabilities/effective",
        ),
    ]);
}

#[test]
fn hook_timeout_0_and_relative_path_are_refused_at_create() {
    require!(root);
    for kind in
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    {
        let place = format!("/hooks/{kind}");
        each_is_refused(&[
            (&place, json!([{ "path": "/bin/true", "timeout": 0 }]), &format!("{place}/0/timeout")),
            (
                &place,
                json!([{ "path": "/bin/true", "timeout": -1 }]),
                &format!("{place}/0/timeout"),
            ),
            (
                &place,
                json!([{ "path": "/bin/true" }, { "path": "bin/true" }]),
                &format!("{place}/1/path"),
            ),
        ]);
    }
}

#[test]
fn oci_version_that_is_not_supported_is_refused() {
    require!(root);
    for version in ["2.0.0", "0.9.0", "", "1.0", "one", "1.0.0.0", "v1.0.0"] {
        each_is_refused(&[("/ociVersion", json!(version), "/ociVersion")]);
    }
    let bundle = Bundle::with(|config| config.remove("/ociVersion"));
    let output = refused(&bundle);
    assert!(output.stderr.contains("ociVersion"), "{output}");
}

#[test]
fn oci_version_from_1_0_0_to_newer_minors_is_accepted() {
    require!(root);
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0", "1.99.0"] {
        let bundle =
            Bundle::with(|config| config.set("/ociVersion", version).args(&["echo", "runs"]));
        assert_eq!(bundle.container("web").run().ok().stdout, "runs\n", "{version}");
    }
}

/// The spec: unknown properties MUST be ignored.
#[test]
fn unknown_properties_are_ignored() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/noSuchThing", json!({ "a": [1] })).set("/process/noSuchThing", 1);
        config.set("/linux/noSuchThing", "x").set("/mounts/0/noSuchThing", true);
        config.args(&["echo", "runs"])
    });
    assert_eq!(bundle.container("web").run().ok().stdout, "runs\n");
}

#[test]
fn linux_section_that_cannot_be_is_refused() {
    require!(root);
    each_is_refused(&[
        ("/linux/maskedPaths", json!(["/proc/kcore", "proc/keys"]), "/linux/maskedPaths/1"),
        ("/linux/readonlyPaths", json!(["proc/sys"]), "/linux/readonlyPaths/0"),
        ("/linux/cgroupsPath", json!("/a/../../../etc"), "/linux/cgroupsPath"),
        ("/linux/cgroupsPath", json!("../up"), "/linux/cgroupsPath"),
        ("/linux/cgroupsPath", json!("/a\nb"), "/linux/cgroupsPath"),
        ("/linux/rootfsPropagation", json!("up"), "/linux/rootfsPropagation"),
        ("/linux/personality", json!({ "domain": "WINDOWS" }), "/linux/personality/domain"),
        (
            "/linux/devices",
            json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 4_294_967_295_u64 }]),
            "/linux/devices/0/uid",
        ),
        ("/annotations", json!({ "": "value" }), "/annotations"),
        ("/mounts", json!([{ "destination": "", "type": "tmpfs" }]), "/mounts/0/destination"),
        ("/mounts", json!([{ "destination": "/x", "options": ["bind"] }]), "/mounts/0/source"),
        ("/mounts", json!({}), "/mounts"),
        ("/hostname", json!(7), "/hostname"),
        ("/root/path", json!(""), "/root/path"),
    ]);
}

#[test]
fn linux_section_missing_is_refused() {
    require!(root);
    let bundle = Bundle::with(|config| config.remove("/linux"));
    let output = refused(&bundle);
    assert!(output.stderr.contains("/linux:"), "{output}");
}

/// All errors of a config at once.
#[test]
fn all_errors_are_told_at_once_each_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/ociVersion", "2.0.0").set("/process/cwd", "relative");
        config.push("/process/rlimits", json!({ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 }));
        config.set("/process/user/uid", 4_294_967_295_u32).set("/hostname", "h".repeat(65));
        config
            .hook("poststop", "relative", &["x"])
            .push("/linux/namespaces", json!({ "type": "ipc" }));
        config.set("/linux/sysctl", json!({ "kernel.core_pattern": "x" }));
        config.set("/annotations", json!({ "": "x" })).push("/linux/maskedPaths", "relative".into())
    });
    let masked = bundle.config()["linux"]["maskedPaths"].as_array().unwrap().len() - 1;
    let namespace = bundle.config()["linux"]["namespaces"].as_array().unwrap().len() - 1;
    refused_at(
        &bundle,
        &[
            "/ociVersion",
            "/process/cwd",
            "/process/rlimits/1",
            "/process/user/uid",
            "/hostname",
            "/hooks/poststop/0/path",
            &format!("/linux/namespaces/{namespace}"),
            "/linux/sysctl/kernel.core_pattern",
            "/annotations",
            &format!("/linux/maskedPaths/{masked}"),
        ],
    );
}

/// Errors of the types, which come before those of the meaning, are all told, too.
#[test]
fn all_wrong_types_are_told_at_once_each_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/hostname", 7).set("/process/user/uid", -1).set("/linux/maskedPaths", "x");
        config.set("/process/terminal", "no")
    });
    let pointers = ["/hostname", "/process/user/uid", "/linux/maskedPaths", "/process/terminal"];
    refused_at(&bundle, &pointers);
}

/// docker and podman read the error in one piece of 8 KiB.
#[test]
fn errors_without_end_are_cut_with_a_count() {
    require!(root);
    let bundle =
        Bundle::with(|config| config.set("/linux/maskedPaths", json!(vec!["relative"; 2000])));
    let output = refused_at(&bundle, &["/linux/maskedPaths/0"]);
    assert!(output.stderr.len() < 8192 && output.stderr.contains("more)"), "{output}");
}

/// Nothing may be there before the verdict: no state directory, no cgroup, no file in the rootfs.
#[test]
fn rejected_before_the_first_side_effect() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.hook("createRuntime", "/bin/true", &["true"]);
        config.bind("/etc", "/made", &[]).set("/process/cwd", "relative")
    });
    let marker = bundle.dir().join("hook-has-run");
    let touch = format!("touch {}", marker.display());
    bundle.edit(|config| config.hook("prestart", "/bin/sh", &["sh", "-c", &touch]));
    refused(&bundle);
    assert!(!bundle.root().join("web").exists() && !marker.exists());
    assert!(!bundle.rootfs().join("made").exists());
    for root in host::hierarchies() {
        assert!(!root.join(bundle.name()).exists());
    }
}

/// Far below any wait that would be an attack's success; 5 s unless the machine is a slow one.
fn soon() -> Duration {
    patience() / 6
}

/// A config.json with this text must be refused soon, whatever it is.
#[track_caller]
fn text_is_refused(text: impl AsRef<[u8]>, word: &str) -> Output {
    let bundle = Bundle::new();
    bundle.write(text);
    let web = bundle.container("web");
    let create = web.call("create", &[]).timeout(soon());
    let output = create.run();
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains(word), "no {word:?} in {output}");
    assert!(output.stderr.len() < 8192 && !output.stderr.contains("panicked"));
    bundle.assert_clean();
    output
}

/// The valid config as text, with something put in after its first brace.
fn with_member(member: &str) -> String {
    let text = Bundle::new().config().0.to_string();
    text.replacen('{', &format!("{{{member},"), 1)
}

#[test]
fn json_that_is_broken_is_refused() {
    require!(root);
    for text in ["", "{", "null", "[]", "{}", "not json", "{\"ociVersion\":", "\u{0}"] {
        text_is_refused(text, "");
    }
    text_is_refused(b"{\"ociVersion\": \"\xff\xfe\"}", "");
}

#[test]
fn json_deep_is_refused() {
    require!(root);
    let deep = format!("\"x\": {}{}", "[".repeat(1000), "]".repeat(1000));
    text_is_refused(with_member(&deep), "");
}

#[test]
fn json_of_a_million_nested_arrays_is_refused_in_time() {
    require!(root);
    text_is_refused(
        with_member(&format!("\"x\": {}{}", "[".repeat(1_000_000), "]".repeat(1_000_000))),
        "",
    );
    text_is_refused("[".repeat(1_000_000), "");
    text_is_refused("{\"a\":".repeat(1_000_000), "");
}

#[test]
fn json_huge_is_refused_in_time() {
    require!(root);
    let huge = format!("\"annotations\": {{\"x\": \"{}\"}}", "y".repeat(17 << 20));
    text_is_refused(with_member(&huge), "config.json");
}

#[test]
fn json_with_too_many_entries_is_refused_in_time() {
    require!(root);
    text_is_refused(with_member(&format!("\"x\": [{}0]", "0,".repeat(1_000_000))), "");
}

#[test]
fn json_of_one_megabyte_is_accepted() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/annotations", json!({ "x": "y".repeat(1 << 20) })).args(&["echo", "runs"])
    });
    assert_eq!(bundle.container("web").run().ok().stdout, "runs\n");
}

/// The spec: JSON without duplicate names. Two readers could see two different containers.
#[test]
fn json_with_duplicate_members_is_refused() {
    require!(root);
    text_is_refused(with_member("\"hostname\": \"other\""), "hostname");
    text_is_refused(with_member("\"x\": {\"inner\": 1, \"inner\": 2}"), "inner");
    text_is_refused(with_member("\"x\": {\"\\u0061b\": 1, \"ab\": 2}"), "ab");
}

#[test]
fn json_with_trailing_text_is_refused() {
    require!(root);
    let text = Bundle::new().config().0.to_string();
    for tail in ["x", "{}", "\u{0}", "]"] {
        text_is_refused(format!("{text}{tail}"), "");
    }
    let bundle = Bundle::sh("echo runs");
    let text = format!("\n{}\n\n  \n", bundle.config().0);
    bundle.write(text);
    assert_eq!(bundle.container("web").run().ok().stdout, "runs\n", "white space is none");
}

/// The kernel would see only what is before the NUL.
#[test]
fn nul_in_strings_is_refused() {
    require!(root);
    let mount = |key: &str| {
        let mut mount =
            json!({ "destination": "/x", "type": "none", "source": "/etc", "options": ["bind"] });
        mount[key] = json!(if key == "options" { json!(["bind", "a\0b"]) } else { json!("/a\0b") });
        json!([mount])
    };
    each_is_refused(&[
        ("/process/args", json!(["true", "a\0b"]), "/process/args/1"),
        ("/process/env", json!(["A=a\0b"]), "/process/env/0"),
        ("/process/cwd", json!("/a\0b"), "/process/cwd"),
        ("/hostname", json!("a\0b"), "/hostname"),
        ("/domainname", json!("a\0b"), "/domainname"),
        ("/root/path", json!("rootfs\0x"), "/root/path"),
        ("/mounts", mount("source"), "/mounts/0/source"),
        ("/mounts", mount("destination"), "/mounts/0/destination"),
        ("/mounts", mount("options"), "/mounts/0/options"),
        ("/linux/maskedPaths", json!(["/a\0b"]), "/linux/maskedPaths/0"),
        ("/linux/cgroupsPath", json!("/a\0b"), "/linux/cgroupsPath"),
        ("/hooks/prestart", json!([{ "path": "/bin/tr\0ue" }]), "/hooks/prestart/0/path"),
        (
            "/hooks/prestart",
            json!([{ "path": "/bin/true", "args": ["a\0b"] }]),
            "/hooks/prestart/0/args",
        ),
        ("/linux/sysctl", json!({ "kernel.msgmax": "1\0" }), "/linux/sysctl/kernel.msgmax"),
    ]);
}

/// The one line on stderr and the log have no control character of somebody else's.
#[track_caller]
fn message_is_clean(output: &Output) {
    assert_ne!(output.code(), 0, "{output}");
    let line = output.stderr.strip_suffix('\n').unwrap_or(&output.stderr);
    assert!(!line.contains(char::is_control), "{line:?}");
    for message in output.errors() {
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

const NASTY: &str = "a\u{1b}[31mb\nlevel=info\r\u{7}\u{9b}c";

/// T27: control characters are escaped in every message, wherever they come from.
#[test]
fn t27_control_characters_are_escaped_in_every_message() {
    require!(root);
    let edits: [fn(&mut Config) -> &mut Config; 8] = [
        |config| config.args(&[NASTY]),
        |config| config.args(&[&format!("/{NASTY}")]),
        |config| config.bind(&format!("/{NASTY}"), "/mnt", &[]),
        |config| config.set("/linux/cgroupsPath", format!("/../{NASTY}")),
        |config| config.set("/linux/sysctl", json!({ NASTY: "1" })),
        |config| config.set("/root/path", NASTY),
        |config| config.hook("prestart", &format!("/{NASTY}"), &["x"]),
        |config| config.set("/ociVersion", NASTY),
    ];
    for edit in edits {
        let bundle = Bundle::with(edit);
        message_is_clean(&bundle.container("web").create());
        bundle.assert_clean();
    }
}

/// T27: what stands on the command line, and the text form of the log.
#[test]
fn t27_control_characters_of_the_command_line_are_escaped() {
    require!(root);
    let bundle = Bundle::new();
    for args in [
        &["state", NASTY][..],
        &["create", NASTY],
        &["kill", "web", NASTY],
        &[NASTY],
        &["state", NASTY, "x"],
    ] {
        // The usage may follow on lines of its own; nothing of ours may begin one.
        let text = bundle.onggi(args).run().fails().stderr;
        assert!(!text.contains(|letter: char| letter.is_control() && letter != '\n'), "{text:?}");
        assert!(!text.contains("\nlevel=info"), "{text:?}");
    }
    let log = bundle.dir().join("log.txt");
    let call = bundle.onggi(&["state", NASTY]).without_log();
    call.global(&["--log", log.to_str().unwrap()]).run().fails();
    let text = fs::read_to_string(log).unwrap();
    assert_eq!(text.lines().count(), 1, "{text:?}");
    assert!(!text.trim_end_matches('\n').contains(char::is_control), "{text:?}");
}

#[test]
fn config_json_missing_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    refused(&bundle).fails_with("config.json");
}

/// A FIFO or a device instead of config.json must not hold anybody up.
#[test]
fn config_json_that_is_no_regular_file_is_refused_in_time() {
    require!(root);
    let bundle = Bundle::new();
    let path = bundle.path().join("config.json");
    for make in [&["mkfifo"][..], &["mkdir"], &["ln", "-s", "/dev/zero"]] {
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        let mut args = make.to_vec();
        args.push(path.to_str().unwrap());
        assert!(host::tool(&args).0.success());
        let web = bundle.container("web");
        let create = web.call("create", &[]).timeout(soon());
        assert_eq!(create.run().code(), 1);
        bundle.assert_clean();
    }
}

/// Edits of config.json after create have no effect on start, exec, hooks, delete.
#[test]
fn config_edits_after_create_have_no_effect() {
    require!(root);
    let bundle = Bundle::new();
    let dir = bundle.share("/out");
    let record = |word: &str| format!("echo {word} >> {}/order", dir.display());
    bundle.edit(|config| {
        config.push("/process/env", "WHO=first".into());
        config.hook("poststart", "/bin/sh", &["sh", "-c", &record("first-poststart")]);
        config.hook("poststop", "/bin/sh", &["sh", "-c", &record("first-poststop")])
    });
    let web = bundle.container("web");
    web.create().ok();
    bundle.edit(|config| {
        config.push("/process/env", "WHO=second".into()).remove("/hooks");
        config.hook("poststart", "/bin/sh", &["sh", "-c", &record("second-poststart")]);
        config.hook("poststop", "/bin/sh", &["sh", "-c", &record("second-poststop")]);
        config.set("/process/user/uid", 1000).set("/process/cwd", "/tmp")
    });
    web.start().ok();
    assert_eq!(web.sh("echo $WHO; id -u; pwd").ok().stdout, "first\n0\n/\n");
    bundle.write("no longer JSON");
    assert_eq!(web.sh("echo $WHO").ok().stdout, "first\n");
    web.stop();
    web.delete().ok();
    let order = fs::read_to_string(dir.join("order")).unwrap();
    assert_eq!(order, "first-poststart\nfirst-poststop\n");
}
