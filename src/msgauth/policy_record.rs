//! DMARC records: RFC 9989 §4.7 and §4.10, and `pct` of RFC 7489 §6.3.
//!
//! A wrong word in one tag must not switch the others off: a tag that cannot be read has its
//! default (RFC 7489 §6.3), and only the policy's own tags decide whether there is a policy.

use mail_auth::dmarc::{Alignment, DmarcRecord, FailureOptions, Policy, Psd, Uri};

/// A record, with the tag that RFC 9989 no longer has.
pub(super) struct PolicyRecord {
    /// `p`, `sp` and `np` are [`Policy::Unspecified`] where they are not to be followed: the
    /// policy is then `none` if reports are asked for, and otherwise there is none.
    pub(super) record: DmarcRecord,
    pub(super) pct: u8,
}

/// What of a tag there is.
enum Tag<T> {
    Absent,
    Malformed,
    Value(T),
}

impl PolicyRecord {
    /// Reads a text; `None` if it is not a DMARC record.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let tags = after_version(&text)?;
        let mut p = policy(tags, "p");
        let mut sp = policy(tags, "sp");
        let mut np = policy(tags, "np");
        // RFC 9989 §4.10.1, RFC 7489 §6.6.3 step 6.
        if !matches!(p, Tag::Value(_))
            || matches!(sp, Tag::Malformed)
            || matches!(np, Tag::Malformed)
        {
            p = Tag::Absent;
            sp = Tag::Absent;
            np = Tag::Absent;
        }
        let p = p.or(Policy::Unspecified);
        let sp = sp.or(p);
        let np = np.or(sp);
        let record = DmarcRecord {
            adkim: alignment(tags, "adkim"),
            aspf: alignment(tags, "aspf"),
            fo: FailureOptions::All,
            np,
            p,
            psd: read(tags, "psd", |word| match word {
                "y" => Some(Psd::Yes),
                "n" => Some(Psd::No),
                "u" => Some(Psd::Default),
                _ => None,
            })
            .or(Psd::Default),
            rua: read(tags, "rua", reporting_uris).or(Vec::new()),
            ruf: Vec::new(),
            sp,
            t: read(tags, "t", |word| Some(word == "y")).or(false),
        };
        let pct = read(tags, "pct", |word| word.parse().ok().filter(|pct| *pct <= 100)).or(100);
        Some(Self { record, pct })
    }
}

impl<T> Tag<T> {
    fn or(self, default: T) -> T {
        match self {
            Self::Value(value) => value,
            Self::Absent | Self::Malformed => default,
        }
    }
}

/// What follows `v=DMARC1`, which must begin the record precisely so (RFC 9989 §4.7).
fn after_version(text: &str) -> Option<&str> {
    let white = [' ', '\t'];
    let rest = text.strip_prefix('v')?.trim_start_matches(white).strip_prefix('=')?;
    let rest = rest.trim_start_matches(white).strip_prefix("DMARC1")?.trim_start_matches(white);
    if rest.is_empty() { Some("") } else { rest.strip_prefix(';') }
}

/// A tag, its name in any case as ABNF has it, its value in lower case for `parse`. A name that stands there twice has a value only if
/// both say the same.
fn read<T>(tags: &str, name: &str, parse: impl Fn(&str) -> Option<T>) -> Tag<T> {
    let mut found: Option<String> = None;
    for tag in tags.split(';') {
        let Some((other, value)) = tag.split_once('=') else { continue };
        if !other.trim().eq_ignore_ascii_case(name) {
            continue;
        }
        let value = value.trim().to_ascii_lowercase();
        if found.as_ref().is_some_and(|first| *first != value) {
            return Tag::Malformed;
        }
        found = Some(value);
    }
    match found.map(|value| parse(&value)) {
        None => Tag::Absent,
        Some(None) => Tag::Malformed,
        Some(Some(value)) => Tag::Value(value),
    }
}

fn policy(tags: &str, name: &str) -> Tag<Policy> {
    read(tags, name, |word| match word {
        "none" => Some(Policy::None),
        "quarantine" => Some(Policy::Quarantine),
        "reject" => Some(Policy::Reject),
        _ => None,
    })
}

fn alignment(tags: &str, name: &str) -> Alignment {
    read(tags, name, |word| (word == "s").then_some(Alignment::Strict)).or(Alignment::Relaxed)
}

/// The URIs that can be read, of any scheme (RFC 3986 §3); it matters only whether there is one.
fn reporting_uris(list: &str) -> Option<Vec<Uri>> {
    let is_uri = |uri: &&str| {
        let Some((scheme, rest)) = uri.split_once(':') else { return false };
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let is_address =
            rest.split_once('@').is_some_and(|(name, at)| !name.is_empty() && !at.is_empty());
        is_scheme
            && !rest.is_empty()
            && rest.chars().all(|c| c.is_ascii_graphic())
            && (scheme != "mailto" || is_address)
    };
    let uris = list.split(',').map(|uri| uri.split('!').next().unwrap_or_default().trim());
    let uris: Vec<Uri> =
        uris.filter(is_uri).map(|uri| Uri { uri: uri.to_owned(), max_size: 0 }).collect();
    (!uris.is_empty()).then_some(uris)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = PolicyRecord::parse(text.as_bytes()).map(|PolicyRecord { record, pct }| {
            let policies = [record.p, record.sp, record.np].map(|policy| format!("{policy:?}"));
            let strict = |alignment| matches!(alignment, Alignment::Strict);
            let extras = [
                (!record.rua.is_empty(), " rua"),
                (strict(record.adkim), " adkim=s"),
                (strict(record.aspf), " aspf=s"),
                (record.t, " t"),
                (record.psd == Psd::Yes, " psd=y"),
                (pct != 100, " pct"),
            ];
            let extras: String = extras.iter().filter(|it| it.0).map(|it| it.1).collect();
            format!("{}{extras}", policies.join(" "))
        });
        assert_eq!(found.as_deref().unwrap_or("no record"), expected, "{text:?}");
    }

    #[test]
    fn what_is_a_record() {
        for text in [
            "",
            "v=DMARC1 p=reject",
            "V=DMARC1; p=reject",
            "v=dmarc1; p=reject",
            " v=DMARC1; p=reject",
            "v=DMARC1x; p=reject",
            "v=DMARC10",
            "v=DMARC2; p=reject",
            "p=reject; v=DMARC1",
            "v DMARC1; p=reject",
            "\u{feff}v=DMARC1; p=reject",
        ] {
            check(text, "no record");
        }
        for text in [
            "v=DMARC1; p=reject",
            "v=DMARC1;p=reject",
            "v = DMARC1 ; p = reject ;",
            "v=DMARC1;;; p=reject;;",
            "v=DMARC1; word; p=REJECT",
            "v=DMARC1; zz=a=b; p=reject",
            "v=DMARC1; rf=afrf; p=reject",
            "v=DMARC1;\tp=reject",
            "v=DMARC1; p=reject; p=reject",
            "v=DMARC1; p=reject; fo=banana; ri=x; t=; psd=q; rua=; ruf=!",
        ] {
            check(text, "Reject Reject Reject");
        }
    }

    #[test]
    fn a_wrong_word_is_passed_over() {
        check("v=DMARC1; P=reject; PCT = 0", "Reject Reject Reject pct");
        check("v=DMARC1; p=reject; adkim=relaxed; aspf=strict", "Reject Reject Reject");
        check("v=DMARC1; p=reject; aspf=x; adkim=s", "Reject Reject Reject adkim=s");
        check("v=DMARC1; p=reject; aspf=S", "Reject Reject Reject aspf=s");
        check("v=DMARC1; p=reject; adkim=s; adkim=r", "Reject Reject Reject");
        check("v=DMARC1; p=reject; pct=abc", "Reject Reject Reject");
        check("v=DMARC1; p=reject; pct=101", "Reject Reject Reject");
        check("v=DMARC1; p=reject; pct=0", "Reject Reject Reject pct");
        check("v=DMARC1; p=reject; t=y; psd=Y", "Reject Reject Reject t psd=y");
        check("v=DMARC1; p=none; sp=quarantine; np=reject", "None Quarantine Reject");
        check("v=DMARC1; sp=none; p=reject", "Reject None None");
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_none() {
        const NOTHING: &str = "Unspecified Unspecified Unspecified";
        for text in [
            "v=DMARC1",
            "v=DMARC1;",
            "v=DMARC1; p=",
            "v=DMARC1; p=rejected",
            "v=DMARC1; p=reject; p=none",
            "v=DMARC1; p=reject; sp=x",
            "v=DMARC1; p=reject; np=",
            "v=DMARC1; p=re ject",
            "v=DMARC1; sp=reject",
        ] {
            check(text, NOTHING);
            let reported = format!("{text}; rua=mailto:r@b.test!10m, other").replace(";;", ";");
            check(&reported, &format!("{NOTHING} rua"));
            check(&format!("{text}; rua=nowhere,mailto:x").replace(";;", ";"), NOTHING);
        }
        check("v=DMARC1; p=x; rua=https://b.test/r", &format!("{NOTHING} rua"));
    }
}
