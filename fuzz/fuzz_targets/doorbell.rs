#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backend_spawn::fuzzing::doorbell(input));
