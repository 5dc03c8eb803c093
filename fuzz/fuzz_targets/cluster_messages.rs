#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| procpool_cluster::fuzzing::messages(input));
