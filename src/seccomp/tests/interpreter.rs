//! A classic BPF interpreter for what seccomp filters may contain.

use libc::sock_filter;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => 0x5a5a_5a5a, // the instruction pointer: no filter may care
            _ => {
                assert!(offset.is_multiple_of(4), "unaligned load at {offset}");
                let arg = self.args[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) { arg } else { arg >> 32 }) as u32
            }
        }
    }
}

/// Runs a filter: its verdict, and how many instructions that took. Panics on
/// anything the kernel's checker would refuse.
pub fn trace(filter: &[sock_filter], call: &Call) -> (u32, usize) {
    let (mut pc, mut a, mut steps) = (0, 0, 0);
    loop {
        let i = filter[pc];
        pc += 1;
        steps += 1;
        match i.code {
            0x06 => return (i.k, steps),
            0x20 => a = call.word(i.k),
            0x54 => a &= i.k,
            0x05 => pc += i.k as usize,
            _ => {
                let taken = match i.code {
                    0x15 => a == i.k,
                    0x25 => a > i.k,
                    0x35 => a >= i.k,
                    0x45 => a & i.k != 0,
                    code => panic!("instruction {} has code {code:#x}", pc - 1),
                };
                pc += usize::from(if taken { i.jt } else { i.jf });
            }
        }
    }
}

/// The verdict of a filter.
pub fn run(filter: &[sock_filter], call: &Call) -> u32 {
    trace(filter, call).0
}
