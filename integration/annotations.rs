//! The annotations that change what is done.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Config, host};
use crate::user_namespaces::{mapped, own};

fn annotate<'c>(config: &'c mut Config, name: &str, value: &str) -> &'c mut Config {
    config.set(&format!("/annotations/{name}"), value)
}

const OUT: &str = "run.oci.hooks.stdout";
const ERR: &str = "run.oci.hooks.stderr";
const DELEGATE: &str = "run.oci.delegate-cgroup";
const SUBGROUP: &str = "run.oci.systemd.subgroup";

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
fn row97_keep_original_groups_keeps_the_callers() {
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
        (DELEGATE, "a/b"),
        (DELEGATE, ".."),
        (SUBGROUP, "a/../.."),
    ] {
        let bundle = Bundle::with(|config| annotate(config, name, value));
        // Only where there is a hook does its output go anywhere.
        bundle.edit(|config| config.hook("poststop", "/bin/true", &["true"]));
        refused_at(&bundle, &[&format!("/annotations/{name}")]);
    }
}

/// crun's: the process is in a cgroup that its user owns, below the container's own with the limits, which is
/// the root of its cgroup namespace.
#[test]
fn annotation_delegate_cgroup_puts_the_process_into_a_cgroup_of_its_users() {
    require!(root, cgroup_v2);
    let bundle = Bundle::with(|config| annotate(mapped(config), DELEGATE, "payload"));
    bundle.edit(|config| {
        config.share_namespace("cgroup").push("/linux/namespaces", json!({ "type": "cgroup" }))
    });
    own(&bundle);
    let web = bundle.container("web");
    web.up();
    let dir = bundle.cgroup("");
    assert_eq!(host::cgroup_procs(&dir.join("payload")), [web.init().0]);
    assert_eq!(host::cgroup_procs(&dir), [0; 0]);
    let owner = |path: &std::path::Path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&dir), 0, "the limits are not the container's");
    for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
        assert_eq!(owner(&dir.join("payload").join(file)), 100_000, "{file}");
    }
    let own = web.sh("grep ^0:: /proc/1/cgroup").ok().stdout;
    assert_eq!(own, "0::/payload\n");
    web.remove();
    bundle.assert_clean();
}

/// A failure after it has been made takes it back.
#[test]
fn annotation_delegate_cgroup_leaves_nothing_when_create_fails() {
    require!(root, cgroup_v2);
    let bundle = Bundle::with(|config| {
        annotate(config, DELEGATE, "payload").set("/process/args", json!(["/not/there"]))
    });
    bundle.container("web").create().fails();
    bundle.assert_clean();
}

/// It is not safe on v1, says crun, and does nothing there.
#[test]
fn annotation_delegate_cgroup_is_refused_on_v1() {
    require!(root, cgroup_v1("freezer"));
    let bundle = Bundle::with(|config| annotate(config, DELEGATE, "payload"));
    refused_at(&bundle, &[&format!("/annotations/{DELEGATE}")]);
}

/// crun makes a `container` in every scope; here only who names one gets it.
#[test]
fn annotation_systemd_subgroup_without_systemd_is_a_warning() {
    require!(root, cgroup_v2);
    let bundle = Bundle::with(|config| annotate(config, SUBGROUP, "inner"));
    let web = bundle.container("web");
    let output = web.create().ok();
    assert!(output.to_string().contains("only the systemd driver makes one"), "{output}");
    assert_eq!(host::cgroup_procs(&bundle.cgroup("")), [web.init().0]);
}

/// What acts is declared, so that engines can keep it from their users.
#[test]
fn annotations_that_act_are_declared_in_features() {
    let features = Bundle::new().onggi(&["features"]).run().ok().json();
    let declared = features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
    let groups = "run.oci.keep_original_groups";
    for name in [OUT, ERR, groups, "run.oci.mount_context_type", DELEGATE, SUBGROUP] {
        assert!(declared.contains(&name.into()), "{features}");
    }
}
