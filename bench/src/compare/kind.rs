//! Which systems are compared.

/// A system that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Mailweir
    Mailweir,
    /// Postfix with rspamd as a milter: what Mailweir does, made of the usual parts
    PostfixRspamd,
    /// Postfix without any check
    Postfix,
    /// Haraka with its plugins for SPF and DKIM, and Dovecot, which delivers
    HarakaDovecot,
}

impl Kind {
    pub(super) const ALL: [Self; 4] =
        [Self::Mailweir, Self::PostfixRspamd, Self::Postfix, Self::HarakaDovecot];

    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mailweir => "Mailweir",
            Self::PostfixRspamd => "Postfix+rspamd",
            Self::Postfix => "Postfix alone",
            Self::HarakaDovecot => "Haraka+Dovecot",
        }
    }

    /// Whether it is one that signs and sends what users hand in.
    pub(super) fn signs(self) -> bool {
        match self {
            Self::Mailweir | Self::PostfixRspamd => true,
            Self::Postfix | Self::HarakaDovecot => false,
        }
    }
}
