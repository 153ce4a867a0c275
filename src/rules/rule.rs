//! A rule: who from, who to, and what then.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::pattern::Pattern;

/// How the rules of a direction are held against the two fields that say who a message is from
/// (guide 3774).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOrder {
    /// Inbound: the `Sender` first; the `From` if there is none or it matches no rule.
    SenderFirst {
        /// The precedence of the action that is what happens where no rule matches.
        without_rule: u8,
    },
    /// Outbound: either of them, whichever rule is the most specific.
    Either,
}

/// What the rules of one direction can do.
pub trait Action: Clone + fmt::Debug + fmt::Display + PartialEq {
    /// How the direction's rules are held against `Sender` and `From`.
    const FIELDS: FieldOrder;

    /// The action's name in configuration and events.
    fn as_str(&self) -> &'static str;

    /// Its place in the guide's list of the direction's actions, which is the order of precedence
    /// among equally specific rules (guide 3780): the smaller wins.
    fn precedence(&self) -> u8;

    /// The name of the SMTP gateway that it routes to, if it does.
    fn gateway(&self) -> Option<&str> {
        None
    }

    /// The action of that name, with a gateway where it is one that takes one.
    fn of(word: &str, gateway: Option<Arc<str>>) -> Option<Self>;
}

/// What an inbound rule does, in the order of the guide's list (3716–3726).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundAction {
    /// *Drop email*
    Drop,
    /// *Send bounce response*
    Bounce,
    /// *Deliver to junk folder*
    MoveToJunk,
    /// *Default*
    Default,
    /// *Never deliver to junk folder*
    BypassSpamCheck,
}

impl InboundAction {
    /// All actions.
    pub const ALL: [Self; 5] =
        [Self::Drop, Self::Bounce, Self::MoveToJunk, Self::Default, Self::BypassSpamCheck];
}

impl Action for InboundAction {
    const FIELDS: FieldOrder = FieldOrder::SenderFirst { without_rule: Self::Default as u8 };

    fn as_str(&self) -> &'static str {
        match self {
            Self::Drop => "DROP",
            Self::Bounce => "BOUNCE",
            Self::MoveToJunk => "MOVE_TO_JUNK",
            Self::Default => "DEFAULT",
            Self::BypassSpamCheck => "BYPASS_SPAM_CHECK",
        }
    }

    fn precedence(&self) -> u8 {
        *self as u8 // They are declared in the guide's order.
    }

    fn of(word: &str, gateway: Option<Arc<str>>) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word && gateway.is_none())
    }
}

impl fmt::Display for InboundAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an outbound rule does, in the order of the guide's list (3737–3742). There *Default*
/// stands before *Drop*.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundAction {
    /// *Default*: the message goes the normal way.
    Default,
    /// *Drop email*: it is not sent, and nobody is told.
    Drop,
    /// *Send bounce response*: it is not sent, and the sender is told.
    Bounce,
    /// *Route to SMTP gateway*
    RouteToSmtpGateway {
        /// The name of one of the organization's gateways.
        gateway: Arc<str>,
    },
}

impl Action for OutboundAction {
    const FIELDS: FieldOrder = FieldOrder::Either;

    fn as_str(&self) -> &'static str {
        match self {
            Self::Default => "DEFAULT",
            Self::Drop => "DROP",
            Self::Bounce => "BOUNCE",
            Self::RouteToSmtpGateway { .. } => "ROUTE_TO_SMTP_GATEWAY",
        }
    }

    fn precedence(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::Drop => 1,
            Self::Bounce => 2,
            Self::RouteToSmtpGateway { .. } => 3,
        }
    }

    fn gateway(&self) -> Option<&str> {
        match self {
            Self::RouteToSmtpGateway { gateway } => Some(gateway),
            Self::Default | Self::Drop | Self::Bounce => None,
        }
    }

    fn of(word: &str, gateway: Option<Arc<str>>) -> Option<Self> {
        if let Some(gateway) = gateway {
            let action = Self::RouteToSmtpGateway { gateway };
            return (action.as_str() == word).then_some(action);
        }
        let mut others = [Self::Default, Self::Drop, Self::Bounce].into_iter();
        others.find(|action| action.as_str() == word)
    }
}

impl fmt::Display for OutboundAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An email flow rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<A> {
    /// Unique among the rules of its direction.
    pub name: Arc<str>,
    /// What it does.
    pub action: A,
    /// Whose mail it is for.
    pub senders: Vec<Pattern>,
    /// Which recipients it is for.
    pub destinations: Vec<Pattern>,
}

/// A rule as it is written down: the action by its name. Derived, an action that has nothing else to
/// say would let fields pass that nobody knows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    name: Arc<str>,
    action: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<Arc<str>>,
    senders: Cow<'a, [Pattern]>,
    destinations: Cow<'a, [Pattern]>,
}

impl<A: Action> Serialize for Rule<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, action, senders, destinations } = self;
        let written = Written {
            name: Arc::clone(name),
            action: action.as_str().into(),
            gateway: action.gateway().map(Into::into),
            senders: senders.into(),
            destinations: destinations.into(),
        };
        written.serialize(serializer)
    }
}

impl<'de, A: Action> Deserialize<'de> for Rule<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { name, action, gateway, senders, destinations } =
            Written::deserialize(deserializer)?;
        let action = A::of(&action, gateway)
            .ok_or_else(|| de::Error::custom(format!("rule {name} has no action {action}")))?;
        let senders = senders.into_owned();
        Ok(Self { name, action, senders, destinations: destinations.into_owned() })
    }
}

/// A rule for mail that comes in.
pub type InboundRule = Rule<InboundAction>;
/// A rule for mail that users send.
pub type OutboundRule = Rule<OutboundAction>;

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// More sender patterns than a rule may have (product contract §7).
    #[error("rule {0} has {1} sender patterns; at most 250 are allowed")]
    TooManySenders(Arc<str>, usize),
    /// More sender patterns than an organization may have (product contract §7, guide 3437).
    #[error("the rules have {0} sender patterns together; at most 1000 are allowed")]
    TooManyInAll(usize),
    /// A list that matches nobody.
    #[error("rule {0} has no {1}")]
    NoPatterns(Arc<str>, &'static str),
    /// Two rules of one name.
    #[error("there are two rules with the name {0}")]
    SameName(Arc<str>),
}
