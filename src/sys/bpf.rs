//! bpf(2) for the device filter of cgroup v2, and seccomp(2).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Error, Result, done, owned};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// struct `bpf_attr` for the commands used here: all zero but the fields named in bpf.h.
#[repr(C, align(8))]
#[derive(Default)]
struct Attr([u64; 16]);

impl Attr {
    fn u32(&mut self, offset: usize, value: u32) {
        let (index, high) = (offset / 8, !offset.is_multiple_of(8));
        if let Some(word) = self.0.get_mut(index) {
            let shift = if high == cfg!(target_endian = "little") { 32 } else { 0 };
            *word |= u64::from(value) << shift;
        }
    }

    fn get_u32(&self, offset: usize) -> u32 {
        let (index, high) = (offset / 8, !offset.is_multiple_of(8));
        let shift = if high == cfg!(target_endian = "little") { 32 } else { 0 };
        self.0.get(index).map_or(0, |word| (word >> shift & 0xffff_ffff) as u32)
    }

    fn u64(&mut self, offset: usize, value: u64) {
        if let Some(word) = self.0.get_mut(offset / 8) {
            *word = value;
        }
    }
}

fn bpf(command: libc::c_long, attr: &mut Attr) -> libc::c_long {
    // SAFETY: the attribute is larger than any command here reads, and zero where unused; pointers in
    // it are to slices and strings that the callers below keep alive.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<Attr>()) }
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program; each instruction is one u64 as in struct `bpf_insn`.
pub fn load_device_program(instructions: &[u64]) -> Result<OwnedFd> {
    let mut log = vec![0u8; 4096];
    let mut attr = Attr::default();
    attr.u32(0, BPF_PROG_TYPE_CGROUP_DEVICE);
    attr.u32(4, u32::try_from(instructions.len()).unwrap_or(u32::MAX));
    attr.u64(8, instructions.as_ptr() as u64);
    attr.u64(16, c"Apache-2.0".as_ptr() as u64);
    let first = bpf(BPF_PROG_LOAD, &mut attr);
    if first >= 0 {
        return owned(first, "bpf", "BPF_PROG_LOAD");
    }
    let mut error = Error::last("bpf", "BPF_PROG_LOAD");
    // Once more with the verifier's log, which costs, so that a refusal explains itself.
    attr.u32(24, 1);
    attr.u32(28, u32::try_from(log.len()).unwrap_or(0));
    attr.u64(32, log.as_mut_ptr() as u64);
    let second = bpf(BPF_PROG_LOAD, &mut attr);
    if second >= 0 {
        return owned(second, "bpf", "BPF_PROG_LOAD");
    }
    let said = CStr::from_bytes_until_nul(&log).map(|text| text.to_string_lossy().into_owned());
    said.unwrap_or_default().lines().last().unwrap_or_default().clone_into(&mut error.kernel);
    Err(error)
}

/// Attaches a device program to a cgroup beside others; with `replace`, in the place of that one, in
/// one step (Linux 5.6).
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attr = Attr::default();
    attr.u32(0, cgroup.as_raw_fd().cast_unsigned());
    attr.u32(4, program.as_raw_fd().cast_unsigned());
    attr.u32(8, BPF_CGROUP_DEVICE);
    attr.u32(12, BPF_F_ALLOW_MULTI | if replace.is_some() { BPF_F_REPLACE } else { 0 });
    attr.u32(16, replace.map_or(0, |fd| fd.as_raw_fd().cast_unsigned()));
    done(bpf(BPF_PROG_ATTACH, &mut attr), "bpf", "BPF_PROG_ATTACH")
}

/// Detaches one device program from a cgroup.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Attr::default();
    attr.u32(0, cgroup.as_raw_fd().cast_unsigned());
    attr.u32(4, program.as_raw_fd().cast_unsigned());
    attr.u32(8, BPF_CGROUP_DEVICE);
    done(bpf(BPF_PROG_DETACH, &mut attr), "bpf", "BPF_PROG_DETACH")
}

/// The ids of the device programs attached to a cgroup, up to 64.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    let mut attr = Attr::default();
    attr.u32(0, cgroup.as_raw_fd().cast_unsigned());
    attr.u32(4, BPF_CGROUP_DEVICE);
    attr.u64(16, ids.as_mut_ptr() as u64);
    attr.u32(24, 64);
    done(bpf(BPF_PROG_QUERY, &mut attr), "bpf", "BPF_PROG_QUERY")?;
    ids.truncate(attr.get_u32(24) as usize);
    Ok(ids)
}

/// A descriptor of a loaded program.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = Attr::default();
    attr.u32(0, id);
    owned(bpf(BPF_PROG_GET_FD_BY_ID, &mut attr), "bpf", "BPF_PROG_GET_FD_BY_ID")
}

/// The tag of a program: a digest of its instructions.
pub fn program_tag(program: BorrowedFd<'_>) -> Result<u64> {
    // struct bpf_prog_info begins with type, id and tag; the kernel fills as much as there is room for.
    let mut info = [0u64; 2];
    let mut attr = Attr::default();
    attr.u32(0, program.as_raw_fd().cast_unsigned());
    attr.u32(4, size_of_val(&info) as u32);
    attr.u64(8, info.as_mut_ptr() as u64);
    done(bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr), "bpf", "BPF_OBJ_GET_INFO_BY_FD")?;
    Ok(info[1])
}

/// seccomp(2) `SECCOMP_SET_MODE_FILTER`. With `SECCOMP_FILTER_FLAG_NEW_LISTENER` in `flags` the
/// listener comes back.
pub fn load_seccomp(filter: &[libc::sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Error::new("seccomp", "", libc::E2BIG))?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `len` instructions that outlive the call; the kernel copies them.
    let ret = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 != 0 {
        return owned(ret, "seccomp", "SECCOMP_SET_MODE_FILTER").map(Some);
    }
    done(ret, "seccomp", "SECCOMP_SET_MODE_FILTER").map(|()| None)
}
