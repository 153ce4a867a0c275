//! A message while it arrives: kept up to the limit, or refused and no longer kept.

use memchr::{memchr2, memmem};

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
    /// Octets of the header section that are allowed, until its end has been seen.
    header_limit: Option<usize>,
    /// Whether a CR came last that is not kept yet: an LF must follow it.
    holds_cr: bool,
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
        Self { content, header_limit: None, holds_cr: false }
    }

    /// The same, refused as soon as its header section is known to be longer than `octets`: what
    /// comes after that need not be kept to be refused.
    pub(crate) fn with_header_limit(self, octets: usize) -> Self {
        Self { header_limit: Some(octets), ..self }
    }

    /// A body that is refused before it arrives.
    pub(crate) fn refused(reason: Reason) -> Self {
        Self { content: Content::Refused(reason), header_limit: None, holds_cr: false }
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

    /// Refuses a body that would not fit with so many octets more. What is announced counts as it
    /// is sent, before its line ends are mended.
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
            self.check_header();
        }
    }

    /// Looks for the end of the header section once so many octets are there that it must be among
    /// them: a section ends with a line, and an empty line follows (RFC 5322 §2.1).
    fn check_header(&mut self) {
        let (Content::Kept { octets, .. }, Some(limit)) = (&self.content, self.header_limit) else {
            return;
        };
        let Some(front) = octets.get(..limit.saturating_add(2)) else { return };
        if front.starts_with(b"\r\n") || memmem::find(front, b"\r\n\r\n").is_some() {
            self.header_limit = None;
        } else {
            self.refuse(Reason::HeaderTooBig);
        }
    }

    /// Adds octets whose line ends may be wrong, and mends them: a bare LF becomes CR LF, and so
    /// does a run of CRs before an LF, which some libraries make of a CR LF that they encode
    /// twice. A CR that no LF follows refuses the body: readers do not agree on what it is.
    ///
    /// A CR at the end of a piece is held back until the next octet is known, so what becomes of
    /// the octets does not depend on how they are cut. The limit counts what is kept.
    pub(crate) fn append_mended(&mut self, more: &[u8]) {
        let run = |from: usize, to: usize| more.get(from..to).unwrap_or_default();
        // `more[kept..next]` is right as it stands, and not in the body yet.
        let mut kept = 0;
        let mut next = 0;
        while let Some(&octet) = more.get(next) {
            if self.holds_cr {
                match octet {
                    b'\r' => {}
                    b'\n' => {
                        self.append(b"\r\n");
                        self.holds_cr = false;
                    }
                    _ => return self.refuse(Reason::BareNewline),
                }
                next += 1;
                kept = next;
                continue;
            }
            let rest = more.get(next..).unwrap_or_default();
            let Some(ahead) = memchr2(b'\r', b'\n', rest) else { break };
            let found = next + ahead;
            if more.get(found..found + 2) == Some(b"\r\n") {
                next = found + 2;
                continue;
            }
            self.append(run(kept, found));
            match more.get(found) {
                Some(b'\n') => self.append(b"\r\n"),
                _ => self.holds_cr = true,
            }
            next = found + 1;
            kept = next;
        }
        self.append(run(kept, more.len()));
    }

    /// The whole message, or why it is refused.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Reason> {
        match self.content {
            Content::Refused(reason) => Err(reason),
            Content::Kept { .. } if self.holds_cr => Err(Reason::BareNewline),
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
