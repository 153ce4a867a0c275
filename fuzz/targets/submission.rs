//! A message that a user submits, until it is ready to leave.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::pipeline::fuzz::submission(data));
