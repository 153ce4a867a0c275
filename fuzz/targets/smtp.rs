//! A client's bytes through the real connection driver.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::smtp::fuzz::conversation(data));
