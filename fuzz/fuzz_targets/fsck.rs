//! libFuzzer's program for the target `fsck`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::fsck::run(data));
