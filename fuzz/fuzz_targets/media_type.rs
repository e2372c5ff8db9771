//! libFuzzer's program for the target `media_type`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::media_type::run(data));
