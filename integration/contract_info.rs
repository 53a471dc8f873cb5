//! What the runtime says about itself and about all containers: --version, features, spec, list.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, Process};
use crate::user_namespaces::{mapped, own};

const KINDS: [&str; 7] = ["cgroup", "ipc", "mount", "network", "pid", "time", "uts"];

fn features() -> Value {
    let bundle = Bundle::new();
    bundle.onggi(&["features"]).run().ok().json()
}

/// docker keeps the last line with the word "version"; CRI-O logs the first line.
#[test]
fn row23_version_has_one_line_with_the_word_version() {
    let bundle = Bundle::new();
    let output = bundle.onggi_without_root(&["--version"]).without_log().run().ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    let words: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!((words.len(), words[1]), (3, "version"), "{lines:?}");
    assert!(words[2].starts_with(|c: char| c.is_ascii_digit()), "{lines:?}");
    let naming = lines.iter().filter(|line| line.to_lowercase().contains("version"));
    assert_eq!(naming.count(), 1, "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("spec: 1.")), "{lines:?}");
    assert_eq!(output.stderr, "");
}

/// The short form; and it is global, so it needs no command.
#[test]
fn row23_version_short_form() {
    let bundle = Bundle::new();
    let long = bundle.onggi_without_root(&["--version"]).without_log().run().ok();
    let short = bundle.onggi_without_root(&["-v"]).without_log().run().ok();
    assert_eq!(long.stdout, short.stdout);
}

/// `--help`, alone and after every command, answers on stdout with code 0.
#[test]
fn help_of_every_command_exits_0() {
    let bundle = Bundle::new();
    let commands = [
        "create", "start", "state", "kill", "delete", "pause", "resume", "update", "run", "exec",
        "list", "ps", "events", "stats", "gc", "spec", "features",
    ];
    let all = bundle.onggi_without_root(&["--help"]).without_log().run().ok().stdout;
    for command in commands {
        assert!(all.contains(command), "--help does not name {command}");
        let output = bundle.onggi_without_root(&[command, "--help"]).without_log().run().ok();
        assert!(output.stdout.contains(command), "{output}");
    }
}

/// CRI-O parses stdout and stderr together; docker calls it with user flags before.
#[test]
fn row24_features_is_pure_json_with_and_without_debug() {
    let bundle = Bundle::new();
    for globals in [&[][..], &["--debug"]] {
        let call = bundle.onggi_without_root(&["features"]).without_log();
        let output = call.global(globals).run().ok();
        assert!(output.json().is_object(), "{output}");
        assert_eq!(output.stderr, "");
    }
}

/// CRI-O rejects the runtime when one of the two is empty.
#[test]
fn row25_features_names_the_range_of_spec_versions() {
    let features = features();
    let version = |key: &str| features[key].as_str().unwrap_or_default().to_string();
    assert!(version("ociVersionMin").starts_with("1."), "{features:#}");
    assert!(version("ociVersionMax").starts_with("1."), "{features:#}");
}

/// docker and the kubelet allow recursive read-only mounts only if `rro` is there; and only if it
/// works may it be there.
#[test]
fn row26_features_lists_rro_and_the_other_mount_options() {
    let features = features();
    let options = features["mountOptions"].as_array().expect("no mountOptions");
    for option in ["rro", "ro", "rbind", "nosymfollow", "tmpcopyup", "rslave", "private"] {
        assert!(options.contains(&json!(option)), "no {option}: {options:?}");
    }
}

/// containerd and CRI-O decide by it what a pod may ask for.
#[test]
fn row27_features_lists_namespaces_hooks_and_idmap() {
    let features = features();
    for kind in KINDS {
        let kinds = features["linux"]["namespaces"].as_array().unwrap();
        assert!(kinds.contains(&json!(kind)), "no {kind}: {kinds:?}");
    }
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6, "{features:#}");
    assert!(features["linux"]["mountExtensions"]["idmap"]["enabled"].is_boolean());
    assert_eq!(features["linux"]["seccomp"]["enabled"], json!(true));
    assert_eq!(features["linux"]["cgroup"]["v1"], json!(true));
    assert_eq!(features["linux"]["cgroup"]["v2"], json!(true));
}

/// Whether the container ends well and says the right thing. That it is refused as not supported is an answer,
/// too; any other failure is one of the test.
#[track_caller]
fn works(bundle: &Bundle, is_right: impl Fn(&str) -> bool) -> bool {
    let output = bundle.container("web").run();
    if output.code() != 0 && output.stderr.contains("not supported") {
        return false;
    }
    let output = output.ok();
    assert!(is_right(output.stdout.trim_end()), "{output}");
    true
}

/// The kubelet offers user namespaces only when this and the next are said; then both must be true.
#[test]
fn row27_features_lists_user_namespaces_if_they_work() {
    require!(root);
    let bundle = Bundle::with(|config| mapped(config).args(&["readlink", "/proc/self/ns/user"]));
    own(&bundle);
    let works = works(&bundle, |ns| ns.starts_with("user:") && ns != Process::own().ns("user"));
    let kinds = features()["linux"]["namespaces"].clone();
    let user = kinds.as_array().unwrap().contains(&json!("user"));
    assert_eq!(user, works, "a user namespace is listed if and only if it can be made");
}

/// containerd refuses every pod with a user namespace where this is false, and breaks it where it is a lie.
#[test]
fn row27_features_lists_idmap_if_it_works() {
    require!(root);
    let ids = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 10 }]);
    let bundle = Bundle::new();
    let source = bundle.dir().join("data");
    fs::create_dir(&source).unwrap();
    let mount = json!({
        "destination": "/data", "type": "bind", "source": source, "options": ["rbind", "idmap"],
        "uidMappings": ids(5000), "gidMappings": ids(6000)
    });
    bundle.edit(|config| config.push("/mounts", mount).args(&["stat", "-c", "%u:%g", "/data"]));
    let works = works(&bundle, |owner| owner == "5000:6000");
    let idmap = &features()["linux"]["mountExtensions"]["idmap"]["enabled"];
    assert_eq!(*idmap, json!(works), "idmap is listed if and only if it works");
}

/// Two calls say the same, byte for byte: the answer is decided when the binary is built.
#[test]
fn features_is_deterministic() {
    let bundle = Bundle::new();
    let first = bundle.onggi(&["features"]).run().ok().stdout;
    assert_eq!(first, bundle.onggi(&["features"]).run().ok().stdout);
}

/// Scripts start from it: terminal, `sh`, a read-only root, and it never overwrites.
#[test]
fn row98_spec_writes_a_config_like_that_of_runc() {
    let bundle = Bundle::new();
    let dir = bundle.dir().join("fresh");
    fs::create_dir(&dir).unwrap();
    bundle.onggi(&["spec"]).cwd(&dir).run().ok();
    let text = fs::read_to_string(dir.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["process"]["terminal"], true);
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["root"], json!({ "path": "rootfs", "readonly": true }));
    let targets = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"];
    for target in targets {
        let mounts = config["mounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["destination"] == target), "no {target}");
    }
    bundle.onggi(&["spec"]).cwd(&dir).run().fails_with("config.json");
    assert_eq!(fs::read_to_string(dir.join("config.json")).unwrap(), text);
}

/// What `spec` writes runs as it is.
#[test]
fn row98_spec_writes_a_config_that_runs() {
    require!(root);
    let bundle = Bundle::new();
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    bundle.onggi(&["spec", "--bundle"]).arg(bundle.path()).run().ok();
    let text = fs::read_to_string(bundle.path().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["echo", "it runs"]);
    config["linux"]["cgroupsPath"] = bundle.config()["linux"]["cgroupsPath"].clone();
    bundle.write(config.to_string());
    assert_eq!(bundle.container("web").run().ok().stdout, "it runs\n");
}

/// `spec --rootless` adds a user namespace and drops what a user may not do.
#[test]
fn row98_spec_rootless_has_a_user_namespace() {
    let bundle = Bundle::new();
    let dir = bundle.dir().join("fresh");
    fs::create_dir(&dir).unwrap();
    bundle.onggi(&["spec", "--rootless", "--bundle"]).arg(&dir).run().ok();
    let text = fs::read_to_string(dir.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let kinds = config["linux"]["namespaces"].as_array().unwrap();
    assert!(kinds.iter().any(|namespace| namespace["type"] == "user"), "{kinds:?}");
    assert!(kinds.iter().all(|namespace| namespace["type"] != "network"), "{kinds:?}");
    assert!(config["linux"]["uidMappings"].is_array());
    assert!(config["linux"]["resources"].is_null());
}

/// The shape of `list --format json` is that of `state` and an owner.
#[test]
fn row98_list_json_has_the_state_and_the_owner() {
    require!(root);
    let bundle = Bundle::new();
    let made = bundle.container("made");
    let runs = bundle.another("runs", |config| config);
    made.create().ok();
    runs.up();
    let list = bundle.onggi(&["list", "--format", "json"]).run().ok().json();
    let mut list = list.as_array().unwrap().clone();
    list.sort_by_key(|entry| entry["id"].as_str().unwrap().to_string());
    let ids: Vec<&Value> = list.iter().map(|entry| &entry["id"]).collect();
    assert_eq!(ids, ["made", "runs"]);
    assert_eq!([&list[0]["status"], &list[1]["status"]], ["created", "running"]);
    for (entry, state) in list.iter().zip([made.state(), runs.state()]) {
        for key in ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created"] {
            assert_eq!(entry[key], state[key], "{key}");
        }
        assert_eq!(entry["owner"], "root");
    }
}

/// A table for people, the bare ids for scripts.
#[test]
fn row98_list_table_and_quiet() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let pid = web.init().0.to_string();
    let table = bundle.onggi(&["list"]).run().ok().stdout;
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(lines[1][..3], ["web", &pid, "created"]);
    assert_eq!(bundle.onggi(&["list", "-q"]).run().ok().stdout, "web\n");
}

/// Nothing there: an empty list and success, as JSON and as text.
#[test]
fn row98_list_of_an_empty_root() {
    let bundle = Bundle::new();
    fs::create_dir_all(bundle.root()).unwrap();
    let list = bundle.onggi(&["list", "-f", "json"]).run().ok().json();
    assert!(list.is_null() || list == json!([]), "{list}");
    assert_eq!(bundle.onggi(&["list", "--quiet"]).run().ok().stdout, "");
}

/// A root that the caller has named and that is not there is a mistake.
#[test]
fn row98_list_of_a_missing_root_is_an_error() {
    let bundle = Bundle::new();
    let call = bundle.onggi_without_root(&["--root", "/no/such/root", "list"]);
    call.run().fails_with("/no/such/root");
}

/// podman and CRI-O ask by `checkpoint --help` and a `restore` without its value: what is not there must not
/// look as if it were, and containerd's call of it leaves nothing.
#[test]
fn row95_row96_checkpoint_and_restore_are_not_claimed() {
    let bundle = Bundle::new();
    let call = |args: &[&str]| bundle.onggi(args).run();
    for args in [&["checkpoint", "--help"][..], &["restore", "--lsm-mount-context"]] {
        let output = call(args).fails_with("no such command");
        assert_eq!(output.stdout, "");
        assert!(!output.stderr.contains("requires an argument"), "{output}");
        assert!(!output.stderr.contains("flag needs an argument"), "{output}");
    }
    let enabled = features()["annotations"]["org.opencontainers.runc.checkpoint.enabled"].clone();
    assert_ne!(enabled, "true");
    let pid_file = bundle.dir().join("init.pid");
    let (path, image) = (bundle.path(), bundle.dir().join("image"));
    let restore = ["restore", "--image-path", image.to_str().unwrap(), "--work-path", "work"];
    let rest = ["--detach", "--pid-file", pid_file.to_str().unwrap(), "-no-subreaper"];
    let bundle_option = ["--bundle", path.to_str().unwrap(), "web"];
    call(&[&restore[..], &rest, &bundle_option].concat()).fails_with("no such command");
    assert!(!pid_file.exists());
    assert!(!bundle.dir().join("state/web").exists());
    bundle.assert_clean();
}
