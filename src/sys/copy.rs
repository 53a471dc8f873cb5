//! `memcpy`, `memmove`, `memcmp` and `bcmp` for x86-64 in place of musl's, which are written for large
//! blocks: theirs start a string instruction for the twenty bytes of a name and compare byte by byte,
//! a twentieth of what a container's start costs.
//!
//! In assembler, because a compiler may turn what such a function does into a call of itself.

/// The functions' names; in unit tests others, beside those of the C library.
#[cfg(not(test))]
macro_rules! name {
    ($name:literal) => {
        $name
    };
}
#[cfg(test)]
macro_rules! name {
    ($name:literal) => {
        concat!("onggi_", $name)
    };
}

// Up to 128 bytes all of a block is read before the first byte is written, so that it does not matter
// how the blocks overlap. Above, the string instruction: from its end a block is moved in steps of 16.
std::arch::global_asm!(
    ".pushsection .text.memmove, \"ax\", @progbits",
    concat!(".globl ", name!("memcpy")),
    concat!(".globl ", name!("memmove")),
    concat!(".type ", name!("memcpy"), ", @function"),
    concat!(".type ", name!("memmove"), ", @function"),
    ".p2align 4",
    concat!(name!("memcpy"), ":"),
    concat!(name!("memmove"), ":"),
    "    mov rax, rdi",
    "    cmp rdx, 16",
    "    jb 20f",
    "    movups xmm0, [rsi]",
    "    movups xmm1, [rsi + rdx - 16]",
    "    cmp rdx, 32",
    "    ja 30f",
    "    movups [rdi], xmm0",
    "    movups [rdi + rdx - 16], xmm1",
    "    ret",
    // Below 16: two words that may overlap.
    "20:",
    "    cmp edx, 8",
    "    jb 21f",
    "    mov rcx, [rsi]",
    "    mov rsi, [rsi + rdx - 8]",
    "    mov [rdi], rcx",
    "    mov [rdi + rdx - 8], rsi",
    "    ret",
    "21:",
    "    cmp edx, 4",
    "    jb 22f",
    "    mov ecx, [rsi]",
    "    mov esi, [rsi + rdx - 4]",
    "    mov [rdi], ecx",
    "    mov [rdi + rdx - 4], esi",
    "    ret",
    // One, two or three: the first, the middle and the last, which may be the same.
    "22:",
    "    test edx, edx",
    "    jz 23f",
    "    movzx ecx, byte ptr [rsi]",
    "    movzx r8d, byte ptr [rsi + rdx - 1]",
    "    mov r9, rdx",
    "    shr r9",
    "    movzx esi, byte ptr [rsi + r9]",
    "    mov [rdi + r9], sil",
    "    mov [rdi], cl",
    "    mov [rdi + rdx - 1], r8b",
    "23: ret",
    "30:",
    "    cmp rdx, 64",
    "    ja 31f",
    "    movups xmm2, [rsi + 16]",
    "    movups xmm3, [rsi + rdx - 32]",
    "    movups [rdi], xmm0",
    "    movups [rdi + 16], xmm2",
    "    movups [rdi + rdx - 32], xmm3",
    "    movups [rdi + rdx - 16], xmm1",
    "    ret",
    "31:",
    "    cmp rdx, 128",
    "    ja 40f",
    "    movups xmm2, [rsi + 16]",
    "    movups xmm3, [rsi + 32]",
    "    movups xmm4, [rsi + 48]",
    "    movups xmm5, [rsi + rdx - 64]",
    "    movups xmm6, [rsi + rdx - 48]",
    "    movups xmm7, [rsi + rdx - 32]",
    "    movups [rdi], xmm0",
    "    movups [rdi + 16], xmm2",
    "    movups [rdi + 32], xmm3",
    "    movups [rdi + 48], xmm4",
    "    movups [rdi + rdx - 64], xmm5",
    "    movups [rdi + rdx - 48], xmm6",
    "    movups [rdi + rdx - 32], xmm7",
    "    movups [rdi + rdx - 16], xmm1",
    "    ret",
    // Forwards, unless the target begins inside the source.
    "40:",
    "    mov rcx, rdi",
    "    sub rcx, rsi",
    "    cmp rcx, rdx",
    "    jb 41f",
    "    mov rcx, rdx",
    "    rep movsb",
    "    ret",
    // Backwards to the first 16 bytes, which have been read already.
    "41:",
    "    movups xmm1, [rsi + rdx - 16]",
    "    movups [rdi + rdx - 16], xmm1",
    "    sub rdx, 16",
    "    cmp rdx, 16",
    "    ja 41b",
    "    movups [rdi], xmm0",
    "    ret",
    concat!(".size ", name!("memmove"), ", . - ", name!("memmove")),
    ".popsection",
);

// Eight bytes at a time; the first byte that differs decides, which is the highest one when the words
// are read in the order of memory.
std::arch::global_asm!(
    ".pushsection .text.memcmp, \"ax\", @progbits",
    concat!(".globl ", name!("memcmp")),
    concat!(".globl ", name!("bcmp")),
    concat!(".type ", name!("memcmp"), ", @function"),
    concat!(".type ", name!("bcmp"), ", @function"),
    ".p2align 4",
    concat!(name!("memcmp"), ":"),
    concat!(name!("bcmp"), ":"),
    "    cmp rdx, 8",
    "    jb 20f",
    // The last eight, which overlap those before them.
    "    sub rdx, 8",
    "10:",
    "    mov rax, [rdi]",
    "    mov rcx, [rsi]",
    "    cmp rax, rcx",
    "    jne 30f",
    "    add rdi, 8",
    "    add rsi, 8",
    "    sub rdx, 8",
    "    ja 10b",
    "    mov rax, [rdi + rdx]",
    "    mov rcx, [rsi + rdx]",
    "    cmp rax, rcx",
    "    jne 30f",
    "    xor eax, eax",
    "    ret",
    "20:",
    "    xor eax, eax",
    "    test edx, edx",
    "    jz 22f",
    "21:",
    "    movzx eax, byte ptr [rdi]",
    "    movzx ecx, byte ptr [rsi]",
    "    sub eax, ecx",
    "    jne 22f",
    "    inc rdi",
    "    inc rsi",
    "    dec edx",
    "    jnz 21b",
    "22: ret",
    "30:",
    "    bswap rax",
    "    bswap rcx",
    "    cmp rax, rcx",
    "    sbb eax, eax",
    "    or eax, 1",
    "    ret",
    concat!(".size ", name!("memcmp"), ", . - ", name!("memcmp")),
    ".popsection",
);

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks)]
mod tests {
    use std::cmp::Ordering;
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn onggi_memmove(to: *mut c_void, from: *const c_void, size: usize) -> *mut c_void;
        fn onggi_memcpy(to: *mut c_void, from: *const c_void, size: usize) -> *mut c_void;
        fn onggi_memcmp(one: *const c_void, other: *const c_void, size: usize) -> c_int;
        fn onggi_bcmp(one: *const c_void, other: *const c_void, size: usize) -> c_int;
    }

    /// Every length of every path, moved by every short distance and by some long ones.
    #[test]
    fn memmove_moves_overlapping_blocks_and_nothing_else() {
        let before: Vec<u8> = (0..2048u32).map(|index| (index * 31 % 251) as u8).collect();
        let distances = (-40..=40).chain([-300, -129, -128, -64, 64, 100, 128, 129, 300]);
        for distance in distances {
            for size in (0..=300).chain([511, 700]) {
                let (from, to) = (512usize, 512usize.saturating_add_signed(distance));
                let mut bytes = before.clone();
                let start = bytes.as_mut_ptr();
                let target = start.wrapping_add(to).cast();
                let moved = unsafe { onggi_memmove(target, start.wrapping_add(from).cast(), size) };
                assert_eq!(moved, target);
                let mut wanted = before.clone();
                wanted.copy_within(from..from + size, to);
                assert_eq!(bytes, wanted, "{size} bytes by {distance}");
            }
        }
        let mut copy = [0u8; 4];
        unsafe { onggi_memcpy(copy.as_mut_ptr().cast(), b"abcd".as_ptr().cast(), 4) };
        assert_eq!(&copy, b"abcd");
    }

    #[test]
    fn memcmp_orders_as_bytes_do() {
        let compare = |one: &[u8], other: &[u8]| {
            let size = one.len();
            unsafe { onggi_memcmp(one.as_ptr().cast(), other.as_ptr().cast(), size) }.cmp(&0)
        };
        for size in 0..70 {
            let one = vec![7u8; size];
            assert_eq!(compare(&one, &one.clone()), Ordering::Equal, "{size}");
            for at in 0..size {
                for (byte, after) in [(0u8, 255u8), (8, 0), (200, 3)] {
                    let mut other = one.clone();
                    other[at] = byte;
                    // What follows the first difference does not count.
                    other[at + 1..].fill(after);
                    assert_eq!(compare(&one, &other), one.cmp(&other), "{size}, {at}: {byte}");
                    let equal =
                        unsafe { onggi_bcmp(one.as_ptr().cast(), other.as_ptr().cast(), at) };
                    assert_eq!(equal, 0, "what comes before is equal");
                }
            }
        }
    }
}
