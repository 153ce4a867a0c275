//! The DNS records that a domain needs for its mail, pure, and as a zone file has them.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use serde::Serialize;

use super::keys::{ManagedKey, Stage};
use super::names::{DMARC, MAIL_FROM, MTA_STS, TLS_REPORTING, mail_from};
use super::today::{Proposal, Today};
use crate::mail::Domain;
use crate::msgauth::{KeyType, published};

/// Seconds for which a record may be kept (guide 4661).
const TTL: u32 = 3600;
/// Octets of a character-string in a TXT record (RFC 1035 §3.3).
const MAX_STRING: usize = 255;
/// Seconds for which a sender keeps the MTA-STS policy: a week (RFC 8461 §3.2 suggests weeks).
pub const MTA_STS_MAX_AGE: u32 = 604_800;

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Purpose {
    /// Mail comes to us.
    Mx,
    /// Mail from our host counts as the domain's (RFC 7208).
    Spf,
    /// Our host may call itself by its name, which is all that SPF has to look at where the
    /// envelope has no sender: of reports and journal records (RFC 7208 §2.4).
    HeloSpf,
    /// Our signatures count as the domain's (RFC 6376).
    Dkim,
    /// What becomes of mail that is neither, and who is told (RFC 9989).
    Dmarc,
    /// Others report trouble with TLS (RFC 8460).
    TlsRpt,
    /// Others insist on TLS (RFC 8461).
    MtaSts,
    /// Bounces of a custom MAIL FROM domain come to us (guide 5235).
    MailFromMx,
    /// Our host may use the custom MAIL FROM domain (guide 5235).
    MailFromSpf,
}

impl Purpose {
    /// Its name in text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mx => "MX",
            Self::Spf => "SPF",
            Self::HeloSpf => "HELO SPF",
            Self::Dkim => "DKIM",
            Self::Dmarc => "DMARC",
            Self::TlsRpt => "TLSRPT",
            Self::MtaSts => "MTA-STS",
            Self::MailFromMx => "MAIL FROM MX",
            Self::MailFromSpf => "MAIL FROM SPF",
        }
    }
}

/// A record to publish. The names in JSON are those of WorkMail's `DnsRecord`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DnsRecord {
    /// What it is for.
    pub purpose: Purpose,
    /// `MX` or `TXT`.
    pub r#type: &'static str,
    /// Where it stands, without a trailing dot.
    pub hostname: String,
    /// For MX the preference and the host, for TXT the text in one piece.
    pub value: String,
    /// Whether mail suffers without it.
    pub required: bool,
    /// What to know before publishing it: what it takes the place of, and what is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl DnsRecord {
    fn txt(purpose: Purpose, hostname: String, value: impl Into<String>) -> Self {
        let value = value.into();
        Self { purpose, r#type: "TXT", hostname, value, required: true, notes: Vec::new() }
    }

    fn proposed(purpose: Purpose, hostname: String, proposal: Proposal) -> Self {
        let Proposal { value, notes } = proposal;
        Self { notes, ..Self::txt(purpose, hostname, value) }
    }

    fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    /// As one entry of a zone file (RFC 1035 §5.1).
    pub fn zone_line(&self) -> String {
        let data = match self.r#type {
            "TXT" => quoted(&self.value),
            _ => format!("{}.", self.value),
        };
        format!("{}. {TTL} IN {} {data}", self.hostname, self.r#type)
    }
}

/// A text in as many quoted strings as it needs; readers join them without a space.
fn quoted(text: &str) -> String {
    let mut strings = vec![String::new()];
    let mut length = 0;
    for c in text.chars() {
        if length + c.len_utf8() > MAX_STRING {
            strings.push(String::new());
            length = 0;
        }
        length += c.len_utf8();
        if let Some(string) = strings.last_mut() {
            string.extend(matches!(c, '"' | '\\').then_some('\\'));
            string.push(c);
        }
    }
    format!("\"{}\"", strings.join("\" \""))
}

/// The records of a domain whose mail `hostname` handles, or will: in the order in which to publish
/// them, the MX last, and merged with what DNS has `today`. DKIM has one for each key that is in
/// use or will be; the next ones are not required while others sign.
pub fn records(
    domain: &Domain,
    hostname: &str,
    keys: &[ManagedKey],
    today: &Today,
) -> Vec<DnsRecord> {
    let name = domain.to_string();
    let proposal = today.spf(&name, hostname, &spf(hostname));
    let mut records = vec![DnsRecord::proposed(Purpose::Spf, name.clone(), proposal)];
    if hostname != domain.as_str() {
        // Nobody else ever has this name, so nothing is lost by forbidding it to them.
        let only_itself = format!("v=spf1 a:{hostname} -all");
        let proposal = today.spf(hostname, hostname, &only_itself);
        records.push(DnsRecord::proposed(Purpose::HeloSpf, hostname.to_owned(), proposal));
    }
    for key in keys.iter().filter(|key| key.stage != Stage::Previous) {
        let record = DnsRecord::txt(Purpose::Dkim, key.record_name(domain), key.key.record());
        let is_spare = key.stage == Stage::Next && has_current(keys, key.key.key_type());
        records.push(if is_spare { record.optional() } else { record });
    }
    let policies = format!("{DMARC}.{domain}");
    let no_policy_yet = format!("v=DMARC1; p=none; rua=mailto:postmaster@{domain}");
    let proposal = today.dmarc(&policies, no_policy_yet);
    records.push(DnsRecord::proposed(Purpose::Dmarc, policies, proposal));
    records.extend(optional_records(domain, hostname, today));
    let mut last = mx(Purpose::Mx, name, hostname);
    last.notes.extend(today.mx_notes(hostname));
    records.push(last);
    records
}

/// What only some domains need.
fn optional_records(domain: &Domain, hostname: &str, today: &Today) -> Vec<DnsRecord> {
    let tls_reporting = format!("{TLS_REPORTING}.{domain}");
    let reports = format!("v=TLSRPTv1; rua=mailto:postmaster@{domain}");
    let reports = today.kept(&tls_reporting, b"v=TLSRPTv1", published::tls_reporting, reports);
    let mta_sts = format!("{MTA_STS}.{domain}");
    let ours = format!("v=STSv1; id={}", mta_sts_id(hostname));
    let policy = today.kept(&mta_sts, b"v=STSv1", published::mta_sts, ours.clone());
    let is_published = policy != ours;
    let notes = today.silence(&tls_reporting);
    let proposal = Proposal { value: reports, notes };
    let tls_reporting = DnsRecord::proposed(Purpose::TlsRpt, tls_reporting, proposal);
    let notes = today.silence(&mta_sts);
    let mut mta_sts =
        DnsRecord::proposed(Purpose::MtaSts, mta_sts, Proposal { value: policy, notes });
    if is_published {
        let why = "senders that know the policy which is served now go to no other host";
        let note = format!("warning: before the MX moves, have the policy name {hostname}: {why}");
        mta_sts.notes.push(note);
    }
    let bounces = mail_from(domain);
    let proposal = today.spf(&bounces, hostname, &spf(hostname));
    [
        tls_reporting,
        mta_sts,
        mx(Purpose::MailFromMx, bounces.clone(), hostname),
        DnsRecord::proposed(Purpose::MailFromSpf, bounces, proposal),
    ]
    .map(DnsRecord::optional)
    .into()
}

fn has_current(keys: &[ManagedKey], key_type: KeyType) -> bool {
    keys.iter().any(|key| key.stage == Stage::Current && key.key.key_type() == key_type)
}

fn mx(purpose: Purpose, name: String, hostname: &str) -> DnsRecord {
    let value = format!("10 {hostname}");
    let notes = Vec::new();
    DnsRecord { purpose, r#type: "MX", hostname: name, value, required: true, notes }
}

/// Softfail for all others, as the guide's SES does: fail would have some receivers refuse
/// forwarded mail before they look at its signatures (RFC 7489 §10.1).
fn spf(hostname: &str) -> String {
    format!("v=spf1 a:{hostname} ~all")
}

/// The policy to serve at `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` (RFC 8461 §3.2).
pub fn mta_sts_policy(hostname: &str) -> String {
    format!("version: STSv1\nmode: testing\nmx: {hostname}\nmax_age: {MTA_STS_MAX_AGE}\n")
}

/// Another id for another policy (RFC 8461 §3.1).
fn mta_sts_id(hostname: &str) -> String {
    let hash = digest::digest(&digest::SHA256, mta_sts_policy(hostname).as_bytes());
    hash.as_ref().iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}

/// Everything as a piece of a zone file, with comments. Records that only some need are comments
/// as well, and so is the MX while mail goes elsewhere, and whatever takes the place of what DNS did
/// not tell: nothing that is pasted as a whole moves the domain, or breaks what stands there.
pub fn zone_file(domain: &Domain, hostname: &str, keys: &[ManagedKey], today: &Today) -> String {
    let mut text = String::new();
    let mut last = None;
    for record in records(domain, hostname, keys, today) {
        if last.replace(record.purpose) != Some(record.purpose) {
            push_comment(&mut text, &comment(record.purpose, domain, hostname));
        }
        record.notes.iter().for_each(|note| push_comment(&mut text, note));
        let is_later = match record.purpose {
            Purpose::MailFromMx | Purpose::MailFromSpf => true,
            Purpose::Mx => today.may_move_mail(hostname),
            // The name of a key is nobody's but ours.
            Purpose::Dkim => false,
            Purpose::Spf
            | Purpose::HeloSpf
            | Purpose::Dmarc
            | Purpose::TlsRpt
            | Purpose::MtaSts => today.is_silent_on(&record.hostname),
        };
        let mark = if is_later { ";" } else { "" };
        push_line(&mut text, &format!("{mark}{}", record.zone_line()));
    }
    if keys.is_empty() {
        let missing = "DKIM: there are no keys yet; `mailweir domain keys";
        push_comment(&mut text, &format!("{missing} {domain}` makes them"));
    }
    for key in keys.iter().filter(|key| key.stage == Stage::Previous) {
        let name = key.record_name(domain);
        push_comment(&mut text, &format!("{name}. is not used any more: remove it after a week"));
    }
    text
}

fn push_line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes all");
}

fn push_comment(text: &mut String, comment: &str) {
    for line in comment.lines() {
        push_line(text, &format!("; {line}"));
    }
}

fn comment(purpose: Purpose, domain: &Domain, hostname: &str) -> String {
    match purpose {
        Purpose::Mx => format!(
            "MX, the last step, once `mailweir domain check {domain} --before-cutover` is content:\n\
             mail comes to {hostname}, in place of every other entry"
        ),
        Purpose::Spf => {
            "SPF: mail from that host is the domain's; add what else sends it, such as a gateway"
                .into()
        }
        Purpose::HeloSpf => {
            "HELO SPF: reports and journal records have no envelope sender, so this name stands for it"
                .into()
        }
        Purpose::Dkim => "DKIM: signatures by these keys are the domain's".into(),
        Purpose::Dmarc => {
            "DMARC: what becomes of mail that is neither, and where reports go; without a policy,\n\
             set p=quarantine once they show that all mail passes"
                .into()
        }
        Purpose::TlsRpt => "TLSRPT, optional: others report trouble with TLS".into(),
        Purpose::MtaSts => format!(
            "MTA-STS, optional: others insist on TLS, if \
             https://mta-sts.{domain}/.well-known/mta-sts.txt says:\n{}\
             once the reports show no trouble, set \"mode: enforce\" there and another id here",
            mta_sts_policy(hostname)
                .lines()
                .fold(String::new(), |out, line| out + "    " + line + "\n")
        ),
        Purpose::MailFromMx => format!(
            "MAIL FROM, optional: mail leaves with its author's own address as envelope sender, \
             so SPF is\naligned without it. For programs that send as bounces@{MAIL_FROM}.{domain}: \
             make that one of\nthe organization's domains, and uncomment"
        ),
        Purpose::MailFromSpf => String::new(),
    }
}
