//! Syscall names and numbers: one row per name, one column per ABI.
//!
//! One table for all ABIs because a profile's name is then looked up once, not
//! once per architecture. Rows hold the name inline instead of a `&str`: a
//! static-pie binary would have to relocate hundreds of pointers at every start,
//! also of commands that never compile a filter.

mod syscalls;

/// The columns of [`Row::numbers`].
pub(super) const X86_64: usize = 0;
pub(super) const X86: usize = 1;
pub(super) const X32: usize = 2;
pub(super) const AARCH64: usize = 3;
pub(super) const ARM: usize = 4;
const COLUMNS: usize = 5;

/// "This ABI has no such call." No ABI uses -1: the kernel gives it to tracers.
const NONE: u32 = u32::MAX;

/// Longest name we can hold; the longest one of Linux 7.2 has 28 bytes.
const NAME: usize = 32;

/// One syscall name.
pub(super) struct Row {
    name: [u8; NAME],
    numbers: [u32; COLUMNS],
}

impl Row {
    /// The number of this call on the ABI of `column`. x32 numbers come without
    /// their marker bit.
    pub(super) fn number(&self, column: usize) -> Option<u32> {
        self.numbers.get(column).copied().filter(|&n| n != NONE)
    }

    /// The name, without the padding.
    pub(super) fn name(&self) -> &[u8] {
        self.name.split(|&b| b == 0).next().unwrap_or_default()
    }
}

/// A row of the generated table. Only ever evaluated by the compiler, for which a
/// name that is too long is an error.
#[allow(clippy::indexing_slicing)]
const fn row(name: &str, numbers: [u32; COLUMNS]) -> Row {
    let bytes = name.as_bytes();
    let mut padded = [0; NAME];
    let mut i = 0;
    while i < bytes.len() {
        padded[i] = bytes[i];
        i += 1;
    }
    Row { name: padded, numbers }
}

/// The row of `name`, or `None` when no Linux we know has a call of that name.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    // A trailing NUL would compare equal to the padding.
    if name.as_bytes().contains(&0) {
        return None;
    }
    let mut padded = [0u8; NAME];
    padded.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    let at = syscalls::ROWS.binary_search_by(|row| row.name.cmp(&padded)).ok()?;
    syscalls::ROWS.get(at)
}

/// All rows, for tests.
#[cfg(test)]
pub(super) fn rows() -> &'static [Row] {
    &syscalls::ROWS
}
