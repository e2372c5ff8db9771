//! libFuzzer's program for the target `store`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::store::run(data));
