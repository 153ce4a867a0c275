//! Message authentication: SPF, DKIM, DMARC, ARC and iprev, and what they say in a message's
//! header. Knows DNS answers and messages, no organization and no rule. (`auth` would mean
//! logging in.)

mod outcome;
mod results;
mod settings;
pub mod spf;

pub use outcome::{
    ArcOutcome, ArcResult, Authentication, DkimOutcome, DkimResult, DmarcOutcome, DmarcResult,
    IprevOutcome, IprevResult,
};
pub use settings::Settings;
