#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pool_core::fuzzing::stack(input));
