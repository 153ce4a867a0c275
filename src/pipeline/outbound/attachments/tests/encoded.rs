//! What is encoded as a whole, however often.

use super::*;

/// Ticket systems and libraries send `.eml` files so (RFC 2046 §5.2.1 forbids it).
#[test]
fn what_is_encoded_as_a_whole_is_decoded_and_looked_into() {
    let part = |kind: &str, encoding: &str, body: &str| {
        let fields = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}");
        with_part(&fields).replace("AAAA", body)
    };
    let base64 = |text: &str| base64::MIME.encode(text);
    let quoted = |text: &str| qp::BODY.encode(text).replace('.', "=2E");
    let with_file = |name: &str| {
        let inner = with_part(&format!("Content-Disposition: attachment; filename={name}"));
        inner.replace("boundary=b", "boundary=q").replace("--b", "--q")
    };
    let harmless = with_file("a.txt");
    let blocked = with_file("a.exe");
    let kinds = ["message/rfc822; name=mail.eml", "message/global", "Message/RFC822"];
    for kind in kinds {
        check_sent(&part(kind, "base64", &base64(&harmless)));
        check_sent(&part(kind, "Quoted-Printable", &quoted(&harmless)));
        check(&part(kind, "BASE64", &base64(&blocked)), Some("a.exe"));
        check(&part(kind, "quoted-printable", &quoted(&blocked)), Some("a.exe"));
        // A reader that passes over the encoding finds it as it is.
        check(&part(kind, "quoted-printable", &blocked), Some("a.exe"));
        check(&part(kind, "(x) quoted-printable", &quoted(&blocked)), Some("a.exe"));
        let twice = part(kind, "base64", &base64(&part(kind, "base64", &base64(&blocked))));
        check(&twice, Some("a.exe"));
        // Its lines are broken and its padding is encoded for whoever does not decode it.
        for text in [&harmless, &blocked] {
            for more in ["", " ", "  "] {
                let inner = part(kind, "base64", &base64(&format!("{text}{more}")));
                let whole = part(kind, "quoted-printable", &qp::BODY.encode(within(&inner)));
                check(&whole, (*text == blocked).then_some("a.exe"));
            }
        }
    }
    let parts = |name: &str| {
        format!("--i\r\nContent-Disposition: attachment; filename={name}\r\n\r\nx\r\n--i--\r\n")
    };
    let multipart = "multipart/mixed; boundary=i";
    check_sent(&part(multipart, "quoted-printable", &parts("a.txt")));
    check(&part(multipart, "quoted-printable", &parts("a.exe")), Some("a.exe"));
    check(&part(multipart, "quoted-printable", &quoted(&parts("a.exe"))), Some("a.exe"));
    check_sent(&part(multipart, "base64", &base64(&parts("a.txt"))));
    check(&part(multipart, "base64", &base64(&parts("a.exe"))), Some("a.exe"));
    let whole = format!(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64(&blocked)
    );
    check(&whole, Some("a.exe"));
}

#[test]
fn a_message_that_is_encoded_over_and_over_is_refused() {
    let mut content = "Subject: x\r\n\r\nx".to_owned();
    for depth in 1..=12 {
        content = format!(
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
            base64::MIME.encode(&content)
        );
        let found = objected(&content);
        assert_eq!(found.is_some(), depth > MAX_DECODED, "{depth}: {found:?}");
    }
    // As long as every part of it is read twice, and each of those again.
    let part = |body: &str| {
        format!(
            "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\n{body}\r\n"
        )
    };
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    check_length(&format!("{head}{}", part("x").repeat(20_000)));
    let nested = (0..60).fold("x".repeat(1 << 20), |inner, depth| {
        format!(
            "Content-Type: multipart/mixed; boundary=b{depth}\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\n--b{depth}\r\n{inner}\r\n"
        )
    });
    check_length(&nested);
    // Many parts that are each decoded, in one that is decoded.
    let part = "--b\r\nContent-Type: multipart/x; boundary=q\r\n\
                Content-Transfer-Encoding: quoted-printable\r\n\r\nx\r\n";
    check_length(&format!(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64::MIME.encode(format!("{head}{}", part.repeat(16_000)))
    ));
}

#[test]
fn the_parts_of_all_that_is_decoded_are_bounded_together() {
    let content = "Content-Type: multipart/mixed; boundary=b\r\n\
                   Content-Transfer-Encoding: quoted-printable\r\n\r\n--b\r\n\r\n--b--\r\n";
    // The multipart and its part: as they are, decoded, and as what nobody decodes.
    for (most, expected) in [(6, None), (5, Some(TOO_MANY)), (3, Some(TOO_MANY))] {
        let blocked = &Extensions::default();
        let octets = &Cell::new(usize::MAX);
        let reading =
            Reading { blocked, depth: 0, is_undecoded: false, octets, parts: &Cell::new(most) };
        let why = match reading.objection(content.as_bytes()) {
            Some(Objection::Malformed { why, .. }) => Some(why),
            other => other.map(|_| "blocked"),
        };
        assert_eq!(why, expected, "{most}");
    }
}

/// A part's number is looked for once, and each part is looked at once for each way in which it is
/// read, however many are encoded as a whole.
#[test]
fn many_parts_with_parts_are_looked_at_once() {
    let part = "--b\r\nContent-Type: multipart/x; boundary=q\r\n\
                Content-Transfer-Encoding: quoted-printable\r\n\r\nx\r\n";
    for count in [1_000, 16_000] {
        let content =
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", part.repeat(count));
        let blocked = &Extensions::default();
        let octets = &Cell::new(usize::MAX);
        let parts = &Cell::new(MAX_PARTS);
        let reading = Reading { blocked, depth: 0, is_undecoded: false, octets, parts };
        assert_eq!(reading.objection(content.as_bytes()), None);
        // The message, and each part as it is, decoded, and as what nobody decodes.
        assert_eq!(MAX_PARTS - parts.get(), 1 + 3 * count);
    }
}
