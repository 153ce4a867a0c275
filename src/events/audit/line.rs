//! The lines of the audit logs: flat, snake_case. Absent is absent.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::arn::{ArnSettings, OrganizationArn};
use crate::clock::Timestamp;
use crate::id::{EntityId, TraceId};

/// Characters of a user name that are recorded; an address has fewer, an attacker may send more.
const MAX_USER: usize = 320;

/// Which log a line belongs to: its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogType {
    /// Login attempts.
    Authentication,
    /// What the access control rules said.
    AccessControl,
    /// What was done to messages of a mailbox.
    MailboxAccess,
    /// Personal access tokens made and removed.
    PersonalAccessToken,
}

impl LogType {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Authentication, Self::AccessControl, Self::MailboxAccess, Self::PersonalAccessToken];

    /// `audit/<this>.jsonl`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::AccessControl => "access-control",
            Self::MailboxAccess => "mailbox-access",
            Self::PersonalAccessToken => "personal-access-token",
        }
    }
}

/// What every line is about. It shares its texts with others, since there may be many lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    at: Timestamp,
    request_id: TraceId,
    organization: Option<Arc<str>>,
    user: Option<EntityId>,
}

impl Occasion {
    /// Something that happens under a trace id, in the organization of this id, if it is known,
    /// and by the user of this id, if there is one.
    pub fn new(
        at: Timestamp,
        request_id: TraceId,
        organization: Option<Arc<str>>,
        user: Option<EntityId>,
    ) -> Self {
        Self { at, request_id, organization, user }
    }
}

/// By what a mailbox was used, as far as Mailweir has it; `cli` is ours, the others are the
/// guide's (1636, 1660, 1684).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Protocol {
    #[serde(rename = "SMTP")]
    Smtp,
    IncomingEmail,
    #[serde(rename = "cli")]
    CommandLine,
}

/// Why a login failed. The peer is not told; the operator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthFailure {
    /// The name is no user's.
    UnknownUser,
    /// The user is disabled.
    UserDisabled,
    /// The user's mailbox is elsewhere.
    RemoteUser,
    /// The user has no password.
    NoPassword,
    /// It is not the user's password.
    WrongPassword,
    /// It is no personal access token of the user's.
    UnknownToken,
    /// The personal access token has expired.
    ExpiredToken,
    /// The account has had too many failures; nothing was verified.
    TooManyFailures,
    /// A password that was to be set is not as good as it must be.
    WeakPassword,
    /// Nothing could be verified: a fault of ours, or too many logins at once.
    Unavailable,
}

impl AuthFailure {
    /// Its word, as the audit log has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown-user",
            Self::UserDisabled => "user-disabled",
            Self::RemoteUser => "remote-user",
            Self::NoPassword => "no-password",
            Self::WrongPassword => "wrong-password",
            Self::UnknownToken => "unknown-token",
            Self::ExpiredToken => "expired-token",
            Self::TooManyFailures => "too-many-failures",
            Self::WeakPassword => "weak-password",
            Self::Unavailable => "unavailable",
        }
    }
}

/// An authentication line (guide 1668–1690). SMTP has no user agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Authentication {
    #[serde(skip)]
    occasion: Occasion,
    /// The name tried.
    user: String,
    protocol: Protocol,
    /// Absent for commands, which come from nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ip: Option<IpAddr>,
    method: &'static str,
    auth_successful: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_failed_reason: Option<AuthFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    personal_access_token_id: Option<String>,
}

impl Authentication {
    /// A login attempt over SMTP with this user name, from this address.
    pub fn smtp(
        occasion: Occasion,
        user: &str,
        source_ip: IpAddr,
        outcome: Result<(), AuthFailure>,
        token_id: Option<&str>,
    ) -> Self {
        Self {
            occasion,
            user: user.chars().take(MAX_USER).collect(),
            protocol: Protocol::Smtp,
            source_ip: Some(source_ip),
            method: "basic",
            auth_successful: outcome.is_ok(),
            auth_failed_reason: outcome.err(),
            personal_access_token_id: token_id.map(str::to_owned),
        }
    }
}

impl Authentication {
    /// A command of ours that sets the password of a user, or tries to.
    pub fn password_by_command(
        occasion: Occasion,
        user: &str,
        outcome: Result<(), AuthFailure>,
    ) -> Self {
        Self {
            occasion,
            user: user.chars().take(MAX_USER).collect(),
            protocol: Protocol::CommandLine,
            source_ip: None,
            method: "set-password",
            auth_successful: outcome.is_ok(),
            auth_failed_reason: outcome.err(),
            personal_access_token_id: None,
        }
    }
}

/// An access control line (guide 1650–1666).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessControl {
    #[serde(skip)]
    occasion: Occasion,
    protocol: Protocol,
    source_ip: IpAddr,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_id: Option<String>,
    access_granted: bool,
}

impl AccessControl {
    /// What the rules said to a login over SMTP; `rule` is the first that led to it, if any did.
    pub fn smtp(
        occasion: Occasion,
        source_ip: IpAddr,
        rule: Option<&str>,
        access_granted: bool,
    ) -> Self {
        Self {
            occasion,
            protocol: Protocol::Smtp,
            source_ip,
            scope: "AccessControl",
            rule_id: rule.map(str::to_owned),
            access_granted,
        }
    }
}

/// What was done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Create,
    Read,
    ReadSummary,
    SubmitEmailForSending,
}

/// A mailbox access line (guide 1624–1648).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MailboxAccess {
    #[serde(skip)]
    occasion: Occasion,
    protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ip: Option<IpAddr>,
    action: Action,
    owner_id: EntityId,
    object_type: &'static str,
    /// Absent where it is about a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    item_id: Option<TraceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder_path: Option<&'static str>,
    action_allowed: bool,
}

impl MailboxAccess {
    /// A message came into a folder of the owner's mailbox; nobody is logged in. `source_ip` is
    /// absent where the message was made here. The item is the message under the occasion's id.
    pub fn delivered(
        occasion: Occasion,
        source_ip: Option<IpAddr>,
        owner: EntityId,
        folder: &'static str,
    ) -> Self {
        Self {
            protocol: Protocol::IncomingEmail,
            source_ip,
            action: Action::Create,
            owner_id: owner,
            object_type: "Message",
            item_id: Some(occasion.request_id),
            folder_path: Some(folder),
            action_allowed: true,
            occasion,
        }
    }

    /// A message was to come into the owner's mailbox, which has no room for it.
    pub fn without_room(occasion: Occasion, source_ip: IpAddr, owner: EntityId) -> Self {
        Self {
            protocol: Protocol::IncomingEmail,
            source_ip: Some(source_ip),
            action: Action::Create,
            owner_id: owner,
            object_type: "Message",
            item_id: Some(occasion.request_id),
            folder_path: None,
            action_allowed: false,
            occasion,
        }
    }

    /// The occasion's user submitted a message as the owner of a mailbox, or tried to.
    pub fn submitted(
        occasion: Occasion,
        source_ip: IpAddr,
        owner: EntityId,
        action_allowed: bool,
    ) -> Self {
        Self {
            protocol: Protocol::Smtp,
            source_ip: Some(source_ip),
            action: Action::SubmitEmailForSending,
            owner_id: owner,
            object_type: "Message",
            item_id: Some(occasion.request_id),
            folder_path: None,
            action_allowed,
            occasion,
        }
    }
}

impl MailboxAccess {
    /// An administrator's command reads a message of the owner's mailbox, or tries to; `folder` is
    /// absent where there is no such message.
    pub fn read_by_command(
        occasion: Occasion,
        owner: EntityId,
        item: TraceId,
        folder: Option<&'static str>,
    ) -> Self {
        Self {
            protocol: Protocol::CommandLine,
            source_ip: None,
            action: Action::Read,
            owner_id: owner,
            object_type: "Message",
            item_id: Some(item),
            folder_path: folder,
            action_allowed: true,
            occasion,
        }
    }

    /// An administrator's command lists a folder of the owner's mailbox.
    pub fn listed_by_command(occasion: Occasion, owner: EntityId, folder: &'static str) -> Self {
        Self {
            protocol: Protocol::CommandLine,
            source_ip: None,
            action: Action::ReadSummary,
            owner_id: owner,
            object_type: "Folder",
            item_id: None,
            folder_path: Some(folder),
            action_allowed: true,
            occasion,
        }
    }
}

/// What became of a personal access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenAction {
    /// It was made.
    Create,
    /// It was removed.
    Delete,
}

/// A personal access token line (guide 1692–1710). Commands have no address to come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PersonalAccessToken {
    #[serde(skip)]
    occasion: Occasion,
    user: String,
    protocol: Protocol,
    user_agent: &'static str,
    action: TokenAction,
    /// Absent where no such token is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_time: Option<Timestamp>,
    scopes: Vec<String>,
    /// Why it did not come to it; ours, since the guide has no field for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_reason: Option<String>,
}

impl PersonalAccessToken {
    /// A token of the user with this address, made or removed by a command of ours. One that
    /// never expires has no `expires_time`, which is in ms since the Unix epoch.
    pub fn by_command(
        occasion: Occasion,
        user: &str,
        action: TokenAction,
        (name, scopes): (&str, &[String]),
        expires_time: Option<Timestamp>,
    ) -> Self {
        Self {
            occasion,
            user: user.to_owned(),
            protocol: Protocol::CommandLine,
            user_agent: "mailweir",
            action,
            name: Some(name.to_owned()),
            expires_time,
            scopes: scopes.to_vec(),
            failed_reason: None,
        }
    }

    /// An attempt that came to nothing, with the name of the token as far as it is known.
    pub fn failed_by_command(
        occasion: Occasion,
        user: &str,
        action: TokenAction,
        name: Option<&str>,
        reason: &str,
    ) -> Self {
        Self {
            occasion,
            user: user.chars().take(MAX_USER).collect(),
            protocol: Protocol::CommandLine,
            user_agent: "mailweir",
            action,
            name: name.map(str::to_owned),
            expires_time: None,
            scopes: Vec::new(),
            failed_reason: Some(reason.chars().take(MAX_USER).collect()),
        }
    }
}

/// A line of one of the logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditLine {
    /// Of `authentication.jsonl`.
    Authentication(Authentication),
    /// Of `access-control.jsonl`.
    AccessControl(AccessControl),
    /// Of `mailbox-access.jsonl`.
    MailboxAccess(MailboxAccess),
    /// Of `personal-access-token.jsonl`.
    PersonalAccessToken(PersonalAccessToken),
}

impl AuditLine {
    /// Which log it belongs to.
    pub fn log_type(&self) -> LogType {
        match self {
            Self::Authentication(_) => LogType::Authentication,
            Self::AccessControl(_) => LogType::AccessControl,
            Self::MailboxAccess(_) => LogType::MailboxAccess,
            Self::PersonalAccessToken(_) => LogType::PersonalAccessToken,
        }
    }

    /// When it happened.
    pub(super) fn at(&self) -> Timestamp {
        match self {
            Self::Authentication(line) => line.occasion.at,
            Self::AccessControl(line) => line.occasion.at,
            Self::MailboxAccess(line) => line.occasion.at,
            Self::PersonalAccessToken(line) => line.occasion.at,
        }
    }

    /// Appends the line with its LF.
    pub(super) fn write_to(&self, arns: &ArnSettings, lines: &mut Vec<u8>) {
        match self {
            Self::Authentication(line) => line.occasion.write_with(line, arns, lines),
            Self::AccessControl(line) => line.occasion.write_with(line, arns, lines),
            Self::MailboxAccess(line) => line.occasion.write_with(line, arns, lines),
            Self::PersonalAccessToken(line) => line.occasion.write_with(line, arns, lines),
        }
    }
}

/// A line as it is written: what all have, then what is its kind's.
#[derive(Serialize)]
struct Written<'a, T> {
    /// When it happened, ms since the Unix epoch.
    event_timestamp: Timestamp,
    /// The trace id of the message or of the login attempt.
    request_id: TraceId,
    /// The user's organization; absent if a login names none of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_arn: Option<OrganizationArn<'a>>,
    /// The id of the user who did it; absent if nobody is logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a EntityId>,
    #[serde(flatten)]
    rest: &'a T,
}

impl Occasion {
    fn write_with<T: Serialize>(&self, rest: &T, arns: &ArnSettings, lines: &mut Vec<u8>) {
        let line = Written {
            event_timestamp: self.at,
            request_id: self.request_id,
            organization_arn: self.organization.as_deref().map(|id| arns.organization(id)),
            user_id: self.user.as_ref(),
            rest,
        };
        serde_json::to_writer(&mut *lines, &line)
            .expect("a line has only strings, numbers and lists, which always serialize");
        lines.push(b'\n');
    }
}

impl From<Authentication> for AuditLine {
    fn from(line: Authentication) -> Self {
        Self::Authentication(line)
    }
}

impl From<AccessControl> for AuditLine {
    fn from(line: AccessControl) -> Self {
        Self::AccessControl(line)
    }
}

impl From<MailboxAccess> for AuditLine {
    fn from(line: MailboxAccess) -> Self {
        Self::MailboxAccess(line)
    }
}

impl From<PersonalAccessToken> for AuditLine {
    fn from(line: PersonalAccessToken) -> Self {
        Self::PersonalAccessToken(line)
    }
}
