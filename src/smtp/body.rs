//! A message while it arrives: kept up to the limit, or refused and no longer kept.

use memchr::memchr2;

use super::reason::Reason;

/// The most that is set aside on the word of `SIZE=` alone.
const MAX_UPFRONT: usize = 1024 * 1024;
/// The least that is set aside when content arrives.
const MIN_GROWTH: usize = 16 * 1024;

/// The content of a message on its way in. Once refused it holds nothing and takes everything, so
/// that the bytes of a refused message are still consumed.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    /// Whether the last octet of the chunks so far is a CR, whose LF must begin the next.
    ends_in_cr: bool,
}

#[derive(Debug)]
enum Content {
    Kept { octets: Vec<u8>, limit: u64, declared: u64 },
    Refused(Reason),
}

impl Body {
    /// An empty body that may grow to `limit` octets; `declared` is the client's word for its
    /// size (RFC 1870), 0 if it said nothing.
    pub(crate) fn new(limit: u64, declared: u64) -> Self {
        let content = Content::Kept { octets: Vec::new(), limit, declared: declared.min(limit) };
        Self { content, ends_in_cr: false }
    }

    /// A body that is refused before it arrives.
    pub(crate) fn refused(reason: Reason) -> Self {
        Self { content: Content::Refused(reason), ends_in_cr: false }
    }

    /// Octets in memory.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Kept { octets, .. } => octets.len(),
            Content::Refused(_) => 0,
        }
    }

    /// Why the body is refused, if it is.
    pub(crate) fn refusal(&self) -> Option<Reason> {
        match self.content {
            Content::Kept { .. } => None,
            Content::Refused(reason) => Some(reason),
        }
    }

    /// Refuses the body, unless it already is for an earlier reason.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        if self.refusal().is_none() {
            self.content = Content::Refused(reason);
        }
    }

    /// Refuses a body that would not fit with so many octets more.
    pub(crate) fn announce(&mut self, more: u64) {
        if let Content::Kept { octets, limit, .. } = &self.content
            && (octets.len() as u64).saturating_add(more) > *limit
        {
            self.refuse(Reason::MessageTooBig);
        }
    }

    /// Adds octets whose line ends are known to be right.
    pub(crate) fn append(&mut self, more: &[u8]) {
        self.announce(more.len() as u64);
        if let Content::Kept { octets, limit, declared } = &mut self.content {
            grow(octets, more.len(), *limit, *declared);
            octets.extend_from_slice(more);
        }
    }

    /// Adds octets of a chunk, and refuses the body for a bare CR or LF among them.
    ///
    /// Deviation: RFC 3030 lets a chunk hold anything once BINARYMIME is offered, which it is not
    /// here. A bare CR or LF is refused as in DATA, or a message could hide another one in itself
    /// on its way to a server that takes bare LF for a line end. Who needs it: every relay behind
    /// us.
    pub(crate) fn append_checked(&mut self, more: &[u8]) {
        let mut clean = 0;
        let mut ends_in_cr = self.ends_in_cr;
        let fault = loop {
            let rest = more.get(clean..).unwrap_or_default();
            match (ends_in_cr, rest.first()) {
                (_, None) => break false,
                (true, Some(b'\n')) => clean += 1,
                (true, Some(_)) => break true,
                (false, Some(_)) => match memchr2(b'\r', b'\n', rest) {
                    None => clean = more.len(),
                    Some(ahead) => {
                        clean += ahead + 1;
                        if rest.get(ahead) == Some(&b'\n') {
                            break true;
                        }
                        ends_in_cr = true;
                        continue;
                    }
                },
            }
            ends_in_cr = false;
        };
        self.append(more.get(..clean).unwrap_or_default());
        if fault {
            self.refuse(Reason::BareNewline);
        }
        self.ends_in_cr = ends_in_cr;
    }

    /// The whole message, or why it is refused.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Reason> {
        match self.content {
            Content::Refused(reason) => Err(reason),
            Content::Kept { .. } if self.ends_in_cr => Err(Reason::BareNewline),
            Content::Kept { octets, .. } => Ok(octets),
        }
    }
}

/// Makes room for `more` octets: what was declared, as far as it may be believed, else by
/// doubling. A large body gets the room of the largest at once: the system gives memory only as
/// it is written to, and growing would copy it again and again.
fn grow(octets: &mut Vec<u8>, more: usize, limit: u64, declared: u64) {
    let needed = octets.len().saturating_add(more);
    if needed <= octets.capacity() {
        return;
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let declared = usize::try_from(declared).unwrap_or(usize::MAX);
    let wanted = if needed > MAX_UPFRONT {
        limit
    } else {
        let doubled = octets.capacity().saturating_mul(2).max(MIN_GROWTH);
        if declared >= needed { declared.min(MAX_UPFRONT) } else { doubled }
    };
    let room = wanted.max(needed) - octets.len();
    if octets.try_reserve_exact(room).is_err() {
        octets.reserve_exact(needed - octets.len());
    }
}
