//! The events of WorkMail's email event log (guide 1520–1616, `contracts.md` §1.2). Absent is
//! absent: never null, never an empty text.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::mail::{DmarcPolicy, Verdict};

/// Something that happened to a message, and is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventName", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Event {
    /// An organization received a message; one for each message, however many its recipients.
    #[serde(rename = "ORGANIZATION_EMAIL_RECEIVED")]
    EmailReceived(EmailReceived),
    /// A DMARC policy was applied.
    DmarcPolicyApplied(DmarcPolicyApplied),
    /// An email flow rule was applied; one for each rule.
    RuleApplied(RuleApplied),
    /// A journal record is on its way.
    JournalingInitiated(JournalingInitiated),
    /// A message is in a mailbox; one for each mailbox.
    #[serde(rename = "MAILBOX_EMAIL_DELIVERED")]
    MailboxDelivered(MailboxDelivered),
    /// A recipient did not get the message; one for each recipient.
    #[serde(rename = "INCOMING_EMAIL_BOUNCED")]
    IncomingBounced(IncomingBounced),
    /// A user submitted a message; one for each message.
    #[serde(rename = "OUTGOING_EMAIL_SUBMITTED")]
    OutgoingSubmitted(OutgoingSubmitted),
    /// A recipient's server has taken the message; one for each recipient.
    #[serde(rename = "OUTGOING_EMAIL_SENT")]
    OutgoingSent(OutgoingSent),
    /// A recipient does not get the message; one for each recipient.
    #[serde(rename = "OUTGOING_EMAIL_BOUNCED")]
    OutgoingBounced(OutgoingBounced),
}

/// ORGANIZATION_EMAIL_RECEIVED (guide 1520–1546).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmailReceived {
    /// The envelope's recipients in this organization, in RCPT order.
    pub recipients: Vec<String>,
    /// The `Sender` field's address; only when it differs from `from`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender: Option<String>,
    /// The `From` field's (first) address; absent if the message has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// The decoded `Subject` field; absent if there is none or it is empty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<String>,
    /// The `Message-ID` field with its angle brackets; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message_id: Option<String>,
    /// What the scanner said.
    pub spam_verdict: Verdict,
    /// What DKIM said.
    pub dkim_verdict: Verdict,
    /// What DMARC said.
    pub dmarc_verdict: Verdict,
    /// The policy that applies; only when `dmarc_verdict` is FAIL.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dmarc_policy: Option<DmarcPolicy>,
    /// What SPF said.
    pub spf_verdict: Verdict,
    /// When the message was received, ms since the Unix epoch.
    pub message_timestamp: Timestamp,
}

/// DMARC_POLICY_APPLIED (guide 1604–1616).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DmarcPolicyApplied {
    /// The `From` field's address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// The envelope's recipients in this organization.
    pub recipients: Vec<String>,
    /// The applied policy.
    pub policy: DmarcPolicy,
}

/// Of which list a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RuleType {
    /// An inbound email flow rule of the organization.
    InboundRule,
    /// An outbound email flow rule of the organization.
    OutboundRule,
    /// A rule of one mailbox.
    MailboxRule,
}

/// RULE_APPLIED (guide 1553–1562).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleApplied {
    /// The rule's name.
    pub rule_name: String,
    /// Of which list it is.
    pub rule_type: RuleType,
    /// What it did, and for whom.
    pub rule_actions: Vec<RuleActionApplied>,
    /// The folder that a mailbox rule moved or copied to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target_folder: Option<String>,
    /// To whom a mailbox rule forwarded or redirected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target_recipient: Option<String>,
}

/// One action of a rule and the recipients it was taken for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleActionApplied {
    /// The action's name in configuration: `DROP`, `BOUNCE`, `MOVE_TO_JUNK`, `DEFAULT`,
    /// `BYPASS_SPAM_CHECK`; of mailbox rules `MOVE`, `COPY`, `FORWARD`, `REDIRECT`, `DELETE`.
    pub action: String,
    /// The envelope's recipients for whom the rule won; for a mailbox rule, the mailbox's address.
    pub recipients: Vec<String>,
}

/// JOURNALING_INITIATED (guide 1564–1568).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalingInitiated {
    /// Where the record goes.
    pub journaling_address: String,
}

/// MAILBOX_EMAIL_DELIVERED (guide 1548–1551).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxDelivered {
    /// The mailbox's primary address.
    pub recipient: String,
    /// The folder: `INBOX`, `JUNK_EMAIL`, or another that a mailbox rule chose.
    pub folder: String,
}

/// INCOMING_EMAIL_BOUNCED (guide 1570–1574, query 1808).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IncomingBounced {
    /// Who did not get it, and why.
    pub bounced_recipient: BouncedRecipient,
}

/// A recipient for whom a message bounced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BouncedRecipient {
    /// The envelope's recipient.
    pub email_address: String,
    /// Why, in words.
    pub reason: String,
    /// The enhanced status code (RFC 3463), for example `5.2.2`.
    pub status: String,
}

/// OUTGOING_EMAIL_SUBMITTED (guide 1576–1587). Without a Message-ID, as in WorkMail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingSubmitted {
    /// The envelope's recipients, in RCPT order.
    pub recipients: Vec<String>,
    /// The user who sent it on behalf of another; only then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender: Option<String>,
    /// The `From` field's address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// The decoded `Subject` field; absent if there is none or it is empty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<String>,
}

/// OUTGOING_EMAIL_SENT (guide 1589–1600).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingSent {
    /// The envelope's recipient.
    pub recipient: String,
    /// The user who sent it on behalf of another; only then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender: Option<String>,
    /// The `From` field's address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// The `Message-ID` field with its angle brackets, as in the inbound trace of a recipient here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message_id: Option<String>,
}

/// OUTGOING_EMAIL_BOUNCED: the field table (guide 1602–1607) names `bouncedRecipient`, the guide's
/// query (1800) reads `destination` and `reason`; both are there (`contracts.md` §1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingBounced {
    /// Who does not get it, and why.
    pub bounced_recipient: BouncedRecipient,
    /// The recipient again.
    pub destination: String,
    /// The reason again.
    pub reason: String,
}

impl OutgoingBounced {
    /// The bounce of a recipient.
    pub fn new(bounced_recipient: BouncedRecipient) -> Self {
        Self {
            destination: bounced_recipient.email_address.clone(),
            reason: bounced_recipient.reason.clone(),
            bounced_recipient,
        }
    }
}
