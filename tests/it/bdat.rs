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
    let message = b"From: bob@good.test\r\nSubject: cut\r\n\r\n.dot\r\n..\r\nend\r\n.\r\n".to_vec();
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
fn chunks_of_any_size_make_one_message() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    let mut message = b"From: bob@good.test\r\nSubject: sizes\r\n\r\n".to_vec();
    // Every octet but a CR or LF, which must not stand alone here either.
    let octets = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
    message.extend(octets.filter(|octet| !b"\r\n".contains(octet)));
    message.extend_from_slice(b"\r\n");
    let sizes = [1, 2, 997, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20, usize::MAX];
    for size in sizes {
        client.transaction("bob@good.test", &[ALICE]);
        let count = if size < 4095 { 500 } else { message.len() / size };
        let reply = client.bdat(&message, &vec![size; count]);
        assert!(reply.starts_with("250"), "{size}: {reply}");
    }
    let stored = daemon.mailbox("alice");
    assert_eq!(stored.len(), sizes.len());
    for (_, bytes) in &stored {
        assert!(below_our_headers(bytes) == message, "a chunk was altered");
    }
}

/// Microsoft 365 hands mail with bare LF to servers with CHUNKING, and libraries of Windows make
/// `= CR CR LF` of a soft line break.
#[test]
fn line_ends_are_mended_wherever_chunks_are_cut() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    let sent =
        b"From: bob@good.test\nSubject: mended\r\r\n\nsoft=\r\r\nbreak\n.\n..\r\nend\r\r\r\n";
    let mended =
        b"From: bob@good.test\r\nSubject: mended\r\n\r\nsoft=\r\nbreak\r\n.\r\n..\r\nend\r\n";
    for cut in 0..=sent.len() {
        client.transaction("bob@good.test", &[ALICE]);
        let reply = client.bdat(sent, &[cut]);
        assert!(reply.starts_with("250"), "cut at {cut}: {reply}");
    }
    let stored = daemon.mailbox("alice");
    assert_eq!(stored.len(), sent.len() + 1);
    for (_, bytes) in &stored {
        assert_eq!(below_our_headers(bytes), mended);
    }
    for lone_cr in ["a\rb\r\n", "a\r", "a\r\rb\n"] {
        client.transaction("bob@good.test", &[ALICE]);
        let message = format!("From: bob@good.test\r\n\r\n{lone_cr}");
        let reply = client.bdat(message.as_bytes(), &[]);
        assert!(reply.contains("[bare-newline "), "{lone_cr:?}: {reply}");
    }
}

#[test]
fn pipelined_chunks_are_read_however_the_network_cuts_them() {
    let daemon = Setup::default().start();
    let session = b"MAIL FROM:<bob@good.test>\r\nRCPT TO:<alice@example.test>\r\n\
                    BDAT 39\r\nFrom: bob@good.test\r\nSubject: piped\r\n\r\n\
                    BDAT 0\r\nBDAT 6\r\nQUIT\r\nBDAT 0 LAST\r\nNOOP\r\n";
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    for size in [session.len(), 1, 7, 50] {
        for piece in session.chunks(size) {
            client.send(piece);
        }
        for step in ["MAIL", "RCPT", "BDAT 39", "BDAT 0", "BDAT 6", "BDAT 0 LAST", "NOOP"] {
            let reply = client.reply();
            assert!(reply.starts_with("250"), "in pieces of {size}: {step}: {reply}");
        }
    }
    let stored = daemon.mailbox("alice");
    assert_eq!(stored.len(), 4);
    for (_, bytes) in &stored {
        assert_eq!(
            below_our_headers(bytes),
            b"From: bob@good.test\r\nSubject: piped\r\n\r\nQUIT\r\n".as_slice()
        );
    }
}

#[test]
fn an_empty_last_chunk_ends_the_message() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    client.envelope("bob@good.test", &[ALICE]);
    let message = b"From: bob@good.test\r\nSubject: empty last\r\n\r\nx\r\n";
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
            let message = format!(
                "From: bob@good.test\r\nSubject: {subject}\r\n\r\n{}\r\n",
                lines.join("\r\n")
            );
            let mut client = client.borrow_mut();
            client.transaction("bob@good.test", &[ALICE]);
            prop_assert!(client.bdat(message.as_bytes(), &sizes).starts_with("250"));
            let stored = daemon.mailbox("alice");
            prop_assert!(stored.iter().any(|(_, bytes)| bytes.ends_with(message.as_bytes())));
            Ok(())
        })
        .expect("every message is stored as it was sent");
}
