//! Message authentication: SPF, DKIM, DMARC, ARC and iprev, and what they say in a message's
//! header. Knows DNS answers and messages, no organization and no rule. (`auth` would mean
//! logging in.)

mod settings;

pub use settings::Settings;
