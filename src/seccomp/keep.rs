//! A compiled filter as bytes, so that exec need neither parse the profile nor compile it again.

use super::Program;

/// The instructions as the kernel has them: code, jt, jf, k, 8 bytes each.
#[must_use]
pub fn to_bytes(program: &Program) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.filter.len() * 8);
    for instruction in &program.filter {
        let [c0, c1] = instruction.code.to_ne_bytes();
        let [k0, k1, k2, k3] = instruction.k.to_ne_bytes();
        bytes.extend([c0, c1, instruction.jt, instruction.jf, k0, k1, k2, k3]);
    }
    bytes
}

/// Reads them back; `None` where it is no filter. The kernel checks the rest.
#[must_use]
pub fn from_bytes(bytes: &[u8], flags: u32) -> Option<Program> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(8) {
        return None;
    }
    let filter = bytes
        .chunks_exact(8)
        .map(|chunk| match *chunk {
            [c0, c1, jt, jf, k0, k1, k2, k3] => Some(libc::sock_filter {
                code: u16::from_ne_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            }),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let notify = flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 != 0;
    Some(Program { filter, flags, notify, allows_madvise: false })
}
