//! libFuzzer's program for the target `row`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::row::run(data));
