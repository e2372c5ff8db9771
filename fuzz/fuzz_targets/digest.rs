//! libFuzzer's program for the target `digest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::digest::run(data));
