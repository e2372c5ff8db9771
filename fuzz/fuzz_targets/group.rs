//! libFuzzer's program for the target `group`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::group::run(data));
