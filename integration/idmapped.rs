//! Id-mapped mounts: whose files they show, and what is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::{Value, json};

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Config, Container, host};

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

/// A bind mount of a directory of the bundle at /data, with maps of its own.
fn mapped(source: &str, options: &[&str]) -> Value {
    json!({
        "destination": "/data", "type": "none", "source": source, "options": options,
        "uidMappings": map(0, 5000, 1000), "gidMappings": map(0, 6000, 1000)
    })
}

/// A bundle with a directory `data` beside config.json that has files of 0:0 and 1:1, and a command that
/// shows whose they are.
fn bundle_with(mount: Value) -> Bundle {
    let bundle = Bundle::with(|config| {
        config.push("/mounts", mount);
        config.args(&["stat", "-c", "%n %u:%g", "/data/zero", "/data/one"])
    });
    let data = bundle.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("zero"), "").unwrap();
    fs::write(data.join("one"), "").unwrap();
    chown(data.join("one"), Some(1), Some(1)).unwrap();
    bundle
}

#[track_caller]
fn shows(bundle: &Bundle, expected: &str) {
    assert_eq!(bundle.container("web").run().ok().stdout, expected);
}

const SHIFTED: &str = "/data/zero 5000:6000\n/data/one 5001:6001\n";

#[test]
fn idmap_and_ridmap_with_own_maps_and_a_relative_source() {
    require!(root);
    for options in [["bind", "idmap"], ["rbind", "ridmap"], ["rbind", "idmap"]] {
        shows(&bundle_with(mapped("data", &options)), SHIFTED);
    }
}

/// containerd 2 gives maps without either option.
#[test]
fn idmap_by_maps_alone() {
    require!(root);
    shows(&bundle_with(mapped("data", &["rbind"])), SHIFTED);
}

/// podman writes crun's form: `uids=` and `gids=` in the option itself.
#[test]
fn idmap_with_the_map_in_the_option() {
    require!(root);
    let mount = |option: &str| {
        let options = ["rbind", option];
        json!({ "destination": "/data", "type": "bind", "source": "data", "options": options })
    };
    shows(&bundle_with(mount("idmap=uids=0-5000-1#1-5001-9;gids=0-6000-10")), SHIFTED);
    shows(&bundle_with(mount("ridmap=uids=0-5000-1000;gids=0-6000-1000")), SHIFTED);
    for bad in ["idmap=uids=0-5000-1", "idmap=uids=@0-0-1;gids=0-0-1", "idmap=nonsense"] {
        refused_at(&bundle_with(mount(bad)), &["/mounts/7/options"]);
    }
}

/// What is written has the ids turned back, and nobody's ownership was changed.
#[test]
fn idmap_writes_turn_ids_back() {
    require!(root);
    let bundle = bundle_with(mapped("data", &["rbind", "idmap"]));
    bundle.edit(|config| {
        config.set("/process/user", json!({ "uid": 5007, "gid": 6008 }));
        config.sh("touch /data/new; stat -c %u:%g /data/new")
    });
    fs::set_permissions(bundle.path().join("data"), PermissionsExt::from_mode(0o777)).unwrap();
    shows(&bundle, "5007:6008\n");
    let data = bundle.path().join("data");
    let owner = |name: &str| {
        let stat = fs::metadata(data.join(name)).unwrap();
        (stat.uid(), stat.gid())
    };
    assert_eq!((owner("new"), owner("zero"), owner("one")), ((7, 8), (0, 0), (1, 1)));
}

/// Read-only and other attributes hold besides.
#[test]
fn idmap_goes_with_other_attributes() {
    require!(root);
    let bundle = bundle_with(mapped("data", &["rbind", "ridmap", "ro", "nosuid", "rnoexec"]));
    bundle.edit(|config| config.sh("touch /data/x; grep ' /data ' /proc/self/mountinfo"));
    let output = bundle.container("web").run().ok();
    for word in ["ro,nosuid,noexec", "idmapped"] {
        assert!(output.stdout.contains(word), "{output}");
    }
    assert!(output.stderr.contains("Read-only file system"), "{output}");
}

/// Makes `call`'s mount namespace private and gives `data` a filesystem below.
fn with_below<'b>(bundle: &'b Bundle, fstype: &str) -> (Container<'b>, String) {
    let below = bundle.path().join("data/below");
    fs::create_dir(&below).unwrap();
    let script = format!("mount -t {fstype} {fstype} {} && exec \"$0\" \"$@\"", below.display());
    (bundle.container("web"), script)
}

fn run_through(web: &Container<'_>, script: &str) -> crate::support::Output {
    let unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    web.call("run", &[]).through(&unshare).run()
}

#[test]
fn idmap_is_for_the_top_mount_and_ridmap_for_all_below() {
    require!(root, program("unshare"));
    for (option, expected) in [("idmap", "5000:6000 0:0"), ("ridmap", "5000:6000 5000:6000")] {
        let bundle = bundle_with(mapped("data", &["rbind", option]));
        bundle.edit(|config| config.sh("echo $(stat -c %u:%g /data/zero /data/below)"));
        let (web, script) = with_below(&bundle, "tmpfs");
        assert_eq!(run_through(&web, &script).ok().stdout.trim(), expected, "{option}");
    }
}

#[test]
fn idmap_error_names_the_filesystem_that_refuses() {
    require!(root, program("unshare"));
    let bundle = bundle_with(mapped("/proc/self", &["bind", "idmap"]));
    let web = bundle.container("web");
    let output = web.create().fails_with("the filesystem proc at /proc");
    assert!(output.stderr.contains("/mounts/7: "), "{output}");
    bundle.assert_clean();
    let bundle = bundle_with(mapped("data", &["rbind", "ridmap"]));
    let (web, script) = with_below(&bundle, "ramfs");
    let refused = run_through(&web, &script).fails();
    let expected =
        format!("the filesystem ramfs at {}", bundle.path().join("data/below").display());
    assert!(refused.stderr.contains(&expected), "{refused}");
    // The one below is no matter for idmap.
    bundle.edit(|config| config.set("/mounts/7/options", json!(["rbind", "idmap"])));
    run_through(&web, &script).ok();
}

#[test]
fn idmap_of_a_new_filesystem() {
    require!(root);
    let mount = json!({
        "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["idmap", "mode=777"],
        "uidMappings": map(0, 5000, 1000), "gidMappings": map(0, 6000, 1000)
    });
    let bundle = Bundle::with(|config| config.push("/mounts", mount).sh("stat -c %u:%g /data"));
    match bundle.container("web").run() {
        // Before Linux 6.3.
        output if output.stderr.contains("tmpfs cannot map ids") => {}
        output => assert_eq!(output.ok().stdout, "5000:6000\n"),
    }
    bundle.edit(|config| config.set("/mounts/7/type", "mqueue"));
    bundle.edit(|config| config.set("/mounts/7/options", json!(["idmap"])));
    let web = bundle.container("web");
    web.create().fails_with("/mounts/7: mqueue cannot map ids");
}

#[test]
fn idmap_refused_with_its_pointer() {
    require!(root);
    let bundle = bundle_with(json!({
        "destination": "/data", "source": "data", "options": ["rbind", "idmap"]
    }));
    refused_at(&bundle, &["/mounts/7/options"]);
    for (lacking, pointer) in
        [("uidMappings", "/mounts/7/uidMappings"), ("gidMappings", "/mounts/7/gidMappings")]
    {
        bundle.edit(|config| config.set("/mounts/7", mapped("data", &["rbind", "idmap"])));
        bundle.edit(|config| config.remove(&format!("/mounts/7/{lacking}")));
        refused_at(&bundle, &[pointer]);
    }
    bundle.edit(|config| config.set("/mounts/7", mapped("data", &["remount", "ro"])));
    refused_at(&bundle, &["/mounts/7/options"]);
    bundle.edit(|config| config.set("/mounts/7", mapped("data", &["rbind"])));
    bundle.edit(|config| config.set("/mounts/7/uidMappings/0/size", 0));
    refused_at(&bundle, &["/mounts/7/uidMappings"]);
}

/// A new user namespace whose ids 0 to 65535 are 100000 and on.
fn in_user_namespace(config: &mut Config) -> &mut Config {
    config.set("/linux/uidMappings", map(0, 100_000, 65536));
    config.set("/linux/gidMappings", map(0, 100_000, 65536));
    config.push("/linux/namespaces", json!({ "type": "user" }))
}

/// The root filesystem, but not the data, is the container's own.
fn own(bundle: &Bundle) {
    let rootfs = bundle.rootfs();
    let (status, text) = host::tool(&["chown", "-Rh", "100000:100000", rootfs.to_str().unwrap()]);
    assert!(status.success(), "{text}");
}

fn without_maps(options: &[&str]) -> Value {
    json!({ "destination": "/data", "type": "none", "source": "data", "options": options })
}

/// Root's files are the container's root's, where nothing was chowned.
#[test]
fn idmap_with_the_maps_of_the_containers_new_user_namespace() {
    require!(root);
    let all = [
        (["rbind", "idmap"], "/data/zero 0:0\n/data/one 1:1\n"),
        (["rbind", "ridmap"], "/data/zero 0:0\n/data/one 1:1\n"),
        (["rbind", "rw"], "/data/zero 65534:65534\n/data/one 65534:65534\n"),
    ];
    for (options, expected) in all {
        let bundle = bundle_with(without_maps(&options));
        bundle.edit(in_user_namespace);
        own(&bundle);
        shows(&bundle, expected);
    }
}

#[test]
fn idmap_with_own_maps_in_a_user_namespace() {
    require!(root);
    let bundle = bundle_with(mapped("data", &["rbind", "idmap"]));
    bundle.edit(|config| {
        // The filesystem's 0 is the container's 5, its 1 the container's 6.
        let map = map(0, 100_005, 100);
        config.set("/mounts/7/uidMappings", map.clone()).set("/mounts/7/gidMappings", map);
        in_user_namespace(config)
    });
    own(&bundle);
    shows(&bundle, "/data/zero 5:5\n/data/one 6:6\n");
}

#[test]
fn idmap_with_the_maps_of_a_joined_user_namespace() {
    require!(root);
    let bundle = bundle_with(without_maps(&["rbind", "idmap"]));
    bundle.edit(|config| in_user_namespace(config).args(&["sleep", "1000"]));
    own(&bundle);
    let pod = bundle.container("pod");
    pod.up();
    let path = format!("/proc/{}/ns/user", pod.init().0);
    let source = bundle.path().join("data");
    let web = bundle.another("web", |config| {
        config.join_namespace("user", &path);
        config.set("/mounts/7/source", source.to_str().unwrap());
        config.args(&["stat", "-c", "%u:%g", "/data/one"])
    });
    assert_eq!(web.run().ok().stdout, "1:1\n");
}
