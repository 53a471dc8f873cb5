//! Good and bad configurations: small changes to one that works, each with what must come of it.

/// What create must say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comes {
    /// A container.
    Good,
    /// A container, and a warning with this code.
    Warned(&'static str),
    /// A refusal with this code before clone3, which `check` must foresee.
    Refused(&'static str),
    /// A failure that only shows when a value is written or in the container: `check` cannot know.
    Late(&'static str),
}

use Comes::{Good, Late, Refused, Warned};

/// A name, JSON pointers with the JSON to put there, and what comes of it. A pointer that ends in `/-`
/// adds to an array; the text `-` takes a member away. `BUNDLE` is the bundle's directory.
pub type Case = (&'static str, &'static [(&'static str, &'static str)], Comes);

pub const DOCUMENT: &[Case] = &[
    ("as it is", &[], Good),
    ("unknown property", &[("/x", "{\"a\": 1}")], Good),
    ("unknown property of linux", &[("/linux/futureThing", "true")], Good),
    ("windows section", &[("/windows", "{\"layerFolders\": 7}")], Good),
    ("no version", &[("/ociVersion", "-")], Refused("E_OCI_VERSION")),
    ("version 1.0.0", &[("/ociVersion", "\"1.0.0\"")], Good),
    ("version with pre-release", &[("/ociVersion", "\"1.2.1+dev\"")], Good),
    ("newer version", &[("/ociVersion", "\"1.7.0\"")], Warned("W_OCI_VERSION")),
    ("version 2", &[("/ociVersion", "\"2.0.0\"")], Refused("E_OCI_VERSION")),
    ("version 0.9", &[("/ociVersion", "\"0.9.0\"")], Refused("E_OCI_VERSION")),
    ("version no SemVer", &[("/ociVersion", "\"1\"")], Refused("E_OCI_VERSION")),
    ("version a number", &[("/ociVersion", "1")], Refused("E_TYPE")),
    ("no linux", &[("/linux", "-")], Refused("E_MISSING")),
    ("linux a list", &[("/linux", "[]")], Refused("E_TYPE")),
    ("a mount that is a list", &[("/mounts/-", "[\"/x\"]")], Refused("E_TYPE")),
    ("user a list", &[("/process/user", "[0, 0]")], Refused("E_TYPE")),
    ("no root", &[("/root", "-")], Refused("E_MISSING")),
    ("root path empty", &[("/root/path", "\"\"")], Refused("E_MISSING")),
    ("root path missing on the host", &[("/root/path", "\"nowhere\"")], Refused("E_ROOTFS")),
    ("root path a file", &[("/root/path", "\"config.json\"")], Refused("E_ROOTFS")),
    ("root path a link", &[("/root/path", "\"link\"")], Refused("E_ROOTFS")),
    ("root path with NUL", &[("/root/path", "\"a\\u0000b\"")], Refused("E_NUL_BYTE")),
    ("root read-only", &[("/root/readonly", "true")], Good),
    ("root readonly a word", &[("/root/readonly", "\"yes\"")], Refused("E_TYPE")),
    ("hostname", &[("/hostname", "\"web\"")], Good),
    ("no hostname", &[("/hostname", "-")], Good),
    (
        "hostname too long",
        &[("/hostname", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"")],
        Refused("E_NAME_TOO_LONG"),
    ),
    ("hostname with NUL", &[("/hostname", "\"a\\u0000\"")], Refused("E_NUL_BYTE")),
    ("t27 hostname of two lines", &[("/hostname", "\"a\\nb\"")], Good),
    ("domainname", &[("/domainname", "\"example\"")], Good),
    ("annotations", &[("/annotations", "{\"a\": \"b\", \"c\": \"d\\ne\"}")], Good),
    ("annotation without a key", &[("/annotations", "{\"\": \"x\"}")], Refused("E_ANNOTATION")),
    ("annotation a number", &[("/annotations", "{\"a\": 1}")], Refused("E_TYPE")),
    ("two types wrong at once", &[("/hostname", "1"), ("/mounts", "{}")], Refused("E_TYPE")),
];

pub const PROCESS: &[Case] = &[
    ("no process", &[("/process", "-")], Good),
    ("cwd relative", &[("/process/cwd", "\"tmp\"")], Refused("E_NOT_ABSOLUTE")),
    ("cwd empty", &[("/process/cwd", "\"\"")], Refused("E_NOT_ABSOLUTE")),
    ("cwd with NUL", &[("/process/cwd", "\"/a\\u0000\"")], Refused("E_NUL_BYTE")),
    ("cwd below a file", &[("/process/cwd", "\"/etc/passwd/x\"")], Late("E_CWD")),
    ("no cwd", &[("/process/cwd", "-")], Refused("E_TYPE")),
    ("no args", &[("/process/args", "-")], Refused("E_ARGS")),
    ("args empty", &[("/process/args", "[]")], Refused("E_ARGS")),
    ("args an empty word", &[("/process/args", "[\"\"]")], Refused("E_ARGS")),
    ("args with NUL", &[("/process/args", "[\"sleep\", \"1\\u0000\"]")], Refused("E_NUL_BYTE")),
    ("args a word", &[("/process/args", "\"sleep\"")], Refused("E_TYPE")),
    ("program missing", &[("/process/args", "[\"/no/such\"]")], Late("E_PROGRAM")),
    ("program not executable", &[("/process/args", "[\"/etc/passwd\"]")], Late("E_PROGRAM")),
    ("env with NUL", &[("/process/env/-", "\"A=b\\u0000\"")], Refused("E_NUL_BYTE")),
    ("env without a name", &[("/process/env/-", "\"=b\"")], Refused("E_ENV")),
    ("t27 env without =", &[("/process/env/-", "\"odd\"")], Warned("W_ENV")),
    ("t27 env of two lines", &[("/process/env/-", "\"A=b\\nc\"")], Good),
    ("user", &[("/process/user", "{\"uid\": 1000, \"gid\": 1000, \"additionalGids\": [5]}")], Good),
    ("no user", &[("/process/user", "-")], Good),
    ("t26 uid -1", &[("/process/user/uid", "-1")], Refused("E_TYPE")),
    ("t26 uid 4294967295", &[("/process/user/uid", "4294967295")], Refused("E_ID_RANGE")),
    ("t26 uid 4294967296", &[("/process/user/uid", "4294967296")], Refused("E_TYPE")),
    ("t26 uid 1e3", &[("/process/user/uid", "1e3")], Refused("E_TYPE")),
    ("t26 uid a word", &[("/process/user/uid", "\"0\"")], Refused("E_TYPE")),
    ("t26 gid 4294967295", &[("/process/user/gid", "4294967295")], Refused("E_ID_RANGE")),
    (
        "t26 group 4294967295",
        &[("/process/user/additionalGids", "[4294967295]")],
        Refused("E_ID_RANGE"),
    ),
    ("umask", &[("/process/user/umask", "63")], Good),
    ("umask too large", &[("/process/user/umask", "512")], Refused("E_UMASK")),
    (
        "unknown capability",
        &[("/process/capabilities/bounding/-", "\"CAP_NO_SUCH\"")],
        Warned("W_CAPABILITY_UNKNOWN"),
    ),
    (
        "effective above permitted",
        &[("/process/capabilities/effective/-", "\"CAP_CHOWN\"")],
        Refused("E_CAPABILITY"),
    ),
    (
        "ambient not inheritable",
        &[("/process/capabilities/ambient", "[\"CAP_KILL\"]")],
        Warned("W_CAPABILITY_DROPPED"),
    ),
    ("capabilities a number", &[("/process/capabilities", "7")], Refused("E_TYPE")),
    (
        "row 4 rlimit twice",
        &[("/process/rlimits/-", "{\"type\": \"RLIMIT_NOFILE\", \"hard\": 9, \"soft\": 9}")],
        Refused("E_RLIMIT_VALUE"),
    ),
    (
        "rlimit soft above hard",
        &[("/process/rlimits/-", "{\"type\": \"RLIMIT_CORE\", \"hard\": 1, \"soft\": 2}")],
        Refused("E_RLIMIT_VALUE"),
    ),
    (
        "rlimit unknown",
        &[("/process/rlimits/-", "{\"type\": \"RLIMIT_NONE\", \"hard\": 1, \"soft\": 1}")],
        Refused("E_TYPE"),
    ),
    ("oomScoreAdj", &[("/process/oomScoreAdj", "500")], Good),
    (
        "oomScoreAdj above 1000",
        &[("/process/oomScoreAdj", "1001")],
        Refused("E_OOM_SCORE_ADJ_VALUE"),
    ),
    (
        "oomScoreAdj below -1000",
        &[("/process/oomScoreAdj", "-1001")],
        Refused("E_OOM_SCORE_ADJ_VALUE"),
    ),
    ("scheduler", &[("/process/scheduler", "{\"policy\": \"SCHED_BATCH\", \"nice\": 5}")], Good),
    (
        "scheduler unknown",
        &[("/process/scheduler", "{\"policy\": \"SCHED_WEIRD\"}")],
        Refused("E_TYPE"),
    ),
    (
        "scheduler nice 40",
        &[("/process/scheduler", "{\"policy\": \"SCHED_OTHER\", \"nice\": 40}")],
        Refused("E_SCHEDULER_VALUE"),
    ),
    (
        "scheduler priority -1",
        &[("/process/scheduler", "{\"policy\": \"SCHED_FIFO\", \"priority\": -1}")],
        Refused("E_SCHEDULER_VALUE"),
    ),
    (
        "scheduler priority 1000",
        &[("/process/scheduler", "{\"policy\": \"SCHED_FIFO\", \"priority\": 1000}")],
        Refused("E_SCHEDULER_VALUE"),
    ),
    (
        "ioPriority",
        &[("/process/ioPriority", "{\"class\": \"IOPRIO_CLASS_BE\", \"priority\": 4}")],
        Good,
    ),
    (
        "ioPriority 8",
        &[("/process/ioPriority", "{\"class\": \"IOPRIO_CLASS_BE\", \"priority\": 8}")],
        Refused("E_SCHEDULER_VALUE"),
    ),
    (
        "ioPriority unknown",
        &[("/process/ioPriority", "{\"class\": \"IOPRIO_CLASS_X\", \"priority\": 1}")],
        Refused("E_TYPE"),
    ),
    (
        "scheduler unknown flag",
        &[("/process/scheduler", "{\"policy\": \"SCHED_OTHER\", \"flags\": [\"SCHED_FLAG_X\"]}")],
        Refused("E_TYPE"),
    ),
    (
        "personality unknown flag",
        &[("/linux/personality", "{\"domain\": \"LINUX\", \"flags\": [\"ADDR_X\"]}")],
        Refused("E_PERSONALITY"),
    ),
    ("personality", &[("/linux/personality", "{\"domain\": \"LINUX\"}")], Good),
    ("personality unknown", &[("/linux/personality", "{\"domain\": \"BSD\"}")], Refused("E_TYPE")),
    ("noNewPrivileges a word", &[("/process/noNewPrivileges", "\"yes\"")], Refused("E_TYPE")),
    (
        "rlimit above what the kernel has",
        &[(
            "/process/rlimits",
            "[{\"type\": \"RLIMIT_NOFILE\", \"hard\": 18446744073709551615, \"soft\": 1}]",
        )],
        Late("E_RLIMIT"),
    ),
    ("hook", &[("/hooks/poststop", "[{\"path\": \"/bin/true\"}]")], Good),
    (
        "row 4 hook with a relative path",
        &[("/hooks/prestart", "[{\"path\": \"true\"}]")],
        Refused("E_NOT_ABSOLUTE"),
    ),
    (
        "row 4 hook with timeout 0",
        &[("/hooks/poststop", "[{\"path\": \"/bin/true\", \"timeout\": 0}]")],
        Refused("E_HOOK_TIMEOUT_VALUE"),
    ),
    (
        "hook with timeout -1",
        &[("/hooks/poststop", "[{\"path\": \"/bin/true\", \"timeout\": -1}]")],
        Refused("E_HOOK_TIMEOUT_VALUE"),
    ),
    ("hook that fails", &[("/hooks/prestart", "[{\"path\": \"/bin/false\"}]")], Late("E_HOOK")),
];

pub const RESOURCES: &[Case] = &[
    (
        "memory policy unknown",
        &[("/linux/memoryPolicy", "{\"mode\": \"MPOL_WEIRD\", \"nodes\": \"0\"}")],
        Refused("E_TYPE"),
    ),
    (
        "memory policy of nodes that are not there",
        &[("/linux/memoryPolicy", "{\"mode\": \"MPOL_BIND\", \"nodes\": \"60\"}")],
        Late("E_MEMORY_POLICY"),
    ),
    (
        "memory policy unknown flag",
        &[(
            "/linux/memoryPolicy",
            "{\"mode\": \"MPOL_BIND\", \"nodes\": \"0\", \"flags\": [\"MPOL_F_X\"]}",
        )],
        Refused("E_TYPE"),
    ),
    (
        "memory policy without nodes",
        &[("/linux/memoryPolicy", "{\"mode\": \"MPOL_BIND\", \"nodes\": \"x\"}")],
        Refused("E_MEMORY_POLICY_VALUE"),
    ),
    (
        "network device with a slash",
        &[("/linux/netDevices", "{\"a/b\": {}}")],
        Refused("E_NET_DEVICE_NAME"),
    ),
    (
        "network device that is not there",
        &[("/linux/netDevices", "{\"nosuch0\": {}}")],
        Late("E_NET_DEVICE"),
    ),
    (
        "resctrl where there is none",
        &[("/linux/intelRdt", "{\"closID\": \"x\"}")],
        Refused("E_RDT"),
    ),
    (
        "resctrl class with a slash",
        &[("/linux/intelRdt", "{\"closID\": \"a/b\"}")],
        Refused("E_RDT_VALUE"),
    ),
    (
        "seccomp agent that is not there",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"listenerPath\": \"/no/agent\", \"syscalls\": [{\"names\": [\"mkdir\"], \"action\": \"SCMP_ACT_NOTIFY\"}]}",
        )],
        Refused("E_SECCOMP_AGENT"),
    ),
    (
        "id-mapped mount without gids",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"source\": \"/tmp\", \"options\": [\"bind\", \"idmap\"], \"uidMappings\": [{\"containerID\": 0, \"hostID\": 1000, \"size\": 1}]}",
        )],
        Refused("E_MISSING"),
    ),
    (
        "id-mapped mount of no ids",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"source\": \"/tmp\", \"options\": [\"bind\", \"idmap\"], \"uidMappings\": [{\"containerID\": 0, \"hostID\": 1000, \"size\": 0}], \"gidMappings\": [{\"containerID\": 0, \"hostID\": 1000, \"size\": 1}]}",
        )],
        Refused("E_ID_MAPPING_VALUE"),
    ),
    (
        "id-mapped mount",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"source\": \"/tmp\", \"options\": [\"bind\", \"idmap\"], \"uidMappings\": [{\"containerID\": 0, \"hostID\": 1000, \"size\": 1}], \"gidMappings\": [{\"containerID\": 0, \"hostID\": 1000, \"size\": 1}]}",
        )],
        Good,
    ),
    (
        "masked path below a file",
        &[("/linux/maskedPaths/-", "\"/etc/passwd/x\"")],
        Late("E_MASKED_PATH"),
    ),
];

pub const MOUNTS: &[Case] = &[
    (
        "no mounts",
        &[("/mounts", "[]"), ("/linux/maskedPaths", "[]"), ("/linux/readonlyPaths", "[]")],
        Good,
    ),
    (
        "tmpfs",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"type\": \"tmpfs\", \"options\": [\"size=1m\", \"ro\"]}",
        )],
        Good,
    ),
    (
        "tmpfs with a bad size",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"type\": \"tmpfs\", \"options\": [\"size=x\"]}",
        )],
        Refused("E_MOUNT"),
    ),
    (
        "tmpfs with an unknown option",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"type\": \"tmpfs\", \"options\": [\"nosuch\"]}",
        )],
        Refused("E_MOUNT"),
    ),
    (
        "unknown filesystem",
        &[("/mounts/-", "{\"destination\": \"/t\", \"type\": \"nosuchfs\"}")],
        Refused("E_MOUNT"),
    ),
    (
        "destination empty",
        &[("/mounts/-", "{\"destination\": \"\", \"type\": \"tmpfs\"}")],
        Refused("E_MOUNT_DESTINATION"),
    ),
    (
        "destination the root",
        &[("/mounts/-", "{\"destination\": \"/.\", \"type\": \"tmpfs\"}")],
        Refused("E_MOUNT_DESTINATION"),
    ),
    ("destination missing", &[("/mounts/-", "{\"type\": \"tmpfs\"}")], Refused("E_TYPE")),
    (
        "destination relative",
        &[("/mounts/-", "{\"destination\": \"t\", \"type\": \"tmpfs\"}")],
        Warned("W_MOUNT_RELATIVE"),
    ),
    (
        "destination with NUL",
        &[("/mounts/-", "{\"destination\": \"/a\\u0000\", \"type\": \"tmpfs\"}")],
        Refused("E_NUL_BYTE"),
    ),
    (
        "destination below a file",
        &[("/mounts/-", "{\"destination\": \"/etc/passwd/x\", \"type\": \"tmpfs\"}")],
        Late("E_MOUNT"),
    ),
    ("no type", &[("/mounts/-", "{\"destination\": \"/t\"}")], Refused("E_MOUNT_TYPE")),
    (
        "type with NUL",
        &[("/mounts/-", "{\"destination\": \"/t\", \"type\": \"tmp\\u0000fs\"}")],
        Refused("E_NUL_BYTE"),
    ),
    (
        "option with NUL",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"type\": \"tmpfs\", \"options\": [\"a\\u0000\"]}",
        )],
        Refused("E_NUL_BYTE"),
    ),
    (
        "bind",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"source\": \"/tmp\", \"options\": [\"rbind\", \"ro\"]}",
        )],
        Good,
    ),
    (
        "bind relative to the bundle",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"type\": \"bind\", \"source\": \"rootfs/etc\"}",
        )],
        Good,
    ),
    (
        "bind without a source",
        &[("/mounts/-", "{\"destination\": \"/t\", \"type\": \"bind\"}")],
        Refused("E_MOUNT_SOURCE"),
    ),
    (
        "bind of nothing",
        &[("/mounts/-", "{\"destination\": \"/t\", \"type\": \"bind\", \"source\": \"/no/such\"}")],
        Refused("E_MOUNT_SOURCE_MISSING"),
    ),
    (
        "bind below a file",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"type\": \"bind\", \"source\": \"/etc/passwd/x\"}",
        )],
        Refused("E_MOUNT_SOURCE"),
    ),
    (
        "two binds of nothing",
        &[
            (
                "/mounts/-",
                "{\"destination\": \"/t\", \"type\": \"bind\", \"source\": \"/no/such\"}",
            ),
            (
                "/mounts/-",
                "{\"destination\": \"/u\", \"type\": \"bind\", \"source\": \"/no/other\"}",
            ),
        ],
        Refused("E_MOUNT_SOURCE_MISSING"),
    ),
    (
        "bind with data",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"source\": \"/tmp\", \"options\": [\"bind\", \"mode=755\"]}",
        )],
        Warned("W_MOUNT_OPTION"),
    ),
    (
        "bind of a file on a directory",
        &[(
            "/mounts/-",
            "{\"destination\": \"/etc\", \"source\": \"/etc/passwd\", \"options\": [\"bind\"]}",
        )],
        Late("E_MOUNT"),
    ),
    (
        "tmpcopyup of a bind",
        &[(
            "/mounts/-",
            "{\"destination\": \"/etc\", \"source\": \"/tmp\", \"options\": [\"bind\", \"tmpcopyup\"]}",
        )],
        Refused("E_MOUNT_OPTION"),
    ),
    (
        "tmpcopyup",
        &[(
            "/mounts/-",
            "{\"destination\": \"/etc\", \"type\": \"tmpfs\", \"options\": [\"tmpcopyup\"]}",
        )],
        Good,
    ),
    (
        "remount with data",
        &[(
            "/mounts/-",
            "{\"destination\": \"/dev\", \"type\": \"tmpfs\", \"options\": [\"remount\", \"size=1m\"]}",
        )],
        Refused("E_MOUNT_OPTION"),
    ),
    (
        "t1 tmpfs on /proc",
        &[("/mounts/-", "{\"destination\": \"/proc\", \"type\": \"tmpfs\"}")],
        Refused("E_MOUNT_ON_PROC"),
    ),
    (
        "t1 tmpfs on /proc/self/attr",
        &[("/mounts/-", "{\"destination\": \"/proc/self/attr\", \"type\": \"tmpfs\"}")],
        Refused("E_MOUNT_ON_PROC"),
    ),
    (
        "t1 bind on /proc/sys/kernel",
        &[(
            "/mounts/-",
            "{\"destination\": \"/proc/sys/kernel\", \"source\": \"/tmp\", \"options\": [\"bind\"]}",
        )],
        Refused("E_MOUNT_ON_PROC"),
    ),
    (
        "t1 bind of no procfs on /proc",
        &[(
            "/mounts/-",
            "{\"destination\": \"/proc\", \"source\": \"/tmp\", \"options\": [\"bind\"]}",
        )],
        Refused("E_MOUNT_ON_PROC"),
    ),
    (
        "t1 through ..",
        &[("/mounts/-", "{\"destination\": \"/tmp/../proc/self\", \"type\": \"tmpfs\"}")],
        Refused("E_MOUNT_ON_PROC"),
    ),
    (
        "file of lxcfs on /proc",
        &[(
            "/mounts/-",
            "{\"destination\": \"/proc/uptime\", \"source\": \"/etc/passwd\", \"options\": [\"bind\"]}",
        )],
        Good,
    ),
    (
        "recursive attributes",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"source\": \"/tmp\", \"options\": [\"rbind\", \"rro\", \"rnosuid\"]}",
        )],
        Good,
    ),
    (
        "propagation",
        &[(
            "/mounts/-",
            "{\"destination\": \"/t\", \"source\": \"/tmp\", \"options\": [\"rbind\", \"rslave\"]}",
        )],
        Good,
    ),
    ("rootfsPropagation", &[("/linux/rootfsPropagation", "\"rslave\"")], Good),
    (
        "rootfsPropagation unknown",
        &[("/linux/rootfsPropagation", "\"loud\"")],
        Refused("E_PROPAGATION"),
    ),
    (
        "mountLabel without SELinux",
        &[("/linux/mountLabel", "\"a:b:c:d\"")],
        Refused("E_LSM_MISSING"),
    ),
    (
        "maskedPaths relative",
        &[("/linux/maskedPaths/-", "\"proc/kcore\"")],
        Refused("E_NOT_ABSOLUTE"),
    ),
    (
        "row 4 readonlyPaths relative",
        &[("/linux/readonlyPaths/-", "\"proc\"")],
        Refused("E_NOT_ABSOLUTE"),
    ),
    ("maskedPaths with NUL", &[("/linux/maskedPaths/-", "\"/a\\u0000\"")], Refused("E_NUL_BYTE")),
    ("masked path that is not there", &[("/linux/maskedPaths/-", "\"/no/such\"")], Good),
    (
        "device",
        &[(
            "/linux/devices",
            "[{\"path\": \"/dev/fuse\", \"type\": \"c\", \"major\": 10, \"minor\": 229}]",
        )],
        Good,
    ),
    (
        "device of all types",
        &[(
            "/linux/devices",
            "[{\"path\": \"/dev/x\", \"type\": \"a\", \"major\": 1, \"minor\": 3}]",
        )],
        Refused("E_DEVICE"),
    ),
    (
        "device of no type",
        &[(
            "/linux/devices",
            "[{\"path\": \"/dev/x\", \"type\": \"z\", \"major\": 1, \"minor\": 3}]",
        )],
        Refused("E_TYPE"),
    ),
    (
        "device twice",
        &[(
            "/linux/devices",
            "[{\"path\": \"/dev/x\", \"type\": \"c\", \"major\": 1, \"minor\": 3}, {\"path\": \"/dev/x\", \"type\": \"c\", \"major\": 1, \"minor\": 5}]",
        )],
        Refused("E_DEVICE"),
    ),
    (
        "device relative",
        &[(
            "/linux/devices",
            "[{\"path\": \"dev/x\", \"type\": \"c\", \"major\": 1, \"minor\": 3}]",
        )],
        Refused("E_NOT_ABSOLUTE"),
    ),
    (
        "device without numbers",
        &[(
            "/linux/devices",
            "[{\"path\": \"/dev/x\", \"type\": \"b\", \"major\": -1, \"minor\": 3}]",
        )],
        Refused("E_DEVICE"),
    ),
    (
        "device over a directory",
        &[(
            "/linux/devices",
            "[{\"path\": \"/etc\", \"type\": \"c\", \"major\": 1, \"minor\": 3}]",
        )],
        Late("E_DEVICE_NODE"),
    ),
];

pub const LINUX: &[Case] = &[
    ("namespace unknown", &[("/linux/namespaces/-", "{\"type\": \"disk\"}")], Refused("E_TYPE")),
    (
        "namespace twice",
        &[("/linux/namespaces/-", "{\"type\": \"pid\"}")],
        Refused("E_NAMESPACE_DUPLICATE"),
    ),
    (
        "namespace path relative",
        &[("/linux/namespaces/-", "{\"type\": \"time\", \"path\": \"ns\"}")],
        Refused("E_NOT_ABSOLUTE"),
    ),
    (
        "namespace path missing",
        &[("/linux/namespaces/-", "{\"type\": \"time\", \"path\": \"/no/such\"}")],
        Refused("E_NAMESPACE_PATH"),
    ),
    (
        "namespace path of another kind",
        &[("/linux/namespaces/-", "{\"type\": \"time\", \"path\": \"/proc/self/ns/net\"}")],
        Refused("E_NAMESPACE_PATH"),
    ),
    (
        "namespace path no namespace",
        &[("/linux/namespaces/-", "{\"type\": \"time\", \"path\": \"/etc/passwd\"}")],
        Refused("E_NAMESPACE_PATH"),
    ),
    ("namespace time", &[("/linux/namespaces/-", "{\"type\": \"time\"}")], Good),
    (
        "time offset of a clock that has none",
        &[
            ("/linux/namespaces/-", "{\"type\": \"time\"}"),
            ("/linux/timeOffsets", "{\"realtime\": {\"secs\": 1}}"),
        ],
        Refused("E_TIME_OFFSET"),
    ),
    (
        "time offset of a second in nanoseconds",
        &[
            ("/linux/namespaces/-", "{\"type\": \"time\"}"),
            ("/linux/timeOffsets", "{\"boottime\": {\"nanosecs\": 1000000000}}"),
        ],
        Refused("E_TIME_OFFSET"),
    ),
    (
        "mounts in the host's mount namespace",
        &[("/hostname", "\"\""), ("/linux/namespaces", "[{\"type\": \"pid\"}]")],
        Good,
    ),
    (
        "no mount namespace for an unbindable mount",
        &[
            ("/hostname", "\"\""),
            ("/linux/namespaces", "[{\"type\": \"pid\"}]"),
            (
                "/mounts/-",
                "{\"destination\": \"/mnt\", \"type\": \"tmpfs\", \"source\": \"tmpfs\", \"options\": [\"unbindable\"]}",
            ),
        ],
        Refused("E_NEEDS_NAMESPACE"),
    ),
    (
        "hostname in the host's namespace",
        &[(
            "/linux/namespaces",
            "[{\"type\": \"mount\"}, {\"type\": \"uts\", \"path\": \"/proc/self/ns/uts\"}]",
        )],
        Refused("E_NAMESPACE_HOST"),
    ),
    ("sysctl", &[("/linux/sysctl", "{\"net.ipv4.ip_forward\": \"1\"}")], Good),
    (
        "t28 core_pattern",
        &[("/linux/sysctl", "{\"kernel.core_pattern\": \"x\"}")],
        Refused("E_SYSCTL_HOST"),
    ),
    (
        "t28 sysctl with ..",
        &[("/linux/sysctl", "{\"net/../kernel/core_pattern\": \"x\"}")],
        Refused("E_SYSCTL_NAME"),
    ),
    (
        "t28 sysctl with dots and ..",
        &[("/linux/sysctl", "{\"net.ipv4/../../kernel/core_pattern\": \"x\"}")],
        Refused("E_SYSCTL_NAME"),
    ),
    (
        "t28 sysctl with NUL",
        &[("/linux/sysctl", "{\"net.a\\u0000b\": \"x\"}")],
        Refused("E_SYSCTL_NAME"),
    ),
    (
        "sysctl value with NUL",
        &[("/linux/sysctl", "{\"net.core.somaxconn\": \"1\\u0000\"}")],
        Refused("E_NUL_BYTE"),
    ),
    (
        "sysctl of the hostname",
        &[("/linux/sysctl", "{\"kernel.hostname\": \"x\"}")],
        Refused("E_SYSCTL_NAME"),
    ),
    (
        "sysctl that is not there",
        &[("/linux/sysctl", "{\"net.no.such\": \"1\"}")],
        Late("E_SYSCTL"),
    ),
    (
        "sysctl with a bad value",
        &[("/linux/sysctl", "{\"net.ipv4.ip_forward\": \"many\"}")],
        Late("E_SYSCTL"),
    ),
    (
        "sysctl without its namespace",
        &[
            ("/linux/namespaces", "[{\"type\": \"mount\"}, {\"type\": \"uts\"}]"),
            ("/linux/sysctl", "{\"net.core.somaxconn\": \"9\"}"),
        ],
        Refused("E_NEEDS_NAMESPACE"),
    ),
    (
        "AppArmor without AppArmor",
        &[("/process/apparmorProfile", "\"some-profile\"")],
        Refused("E_LSM_MISSING"),
    ),
    (
        "SELinux without SELinux",
        &[("/process/selinuxLabel", "\"a:b:c:d\"")],
        Refused("E_LSM_MISSING"),
    ),
    (
        "seccomp",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"mkdir\"], \"action\": \"SCMP_ACT_ERRNO\"}]}",
        )],
        Good,
    ),
    (
        "seccomp unknown action",
        &[("/linux/seccomp", "{\"defaultAction\": \"SCMP_ACT_SHRUG\"}")],
        Refused("E_TYPE"),
    ),
    (
        "seccomp rule of an unknown action",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"mkdir\"], \"action\": \"SCMP_ACT_X\"}]}",
        )],
        Refused("E_TYPE"),
    ),
    (
        "seccomp unknown operator",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"mkdir\"], \"action\": \"SCMP_ACT_ERRNO\", \"args\": [{\"index\": 0, \"value\": 1, \"op\": \"SCMP_CMP_X\"}]}]}",
        )],
        Refused("E_TYPE"),
    ),
    (
        "seccomp unknown architecture",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"architectures\": [\"SCMP_ARCH_X\"]}",
        )],
        Refused("E_TYPE"),
    ),
    (
        "seccomp unknown flag",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"flags\": [\"SECCOMP_FILTER_FLAG_X\"]}",
        )],
        Refused("E_TYPE"),
    ),
    (
        "device rule of type z",
        &[("/linux/resources/devices/-", "{\"allow\": true, \"type\": \"z\", \"access\": \"r\"}")],
        Refused("E_TYPE"),
    ),
    (
        "seccomp unknown syscall",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"no_such_call\"], \"action\": \"SCMP_ACT_ERRNO\"}]}",
        )],
        Warned("W_SECCOMP"),
    ),
    (
        "row 4 errnoRet of ALLOW",
        &[("/linux/seccomp", "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"defaultErrnoRet\": 1}")],
        Refused("E_SECCOMP_ERRNO"),
    ),
    (
        "row 4 errnoRet of a rule that allows",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"syscalls\": [{\"names\": [\"read\"], \"action\": \"SCMP_ACT_ALLOW\", \"errnoRet\": 1}]}",
        )],
        Refused("E_SECCOMP_ERRNO"),
    ),
    (
        "row 4 listenerMetadata without listenerPath",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"listenerMetadata\": \"x\"}",
        )],
        Refused("E_SECCOMP_NOTIFY"),
    ),
    (
        "seccomp notify by default",
        &[("/linux/seccomp", "{\"defaultAction\": \"SCMP_ACT_NOTIFY\"}")],
        Refused("E_SECCOMP_NOTIFY"),
    ),
    (
        "seccomp rule without names",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [], \"action\": \"SCMP_ACT_ERRNO\"}]}",
        )],
        Refused("E_SECCOMP_RULE"),
    ),
    (
        "seccomp argument 6",
        &[(
            "/linux/seccomp",
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"read\"], \"action\": \"SCMP_ACT_ERRNO\", \"args\": [{\"index\": 6, \"value\": 1, \"op\": \"SCMP_CMP_EQ\"}]}]}",
        )],
        Refused("E_SECCOMP_RULE"),
    ),
    ("cgroupsPath the root", &[("/linux/cgroupsPath", "\"/\"")], Refused("E_CGROUP_PATH")),
    (
        "t23 cgroupsPath with ..",
        &[("/linux/cgroupsPath", "\"/a/../..\"")],
        Refused("E_CGROUP_PATH"),
    ),
    ("cgroupsPath of two lines", &[("/linux/cgroupsPath", "\"/a\\nb\"")], Refused("E_CGROUP_PATH")),
    ("pids limit", &[("/linux/resources/pids", "{\"limit\": 100}")], Good),
    ("pids limit -2", &[("/linux/resources/pids", "{\"limit\": -2}")], Refused("E_CGROUP_VALUE")),
    ("memory limit", &[("/linux/resources/memory", "{\"limit\": 104857600}")], Good),
    (
        "memory limit -2",
        &[("/linux/resources/memory", "{\"limit\": -2}")],
        Refused("E_CGROUP_VALUE"),
    ),
    (
        "swap below memory",
        &[("/linux/resources/memory", "{\"limit\": 2097152, \"swap\": 1048576}")],
        Refused("E_CGROUP_VALUE"),
    ),
    (
        "swap without memory",
        &[("/linux/resources/memory", "{\"swap\": 1048576}")],
        Refused("E_CGROUP_VALUE"),
    ),
    (
        "kernel memory",
        &[("/linux/resources/memory", "{\"kernel\": 1048576}")],
        Warned("W_NOT_APPLIED"),
    ),
    (
        "cpu burst above quota",
        &[("/linux/resources/cpu", "{\"quota\": 1000, \"period\": 10000, \"burst\": 2000}")],
        Refused("E_CGROUP_VALUE"),
    ),
    ("cpu idle 2", &[("/linux/resources/cpu", "{\"idle\": 2}")], Refused("E_CGROUP_VALUE")),
    ("cpus no list", &[("/linux/resources/cpu", "{\"cpus\": \"a-b\"}")], Refused("E_CGROUP_VALUE")),
    (
        "cpus that are not there",
        &[("/linux/resources/cpu", "{\"cpus\": \"4095\"}")],
        Late("E_CGROUP"),
    ),
    (
        "page size",
        &[("/linux/resources/hugepageLimits", "[{\"pageSize\": \"2\", \"limit\": 1}]")],
        Refused("E_CGROUP_VALUE"),
    ),
    (
        "weight 5000",
        &[("/linux/resources/blockIO", "{\"weight\": 5000}")],
        Refused("E_CGROUP_VALUE"),
    ),
    (
        "unified without a file",
        &[("/linux/resources/unified", "{\"memory\": \"1\"}")],
        Refused("E_CGROUP_VALUE"),
    ),
    (
        "unified cgroup.procs",
        &[("/linux/resources/unified", "{\"cgroup.procs\": \"1\"}")],
        Refused("E_CGROUP_VALUE"),
    ),
    (
        "unified unknown controller",
        &[("/linux/resources/unified", "{\"nosuch.max\": \"1\"}")],
        Refused("E_CGROUP_CONTROLLER"),
    ),
    (
        "device rule of access z",
        &[("/linux/resources/devices/-", "{\"allow\": true, \"access\": \"z\"}")],
        Refused("E_DEVICE_RULE"),
    ),
    (
        "device rule of a fifo",
        &[("/linux/resources/devices/-", "{\"allow\": true, \"type\": \"p\", \"access\": \"r\"}")],
        Refused("E_DEVICE_RULE"),
    ),
    (
        "device rule for all with numbers",
        &[(
            "/linux/resources/devices/-",
            "{\"allow\": true, \"type\": \"a\", \"major\": 1, \"access\": \"r\"}",
        )],
        Good,
    ),
    (
        "device rule with a huge number",
        &[(
            "/linux/resources/devices/-",
            "{\"allow\": true, \"type\": \"c\", \"major\": 70000, \"access\": \"r\"}",
        )],
        Refused("E_DEVICE_RULE"),
    ),
];

/// Texts that are no configuration at all.
pub const TEXTS: &[(&str, &str, &str)] = &[
    ("empty", "", "E_JSON"),
    ("cut", "{\"ociVersion\": \"1.0.0\"", "E_JSON"),
    ("trailing text", "{\"ociVersion\": \"1.0.0\"} x", "E_JSON"),
    ("a member twice", "{\"ociVersion\": \"1.0.0\", \"x\": {\"a\": 1, \"a\": 2}}", "E_JSON"),
    ("a list", "[]", "E_TYPE"),
    ("a word", "\"x\"", "E_TYPE"),
    ("null", "null", "E_TYPE"),
    ("comment", "{} // x", "E_JSON"),
];
