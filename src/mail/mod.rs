//! The nouns of mail: addresses, envelopes and messages. No I/O, no policy.

mod address;
mod addressees;
mod author;
mod delivered_to;
mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway;
mod header;
mod invisible;
mod line;
mod secret;
mod srs;
mod verdict;

pub use address::{Address, AddressError, Domain, is_name_within};
pub use addressees::Addressees;
pub use author::{
    AuthorError, AuthorFields, Authors, author_domains, may_be_one_organization, names_nobody,
};
pub use delivered_to::{
    DELIVERED_TO, DeliveryMarks, MARKED_DELIVERED_TO, delivered_to, delivered_to_whom,
    domains_within,
};
pub use envelope::{
    BodyType, DsnNotify, DsnReturn, Envelope, EnvelopeRecipient, Login, MailParameters, Origin,
    Peer, RcptParameters, ReversePath,
};
pub use gateway::{Gateway, GatewayHost, GatewayLogin};
pub use header::{FieldLines, body_offset, hidden_names, hides, take_out, unfolded};
pub(crate) use invisible::{disguises, is_invisible};
pub use line::{address_on_one_line, excerpt_on_one_line, on_one_line};
pub use secret::Secret;
pub use srs::{FirstSender, Srs, SrsError, VALID_DAYS as SRS_VALID_DAYS};
pub use verdict::{DmarcPolicy, Verdict};
