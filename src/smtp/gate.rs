//! Between a session and the handler: what the limits of all connections and of the client's
//! network say before the handler is asked, and when it is a message's turn.

use super::budget::NetworkPlace;
use super::handler::{Credentials, Handler, MessageRefusal, Refusal, SessionRefusal};
use super::reason::Reason;
use super::settings::Limits;
use super::shared::Shared;
use crate::id::TraceId;
use crate::mail::{EnvelopeRecipient, Login, MailParameters, Peer, ReversePath};

/// One client's way to the handler.
pub(crate) struct Gate<'a, H> {
    pub(crate) shared: &'a Shared<H>,
    pub(crate) limits: &'a Limits,
    /// Its network's place; without one it would not have got as far as a command.
    pub(crate) place: Option<&'a NetworkPlace>,
    pub(crate) peer: &'a Peer,
}

impl<H: Handler> Gate<'_, H> {
    /// Asks who has these credentials, unless logins from the client's network fail too often.
    pub(crate) async fn authenticate(
        self,
        trace_id: TraceId,
        credentials: Credentials,
    ) -> Result<Login, Refusal> {
        let failed = self.shared.failed_logins();
        if failed.are_spent(self.peer.ip, self.limits.failed_logins_per_network) {
            let user_name = &credentials.user_name;
            self.shared.handler().login_throttled(trace_id, self.peer, user_name);
            return Err(self.refuse(Reason::LoginsThrottled, trace_id, "AUTH ..."));
        }
        let answer = self.shared.handler().authenticate(trace_id, self.peer, credentials).await;
        if answer.as_ref().is_err_and(|refusal| !refusal.reason.is_transient()) {
            failed.count(self.peer.ip);
        }
        answer
    }

    /// Asks about MAIL, if one more message may come now.
    pub(crate) async fn mail(
        self,
        trace_id: TraceId,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<H::Transaction, Refusal> {
        let turns = self.shared.turns();
        let room = self.place.map(|place| turns.check_room(place.share(), self.limits));
        if let Some(Err(reason)) = room {
            return Err(self.refuse(reason, trace_id, &format!("MAIL FROM:{reverse_path}")));
        }
        let handler = self.shared.handler();
        handler.mail(trace_id, self.peer, reverse_path, parameters).await
    }

    /// Asks about RCPT, unless the client's network has asked for too many who do not exist. Users
    /// who have logged in may mistype.
    pub(crate) async fn rcpt(
        self,
        trace_id: TraceId,
        transaction: &mut H::Transaction,
        recipient: EnvelopeRecipient,
    ) -> Result<(), Refusal> {
        if self.peer.login.is_some() {
            return self.shared.handler().rcpt(transaction, recipient).await;
        }
        let unknown = self.shared.unknown_users();
        if unknown.are_spent(self.peer.ip, self.limits.unknown_users_per_network) {
            let about = format!("RCPT TO:<{}>", recipient.address);
            return Err(self.refuse(Reason::TooManyUnknownUsers, trace_id, &about));
        }
        let answer = self.shared.handler().rcpt(transaction, recipient).await;
        if answer.is_err_and(|refusal| refusal.reason == Reason::UnknownUser) {
            unknown.count(self.peer.ip);
        }
        answer
    }

    /// Hands over a message when its turn has come: the 250's text, or the refusal.
    pub(crate) async fn message(
        self,
        transaction: H::Transaction,
        content: Vec<u8>,
    ) -> Result<String, MessageRefusal> {
        // Boxed, since it is large and handed on.
        let work = Box::pin(self.shared.handler().message(transaction, content));
        let accepted = match self.place {
            Some(place) => {
                let turns = self.shared.turns();
                let _turn = turns.take(place.share()).await;
                // Alone, a network may have all processors.
                if self.shared.is_shared() { place.share().go_on(work).await } else { work.await }
            }
            None => work.await,
        };
        accepted.map(|accepted| accepted.to_string())
    }

    /// Records a refusal that the session will only repeat.
    fn refuse(&self, reason: Reason, trace_id: TraceId, about: &str) -> Refusal {
        let refusal = Refusal { reason, trace_id };
        self.shared.handler().refused(SessionRefusal { refusal, peer: self.peer, about });
        refusal
    }
}
