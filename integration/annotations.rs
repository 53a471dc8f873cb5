//! The annotations that change what is done.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Config};

fn annotate<'c>(config: &'c mut Config, name: &str, value: &str) -> &'c mut Config {
    config.set(&format!("/annotations/{name}"), value)
}

const OUT: &str = "run.oci.hooks.stdout";
const ERR: &str = "run.oci.hooks.stderr";

#[test]
fn annotation_hooks_stdout_and_stderr_collect_what_hooks_say() {
    require!(root);
    let bundle = Bundle::new();
    let (out, err) = (bundle.dir().join("out"), bundle.dir().join("err"));
    fs::write(&out, "before\n").unwrap();
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    bundle.edit(|config| {
        annotate(config, OUT, out.to_str().unwrap());
        annotate(config, ERR, err.to_str().unwrap());
        for kind in kinds {
            config.hook(kind, "/bin/sh", &["sh", "-c", &format!("echo {kind}; echo {kind}! >&2")]);
        }
        config
    });
    let web = bundle.container("web");
    web.up();
    web.remove();
    let said = |end: &str| kinds.map(|kind| format!("{kind}{end}\n")).concat();
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("before\n{}", said("")));
    assert_eq!(fs::read_to_string(&err).unwrap(), said("!"));
    assert_eq!(fs::metadata(&err).unwrap().permissions().mode() & 0o777, 0o600);
}

/// What is not taken to a file is in the error, as always; a link is not followed.
#[test]
fn annotation_hooks_stdout_alone_leaves_stderr_to_the_error() {
    require!(root);
    let bundle = Bundle::new();
    let out = bundle.dir().join("out");
    bundle.edit(|config| {
        annotate(config, OUT, out.to_str().unwrap());
        config.hook("createRuntime", "/bin/sh", &["sh", "-c", "echo said; echo why >&2; exit 1"])
    });
    let web = bundle.container("web");
    web.create().fails_with("output: why");
    assert_eq!(fs::read_to_string(&out).unwrap(), "said\n");
    fs::remove_file(&out).unwrap();
    std::os::unix::fs::symlink("elsewhere", &out).unwrap();
    let web = bundle.container("web");
    web.create().fails_with("/hooks/createRuntime/0");
    assert!(!bundle.dir().join("elsewhere").exists());
}

#[test]
fn annotation_keep_original_groups_keeps_the_callers() {
    require!(root);
    let show = ["grep", "Groups", "/proc/self/status"];
    let bundle = Bundle::with(|config| {
        config.args(&["sleep", "1000"]);
        config.set("/process/user/additionalGids", serde_json::json!([7]));
        annotate(config, "run.oci.keep_original_groups", "1")
    });
    let web = bundle.container("web");
    let groups = |call: crate::support::Call| {
        call.before_exec(|| {
            let groups = [3001, 3002];
            unsafe { libc::setgroups(2, groups.as_ptr()) };
        })
    };
    groups(web.call("create", &[])).run().ok();
    web.start().ok();
    assert_eq!(web.init().status("Groups"), "3001 3002");
    let exec = groups(web.call("exec", &[]).args(&show)).run().ok();
    assert_eq!(exec.stdout.trim_end(), "Groups:\t3001 3002");
    // With a process object of its own, too.
    let file = bundle.dir().join("process.json");
    let mut process = bundle.config()["process"].clone();
    process["args"] = serde_json::json!(show);
    fs::write(&file, process.to_string()).unwrap();
    let options = ["--process", file.to_str().unwrap()];
    let exec = groups(web.call("exec", &options)).run().ok();
    assert_eq!(exec.stdout.trim_end(), "Groups:\t3001 3002");
    web.remove();
    bundle.edit(|config| annotate(config, "run.oci.keep_original_groups", "0"));
    groups(web.call("create", &[])).run().ok();
    assert_eq!(web.init().status("Groups"), "7");
}

#[test]
fn annotations_refused_with_their_pointer() {
    require!(root);
    for (name, value) in [
        (OUT, "relative"),
        (ERR, ""),
        ("run.oci.keep_original_groups", "yes"),
        ("run.oci.mount_context_type", "nonsense"),
    ] {
        let bundle = Bundle::with(|config| annotate(config, name, value));
        // Only where there is a hook does its output go anywhere.
        bundle.edit(|config| config.hook("poststop", "/bin/true", &["true"]));
        refused_at(&bundle, &[&format!("/annotations/{name}")]);
    }
}

/// What acts is declared, so that engines can keep it from their users.
#[test]
fn annotations_that_act_are_declared_in_features() {
    let features = Bundle::new().onggi(&["features"]).run().ok().json();
    let declared = features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
    for name in [OUT, ERR, "run.oci.keep_original_groups", "run.oci.mount_context_type"] {
        assert!(declared.contains(&name.into()), "{features}");
    }
}
