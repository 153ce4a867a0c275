//! A message, and what DNS says of those who vouch for it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::msgauth::fuzz::authenticate(data));
