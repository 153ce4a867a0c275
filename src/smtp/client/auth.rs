//! Logging in (RFC 4954), under TLS alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::channel::Channel;
use super::extensions::Extensions;
use super::outcome::Fault;
use super::settings::Timeouts;
use crate::mail::Secret;

/// Logs in by AUTH PLAIN (RFC 4616), or by AUTH LOGIN where that is not offered.
///
/// # Errors
/// [`Fault::TlsNotOffered`] on a connection in plain text, where nothing is sent.
pub(super) async fn log_in(
    channel: &mut Channel,
    extensions: &Extensions,
    (user_name, password): &(String, Secret),
    timeouts: &Timeouts,
) -> Result<(), Fault> {
    if channel.tls().is_none() {
        return Err(Fault::TlsNotOffered);
    }
    let lines = if extensions.auth_plain {
        vec![plain(user_name, password)]
    } else if extensions.auth_login {
        login(user_name, password)
    } else {
        return Err(Fault::AuthNotOffered);
    };
    converse(channel, &lines, timeouts).await
}

/// Says each line when the one before was answered by 334; the last is answered by 235.
async fn converse(
    channel: &mut Channel,
    lines: &[Zeroizing<String>],
    timeouts: &Timeouts,
) -> Result<(), Fault> {
    for (number, line) in lines.iter().enumerate() {
        channel.ask(line.as_bytes(), timeouts.hello).await?;
        let reply = channel.reply(timeouts.hello).await?;
        let expected = if number + 1 == lines.len() { 2 } else { 3 };
        match reply.class() {
            class if class == expected => {}
            4 | 5 => return Err(Fault::Refused(reply)),
            _ => return Err(Fault::Unexpected(reply)),
        }
    }
    Ok(())
}

/// `authzid NUL authcid NUL passwd`, the first of them empty (RFC 4616 §2).
fn plain(user_name: &str, password: &Secret) -> Zeroizing<String> {
    let message = Zeroizing::new(format!("\0{user_name}\0{}", password.expose()));
    Zeroizing::new(format!("AUTH PLAIN {}\r\n", *encoded(&message)))
}

fn login(user_name: &str, password: &Secret) -> Vec<Zeroizing<String>> {
    let line = |text: &str| Zeroizing::new(format!("{}\r\n", *encoded(text)));
    vec![Zeroizing::new("AUTH LOGIN\r\n".to_owned()), line(user_name), line(password.expose())]
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(text))
}
