//! What servers said of mail that leaves, as its trace tells it: who took it and how, and who did
//! not. It is recorded with the outcome itself.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::mail::Address;
use crate::pipeline::record::story::written;
use crate::queue::Settlement;
use crate::smtp::client::{Failure, Receipt, Stage};
use crate::store::{Purpose, QueueId, Story};

/// How much is kept of a server's words and of a reason, in characters: a line or two.
const MAX_WORDS: usize = 300;

/// What one attempt came to, in the story of its message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransportStory {
    /// Which entry of the queue was tried; its id says in which record the message stands.
    pub entry: QueueId,
    /// Recipients without an outcome are not in it: they wait on.
    pub transport: Vec<TransportOutcome>,
}

/// What came of it for recipients who have the same outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransportOutcome {
    /// When.
    pub at: Timestamp,
    /// For whom.
    pub recipients: Vec<Address>,
    /// What came of it.
    pub result: TransportResult,
    /// The name of the server that took it or did not; absent where none was spoken to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Which of its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The server's reply, or what was found here where it gave none.
    pub reply: String,
    /// Where in the conversation it went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Of what was sent under TLS: version and cipher suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Of what was sent in plain text although the server offers TLS: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_tls: Option<String>,
}

/// What came of an attempt for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TransportResult {
    /// The server took it.
    Sent,
    /// It never gets there.
    Bounced,
    /// An administrator took it from the queue.
    GivenUp,
}

impl TransportOutcome {
    fn sent(receipt: &Receipt, at: Timestamp) -> Self {
        Self {
            at,
            recipients: Vec::new(),
            result: TransportResult::Sent,
            server: Some(receipt.remote.clone()),
            address: Some(receipt.address),
            reply: excerpt(&receipt.reply.to_string()),
            stage: None,
            tls: receipt.tls.clone(),
            no_tls: receipt.no_tls.as_deref().map(excerpt),
        }
    }

    fn failed(failure: &Failure, at: Timestamp, is_given_up: bool) -> Self {
        let was_asked = failure.address.is_some() || failure.code.is_some();
        Self {
            at,
            recipients: Vec::new(),
            result: match is_given_up {
                true => TransportResult::GivenUp,
                false => TransportResult::Bounced,
            },
            server: was_asked.then(|| failure.remote.clone()),
            address: failure.address,
            reply: excerpt(&failure.words()),
            stage: was_asked.then_some(failure.stage),
            tls: None,
            no_tls: None,
        }
    }
}

/// The story of what an attempt, or an operator's word, came to; `None` if everybody waits on.
pub(in crate::pipeline) fn story(settlement: &Settlement) -> Option<Story> {
    let Settlement { mail, at, sent, failed, is_given_up, .. } = settlement;
    let mut outcomes = Outcomes::default();
    for (place, receipt) in sent {
        outcomes.add(TransportOutcome::sent(receipt, *at), settlement, *place);
    }
    for (place, failure) in failed {
        outcomes.add(TransportOutcome::failed(failure, *at, *is_given_up), settlement, *place);
    }
    if outcomes.0.is_empty() {
        return None;
    }
    let story = TransportStory { entry: mail.id, transport: outcomes.whole() };
    // Events tell only what becomes of users' messages.
    let is_listed = mail.entry.purpose != Purpose::Message;
    Some(written(mail.trace_id, &story, is_listed))
}

/// Outcomes whose recipients are beside them as yet.
#[derive(Default)]
struct Outcomes(Vec<(TransportOutcome, Vec<Address>)>);

impl Outcomes {
    /// Adds the recipient at a place of the entry; to those before it, if they have the same.
    fn add(&mut self, outcome: TransportOutcome, settlement: &Settlement, place: usize) {
        let Some(to) = settlement.mail.entry.recipients.get(place) else { return };
        let address = to.address.clone();
        match self.0.last_mut().filter(|(last, _)| *last == outcome) {
            Some((_, recipients)) => recipients.push(address),
            None => self.0.push((outcome, vec![address])),
        }
    }

    fn whole(self) -> Vec<TransportOutcome> {
        let join = |(outcome, recipients)| TransportOutcome { recipients, ..outcome };
        self.0.into_iter().map(join).collect()
    }
}

fn excerpt(words: &str) -> String {
    words.chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_read_as_it_is_written() {
        let json = r#"{"entry":"1f40.0.0.0","transport":[{"at":1795235486123,"recipients":["bob@far.test"],
            "result":"sent","server":"mx.far.test","address":"192.0.2.25:25",
            "reply":"250 2.0.0 Ok: queued as 4X","tls":"TLSv1.3 TLS13_AES_256_GCM_SHA384"},
            {"at":1795235486123,"recipients":["eve@far.test"],"result":"bounced",
            "server":"mx.far.test","address":"192.0.2.25:25","reply":"550 5.1.1 no such user",
            "stage":"rcpt"}]}"#;
        let story: TransportStory = serde_json::from_str(json).expect("reads");
        let [sent, bounced] = story.transport.as_slice() else { panic!("{story:?}") };
        assert_eq!((sent.result, sent.stage), (TransportResult::Sent, None));
        assert_eq!(sent.address.map(|it| it.port()), Some(25));
        assert_eq!((bounced.result, bounced.stage), (TransportResult::Bounced, Some(Stage::Rcpt)));
        let again = serde_json::to_string(&story).expect("writes");
        let plain: String = json.split('\n').map(str::trim).collect();
        assert_eq!(again, plain);
    }
}
