#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| copal_fuzz::objects::parity(data));
