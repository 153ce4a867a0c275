//! The nouns of mail: addresses, envelopes and messages. No I/O, no policy.

mod address;
mod envelope;
mod header;
mod secret;
mod verdict;

pub use address::{Address, AddressError, Domain};
pub use envelope::{
    BodyType, DsnNotify, DsnReturn, Envelope, EnvelopeRecipient, Login, MailParameters, Origin,
    Peer, RcptParameters, ReversePath,
};
pub use header::{FieldLines, body_offset, hides, unfolded};
pub use secret::Secret;
pub use verdict::{DmarcPolicy, Verdict};
