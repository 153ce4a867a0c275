//! The tree walk of DMARC (RFC 9989 §4.10): at which names it asks, and which domain is the
//! organization's. Pure.

use mail_auth::dmarc::Psd;
use mail_auth::{DnsError, TxtRecord};

/// RFC 9989 §4.10: a name of more labels is cut to this many after the first query, so that a
/// walk has at most eight.
const WALK_LABELS: usize = 7;

/// What a walk has found at each of its names, nearest to the author first, as far as it says whose
/// they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeWalk(Vec<Step>);

/// What stands at one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    NoRecord,
    /// A record that does not say whose the name is.
    Record,
    /// `psd=n`: the domain of an organization.
    Organization,
    /// `psd=y`: a public suffix.
    Suffix,
    /// It could not be looked up; another time it may.
    Untold,
}

impl TreeWalk {
    /// Adds what stands at the next of [`walk_names`].
    pub(super) fn add(&mut self, record: &TxtRecord) {
        self.0.push(match record {
            TxtRecord::Dmarc(record) => match record.psd {
                Psd::Yes => Step::Suffix,
                Psd::No => Step::Organization,
                Psd::Default => Step::Record,
            },
            TxtRecord::Error(mail_auth::Error::Dns(DnsError::RecordNotFound(_))) => Step::NoRecord,
            _ => Step::Untold,
        });
    }

    /// RFC 9989 §4.10.2, for the domain at which the walk began: the domain below a public suffix,
    /// else the highest one with a record, else the domain itself. `None` if a name on the way there
    /// could not be looked up.
    pub(super) fn organizational_domain<'a>(&self, domain: &'a str) -> Option<&'a str> {
        let mut highest = domain;
        let mut steps = self.0.iter();
        for name in walk_names(domain) {
            match steps.next()? {
                Step::NoRecord => {}
                Step::Record => highest = name,
                Step::Suffix if name != domain => return Some(one_label_below(name, domain)),
                Step::Suffix | Step::Organization => return Some(name),
                Step::Untold => return None,
            }
        }
        Some(highest)
    }
}

/// The names at which a walk from `domain` asks (RFC 9989 §4.10): the domain itself, then at
/// most its last seven labels, then one fewer each time. A single label is not asked for.
pub(super) fn walk_names(domain: &str) -> Vec<&str> {
    let total = domain.split('.').filter(|label| !label.is_empty()).count();
    let mut names = Vec::new();
    let mut count = total;
    while total >= 2 && count >= 1 {
        names.extend(domain.splitn(total - count + 1, '.').last());
        count = if count > WALK_LABELS { WALK_LABELS } else { count - 1 };
    }
    names
}

/// The name on the way from `domain` to `above`, which stands above it, that is next to `above`.
fn one_label_below<'a>(above: &str, domain: &'a str) -> &'a str {
    let labels = domain.strip_suffix(above).unwrap_or_default().trim_end_matches('.');
    let start = labels.rfind('.').map_or(0, |dot| dot + 1);
    domain.get(start..).unwrap_or(domain)
}

#[cfg(test)]
mod tests {
    use super::Step::{NoRecord, Organization, Record, Suffix, Untold};
    use super::*;

    #[test]
    fn the_organization_is_found_where_the_walk_says() {
        let domain = "a.b.example.test";
        for (steps, expected) in [
            // At a.b.example.test, b.example.test, example.test and test.
            ([NoRecord, NoRecord, NoRecord, NoRecord], Some(domain)),
            ([Record, NoRecord, NoRecord, NoRecord], Some(domain)),
            ([Record, NoRecord, Record, NoRecord], Some("example.test")),
            ([NoRecord, Record, NoRecord, NoRecord], Some("b.example.test")),
            ([NoRecord, Organization, Record, NoRecord], Some("b.example.test")),
            ([Suffix, Record, Record, NoRecord], Some(domain)),
            ([Record, Suffix, Record, NoRecord], Some(domain)),
            ([Record, NoRecord, NoRecord, Suffix], Some("example.test")),
            ([Untold, Record, Record, NoRecord], None),
            ([Record, NoRecord, NoRecord, Untold], None),
            // Nobody asks beyond the end.
            ([Record, Organization, Untold, Untold], Some("b.example.test")),
        ] {
            let walk = TreeWalk(steps.to_vec());
            assert_eq!(walk.organizational_domain(domain), expected, "{steps:?}");
        }
        assert_eq!(TreeWalk::default().organizational_domain(domain), None, "nothing was asked");
        assert_eq!(TreeWalk::default().organizational_domain("test"), Some("test"));
    }

    #[test]
    fn a_walk_has_eight_names_at_most() {
        for (domain, expected) in [
            ("test", &[][..]),
            ("b.test", &["b.test", "test"]),
            ("c.b.test", &["c.b.test", "b.test", "test"]),
        ] {
            assert_eq!(walk_names(domain), expected);
        }
        let names = walk_names("k.j.i.h.g.f.e.d.c.b.test");
        assert_eq!(names.len(), 8);
        assert_eq!(names[..2], ["k.j.i.h.g.f.e.d.c.b.test", "g.f.e.d.c.b.test"]);
    }
}
