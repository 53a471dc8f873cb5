//! config.json in, a plan or refusals out: never a panic, an endless loop or a heap without bounds.
//!
//! `hack/fuzz` builds and runs it.

#![no_main]

mod host;
mod mutate;

use std::cell::RefCell;

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde_json::Value;

fuzz_target!(|data: &[u8]| -> Corpus {
    if host::plan(data) { Corpus::Keep } else { Corpus::Reject }
});

thread_local! {
    /// The last child, as text and as a value: libFuzzer mostly goes on from there.
    static LAST: RefCell<(Vec<u8>, Value)> = const { RefCell::new((Vec::new(), Value::Null)) };
}

// Half of the children are changed as JSON, so that they get past the parser.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    LAST.with_borrow_mut(|(text, value)| {
        if text[..] != data[..size] {
            match serde_json::from_slice(&data[..size]) {
                Ok(parsed) => *value = parsed,
                Err(_) => return libfuzzer_sys::fuzzer_mutate(data, size, max_size),
            }
        }
        let mut random = mutate::Random::new(u64::from(seed));
        for _ in 0..=random.below(4) {
            mutate::change(value, &mut random);
        }
        text.clear();
        if serde_json::to_writer(&mut *text, value).is_err() || text.len() > max_size {
            text.clear();
            return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
        }
        data[..text.len()].copy_from_slice(text);
        text.len()
    })
});
