//! The value of a From field.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::mail::fuzz::author(data));
