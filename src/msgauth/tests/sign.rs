//! What we sign verifies, and stops to when it should.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// Made once: an RSA key takes a while.
static KEYS: LazyLock<[Vec<u8>; 2]> =
    LazyLock::new(|| KeyType::ALL.map(|key_type| SigningKey::generate(key_type).unwrap()));

fn keys() -> Vec<SelectedKey> {
    let read = |(key_type, der): (KeyType, &Vec<u8>)| SelectedKey {
        selector: format!("s{}", key_type.as_str()),
        key: SigningKey::from_pkcs8(key_type, der).unwrap(),
    };
    KeyType::ALL.into_iter().zip(&*KEYS).map(read).collect()
}

fn signer() -> Signer {
    Signer::new(Domain::parse("example.test").unwrap(), keys())
}

fn published() -> Dns {
    keys().iter().fold(Dns::default(), |dns, key| {
        dns.txt(&format!("{}._domainkey.example.test", key.selector), &key.key.record())
    })
}

fn sign(message: &str) -> String {
    signer().sign(&Turn::of_a_test(), &[message.as_bytes()], NOW).unwrap() + message
}

/// Both signatures' results.
async fn results(message: &str) -> Vec<DkimResult> {
    let found = published().authenticate(message).await.dkim;
    assert!(found.iter().all(|signature| signature.domain == "example.test"), "{found:?}");
    found.into_iter().map(|signature| signature.result).collect()
}

const BOTH: [DkimResult; 2] = [DkimResult::Pass, DkimResult::Pass];

#[tokio::test]
async fn both_signatures_of_any_message_verify() {
    let long = "a b ".repeat(20_000);
    for message in [
        MESSAGE,
        "From: a@example.test\r\n\r\n",
        "From: a@example.test\r\n\r\n\r\n\r\n",
        "From: a@example.test\r\n\r\nno line end",
        "From: a@example.test\r\n\r\nlines\r\n \t\r\n\r\n",
        "From: a@example.test\r\nSubject:\r\n folded\r\n\tand  \t folded\r\n\r\nx\r\n",
        "From: a@example.test\r\nTo: b\r\nTo: c\r\nX: y\r\nTo: d\r\n\r\nx\r\n",
        "From: a@example.test\r\nsubject:8-bit \u{e9}\u{4e2d}\r\nX: \u{e9}\r\n\r\n\u{fc}\r\n",
        "FROM :a@example.test \r\nList-Id: <x>\r\nResent-To: y\r\nSubject : z\r\n\r\nx\r\n",
        "From: a@example.test\r\n\r\n.\r\n..\r\n  two  spaces \r\n",
        &format!("From: a@example.test\r\nReferences: {long}\r\n\r\n{long}"),
        &format!("From: a@example.test\r\n{}\r\nx", "List-Id: x\r\n".repeat(150)),
    ] {
        let signed = sign(message);
        let start = signed.chars().take(3000).collect::<String>();
        assert_eq!(results(&signed).await, BOTH, "{start}");
    }
}

#[tokio::test]
async fn where_the_message_is_cut_does_not_matter() {
    let whole = sign(MESSAGE);
    let bytes = MESSAGE.as_bytes();
    for at in 0..bytes.len() {
        let parts = [&bytes[..at], &bytes[at..]];
        assert_eq!(
            signer().sign(&Turn::of_a_test(), &parts, NOW).unwrap() + MESSAGE,
            whole,
            "cut at {at}"
        );
    }
    assert_eq!(results(&whole).await, BOTH);
}

#[tokio::test]
async fn a_field_that_would_mislead_cannot_be_added() {
    let signed = sign(MESSAGE);
    for added in ["From: x@y.test", "Subject: x", "To: x", "Cc: x", "Date: x", "Message-ID: <x>"] {
        let changed = format!("{added}\r\n{signed}");
        assert!(!results(&changed).await.contains(&DkimResult::Pass), "{added}");
    }
    for added in ["Reply-To: x", "Sender: x", "List-Id: x", "Received: x", "X-Y: z", "Resent-To: x"]
    {
        assert_eq!(results(&format!("{added}\r\n{signed}")).await, BOTH, "{added}");
    }
    let with_both = MESSAGE.replacen("To:", "Sender: a\r\nReply-To: b\r\nTo:", 1);
    for added in ["Reply-To: x", "Sender: x"] {
        let changed = format!("{added}\r\n{}", sign(&with_both));
        assert!(!results(&changed).await.contains(&DkimResult::Pass), "{added}");
    }
}

#[tokio::test]
async fn a_changed_message_does_not_verify() {
    let signed = sign(MESSAGE);
    for (from, to) in
        [("Subject: Tea", "Subject: Coffee"), ("five", "six"), ("five?", "five?\r\nx")]
    {
        let changed = signed.replacen(from, to, 1);
        assert_eq!(results(&changed).await, [DkimResult::Fail; 2], "{from}");
    }
}

#[test]
fn the_fields_say_what_they_should() {
    let fields = signer().sign(&Turn::of_a_test(), &[MESSAGE.as_bytes()], NOW).unwrap();
    assert!(fields.lines().all(|line| line.len() <= 78), "{fields}");
    let second = fields.rfind("DKIM-Signature:").unwrap();
    let fields = fields.split_at(second);
    for (field, algorithm, selector) in
        [(fields.0, "rsa-sha256", "srsa"), (fields.1, "ed25519-sha256", "sed25519")]
    {
        let text = field.replace("\r\n\t", " ");
        let start = format!(
            "DKIM-Signature: v=1; a={algorithm}; s={selector}; d=example.test; c=relaxed/relaxed; h="
        );
        assert!(text.starts_with(&start), "{text}");
        assert!(text.contains("; t=1795235486;"), "{text}");
        assert!(!text.contains(" x=") && !text.contains(" l="), "{text}");
    }
}

#[tokio::test]
async fn a_domain_of_any_length_signs() {
    let domain = format!("{0}.{0}.{0}.example.test", "x".repeat(63));
    let mut dns = Dns::default();
    for key in keys() {
        dns = dns.txt(&format!("{}._domainkey.{domain}", key.selector), &key.key.record());
    }
    let signer = Signer::new(Domain::parse(&domain).unwrap(), keys());
    let signed = signer.sign(&Turn::of_a_test(), &[MESSAGE.as_bytes()], NOW).unwrap() + MESSAGE;
    let found = dns.authenticate(&signed).await.dkim;
    assert!(found.len() == 2 && found.iter().all(|it| it.result == DkimResult::Pass), "{found:?}");
}

fn field() -> impl Strategy<Value = String> {
    const NAMES: [&str; 8] =
        ["To", "cc", "SUBJECT", "Date", "Reply-To", "List-Id", "Received", "X-Other"];
    let value = "[ -~\t\u{e9}\u{4e2d}]{0,30}(\r\n[ \t]{1,3}[!-~]{1,9}[ \t]{0,3}){0,3}";
    (proptest::sample::select(&NAMES[..]), "[ \t]{0,2}", value)
        .prop_map(|(name, space, value)| format!("{name}{space}:{value}\r\n"))
}

fn body() -> impl Strategy<Value = String> {
    let token = proptest::sample::select(&["\r\n", " ", "\t", "a", ".", "\u{fc}"][..]);
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_signed_verifies(
        before in proptest::collection::vec(field(), 0..5),
        after in proptest::collection::vec(field(), 0..5),
        body in body(),
    ) {
        let fields = [before.concat(), "From: a@example.test\r\n".into(), after.concat()].concat();
        let signed = sign(&format!("{fields}\r\n{body}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        prop_assert_eq!(runtime.block_on(results(&signed)), BOTH);
    }

    #[test]
    fn no_message_makes_signing_panic(
        parts in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
        from in any::<bool>(),
    ) {
        let start: &[u8] = if from { b"From: a\r\n" } else { b"" };
        let parts: Vec<&[u8]> =
            std::iter::once(start).chain(parts.iter().map(Vec::as_slice)).collect();
        if let Ok(fields) = signer().sign(&Turn::of_a_test(), &parts, NOW) {
            prop_assert!(fields.lines().all(|line| line.len() <= 78));
        }
    }
}
