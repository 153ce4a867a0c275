//! The headers put on top of a message, in the order of the product contract's §6: `Return-Path`,
//! `Received`, `X-SES-Spam-Verdict`, `X-SES-Virus-Verdict`, `Received-SPF`,
//! `Authentication-Results`.

use std::net::IpAddr;

use super::decide::{DecidedShare, Judged};
use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, DeliveryMarks, Peer, Verdict, delivered_to};

/// What stands on top of a message in the mailboxes of one organization.
pub(super) fn prefix(mail: &Judged, share: &DecidedShare) -> Vec<u8> {
    let mut prefix = format!("Return-Path: {}\r\n", mail.reverse_path);
    share.forwarders.iter().for_each(|mailbox| prefix.push_str(&delivered_to(mailbox)));
    push_results(prefix, mail, share)
}

/// What stands on top of a message that a mailbox or remote user sends on to another server: the
/// mailboxes that it has come through, marked as ours in case it comes back, then what we have found
/// out.
pub(super) fn onward_prefix(
    mail: &Judged,
    share: &DecidedShare,
    from: &Address,
    marks: &DeliveryMarks,
) -> Vec<u8> {
    let mut prefix = marks.fields(from);
    share.forwarders.iter().for_each(|mailbox| prefix.push_str(&marks.fields(mailbox)));
    if mail.outgoing.is_some() {
        // What a user submits leaves as all of it does: `outgoing::sign` makes the rest.
        return prefix.into_bytes();
    }
    push_results(prefix, mail, share)
}

fn push_results(mut prefix: String, mail: &Judged, share: &DecidedShare) -> Vec<u8> {
    let hostname = &mail.snapshot.settings.hostname;
    let recipient = match share.recipients.as_slice() {
        [only] => Some(&only.addressee.recipient.address),
        _ => None,
    };
    let authentication = mail.verdicts.authentication.as_ref();
    let name = authentication.and_then(|known| known.iprev.name.as_deref());
    let id = share.trace_id;
    prefix.push_str(
        &Received { peer: &mail.peer, name, hostname, id, recipient }.at(mail.received_at),
    );
    prefix.push_str(&format!("X-SES-Spam-Verdict: {}\r\n", mail.verdicts.spam.verdict));
    prefix.push_str(&format!("X-SES-Virus-Verdict: {}\r\n", Verdict::Disabled));
    if let Some(authentication) = authentication {
        prefix.push_str(&authentication.received_spf(&mail.peer, &mail.reverse_path));
        prefix.push_str(&authentication.authentication_results(hostname));
    }
    let Some(outgoing) = &mail.outgoing else {
        prefix.push_str(separator(&mail.content));
        return prefix.into_bytes();
    };
    // RFC 8601 §2.7.4: the client was authenticated, and that is all there was to find out.
    prefix.push_str(&format!(
        "Authentication-Results: {hostname};\r\n auth=pass smtp.auth={}\r\n",
        outgoing.email
    ));
    [prefix.as_bytes(), &outgoing.added].concat()
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

/// What the trace field says (RFC 5321 §4.4).
pub(super) struct Received<'a> {
    pub(super) peer: &'a Peer,
    /// The client's name in DNS.
    pub(super) name: Option<&'a str>,
    pub(super) hostname: &'a str,
    pub(super) id: TraceId,
    /// Only where there is a single recipient, so that nobody learns of the others (RFC 5321
    /// §7.6).
    pub(super) recipient: Option<&'a Address>,
}

impl Received<'_> {
    /// The field with its CR LF.
    pub(super) fn at(&self, at: Timestamp) -> String {
        let peer = self.peer;
        // A peer's DNS may say anything; only a host name goes into the field.
        let is_host = |name: &&str| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        let name = self.name.filter(is_host).unwrap_or("unknown");
        let literal = match peer.ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("IPv6:{ip}"),
        };
        let protocol = protocol(peer);
        let tls = peer.tls.as_ref().map(|tls| format!("\r\n\t({tls})")).unwrap_or_default();
        let recipient = self.recipient.map(|it| format!("\r\n\tfor <{it}>")).unwrap_or_default();
        format!(
            "Received: from {} ({name} [{literal}])\r\n\tby {} with {protocol} id {}{tls}{recipient};\
         \r\n\t{} (UTC)\r\n",
            peer.helo,
            self.hostname,
            self.id,
            at.to_rfc5322(),
        )
    }
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
