//! The working directory: made, entered with whose rights, and inside the container.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use crate::support::{Bundle, Output};

fn output(bundle: &Bundle) -> Output {
    bundle.container("web").run().ok()
}

/// A directory of an image with this mode and owner.
fn directory(bundle: &Bundle, name: &str, mode: u32, owner: u32) {
    let path = bundle.rootfs().join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    chown(&path, Some(owner), Some(owner)).unwrap();
}

#[test]
fn cwd_is_the_working_directory() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/cwd", "/var/lib").args(&["pwd"]));
    fs::create_dir(bundle.rootfs().join("var/lib")).unwrap();
    assert_eq!(output(&bundle).stdout, "/var/lib\n");
}

/// Engines count on it: a WORKDIR that the image lacks.
#[test]
fn cwd_that_is_missing_is_created() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/process/cwd", "/new/work/dir").sh("pwd; stat -c '%a %u' .")
    });
    assert_eq!(output(&bundle).stdout, "/new/work/dir\n755 0\n");
    assert!(bundle.rootfs().join("new/work/dir").is_dir());
}

#[test]
fn cwd_that_is_missing_is_created_inside_a_mount() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/cwd", "/data/work").args(&["pwd"]));
    let share = bundle.share("/data");
    assert_eq!(output(&bundle).stdout, "/data/work\n");
    assert!(share.join("work").is_dir());
}

/// A symlink of the image leads somewhere in the container.
#[test]
fn cwd_that_is_a_symlink_stays_inside() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/cwd", "/link/new").args(&["pwd"]));
    let outside = bundle.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.rootfs().join("link")).unwrap();
    fs::create_dir_all(bundle.rootfs().join(outside.strip_prefix("/").unwrap())).unwrap();
    assert_eq!(output(&bundle).stdout.trim(), outside.join("new").to_str().unwrap());
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn cwd_that_is_a_file_is_a_clean_error() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/cwd", "/etc/passwd"));
    let web = bundle.container("web");
    let output = web.create().fails();
    assert!(output.stderr.contains("not a directory"), "{output}");
    bundle.assert_clean();
}

/// `docker run --user 1000 -w /root`, a pod's `runAsUser` with such a WORKDIR: entered as root of the container,
/// as runc and crun do it.
#[test]
fn cwd_that_only_root_may_enter_is_that_of_a_user_all_the_same() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config
            .set("/process/cwd", "/private")
            .set("/process/user/uid", 1000)
            .set("/process/user/gid", 1000)
            .sh("readlink /proc/self/cwd; ls . 2>&1; echo; exec sleep 1000")
    });
    directory(&bundle, "private", 0o700, 0);
    let web = bundle.container("web");
    let created = web.up();
    let said = crate::support::eventually("it speaks", || {
        Some(created.stdout_now()).filter(|said| said.ends_with("\n\n"))
    });
    assert!(said.starts_with("/private\n") && said.contains("Permission denied"), "{said}");
    let exec = web.call("exec", &["--cwd", "/private", "--user", "1000:1000"]);
    assert_eq!(exec.args(&["readlink", "/proc/self/cwd"]).run().ok().stdout, "/private\n");
}

/// A directory that its user may enter and root of the container may not, as on NFS.
#[test]
fn cwd_that_only_its_user_may_enter() {
    require!(root, program("setpriv"));
    let bundle = Bundle::with(|config| {
        config
            .set("/process/cwd", "/private")
            .set("/process/user/uid", 1000)
            .set("/process/user/gid", 1000)
            .args(&["pwd"])
    });
    directory(&bundle, "private", 0o700, 1000);
    // cgroups would need those rights, too.
    let without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let run = || {
        let path = bundle.path();
        let options =
            ["--cgroup-manager", "disabled", "run", "--bundle", path.to_str().unwrap(), "web"];
        bundle.onggi(&options).through(&without).run()
    };
    bundle.edit(|config| config.remove("/linux/cgroupsPath"));
    assert_eq!(run().ok().stdout, "/private\n");
    // Nor may root look for what is below it.
    fs::create_dir(bundle.rootfs().join("private/below")).unwrap();
    bundle.edit(|config| config.set("/process/cwd", "/private/below"));
    assert_eq!(run().ok().stdout, "/private/below\n");
    directory(&bundle, "other", 0o700, 1001);
    bundle.edit(|config| config.set("/process/cwd", "/other"));
    let output = run().fails();
    assert!(output.stderr.contains("/process/cwd: chdir /other: permission denied"), "{output}");
    bundle.assert_clean();
}
