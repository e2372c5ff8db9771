//! libFuzzer's program for the target `superblock`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orlop_fuzz::targets::superblock::run(data));
