//! libFuzzer's program for the target `note`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::note::run(data));
