//! Attackers that run while the runtime works: exchanges of directories and links, and a pid 1
//! that watches every process which enters its container. Each is bounded to some seconds; the
//! long runs are `hack/`'s.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::attack::{Outside, Swapper, compile};
use crate::support::{Bundle, Container, eventually};

const TIME: Duration = Duration::from_secs(15);

/// What became of the creates under attack.
#[derive(Debug, Default)]
struct Tally {
    started: u32,
    refused: u32,
}

/// Creates and deletes containers with new mount points until the time is over; each must either
/// be refused and leave nothing, or be there.
fn creates_under_attack(bundle: &Bundle, mut check: impl FnMut(&Container)) -> Tally {
    let mut tally = Tally::default();
    let begin = Instant::now();
    for number in 0.. {
        if begin.elapsed() > TIME {
            break;
        }
        bundle.edit(|config| {
            for mount in 0..6 {
                let place = config["mounts"].as_array().unwrap().len() - 6 + mount;
                let target = format!("/vol/a/new-{number}-{mount}");
                config.set(&format!("/mounts/{place}/destination"), target);
            }
            config
        });
        let web = bundle.container("web");
        let output = web.call("create", &[]).timeout(Duration::from_secs(10)).run();
        match output.code() {
            0 => {
                check(&web);
                tally.started += 1;
            }
            1 => tally.refused += 1,
            code => panic!("{code}: {output}"),
        }
        web.remove();
    }
    assert!(tally.started + tally.refused > 5, "{tally:?}");
    tally
}

/// A volume whose `a` is to be exchanged with a link, and six mounts below it.
fn volume(kind: &str) -> (Bundle, std::path::PathBuf, Outside) {
    let bundle = Bundle::new();
    let volume = bundle.share("/vol");
    let outside = Outside::new(bundle.dir().join("outside"));
    fs::create_dir(volume.join("a")).unwrap();
    let source = bundle.dir().join("source");
    fs::create_dir(&source).unwrap();
    bundle.edit(|config| {
        for _ in 0..6 {
            config.push(
                "/mounts",
                match kind {
                    "tmpfs" => json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs" }),
                    _ => json!({ "destination": "/x", "source": source, "options": ["bind"] }),
                },
            );
        }
        config
    });
    (bundle, volume, outside)
}

/// T13, CVE-2024-45310: the directory in which mount points are to be made is exchanged with a
/// link to a directory of the host.
/// Notices: mkdirat and openat(O_EXCL) on a directory that was resolved in the root, by descriptor.
#[test]
fn t13_swapped_volume_directory_makes_nothing_on_the_host() {
    require!(root);
    let (bundle, volume, outside) = volume("bind");
    symlink(outside.path(), volume.join("link")).unwrap();
    let swapper = Swapper::new(&volume.join("a"), &volume.join("link"));
    let tally = creates_under_attack(&bundle, |_| {});
    assert!(swapper.count() > 1000, "no attack: {}", swapper.count());
    drop(swapper);
    outside.assert_untouched();
    println!("{tally:?}");
}

/// T8, CVE-2021-30465: the target of a mount is exchanged between its check and its use.
/// Notices: move_mount to a descriptor, sources opened before any target.
#[test]
fn t8_swapped_mount_target_never_shows_a_path_of_the_host() {
    require!(root);
    let (bundle, volume, outside) = volume("tmpfs");
    symlink("/../../../../../..", volume.join("link")).unwrap();
    let swapper = Swapper::new(&volume.join("a"), &volume.join("link"));
    let name = bundle.name().to_string();
    let tally = creates_under_attack(&bundle, |web| {
        for mount in web.init().mounts() {
            assert!(!mount.target.contains(&name), "the host's tree: {mount:?}");
            // Of a file system of the host only the rootfs and the volume.
            let of_host = mount.source.starts_with("/dev/") && !mount.root.contains(&name);
            assert!(!of_host, "{mount:?}");
        }
    });
    assert!(swapper.count() > 1000, "no attack: {}", swapper.count());
    drop(swapper);
    outside.assert_untouched();
    println!("{tally:?}");
}

/// T6 with a second container that shares the rootfs and exchanges /proc with a link all the time.
/// Notices: the target opened once, as a directory, without links; the fd-based mount.
#[test]
fn t6_swapped_proc_never_has_a_procfs_elsewhere() {
    require!(root);
    let bundle = Bundle::new();
    let rootfs = bundle.rootfs();
    fs::create_dir(rootfs.join("evil")).unwrap();
    symlink("/evil", rootfs.join("link")).unwrap();
    let swapper = Swapper::new(&rootfs.join("proc"), &rootfs.join("link"));
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let web = bundle.container("web");
        let output = web.call("create", &[]).timeout(Duration::from_secs(10)).run();
        if output.code() == 0 {
            let mounts = web.init().mounts();
            let procs: Vec<_> = mounts.iter().filter(|mount| mount.fstype == "proc").collect();
            assert!(procs.iter().all(|mount| !mount.target.starts_with("/evil")), "{procs:?}");
            assert!(!procs.is_empty(), "{mounts:?}");
        }
        web.remove();
    }
    assert!(swapper.count() > 1000, "no attack: {}", swapper.count());
}

/// pid 1 that looks at every other process: its executable, root, working directory, descriptors,
/// memory. A line in /out/found for whatever is not the container's own.
const WATCHER: &str = r#"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
static struct stat top, busybox, own;
static long tries;
static int same(struct stat *a, struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }
static void found(const char *what, const char *path) {
    char line[512], link[256] = "";
    readlink(path, link, sizeof link - 1);
    int n = snprintf(line, sizeof line, "%s %s %s\n", what, path, link);
    int fd = open("/out/found", O_WRONLY | O_CREAT | O_APPEND, 0644);
    write(fd, line, n);
    close(fd);
}
static int foreign_exe(const char *pid) {
    char path[64];
    struct stat exe;
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    int bad = fstat(fd, &exe) == 0 && !same(&exe, &busybox) && !same(&exe, &own);
    if (bad) found("exe", path);
    close(fd);
    return bad;
}
static void trace(const char *pid) {
    int n = atoi(pid);
    if (ptrace(PTRACE_SEIZE, n, 0, 0) != 0) return;
    ptrace(PTRACE_INTERRUPT, n, 0, 0);
    int status;
    waitpid(n, &status, __WALL);
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    if (foreign_exe(pid)) found("traced", path);
    ptrace(PTRACE_DETACH, n, 0, 0);
}
static void look(const char *pid) {
    char path[320];
    struct stat facts;
    tries++;
    foreign_exe(pid);
    snprintf(path, sizeof path, "/proc/%s/root/.", pid);
    if (stat(path, &facts) == 0 && !same(&facts, &top)) found("root", path);
    snprintf(path, sizeof path, "/proc/%s/cwd/.", pid);
    if (stat(path, &facts) == 0 && !same(&facts, &top)) found("cwd", path);
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) { found("directory", path); close(fd); }
    }
    if (dir) closedir(dir);
    trace(pid);
}
int main() {
    stat("/", &top); stat("/bin/busybox", &busybox); stat("/proc/self/exe", &own);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while ((entry = readdir(proc)))
            if (entry->d_name[0] > '0' && entry->d_name[0] <= '9' && strcmp(entry->d_name, "1")) look(entry->d_name);
        closedir(proc);
        int fd = open("/out/tries", O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dprintf(fd, "%ld\n", tries);
        close(fd);
    }
}
"#;

/// T3, CVE-2016-9962: a process that enters a container can be neither traced nor looked into.
/// Notices: PR_SET_DUMPABLE 0 before setns, no directory descriptor of the host after entry.
#[test]
fn t3_pid_1_gets_nothing_of_200_execs() {
    require!(root, program("cc"));
    let bundle = Bundle::with(|config| config.args(&["/watcher"]));
    compile(WATCHER, &bundle.rootfs().join("watcher"));
    let out = bundle.share("/out");
    let web = bundle.container("web");
    web.up();
    let begin = Instant::now();
    for _ in 0..200 {
        web.exec(&["true"]).ok();
        if begin.elapsed() > 4 * TIME {
            break;
        }
    }
    // It writes the number again and again.
    let tries: u64 = eventually("the watcher has counted", || {
        fs::read_to_string(out.join("tries")).ok()?.trim().parse().ok()
    });
    assert!(tries > 50, "it has seen nobody: {tries}");
    let found = fs::read_to_string(out.join("found")).unwrap_or_default();
    assert_eq!(found, "");
}
