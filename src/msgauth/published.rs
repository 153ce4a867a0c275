//! Whether what stands in DNS for a domain of ours is what its mail needs: a judgement of each
//! kind of TXT record, by what it does rather than by how it is written.

use mail_auth::dkim::{DkimError, DomainKey};
use mail_auth::dmarc::Policy;
use mail_auth::dns::TxtRecordParser;
use mail_auth::mta_sts::{MtaStsRecord, TlsRptRecord};
use mail_auth::{DnsError, Error};

use super::dkim::reason;
use super::policy_record::PolicyRecord;
use super::signing_key::{KeyType, SigningKey};
use super::spf;
use super::tags::{KeyRecord, key_record};
use crate::dns::RecordData;

/// What the records at a name come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// What is needed.
    Right,
    /// No record of the kind.
    Absent,
    /// One that says something else, which is this.
    Other(String),
    /// What no receiver can use, for this reason: a malformed record, or several where only one
    /// may be.
    Unusable(String),
}

/// The SPF record (RFC 7208 §4.5): [`Published::Right`] if it reads exactly as `wanted`. Another
/// one may permit the same; that is found by evaluating it.
pub fn spf(records: &[RecordData], wanted: &str) -> Published {
    judge(records, "SPF records", spf::read, |text, ()| match text == wanted.as_bytes() {
        true => Published::Right,
        false => Published::Other(printable(text)),
    })
}

/// The key record of a selector (RFC 6376 §3.6.1): right if it has the other half of `key`.
pub fn dkim(records: &[RecordData], key: &SigningKey) -> Published {
    let parse = |text: &[u8]| match key_record(text) {
        KeyRecord::Unrelated => None,
        KeyRecord::Unusable(problem) => Some(Err(problem.to_owned())),
        KeyRecord::Usable => match DomainKey::parse(text) {
            Err(Error::Dkim(DkimError::PublicKeyRevoked)) => Some(Ok(())),
            parsed => Some(parsed.map(drop).map_err(|error| reason(&error))),
        },
    };
    judge(records, "keys under one selector", parse, |text, ()| compare_key(text, key))
}

/// The DMARC record (RFC 9989 §4.7): right if receivers quarantine or reject what does not pass.
pub fn dmarc(records: &[RecordData]) -> Published {
    let parse = |text: &[u8]| PolicyRecord::parse(text).map(|policy| Ok(policy.record));
    judge(records, "DMARC records", parse, |text, record| match record.p {
        Policy::Quarantine | Policy::Reject => Published::Right,
        Policy::None => Published::Other(printable(text)),
        Policy::Unspecified => Published::Unusable("its policy cannot be read".into()),
    })
}

/// The TLS reporting record (RFC 8460 §3): right if reports go anywhere.
pub fn tls_reporting(records: &[RecordData]) -> Published {
    let parse = |text: &[u8]| parsed_as(TlsRptRecord::parse(text));
    judge(records, "TLS reporting records", parse, |_, _| Published::Right)
}

/// The MTA-STS record (RFC 8461 §3.1): right if there is one. Its id is the publisher's own.
pub fn mta_sts(records: &[RecordData]) -> Published {
    let parse = |text: &[u8]| parsed_as(MtaStsRecord::parse(text));
    judge(records, "MTA-STS records", parse, |_, _| Published::Right)
}

/// Finds the one record of the kind that `parse` knows, and looks at it. `parse` gives `None` for
/// a text of another kind.
fn judge<T>(
    records: &[RecordData],
    several: &str,
    parse: impl Fn(&[u8]) -> Option<Result<T, String>>,
    look: impl Fn(&[u8], T) -> Published,
) -> Published {
    let mut found = records.iter().filter_map(|record| match record {
        RecordData::Txt(text) => parse(text).map(|parsed| (&**text, parsed)),
        _ => None,
    });
    match (found.next(), found.next()) {
        (None, _) => Published::Absent,
        (Some(_), Some(_)) => Published::Unusable(format!("there are several {several}")),
        (Some((_, Err(problem))), None) => Published::Unusable(problem),
        (Some((text, Ok(parsed))), None) => look(text, parsed),
    }
}

/// mail-auth's answer: a text of another kind is [`DnsError::InvalidRecordType`].
fn parsed_as<T>(parsed: Result<T, Error>) -> Option<Result<T, String>> {
    match parsed {
        Err(Error::Dns(DnsError::InvalidRecordType)) => None,
        parsed => Some(parsed.map_err(|error| reason(&error))),
    }
}

/// Octets of base64 have one spelling, so that equal texts without white space are equal keys.
fn compare_key(text: &[u8], key: &SigningKey) -> Published {
    let text = String::from_utf8_lossy(text);
    let tag = |name: &str| {
        let mut tags = text.split(';').filter_map(|tag| tag.split_once('='));
        let value = tags.find(|(key, _)| key.trim() == name)?.1;
        Some(value.split_whitespace().collect::<String>())
    };
    let public = tag("p").unwrap_or_default();
    let problem = if public.is_empty() {
        "the key is revoked"
    } else if tag("k").unwrap_or_else(|| KeyType::Rsa.as_str().into()) != key.key_type().as_str()
        || public.trim_end_matches('=') != key.public_key().trim_end_matches('=')
    {
        "another key stands there"
    } else {
        return Published::Right;
    };
    Published::Other(problem.into())
}

/// A record for a person to read, without control characters and not too long.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(judge: impl Fn(&[RecordData]) -> Published, texts: &[&str], expected: &str) {
        let txt = |text: &&str| RecordData::Txt(text.as_bytes().into());
        let found = match judge(&texts.iter().map(txt).collect::<Vec<_>>()) {
            Published::Right => "right".into(),
            Published::Absent => "absent".into(),
            Published::Other(what) => format!("other: {what}"),
            Published::Unusable(why) => format!("unusable: {why}"),
        };
        assert_eq!(found, expected, "{texts:?}");
    }

    #[test]
    fn spf_records() {
        let spf = |records: &[RecordData]| spf(records, "v=spf1 a:mx.test ~all");
        check(spf, &["v=spf1 a:mx.test ~all", "verification=1"], "right");
        check(spf, &["verification=1"], "absent");
        check(spf, &[], "absent");
        check(spf, &["v=spf1 mx -all"], "other: v=spf1 mx -all");
        check(spf, &["v=spf1 m -all"], "unusable: the term \"m\" is invalid");
        check(spf, &["v=spf1 a -all", "v=spf1 -all"], "unusable: there are several SPF records");
    }

    #[test]
    fn dkim_keys_are_compared_by_key() {
        for key_type in KeyType::ALL {
            let key = |_| {
                let der = SigningKey::generate(key_type).expect("generates");
                SigningKey::from_pkcs8(key_type, &der).expect("reads")
            };
            let (ours, other) = (key(1), key(2));
            let judge = |records: &[RecordData]| dkim(records, &ours);
            let (k, p) = (key_type.as_str(), ours.public_key());
            let (start, end) = p.split_at(20);
            check(judge, &[&ours.record()], "right");
            check(judge, &[&format!("k={k};t=s; p={start} {end} ; n=ours"), "unrelated"], "right");
            check(judge, &[&format!("v=DKIM1; h=sha1:sha256; k={k}; s=email; p={p};")], "right");
            check(judge, &[&other.record()], "other: another key stands there");
            check(judge, &[&format!("v=DKIM1; k={k}; p=")], "other: the key is revoked");
            let limited = "unusable: the key does not allow SHA-256";
            check(judge, &[&format!("v=DKIM1; k={k}; h=sha1; p={p}")], limited);
            check(judge, &["v=spf1 -all"], "absent");
            let several = "unusable: there are several keys under one selector";
            check(judge, &[&ours.record(), &other.record()], several);
            check(judge, &["v=DKIM1; k=rsa; p=!"], "unusable: the key record cannot be read");
        }
    }

    #[test]
    fn policies() {
        check(dmarc, &["v=DMARC1; p=quarantine; rua=mailto:a@b.test"], "right");
        check(dmarc, &["v=DMARC1; p=reject", "x"], "right");
        check(dmarc, &["v=DMARC1; p=none"], "other: v=DMARC1; p=none");
        check(dmarc, &["v=spf1 -all"], "absent");
        let unreadable = "unusable: its policy cannot be read";
        check(dmarc, &["v=DMARC1; p=rejected; rua=mailto:a@b.test"], unreadable);
        check(dmarc, &["v=DMARC1; p=reject; adkim=relaxed"], "right");
        check(dmarc, &["v=dmarc1; p=reject"], "absent");
        let several = "unusable: there are several DMARC records";
        check(dmarc, &["v=DMARC1; p=reject", "v=DMARC1; p=reject"], several);
        check(tls_reporting, &["v=TLSRPTv1; rua=mailto:a@b.test"], "right");
        check(tls_reporting, &["v=TLSRPTv2; rua=mailto:a@b.test"], "absent");
        check(mta_sts, &["v=STSv1; id=1"], "right");
        check(mta_sts, &["v=STSv2; id=1"], "absent");
        let several = "unusable: there are several MTA-STS records";
        check(mta_sts, &["v=STSv1; id=1", "v=STSv1; id=2"], several);
    }
}
