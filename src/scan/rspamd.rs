//! rspamd's HTTP protocol: `POST /checkv2`, the envelope in header fields, JSON back.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request as HttpRequest, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::Request;
use super::outcome::{MAX_ANSWER, ScanError, ScanOutcome, word};
use crate::mail::{ReversePath, Verdict};

/// The part of the answer that is read.
#[derive(Debug, Deserialize)]
struct Checked {
    action: String,
    score: f64,
    #[serde(default)]
    required_score: Option<f64>,
}

pub(super) async fn ask(address: &str, request: &Request<'_>) -> Result<ScanOutcome, ScanError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let question = question(address, request)?;
    let answer = async {
        let response = sender.send_request(question).await?;
        if !response.status().is_success() {
            return Err(ScanError::Status(response.status().to_string()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => ScanError::Http(*error),
            Err(error) if error.is::<LengthLimitError>() => ScanError::TooLong,
            Err(_) => ScanError::Unreadable,
        })?;
        serde_json::from_slice(&body.to_bytes()).map_err(|_| ScanError::Unreadable)
    };
    let checked: Checked = tokio::select! {
        checked = answer => checked?,
        never = driven(connection) => match never {},
    };
    Ok(outcome(checked))
}

/// Moves the octets. It never ends: when the connection does, the answer is complete or has got
/// the error.
async fn driven(connection: http1::Connection<TokioIo<TcpStream>, Full<Bytes>>) -> Infallible {
    // The same error comes out of the answer.
    let _ended = connection.await.is_ok();
    std::future::pending().await
}

fn question(address: &str, request: &Request<'_>) -> Result<HttpRequest<Full<Bytes>>, ScanError> {
    let from = match request.reverse_path {
        ReversePath::Null => String::new(),
        ReversePath::Address(address) => address.to_string(),
    };
    let mut question = HttpRequest::post("/checkv2")
        .header(header::HOST, address)
        .header("IP", request.peer.ip.to_string())
        .header("Queue-Id", request.trace_id.to_string());
    // What HTTP cannot carry in a field is left out; the scanner then goes by the message.
    for (name, value) in [("Helo", &request.peer.helo), ("From", &from)] {
        if let Ok(value) = header::HeaderValue::from_bytes(value.as_bytes()) {
            question = question.header(name, value);
        }
    }
    for recipient in request.recipients {
        if let Ok(value) = header::HeaderValue::from_bytes(recipient.to_string().as_bytes()) {
            question = question.header("Rcpt", value);
        }
    }
    Ok(question.body(Full::new(Bytes::copy_from_slice(request.message)))?)
}

fn outcome(checked: Checked) -> ScanOutcome {
    let verdict = match checked.action.as_str() {
        "reject" | "add header" | "rewrite subject" => Verdict::Fail,
        "greylist" | "soft reject" => Verdict::Gray,
        "no action" => Verdict::Pass,
        // An action of the operator's own: there is no telling what it means.
        _ => Verdict::ProcessingFailed,
    };
    ScanOutcome {
        verdict,
        score: Some(checked.score),
        required: checked.required_score,
        detail: format!("rspamd: {}", word(&checked.action)),
    }
}
