//! The headers put on top of a message, in the order of the product contract's §6: `Return-Path`,
//! `Received`, `X-SES-Spam-Verdict`, `X-SES-Virus-Verdict`, `Received-SPF`,
//! `Authentication-Results`.

use std::net::IpAddr;

use super::decide::{DecidedShare, Judged};
use crate::mail::{Peer, Verdict};

pub(super) fn prefix(mail: &Judged, share: &DecidedShare) -> Vec<u8> {
    let authentication = &mail.verdicts.authentication;
    let hostname = &mail.snapshot.settings.hostname;
    let mut prefix = format!("Return-Path: {}\r\n", mail.reverse_path);
    prefix.push_str(&received(mail, share));
    prefix.push_str(&format!("X-SES-Spam-Verdict: {}\r\n", mail.verdicts.spam.verdict));
    prefix.push_str(&format!("X-SES-Virus-Verdict: {}\r\n", Verdict::Disabled));
    prefix.push_str(&authentication.received_spf(&mail.peer, &mail.reverse_path));
    prefix.push_str(&authentication.authentication_results(hostname));
    prefix.push_str(separator(&mail.content));
    prefix.into_bytes()
}

/// A message whose first line is folded would go on in our last field (RFC 5322 §2.2.3), and add
/// results of its own to ours. An empty line ends our header section before it.
fn separator(content: &[u8]) -> &'static str {
    if content.starts_with(b" ") || content.starts_with(b"\t") { "\r\n" } else { "" }
}

/// The protocol's name (RFC 3848 §1).
fn protocol(peer: &Peer) -> &'static str {
    match (peer.esmtp, &peer.tls, &peer.login) {
        (false, _, _) => "SMTP",
        (true, None, None) => "ESMTP",
        (true, Some(_), None) => "ESMTPS",
        (true, None, Some(_)) => "ESMTPA",
        (true, Some(_), Some(_)) => "ESMTPSA",
    }
}

/// The trace field (RFC 5321 §4.4). `for` only with a single recipient, so that nobody learns of
/// the others (RFC 5321 §7.6).
fn received(mail: &Judged, share: &DecidedShare) -> String {
    let peer = &mail.peer;
    let iprev = &mail.verdicts.authentication.iprev;
    // A peer's DNS may say anything; only a host name goes into the field.
    let is_host = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    let name = iprev.name.as_deref().filter(is_host).unwrap_or("unknown");
    let literal = match peer.ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("IPv6:{ip}"),
    };
    let protocol = protocol(peer);
    let tls = peer.tls.as_ref().map(|tls| format!("\r\n\t({tls})")).unwrap_or_default();
    let recipient = match share.recipients.as_slice() {
        [only] => format!("\r\n\tfor <{}>", only.addressee.recipient.address),
        _ => String::new(),
    };
    format!(
        "Received: from {} ({name} [{literal}])\r\n\tby {} with {protocol} id {}{tls}{recipient};\
         \r\n\t{} (UTC)\r\n",
        peer.helo,
        mail.snapshot.settings.hostname,
        share.trace_id,
        mail.received_at.to_rfc5322(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Login;

    #[test]
    fn the_protocol_says_whether_the_client_used_tls_and_logged_in() {
        let tls = Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".to_owned());
        let login = Some(Login { organization: "m-1".into(), user: "alice".into(), token: None });
        for (esmtp, tls, login, name) in [
            (false, None, None, "SMTP"),
            (true, None, None, "ESMTP"),
            (true, tls.clone(), None, "ESMTPS"),
            (true, None, login.clone(), "ESMTPA"),
            (true, tls, login, "ESMTPSA"),
        ] {
            let ip = "192.0.2.1".parse().expect("valid");
            let peer = Peer { ip, port: 45000, helo: "client.test".to_owned(), esmtp, tls, login };
            assert_eq!(protocol(&peer), name);
        }
    }
}
