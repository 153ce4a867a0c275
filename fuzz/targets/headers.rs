//! A message's header on its way into a mailbox.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::pipeline::fuzz::message(data));
