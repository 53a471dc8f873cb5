//! conformance/spec.toml: every sentence of the specification names the test that proves it. And the
//! tests of those sentences that no other subject has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::hooks::{CREATE_KINDS, read, recorder, script};
use crate::support::refusal::refused_at;
use crate::support::{Bundle, host};

/// The tables of a file like conformance/spec.toml: `[[row]]`, then `key = JSON`, with comments and
/// values over several lines.
pub fn tables(file: &str) -> Vec<BTreeMap<String, Value>> {
    let text = fs::read_to_string(host::sources().join("conformance").join(file)).unwrap();
    let mut rows: Vec<BTreeMap<String, Value>> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("[[") {
            rows.push(BTreeMap::new());
            continue;
        }
        let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{file}:{number}"));
        let mut value = value.to_string();
        while value.starts_with('[') && !value.ends_with(']') {
            value += lines.next().unwrap().1.trim();
        }
        let value = serde_json::from_str(&value.replace(",]", "]"))
            .unwrap_or_else(|error| panic!("{file}:{}: {error}: {value}", number + 1));
        assert!(rows.last_mut().unwrap().insert(key.to_string(), value).is_none(), "{line}");
    }
    rows
}

/// The `#[test]` functions of a source file.
pub fn tests_of(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut found = BTreeSet::new();
    for part in text.split("#[test]\n").skip(1) {
        let name = part.split_once("fn ").unwrap().1.split_once('(').unwrap().0;
        found.insert(name.to_string());
    }
    found
}

/// Whether `FILE::NAME` is a test.
pub fn is_a_test(name: &str) -> bool {
    let (file, function) = name.rsplit_once("::").unwrap_or_else(|| panic!("{name} has no ::"));
    let path = match file.strip_suffix(".rs") {
        Some(_) => PathBuf::from(file),
        None => PathBuf::from(format!("integration/{file}.rs")),
    };
    tests_of(&host::sources().join(path)).contains(function)
}

/// What is claimed is tested, and the number of what is not is printed.
#[test]
fn every_row_of_the_specification_names_a_test_or_a_reason() {
    let mut count: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for row in tables("spec.toml") {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let (at, level, what) = (text("at"), text("level"), text("what"));
        assert!(at.contains(".md#") && !what.is_empty(), "{row:?}");
        assert!(["MUST", "MUST NOT", "SHOULD", "SHOULD NOT"].contains(&&*level), "{row:?}");
        assert!(seen.insert((at, what.clone())), "twice: {what}");
        let status = match (row.get("test"), row.get("na"), row.get("todo")) {
            (Some(tests), None, None) => {
                let tests = tests.as_array().unwrap();
                assert!(!tests.is_empty(), "{row:?}");
                for test in tests {
                    assert!(is_a_test(test.as_str().unwrap()), "there is no test {test}: {what}");
                }
                "tested"
            }
            (None, Some(_), None) => "n/a",
            (None, None, Some(_)) => "todo",
            _ => panic!("not exactly one of test, na and todo: {row:?}"),
        };
        *count.entry((level.replace(" NOT", ""), status)).or_default() += 1;
    }
    for ((level, status), number) in &count {
        println!("{level:<6} {status:<6} {number:>4}");
    }
    println!("{} sentences of the specification", seen.len());
}

/// A name that no test has must not pass for one.
#[test]
fn a_test_that_does_not_exist_is_not_found() {
    assert!(is_a_test("conformance::a_test_that_does_not_exist_is_not_found"));
    assert!(is_a_test("src/plan/options.rs::later_options_win"));
    assert!(!is_a_test("conformance::tables"));
    assert!(!is_a_test("src/plan/options.rs::parse"));
}

/// The rows of the table of properties in docs/compatibility.md: what, onggi's cell, the subjects.
fn properties() -> Vec<[String; 3]> {
    let text = fs::read_to_string(host::sources().join("docs/compatibility.md")).unwrap();
    let table = text.split_once("\n| Property | onggi |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| "));
    let cell = |line: &str, index| {
        line.trim_matches(['|', ' ']).split(" | ").nth(index).map(str::to_string)
    };
    rows.map(|line| [0, 1, 5].map(|index| cell(line, index).unwrap())).collect()
}

/// No cell of onggi's column says more than tests prove.
#[test]
fn every_row_of_the_table_of_properties_has_its_tests() {
    let rows = properties();
    let proofs = tables("properties.toml");
    assert_eq!(rows.len(), proofs.len());
    for ([property, cell, subjects], proof) in rows.iter().zip(proofs) {
        assert_eq!(*property, proof["property"].as_str().unwrap());
        assert!(
            cell == "Y"
                || cell.starts_with("Y:")
                || cell.starts_with("Y, ")
                || cell.starts_with("Y; "),
            "{property}: {cell}"
        );
        let tests: Vec<&str> =
            proof["test"].as_array().unwrap().iter().map(|test| test.as_str().unwrap()).collect();
        for test in &tests {
            assert!(is_a_test(test), "there is no test {test}: {property}");
        }
        let files: BTreeSet<&str> =
            tests.iter().map(|test| test.split_once("::").unwrap().0).collect();
        let named = subjects.split(", ").map(|name| name.split(' ').next().unwrap());
        assert_eq!(named.collect::<BTreeSet<_>>(), files, "{property}");
    }
    println!("{} properties, each Y with its tests", rows.len());
}

/// Each kind of bad input is refused by a test or by a case of the corpus of `check`.
#[test]
fn every_row_of_bad_input_names_a_test_or_a_case() {
    let rows = tables("bad-input.toml");
    let cases = crate::check::case_names();
    for row in &rows {
        let list = |key: &str| row.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let what = row["what"].as_str().unwrap();
        assert!(!list("test").is_empty() || !list("case").is_empty(), "{what}");
        for test in list("test") {
            assert!(is_a_test(test.as_str().unwrap()), "there is no test {test}: {what}");
        }
        for case in list("case") {
            assert!(cases.contains(&case.as_str().unwrap()), "there is no case {case}: {what}");
        }
    }
    println!("{} kinds of bad input, each refused by a test", rows.len());
}

#[test]
fn console_size_without_a_terminal_is_ignored() {
    require!(root);
    let bundle = Bundle::sh("tty; stty size 2>&1; true");
    bundle.edit(|config| {
        config.set("/process/consoleSize", json!({ "height": 4_000_000_000u32, "width": 7 }))
    });
    let output = bundle.container("web").call("run", &[]).stdin(std::process::Stdio::null()).run();
    assert!(output.ok().stdout.contains("not a tty"));
}

/// The environment is complete, the root is still that of the host.
#[test]
fn prestart_and_create_runtime_hooks_see_the_old_root() {
    require!(root);
    let (bundle, dir) = recorder();
    for kind in ["prestart", "createRuntime"] {
        let look = r#"pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/' | tr -d '\n')
            test -e /proc/$pid/root$0 && echo the hosts root > $0/root-KIND
            cat /proc/$pid/mountinfo > $0/mounts-KIND"#;
        bundle.edit(|config| {
            script(config, &bundle, kind, &look.replace("KIND", kind));
            config
        });
    }
    bundle.container("web").create().ok();
    let rootfs = bundle.rootfs();
    for kind in ["prestart", "createRuntime"] {
        assert_eq!(read(&dir, &format!("root-{kind}")), "the hosts root\n");
        let mounts = read(&dir, &format!("mounts-{kind}"));
        for target in ["/proc", "/dev/pts", "/sys/fs/cgroup"] {
            let target = format!(" {}{target} ", rootfs.to_str().unwrap());
            assert!(mounts.contains(&target), "{kind}: no {target} in {mounts}");
        }
    }
}

#[test]
fn failed_create_hooks_lead_to_the_poststop_hooks() {
    require!(root);
    for kind in CREATE_KINDS {
        let (bundle, dir) = recorder();
        bundle.edit(|config| {
            script(config, &bundle, kind, "exit 3");
            script(config, &bundle, "poststop", "echo poststop >> $0/order");
            config
        });
        let web = bundle.container("web");
        web.create().fails_with(kind);
        assert_eq!(read(&dir, "order"), "poststop\n", "{kind}");
        assert_eq!(bundle.state_entries(), [""; 0]);
    }
}

#[test]
fn annotations_that_are_no_map_of_strings_are_refused() {
    require!(root);
    for annotations in [json!(["a"]), json!({ "a": 1 }), json!({ "a": null }), json!({ "": "a" })] {
        let bundle = Bundle::with(|config| config.set("/annotations", annotations.clone()));
        refused_at(&bundle, &["/annotations"]);
    }
}

#[test]
fn unknown_annotations_are_ignored_and_in_the_state() {
    require!(root);
    let annotations = json!({ "com.example.some-key": "", "no domain": "ü\n" });
    let bundle = Bundle::with(|config| config.set("/annotations", annotations.clone()));
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(web.state()["annotations"], annotations);
}

#[test]
fn filesystems_that_linux_programs_expect_are_there() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let places =
        [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")];
    for (target, fstype) in places {
        assert_eq!(web.init().mount_at(target).unwrap().fstype, fstype, "{target}");
    }
}

#[test]
fn namespace_path_that_is_relative_is_refused() {
    require!(root);
    let bundle = Bundle::with(|config| config.join_namespace("network", "proc/self/ns/net"));
    refused_at(&bundle, &["/linux/namespaces"]);
}

#[test]
fn the_same_relative_cgroups_path_is_the_same_place() {
    require!(root);
    let bundle = Bundle::new();
    bundle.edit(|config| config.set("/linux/cgroupsPath", bundle.name()));
    let places = || {
        let web = bundle.container("web");
        web.create().ok();
        let places = web.init().cgroups();
        web.remove();
        places
    };
    let first = places();
    assert!(first.values().any(|path| path.ends_with(bundle.name())), "{first:?}");
    assert_eq!(places(), first);
}

/// Delegation is not safe on v1.
#[test]
fn cgroup_owner_is_never_changed_on_v1() {
    require!(root, any_cgroup_v1());
    let bundle =
        Bundle::with(|config| config.set("/process/user/uid", 1000).set("/process/user/gid", 1000));
    bundle.edit(|config| {
        for mount in config.0["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["nosuid", "nodev", "noexec", "rw"]);
            }
        }
        config
    });
    let web = bundle.container("web");
    web.create().ok();
    let dir = bundle.cgroup("memory");
    for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).chain([dir.clone()])
    {
        assert_eq!(fs::metadata(&entry).unwrap().uid(), 0, "{entry:?}");
    }
}

#[test]
fn unified_key_enables_its_controller_and_is_written() {
    require!(root, v2_controller("hugetlb"));
    let unified = json!({ "hugetlb.2MB.max": "4194304" });
    let bundle = Bundle::with(|config| config.set("/linux/resources/unified", unified));
    let web = bundle.container("web");
    web.create().ok();
    let file = bundle.cgroup("hugetlb").join("hugetlb.2MB.max");
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "4194304");
}

/// No code of the runtime knows this name.
#[test]
fn unified_key_that_nobody_knows_is_written() {
    require!(root, v2_controller("hugetlb"));
    let unified = json!({ "hugetlb.2MB.rsvd.max": "2097152", "cgroup.max.depth": "7" });
    let bundle = Bundle::with(|config| config.set("/linux/resources/unified", unified));
    let web = bundle.container("web");
    web.create().ok();
    let read = |file| fs::read_to_string(bundle.cgroup("hugetlb").join(file)).unwrap();
    assert_eq!(read("hugetlb.2MB.rsvd.max").trim(), "2097152");
    assert_eq!(read("cgroup.max.depth").trim(), "7");
}

#[test]
fn unified_controller_that_is_missing_is_an_error() {
    require!(root);
    let unified = json!({ "nonesuch.max": "1" });
    let bundle = Bundle::with(|config| config.set("/linux/resources/unified", unified));
    refused_at(&bundle, &["/linux/resources/unified/nonesuch.max"]);
}

#[test]
fn seccomp_rule_without_names_is_refused() {
    require!(root);
    let rule = json!({ "names": [], "action": "SCMP_ACT_ERRNO" });
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    let bundle = Bundle::with(|config| config.set("/linux/seccomp", profile));
    refused_at(&bundle, &["/linux/seccomp/syscalls/0"]);
}

/// runtime-linux.md: if the source exists after processing mounts.
#[test]
fn dev_links_are_made_only_where_proc_is_mounted() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.0["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        config
    });
    let web = bundle.container("web");
    web.create().ok();
    for link in ["fd", "stdin", "stdout", "stderr"] {
        let path = web.init().path(&format!("/dev/{link}"));
        assert!(fs::symlink_metadata(path).is_err(), "/dev/{link} leads nowhere");
    }
}

/// The schema of runtime.md's state: its members, their types, nothing else for `status` and `pid`.
#[track_caller]
fn follows_the_schema(state: &Value, status: &str) {
    assert_eq!(state["status"], status);
    for member in ["ociVersion", "id", "bundle"] {
        assert!(state[member].is_string(), "{member}: {state}");
    }
    assert!(Path::new(state["bundle"].as_str().unwrap()).is_absolute());
    let pid = state.get("pid").map(|pid| pid.as_u64().expect("pid is a number from 0"));
    if ["created", "running"].contains(&status) {
        assert!(pid.unwrap() > 0, "{state}");
    }
    let annotations = state.get("annotations").map(|map| map.as_object().expect("a map"));
    assert!(
        annotations.into_iter().flatten().all(|(key, value)| !key.is_empty() && value.is_string())
    );
}

#[test]
fn state_follows_the_schema_in_every_status() {
    require!(root);
    let (bundle, dir) = recorder();
    bundle.edit(|config| {
        config.set("/annotations", json!({ "org.example": "x" }));
        script(config, &bundle, "createRuntime", "cat > $0/creating");
        config
    });
    let web = bundle.container("web");
    web.create().ok();
    follows_the_schema(&serde_json::from_str(&read(&dir, "creating")).unwrap(), "creating");
    follows_the_schema(&web.state(), "created");
    web.start().ok();
    follows_the_schema(&web.state(), "running");
    web.stop();
    follows_the_schema(&web.state(), "stopped");
}

/// A config that uses one name of a list in `features`.
fn one_mount_option(option: &str) -> Bundle {
    let bundle = Bundle::new();
    let source = bundle.share("/shared");
    let of_binds = option.starts_with('r')
        && !["ro", "rw", "relatime", "remount"].contains(&option)
        || ["bind", "idmap", "shared", "slave", "private", "unbindable"].contains(&option);
    bundle.edit(|config| {
        if of_binds {
            config.bind(source.to_str().unwrap(), "/mnt", &["rbind", option]);
        } else {
            let first = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" });
            let mut second = first.clone();
            second["options"] = json!([option]);
            config.push("/mounts", first).push("/mounts", second);
        }
        if option.ends_with("idmap") {
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
            let last = config.0["mounts"].as_array_mut().unwrap().last_mut().unwrap();
            last["uidMappings"] = map.clone();
            last["gidMappings"] = map;
        }
        config
    });
    bundle
}

fn one_seccomp_name(list: &str, name: &str) -> Bundle {
    let mut rule = json!({ "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO" });
    let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    match list {
        "actions" => rule["action"] = json!(name),
        "operators" => {
            rule["args"] = json!([{ "index": 0, "value": 1, "valueTwo": 1, "op": name }])
        }
        "archs" => profile["architectures"] = json!([name]),
        _ => profile["flags"] = json!([name]),
    }
    let notifies = rule["action"] == "SCMP_ACT_NOTIFY" || name.ends_with("WAIT_KILLABLE_RECV");
    if rule["action"] == "SCMP_ACT_ALLOW" {
        profile["defaultAction"] = json!("SCMP_ACT_LOG");
    }
    profile["syscalls"] = json!([rule]);
    let bundle = Bundle::with(|config| config.set("/linux/seccomp", profile));
    if notifies {
        // That nobody listens is told only when the name has been understood.
        bundle.edit(|config| config.set("/linux/seccomp/listenerPath", "/nonexistent"));
    }
    bundle
}

/// The document promises that every name in it is understood, and engines decide by it.
#[test]
fn every_name_in_features_is_recognized() {
    require!(root);
    let features = Bundle::new().onggi(&["features"]).run().ok().json();
    let list = |pointer: &str| -> Vec<String> {
        let list = features.pointer(pointer).and_then(Value::as_array);
        list.unwrap().iter().map(|name| name.as_str().unwrap().to_string()).collect()
    };
    let works = |what: &str, name: &str, bundle: &Bundle| {
        let web = bundle.container("web");
        let output = web.create();
        assert_eq!(output.code(), 0, "{what} {name}: {output}");
        let unknown = output.log().iter().any(|line| line["msg"].to_string().contains("unknown"));
        assert!(!unknown, "{what} {name}: {output}");
    };
    for key in ["ociVersionMin", "ociVersionMax"] {
        let version = features[key].as_str().unwrap();
        works(key, version, &Bundle::with(|config| config.set("/ociVersion", version)));
    }
    for option in list("/mountOptions") {
        works("mount option", &option, &one_mount_option(&option));
    }
    for name in list("/hooks") {
        works("hook", &name, &Bundle::with(|config| config.hook(&name, "/bin/true", &["true"])));
    }
    let capabilities = list("/linux/capabilities");
    works(
        "capabilities",
        "all",
        &Bundle::with(|config| config.set("/process/capabilities/bounding", json!(capabilities))),
    );
    for namespace in list("/linux/namespaces") {
        let bundle = Bundle::with(|config| {
            config
                .share_namespace(&namespace)
                .push("/linux/namespaces", json!({ "type": namespace }))
        });
        if namespace == "user" {
            let map = json!([{ "containerID": 0, "hostID": 0, "size": 65_536 }]);
            bundle.edit(|config| {
                config.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
            });
        }
        works("namespace", &namespace, &bundle);
    }
    for names in ["actions", "operators", "archs", "knownFlags", "supportedFlags"] {
        for name in list(&format!("/linux/seccomp/{names}")) {
            let bundle = one_seccomp_name(names, &name);
            if bundle.config()["linux"]["seccomp"]["listenerPath"].is_string() {
                let web = bundle.container("web");
                let output = web.create();
                assert!(!output.stderr.contains("unknown"), "{name}: {output}");
            } else {
                works(names, &name, &bundle);
            }
        }
    }
    assert!(host::find_program("true").is_some());
}
