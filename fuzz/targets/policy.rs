//! An MTA-STS policy.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailweir::queue::fuzz::mta_sts_policy(data));
