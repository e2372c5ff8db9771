//! libFuzzer's program for the target `route`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::route::run(data));
