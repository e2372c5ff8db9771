//! libFuzzer's program for the target `segment_scan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::segment_scan::run(data));
