//! Tag lists (RFC 6376 §3.2), read strictly: what breaks the grammar must not count as signed,
//! though mail-auth reads past it.

use memchr::memchr_iter;

/// Tags in one list; real ones have about fifteen.
const MAX_TAGS: usize = 64;

/// A list whose names are all different. Names and values are case-sensitive.
pub(super) struct TagList<'a>(Vec<(&'a str, &'a str)>);

impl<'a> TagList<'a> {
    /// Reads a field's value or a record's text.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(text).map_err(|_| "octets that are not UTF-8")?;
        let text = trim(text);
        // One semicolon may end the list.
        let text = text.strip_suffix(';').unwrap_or(text);
        let mut tags: Vec<(&str, &str)> = Vec::with_capacity(16);
        let ends = memchr_iter(b';', text.as_bytes()).chain([text.len()]);
        let mut start = 0;
        for end in ends {
            if tags.len() == MAX_TAGS {
                return Err("too many tags");
            }
            let tag = text.get(start..end).unwrap_or_default();
            start = end + 1;
            let Some((name, value)) = tag.split_once('=') else {
                return Err(if trim(tag).is_empty() { "an empty tag" } else { "a tag without =" });
            };
            let name = trim(name);
            let value = trim(value);
            if !is_tag_name(name) {
                return Err("a malformed tag name");
            }
            if has_control(value) {
                return Err("a control character");
            }
            if tags.iter().any(|(other, _)| are_same(other, name)) {
                return Err("a duplicate tag");
            }
            tags.push((name, value));
        }
        Ok(Self(tags))
    }

    /// A tag's value without the white space around it. One that is there and empty is not absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(other, _)| are_same(other, name)).map(|(_, value)| *value)
    }

    /// The name of the first tag.
    pub(super) fn first(&self) -> Option<&'a str> {
        self.0.first().map(|(name, _)| *name)
    }

    /// Whether a name is one of `known`, all in lower case, but for its case. RFC 6376 §3.2 makes it
    /// an unknown tag, which mail-auth would take for the known one.
    pub(super) fn has_wrong_case(&self, known: &[&str]) -> bool {
        let mut names = self.0.iter().map(|(name, _)| *name);
        names.any(|name| {
            name.bytes().any(|octet| octet.is_ascii_uppercase())
                && known.iter().any(|it| it.eq_ignore_ascii_case(name))
        })
    }
}

/// Names are short and mostly differ in their first letter.
fn are_same(a: &str, b: &str) -> bool {
    a.as_bytes().first() == b.as_bytes().first() && a == b
}

fn is_white(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Looks at every octet: what does not stop early, processors do for many octets at once.
fn has_control(value: &str) -> bool {
    if value.is_ascii() {
        let is_control = |octet: u8| octet.is_ascii_control() & !matches!(octet, 9 | 10 | 13);
        return value.bytes().fold(false, |found, octet| found | is_control(octet));
    }
    value.chars().any(|c| c.is_control() && !is_white(c))
}

/// White space is ASCII, so it is looked for in octets.
pub(super) fn trim(text: &str) -> &str {
    let is_white = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n');
    let octets = text.as_bytes();
    let start = octets.iter().position(|octet| !is_white(octet)).unwrap_or(octets.len());
    let end = octets.iter().rposition(|octet| !is_white(octet)).map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

fn is_tag_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

const SIGNATURE_TAGS: &[&str] =
    &["v", "a", "b", "bh", "c", "d", "h", "i", "l", "q", "s", "t", "x", "z", "r", "atps", "atpsh"];
const ARC_SIGNATURE_TAGS: &[&str] =
    &["a", "b", "bh", "c", "d", "h", "i", "l", "q", "s", "t", "x", "z"];
const SEAL_TAGS: &[&str] = &["a", "b", "cv", "d", "h", "i", "s", "t"];
const KEY_TAGS: &[&str] = &["v", "h", "k", "n", "p", "s", "t"];

/// What is wrong with a DKIM-Signature field's value (RFC 6376 §3.5).
pub(super) fn signature_problem(field: &[u8]) -> Option<&'static str> {
    let check = || {
        let tags = TagList::parse(field)?;
        require(&tags, SIGNATURE_TAGS, &["v", "a", "b", "bh", "d", "h", "s"])?;
        if tags.get("v") != Some("1") {
            return Err("unknown version");
        }
        if let Some((_, domain)) = tags.get("i").map(|i| i.rsplit_once('@').unwrap_or_default())
            && !is_domain(domain)
        {
            return Err("i= is not an identity");
        }
        check_signature(&tags)
    };
    check().err()
}

/// What is wrong with an ARC-Message-Signature field's value (RFC 8617 §4.1.2): DKIM's grammar
/// without `v=`, and `i=` is a number.
pub(super) fn arc_signature_problem(field: &[u8]) -> Option<&'static str> {
    let check = || {
        let tags = TagList::parse(field)?;
        require(&tags, ARC_SIGNATURE_TAGS, &["i", "a", "b", "bh", "d", "h", "s"])?;
        check_numbers(&tags, &["i"])?;
        check_signature(&tags)?;
        let covers = |name: &str| {
            let mut names = tags.get("h").unwrap_or_default().split(':');
            names.any(|signed| trim(signed).eq_ignore_ascii_case(name))
        };
        if covers("arc-seal") {
            return Err("h= covers ARC-Seal");
        }
        // RFC 6376 §5.4, which RFC 8617 §4.1.2 inherits.
        if !covers("from") {
            return Err("From is not signed");
        }
        Ok(())
    };
    check().err()
}

/// What is wrong with an ARC-Seal field's value (RFC 8617 §4.1.3).
pub(super) fn seal_problem(field: &[u8]) -> Option<&'static str> {
    let check = || {
        let tags = TagList::parse(field)?;
        require(&tags, SEAL_TAGS, &["i", "a", "b", "cv", "d", "s"])?;
        check_numbers(&tags, &["i", "t"])?;
        check_signer(&tags)
    };
    check().err()
}

fn require(tags: &TagList<'_>, known: &[&str], needed: &[&str]) -> Result<(), &'static str> {
    if tags.has_wrong_case(known) {
        return Err("a tag name in the wrong case");
    }
    if needed.iter().any(|name| tags.get(name).is_none_or(str::is_empty)) {
        return Err("a required tag is missing");
    }
    Ok(())
}

/// What signatures and seals share: who signed, how, and the octets of the signature.
fn check_signer(tags: &TagList<'_>) -> Result<(), &'static str> {
    if !tags.get("d").is_some_and(is_domain) {
        return Err("d= is not a domain");
    }
    if !tags.get("s").is_some_and(|selector| selector.split('.').all(is_label)) {
        return Err("s= is not a selector");
    }
    if tags.get("a").is_some_and(|algorithm| algorithm.contains(is_white)) {
        return Err("unknown algorithm");
    }
    if ["b", "bh"].iter().filter_map(|name| tags.get(name)).any(|value| !is_base64(value)) {
        return Err("it is not in base64");
    }
    Ok(())
}

fn check_signature(tags: &TagList<'_>) -> Result<(), &'static str> {
    check_signer(tags)?;
    check_numbers(tags, &["l", "t", "x"])?;
    // RFC 6376 §3.5: a method that is not known is passed over, and none is left then.
    let mut methods = tags.get("q").unwrap_or("dns/txt").split(':');
    if !methods.any(|method| trim(method).eq_ignore_ascii_case("dns/txt")) {
        return Err("unknown query method");
    }
    let canonicalizations = tags.get("c").unwrap_or("simple/simple");
    let header = canonicalizations.split('/').next().unwrap_or_default();
    let body = canonicalizations.split_once('/').map_or("simple", |(_, body)| body);
    if !is_canonicalization(header) || !is_canonicalization(body) {
        return Err("unknown canonicalization");
    }
    let mut names = tags.get("h").unwrap_or_default().split(':').map(trim);
    if names.any(|name| name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic())) {
        return Err("h= is not a list of field names");
    }
    let number = |name| tags.get(name).and_then(|value| value.parse::<u64>().ok());
    match (number("t"), number("x")) {
        (Some(signed), Some(expires)) if expires <= signed => Err("x= is not after t="),
        _ => Ok(()),
    }
}

fn is_canonicalization(name: &str) -> bool {
    // The literals of ABNF have no case (RFC 5234 §2.3).
    ["simple", "relaxed"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// RFC 6376 §3.5: decimal digits, twelve for times. More would not fit the types either.
fn check_numbers(tags: &TagList<'_>, names: &[&str]) -> Result<(), &'static str> {
    let mut values = names.iter().filter_map(|name| tags.get(name));
    let is_number = |value: &str| {
        (1..=12).contains(&value.len()) && value.bytes().all(|octet| octet.is_ascii_digit())
    };
    if values.all(is_number) { Ok(()) } else { Err("a number is malformed") }
}

/// Two labels at least, no final dot. Underscores are no letters of a domain, but are in use.
fn is_domain(domain: &str) -> bool {
    domain.len() <= 253 && domain.contains('.') && domain.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let is_letter = |octet: u8| {
        octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_') || !octet.is_ascii()
    };
    (1..=63).contains(&label.len()) && label.bytes().all(is_letter)
}

fn is_base64(value: &str) -> bool {
    let is_end = |octet: &u8| matches!(octet, b'=' | b' ' | b'\t' | b'\r' | b'\n');
    let octets = value.as_bytes();
    let end = octets.iter().rposition(|octet| !is_end(octet)).map_or(0, |last| last + 1);
    let (digits, padding) = octets.split_at(end);
    let has_padding = padding.iter().filter(|octet| **octet == b'=').count();
    let is_digit = |octet: u8| {
        octet.is_ascii_alphanumeric() | matches!(octet, b'+' | b'/' | b' ' | b'\t' | b'\r' | b'\n')
    };
    // As in `has_control`.
    has_padding <= 2 && digits.iter().fold(true, |all, octet| all & is_digit(*octet))
}

/// What a TXT record under a selector is (RFC 6376 §3.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyRecord {
    /// Something else, to be passed over.
    Unrelated,
    /// A key that no signature of a message may use, for this reason.
    Unusable(&'static str),
    /// A key.
    Usable,
}

/// Whether `text` is a key that may sign mail with SHA-256.
pub(super) fn key_record(text: &[u8]) -> KeyRecord {
    let lenient = String::from_utf8_lossy(text);
    let mut tags = lenient.split(';').map(|tag| tag.split_once('=').unwrap_or((tag, "")));
    let first = tags.next().map(|(name, value)| (trim(name), trim(value)));
    let is_version = matches!(first, Some(("v", _)));
    // A record that begins with any other version must be discarded.
    if is_version && !matches!(first, Some((_, "DKIM1"))) {
        return KeyRecord::Unrelated;
    }
    let is_key = |name: &str| trim(name).eq_ignore_ascii_case("p");
    if !is_version && !first.is_some_and(|(name, _)| is_key(name)) && !tags.any(|it| is_key(it.0)) {
        return KeyRecord::Unrelated;
    }
    match key_problem(text) {
        Ok(()) => KeyRecord::Usable,
        Err(problem) => KeyRecord::Unusable(problem),
    }
}

fn key_problem(text: &[u8]) -> Result<(), &'static str> {
    let tags = TagList::parse(text).map_err(|_| "the key record cannot be read")?;
    if tags.has_wrong_case(KEY_TAGS) || tags.get("p").is_none_or(|key| !is_base64(key)) {
        return Err("the key record cannot be read");
    }
    if tags.get("v").is_some() && tags.first() != Some("v") {
        return Err("v= is not the first tag of the key record");
    }
    let lists = |name: &str, accepted: &[&str]| {
        tags.get(name).is_none_or(|list| {
            list.split(':')
                .any(|word| accepted.iter().any(|it| it.eq_ignore_ascii_case(trim(word))))
        })
    };
    if !lists("s", &["*", "email"]) {
        return Err("the key is for another service");
    }
    // RFC 6376 §6.1.2; rsa-sha1 is not accepted at all.
    if !lists("h", &["sha256"]) {
        return Err("the key does not allow SHA-256");
    }
    if tags.get("k").is_some_and(str::is_empty) {
        return Err("unknown key type");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "v=1; a=rsa-sha256; d=a.test; s=x; h=From:To; bh=AA==; b=AAAA";

    fn check(of: fn(&[u8]) -> Option<&'static str>, right: &[&str], wrong: &[(&str, &str)]) {
        for field in right {
            assert_eq!(of(field.as_bytes()), None, "{field}");
        }
        for (field, problem) in wrong {
            assert_eq!(of(field.as_bytes()), Some(*problem), "{field}");
        }
    }

    /// The signature with `from` written as `to`.
    fn with(from: &str, to: &str) -> String {
        let changed = SIGNATURE.replacen(from, to, 1);
        assert_ne!(changed, SIGNATURE);
        changed
    }

    #[test]
    fn signatures_as_the_grammar_has_them() {
        for right in [
            SIGNATURE.to_owned(),
            format!("{SIGNATURE};"),
            format!("{SIGNATURE} ; \r\n"),
            with("; ", ";"),
            with("v=1", " v \t= 1 "),
            with("; d", ";\r\n\td"),
            with("bh=AA==", "bh=A\r\n A = ="),
            with("h=From:To", "h= FROM :\r\n to"),
            with("v=1; a=rsa-sha256", "a=RSA-SHA256; v=1"),
            with("v=1", "v=1; c=Relaxed/SIMPLE; q=other:DNS/txt; zz9_=a=b=c; nothing="),
            with("v=1", "v=1; c=relaxed; t=1; x=2; l=0; i=u@b.a.test"),
            with("s=x", "s=x_1.y-2"),
            with("d=a.test", "d=b\u{fc}cher.a.test"),
        ] {
            check(signature_problem, &[&right], &[]);
        }
    }

    #[test]
    fn signatures_that_break_it() {
        for (from, to, problem) in [
            ("v=1; ", "", "a required tag is missing"),
            ("a=rsa-sha256; ", "", "a required tag is missing"),
            ("d=a.test; ", "d=; ", "a required tag is missing"),
            ("v=1", "v=1.0", "unknown version"),
            ("v=1", "v=01", "unknown version"),
            ("v=1", "V=1", "a tag name in the wrong case"),
            ("v=1", "v=1; D=b.test", "a tag name in the wrong case"),
            ("v=1", "v=1; v=1", "a duplicate tag"),
            ("v=1", "v=1; x1=a; x1=a", "a duplicate tag"),
            ("v=1; ", "v=1;; ", "an empty tag"),
            ("v=1; ", "; v=1; ", "an empty tag"),
            ("b=AAAA", "b=AAAA;;", "an empty tag"),
            ("v=1", "v=1; word", "a tag without ="),
            ("v=1", "v=1; 1a=b", "a malformed tag name"),
            ("v=1", "v=1; b h=b", "a malformed tag name"),
            ("v=1", "v=1; =b", "a malformed tag name"),
            ("v=1", "v=1; n=\u{7}", "a control character"),
            ("d=a.test", "d=a.test.", "d= is not a domain"),
            ("d=a.test", "d=.a.test", "d= is not a domain"),
            ("d=a.test", "d=a..test", "d= is not a domain"),
            ("d=a.test", "d=test", "d= is not a domain"),
            ("d=a.test", "d=a. test", "d= is not a domain"),
            ("s=x", "s=x.", "s= is not a selector"),
            ("v=1", "v=1; i=a.test", "i= is not an identity"),
            ("v=1", "v=1; i=@a.test.", "i= is not an identity"),
            ("v=1", "v=1; i=", "i= is not an identity"),
            ("v=1", "v=1; q=dns", "unknown query method"),
            ("v=1", "v=1; q=", "unknown query method"),
            ("v=1", "v=1; c=", "unknown canonicalization"),
            ("v=1", "v=1; c=relaxed/", "unknown canonicalization"),
            ("v=1", "v=1; c=relaxed/relaxed/simple", "unknown canonicalization"),
            ("v=1", "v=1; c=rel axed", "unknown canonicalization"),
            ("a=rsa-sha256", "a=rsa-sha 256", "unknown algorithm"),
            ("From:To", "From::To", "h= is not a list of field names"),
            ("From:To", "From:", "h= is not a list of field names"),
            ("From:To", "From:T o", "h= is not a list of field names"),
            ("v=1", "v=1; t=", "a number is malformed"),
            ("v=1", "v=1; x=-1", "a number is malformed"),
            ("v=1", "v=1; l=1k", "a number is malformed"),
            ("v=1", "v=1; t=5; x=5", "x= is not after t="),
            ("b=AAAA", "b=AA!A", "it is not in base64"),
            ("bh=AA==", "bh=A===", "it is not in base64"),
            ("bh=AA==", "bh=A=A=", "it is not in base64"),
        ] {
            check(signature_problem, &[], &[(&with(from, to), problem)]);
        }
    }

    #[test]
    fn arc_sets() {
        check(
            arc_signature_problem,
            &["i=1; a=rsa-sha256; d=a.test; s=x; h=from:to; bh=AA==; b=AAAA"],
            &[
                ("i=1; d=a.test; s=x; h=from; bh=AA==; b=A", "a required tag is missing"),
                ("i=1; i=1; a=rsa-sha256", "a duplicate tag"),
                (
                    "i=1; a=rsa-sha256; d=a.test; s=x; h=from:ARC-SEAL ; bh=AA==; b=A",
                    "h= covers ARC-Seal",
                ),
                ("i=1; a=rsa-sha256; d=a.test; s=x; h=to; bh=AA==; b=A", "From is not signed"),
                ("i=x; a=rsa-sha256; d=a.test; s=x; h=to; bh=A; b=A", "a number is malformed"),
            ],
        );
        check(
            seal_problem,
            &["i=1; a=rsa-sha256; cv=none; d=a.test; s=x; b=AAAA; t=1;"],
            &[
                ("i=1; cv=none; d=a.test; s=x; b=AAAA", "a required tag is missing"),
                ("i=1; a=rsa-sha256; cv=none; d=a.test; s=x; b=A; t=1; t=1", "a duplicate tag"),
                ("i=1; a=rsa-sha256; CV=none; d=a.test; s=x; b=A", "a tag name in the wrong case"),
                ("i=1; a=rsa-sha256; cv=none; d=a.test.; s=x; b=A", "d= is not a domain"),
            ],
        );
    }

    #[test]
    fn key_records() {
        use KeyRecord::{Unrelated, Unusable, Usable};
        const BROKEN: KeyRecord = Unusable("the key record cannot be read");
        for (text, expected) in [
            ("v=DKIM1; p=AAAA", Usable),
            ("p=AAAA", Usable),
            ("p=", Usable),
            (" v = DKIM1 ; k=rsa; n=note; zz=; p=AA\r\n AA;", Usable),
            ("v=DKIM1; s=other:email; h=sha1 : SHA256; t=y:s; p=AAAA", Usable),
            ("v=DKIM1; s=*; g=*; p=AAAA", Usable),
            ("verification=1", Unrelated),
            ("v=spf1 -all", Unrelated),
            ("v=DKIM1.0; p=AAAA", Unrelated),
            ("v=dkim1; p=AAAA", Unrelated),
            ("v=; p=AAAA", Unrelated),
            ("p=AAAA; v=DKIM1", Unusable("v= is not the first tag of the key record")),
            ("v=DKIM1; s=tlsrpt; p=AAAA", Unusable("the key is for another service")),
            ("v=DKIM1; s=; p=AAAA", Unusable("the key is for another service")),
            ("v=DKIM1; h=sha1; p=AAAA", Unusable("the key does not allow SHA-256")),
            ("v=DKIM1; k=; p=AAAA", Unusable("unknown key type")),
            ("v=DKIM1; k=rsa", BROKEN),
            ("v=DKIM1; p=AAAA; p=AAAA", BROKEN),
            ("v=DKIM1;; p=AAAA", BROKEN),
            ("v=DKIM1; P=AAAA", BROKEN),
            ("v=DKIM1; p=!", BROKEN),
            ("v=DKIM1; k; p=AAAA", BROKEN),
        ] {
            assert_eq!(key_record(text.as_bytes()), expected, "{text}");
        }
    }
}
