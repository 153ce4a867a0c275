//! A server's bytes through the SMTP client.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::smtp::client::fuzz::server(data));
