//! The stable names of everything that can go wrong: one table, from which docs/errors.md is written.
//!
//! Owns: names, what they mean, what to do about them. Must not: change or reuse a name once released.

/// Where the cause is to be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// In config.json or process.json: told with a JSON pointer.
    Config,
    /// In this machine: a kernel feature, a file or a permission it lacks. Told with the pointer of what
    /// needs it, where there is one.
    Host,
    /// In the command line or the caller's environment: told with the option.
    Caller,
    /// In the container, or in what was done to it.
    Container,
    /// In onggi or the kernel.
    Internal,
}

impl About {
    /// Its name in docs and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Host => "host",
            Self::Caller => "caller",
            Self::Container => "container",
            Self::Internal => "internal",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident $about:ident $hint:literal)*) => {
        /// What is wrong, by a name that stays. `W_…` are warnings: the container is made all the same.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types, reason = "the names as users see them can be searched for")]
        pub enum Code {
            $($(#[doc = $meaning])+ $name,)*
        }

        impl Code {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name: `E_…` for errors, `W_…` for warnings.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The code of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.name() == name)
            }

            /// Where the cause is.
            #[must_use]
            pub fn about(self) -> About {
                match self {
                    $(Self::$name => About::$about,)*
                }
            }

            /// What to do about it; may be empty.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self {
                    $(Self::$name => $hint,)*
                }
            }

            #[cfg(test)]
            fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($meaning),+).trim_ascii(),)*
                }
            }
        }
    };
}

// A line of the table: what it means, NAME, where the cause is, what to do about it.
codes! {
    /// The command line cannot be understood.
    E_USAGE Caller "see onggi COMMAND --help"
    /// The value of an option, or a combination of options, is not possible.
    E_OPTION Caller ""
    /// The log file cannot be opened.
    E_LOG Caller ""
    /// The state root cannot be used: not a directory of the caller's that only the caller can write to.
    E_STATE_ROOT Caller "--root names another"
    /// The container id has characters that are not allowed, or is too long.
    E_ID_INVALID Caller "letters, digits, _ + . - and at most 255 of them"
    /// There is a container with this id.
    E_ID_IN_USE Caller "onggi delete, or another id"
    /// There is no container with this id.
    E_NOT_FOUND Caller ""
    /// The container has no process.
    E_NOT_RUNNING Container ""
    /// `exec --timeout` is over, and the process with everything it had started was killed.
    E_EXEC_TIMEOUT Container ""
    /// A process cannot be contained: no cgroup can be made for it below the container's.
    E_EXEC_CONTAIN Host "exec without --contain, --timeout and --die-with-parent"
    /// The container is not in the state that the command needs.
    E_STATUS Container "onggi state tells the status"
    /// What is kept of the container cannot be read or understood.
    E_STATE_DAMAGED Container "its config.json is still there and names its cgroup: end what is in it, then remove the directory"
    /// The signal has no such name or number.
    E_SIGNAL_UNKNOWN Caller ""
    /// The pid file cannot be written.
    E_PID_FILE Caller ""
    /// The terminal cannot be handed out, or is wanted and not wanted at once.
    E_CONSOLE_SOCKET Caller ""
    /// The runtime's own executable cannot be sealed, so a container could write to it.
    E_SEAL Host "needs memfd_create(2) with vm.memfd_noexec below 2, or a mountable overlay filesystem"
    /// The runtime was started set-id.
    E_SET_ID Caller "take the set-id bits and file capabilities away"
    /// The time that --deadline gives was over.
    E_DEADLINE Caller ""
    /// A kernel call failed at something that no other code is for.
    E_SYSTEM Internal ""
    /// Something that cannot happen.
    E_INTERNAL Internal "please report it"

    /// config.json or process.json cannot be read.
    E_CONFIG_READ Caller "--bundle names the directory with config.json"
    /// The document is not JSON, has a name twice in an object, or is too big or too deep.
    E_JSON Config ""
    /// A member has the wrong type, or a value that the specification does not know.
    E_TYPE Config ""
    /// A member that the specification wants is missing or empty.
    E_MISSING Config ""
    /// The version is none, or not one of 1.0.0 to 1.3.x.
    E_OCI_VERSION Config ""
    /// The text has a NUL byte, of which the kernel would see only what is before it.
    E_NUL_BYTE Config ""
    /// The path is not absolute.
    E_NOT_ABSOLUTE Config ""
    /// 4294967295 means "leave alone" to the kernel and is no user or group.
    E_ID_RANGE Config ""
    /// It would change the host: it needs a namespace of the container's own.
    E_NEEDS_NAMESPACE Config "add it to linux.namespaces"
    /// The host or domain name is longer than the kernel's 64 bytes.
    E_NAME_TOO_LONG Config ""
    /// An annotation has an empty key, or a value that is not allowed.
    E_ANNOTATION Config ""

    /// The root filesystem cannot be opened: missing, not a directory, or a symbolic link.
    E_ROOTFS Host "root.path is relative to the bundle"
    /// The root filesystem cannot be made the container's root.
    E_ROOT_SWITCH Host ""
    /// `rootfsPropagation` is no type of propagation.
    E_PROPAGATION Config "shared, slave, private or unbindable"
    /// The destination is empty, the root itself, or cannot be made or mounted on.
    E_MOUNT_DESTINATION Config ""
    /// The destination is on or below /proc and not among the few files allowed there.
    E_MOUNT_ON_PROC Config "a procfs on /proc, or a file that docs/security.md lists"
    /// The source of a bind mount does not exist.
    E_MOUNT_SOURCE_MISSING Host "a relative source is relative to the bundle"
    /// The source of a bind mount is not given, or cannot be used.
    E_MOUNT_SOURCE Host ""
    /// The mount has no type and is no bind mount.
    E_MOUNT_TYPE Config ""
    /// An option is not possible for this mount.
    E_MOUNT_OPTION Config ""
    /// The kernel refuses the mount, its filesystem or one of its options.
    E_MOUNT Host ""
    /// Two namespaces of the same type.
    E_NAMESPACE_DUPLICATE Config ""
    /// The file of a namespace cannot be opened, or is no namespace of that type.
    E_NAMESPACE_PATH Host ""
    /// A joined namespace is the host's own, which would be changed.
    E_NAMESPACE_HOST Config ""
    /// The kernel refuses to make or to enter a namespace.
    E_NAMESPACE Host ""
    /// A range of ids is empty, too long, or overlaps another; or an id of the process is in none.
    E_ID_MAPPING_VALUE Config ""
    /// The ids cannot be mapped: not the caller's, or newuidmap refuses.
    E_ID_MAPPING Host "the caller's ranges are in /etc/subuid and /etc/subgid"
    /// The filesystem cannot map ids, or the caller may not do it.
    E_ID_MAPPED_MOUNT Host "mount_setattr(2) lists the filesystems that can, MOUNT_ATTR_IDMAP"
    /// A name of a network device is none, or is given twice.
    E_NET_DEVICE_NAME Config ""
    /// A network device is missing, or cannot be moved to the container.
    E_NET_DEVICE Host "the caller needs CAP_NET_ADMIN over both network namespaces"
    /// A clock's offset is of no such clock, or not in the kernel's range.
    E_TIME_OFFSET Config ""
    /// A device node is described wrongly.
    E_DEVICE Config ""
    /// A device node cannot be made, or something else is in its place.
    E_DEVICE_NODE Container ""
    /// A path cannot be masked or made read-only.
    E_MASKED_PATH Container ""
    /// A sysctl has no possible name, or one that is set by another member.
    E_SYSCTL_NAME Config ""
    /// A sysctl is not of a namespace: it would change the host.
    E_SYSCTL_HOST Config ""
    /// The kernel refuses the value of a sysctl.
    E_SYSCTL Host ""

    /// `args` names no program.
    E_ARGS Config ""
    /// The program does not exist in the container, or cannot be executed.
    E_PROGRAM Container ""
    /// The working directory cannot be entered.
    E_CWD Container ""
    /// An environment variable has no name.
    E_ENV Config ""
    /// A umask has bits beyond 0777.
    E_UMASK Config ""
    /// The process cannot become the user, or get its groups or capabilities.
    E_IDENTITY Host ""
    /// A capability of the effective set is not in the permitted set, or an unknown name was given.
    E_CAPABILITY Config ""
    /// A limit is given twice, or its soft value is above its hard one.
    E_RLIMIT_VALUE Config ""
    /// The kernel refuses a limit.
    E_RLIMIT Host "raising a hard limit needs CAP_SYS_RESOURCE"
    /// `oomScoreAdj` is not from -1000 to 1000.
    E_OOM_SCORE_ADJ_VALUE Config ""
    /// The kernel refuses `oomScoreAdj`.
    E_OOM_SCORE_ADJ Host "lowering it needs CAP_SYS_RESOURCE"
    /// A scheduling attribute, I/O priority or list of CPUs is out of range.
    E_SCHEDULER_VALUE Config ""
    /// The kernel refuses the scheduling attributes, the I/O priority or the CPUs.
    E_SCHEDULER Host "real-time policies need CAP_SYS_NICE, and on cgroup v1 a cpu.rt_runtime_us above 0"
    /// A memory policy that the kernel cannot have: nodes or flags that its mode does not take.
    E_MEMORY_POLICY_VALUE Config "see set_mempolicy(2)"
    /// The kernel refuses the memory policy.
    E_MEMORY_POLICY Host "the nodes must be online and in the container's cpuset"
    /// The execution domain or its flags cannot be set.
    E_PERSONALITY Config ""
    /// The host has no AppArmor or no SELinux, and a label was asked for.
    E_LSM_MISSING Host ""
    /// The kernel refuses the label.
    E_LSM_LABEL Host "is the profile loaded?"
    /// The terminal cannot be made or set up.
    E_TERMINAL Container "the container needs a devpts on /dev/pts"
    /// The standard streams cannot be handed to the process.
    E_STDIO Caller ""

    /// The timeout of a hook is not above zero.
    E_HOOK_TIMEOUT_VALUE Config ""
    /// A hook cannot be run, failed, or ran into its timeout.
    E_HOOK Container ""

    /// An `errnoRet` where none is possible, or too large.
    E_SECCOMP_ERRNO Config ""
    /// A rule names no syscall, or tests an argument that does not exist.
    E_SECCOMP_RULE Config ""
    /// SCMP_ACT_NOTIFY where it cannot work, or with nobody who would answer.
    E_SECCOMP_NOTIFY Config "listenerPath names the agent's socket"
    /// The agent for notified system calls is not there, or does not take the listener.
    E_SECCOMP_AGENT Host "start the agent that listens at listenerPath"
    /// This machine's architecture has no syscall table.
    E_SECCOMP_ARCH Host ""
    /// The compiled profile has more instructions than the kernel takes.
    E_SECCOMP_SIZE Config ""
    /// The kernel refuses the filter.
    E_SECCOMP Host ""

    /// No cgroup filesystem is mounted, and limits are asked for.
    E_CGROUP_NONE Host ""
    /// `cgroupsPath` is not possible.
    E_CGROUP_PATH Config ""
    /// The cgroup has processes, or is frozen; or systemd has a unit of that name.
    E_CGROUP_IN_USE Host "another cgroupsPath"
    /// The controller is not available on this host, or not enabled for the cgroup.
    E_CGROUP_CONTROLLER Host "enable it in cgroup.subtree_control of the parent"
    /// cgroup v2 has no such setting.
    E_CGROUP_V1_ONLY Config ""
    /// A limit is not in its range, or contradicts another.
    E_CGROUP_VALUE Config ""
    /// A device rule is described wrongly, or not possible on this host.
    E_DEVICE_RULE Config ""
    /// The kernel refuses to make the cgroup or to write a limit.
    E_CGROUP Host ""
    /// systemd cannot be asked, does not answer in time, or refuses to start, change or stop a unit.
    E_SYSTEMD Host "systemctl status, or --cgroup-manager cgroupfs"
    /// More memory is in use than the limit would allow.
    E_MEMORY_IN_USE Container ""
    /// The cgroup cannot be frozen or thawed.
    E_FREEZE Container ""

    /// A name or a line of `intelRdt` is not possible.
    E_RDT_VALUE Config ""
    /// There is no resctrl filesystem, or the group in it cannot be used.
    E_RDT Host "mount -t resctrl resctrl /sys/fs/resctrl"
    /// The socket that NOTIFY_SOCKET names cannot be reached.
    E_NOTIFY Caller ""

    /// The container's first process ended before it was ready.
    E_INIT_DIED Container ""
    /// The container's first process was killed for want of memory.
    E_OOM_AT_START Container "memory.limit is too low"
    /// Something of the container could not be taken away.
    E_DELETE Container "try onggi delete again"

    /// An unknown capability is left out.
    W_CAPABILITY_UNKNOWN Config ""
    /// A capability that the runtime does not hold, or that another set lacks, is left out.
    W_CAPABILITY_DROPPED Config ""
    /// The version is newer than this runtime: what it brings is ignored.
    W_OCI_VERSION Config ""
    /// A relative destination is taken as one below the root.
    W_MOUNT_RELATIVE Config ""
    /// An option that means nothing for a bind mount is ignored.
    W_MOUNT_OPTION Config ""
    /// An entry of the environment has no `=`.
    W_ENV Config ""
    /// A setting is not applied: no kernel of today has it, or this host does not.
    W_NOT_APPLIED Config ""
    /// A part of the seccomp profile is unknown here, and ignored or narrowed.
    W_SECCOMP Config ""
    /// A poststop hook failed; the container is deleted all the same.
    W_HOOK Container ""
    /// The service manager could not be told that the container is ready.
    W_NOTIFY Caller ""
    /// An option that has no effect.
    W_OPTION_IGNORED Caller ""
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn document() -> String {
        let mut text = String::from(
            "# Error codes\n\nEvery error and warning has a code that stays the same from version to version. \
             `onggi check` prints it; with\n`--log-format json` it is the member `code` of the log's line. The \
             texts may change, save those that engines look for.\n\n`About` says where the cause is: in \
             config.json (then there is a JSON pointer), in this host, with the caller, or in the\ncontainer.\n\n\
             This file is written from `src/code.rs`: `ONGGI_WRITE_DOCS=1 cargo test --lib errors_md`.\n",
        );
        for (title, prefix) in [("Errors", "E_"), ("Warnings", "W_")] {
            text += &format!(
                "\n## {title}\n\n| Code | About | What is wrong | Hint |\n|---|---|---|---|\n"
            );
            for code in Code::ALL.iter().filter(|code| code.name().starts_with(prefix)) {
                let (name, about) = (code.name(), code.about().name());
                let (meaning, hint) = (code.meaning(), code.hint());
                text += &format!("| `{name}` | {about} | {meaning} | {hint} |\n");
            }
        }
        text.replace("| |", "| – |").replace("|  |", "| – |")
    }

    #[test]
    fn errors_md_is_written_from_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
        if std::env::var_os("ONGGI_WRITE_DOCS").is_some() {
            assert!(std::fs::write(path, document()).is_ok());
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == document(),
            "docs/errors.md is out of date: ONGGI_WRITE_DOCS=1 cargo test --lib errors_md"
        );
    }

    #[test]
    fn codes_are_named_once_and_every_one_has_a_meaning() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.meaning().ends_with('.'), "{}", code.name());
            assert!(!code.hint().ends_with('.'), "{}", code.name());
        }
    }
}
