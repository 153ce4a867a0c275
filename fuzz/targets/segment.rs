//! A file of the store's log.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::store::fuzz::segment(data));
