//! An organization's file, its rules and its addresses.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::config::fuzz::organization_file(data));
