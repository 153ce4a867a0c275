//! The part of a session that is about a message's octets: DATA, BDAT (RFC 3030), and what the
//! handler says at their end.

use super::about::About;
use super::{
    Answer, Context, Idle, Next, Opened, Question, State, Step, Transfer, close_if_421, reply,
};
use crate::smtp::body::Body;
use crate::smtp::command::{Chunk, ChunkPlace};
use crate::smtp::handler::{MessageRefusal, Refusal};
use crate::smtp::reason::Reason;
use crate::smtp::reply::Reply;

/// A chunk of fewer octets, unless it is the last, costs more than it brings.
const SMALL_CHUNK: u64 = 1024;
/// So many of them a message may have: RFC 3030 sets no limit, and some clients send each line, or the
/// header section, as a chunk of its own.
const MAX_SMALL_CHUNKS: usize = 10_000;

impl Context {
    pub(super) fn data<T>(&mut self, state: State<T>, about: About) -> Next<T> {
        match state {
            State::HasRecipients(opened, transaction, _) => {
                let body = self.empty_body(&opened);
                let answer = Some(Answer::Reply(Reply::START_DATA));
                (State::InData(opened, transaction), Step::Receive(answer, Transfer::Dots, body))
            }
            State::HasSender(opened, transaction) => {
                // RFC 2920 §3.1: a pipelining client sends DATA before it knows that all of its
                // recipients were refused. That is no error of its own.
                let refusal = Refusal { reason: Reason::BadSequence, trace_id: opened.trace_id };
                let step = self.refuse_freely(refusal, about);
                (State::HasSender(opened, transaction), step)
            }
            state => self.out_of_sequence(state, about),
        }
    }

    fn empty_body(&self, opened: &Opened) -> Body {
        Body::new(self.limits.message_bytes, opened.declared_size)
            .with_header_limit(self.limits.header_bytes)
    }

    /// The octets of a chunk follow whatever is thought of it (RFC 3030 §2), so they are always
    /// read, if only to be dropped.
    pub(super) fn bdat<T>(&mut self, state: State<T>, chunk: Chunk) -> Next<T> {
        let (mut opened, transaction, mut body) = match state {
            State::HasRecipients(opened, transaction, _) => {
                let body = self.empty_body(&opened);
                (opened, transaction, body)
            }
            State::HasChunks(opened, transaction, body) => (opened, transaction, body),
            State::HasSender(opened, transaction) => {
                (opened, transaction, Body::refused(Reason::BadSequence))
            }
            state => {
                let idle = state.idle().unwrap_or(Idle::Ready);
                let step = Step::Receive(
                    None,
                    Transfer::Chunk(chunk.size),
                    Body::refused(Reason::BadSequence),
                );
                return (State::StrayChunk(idle, chunk.place), step);
            }
        };
        if chunk.place == ChunkPlace::More && chunk.size < SMALL_CHUNK {
            opened.small_chunks += 1;
            if opened.small_chunks > MAX_SMALL_CHUNKS {
                body.refuse(Reason::TooManyErrors);
            }
        }
        body.announce(chunk.size);
        let step = Step::Receive(None, Transfer::Chunk(chunk.size), body);
        (State::InChunk(opened, transaction, chunk), step)
    }

    pub(super) fn chunk_ended<T>(
        &mut self,
        opened: Opened,
        transaction: T,
        chunk: Chunk,
        body: Body,
    ) -> Next<T> {
        match chunk.place {
            ChunkPlace::Last => self.content_ended(opened, transaction, body, Idle::Ready, "BDAT"),
            ChunkPlace::More if body.refusal().is_none() => {
                (State::HasChunks(opened, transaction, body), reply(Reply::chunk(chunk.size)))
            }
            ChunkPlace::More => {
                let idle = Idle::ChunksRefused(opened.trace_id);
                self.content_ended(opened, transaction, body, idle, "BDAT")
            }
        }
    }

    pub(super) fn stray_chunk_ended<T>(&mut self, idle: Idle, place: ChunkPlace) -> Next<T> {
        let about = About::from("BDAT");
        let Idle::ChunksRefused(trace_id) = idle else {
            return (State::Idle(idle), self.refuse(Reason::BadSequence, None, about));
        };
        // It was in the pipeline when an earlier one was refused: no error of its own.
        let refusal = Refusal { reason: Reason::BadSequence, trace_id };
        let idle = match place {
            ChunkPlace::More => idle,
            ChunkPlace::Last => Idle::Ready,
        };
        (State::Idle(idle), self.refuse_freely(refusal, about))
    }

    /// The message is complete, or refused after its true end.
    pub(super) fn content_ended<T>(
        &mut self,
        opened: Opened,
        transaction: T,
        body: Body,
        idle: Idle,
        command: &str,
    ) -> Next<T> {
        let reason = match body.finish() {
            Ok(content) => {
                let question = Question::Message(transaction, content);
                return (State::MessageAsked, Step::Ask(question));
            }
            Err(reason) => reason,
        };
        let refusal = Refusal { reason, trace_id: opened.trace_id };
        let step = close_if_421(reason, Answer::Refusal(refusal, About::from(command)));
        (State::Idle(idle), Step::Abandon(transaction, Box::new(step)))
    }

    pub(super) fn message_answered<T>(
        &mut self,
        answer: Result<String, MessageRefusal>,
    ) -> Next<T> {
        let step = match answer {
            Ok(accepted) => {
                self.idle_commands = 0;
                reply(Reply::accepted(&accepted))
            }
            Err(refused) => {
                let reply = Reply::message_refusal(&refused);
                close_if_421(refused.refusal.reason, Answer::Reply(reply))
            }
        };
        (State::Idle(Idle::Ready), step)
    }
}
