//! libFuzzer's program for the target `settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::settings::run(data));
