//! Fields that pass for ours though we did not write them: results of checks (RFC 8601 §5), and what
//! only a mailbox's own server says of a message.

use std::ops::Range;

use memchr::memchr;

use crate::mail::{
    DELIVERED_TO, DeliveryMarks, Domain, FieldLines, MARKED_DELIVERED_TO, delivered_to_whom,
    domains_within, hidden_names,
};

const RESULTS: &str = "Authentication-Results";
/// Names of our fields that say nothing of who wrote them, so that any from outside passes for ours.
const OURS: [&str; 3] = ["Received-SPF", "X-MS-Journal-Report", "X-WM-Journal-Report"];
/// How the names of all verdicts begin (guide 4405).
const VERDICTS: &[u8] = b"x-ses-";
/// Comments within comments that are followed; real fields have one or two.
const MAX_NESTING: usize = 16;

/// By what we know what is ours.
pub struct Ours<'a> {
    /// Our name in results.
    pub authserv_id: &'a str,
    /// Whether a domain's mailboxes are here.
    pub is_local: &'a dyn Fn(&Domain) -> bool,
    /// How we mark what mailboxes here send on.
    pub marks: &'a DeliveryMarks,
}

/// Where the fields stand that carry our own authserv-id, a name of ours, or a mailbox of ours that
/// the message is said to have been in, though we did not write them: whole fields with their line
/// ends, in the order of the header.
pub fn forged_fields(message: &[u8], ours: &Ours<'_>) -> Vec<Range<usize>> {
    let mut forged = Vec::new();
    let mut passages = Passages::default();
    for (name, range) in FieldLines::new(message) {
        let field = message.get(range.clone()).unwrap_or_default();
        if is_forged(name, field, ours) {
            forged.push(range);
        } else if is_called(name, DELIVERED_TO) {
            passages.claim(field, range, ours);
        } else if is_called(name, MARKED_DELIVERED_TO) {
            passages.mark(field);
        }
    }
    passages.add_forged(&mut forged);
    forged
}

fn is_forged(name: &[u8], field: &[u8], ours: &Ours<'_>) -> bool {
    if is_ours(name) {
        return true;
    }
    if is_called(name, RESULTS) {
        let value = memchr(b':', field).and_then(|colon| field.get(colon + 1..));
        return claims(value.unwrap_or_default(), ours.authserv_id);
    }
    if is_called(name, MARKED_DELIVERED_TO) {
        return names_a_mailbox_here(field, ours) && !ours.marks.is_ours(field);
    }
    // A line that some reader takes for a field.
    hidden_names(name, field).any(|name| {
        is_ours(name)
            || is_called(name, RESULTS) && contains(field, ours.authserv_id)
            || is_called(name, DELIVERED_TO)
            || is_called(name, MARKED_DELIVERED_TO)
    })
}

/// The mailboxes here that a message is said to have been in, in `Delivered-To`, and those for which
/// a mark of ours says the same, wherever it stands.
#[derive(Default)]
struct Passages {
    /// With the mailbox, where it can be read.
    claimed: Vec<(Range<usize>, Option<String>)>,
    marked: Vec<String>,
}

impl Passages {
    fn claim(&mut self, field: &[u8], range: Range<usize>, ours: &Ours<'_>) {
        if names_a_mailbox_here(field, ours) {
            self.claimed.push((range, delivered_to_whom(field).map(|mailbox| mailbox.key())));
        }
    }

    fn mark(&mut self, field: &[u8]) {
        self.marked.extend(delivered_to_whom(field).map(|mailbox| mailbox.key()));
    }

    fn add_forged(self, forged: &mut Vec<Range<usize>>) {
        let Self { claimed, marked } = self;
        if claimed.is_empty() {
            return;
        }
        for (range, mailbox) in claimed {
            if mailbox.is_none_or(|mailbox| !marked.contains(&mailbox)) {
                forged.push(range);
            }
        }
        forged.sort_unstable_by_key(|range| range.start);
    }
}

/// Whether a field names somebody in a domain here; one that is not written as usual does if any
/// reader may find such a domain in it.
fn names_a_mailbox_here(field: &[u8], ours: &Ours<'_>) -> bool {
    if let Some(mailbox) = delivered_to_whom(field) {
        return (ours.is_local)(mailbox.domain());
    }
    let is_here = |name: &String| Domain::parse(name).is_ok_and(|domain| (ours.is_local)(&domain));
    domains_within(field).iter().any(is_here)
}

/// Whether it is the name of a field that only we write.
fn is_ours(name: &[u8]) -> bool {
    let start = name.get(..VERDICTS.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(VERDICTS))
        || OURS.iter().any(|ours| is_called(name, ours))
}

fn is_called(name: &[u8], wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

/// Whether a field's value names us. One that cannot be read is ours if it has our name in it:
/// a careless reader may find it there.
fn claims(value: &[u8], authserv_id: &str) -> bool {
    match read_authserv_id(value) {
        Some(id) => is_same(&id, authserv_id),
        None => contains(value, authserv_id),
    }
}

fn contains(text: &[u8], authserv_id: &str) -> bool {
    String::from_utf8_lossy(text).to_lowercase().contains(&authserv_id.to_lowercase())
}

fn is_same(id: &str, authserv_id: &str) -> bool {
    let id = id.trim_end_matches('.');
    match (Domain::parse(id), Domain::parse(authserv_id)) {
        (Ok(id), Ok(ours)) => id == ours,
        _ => id.eq_ignore_ascii_case(authserv_id),
    }
}

/// RFC 8601 §2.2: `[CFWS] authserv-id`, a token or a quoted-string, then a version, a semicolon
/// or nothing. `None` if that is not what stands there.
fn read_authserv_id(value: &[u8]) -> Option<String> {
    let rest = skip_cfws(value)?;
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        return unquoted(quoted);
    }
    let is_end = |octet: &u8| octet.is_ascii_whitespace() || matches!(octet, b';' | b'(' | b'"');
    let end = rest.iter().position(is_end).unwrap_or(rest.len());
    let id = rest.get(..end).filter(|id| !id.is_empty())?;
    // A comment or a quote glued to the name, as in `mx.exam(x)ple`, is not a name any more, but
    // a lenient reader may put the parts together.
    let glued = matches!(rest.get(end), Some(b'"')) || glued_comment(rest.get(end..)?);
    let id = String::from_utf8_lossy(id);
    (!glued && id.chars().all(is_token)).then(|| id.into_owned())
}

/// RFC 2045 §5.1, and letters for an internationalized name. Anything else, a form feed or a
/// no-break space say, is white space to some readers and so hides a name from others.
fn is_token(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_graphic() && !r#"()<>@,;:\"/[]?="#.contains(c),
        false => c.is_alphanumeric(),
    }
}

fn glued_comment(rest: &[u8]) -> bool {
    rest.starts_with(b"(")
        && skip_cfws(rest)
            .and_then(|after| after.first())
            .is_none_or(|next| !next.is_ascii_digit() && *next != b';')
}

fn unquoted(quoted: &[u8]) -> Option<String> {
    let mut id = Vec::new();
    let mut octets = quoted.iter();
    loop {
        match octets.next()? {
            b'"' => return Some(String::from_utf8_lossy(&id).trim().to_owned()),
            b'\\' => id.push(*octets.next()?),
            b'\r' | b'\n' => {}
            octet => id.push(*octet),
        }
    }
}

/// What follows white space and comments (RFC 5322 §3.2.2); `None` if a comment does not end.
fn skip_cfws(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = rest.trim_ascii_start();
        match rest.strip_prefix(b"(") {
            Some(comment) => rest = after_comment(comment)?,
            None => return Some(rest),
        }
    }
}

fn after_comment(comment: &[u8]) -> Option<&[u8]> {
    let mut depth = 1;
    let mut octets = comment.iter();
    while depth > 0 {
        match octets.next()? {
            b'\\' => {
                octets.next()?;
            }
            b'(' if depth == MAX_NESTING => return None,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
    }
    Some(octets.as_slice())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    use crate::mail::{Address, take_out};

    const HOSTNAME: &str = "mx.example.test";

    fn marks() -> DeliveryMarks {
        DeliveryMarks::new(&[7; 32])
    }

    fn forged_fields(message: &[u8]) -> Vec<Range<usize>> {
        let is_local = |domain: &Domain| domain.as_str() == "example.test";
        let ours = Ours { authserv_id: HOSTNAME, is_local: &is_local, marks: &marks() };
        super::forged_fields(message, &ours)
    }

    /// The message without its forged fields.
    fn strip_forged_fields(message: &[u8]) -> Vec<u8> {
        let mut kept = message.to_vec();
        take_out(&forged_fields(message), &mut kept);
        kept
    }

    fn check(value: &str, forged: bool) {
        let field = format!("Authentication-Results:{value}\r\n");
        let message = format!("From: a@b.test\r\n{field}To: c@d.test\r\n\r\n{field}");
        let stripped = strip_forged_fields(message.as_bytes());
        let expected = if forged { message.replacen(&field, "", 1) } else { message.clone() };
        assert_eq!(String::from_utf8_lossy(&stripped), expected, "{value:?}");
    }

    #[test]
    fn fields_with_our_name_go_in_every_spelling() {
        for value in [
            " mx.example.test; spf=pass",
            "mx.example.test",
            " MX.Example.TEST ; dmarc=pass",
            " mx.example.test.; spf=pass",
            " mx.example.test 1; spf=pass",
            " \"mx.example.test\"; spf=pass",
            " \"mx.\\example.test\" 1; spf=pass",
            " (a (nested) \\) comment) mx.example.test (v) 1 (x); spf=pass",
            "\r\n mx.example.test;\r\n\tspf=pass",
            "\r\n (comment\r\n over lines)\r\n mx.example.test;\r\n spf=pass",
            " mx.example(glued).test; x=mx.example.test",
            " \u{b}mx.example.test; spf=pass",
            " mx.example.test\u{c}; spf=pass",
            " \u{a0}mx.example.test; spf=pass",
            " mx.example.test, spf=pass",
            " \u{1}\"mx.example.test\"; spf=pass",
            " (mx.example.test; spf=pass",
            " \"mx.example.test; spf=pass",
        ] {
            check(value, true);
        }
    }

    #[test]
    fn fields_of_others_stay() {
        for value in [
            " other.test; spf=pass smtp.mailfrom=mx.example.test",
            " notmx.example.test; spf=pass",
            " mx.example.test.evil.test; spf=pass",
            " (mx.example.test) other.test; spf=pass",
            " \"other.test\"; x=\"mx.example.test\"",
            "",
            " ;",
            " (unreadable",
        ] {
            check(value, false);
        }
    }

    #[test]
    fn the_field_name_is_read_in_any_case_and_with_space_before_the_colon() {
        let message = b"AUTHENTICATION-RESULTS : mx.example.test; spf=pass\r\n\r\n";
        assert_eq!(strip_forged_fields(message), b"\r\n");
        let other = b"ARC-Authentication-Results: i=1; mx.example.test; spf=pass\r\n\r\n";
        assert_eq!(strip_forged_fields(other), other);
    }

    /// What continues a line that is no field is a field to some readers, mail-parser among them.
    #[test]
    fn a_line_without_colon_does_not_hide_the_field_below_it() {
        let kept = "From: a@b.test\r\n";
        for hidden in [
            "nonsense\r\n Authentication-Results: mx.example.test; spf=pass\r\n",
            "x\r\n :y\r\n Authentication-Results: mx.example.test\r\n",
            "x y: z\r\n Authentication-Results: mx.example.test\r\n",
            "nonsense\r\n\t more\r\n \tauthentication-results :mx.example.test\r\n",
        ] {
            let message = format!("{kept}{hidden}\r\n");
            let stripped = strip_forged_fields(message.as_bytes());
            assert_eq!(String::from_utf8_lossy(&stripped), format!("{kept}\r\n"));
        }
        let value = b"X: y\r\n Authentication-Results: mx.example.test\r\n\r\n";
        assert_eq!(strip_forged_fields(value), value);
    }

    #[test]
    fn what_only_we_say_of_a_message_goes_from_whoever_says_it() {
        for name in [
            "X-SES-Spam-Verdict",
            "x-ses-virus-verdict",
            "X-SES-Anything ",
            "RECEIVED-SPF",
            "X-MS-Journal-Report",
            "X-WM-Journal-Report",
            "x\r\n X-Ses-Spam-Verdict",
            "x\r\n\treceived-spf ",
            "no name: x\r\n X-WM-Journal-Report",
        ] {
            let message =
                format!("From: a@b.test\r\n{name}: PASS\r\n\tmore\r\nTo: c@d.test\r\n\r\n");
            let stripped = strip_forged_fields(message.as_bytes());
            assert_eq!(stripped, b"From: a@b.test\r\nTo: c@d.test\r\n\r\n", "{name}");
        }
        for name in
            ["X-SES", "X-Sesame", "Y-SES-Spam-Verdict", "X-Received-SPF", "Y: z\r\n X-SES-A"]
        {
            let message = format!("{name}: PASS\r\n\r\nX-SES-Spam-Verdict: PASS\r\n");
            let stripped = strip_forged_fields(message.as_bytes());
            assert_eq!(String::from_utf8_lossy(&stripped), message);
        }
    }

    #[test]
    fn who_was_delivered_to_here_has_our_mark() {
        let alice = Address::parse("Alice@example.test").expect("an address");
        let marked = marks().fields(&alice);
        let (own, mark) = marked.split_at(marked.find("X-").expect("two fields"));
        let check = |front: &str, kept: &str| {
            let message = |fields: &str| format!("A: b\r\n{fields}C: d\r\n\r\n{own}");
            let stripped = strip_forged_fields(message(front).as_bytes());
            assert_eq!(String::from_utf8_lossy(&stripped), message(kept), "{front}");
        };
        check(&marked, &marked);
        check(&format!("{mark}{own}"), &format!("{mark}{own}"));
        check(mark, mark);
        check(own, "");
        let others = "Delivered-To: bob@other.test\r\nDelivered-To: nobody\r\n";
        check(others, others);
        check(&format!("{own}{others}{mark}"), &format!("{own}{others}{mark}"));
        // The mark of another Mailweir is for that one.
        let foreign = "X-Mailweir-Delivered-To: bob@other.test; mark=aaaaaaaa\r\n";
        check(foreign, foreign);
        for forged in [
            "Delivered-To: bob@example.test\r\n",
            "DELIVERED-TO :\r\n <alice@Example.Test>\r\n",
            "Delivered-To: Alice <alice@example.test>\r\n",
            "Delivered-To: alice@ example . test (here)\r\n",
            "Delivered-To: a@other.test, alice@example.test\r\n",
            "X-Mailweir-Delivered-To: bob@example.test\r\n",
            "X-Mailweir-Delivered-To: bob@example.test; mark=aaaaaaaa\r\n",
            "x-mailweir-delivered-to: <bob@example.test\r\n",
            "x\r\n Delivered-To: alice@example.test\r\n",
            "x\r\n X-Mailweir-Delivered-To: alice@example.test\r\n",
        ] {
            check(forged, "");
            check(&format!("{forged}X-SES-A: b\r\n{forged}"), "");
            let with_alices = format!("{forged}{marked}");
            let kept = if forged.contains("<alice@Example") { &with_alices } else { &marked };
            check(&with_alices, kept);
        }
    }

    proptest! {
        #[test]
        fn what_is_stripped_is_whole_fields_and_the_body_stays(message: Vec<u8>) {
            let stripped = strip_forged_fields(&message);
            prop_assert!(stripped.len() <= message.len());
            prop_assert!(forged_fields(&stripped).is_empty());
        }

        #[test]
        fn a_readable_claim_is_always_found(comment in "[a-z ]{0,20}", rest in "[ -~]{0,40}") {
            let field = format!("Authentication-Results: ({comment}) {HOSTNAME}; {rest}\r\n");
            prop_assert_eq!(strip_forged_fields(field.as_bytes()), b"");
        }
    }
}
