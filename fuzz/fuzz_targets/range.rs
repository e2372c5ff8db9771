//! libFuzzer's program for the target `range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::range::run(data));
