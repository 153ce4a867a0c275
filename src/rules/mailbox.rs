//! Mailbox rules: what a user wants done with the mail that comes into the mailbox. Pure.
//!
//! They come after the organization's rules, and are for mail that goes to the inbox: what is junk
//! by then stays junk, and is not sent on.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use mail_parser::HeaderForm;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::forwarding::Withheld;
use crate::mail::{Address, Addressees, Domain, FieldLines};
use crate::store::Folder;

/// Rules of a mailbox.
pub const MAX_RULES: usize = 100;
/// Conditions of a rule.
pub const MAX_CONDITIONS: usize = 20;
/// How much of a header section is looked at, in octets.
pub const MAX_SECTION: usize = 256 * 1024;
/// How much of a field's value is looked at, in octets.
const MAX_VALUE: usize = 4096;

/// A rule of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailboxRule {
    /// Unique in the mailbox.
    pub name: Arc<str>,
    /// All of them must hold; a rule without any is for all mail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What it does.
    pub action: MailboxAction,
    /// Whether later rules are passed over when this one applies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
}

/// What a mailbox rule does (guide 1557–1558).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MailboxAction {
    /// The message goes into this folder. Of several moves the last one counts.
    Move(Folder),
    /// A further copy goes into this folder.
    Copy(Folder),
    /// A copy is sent on; the message stays in the mailbox.
    Forward(Address),
    /// The message is sent on, and is not kept unless another rule moves or copies it (as
    /// `redirect` of RFC 5228 §4.2).
    Redirect(Address),
    /// The message is not kept. A later move keeps it after all.
    Delete,
}

impl MailboxAction {
    /// The action's name in configuration and events.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Move(_) => "MOVE",
            Self::Copy(_) => "COPY",
            Self::Forward(_) => "FORWARD",
            Self::Redirect(_) => "REDIRECT",
            Self::Delete => "DELETE",
        }
    }

    /// `targetFolder`, for a move or copy.
    pub fn target_folder(&self) -> Option<Folder> {
        match self {
            Self::Move(folder) | Self::Copy(folder) => Some(*folder),
            Self::Forward(_) | Self::Redirect(_) | Self::Delete => None,
        }
    }

    /// `targetRecipient`, for a forward or redirect.
    pub fn target_recipient(&self) -> Option<&Address> {
        match self {
            Self::Forward(to) | Self::Redirect(to) => Some(to),
            Self::Move(_) | Self::Copy(_) | Self::Delete => None,
        }
    }
}

/// Something that must hold for a message. Case never counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// The address in `From` or `Sender`.
    Sender(AddressTest),
    /// The address that the message was sent to, or one in `To` or `Cc`.
    Recipient(AddressTest),
    /// The subject, decoded.
    Subject(TextTest),
    /// A field of this name, any of them, decoded.
    Header(Box<str>, TextTest),
}

/// What an address is held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AddressTest {
    /// It has this text in it.
    Contains(Fold),
    /// It is this one.
    Equals(Address),
    /// It is of this domain.
    Domain(Domain),
}

/// What a text is held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TextTest {
    /// It has this text in it.
    Contains(Fold),
    /// It is this text.
    Equals(Fold),
}

/// A text in lower case, as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "Box<str>")]
pub struct Fold(Box<str>);

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Fold {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<Fold> for Box<str> {
    fn from(fold: Fold) -> Self {
        fold.0
    }
}

impl Fold {
    /// A text in any case.
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase().into())
    }
}

impl AddressTest {
    fn holds(&self, address: &Address) -> bool {
        match self {
            Self::Contains(text) => address.key().contains(&*text.0),
            Self::Equals(other) => address.key() == other.key(),
            Self::Domain(domain) => address.domain() == domain,
        }
    }
}

impl TextTest {
    fn holds(&self, text: &str) -> bool {
        let text = text.trim().to_lowercase();
        match self {
            Self::Contains(part) => text.contains(&*part.0),
            Self::Equals(other) => *text == *other.0,
        }
    }
}

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxRuleError {
    /// More than a mailbox may have.
    #[error("{0} mailbox rules; at most 100 are allowed")]
    TooMany(usize),
    /// More conditions than a rule may have.
    #[error("rule {0} has {1} conditions; at most 20 are allowed")]
    TooManyConditions(Arc<str>, usize),
    /// Two rules of one name.
    #[error("there are two mailbox rules with the name {0}")]
    SameName(Arc<str>),
}

/// A message on its way into a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The envelope's recipient that leads there.
    pub recipient: &'a Address,
    /// All addresses of the `From` field.
    pub authors: &'a [Address],
    /// `Sender`
    pub sender: Option<&'a Address>,
    /// The first `Subject`, decoded.
    pub subject: Option<&'a str>,
    /// Those after it.
    pub more_subjects: &'a [String],
    /// The header section as the mailbox will have it, as far as [`MAX_SECTION`]; without our fields
    /// where no rule looks at fields.
    pub header_section: &'a [u8],
    /// Where it would go without these rules.
    pub folder: Folder,
}

/// What becomes of a message in a mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxOutcome {
    /// Where it goes; `None` if the mailbox keeps it nowhere but in `copies`.
    pub folder: Option<Folder>,
    /// Further folders, each once.
    pub copies: Vec<Folder>,
    /// To whom a copy is sent on, each once.
    pub forwards: Vec<Address>,
    /// To whom it is sent on instead of being kept, each once, and none of `forwards`.
    pub redirects: Vec<Address>,
    /// The rules that applied, in their order.
    pub applied: Vec<AppliedMailboxRule>,
    /// Why a forward or redirect that matched was left out; then the message is kept.
    pub withheld: Option<Withheld>,
}

/// A rule that applied: RULE_APPLIED with `ruleType` MAILBOX_RULE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedMailboxRule {
    /// Its name.
    pub name: Arc<str>,
    /// What it did, to what target.
    pub action: MailboxAction,
}

/// The rules of a mailbox, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MailboxRules(Vec<MailboxRule>);

/// They are checked as any others.
impl<'de> Deserialize<'de> for MailboxRules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            de::Error::custom(errors.join("; "))
        })
    }
}

impl MailboxRules {
    /// Checks rules.
    ///
    /// # Errors
    /// Every [`MailboxRuleError`] there is.
    pub fn new(rules: Vec<MailboxRule>) -> Result<Self, Vec<MailboxRuleError>> {
        let mut errors = Vec::new();
        let mut names = HashSet::new();
        if rules.len() > MAX_RULES {
            errors.push(MailboxRuleError::TooMany(rules.len()));
        }
        for rule in &rules {
            let (name, count) = (Arc::clone(&rule.name), rule.conditions.len());
            if count > MAX_CONDITIONS {
                errors.push(MailboxRuleError::TooManyConditions(Arc::clone(&name), count));
            }
            if !names.insert(&rule.name) {
                errors.push(MailboxRuleError::SameName(name));
            }
        }
        if errors.is_empty() { Ok(Self(rules)) } else { Err(errors) }
    }

    /// The rules.
    pub fn rules(&self) -> &[MailboxRule] {
        &self.0
    }

    /// Whether a condition of theirs is held against fields of the header section.
    pub fn look_at_fields(&self) -> bool {
        let mut conditions = self.0.iter().flat_map(|rule| &rule.conditions);
        conditions.any(|condition| matches!(condition, Condition::Header(..)))
    }

    /// What becomes of a message, if `may_go_to` says for each address whether it may be sent on
    /// there.
    pub fn apply(
        &self,
        message: &Incoming<'_>,
        may_go_to: impl Fn(&Address) -> Result<(), Withheld>,
    ) -> MailboxOutcome {
        let mut sorting = Sorting::new(message.folder, may_go_to);
        if message.folder != Folder::JunkEmail {
            let examined = Examined::new(message);
            for rule in &self.0 {
                if !rule.conditions.iter().all(|condition| examined.meets(condition)) {
                    continue;
                }
                sorting.apply(rule);
                if rule.stop {
                    break;
                }
            }
        }
        sorting.finish()
    }
}

/// Where the message is while rule after rule is applied.
enum Place {
    /// Where it was before the rules; a redirect takes it from there.
    Implicit(Folder),
    Moved(Folder),
    Deleted,
}

struct Sorting<F> {
    place: Place,
    outcome: MailboxOutcome,
    may_go_to: F,
}

impl<F: Fn(&Address) -> Result<(), Withheld>> Sorting<F> {
    fn new(folder: Folder, may_go_to: F) -> Self {
        Self { place: Place::Implicit(folder), outcome: MailboxOutcome::default(), may_go_to }
    }

    fn apply(&mut self, rule: &MailboxRule) {
        let outcome = &mut self.outcome;
        if let Some(to) = rule.action.target_recipient()
            && let Err(reason) = (self.may_go_to)(to)
        {
            outcome.withheld = Some(reason);
            return;
        }
        match &rule.action {
            MailboxAction::Move(folder) => self.place = Place::Moved(*folder),
            MailboxAction::Copy(folder) => outcome.copies.push(*folder),
            MailboxAction::Forward(to) => outcome.forwards.push(to.clone()),
            MailboxAction::Redirect(to) => outcome.redirects.push(to.clone()),
            MailboxAction::Delete => self.place = Place::Deleted,
        }
        let (name, action) = (Arc::clone(&rule.name), rule.action.clone());
        outcome.applied.push(AppliedMailboxRule { name, action });
    }

    fn finish(self) -> MailboxOutcome {
        let Self { place, mut outcome, .. } = self;
        outcome.folder = match place {
            Place::Implicit(folder) => Some(folder).filter(|_| outcome.redirects.is_empty()),
            Place::Moved(folder) => Some(folder),
            Place::Deleted => None,
        };
        let mut folders: HashSet<Folder> = outcome.folder.into_iter().collect();
        outcome.copies.retain(|folder| folders.insert(*folder));
        let mut addresses = HashSet::new();
        outcome.forwards.retain(|to| addresses.insert(to.key()));
        outcome.redirects.retain(|to| addresses.insert(to.key()));
        outcome
    }
}

/// A message that many conditions are held against; what is read from its header section is read
/// when the first one needs it.
struct Examined<'a> {
    message: &'a Incoming<'a>,
    section: &'a [u8],
    addressees: OnceCell<Addressees>,
    fields: OnceCell<HashMap<Vec<u8>, Vec<Range<usize>>>>,
}

impl<'a> Examined<'a> {
    fn new(message: &'a Incoming<'a>) -> Self {
        let section = message.header_section;
        Self {
            message,
            section: section.get(..MAX_SECTION).unwrap_or(section),
            addressees: OnceCell::new(),
            fields: OnceCell::new(),
        }
    }

    fn meets(&self, condition: &Condition) -> bool {
        let message = self.message;
        match condition {
            Condition::Sender(test) => {
                let mut authors = message.authors.iter().chain(message.sender);
                authors.any(|address| test.holds(address))
            }
            Condition::Recipient(test) => {
                let named = self.addressees.get_or_init(|| Addressees::of(self.section));
                let mut all = named.to.iter().chain(&named.cc);
                test.holds(message.recipient) || all.any(|address| test.holds(address))
            }
            Condition::Subject(test) => {
                test.holds(message.subject.unwrap_or_default())
                    || message.more_subjects.iter().any(|subject| test.holds(subject))
            }
            Condition::Header(name, test) => {
                let ranges = self.fields().get(name.to_ascii_lowercase().as_bytes());
                ranges.into_iter().flatten().any(|range| test.holds(&self.value(range)))
            }
        }
    }

    fn fields(&self) -> &HashMap<Vec<u8>, Vec<Range<usize>>> {
        self.fields.get_or_init(|| {
            let mut fields: HashMap<_, Vec<_>> = HashMap::new();
            for (name, range) in FieldLines::new(self.section) {
                fields.entry(name.to_ascii_lowercase()).or_default().push(range);
            }
            fields
        })
    }

    /// A field's value, decoded (RFC 2047).
    fn value(&self, range: &Range<usize>) -> String {
        let field = self.section.get(range.clone()).unwrap_or_default();
        let colon = memchr::memchr(b':', field).map_or(field.len(), |colon| colon + 1);
        let value = field.get(colon..).unwrap_or_default();
        let value = value.get(..MAX_VALUE).unwrap_or(value);
        let parsed = HeaderForm::Text.parse(value);
        parsed.value().as_text().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests;
