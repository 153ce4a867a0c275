//! A mail transaction: the envelope, pipelined where that is offered, then the content.

use super::connection::{Connection, State, accepted, at};
use super::content::{Progress, Stuffed};
use super::outcome::{ClientError, Failure, Fault, Outcome, Receipt, Stage, TOO_MANY_RECIPIENTS};
use super::reply::Reply;
use super::settings::Endpoint;
use super::transaction::{Group, Obstacle, OutgoingTransaction, Plan, Step};

impl Connection {
    /// Hands a message over: one outcome for each recipient, in their order.
    ///
    /// `content` is the message in parts, with CR LF line ends; a line end that is missing at the
    /// end is added. Afterwards [`Connection::can_be_reused`] says whether there can be another.
    ///
    /// # Errors
    /// [`ClientError`] if the connection turned out to be of no use before MAIL was answered, as
    /// one that was kept for long may: then nothing was handed over, and another connection may do.
    pub async fn send(
        &mut self,
        transaction: &OutgoingTransaction<'_>,
        content: &[&[u8]],
    ) -> Result<Vec<Outcome>, ClientError> {
        if self.state == State::Broken {
            return Err(ClientError { stage: Stage::Mail, fault: Fault::Lost });
        }
        let plan = Plan::new(transaction, content, &self.extensions);
        let mut ledger = Ledger::new(&plan, &self.endpoint);
        if !ledger.has_anybody(&Slot::Unasked) {
            return Ok(ledger.outcomes());
        }
        self.transactions += 1;
        self.channel.set_deadline(Some(self.timeouts.transaction));
        // Until the transaction has ended in order, also where the future is dropped.
        self.state = State::Broken;
        let ended = self.transact(&plan, &mut ledger, content).await;
        self.channel.set_deadline(None);
        match ended {
            Ok(state) => self.state = state,
            Err(error) if ledger.mail == Mail::Awaited => return Err(error),
            Err(error) => ledger.rest = error.outcome(&self.endpoint),
        }
        Ok(ledger.outcomes())
    }

    /// The whole transaction; whether another can follow it.
    async fn transact(
        &mut self,
        plan: &Plan,
        ledger: &mut Ledger,
        content: &[&[u8]],
    ) -> Result<State, ClientError> {
        self.envelope(plan, ledger).await?;
        if !ledger.has_anybody(&Slot::Accepted) {
            return self.end_without_content(ledger).await;
        }
        let answer = match ledger.data.take() {
            Some(reply) => reply,
            None => {
                let asked = self.channel.command("DATA", self.timeouts.data).await;
                asked.map_err(at(Stage::Data))?
            }
        };
        match answer.class() {
            3 => {}
            4 | 5 => {
                ledger.rest = Outcome::refused(&answer, Stage::Data, &self.endpoint);
                return Ok(self.reset().await);
            }
            _ => return Err(at(Stage::Data)(Fault::Unexpected(answer))),
        }
        let reply = self.content(content).await?;
        ledger.rest = match reply.class() {
            2 => Outcome::Sent(self.receipt(reply)),
            4 | 5 => Outcome::refused(&reply, Stage::EndOfData, &self.endpoint),
            // Neither yes nor no: the server may have the message.
            _ => return Err(at(Stage::EndOfData)(Fault::Unexpected(reply))),
        };
        Ok(State::Ready)
    }

    /// MAIL, RCPT for each recipient until the server has enough of them, and DATA where that is
    /// pipelined.
    async fn envelope(&mut self, plan: &Plan, ledger: &mut Ledger) -> Result<(), ClientError> {
        for group in plan.groups(self.extensions.pipelining) {
            if ledger.takes_no_more() {
                break;
            }
            self.ask(&group).await?;
            for step in group.steps {
                let (stage, time) = match step {
                    Step::Mail => (Stage::Mail, self.timeouts.mail),
                    Step::Rcpt(_) => (Stage::Rcpt, self.timeouts.rcpt),
                    Step::Data => (Stage::Data, self.timeouts.data),
                };
                let reply = self.channel.reply(time).await.map_err(at(stage))?;
                ledger.note(step, reply, &self.endpoint).map_err(at(stage))?;
            }
        }
        Ok(())
    }

    async fn ask(&mut self, group: &Group) -> Result<(), ClientError> {
        let (stage, time) = match group.steps.first() {
            Some(Step::Rcpt(_)) => (Stage::Rcpt, self.timeouts.rcpt),
            _ => (Stage::Mail, self.timeouts.mail),
        };
        self.channel.ask(group.text.as_bytes(), time).await.map_err(at(stage))
    }

    /// Nobody was accepted. A server that answers a pipelined DATA by 354 all the same gets an
    /// empty message, which is for nobody (RFC 2920 §3.1).
    async fn end_without_content(&mut self, ledger: &mut Ledger) -> Result<State, ClientError> {
        match ledger.data.take() {
            Some(reply) if reply.class() == 3 => {
                let ended = self.channel.command(".", self.timeouts.end_of_data).await;
                Ok(if ended.is_ok() { self.reset().await } else { State::Broken })
            }
            _ => Ok(self.reset().await),
        }
    }

    /// Sends the content and its final dot; the answer to that.
    async fn content(&mut self, parts: &[&[u8]]) -> Result<Reply, ClientError> {
        let mut stuffed = Stuffed::new(parts);
        let mut block = Vec::new();
        loop {
            let progress = stuffed.fill(&mut block);
            self.channel.expect_silence().await.map_err(at(Stage::Content))?;
            let stage = match progress {
                Progress::More => Stage::Content,
                // From here on the server may have all of it, whatever we learn.
                Progress::End => Stage::EndOfData,
            };
            self.channel.send(&block, self.timeouts.block).await.map_err(at(stage))?;
            if progress == Progress::End {
                return self.channel.reply(self.timeouts.end_of_data).await.map_err(at(stage));
            }
        }
    }

    /// Ends a transaction that did not end by itself.
    async fn reset(&mut self) -> State {
        let reset = self.channel.command("RSET", self.timeouts.mail).await;
        if accepted(reset).is_ok() { State::Ready } else { State::Broken }
    }

    fn receipt(&self, reply: Reply) -> Receipt {
        Receipt {
            reply,
            remote: self.endpoint.name.clone(),
            address: self.endpoint.address,
            tls: self.channel.tls().map(str::to_owned),
            no_tls: self.channel.no_tls().map(str::to_owned),
            dsn_passed_on: self.extensions.dsn,
        }
    }
}

/// What the server said of MAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mail {
    Awaited,
    Accepted,
    Refused,
}

/// What is known of a recipient.
#[derive(Debug, PartialEq, Eq)]
enum Slot {
    /// Nothing yet.
    Unasked,
    /// RCPT was accepted, so what comes of the message comes of it.
    Accepted,
    /// The end of it.
    Decided(Outcome),
}

/// What is known while a transaction goes on.
#[derive(Debug)]
struct Ledger {
    mail: Mail,
    slots: Vec<Slot>,
    /// What holds for everybody of whom nothing else is decided.
    rest: Outcome,
    /// The server takes no more recipients.
    is_full: bool,
    /// The answer to a pipelined DATA.
    data: Option<Reply>,
}

impl Ledger {
    fn new(plan: &Plan, endpoint: &Endpoint) -> Self {
        let slot = |rcpt: &Result<String, Obstacle>| match rcpt {
            Ok(_) => Slot::Unasked,
            Err(obstacle) => Slot::Decided(Outcome::Failed(obstacle.failure(endpoint))),
        };
        Self {
            mail: Mail::Awaited,
            slots: plan.recipients.iter().map(slot).collect(),
            rest: at(Stage::Mail)(Fault::Lost).outcome(endpoint),
            is_full: false,
            data: None,
        }
    }

    fn has_anybody(&self, slot: &Slot) -> bool {
        self.slots.contains(slot)
    }

    /// Whether it is of no use to name more recipients.
    fn takes_no_more(&self) -> bool {
        self.is_full || self.mail == Mail::Refused
    }

    /// Notes the answer to a command.
    fn note(&mut self, step: Step, reply: Reply, endpoint: &Endpoint) -> Result<(), Fault> {
        match (step, reply.class()) {
            (Step::Data, _) => self.data = Some(reply),
            (Step::Mail, 2) => self.mail = Mail::Accepted,
            (Step::Mail, 4 | 5) => {
                self.mail = Mail::Refused;
                self.rest = Outcome::refused(&reply, Stage::Mail, endpoint);
            }
            // Answers to what was pipelined behind a refused MAIL say nothing more.
            (Step::Rcpt(_), _) if self.mail == Mail::Refused => {}
            (Step::Rcpt(number), 2) => self.set(number, Slot::Accepted),
            (Step::Rcpt(number), 4 | 5) if self.is_too_many(&reply) => {
                self.is_full = true;
                let outcome = too_many(&reply, endpoint);
                self.set(number, Slot::Decided(outcome.clone()));
                for slot in self.slots.iter_mut().filter(|slot| **slot == Slot::Unasked) {
                    *slot = Slot::Decided(outcome.clone());
                }
            }
            (Step::Rcpt(number), 4 | 5) => {
                let outcome = Outcome::refused(&reply, Stage::Rcpt, endpoint);
                self.set(number, Slot::Decided(outcome));
            }
            (Step::Mail | Step::Rcpt(_), _) => return Err(Fault::Unexpected(reply)),
        }
        Ok(())
    }

    /// RFC 5321 §4.5.3.1.10: 452, and 552 from older servers. Without an enhanced status code,
    /// only where others were accepted before.
    fn is_too_many(&self, reply: &Reply) -> bool {
        let status = reply.enhanced().map(|status| (status.subject(), status.detail()));
        matches!(reply.code(), 452 | 552)
            && match status {
                Some(status) => status == (5, 3),
                None => self.has_anybody(&Slot::Accepted),
            }
    }

    fn set(&mut self, number: usize, slot: Slot) {
        if let Some(place) = self.slots.get_mut(number) {
            *place = slot;
        }
    }

    fn outcomes(self) -> Vec<Outcome> {
        let rest = self.rest;
        let outcome = |slot| match slot {
            Slot::Decided(outcome) => outcome,
            Slot::Unasked | Slot::Accepted => rest.clone(),
        };
        self.slots.into_iter().map(outcome).collect()
    }
}

/// For everybody beyond what the server takes: deferred, whatever the code.
fn too_many(reply: &Reply, endpoint: &Endpoint) -> Outcome {
    let failure = at(Stage::Rcpt)(Fault::Refused(reply.clone())).failure(endpoint);
    Outcome::Deferred(Failure { enhanced: TOO_MANY_RECIPIENTS, ..failure })
}
