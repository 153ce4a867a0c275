//! The field that every server puts on top of a message (RFC 5321 §4.4).

use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, Peer};

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
pub(in crate::pipeline) struct Received<'a> {
    pub(in crate::pipeline) peer: &'a Peer,
    /// The client's name in DNS.
    pub(in crate::pipeline) name: Option<&'a str>,
    pub(in crate::pipeline) hostname: &'a str,
    pub(in crate::pipeline) id: TraceId,
    /// Only where there is a single recipient, so that nobody learns of the others (RFC 5321
    /// §7.6).
    pub(in crate::pipeline) recipient: Option<&'a Address>,
}

impl Received<'_> {
    /// The field with its CR LF.
    pub(in crate::pipeline) fn at(&self, at: Timestamp) -> String {
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
    use crate::id::{EntityId, EntityKind};
    use crate::mail::Login;

    #[test]
    fn the_protocol_says_whether_the_client_used_tls_and_logged_in() {
        let tls = Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".to_owned());
        let id = EntityId::of_first(EntityKind::User, "m-1", "alice");
        let (organization, user) = ("m-1".into(), "alice".into());
        let login = Some(Login { organization, id, user, token: None });
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
