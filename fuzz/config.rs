//! config.json in, a plan or refusals out: never a panic, an endless loop or a heap without bounds.
//!
//! `hack/fuzz` builds and runs it.

#![no_main]

mod host;
mod mutate;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| host::plan(data));

// Half of the children are changed as JSON, so that they get past the parser.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let Ok(mut value) = serde_json::from_slice(&data[..size]) else {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    };
    let mut random = mutate::Random::new(u64::from(seed));
    for _ in 0..=random.below(4) {
        mutate::change(&mut value, &mut random);
    }
    let text = value.to_string();
    let length = text.len().min(max_size);
    data[..length].copy_from_slice(&text.as_bytes()[..length]);
    length
});
