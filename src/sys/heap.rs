//! The heap of a program that lives for milliseconds and whose clone then waits, maybe for days.
//!
//! Allocation is a step in a large chunk, so a run costs at most an mmap(2) or two where a general
//! allocator makes a hundred and fifty calls; freed blocks are kept in lists by size. [`trim`] gives
//! back every page without a living block, which a general allocator can do only at the heap's end.
//! For one thread: a second one would be served too, but waits spinning.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 4096;
/// Small enough never to be one huge page, large enough that most runs need one.
const CHUNK: usize = 1 << 20;
/// Larger blocks are mappings of their own.
const LARGEST: usize = CHUNK / 4;
/// In pages. Dropping less costs more system calls than the pages are worth.
const SHORTEST_RUN: usize = 2;
/// Every block starts at a multiple of this, and is as long as one.
const STEP: usize = 16;
/// Sizes up to here have a list each; above, four lists for each doubling.
const EXACT: usize = 1024;
const EXACT_LISTS: usize = EXACT / STEP;
/// One for each of four quarters of each doubling from `EXACT` to `LARGEST`.
const LISTS: usize = EXACT_LISTS + 4 * (LARGEST / EXACT).ilog2() as usize;

/// The heap as the program's allocator: `#[global_allocator] static HEAP: Heap = Heap;`
#[derive(Debug, Clone, Copy)]
pub struct Heap;

static STATE: Locked =
    Locked { busy: AtomicBool::new(false), arena: UnsafeCell::new(Arena::new(true)) };

/// The first chunk: part of the program's own zeroed memory, so that most runs map nothing.
#[repr(align(4096))]
struct First(UnsafeCell<[u8; CHUNK]>);

// SAFETY: only its address is used, by the one arena.
unsafe impl Sync for First {}

static FIRST: First = First(UnsafeCell::new([0; CHUNK]));

struct Locked {
    busy: AtomicBool,
    arena: UnsafeCell<Arena>,
}

// SAFETY: the arena is only reached through `with`, which lets one thread in at a time.
unsafe impl Sync for Locked {}

impl Locked {
    fn with<T>(&self, act: impl FnOnce(&mut Arena) -> T) -> T {
        while self.busy.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: `busy` was ours to set, so no other reference exists until it is cleared.
        let result = act(unsafe { &mut *self.arena.get() });
        self.busy.store(false, Ordering::Release);
        result
    }
}

// SAFETY: blocks come from the arena or from mmap(2), are as large and aligned as asked, and belong to
// the caller until given back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(size) = block_size(layout) else {
            // A mapping is aligned to pages; nothing here asks for more.
            return if layout.align() > PAGE { null_mut() } else { map(layout.size()) };
        };
        STATE.with(|arena| arena.take(size, layout.align()))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match (block_size(layout), NonNull::new(block)) {
            (Some(size), Some(block)) => STATE.with(|arena| arena.give(block, size)),
            (None, Some(block)) => unmap(block, layout.size()),
            (_, None) => {}
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
        if let (Some(old_size), Some(size)) = (block_size(layout), block_size(new)) {
            if STATE.with(|arena| arena.resize(block, old_size, size)) {
                return block;
            }
        }
        // SAFETY: a layout as GlobalAlloc wants it.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least this long, and a new block overlaps no living one.
            unsafe { moved.copy_from_nonoverlapping(block, layout.size().min(new_size)) };
            // SAFETY: the caller's block of this layout, which it has given up.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

/// Gives the pages of the global heap without a living block back to the kernel.
pub fn trim() {
    STATE.with(Arena::trim);
}

/// What is on the global heap stays for good: freed blocks of it are forgotten. For the parent after a
/// clone, to which every page of it that is written to, if only with the link of a list, costs a copy.
pub fn keep() {
    STATE.with(|arena| arena.kept = arena.top);
}

/// The length of the arena's block for a layout; `None` for a mapping of its own.
fn block_size(layout: Layout) -> Option<usize> {
    // An alignment beyond the step's is had by a block as long: such blocks come from the end only.
    let size = layout.size().max(if layout.align() > STEP { layout.align() } else { 1 });
    if size > LARGEST || layout.align() > PAGE {
        return None;
    }
    if size <= EXACT {
        return Some(size.next_multiple_of(STEP));
    }
    Some(size.next_multiple_of(quarter_above(size)))
}

/// A fourth of the power of two below `size`: what sizes above [`EXACT`] are rounded to.
fn quarter_above(size: usize) -> usize {
    1 << (size.saturating_sub(1).ilog2() - 2)
}

/// The list of a rounded size.
fn list_of(size: usize) -> usize {
    if size <= EXACT {
        return size / STEP - 1;
    }
    let doubling = (size - 1).ilog2() - EXACT.ilog2();
    let quarter = (size - (1 << (size - 1).ilog2())) / quarter_above(size);
    EXACT_LISTS + 4 * doubling as usize + quarter - 1
}

/// A free block begins with the next of its list.
type Link = Option<NonNull<u8>>;

/// A chunk's first bytes.
#[repr(C)]
struct Chunk {
    previous: Option<NonNull<Chunk>>,
}

struct Arena {
    free: [Link; LISTS],
    chunk: Option<NonNull<Chunk>>,
    /// The first byte of the current chunk that was never handed out, as an address.
    top: usize,
    end: usize,
    /// Where in the current chunk that ends which [`keep`] is about.
    kept: usize,
    /// `FIRST` is its, and not in use yet.
    first: bool,
}

impl Arena {
    const fn new(first: bool) -> Self {
        Self { free: [None; LISTS], chunk: None, top: 0, end: 0, kept: 0, first }
    }

    /// A block of a rounded size; null when there is no memory.
    fn take(&mut self, size: usize, align: usize) -> *mut u8 {
        if align <= STEP {
            if let Some(link) = self.free.get_mut(list_of(size)) {
                if let Some(block) = *link {
                    // SAFETY: a free block holds the link that `give` wrote there.
                    *link = unsafe { block.cast::<Link>().read() };
                    return block.as_ptr();
                }
            }
        }
        let start = self.top.next_multiple_of(align.max(STEP));
        if start + size > self.end {
            if !self.grow() {
                return null_mut();
            }
            return self.take(size, align);
        }
        self.top = start + size;
        std::ptr::with_exposed_provenance_mut(start)
    }

    fn give(&mut self, block: NonNull<u8>, size: usize) {
        if (self.end.saturating_sub(CHUNK)..self.kept).contains(&block.addr().get()) {
            return;
        }
        if block.addr().get() + size == self.top {
            self.top -= size;
        } else if let Some(link) = self.free.get_mut(list_of(size)) {
            // SAFETY: the block is free, at least a step long, and aligned for a pointer.
            unsafe { block.cast::<Link>().write(*link) };
            *link = Some(block);
        }
    }

    /// Whether the block could stay where it is.
    fn resize(&mut self, block: *mut u8, old: usize, new: usize) -> bool {
        let at_end = block.addr() + old == self.top;
        if at_end && block.addr() + new <= self.end {
            self.top = block.addr() + new;
        }
        old == new || (at_end && block.addr() + new <= self.end)
    }

    fn grow(&mut self) -> bool {
        let start = if std::mem::take(&mut self.first) { FIRST.0.get().cast() } else { map(CHUNK) };
        let Some(chunk) = NonNull::new(start) else { return false };
        let chunk = chunk.cast::<Chunk>();
        // SAFETY: a fresh chunk, page-aligned, longer than a Chunk.
        unsafe { chunk.write(Chunk { previous: self.chunk }) };
        self.chunk = Some(chunk);
        let start = chunk.as_ptr().expose_provenance();
        self.top = start + STEP;
        self.end = start + CHUNK;
        true
    }

    /// Pages that hold nothing but free blocks go back, and with them the lists: what little of them
    /// lay in pages that stay is given up.
    fn trim(&mut self) {
        let mut top = self.top;
        let mut next = self.chunk;
        while let Some(chunk) = next {
            let start = chunk.as_ptr().addr();
            let mut free = [0u16; CHUNK / PAGE];
            count(&mut free, start, top, start + CHUNK);
            for (index, link) in self.free.iter().enumerate() {
                let mut link = *link;
                while let Some(block) = link {
                    let at = block.addr().get();
                    if (start..start + CHUNK).contains(&at) {
                        count(&mut free, start, at, at + size_of_list(index));
                    }
                    // SAFETY: a free block holds the link that `give` wrote there.
                    link = unsafe { block.cast::<Link>().read() };
                }
            }
            release(chunk, &free);
            // SAFETY: a chunk's first page is never released: it begins with this.
            next = unsafe { chunk.read() }.previous;
            // The end of an older chunk that was too short for what came next is of no more use, but
            // not known any more.
            top = usize::MAX;
        }
        self.free = [None; LISTS];
    }
}

/// The size of a list's blocks: the inverse of [`list_of`].
fn size_of_list(list: usize) -> usize {
    if list < EXACT_LISTS {
        return (list + 1) * STEP;
    }
    let (doubling, quarter) = ((list - EXACT_LISTS) / 4, (list - EXACT_LISTS) % 4);
    let base = EXACT << doubling;
    base + base / 4 * (quarter + 1)
}

/// Adds the bytes from `from` to `to` to the free bytes of their pages.
fn count(free: &mut [u16], start: usize, from: usize, to: usize) {
    let mut from = from;
    while from < to {
        let page = (from - start) / PAGE;
        let end = (start + (page + 1) * PAGE).min(to);
        if let Some(bytes) = free.get_mut(page) {
            *bytes += u16::try_from(end - from).unwrap_or(0);
        }
        from = end;
    }
}

/// Drops the wholly free pages, run by run. A short run costs more to drop than it is worth.
fn release(chunk: NonNull<Chunk>, free: &[u16]) {
    let whole = |page: usize| free.get(page).is_some_and(|bytes| usize::from(*bytes) == PAGE);
    let mut page = 0;
    while page < free.len() {
        let first = page;
        while whole(page) {
            page += 1;
        }
        if page - first >= SHORTEST_RUN {
            let start = chunk.as_ptr().wrapping_byte_add(first * PAGE).cast();
            // SAFETY: the pages are the chunk's and no living block is in them. A failure leaves them
            // as they are, which is as good.
            unsafe { super::memory::drop_pages(start, (page - first) * PAGE) };
        }
        page += 1;
    }
}

fn map(size: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping where the kernel likes it.
    let start = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { null_mut() } else { start.cast() }
}

fn unmap(start: NonNull<u8>, size: usize) {
    // SAFETY: a mapping that `map` made, of which no reference is left.
    unsafe { libc::munmap(start.as_ptr().cast(), size) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::undocumented_unsafe_blocks)]
mod tests {
    use super::*;

    /// A small generator, so that the sequence is the same each time (Numerical Recipes).
    struct Random(u32);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(1664525).wrapping_add(1013904223);
            (self.0 >> 8) as usize % limit
        }
    }

    #[test]
    fn sizes_and_lists_are_each_others_inverse() {
        for size in 1..=LARGEST {
            let block = block_size(Layout::from_size_align(size, 1).unwrap()).unwrap();
            assert!(block >= size && block.is_multiple_of(STEP), "{size}: {block}");
            assert!(list_of(block) < LISTS, "{size}");
            assert_eq!(size_of_list(list_of(block)), block, "{size}");
        }
        assert_eq!(block_size(Layout::from_size_align(LARGEST + 1, 1).unwrap()), None);
    }

    /// Every living block keeps its bytes whatever happens to the others, also across a trim.
    #[test]
    fn living_blocks_keep_their_bytes() {
        let mut random = Random(7);
        let mut living: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let check = |block: *mut u8, layout: Layout, mark: u8| {
            assert!(block.addr().is_multiple_of(layout.align()));
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == mark), "{layout:?}");
        };
        for round in 0..40_000 {
            let mark = u8::try_from(round % 251).unwrap();
            if round % 9_000 == 8_999 {
                trim();
            }
            if living.len() > 300 || (!living.is_empty() && random.below(3) == 0) {
                let (block, layout, mark) = living.swap_remove(random.below(living.len()));
                check(block, layout, mark);
                unsafe { Heap.dealloc(block, layout) };
                continue;
            }
            let largest = [40, 600, 9_000, 400_000][random.below(4)];
            let size = 1 + random.below(largest);
            if random.below(4) == 0 && !living.is_empty() {
                let at = random.below(living.len());
                let (block, layout, old) = living[at];
                let moved = unsafe { Heap.realloc(block, layout, size) };
                let kept =
                    Layout::from_size_align(size.min(layout.size()), layout.align()).unwrap();
                check(moved, kept, old);
                let layout = Layout::from_size_align(size, layout.align()).unwrap();
                unsafe { moved.write_bytes(mark, size) };
                living[at] = (moved, layout, mark);
                continue;
            }
            let align = [1, 8, 16, 64, 4096][random.below(5)];
            let layout = Layout::from_size_align(size, align).unwrap();
            let block = unsafe { Heap.alloc(layout) };
            unsafe { block.write_bytes(mark, size) };
            living.push((block, layout, mark));
        }
        for (block, layout, mark) in living {
            check(block, layout, mark);
            unsafe { Heap.dealloc(block, layout) };
        }
    }

    #[test]
    fn blocks_that_are_kept_are_not_written_to_when_freed() {
        let mut arena = Arena::new(false);
        let blocks: Vec<_> = (0..8).map(|_| arena.take(64, 16)).collect();
        arena.kept = arena.top;
        let later = arena.take(64, 16);
        for block in blocks.iter().chain([&later]) {
            unsafe { block.write_bytes(9, 64) };
            arena.give(NonNull::new(*block).unwrap(), 64);
        }
        for block in blocks {
            let bytes = unsafe { std::slice::from_raw_parts(block, 64) };
            assert!(bytes.iter().all(|byte| *byte == 9));
        }
        assert_eq!(arena.take(64, 16), later);
    }

    /// Pages of freed blocks read as zero after a trim: the kernel has taken them.
    #[test]
    fn trim_gives_back_pages_without_a_living_block() {
        let mut arena = Arena::new(false);
        let blocks: Vec<_> = (0..64).map(|_| arena.take(1024, 16)).collect();
        for block in &blocks {
            unsafe { block.write_bytes(9, 1024) };
        }
        for block in blocks.iter().skip(1) {
            arena.give(NonNull::new(*block).unwrap(), 1024);
        }
        arena.trim();
        let bytes = unsafe { std::slice::from_raw_parts(blocks[40], 1024) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        let kept = unsafe { std::slice::from_raw_parts(blocks[0], 1024) };
        assert!(kept.iter().all(|byte| *byte == 9));
    }
}
