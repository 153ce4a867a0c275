//! A zone file, and lookups in it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::dns::fuzz::zone_file(data));
