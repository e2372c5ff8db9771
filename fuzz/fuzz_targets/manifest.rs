//! libFuzzer's program for the target `manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::manifest::run(data));
