//! libseccomp as an oracle, loaded at run time so that the project builds and
//! tests without it.

use libc::{c_char, c_int, c_uint, c_void, sock_filter};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator};
use std::ffi::{CStr, CString};

/// `struct scmp_arg_cmp`.
#[repr(C)]
struct ArgCmp {
    arg: c_uint,
    op: c_uint,
    a: u64,
    b: u64,
}

/// The functions we call.
pub struct Library {
    init: unsafe extern "C" fn(u32) -> *mut c_void,
    release: unsafe extern "C" fn(*mut c_void),
    arch_add: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
    attr_set: unsafe extern "C" fn(*mut c_void, c_uint, u32) -> c_int,
    rule_add: unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const ArgCmp) -> c_int,
    export_bpf: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    resolve: unsafe extern "C" fn(*const c_char) -> c_int,
    resolve_arch: unsafe extern "C" fn(u32, *const c_char) -> c_int,
}

const NO_SUCH_NAME: c_int = -1;
const CTL_OPTIMIZE: c_uint = 8;

impl Library {
    /// Loads the library; says what to install if there is none. The variable
    /// ONGGI_LIBSECCOMP names another file, for trying other versions.
    pub fn load() -> Option<Library> {
        let file = std::env::var("ONGGI_LIBSECCOMP").unwrap_or("libseccomp.so.2".to_string());
        let file = CString::new(file).unwrap();
        // SAFETY: the name is a valid C string; the library has no constructor side effects.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            eprintln!("SKIPPED: {file:?} not found, install the package libseccomp2");
            return None;
        }
        macro_rules! symbol {
            ($name:literal) => {{
                // SAFETY: the handle is open, and each field below has the type
                // that seccomp.h declares for this name.
                let pointer = unsafe { libc::dlsym(handle, $name.as_ptr()) };
                assert!(!pointer.is_null(), "{:?} is missing", $name);
                unsafe { std::mem::transmute_copy(&pointer) }
            }};
        }
        Some(Library {
            init: symbol!(c"seccomp_init"),
            release: symbol!(c"seccomp_release"),
            arch_add: symbol!(c"seccomp_arch_add"),
            attr_set: symbol!(c"seccomp_attr_set"),
            rule_add: symbol!(c"seccomp_rule_add_array"),
            export_bpf: symbol!(c"seccomp_export_bpf"),
            resolve: symbol!(c"seccomp_syscall_resolve_name"),
            resolve_arch: symbol!(c"seccomp_syscall_resolve_name_arch"),
        })
    }

    /// The number of a name; `None` if unknown there or not a real number.
    pub fn number(&self, arch: Arch, name: &str) -> Option<u32> {
        let name = CString::new(name).unwrap();
        // SAFETY: a valid C string.
        let number = unsafe { (self.resolve_arch)(arch as u32, name.as_ptr()) };
        u32::try_from(number).ok()
    }

    /// Whether this libseccomp has no number at all for a name on `arch`: unknown
    /// (-1), or one of the -10000s it gives to calls of other architectures. The
    /// -100s and -200s are i386's multiplexed calls.
    pub fn undefined(&self, arch: Arch, name: &str) -> bool {
        let name = CString::new(name).unwrap();
        // SAFETY: a valid C string.
        let number = unsafe { (self.resolve_arch)(arch as u32, name.as_ptr()) };
        number == NO_SUCH_NAME || number <= -10_000
    }

    /// Compiles a profile the way runc drives libseccomp.
    pub fn compile(&self, profile: &LinuxSeccomp) -> Result<Vec<sock_filter>, String> {
        let default = profile.default_action().as_u32(profile.default_errno_ret());
        // SAFETY: plain values; the context is released below.
        let context = unsafe { (self.init)(default) };
        if context.is_null() {
            return Err(format!("default action {default:#x} refused"));
        }
        let result = self.fill(context, profile, default);
        // SAFETY: the context is live and not used afterwards.
        unsafe { (self.release)(context) };
        result
    }

    fn fill(
        &self,
        context: *mut c_void,
        p: &LinuxSeccomp,
        default: u32,
    ) -> Result<Vec<sock_filter>, String> {
        for arch in p.architectures().iter().flatten() {
            // SAFETY: the context is live. EEXIST means it is there already.
            let rc = unsafe { (self.arch_add)(context, *arch as u32) };
            if rc != 0 && rc != -libc::EEXIST {
                return Err(format!("arch {arch}: {rc}"));
            }
        }
        let calls = p.syscalls().as_deref().unwrap_or_default();
        if calls.iter().map(|c| c.names().len()).sum::<usize>() > 32 {
            // SAFETY: the context is live.
            assert_eq!(unsafe { (self.attr_set)(context, CTL_OPTIMIZE, 2) }, 0);
        }
        for call in calls {
            let action = call.action().as_u32(call.errno_ret());
            for name in call.names() {
                let c_name = CString::new(name.as_str()).unwrap();
                // SAFETY: a valid C string.
                let number = unsafe { (self.resolve)(c_name.as_ptr()) };
                if number != NO_SUCH_NAME && action != default {
                    for rule in rules(call.args().as_deref().unwrap_or_default()) {
                        self.add(context, action, number, &rule)
                            .map_err(|e| format!("{name}: {e}"))?;
                    }
                }
            }
        }
        Ok(self.export(context))
    }

    fn add(
        &self,
        context: *mut c_void,
        action: u32,
        number: c_int,
        rule: &[ArgCmp],
    ) -> Result<(), String> {
        // SAFETY: the array has as many elements as we say.
        let rc = unsafe {
            (self.rule_add)(context, action, number, rule.len() as c_uint, rule.as_ptr())
        };
        if rc == 0 { Ok(()) } else { Err(format!("rule: {rc}")) }
    }

    fn export(&self, context: *mut c_void) -> Vec<sock_filter> {
        // SAFETY: all descriptors and buffers are our own and live.
        unsafe {
            let name: &CStr = c"filter";
            let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
            assert!(fd >= 0);
            assert_eq!((self.export_bpf)(context, fd), 0);
            let size = libc::lseek(fd, 0, libc::SEEK_END) as usize;
            let mut filter = vec![sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; size / 8];
            let read = libc::pread(fd, filter.as_mut_ptr().cast(), size, 0);
            assert_eq!(read as usize, size);
            libc::close(fd);
            filter
        }
    }
}

/// runc's rules for one call: usually one; one per condition if an argument is
/// tested twice.
fn rules(args: &[LinuxSeccompArg]) -> Vec<Vec<ArgCmp>> {
    let compare = |arg: &LinuxSeccompArg| ArgCmp {
        arg: arg.index() as c_uint,
        op: arg.op() as c_uint,
        a: arg.value(),
        b: if arg.op() == LinuxSeccompOperator::ScmpCmpMaskedEq {
            arg.value_two().unwrap_or(0)
        } else {
            0
        },
    };
    let repeated = (0..6).any(|i| args.iter().filter(|a| a.index() == i).count() > 1);
    if repeated {
        args.iter().map(|arg| vec![compare(arg)]).collect()
    } else {
        vec![args.iter().map(compare).collect()]
    }
}
