//! The fuzzers' door: a zone file, whatever stands in it.

use std::path::Path;

use super::zone::ZoneResolver;
use super::{RecordType, Resolver};
use crate::fuzz::{pieces, run};

/// Lines with names to be looked up, then a zone file: it is read, or the line of its mistake is
/// told, and every name has an answer of the type asked for, or none.
pub fn zone_file(input: &[u8]) {
    let [names, text] = pieces(input);
    // A file that is included is not a part of the input.
    if memchr::memmem::find(&text.to_ascii_uppercase(), b"INCLUDE").is_some() {
        return;
    }
    let Ok(text) = std::str::from_utf8(text) else { return };
    let zone = match ZoneResolver::parse(text, Path::new("fuzz.zone")) {
        Ok(zone) => zone,
        Err(super::zone::ZoneError::Read { .. }) => panic!("there is no file to be read"),
        Err(super::zone::ZoneError::Syntax { line, .. }) => {
            let lines = text.split_inclusive('\n').count().max(1);
            assert!((1..=lines).contains(&line), "a mistake on line {line} of {lines}");
            return;
        }
    };
    for name in std::str::from_utf8(names).unwrap_or_default().lines().take(8) {
        for kind in [
            RecordType::Txt,
            RecordType::A,
            RecordType::Aaaa,
            RecordType::Mx,
            RecordType::Ptr,
            RecordType::Tlsa,
        ] {
            if let Ok(answer) = run(zone.lookup(name, kind)) {
                assert!(!answer.records.is_empty());
                assert!(answer.records.iter().all(|record| record.record_type() == kind));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_hold() {
        crate::fuzz::replay("zone", zone_file);
    }
}
