//! Why a rule did not win, in words.

use serde::Serialize;

/// Why a rule lost. Of two reasons the later is that of the field that came nearer to a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// No sender pattern matches.
    SenderDoesNotMatch,
    /// No destination pattern matches.
    DestinationDoesNotMatch,
    /// A rule that sends mail for `*` to a gateway is for mail that leaves.
    NotBetweenUsersHere,
    /// It matches `From`, and a rule matches `Sender`, which comes first (guide 3774).
    SenderComesFirst,
    /// It matches `Sender` alone, which nothing proves, and would be milder than `From` is.
    UnprovenSender,
    /// It matches `From`, but a rule for `Sender` is at least as strict.
    SenderIsStricter,
    /// Both match, but the winner's sender pattern is more specific.
    LessSpecificSender,
    /// As specific in the sender, less so in the destination.
    LessSpecificDestination,
    /// As specific, but the winner's action stands earlier in the guide's list.
    LessRestrictiveAction,
    /// Equal in all, but later in the file.
    LaterInFile,
}

impl Loss {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SenderDoesNotMatch => "no sender pattern matches",
            Self::DestinationDoesNotMatch => "no destination pattern matches",
            Self::NotBetweenUsersHere => {
                "its destination pattern * sends no mail between users here to a gateway"
            }
            Self::SenderComesFirst => "it matches From, and Sender is matched first",
            Self::UnprovenSender => {
                "it matches Sender, which is not authenticated, and so may not relax what From \
                 comes to"
            }
            Self::SenderIsStricter => {
                "it matches From, and a rule for Sender is at least as strict"
            }
            Self::LessSpecificSender => "its sender pattern is less specific",
            Self::LessSpecificDestination => "its destination pattern is less specific",
            Self::LessRestrictiveAction => "its action comes later in the order of precedence",
            Self::LaterInFile => "it stands later in the file",
        }
    }
}
