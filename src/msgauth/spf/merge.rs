//! One record out of several (RFC 7208 §4.5 wants one only): what a domain publishes already, and
//! a host of ours.

use super::record::{Record, is_spf};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The record to publish.
    pub record: String,
    /// What was published and is part of it.
    pub kept: Vec<String>,
    /// What was published and nobody can use, with the reason.
    pub left_out: Vec<(String, String)>,
}

/// Permits `host` in addition to what the TXT records in `published` permit; `otherwise` is what a
/// domain without a usable record gets.
///
/// Our term is the first, so nothing before it can match our host. Of several records, which
/// together are good for nothing, the terms are put together, and the mildest of their `all`.
pub fn merge(published: &[&[u8]], host: &str, otherwise: &str) -> Merged {
    let mut merged = Merged { record: otherwise.into(), kept: Vec::new(), left_out: Vec::new() };
    for txt in published.iter().filter(|txt| is_spf(txt)) {
        let text = String::from_utf8_lossy(txt).into_owned();
        match Record::parse(txt) {
            Ok(_) => merged.kept.push(text),
            Err(problem) => merged.left_out.push((text, problem)),
        }
    }
    let ours = format!("a:{host}");
    match merged.kept.as_slice() {
        [] => {}
        [only] if permits(only, &ours) => merged.record.clone_from(only),
        [only] => {
            let rest: Vec<&str> = terms(only).collect();
            merged.record = joined(&ours, &rest);
        }
        several => merged.record = joined_of_several(&ours, several),
    }
    merged
}

fn terms(record: &str) -> impl Iterator<Item = &str> {
    record.split(' ').skip(1).filter(|term| !term.is_empty())
}

fn joined(ours: &str, rest: &[&str]) -> String {
    [&["v=spf1", ours], rest].concat().join(" ")
}

/// Whether our term stands where it counts: not behind `all`, which everything matches.
fn permits(record: &str, ours: &str) -> bool {
    let mut counting = terms(record).take_while(|term| strictness(term).is_none());
    counting.any(|term| term.strip_prefix('+').unwrap_or(term).eq_ignore_ascii_case(ours))
}

/// Of an `all`, how much it is against whoever matches nothing else.
fn strictness(term: &str) -> Option<u8> {
    match term.to_ascii_lowercase().as_str() {
        "all" | "+all" => Some(0),
        "?all" => Some(1),
        "~all" => Some(2),
        "-all" => Some(3),
        _ => None,
    }
}

fn joined_of_several(ours: &str, records: &[String]) -> String {
    let mut together: Vec<String> = Vec::new();
    let mut mildest: Option<(u8, &str)> = None;
    for term in records.iter().flat_map(|record| terms(record)) {
        if let Some(strictness) = strictness(term) {
            mildest = Some(mildest.unwrap_or((strictness, term)).min((strictness, term)));
            continue;
        }
        // Of two redirections only one could be; what it leads to can be included as well. Its
        // `all` is lost, and the mildest that says anything stands for it.
        let term = match term.split_once('=') {
            Some((name, target)) if name.eq_ignore_ascii_case("redirect") => {
                mildest = Some(mildest.unwrap_or((2, "~all")).min((2, "~all")));
                format!("include:{target}")
            }
            // An explanation stands once in a record.
            Some((name, _)) if together.iter().any(|known| is_modifier(known, name)) => continue,
            _ => term.to_owned(),
        };
        if !together.iter().any(|known| known.eq_ignore_ascii_case(&term)) {
            together.push(term);
        }
    }
    together.retain(|term| !term.eq_ignore_ascii_case(ours));
    together.extend(mildest.map(|(_, all)| all.to_owned()));
    let rest: Vec<&str> = together.iter().map(String::as_str).collect();
    joined(ours, &rest)
}

fn is_modifier(term: &str, name: &str) -> bool {
    term.split_once('=').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "v=spf1 a:mx.test ~all";

    fn merged(published: &[&str]) -> Merged {
        let published: Vec<_> = published.iter().map(|text| text.as_bytes()).collect();
        merge(&published, "mx.test", DEFAULT)
    }

    #[test]
    fn what_is_published_stays_and_our_host_comes_first() {
        for (published, expected) in [
            (&[][..], DEFAULT),
            (&["verification=1", "v=spf10 -all"], DEFAULT),
            (&["v=spf1 include:amazonses.com ~all"], "v=spf1 a:mx.test include:amazonses.com ~all"),
            (&["v=spf1 -all"], "v=spf1 a:mx.test -all"),
            (&["v=spf1"], "v=spf1 a:mx.test"),
            (&["V=SPF1  ip4:192.0.2.1  ?all "], "v=spf1 a:mx.test ip4:192.0.2.1 ?all"),
            (&["v=spf1 redirect=_spf.x.test"], "v=spf1 a:mx.test redirect=_spf.x.test"),
            (&["v=spf1 mx exp=e.x.test +all"], "v=spf1 a:mx.test mx exp=e.x.test +all"),
            // Ours is there already, or only seems so.
            (&["v=spf1 mx a:MX.test -all"], "v=spf1 mx a:MX.test -all"),
            (&["v=spf1 +a:mx.test -all"], "v=spf1 +a:mx.test -all"),
            (&["v=spf1 -all a:mx.test"], "v=spf1 a:mx.test -all a:mx.test"),
            (&["v=spf1 -a:mx.test -all"], "v=spf1 a:mx.test -a:mx.test -all"),
            (&["v=spf1 a:mx.test.org -all"], "v=spf1 a:mx.test a:mx.test.org -all"),
            // Several are good for nothing today.
            (
                &["v=spf1 include:a.test -all", "v=spf1 include:B.test include:A.test ~all"],
                "v=spf1 a:mx.test include:a.test include:B.test ~all",
            ),
            (
                &["v=spf1 redirect=a.test", "v=spf1 a:mx.test redirect=b.test"],
                "v=spf1 a:mx.test include:a.test include:b.test ~all",
            ),
            (&["v=spf1 mx", "v=spf1 exp=a.test a exp=a.test"], "v=spf1 a:mx.test mx"),
        ] {
            assert_eq!(merged(published).record, expected, "{published:?}");
        }
    }

    #[test]
    fn what_nobody_can_use_is_left_out_and_told() {
        let found = merged(&["v=spf1 ipv4:192.0.2.1 -all", "v=spf1 mx -all"]);
        assert_eq!(found.record, "v=spf1 a:mx.test mx -all");
        assert_eq!(found.kept, ["v=spf1 mx -all"]);
        let (text, problem) = &found.left_out[0];
        assert_eq!(text, "v=spf1 ipv4:192.0.2.1 -all");
        assert!(problem.contains("ipv4"), "{problem}");
        let alone = merged(&["v=spf1 ipv4:192.0.2.1 -all"]);
        assert_eq!(alone.record, DEFAULT);
    }
}
