//! The exchanges of AUTH (RFC 4954): PLAIN (RFC 4616) and LOGIN, from base64 to credentials. Who
//! they belong to is the handler's affair.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::handler::Credentials;
use super::reason::Reason;
use crate::mail::Secret;

/// The longest response with its CR LF, in octets (RFC 4954 §4). It holds in an exchange only, not
/// for the AUTH command with its initial response, which is a command line like others.
pub(crate) const MAX_LINE: usize = 12_288;
/// `Username:`
const USER_NAME_PROMPT: &str = "VXNlcm5hbWU6";
/// `Password:`
const PASSWORD_PROMPT: &str = "UGFzc3dvcmQ6";

/// An exchange that waits for the client's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// PLAIN: for its one message.
    Plain,
    /// LOGIN: for the user's name. The mechanism has no RFC (draft-murchison-sasl-login), and some
    /// clients speak no other.
    LoginName,
    /// LOGIN: for the password of this user.
    LoginPassword(String),
}

/// What comes of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// One more is needed.
    Continued(Exchange),
    /// The client has said all.
    Complete(Credentials),
}

impl Exchange {
    /// The beginning of the mechanism of that name, if it is offered.
    pub(crate) fn begin(mechanism: &str) -> Option<Self> {
        match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => Some(Self::Plain),
            "LOGIN" => Some(Self::LoginName),
            _ => None,
        }
    }

    /// What the client is asked, in base64.
    pub(crate) fn challenge(&self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::LoginName => USER_NAME_PROMPT,
            Self::LoginPassword(_) => PASSWORD_PROMPT,
        }
    }

    /// Takes the response that came with the AUTH command, where `=` stands for an empty one.
    ///
    /// # Errors
    /// [`Reason::BadAuthResponse`] or [`Reason::BadCredentials`]
    pub(crate) fn take_initial(self, response: &str) -> Result<Progress, Reason> {
        if response == "=" { self.advance("") } else { self.take_encoded(response.as_bytes()) }
    }

    /// Takes a line that answers a challenge.
    ///
    /// # Errors
    /// [`Reason::AuthenticationCancelled`], [`Reason::BadAuthResponse`] or
    /// [`Reason::BadCredentials`]
    pub(crate) fn take_line(self, line: &[u8]) -> Result<Progress, Reason> {
        if line == b"*" { Err(Reason::AuthenticationCancelled) } else { self.take_encoded(line) }
    }

    fn take_encoded(self, base64: &[u8]) -> Result<Progress, Reason> {
        let decoded = STANDARD.decode(base64).map_err(|_| Reason::BadAuthResponse)?;
        let decoded = Zeroizing::new(decoded);
        // RFC 4616 §2 asks for UTF-8.
        self.advance(str::from_utf8(&decoded).map_err(|_| Reason::BadAuthResponse)?)
    }

    fn advance(self, response: &str) -> Result<Progress, Reason> {
        match self {
            Self::Plain => plain(response).map(Progress::Complete),
            Self::LoginName => Ok(Progress::Continued(Self::LoginPassword(response.to_owned()))),
            Self::LoginPassword(user_name) => {
                credentials(user_name, response).map(Progress::Complete)
            }
        }
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 §2). Nobody may act for somebody else, so an
/// authorization identity must be the user.
fn plain(message: &str) -> Result<Credentials, Reason> {
    let parts: Vec<&str> = message.split('\0').collect();
    let [identity, user_name, password] = parts[..] else { return Err(Reason::BadAuthResponse) };
    if !identity.is_empty() && identity != user_name {
        return Err(Reason::BadCredentials);
    }
    credentials(user_name.to_owned(), password)
}

/// Nobody has an empty name or password, or a name that cannot be printed (RFC 4013 §2.3).
fn credentials(user_name: String, password: &str) -> Result<Credentials, Reason> {
    if user_name.is_empty() || password.is_empty() || user_name.chars().any(char::is_control) {
        return Err(Reason::BadCredentials);
    }
    Ok(Credentials { user_name, password: Secret::new(password.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(user_name: &str, password: &str) -> Result<Progress, Reason> {
        let password = Secret::new(password.to_owned());
        Ok(Progress::Complete(Credentials { user_name: user_name.to_owned(), password }))
    }

    #[test]
    fn mechanisms_have_names_in_any_case() {
        assert_eq!(Exchange::begin("plain"), Some(Exchange::Plain));
        assert_eq!(Exchange::begin("Login"), Some(Exchange::LoginName));
        for name in ["", "CRAM-MD5", "PLAIN ", "EXTERNAL", "XOAUTH2", "ANONYMOUS"] {
            assert_eq!(Exchange::begin(name), None, "{name:?}");
        }
    }

    #[test]
    fn plain_is_one_message() {
        for (message, expected) in [
            ("\0alice\0secret", complete("alice", "secret")),
            ("alice\0alice\0secret", complete("alice", "secret")),
            ("\0alice@example.test\0pässword ", complete("alice@example.test", "pässword ")),
            ("bob\0alice\0secret", Err(Reason::BadCredentials)),
            ("Alice\0alice\0secret", Err(Reason::BadCredentials)),
            ("\0\0secret", Err(Reason::BadCredentials)),
            ("\0alice\0", Err(Reason::BadCredentials)),
            ("\0al\nice\0secret", Err(Reason::BadCredentials)),
            ("", Err(Reason::BadAuthResponse)),
            ("alice\0secret", Err(Reason::BadAuthResponse)),
            ("\0alice\0sec\0ret", Err(Reason::BadAuthResponse)),
        ] {
            let encoded = STANDARD.encode(message);
            assert_eq!(Exchange::Plain.take_line(encoded.as_bytes()), expected, "{message:?}");
            let initial = if encoded.is_empty() { "=" } else { &encoded };
            assert_eq!(Exchange::Plain.take_initial(initial), expected, "{message:?}");
        }
    }

    #[test]
    fn login_asks_for_the_name_and_then_for_the_password() {
        assert_eq!(STANDARD.encode("Username:"), Exchange::LoginName.challenge());
        let Ok(Progress::Continued(second)) = Exchange::LoginName.take_line(b"YWxpY2U=") else {
            panic!("a password is asked for")
        };
        assert_eq!(STANDARD.encode("Password:"), second.challenge());
        assert_eq!(second.clone().take_line(b"c2VjcmV0"), complete("alice", "secret"));
        assert_eq!(second.take_line(b""), Err(Reason::BadCredentials));
        let nobody = Exchange::LoginPassword(String::new());
        assert_eq!(nobody.take_line(b"c2VjcmV0"), Err(Reason::BadCredentials));
    }

    #[test]
    fn what_is_not_base64_of_utf8_is_refused() {
        for line in ["c2VjcmV0=", "c2VjcmV", "c2Vj cmV0", "c2Vjcm-_", "=", "**", "/w==", "\u{e9}"] {
            for exchange in
                [Exchange::Plain, Exchange::LoginName, Exchange::LoginPassword("alice".to_owned())]
            {
                let taken = exchange.take_line(line.as_bytes());
                assert_eq!(taken, Err(Reason::BadAuthResponse), "{line:?}");
            }
        }
        assert_eq!(Exchange::Plain.take_initial("*"), Err(Reason::BadAuthResponse));
    }

    #[test]
    fn a_star_gives_up() {
        for exchange in [Exchange::Plain, Exchange::LoginName] {
            assert_eq!(exchange.take_line(b"*"), Err(Reason::AuthenticationCancelled));
        }
    }
}
