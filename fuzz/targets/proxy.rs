//! The front of a connection from a proxy.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::smtp::fuzz::proxy_header(data));
