//! What to write instead of what stands in a file: asked for only where something is wrong.

use std::collections::BTreeSet;

/// The files that show every key, which tests hold them to.
const MAIN_FILE: &str = include_str!("../../config/mailweir.toml");
const ORGANIZATION_FILE: &str = include_str!("../../config/example-org.toml");

/// A key and where it belongs.
#[derive(Debug, PartialEq, Eq)]
struct KnownKey {
    key: &'static str,
    /// As a file has it, with its brackets; empty before the first section.
    header: &'static str,
    is_of_organization: bool,
}

/// What somebody may have meant who wrote a key that is none here: one of those that this section
/// asks for, or one of another section or file.
pub(super) fn unknown_key(key: &str, asked: &BTreeSet<&'static str>) -> String {
    if let Some(known) = nearest(key, asked.iter().copied()) {
        return format!(", did you mean \"{known}\"?");
    }
    let is_organization = asked.contains("domains") || !is_section_of_main(asked);
    let known = known_keys();
    let mut places: Vec<String> = Vec::new();
    for candidate in known.iter().filter(|candidate| folded(candidate.key) == folded(key)) {
        let file = match (is_organization, candidate.is_of_organization) {
            (true, false) => " of the main file",
            (false, true) => " of an organization's file",
            (true, true) | (false, false) => "",
        };
        let place = match candidate.header {
            "" => format!("before the first [section]{file}"),
            header => format!("under {header}{file}"),
        };
        let place = match candidate.key == key {
            true => place,
            false => format!("{place} as \"{}\"", candidate.key),
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    match places.as_slice() {
        [] => section_of_its_own(key, is_organization, &known).unwrap_or_default(),
        places => format!("; it belongs {}", places.join(" or ")),
    }
}

/// What is said of a key that is the name of a section, there or in the other file, and of one that
/// no file may have.
fn section_of_its_own(key: &str, is_organization: bool, known: &[KnownKey]) -> Option<String> {
    if key == "password" {
        return Some("; no file has passwords: mailweir user set-password NAME".to_owned());
    }
    let is_meant = |header: &str| folded(header.trim_matches(['[', ']'])) == folded(key);
    let mut headers = known.iter().filter(|known| !known.header.is_empty());
    let KnownKey { header, is_of_organization, .. } =
        headers.find(|known| is_meant(known.header))?;
    Some(match (is_organization, is_of_organization) {
        (true, true) | (false, false) => format!("; it is a section of its own: {header}"),
        (false, true) => format!("; it is a section of an organization's file: {header}"),
        (true, false) => format!("; it is a section of the main file: {header}"),
    })
}

/// Whether the keys of a section are those of one of the main file.
fn is_section_of_main(asked: &BTreeSet<&'static str>) -> bool {
    let known = known_keys();
    let has = |key: &&str, is_of_organization| {
        known
            .iter()
            .any(|known| known.key == *key && known.is_of_organization == is_of_organization)
    };
    let in_main = asked.iter().filter(|key| has(key, false)).count();
    let in_organization = asked.iter().filter(|key| has(key, true)).count();
    in_main > in_organization || asked.contains("hostname")
}

/// The known word that a mistyped one is closest to, if it is close at all: other letters or signs
/// between words, a unit left out, or a slip of the keyboard.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = folded(word);
    let most = if wanted.len() < 6 { 1 } else { 2 };
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let has_unit = candidate.strip_prefix(word).is_some_and(|rest| rest.starts_with('_'));
        let distance = match has_unit {
            true => 1,
            false => strsim::damerau_levenshtein(&wanted, &folded(candidate)),
        };
        if distance <= most && best.is_none_or(|(known, _)| distance < known) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// What else people call some values, in other mail servers and in other words: each with what it is
/// here, of which a key knows one at most.
const OTHER_WORDS: &[(&str, &[&str])] = &[
    ("smtps", &["submissions"]),
    ("ssmtp", &["submissions"]),
    ("msa", &["submission"]),
    ("smtp", &["mx"]),
    ("esmtp", &["mx"]),
    ("mta", &["mx"]),
    ("spamassassin", &["spamd"]),
    ("spamc", &["spamd"]),
    ("ssl", &["implicit"]),
    ("tls", &["starttls"]),
    ("may", &["opportunistic"]),
    ("encrypt", &["starttls"]),
    ("wrapper", &["implicit"]),
    ("delete", &["DROP", "DELETE"]),
    ("discard", &["DROP", "drop", "DELETE"]),
    ("reject", &["BOUNCE", "DENY", "reject"]),
    ("bounce", &["reject"]),
    ("refuse", &["BOUNCE", "reject", "DENY"]),
    ("block", &["BOUNCE", "DENY"]),
    ("junk", &["MOVE_TO_JUNK", "JUNK_EMAIL"]),
    ("spam", &["MOVE_TO_JUNK", "JUNK_EMAIL"]),
    ("quarantine", &["MOVE_TO_JUNK"]),
    ("neverjunk", &["BYPASS_SPAM_CHECK"]),
    ("allowlist", &["BYPASS_SPAM_CHECK"]),
    ("whitelist", &["BYPASS_SPAM_CHECK"]),
    ("deliver", &["DEFAULT"]),
    ("relay", &["ROUTE_TO_SMTP_GATEWAY"]),
    ("gateway", &["ROUTE_TO_SMTP_GATEWAY"]),
    ("route", &["ROUTE_TO_SMTP_GATEWAY"]),
    ("accept", &["ALLOW", "DEFAULT"]),
    ("permit", &["ALLOW"]),
    ("trash", &["DELETED_ITEMS"]),
    ("deleted", &["DELETED_ITEMS"]),
    ("sent", &["SENT_ITEMS"]),
    ("from", &["sender"]),
    ("to", &["recipient"]),
    ("ipv4", &["ipv4-first"]),
    ("ipv6", &["ipv6-first"]),
    ("verbose", &["debug"]),
    ("warning", &["warn"]),
    ("fatal", &["error"]),
    ("critical", &["error"]),
    ("notice", &["info"]),
    ("quiet", &["off"]),
    ("plain", &["text"]),
];

/// What may be meant by a value that is none of those that a key has, as the end of what is said
/// of it; empty if nobody can tell.
pub(super) fn value<'a>(text: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let wanted = folded(text);
    let other = OTHER_WORDS.iter().find(|(word, _)| *word == wanted);
    let here = other.and_then(|(_, here)| known.clone().find(|known| here.contains(known)));
    let same = known.clone().find(|known| folded(known) == wanted);
    let meant = same.or(here).or_else(|| nearest(text, known));
    meant.map(|known| format!(", did you mean \"{known}\"?")).unwrap_or_default()
}

/// Who may be meant by the name of a member that there is not: members are named, not addressed.
pub(super) fn member<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let local_part = name.split_once('@').map_or(name, |(local_part, _)| local_part);
    match nearest(local_part, names) {
        Some(known) => format!(", did you mean \"{known}\"?"),
        None if name.contains('@') => "; members have names here, not addresses".to_owned(),
        None => String::new(),
    }
}

/// A key without what people write in other ways.
fn folded(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).collect::<String>().to_lowercase()
}

/// Every key of both files.
fn known_keys() -> Vec<KnownKey> {
    let mut known = Vec::new();
    for (text, is_of_organization) in [(MAIN_FILE, false), (ORGANIZATION_FILE, true)] {
        let mut header = "";
        for line in text.lines() {
            // A key without a default is commented out, without a space.
            let line = line.strip_prefix('#').unwrap_or(line);
            let Some((key, _)) = line.split_once(" = ") else {
                let written = line.split_once(" #").map_or(line, |(written, _)| written).trim();
                if written.starts_with('[') && written.ends_with(']') {
                    header = written;
                }
                continue;
            };
            if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                known.push(KnownKey { key, header, is_of_organization });
            }
        }
    }
    known
}

/// What is meant by a line that is no TOML.
pub(super) fn syntax(line: &str) -> Option<String> {
    let line = line.trim();
    if line.contains(['“', '”', '„', '‘', '’', '«', '»']) {
        return Some("quotes are \" or ', not typographic ones".to_owned());
    }
    let Some((key, value)) = line.split_once('=') else { return without_equals_sign(line) };
    let key = key.trim();
    let value = value.trim_start();
    let is_key = !key.is_empty() && key.bytes().all(|byte| is_of_bare_key(byte) || byte == b'.');
    if !is_key {
        return Some("a key has letters, digits, - and _ alone".to_owned());
    }
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote {
        let is_open = value.matches(quote).count() % 2 == 1;
        return is_open.then(|| format!("the text lacks the {quote} at its end"));
    }
    if value.starts_with(['[', '{']) {
        return Some("a list is [\"…\", \"…\"], with its texts in quotes".to_owned());
    }
    let bare = value.split(" #").next().unwrap_or(value).trim_end();
    let digits = bare.bytes().take_while(u8::is_ascii_digit).count();
    let has_unit = digits > 0 && bare.bytes().skip(digits).all(|byte| byte.is_ascii_alphabetic());
    match bare.to_lowercase().as_str() {
        _ if has_unit => Some("a number stands without a unit, and a text in quotes".to_owned()),
        "" => Some("the value is missing".to_owned()),
        "yes" | "on" | "true" => Some(format!("write {key} = true")),
        "no" | "off" | "false" => Some(format!("write {key} = false")),
        _ => Some(format!("a text stands in quotes: {key} = {}", quoted(bare))),
    }
}

fn without_equals_sign(line: &str) -> Option<String> {
    if line.starts_with('[') {
        let hint = "a section's name stands alone on its line: [name], or [[name]] where there may \
                    be several";
        return Some(hint.to_owned());
    }
    if let Some((key, value)) = line.split_once(':') {
        let key = key.trim();
        if !key.is_empty() && key.bytes().all(is_of_bare_key) {
            let value = value.trim().trim_matches(['"', '\'']);
            return Some(format!("a line is KEY = VALUE: {key} = {}", quoted(value)));
        }
    }
    Some("a line is KEY = VALUE, a [section], or begins with #".to_owned())
}

fn is_of_bare_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_another_word() {
        let known = ["hostname", "data_dir", "quota_mb", "bind", "errors", "message_bytes"];
        for (word, expected) in [
            ("hostnam", Some("hostname")),
            ("host_name", Some("hostname")),
            ("Hostname", Some("hostname")),
            ("data-dir", Some("data_dir")),
            ("dataDir", Some("data_dir")),
            ("quota", Some("quota_mb")),
            ("message", Some("message_bytes")),
            ("bnid", Some("bind")),
            ("error", Some("errors")),
            ("port", None),
            ("colour", None),
            ("band_width", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), expected, "{word}");
        }
    }

    #[test]
    fn what_others_call_a_value_is_known() {
        let check = |text: &str, known: &[&str], expected: &str| {
            let hint = match expected {
                "" => String::new(),
                meant => format!(", did you mean \"{meant}\"?"),
            };
            assert_eq!(value(text, known.iter().copied()), hint, "{text}");
        };
        let protocols = ["mx", "submission", "submissions"];
        check("smtps", &protocols, "submissions");
        check("SMTP", &protocols, "mx");
        check("submision", &protocols, "submission");
        check("http", &protocols, "");
        check("spamassassin", &["rspamd", "spamd"], "spamd");
        check("SpamAssassin", &["rspamd", "spamd"], "spamd");
        check("clamav", &["rspamd", "spamd"], "");
        check("tls", &["starttls", "implicit"], "starttls");
        check("ssl", &["starttls", "implicit"], "implicit");
        check("DELETE", &["DROP", "BOUNCE"], "DROP");
        check("delete", &["NONE", "DELETE", "PERMANENTLY_DELETE"], "DELETE");
        check("spam", &["INBOX", "JUNK_EMAIL"], "JUNK_EMAIL");
        check("junk", &["DROP", "MOVE_TO_JUNK"], "MOVE_TO_JUNK");
        check("Drop", &["reject", "drop"], "drop");
        check("reject", &["ALLOW", "DENY"], "DENY");
        check("warning", &["error", "warn"], "warn");
    }

    #[test]
    fn a_key_in_the_wrong_place_is_told_where_it_belongs() {
        let main = BTreeSet::from(["hostname", "data_dir", "limits", "listener"]);
        let limits = BTreeSet::from(["recipients", "errors", "hops"]);
        let organization = BTreeSet::from(["alias", "domains", "user", "group"]);
        let user = BTreeSet::from(["name", "email", "aliases", "enabled", "remote", "quota_mb"]);
        for (key, asked, expected) in [
            ("header_bytes", &main, "; it belongs under [limits]"),
            (
                "ca_file",
                &main,
                "; it belongs under [queue] or under [[queue_route]] or under [[smtp_gateway]] of an organization's file",
            ),
            ("domains", &main, "; it belongs before the first [section] of an organization's file"),
            ("hostname", &limits, "; it belongs before the first [section]"),
            ("bind", &limits, "; it belongs under [[listener]]"),
            ("data_dir", &organization, "; it belongs before the first [section] of the main file"),
            ("journaling_address", &user, "; it belongs under [journaling]"),
            (
                "journalingAddress",
                &user,
                "; it belongs under [journaling] as \"journaling_address\"",
            ),
            ("members", &user, "; it belongs under [[group]]"),
            ("password", &user, "; no file has passwords: mailweir user set-password NAME"),
            ("limits", &user, "; it is a section of the main file: [limits]"),
            ("access-rule", &user, "; it is a section of its own: [[access_rule]]"),
            (
                "access_rule",
                &limits,
                "; it is a section of an organization's file: [[access_rule]]",
            ),
            ("colour", &user, ""),
        ] {
            assert_eq!(unknown_key(key, asked), expected, "{key}");
        }
    }

    #[test]
    fn what_is_no_toml_is_told_how_to_be() {
        for (line, expected) in [
            (
                "hostname = mx.example.test",
                "a text stands in quotes: hostname = \"mx.example.test\"",
            ),
            ("bind = 127.0.0.1:25 # here", "a text stands in quotes: bind = \"127.0.0.1:25\""),
            ("\tperiod = 30d", "a number stands without a unit, and a text in quotes"),
            ("enabled = yes", "write enabled = true"),
            ("enabled = False", "write enabled = false"),
            ("hostname: mx.test", "a line is KEY = VALUE: hostname = \"mx.test\""),
            ("hostname mx.test", "a line is KEY = VALUE, a [section], or begins with #"),
            ("hostname = \"mx.test", "the text lacks the \" at its end"),
            ("hostname = “mx.test”", "quotes are \" or ', not typographic ones"),
            ("hostname =", "the value is missing"),
            ("host name = 1", "a key has letters, digits, - and _ alone"),
            ("domains = [example.test]", "a list is [\"…\", \"…\"], with its texts in quotes"),
            (
                "[limits",
                "a section's name stands alone on its line: [name], or [[name]] where there may be several",
            ),
        ] {
            assert_eq!(syntax(line).as_deref(), Some(expected), "{line}");
        }
    }
}
