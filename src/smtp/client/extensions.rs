//! What the server offers (RFC 5321 §4.1.1.1): the answer to EHLO.

use super::reply::Reply;

/// The extensions that the client makes use of; none after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// PIPELINING (RFC 2920).
    pub(super) pipelining: bool,
    /// SIZE (RFC 1870) is offered.
    pub(super) size: bool,
    /// The most octets of a message, if the server says.
    pub(super) max_size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub(super) eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub(super) smtputf8: bool,
    /// DSN (RFC 3461).
    pub(super) dsn: bool,
    /// STARTTLS (RFC 3207).
    pub(super) start_tls: bool,
    /// AUTH PLAIN (RFC 4616).
    pub(super) auth_plain: bool,
    /// AUTH LOGIN, which is older than any standard.
    pub(super) auth_login: bool,
    /// LIMITS RCPTMAX (RFC 9422): recipients of a transaction, at least one.
    pub(super) max_recipients: Option<usize>,
    /// LIMITS MAILMAX (RFC 9422): transactions of a connection, at least one.
    pub(super) max_transactions: Option<usize>,
}

impl Extensions {
    /// Reads the answer to EHLO; what is unknown or makes no sense is passed over.
    pub(super) fn of(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines().iter().skip(1) {
            let line = line.to_ascii_uppercase();
            let mut words = line.split_ascii_whitespace();
            extensions.read(words.next().unwrap_or_default(), words);
        }
        extensions
    }

    fn read<'a>(&mut self, keyword: &'a str, mut arguments: impl Iterator<Item = &'a str>) {
        match keyword {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.start_tls = true,
            "SIZE" => {
                self.size = true;
                // RFC 1870 §4: 0 is no limit.
                self.max_size = arguments.next().and_then(|size| size.parse().ok());
                self.max_size = self.max_size.filter(|size| *size > 0);
            }
            "LIMITS" => arguments.for_each(|limit| self.limit(limit)),
            "AUTH" => arguments.for_each(|mechanism| self.mechanism(mechanism)),
            // As servers wrote it before there was a standard.
            keyword => {
                if let Some(first) = keyword.strip_prefix("AUTH=") {
                    self.mechanism(first);
                    arguments.for_each(|mechanism| self.mechanism(mechanism));
                }
            }
        }
    }

    fn limit(&mut self, limit: &str) {
        let number = |digits: &str| digits.parse().ok().filter(|number| *number > 0);
        match limit.split_once('=') {
            Some(("RCPTMAX", digits)) => self.max_recipients = number(digits),
            Some(("MAILMAX", digits)) => self.max_transactions = number(digits),
            _ => {}
        }
    }

    fn mechanism(&mut self, mechanism: &str) {
        match mechanism {
            "PLAIN" => self.auth_plain = true,
            "LOGIN" => self.auth_login = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::smtp::client::reply::Replies;

    fn read(lines: &[&str]) -> Extensions {
        let text = lines.iter().map(|line| format!("250-{line}\r\n")).collect::<String>();
        let mut buffer = BytesMut::from(format!("250-mx SIZE\r\n{text}250 OK\r\n").as_str());
        let reply = Replies::default().next(&mut buffer).expect("a reply").expect("is whole");
        Extensions::of(&reply)
    }

    #[test]
    fn what_is_offered_is_read_in_any_spelling() {
        let none = Extensions::default();
        for (lines, expected) in [
            (&["pipelining"][..], Extensions { pipelining: true, ..none.clone() }),
            (&["SIZE"], Extensions { size: true, ..none.clone() }),
            (&["SIZE 0"], Extensions { size: true, ..none.clone() }),
            (&["SIZE x"], Extensions { size: true, ..none.clone() }),
            (&["Size 12"], Extensions { size: true, max_size: Some(12), ..none.clone() }),
            (
                &["8BITMIME", "SMTPUTF8", "DSN"],
                Extensions { eight_bit_mime: true, smtputf8: true, dsn: true, ..none.clone() },
            ),
            (&["STARTTLS"], Extensions { start_tls: true, ..none.clone() }),
            (&["AUTH NTLM plain"], Extensions { auth_plain: true, ..none.clone() }),
            (
                &["AUTH=LOGIN PLAIN"],
                Extensions { auth_plain: true, auth_login: true, ..none.clone() },
            ),
            (
                &["LIMITS MAILMAX=5 RCPTMAX=7 X=1"],
                Extensions { max_recipients: Some(7), max_transactions: Some(5), ..none.clone() },
            ),
            (&["LIMITS MAILMAX=0 RCPTMAX=-1"], none.clone()),
            (&["", "X-UNKNOWN", "DSNX", "AUTHENTIC"], none.clone()),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }
}
