//! Why something is refused: one table of reason words, each with its reply code, enhanced status
//! code and text. A refusal ends with `[word trace-id]`; `docs/refusals.md` lists the same table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One row of the table.
struct Row {
    reason: Reason,
    word: &'static str,
    code: u16,
    enhanced: &'static str,
    text: &'static str,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $code:literal, $enhanced:literal, $text:literal;)+) => {
        /// Why a command, a recipient or a message is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        static TABLE: &[Row] = &[
            $(Row { reason: Reason::$name, word: $word, code: $code, enhanced: $enhanced, text: $text },)+
        ];
    };
}

reasons! {
    // The connection.
    /// The client's network is denied by configuration.
    NetworkDenied = "network-denied", 554, "5.7.1", "Your network may not send here";
    /// The client talked before the banner.
    EarlyTalker = "early-talker", 554, "5.5.0", "You spoke before the banner";
    /// All connections are taken.
    TooManyConnections = "too-many-connections", 421, "4.3.2", "Too many connections, try again later";
    /// This network's share of the connections is taken.
    TooManyFromNetwork = "too-many-from-network", 421, "4.7.0", "Too many connections from your network, try again later";
    /// This network has asked for too many recipients who do not exist.
    TooManyUnknownUsers = "too-many-unknown-users", 421, "4.7.0", "Too many unknown recipients from your network, try again later";
    /// The daemon is stopping.
    ShuttingDown = "shutting-down", 421, "4.3.2", "Shutting down, try again later";
    /// No PROXY header where one is required, or one that cannot be read.
    BadProxyHeader = "bad-proxy-header", 421, "4.3.0", "PROXY protocol header missing or invalid";
    /// The client was silent or slow for too long.
    TimedOut = "timed-out", 421, "4.4.2", "Timed out waiting for you";
    /// More bad commands than are tolerated.
    TooManyErrors = "too-many-errors", 421, "4.7.0", "Too many errors";
    /// More transactions than one connection may have.
    TooManyTransactions = "too-many-transactions", 421, "4.7.0", "Too many messages on this connection, open another";
    // Commands.
    /// The command is not known.
    UnknownCommand = "unknown-command", 500, "5.5.2", "Command not recognized";
    /// The line is longer than allowed.
    LineTooLong = "line-too-long", 500, "5.5.2", "Line too long";
    /// The line has a bare CR, a bare LF or a NUL.
    BadLineEnding = "bad-line-ending", 500, "5.5.2", "Lines end with CR LF and hold neither NUL nor a bare CR or LF";
    /// The argument cannot be read.
    BadSyntax = "bad-syntax", 501, "5.5.4", "Syntax error in the argument";
    /// The address cannot be read.
    BadAddress = "bad-address", 501, "5.1.3", "Syntax error in the address";
    /// The reverse-path cannot be read.
    BadSender = "bad-sender", 501, "5.1.7", "Syntax error in the sender's address";
    /// A known command that this listener does not offer.
    NotImplemented = "not-implemented", 502, "5.5.1", "Command not implemented";
    /// The command may not come now.
    BadSequence = "bad-sequence", 503, "5.5.1", "Command out of sequence";
    /// MAIL or RCPT has a parameter that is not known.
    UnknownParameter = "unknown-parameter", 555, "5.5.4", "Parameter not recognized";
    /// TLS is already running.
    AlreadyTls = "already-tls", 503, "5.5.1", "TLS is already active";
    /// TLS cannot be started.
    TlsUnavailable = "tls-unavailable", 454, "4.7.0", "TLS not available, try again later";
    /// An internationalized address without SMTPUTF8.
    NeedsSmtpUtf8 = "needs-smtp-utf8", 553, "5.6.7", "This address needs SMTPUTF8";
    // Logging in.
    /// A submission listener before STARTTLS.
    MustStartTls = "must-start-tls", 530, "5.7.0", "Must issue a STARTTLS command first";
    /// A submission listener before AUTH.
    AuthenticationRequired = "authentication-required", 530, "5.7.0", "Authentication required";
    /// The client has logged in already.
    AlreadyAuthenticated = "already-authenticated", 503, "5.5.1", "Already authenticated";
    /// AUTH with a mechanism that is not offered.
    UnknownMechanism = "unknown-mechanism", 504, "5.5.4", "Authentication mechanism not supported";
    /// A response that is not base64, or not what the mechanism asks for.
    BadAuthResponse = "bad-auth-response", 501, "5.5.2", "Cannot decode the authentication response";
    /// A response that is longer than allowed.
    AuthLineTooLong = "auth-line-too-long", 500, "5.5.6", "Authentication exchange line is too long";
    /// The client gave the exchange up.
    AuthenticationCancelled = "authentication-cancelled", 501, "5.7.0", "Authentication cancelled";
    /// No such user, or not this password; which of them is not told.
    BadCredentials = "bad-credentials", 535, "5.7.8", "Authentication credentials invalid";
    /// Passwords cannot be checked now.
    AuthenticationUnavailable = "authentication-unavailable", 454, "4.7.0", "Temporary authentication failure, try again later";
    /// Logins for this account, or from this network, have failed too often.
    LoginsThrottled = "logins-throttled", 454, "4.7.0", "Too many failed logins, try again later";
    /// Logins on this connection have failed too often.
    TooManyFailedLogins = "too-many-failed-logins", 421, "4.7.0", "Too many failed logins on this connection";
    /// The organization's access control rules deny it. RFC 4954 §6 has 535 for credentials that
    // Recipients.
    /// There is nobody of that name.
    UnknownUser = "unknown-user", 550, "5.1.1", "No such user here";
    /// The user, group or resource is disabled.
    DisabledUser = "disabled-user", 550, "5.2.1", "Mailbox disabled";
    /// The domain is not one of ours.
    RelayDenied = "relay-denied", 550, "5.7.1", "Relaying denied";
    /// The user's mailbox is elsewhere: at an address that leads nowhere, or where logins do not help.
    RemoteUser = "remote-user", 550, "5.1.6", "This user's mailbox is elsewhere";
    /// A group that expands to more recipients than allowed.
    GroupTooLarge = "group-too-large", 550, "5.2.4", "The group has too many members";
    /// A group without a single deliverable member.
    EmptyGroup = "empty-group", 550, "5.2.4", "The group has no members";
    /// More recipients than a message may have.
    TooManyRecipients = "too-many-recipients", 452, "4.5.3", "Too many recipients";
    /// The mailbox has reached its quota.
    MailboxFull = "mailbox-full", 552, "5.2.2", "Mailbox full";
    /// More bounces of forwarded mail than are led back in an hour, from this network or to this
    /// sender.
    TooManyBounces = "too-many-bounces", 450, "4.7.1", "Too many bounces of forwarded mail, try again later";
    /// The mailbox has reached its quota, and the grace has not ended; or it has since RCPT, or is a
    /// group member's, nobody may be told of the message, and the postmaster has no room for it.
    MailboxFullGrace = "mailbox-full-grace", 452, "4.2.2", "Mailbox full, try again later";
    // The message.
    /// Larger than the limit.
    MessageTooBig = "message-too-big", 552, "5.3.4", "Message too big";
    /// The header section is larger than the limit.
    HeaderTooBig = "header-too-big", 552, "5.3.4", "Header section too big";
    /// A bare CR or LF inside DATA (smuggling), or a bare CR in a chunk.
    BareNewline = "bare-newline", 550, "5.6.0", "Bare CR or LF in the message";
    /// More Received fields than allowed: a loop.
    TooManyHops = "too-many-hops", 554, "5.4.6", "Too many Received fields, this looks like a loop";
    /// No From field, or an empty one, in mail from outside.
    NoAuthor = "no-author", 550, "5.7.1", "The message has no author: it needs a From field with an address";
    /// Two From fields, two Sender fields in a submission, or authors of several domains that are not one organization's, as far as DNS tells.
    SeveralAuthors = "several-authors", 550, "5.7.1", "The message has more than one From or Sender field, or authors of several domains";
    /// Authors of several domains, and DNS does not tell now whether they are one organization's.
    AuthorsUnconfirmed = "authors-unconfirmed", 451, "4.4.3", "DNS does not tell whether the authors' domains are one organization's, try again later";
    /// A From or Sender field in which readers of mail find different addresses, or none.
    UnreadableAuthor = "unreadable-author", 550, "5.7.1", "The address in the From or Sender field cannot be read by all mail programs alike";
    /// The envelope's or the header's sender is the address from which journal records come.
    ReservedAddress = "reserved-address", 550, "5.7.1", "Nothing but journal records comes from this address";
    /// A submitted message with more header fields than a signature can cover.
    TooManyFields = "too-many-fields", 550, "5.6.0", "Too many header fields to sign";
    /// A submitted message whose header section has a line that is no field.
    MalformedHeader = "malformed-header", 550, "5.6.0", "The header section has lines that are not fields";
    /// A submitted message with a line of more than 998 octets that cannot be folded or encoded.
    LongLine = "long-line", 550, "5.6.0", "A line of the message is longer than 998 octets and cannot be broken";
    /// More attachments than a message may have.
    TooManyAttachments = "too-many-attachments", 552, "5.6.0", "Too many attachments";
    /// The domain's DMARC policy says reject.
    DmarcReject = "dmarc-reject", 550, "5.7.1", "Refused by the DMARC policy of the author's domain";
    /// An email flow rule bounces it for every recipient.
    RuleBounce = "rule-bounce", 550, "5.7.1", "Refused by the recipient organization's rules";
    /// The store cannot take it now.
    StoreFailure = "store-failure", 452, "4.3.1", "Cannot store the message now, try again later";
    /// Less of the disk is free than stays free.
    DiskLow = "disk-low", 452, "4.3.1", "Not enough room for the message now, try again later";
    /// As much mail of the sender waits to leave as may.
    SenderQueueFull = "sender-queue-full", 452, "4.3.1", "Too much mail of this sender waits to leave, try again later";
    /// As much mail of the organization waits to leave as may.
    OrganizationQueueFull = "organization-queue-full", 452, "4.3.1", "Too much mail of this organization waits to leave, try again later";
    /// As much mail waits to leave as may.
    QueueFull = "queue-full", 452, "4.3.1", "Too much mail waits to leave, try again later";
    /// Too much mail is in flight or waits to be worked on.
    Overloaded = "overloaded", 421, "4.3.2", "Overloaded, try again later";
    // Submission.
    /// The user may not send as the author, the `Sender` or the reverse-path.
    SenderNotAllowed = "sender-not-allowed", 550, "5.7.1", "You may not send as this sender";
    /// An attachment of a kind that the organization does not let out.
    BlockedAttachment = "blocked-attachment", 550, "5.7.1", "An attachment is of a kind that may not be sent";
    /// It cannot be said which attachments it has, where some are not let out.
    MalformedMime = "malformed-mime", 550, "5.6.0", "The parts of the message can be read in more than one way";
    /// An outbound email flow rule bounces it for every recipient.
    OutboundRuleBounce = "outbound-rule-bounce", 550, "5.7.1", "Your administrator has blocked this message";
    /// The user has written to as many recipients outside as a day may have.
    UserQuotaExceeded = "user-quota-exceeded", 550, "5.4.5", "You have written to too many recipients today";
    /// All users of the organization together have.
    OrganizationQuotaExceeded = "organization-quota-exceeded", 550, "5.4.5", "Your organization has written to too many recipients today";
    /// The user has written to as many mailboxes of the organization as a day may have.
    InsideQuotaExceeded = "inside-quota-exceeded", 550, "5.4.5", "You have written to too many mailboxes of your organization today";
    /// A fault of ours.
    InternalError = "internal-error", 451, "4.3.0", "Internal error, try again later";
}

impl Reason {
    /// The word in replies, logs and `events trace`.
    pub fn word(self) -> &'static str {
        self.row().word
    }

    /// The reply code.
    pub fn code(self) -> u16 {
        self.row().code
    }

    /// The enhanced status code (RFC 3463); its class is always that of [`Reason::code`].
    pub fn enhanced(self) -> &'static str {
        self.row().enhanced
    }

    /// The text for the peer: generic, without detail of ours.
    pub fn text(self) -> &'static str {
        self.row().text
    }

    /// Whether the client may try again.
    pub fn is_transient(self) -> bool {
        self.code() < 500
    }

    /// Every reason, in the order of the documented table.
    pub fn all() -> impl Iterator<Item = Reason> {
        TABLE.iter().map(|row| row.reason)
    }

    fn row(self) -> &'static Row {
        // The macro lists variants and rows in the same order, so the discriminant is the index.
        &TABLE[self as usize]
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_row_is_its_own_and_its_two_codes_agree() {
        let mut words = HashSet::new();
        for reason in Reason::all() {
            assert_eq!(reason.row().reason, reason);
            assert!(words.insert(reason.word()), "{reason} stands twice");
            let class = reason.code() / 100;
            assert!(reason.enhanced().starts_with(&class.to_string()), "{reason}");
            let json = serde_json::to_string(&reason).expect("serializes");
            assert_eq!(json, format!("\"{}\"", reason.word()), "one spelling everywhere");
        }
    }
}
