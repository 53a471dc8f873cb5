//! SELinux on a kernel that has it: labels of processes, mounts and keyrings. hack/test-vm boots a
//! virtual machine with `security=selinux` for these; the policy there is Debian's, permissive.
//!
//! The last line of each comment names the protection whose removal the test would notice.

use std::fs;
use std::io::Write;

use crate::support::{Bundle, Process, eventually};

/// Whether the loaded policy knows a context.
fn is_valid(context: &str) -> bool {
    let file = fs::OpenOptions::new().write(true).open("/sys/fs/selinux/context");
    file.unwrap().write_all(context.as_bytes()).is_ok()
}

/// The first one that the policy knows: distributions call their container types differently.
fn known(candidates: &[&str]) -> String {
    let found = candidates.iter().find(|context| is_valid(context));
    found.unwrap_or_else(|| panic!("the policy knows none of {candidates:?}")).to_string()
}

/// With two categories, so a comma is in it.
fn process_label() -> String {
    known(&[
        "system_u:system_r:container_t:s0:c1,c2",
        "system_u:system_r:container_t:s0",
        "unconfined_u:unconfined_r:unconfined_t:s0:c1,c2",
    ])
}

fn mount_label() -> String {
    known(&[
        "system_u:object_r:container_file_t:s0:c1,c2",
        "system_u:object_r:tmpfs_t:s0:c1,c2",
        "system_u:object_r:tmpfs_t:s0",
    ])
}

fn label_of(process: Process) -> String {
    process.read("attr/current").trim_end_matches(['\n', '\0']).to_string()
}

/// Init has the label, seen from the host and from inside, and exec'd processes have it, too.
/// Notices: the label not written.
#[test]
fn process_has_the_selinux_label() {
    require!(root, selinux);
    let label = process_label();
    let bundle = Bundle::sh("cat /proc/self/attr/current; exec sleep 1000");
    bundle.edit(|config| config.set("/process/selinuxLabel", label.as_str()));
    let web = bundle.container("web");
    let created = web.up();
    eventually("it has written", || (!created.stdout_now().is_empty()).then_some(()));
    let inside = created.stdout_now();
    assert_eq!(inside.trim_end_matches(['\n', '\0']), label);
    assert_eq!(label_of(web.init()), label);
    let exec = web.exec(&["cat", "/proc/self/attr/current"]).ok();
    assert_eq!(exec.stdout.trim_end_matches(['\n', '\0']), label);
}

/// `--process-label` of exec.
#[test]
fn exec_takes_the_process_label_it_is_given() {
    require!(root, selinux);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let label = process_label();
    let exec = web.call("exec", &["--process-label", &label]);
    let exec = exec.args(&["cat", "/proc/self/attr/current"]).run().ok();
    assert_eq!(exec.stdout.trim_end_matches(['\n', '\0']), label);
}

/// The kernel knows which labels there are; what it does not know is told with its place.
#[test]
fn unknown_selinux_label_is_refused_and_leaves_nothing() {
    require!(root, selinux);
    let bundle =
        Bundle::with(|config| config.set("/process/selinuxLabel", "no:such:onggi_label:s0"));
    let web = bundle.container("web");
    let output = web.create().fails();
    assert!(output.stderr.contains("/process/selinuxLabel"), "{output}");
    assert!(output.stderr.contains("no:such:onggi_label:s0"), "{output}");
    bundle.assert_clean();
}

/// Every filesystem that is made for the container and takes a label has it: those of `mounts`, and
/// the one that covers masked directories.
/// Notices: `context=` left away.
#[test]
fn mount_label_is_on_every_new_filesystem_that_takes_one() {
    require!(root, selinux);
    let label = mount_label();
    let bundle = Bundle::with(|config| {
        config.set("/linux/mountLabel", label.as_str());
        config.set("/linux/maskedPaths", &["/sys/firmware", "/var"][..])
    });
    let web = bundle.container("web");
    web.create().ok();
    let wanted = format!("context={label}");
    let wanted_quoted = format!("context=\"{label}\"");
    for target in ["/dev", "/dev/pts", "/dev/shm", "/var"] {
        let mount = web.init().mount_at(target).expect(target);
        let options = &mount.super_options;
        let has = options.contains(&wanted) || options.contains(&wanted_quoted);
        assert!(has, "{target}: {mount:?}");
    }
    // Its superblock is that of the ipc namespace: only the root directory is labelled.
    assert_eq!(file_label(&web.init().path("/dev/mqueue")), label);
    // These have labels of their own, which a context would be refused for.
    for target in ["/proc", "/sys"] {
        let mount = web.init().mount_at(target).expect(target);
        assert!(!mount.super_options.contains("context="), "{target}: {mount:?}");
    }
}

/// A container may use its own session keyring: that has the label of its process, not the runtime's.
/// Notices: attr/keycreate not written.
#[test]
fn session_keyring_has_the_label_of_the_process() {
    require!(root, selinux);
    let label = process_label();
    let bundle = Bundle::with(|config| config.set("/process/selinuxLabel", label.as_str()));
    let id = format!("{}-key", bundle.name());
    let web = bundle.container(&id);
    web.create().ok();
    let keys = fs::read_to_string("/proc/keys").unwrap();
    let line = keys.lines().find(|line| line.contains(&format!("_ses.{id}")));
    let line = line.unwrap_or_else(|| panic!("no keyring of {id} in {keys}"));
    let key = u32::from_str_radix(line.split_whitespace().next().unwrap(), 16).unwrap();
    assert_eq!(key_label(key), label);
    // What the process itself makes later has its own label again: the request was for one keyring.
    assert_eq!(web.init().read("attr/keycreate").trim_end_matches('\0'), "");
}

fn file_label(path: &std::path::Path) -> String {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mut buffer = [0u8; 256];
    let (name, place) = (c"security.selinux".as_ptr(), buffer.as_mut_ptr().cast());
    let count = unsafe { libc::getxattr(path.as_ptr(), name, place, buffer.len()) };
    assert!(count > 0, "getxattr {path:?}: {}", std::io::Error::last_os_error());
    String::from_utf8_lossy(&buffer[..count as usize]).trim_end_matches('\0').to_string()
}

/// `KEYCTL_GET_SECURITY`
fn key_label(key: u32) -> String {
    const KEYCTL_GET_SECURITY: libc::c_long = 17;
    let mut buffer = [0u8; 256];
    let (place, size) = (buffer.as_mut_ptr(), buffer.len());
    let count =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_SECURITY, key as i32, place, size) };
    assert!(count > 0, "keyctl: {}", std::io::Error::last_os_error());
    String::from_utf8_lossy(&buffer[..count as usize]).trim_end_matches('\0').to_string()
}
