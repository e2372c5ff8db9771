//! libFuzzer's program for the target `frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::frame::run(data));
