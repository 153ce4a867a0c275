//! SpamAssassin's spamd protocol, SPAMC/1.5: `SYMBOLS`, a few header lines, the message.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Request;
use super::outcome::{MAX_ANSWER, ScanError, ScanOutcome, word};
use crate::mail::Verdict;

/// Whose preferences spamd uses.
const USER: &str = "mailweir";

pub(super) async fn ask(address: &str, request: &Request<'_>) -> Result<ScanOutcome, ScanError> {
    let mut stream = TcpStream::connect(address).await?;
    let answer = {
        let (mut reader, mut writer) = stream.split();
        // spamd may answer, an error for example, before it has read everything.
        let (sent, answer) = tokio::join!(send(&mut writer, request.message), receive(&mut reader));
        let answer = answer?;
        if answer.is_empty() {
            sent?;
        }
        answer
    };
    read(&answer)
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), message: &[u8]) -> io::Result<()> {
    let head =
        format!("SYMBOLS SPAMC/1.5\r\nContent-length: {}\r\nUser: {USER}\r\n\r\n", message.len());
    writer.write_all(head.as_bytes()).await?;
    writer.write_all(message).await?;
    writer.shutdown().await
}

async fn receive(reader: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>, ScanError> {
    let mut answer = Vec::new();
    let limit = u64::try_from(MAX_ANSWER + 1).unwrap_or(u64::MAX);
    reader.take(limit).read_to_end(&mut answer).await?;
    if answer.len() > MAX_ANSWER { Err(ScanError::TooLong) } else { Ok(answer) }
}

/// `SPAMD/1.1 0 EX_OK`, header lines with `Spam: True ; 15.0 / 5.0` among them, an empty line,
/// the names of the rules that matched.
fn read(answer: &[u8]) -> Result<ScanOutcome, ScanError> {
    let answer = String::from_utf8_lossy(answer);
    let (head, symbols) = answer.split_once("\r\n\r\n").ok_or(ScanError::Unreadable)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let mut words = status.split_whitespace();
    if !words.next().is_some_and(|protocol| protocol.starts_with("SPAMD/")) {
        return Err(ScanError::Unreadable);
    }
    if words.next() != Some("0") {
        return Err(ScanError::Status(word(status)));
    }
    let spam = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("Spam"))
        .and_then(|(_, value)| read_spam(value))
        .ok_or(ScanError::Unreadable)?;
    let (is_spam, score, required) = spam;
    Ok(ScanOutcome {
        verdict: if is_spam { Verdict::Fail } else { Verdict::Pass },
        score: Some(score),
        required: Some(required),
        detail: format!("spamd: {}", word(symbols.trim())),
    })
}

/// ` True ; 15.0 / 5.0`
fn read_spam(value: &str) -> Option<(bool, f64, f64)> {
    let (is_spam, points) = value.split_once(';')?;
    let is_spam = match is_spam.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" => true,
        "false" | "no" => false,
        _ => return None,
    };
    let (score, required) = points.split_once('/')?;
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|it| it.is_finite());
    Some((is_spam, number(score)?, number(required)?))
}
