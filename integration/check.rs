//! `onggi check`: its verdict is create's, it makes nothing, and every code of docs/errors.md is
//! produced by some test.

mod corpus;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::engines::{fixture, substitute};
use crate::support::{Bundle, Output, host, need};
use corpus::{Case, Comes};

/// What `check --format json` says of the bundle's config.json.
#[track_caller]
fn verdict(bundle: &Bundle) -> (Value, Output) {
    let path = bundle.path();
    let output =
        bundle.onggi(&["check", "--format", "json", "--bundle", path.to_str().unwrap()]).run();
    let verdict = output.json();
    let valid = verdict["valid"] == true;
    assert_eq!(output.code(), i32::from(!valid), "{output}");
    (verdict, output)
}

fn codes(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|one| one["code"].as_str().unwrap().to_string()).collect()
}

/// The codes of a failed command: of all its problems, or its one.
fn failed(output: &Output) -> BTreeSet<String> {
    let line = output.log().into_iter().find(|line| line["level"] == "error").unwrap();
    match line["problems"].is_array() {
        true => codes(&line["problems"]),
        false => [line["code"].as_str().unwrap().to_string()].into(),
    }
}

/// check and create of the same config.json; then nothing may be left of either.
#[track_caller]
fn both(bundle: &Bundle, name: &str) -> (Value, Output) {
    let (said, output) = verdict(bundle);
    assert!(bundle.leftovers().is_empty(), "{name}: check leaves {:?}", bundle.leftovers());
    let web = bundle.container("web");
    let created = web.create();
    assert!(!format!("{output}{created}").contains("panicked"), "{name}: {created}");
    if created.code() == 0 {
        web.delete_force().ok();
    }
    assert!(bundle.leftovers().is_empty(), "{name}: create leaves {:?}", bundle.leftovers());
    (said, created)
}

/// A config that check calls invalid is refused by create for the very same reasons, and one that
/// create refuses before clone3 is invalid.
#[track_caller]
fn agree(name: &str, said: &Value, created: &Output) {
    if said["valid"] == true {
        assert_eq!(created.code(), 0, "{name}: check says valid, {created}");
    } else {
        assert_eq!(created.code(), 1, "{name}: check says {said}, {created}");
        // Where something cannot be opened create goes no further; check tries the rest all the same.
        let (said, failed) = (codes(&said["errors"]), failed(created));
        let opened = |code: &String| code == "E_NAMESPACE_PATH" || code == "E_ROOTFS";
        let more = said.is_superset(&failed) && failed.iter().any(opened);
        assert!(said == failed || more, "{name}: check says {said:?}, {created}");
    }
}

fn apply(config: &mut Value, bundle: &Bundle, place: &str, text: &str) {
    let (parent, key) = place.rsplit_once('/').unwrap();
    if text == "-" {
        config.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        return;
    }
    let text = text.replace("BUNDLE", bundle.path().to_str().unwrap());
    let value: Value = serde_json::from_str(&text).unwrap();
    let mut at = config;
    for name in parent.split('/').skip(1) {
        at = match at {
            Value::Array(items) => &mut items[name.parse::<usize>().unwrap()],
            other => &mut other[name],
        };
    }
    match key {
        "-" => match at {
            Value::Array(items) => items.push(value),
            other => *other = json!([value]),
        },
        key => at[key] = value,
    }
}

/// Whether this host refuses only for want of controllers that it really does not have.
fn lacks_controllers(said: &Value) -> bool {
    let errors = said["errors"].as_array().unwrap();
    let lacking = |error: &Value| {
        let name = error["pointer"].as_str().unwrap().split('/').nth(3).unwrap_or_default();
        error["code"] == "E_CGROUP_CONTROLLER" && !need::controller(name).met
    };
    !errors.is_empty() && errors.iter().all(lacking)
}

/// Whether an error of this code points to what was changed: there, within it, or to what it is missing from.
/// Of a namespace that is missing it points to what needs it.
fn names_the_place(errors: &Value, code: &str, changes: &[(&str, &str)]) -> bool {
    let of_needs = ["E_NEEDS_NAMESPACE", "E_NAMESPACE_HOST"].contains(&code);
    errors.as_array().unwrap().iter().filter(|error| error["code"] == code).any(|error| {
        let pointer = error["pointer"].as_str().unwrap_or_default();
        changes.iter().any(|(place, _)| {
            if of_needs && place.starts_with("/linux/namespaces") {
                return pointer.starts_with('/');
            }
            let place = place.trim_end_matches("/-");
            let above = place.strip_prefix(pointer).is_some_and(|rest| rest.starts_with('/'));
            pointer.starts_with(place) || (!pointer.is_empty() && above)
        })
    })
}

#[track_caller]
fn each(cases: &[Case]) {
    let bundle = Bundle::new();
    std::os::unix::fs::symlink("rootfs", bundle.path().join("link")).unwrap();
    for (name, changes, comes) in cases {
        let mut config = bundle.config().0;
        for (place, text) in *changes {
            apply(&mut config, &bundle, place, text);
        }
        bundle.write(config.to_string());
        if [("AppArmor", need::apparmor()), ("SELinux", need::selinux())]
            .iter()
            .any(|(lsm, there)| *name == format!("{lsm} without {lsm}") && there.met)
        {
            continue;
        }
        let (said, created) = both(&bundle, name);
        let has = |list: &Value, code: &str| codes(list).contains(code);
        if lacks_controllers(&said) {
            agree(name, &said, &created);
            continue;
        }
        match comes {
            Comes::Good => {
                agree(name, &said, &created);
                assert_eq!(said["valid"], true, "{name}: {said}");
            }
            Comes::Warned(code) => {
                agree(name, &said, &created);
                assert!(has(&said["warnings"], code), "{name}: {said}");
                let told = created.log().iter().any(|line| line["code"] == *code);
                assert!(told, "{name}: {created}");
            }
            Comes::Refused(code) => {
                agree(name, &said, &created);
                assert!(names_the_place(&said["errors"], code, changes), "{name}: {said}");
            }
            Comes::Late(code) => {
                assert_eq!(said["valid"], true, "{name}: foreseen by now: {said}");
                assert_eq!(created.code(), 1, "{name}: {created}");
                assert_eq!(failed(&created), [(*code).to_string()].into(), "{name}: {created}");
            }
        }
    }
}

#[test]
fn check_and_create_agree_on_the_document() {
    require!(root);
    each(corpus::DOCUMENT);
}

#[test]
fn check_and_create_agree_on_the_process() {
    require!(root);
    each(corpus::PROCESS);
}

#[test]
fn check_and_create_agree_on_mounts_and_devices() {
    require!(root);
    each(corpus::MOUNTS);
}

#[test]
fn check_and_create_agree_on_devices_and_policies() {
    require!(root);
    each(corpus::RESOURCES);
}

#[test]
fn check_and_create_agree_on_linux() {
    require!(root);
    each(corpus::LINUX);
}

#[test]
fn check_and_create_agree_on_what_is_no_configuration() {
    require!(root);
    let bundle = Bundle::new();
    for (name, text, code) in corpus::TEXTS {
        bundle.write(text);
        let (said, created) = both(&bundle, name);
        agree(name, &said, &created);
        assert_eq!(codes(&said["errors"]), [(*code).to_string()].into(), "{name}: {said}");
    }
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    let (said, created) = both(&bundle, "no file");
    agree("no file", &said, &created);
    assert_eq!(said["errors"][0]["code"], "E_CONFIG_READ");
}

/// The recorded bundles of real engines, as they are and with this machine's paths.
#[test]
fn check_and_create_agree_on_the_fixtures_of_engines() {
    require!(root);
    for one in fixture::all() {
        let bundle = Bundle::new();
        substitute::mapped_owner(&one.config(), &bundle);
        let mut adapted = substitute::adapt(one.config(), &bundle, None).config;
        // The terminal's socket is the caller's to bring.
        adapted.set("/process/terminal", false);
        for config in [one.config(), adapted.0] {
            let mut config = config;
            config["process"]["terminal"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.name()));
            bundle.write(config.to_string());
            let (said, created) = both(&bundle, &one.name);
            if said["valid"] == true && created.code() != 0 {
                // Only what shows in the container itself may surprise.
                let late =
                    ["E_PROGRAM", "E_CWD", "E_HOOK", "E_RLIMIT", "E_OOM_SCORE_ADJ", "E_MOUNT"];
                let found = failed(&created);
                assert!(
                    found.iter().all(|code| late.contains(&&**code)),
                    "{}: {created}",
                    one.name
                );
                continue;
            }
            agree(&one.name, &said, &created);
        }
    }
}

/// The names of the corpus' cases.
pub fn case_names() -> Vec<&'static str> {
    let cases =
        [corpus::DOCUMENT, corpus::PROCESS, corpus::RESOURCES, corpus::MOUNTS, corpus::LINUX];
    let names = cases.into_iter().flatten().map(|(name, _, _)| *name);
    names.chain(corpus::TEXTS.iter().map(|(name, _, _)| *name)).collect()
}

#[test]
fn the_corpus_has_at_least_200_configurations() {
    let cases =
        [corpus::DOCUMENT, corpus::PROCESS, corpus::RESOURCES, corpus::MOUNTS, corpus::LINUX];
    let table: usize = cases.iter().map(|cases| cases.len()).sum();
    let all = table + corpus::TEXTS.len() + 2 * fixture::all().len();
    assert!(all >= 200, "{all}");
    assert!(table >= 150, "{table}");
}

/// All that is wrong, with pointers, hints and warnings, for people and for programs.
#[test]
fn check_tells_every_error_with_pointer_code_and_hint() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config
            .bind("/no/such", "/a", &["rbind"])
            .bind("/no/other", "/b", &["rbind"])
            .set("/process/env", json!(["odd"]))
    });
    let (said, _) = verdict(&bundle);
    let last = bundle.config()["mounts"].as_array().unwrap().len() - 1;
    let pointers: Vec<_> =
        said["errors"].as_array().unwrap().iter().map(|one| one["pointer"].clone()).collect();
    assert_eq!(
        pointers,
        [json!(format!("/mounts/{}/source", last - 1)), json!(format!("/mounts/{last}/source"))]
    );
    assert_eq!(said["errors"][0]["about"], "host");
    assert_eq!(said["errors"][0]["hint"], "a relative source is relative to the bundle");
    assert_eq!(said["warnings"][0]["pointer"], "/process/env/0");
    let file = bundle.path().join("config.json");
    let text = bundle.onggi(&["check", file.to_str().unwrap()]).run().exits(1).stdout;
    for part in
        ["config.json: invalid\n", "error E_MOUNT_SOURCE_MISSING: /mounts/", "warning W_ENV: "]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!bundle.root().exists(), "not even the state root is made");
}

/// A user without rights may ask as well.
#[test]
fn check_works_without_rights() {
    require!(root, program("setpriv"));
    let bundle = Bundle::new();
    host::tool(&["chmod", "-R", "a+rX", bundle.dir().to_str().unwrap()]);
    let as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let path = bundle.path();
    let call =
        bundle.onggi_without_root(&["check", "--format", "json", "-b", path.to_str().unwrap()]);
    let said = call.without_log().through(&as_user).run().json();
    assert_eq!(said["valid"], false, "without a user namespace there is no container: {said}");
    let report = bundle.onggi_without_root(&["check", "--host", "--format", "json"]);
    let report = report.without_log().through(&as_user).run();
    assert_eq!(report.code(), 0, "{report}");
    let lacks = report.json()["lacks"].to_string();
    assert!(lacks.contains("CAP_SYS_ADMIN"), "{lacks}");
}

#[test]
fn check_host_lists_what_this_machine_has() {
    require!(root);
    let bundle = Bundle::new();
    let report = bundle.onggi(&["check", "--host", "--format", "json"]).run().ok().json();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(report["kernel"]["release"], release.trim());
    assert_eq!(report["kernel"]["calls"]["openat2"], true);
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
        assert_eq!(report["namespaces"][kind]["available"], true, "{kind}");
    }
    assert_eq!(report["cgroups"]["layout"] == "v2", host::is_v2());
    for part in ["lsm", "ids", "criu", "seccomp", "memfd", "caller", "lacks", "needs"] {
        assert!(report.get(part).is_some(), "{part}");
    }
    let text = bundle.onggi(&["check", "--host"]).run().ok().stdout;
    assert!(text.contains(&format!("kernel.release: {}", release.trim())), "{text}");
}

/// On a host without cgroups no limit can be set.
#[test]
fn check_without_cgroups() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/linux/resources/pids", json!({"limit": 9})));
    let path = bundle.path();
    let call = bundle.onggi(&["check", "--format", "json", "-b", path.to_str().unwrap()]);
    // A private cgroup2 may lie over the host's own hierarchies.
    let hide = "while umount -R /sys/fs/cgroup 2>/dev/null; do :; done; exec \"$@\"";
    let said = call.through(&["unshare", "--mount", "sh", "-c", hide, "sh"]).run().json();
    let codes = codes(&said["errors"]);
    assert!(codes.contains("E_CGROUP_NONE") || codes.contains("E_CGROUP_CONTROLLER"), "{said}");
}

#[test]
fn a_terminal_without_a_devpts_has_its_code() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/terminal", true).remove("/mounts/2"));
    let socket = crate::support::pty::FdSocket::bind(bundle.dir());
    let created =
        bundle.container("web").call("create", &["--console-socket", socket.path()]).run();
    assert_eq!(failed(&created), ["E_TERMINAL".to_string()].into(), "{created}");
}

/// Commands that fail, with the code that each must have.
#[test]
fn every_failing_command_has_its_code() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let path = bundle.path();
    let path = path.to_str().unwrap();
    web.up();
    let cases: &[(&[&str], &str)] = &[
        (&["create", "--no-such-option", "x"], "E_USAGE"),
        (&["list", "--format", "xml"], "E_OPTION"),
        (&["create", "--bundle", path, "a/b"], "E_ID_INVALID"),
        (&["create", "--bundle", path, "web"], "E_ID_IN_USE"),
        (&["create", "--bundle", path, "other"], "E_CGROUP_IN_USE"),
        (&["start", "nobody"], "E_NOT_FOUND"),
        (&["start", "web"], "E_STATUS"),
        (&["delete", "web"], "E_STATUS"),
        (&["kill", "web", "NOSUCH"], "E_SIGNAL_UNKNOWN"),
        (&["exec", "web", "/no/such"], "E_PROGRAM"),
        (&["exec", "--console-socket", "/no/such", "web", "true"], "E_CONSOLE_SOCKET"),
        (&["exec", "--detach", "--pid-file", "/no/such/dir/pid", "web", "true"], "E_PID_FILE"),
    ];
    for (args, code) in cases {
        let output = bundle.onggi(args).run();
        assert_ne!(output.code(), 0, "{output}");
        assert_eq!(failed(&output), [(*code).to_string()].into(), "{output}");
    }
    let log =
        bundle.onggi_without_root(&["--log", "/no/such/dir/log", "--log-format", "json", "list"]);
    assert!(log.without_log().run().fails().stderr.contains("--log: "));
    web.stop();
    let output = web.kill("TERM");
    assert_eq!(failed(&output), ["E_NOT_RUNNING".to_string()].into(), "{output}");
    web.remove();
    let file = bundle.path().join("config.json");
    let output = bundle.onggi_without_root(&["state", "web"]);
    let output = output.global(&["--root", file.to_str().unwrap()]).run();
    assert_eq!(failed(&output), ["E_STATE_ROOT".to_string()].into(), "{output}");
}

/// Codes that need another kind of call than create, or another machine: the test that proves them, or
/// the reason why there is none.
const ELSEWHERE: &[(&str, &str)] = &[
    ("E_USAGE", "every_failing_command_has_its_code"),
    ("E_OPTION", "every_failing_command_has_its_code"),
    ("E_LOG", "every_failing_command_has_its_code"),
    ("E_STATE_ROOT", "every_failing_command_has_its_code"),
    ("E_ID_INVALID", "every_failing_command_has_its_code"),
    ("E_ID_IN_USE", "every_failing_command_has_its_code"),
    ("E_NOT_FOUND", "every_failing_command_has_its_code"),
    ("E_NOT_RUNNING", "every_failing_command_has_its_code"),
    ("E_STATUS", "every_failing_command_has_its_code"),
    ("E_SIGNAL_UNKNOWN", "every_failing_command_has_its_code"),
    ("E_PID_FILE", "every_failing_command_has_its_code"),
    ("E_CONSOLE_SOCKET", "every_failing_command_has_its_code"),
    ("E_CGROUP_IN_USE", "every_failing_command_has_its_code"),
    ("E_SET_ID", "t33_set_uid_copy_of_the_binary_is_refused"),
    ("E_ID_MAPPED_MOUNT", "idmap_error_names_the_filesystem_that_refuses"),
    ("E_OOM_SCORE_ADJ", "oom_score_adj_that_cannot_be_lowered_is_told"),
    ("E_INIT_DIED", "row38_failed_create_leaves_nothing_when_init_is_killed"),
    ("E_SECCOMP_SIZE", "large_programs_stay_correct_and_huge_ones_are_refused"),
    ("W_HOOK", "poststop_hook_failure_only_warns"),
    ("E_STATE_DAMAGED", "a_damaged_record_is_told_and_nothing_is_forgotten"),
    ("E_CGROUP_NONE", "check_without_cgroups"),
    ("E_TERMINAL", "a_terminal_without_a_devpts_has_its_code"),
    (
        "E_EXEC_TIMEOUT",
        "exec_timeout_leaves_no_process_of_a_probe_that_double_forks_and_ignores_signals",
    ),
    ("E_EXEC_CONTAIN", "refusals_that_only_a_fault_brings_have_their_code"),
    ("E_SCHEDULER", "scheduler_utilization_clamps_are_the_systems_own"),
    ("E_SYSTEMD", "systemd_absent_bus_is_an_error_that_names_it"),
    ("W_NOTIFY", "none: see the tests of sd_notify"),
    ("E_NOTIFY", "notify_socket_that_is_not_there_fails_start_before_it_starts"),
    ("W_OPTION_IGNORED", "criu_is_ignored_with_a_warning"),
    ("E_DEADLINE", "deadline_bounds_hooks_and_waits"),
    ("E_NAMESPACE", "refusals_that_only_a_fault_brings_have_their_code"),
    ("E_ROOT_SWITCH", "refusals_that_only_a_fault_brings_have_their_code"),
    ("E_IDENTITY", "refusals_that_only_a_fault_brings_have_their_code"),
    ("E_SYSTEM", "refusals_that_only_a_fault_brings_have_their_code"),
    ("E_INTERNAL", "none: would be a mistake of onggi"),
    ("E_SECCOMP_ARCH", "none: all architectures that it is built for have a table"),
    ("E_SECCOMP", "refusals_that_only_a_fault_brings_have_their_code"),
    ("E_STDIO", "none: the caller's descriptors would have to change owner and refuse"),
    ("E_SEAL", "refusals_that_only_a_fault_brings_have_their_code"),
    ("E_LSM_LABEL", "missing_profile_is_refused_and_leaves_nothing"),
    ("E_OOM_AT_START", "create_that_dies_of_oom_says_so"),
    ("E_DELETE", "none: a process that SIGKILL does not end"),
    ("E_FREEZE", "none: a process in uninterruptible sleep does not freeze"),
    ("E_MEMORY_IN_USE", "none: needs a cgroup of v2 that was there before, with memory in use"),
    ("E_CGROUP_V1_ONLY", "a_setting_that_only_v1_has_has_its_code"),
    ("E_ID_MAPPING", "none: needs a user without ranges; see the tests of user namespaces"),
];

/// The names of all tests of this suite and of the library.
fn tests() -> String {
    let mut text = String::new();
    let mut dirs = vec![fixture::repository("."), fixture::repository("../src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_error_code_is_produced_by_a_test() {
    let table = fs::read_to_string(fixture::repository("../docs/errors.md")).unwrap();
    let all = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut covered: BTreeSet<&str> = ["E_CONFIG_READ"].into();
    for cases in
        [corpus::DOCUMENT, corpus::PROCESS, corpus::RESOURCES, corpus::MOUNTS, corpus::LINUX]
    {
        covered.extend(cases.iter().filter_map(|(_, _, comes)| match comes {
            Comes::Good => None,
            Comes::Warned(code) | Comes::Refused(code) | Comes::Late(code) => Some(*code),
        }));
    }
    covered.extend(corpus::TEXTS.iter().map(|(_, _, code)| *code));
    let tests = tests();
    for (code, test) in ELSEWHERE {
        let exists = test.starts_with("none: ") || tests.contains(&format!("fn {test}("));
        assert!(exists, "{code}: there is no test {test}");
        covered.insert(code);
    }
    let missing: Vec<&str> =
        all.map(|(code, _)| code).filter(|code| !covered.contains(code)).collect();
    assert!(missing.is_empty(), "no test produces {missing:?}");
}
