#![no_main]

#[path = "../entries.rs"]
#[allow(dead_code)] // each target enters by one door
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::forwarded(data));
