//! BDAT (RFC 3030), which large providers send and swaks cannot.

use proptest::prelude::*;

use crate::support::daemon::{Setup, below_our_headers};

const ALICE: &str = "alice@example.test";

#[test]
fn chunks_may_be_cut_anywhere() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    let ehlo = client.command("EHLO mail.good.test");
    assert!(ehlo.contains("CHUNKING"), "{ehlo}");
    let message = b"Subject: cut\r\n\r\n.dot\r\n..\r\nend\r\n.\r\n".to_vec();
    for cut in 0..=message.len() {
        client.transaction("bob@good.test", &[ALICE]);
        let reply = client.bdat(&message, &[cut]);
        assert!(reply.starts_with("250"), "cut at {cut}: {reply}");
    }
    let every_octet = vec![1; message.len()];
    client.transaction("bob@good.test", &[ALICE]);
    assert!(client.bdat(&message, &every_octet).starts_with("250"));
    let stored = daemon.mailbox("alice");
    assert_eq!(stored.len(), message.len() + 2);
    for (_, bytes) in &stored {
        assert_eq!(below_our_headers(bytes), message, "no dot is taken off, none is added");
    }
}

#[test]
fn an_empty_last_chunk_ends_the_message() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    client.envelope("bob@good.test", &[ALICE]);
    let message = b"Subject: empty last\r\n\r\nx\r\n";
    assert!(client.bdat(message, &[message.len()]).starts_with("250"));
    assert_eq!(daemon.folders("alice", "empty last"), ["INBOX"]);
}

#[test]
fn a_refused_transaction_still_swallows_its_chunks() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    assert!(client.command("MAIL FROM:<bob@good.test>").starts_with("250"));
    assert!(client.command("RCPT TO:<nobody@example.test>").starts_with("550"));
    client.send(b"BDAT 13 LAST\r\nMAIL FROM:<\r\n");
    let reply = client.reply();
    assert!(reply.starts_with('5'), "{reply}");
    assert!(client.command("NOOP").starts_with("250"), "the chunk was not read as a command");
}

#[test]
fn any_cutting_stores_the_same_bytes() {
    let daemon = Setup::default().start();
    let client = std::cell::RefCell::new(daemon.client());
    assert!(client.borrow_mut().command("EHLO mail.good.test").starts_with("250"));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(40));
    let lines = proptest::collection::vec("[ -~]{0,200}", 1..40);
    let sizes = proptest::collection::vec(0_usize..500, 0..20);
    let count = std::cell::Cell::new(0);
    runner
        .run(&(lines, sizes), |(lines, sizes)| {
            let subject = format!("n{}", count.replace(count.get() + 1));
            let message = format!("Subject: {subject}\r\n\r\n{}\r\n", lines.join("\r\n"));
            let mut client = client.borrow_mut();
            client.transaction("bob@good.test", &[ALICE]);
            prop_assert!(client.bdat(message.as_bytes(), &sizes).starts_with("250"));
            let stored = daemon.mailbox("alice");
            prop_assert!(stored.iter().any(|(_, bytes)| bytes.ends_with(message.as_bytes())));
            Ok(())
        })
        .expect("every message is stored as it was sent");
}
