//! libFuzzer's program for the target `name`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::name::run(data));
