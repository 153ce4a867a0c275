//! The Sender Rewriting Scheme: envelope senders for forwarded mail that pass SPF.
//!
//! Mail that is forwarded with its first sender fails SPF at the next server, which sees our
//! address and their domain. So the sender is written into a local-part of our own domain, and
//! bounces to it are sent back to where they belong. There is no RFC; the form is that of the
//! scheme's paper and of libsrs2, so that other forwarders read ours as we read theirs:
//!
//! ```text
//! SRS0=hash=day=their.domain=local-part@our.domain            their mail, forwarded by us
//! SRS1=hash=first.domain==hash=day=their.domain=local-part@our.domain   forwarded before, by first.domain
//! ```
//!
//! Without the hash we would relay to anybody; without the day, to whoever ever got a forward.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};

use super::{Address, Domain, ReversePath};
use crate::clock::Timestamp;

/// Characters of the hash: 40 bits of HMAC-SHA256. A guess costs a connection's worth of work, and
/// what a right one earns is one address to bounce to for [`VALID_DAYS`].
const HASH_LENGTH: usize = 8;
/// Days that a rewritten address takes bounces for. Queues give up after five (RFC 5321
/// §4.5.4.1), and a forward may pass through a few of them.
const VALID_DAYS: u64 = 21;
/// The two characters of a day count to this, then begin again.
const DAYS: u64 = 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// RFC 4648 §6, in lower case: mail servers may change the case of a local-part.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// What other implementations write after `SRS0` and `SRS1`.
const SEPARATORS: [char; 3] = ['=', '-', '+'];

/// Why an address is not rewritten back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrsError {
    /// It has not the form, or not our domain.
    #[error("is not an address of a forwarded message's sender")]
    NotSrs,
    /// The hash is not ours.
    #[error("was not made here, or was altered")]
    Forged,
    /// It is older than 21 days.
    #[error("was made too long ago")]
    Expired,
}

/// Rewrites senders to addresses of one domain, and back.
#[derive(Clone)]
pub struct Srs {
    domain: Domain,
    key: hmac::Key,
}

impl fmt::Debug for Srs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Srs").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// What a hash is about: one for `SRS0` is none for `SRS1`.
#[derive(Clone, Copy)]
enum Kind {
    Srs0,
    Srs1,
}

impl Srs {
    /// Rewrites to addresses of `domain`, whose mail must come to us. `key` is secret, and made for
    /// this use alone; with another one, bounces of what was forwarded before are lost.
    pub fn new(domain: Domain, key: &[u8; 32]) -> Self {
        Self { domain, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The envelope sender under which a mailbox's mail is forwarded.
    ///
    /// The null path stays null (RFC 5321 §6.1: what reports a failure is never answered), and a
    /// sender of our own domain stays as it is. A sender that does not fit into a local-part (64
    /// octets, RFC 5321 §4.5.3.1.1), or is quoted or an address literal, gives way to `forwarder`,
    /// the mailbox's own address: bounces are then for whoever set the forwarding up.
    pub fn forward(
        &self,
        reverse_path: &ReversePath,
        forwarder: &Address,
        now: Timestamp,
    ) -> ReversePath {
        let Some(sender) = reverse_path.address() else { return ReversePath::Null };
        if *sender.domain() == self.domain {
            return reverse_path.clone();
        }
        let local_part = self.rewritten(sender, now);
        let rewritten = Address::from_parts(&local_part, self.domain.as_str());
        ReversePath::Address(rewritten.unwrap_or_else(|_| forwarder.clone()))
    }

    /// Where a bounce to `address` belongs.
    ///
    /// # Errors
    /// [`SrsError`]: then there is no such address here.
    pub fn reverse(&self, address: &Address, now: Timestamp) -> Result<Address, SrsError> {
        if *address.domain() != self.domain {
            return Err(SrsError::NotSrs);
        }
        if let Some(rest) = tagged(address.local_part(), "SRS0") {
            return self.reverse_first(rest, now);
        }
        let rest = tagged(address.local_part(), "SRS1").ok_or(SrsError::NotSrs)?;
        self.reverse_again(rest)
    }

    fn rewritten(&self, sender: &Address, now: Timestamp) -> String {
        if let Some((first, rest)) = forwarded_before(sender) {
            let hash = self.hash(Kind::Srs1, &[first, rest]);
            return format!("SRS1={hash}={first}={rest}");
        }
        let (domain, local_part) = (sender.domain().as_str(), sender.local_part());
        let day = encoded_day(now);
        let hash = self.hash(Kind::Srs0, &[&day, domain, local_part]);
        format!("SRS0={hash}={day}={domain}={local_part}")
    }

    /// `hash=day=domain=local-part`
    fn reverse_first(&self, rest: &str, now: Timestamp) -> Result<Address, SrsError> {
        let mut parts = rest.splitn(4, '=');
        let mut next = || parts.next().ok_or(SrsError::NotSrs);
        let (hash, day, domain, local_part) = (next()?, next()?, next()?, next()?);
        self.check(hash, Kind::Srs0, &[day, domain, local_part])?;
        let made = decoded_day(day).ok_or(SrsError::NotSrs)?;
        let age = (today(now) + DAYS - made) % DAYS;
        if age > VALID_DAYS {
            return Err(SrsError::Expired);
        }
        Address::from_parts(local_part, domain).map_err(|_| SrsError::NotSrs)
    }

    /// `hash=domain=rest`, where the rest is what followed the first forwarder's `SRS0`. That one
    /// checks its hash and its day; ours is that we have written the two together.
    fn reverse_again(&self, text: &str) -> Result<Address, SrsError> {
        let (hash, text) = text.split_once('=').ok_or(SrsError::NotSrs)?;
        let (first, rest) = text.split_once('=').ok_or(SrsError::NotSrs)?;
        self.check(hash, Kind::Srs1, &[first, rest])?;
        Address::from_parts(&format!("SRS0{rest}"), first).map_err(|_| SrsError::NotSrs)
    }

    fn check(&self, hash: &str, kind: Kind, parts: &[&str]) -> Result<(), SrsError> {
        let expected = self.hash(kind, parts);
        let hash = hash.to_ascii_lowercase();
        constant_time::verify_slices_are_equal(hash.as_bytes(), expected.as_bytes())
            .map_err(|_| SrsError::Forged)
    }

    /// The parts in lower case, because a server on the way may have written them so.
    fn hash(&self, kind: Kind, parts: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(match kind {
            Kind::Srs0 => b"SRS0",
            Kind::Srs1 => b"SRS1",
        });
        for part in parts {
            context.update(b"\0");
            context.update(part.to_lowercase().as_bytes());
        }
        base32(context.sign().as_ref())
    }
}

/// What follows `SRS0=` or `SRS1=`, with any of the separators, in any case.
fn tagged<'a>(local_part: &'a str, tag: &str) -> Option<&'a str> {
    let (found, rest) = local_part.split_at_checked(tag.len())?;
    found.eq_ignore_ascii_case(tag).then_some(rest)?.strip_prefix(SEPARATORS)
}

/// The first forwarder of a sender that is rewritten already, and what followed its `SRS0`, the
/// separator included, which is that forwarder's own affair.
fn forwarded_before(sender: &Address) -> Option<(&str, &str)> {
    let local_part = sender.local_part();
    if tagged(local_part, "SRS0").is_some() {
        return Some((sender.domain().as_str(), local_part.get("SRS0".len()..)?));
    }
    // The second forwarder's hash is left out: our bounces go past it, straight to the first.
    let (_, rest) = tagged(local_part, "SRS1")?.split_once('=')?;
    let (first, rest) = rest.split_once('=')?;
    (Domain::parse(first).is_ok() && rest.starts_with(SEPARATORS)).then_some((first, rest))
}

/// The first five bytes in eight characters.
fn base32(bytes: &[u8]) -> String {
    let bits = bytes.iter().take(5).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..HASH_LENGTH).rev().map(|place| digit(bits >> (5 * place))).collect()
}

fn digit(bits: u64) -> char {
    char::from(BASE32[(bits & 31) as usize])
}

fn today(now: Timestamp) -> u64 {
    now.as_secs() / DAY.as_secs() % DAYS
}

fn encoded_day(now: Timestamp) -> String {
    let day = today(now);
    [digit(day >> 5), digit(day)].into_iter().collect()
}

fn decoded_day(text: &str) -> Option<u64> {
    let value = |character: u8| {
        let place = BASE32.iter().position(|digit| *digit == character.to_ascii_lowercase());
        place.and_then(|place| u64::try_from(place).ok())
    };
    let [high, low] = text.as_bytes() else { return None };
    Some(value(*high)? << 5 | value(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_123);

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    fn path(text: &str) -> ReversePath {
        ReversePath::try_from(text.to_owned()).expect("a path")
    }

    fn of(domain: &str, key: u8) -> Srs {
        Srs::new(Domain::parse(domain).expect("a domain"), &[key; 32])
    }

    fn forwarded(srs: &Srs, sender: &str) -> Address {
        let forwarder = address("alice@example.test");
        match srs.forward(&path(sender), &forwarder, NOW) {
            ReversePath::Address(address) => address,
            ReversePath::Null => panic!("{sender} is not null"),
        }
    }

    #[test]
    fn senders_are_rewritten_as_other_forwarders_do() {
        let srs = of("example.test", 1);
        let check = |sender: &str, expected: &str| {
            assert_eq!(forwarded(&srs, sender).to_string(), expected, "{sender}");
        };
        check("bob@good.test", "SRS0=g5ouzocp=jk=good.test=bob@example.test");
        check(
            "SRS0=HHH=TT=good.test=bob@first.test",
            "SRS1=ryl6idfe=first.test==HHH=TT=good.test=bob@example.test",
        );
        check(
            "SRS1+b7q2=first.test=-HHH=TT=good.test=bob@second.test",
            "SRS1=ifmjnvo5=first.test=-HHH=TT=good.test=bob@example.test",
        );
        check("carol@example.test", "carol@example.test");
        // What fits into no local-part goes out under the forwarder's own address.
        check(&format!("{}@good.test", "b".repeat(64)), "alice@example.test");
        check("\"a b\"@good.test", "alice@example.test");
        check("bob@[192.0.2.1]", "alice@example.test");
        let null = srs.forward(&ReversePath::Null, &address("alice@example.test"), NOW);
        assert_eq!(null, ReversePath::Null);
    }

    #[test]
    fn a_bounce_goes_back_through_every_forwarder() {
        let (one, two, three) = (of("one.test", 1), of("two.test", 2), of("three.test", 3));
        let first = forwarded(&one, "Bob=x@good.test");
        let second = forwarded(&two, &first.to_string());
        let third = forwarded(&three, &second.to_string());
        assert!(third.to_string().starts_with("SRS1="), "{third}");
        // The third sends it to the first, past the second.
        assert_eq!(three.reverse(&third, NOW).as_ref(), Ok(&first));
        assert_eq!(two.reverse(&second, NOW).as_ref(), Ok(&first));
        assert_eq!(one.reverse(&first, NOW), Ok(address("Bob=x@good.test")));
    }

    #[test]
    fn only_our_own_fresh_addresses_lead_back() {
        let srs = of("example.test", 1);
        let rewritten = forwarded(&srs, "bob@good.test").to_string();
        let check = |text: &str, later_days: u32, expected: Result<&str, SrsError>| {
            let found = srs.reverse(&address(text), NOW.plus(DAY * later_days));
            assert_eq!(found, expected.map(address), "{text} after {later_days} days");
        };
        check(&rewritten, 0, Ok("bob@good.test"));
        check(&rewritten, 21, Ok("bob@good.test"));
        check(&rewritten, 22, Err(SrsError::Expired));
        check(&rewritten, 1023, Err(SrsError::Expired));
        check(&rewritten.to_lowercase(), 0, Ok("bob@good.test"));
        check(&rewritten.replace("SRS0=", "srs0-"), 0, Ok("bob@good.test"));
        check(&rewritten.replace("bob", "eve"), 0, Err(SrsError::Forged));
        check(&rewritten.replace("good", "evil"), 0, Err(SrsError::Forged));
        check(&rewritten.replace("=jk=", "=jl="), 0, Err(SrsError::Forged));
        check(&rewritten.replace("SRS0", "SRS1"), 0, Err(SrsError::Forged));
        check(&rewritten.replace("=jk", ""), 0, Err(SrsError::NotSrs));
        check("SRS0==jk=good.test=bob@example.test", 0, Err(SrsError::Forged));
        check("SRS0=@example.test", 0, Err(SrsError::NotSrs));
        check("SRS0@example.test", 0, Err(SrsError::NotSrs));
        check("bob@example.test", 0, Err(SrsError::NotSrs));
        check(&rewritten.replace("@example", "@other"), 0, Err(SrsError::NotSrs));
        let other = of("example.test", 2).reverse(&address(&rewritten), NOW);
        assert_eq!(other, Err(SrsError::Forged));
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_back(
            local_part in "[a-zA-Z0-9=+_-]{1,40}",
            domain in "[a-z]{1,10}\\.test",
            days in 0_u32..=21,
            start in 0_u64..4_000_000_000_000,
        ) {
            let srs = of("our.example", 9);
            let sender = address(&format!("{local_part}@{domain}"));
            let forwarder = address("alice@our.example");
            let now = Timestamp::from_millis(start);
            let path = srs.forward(&ReversePath::Address(sender.clone()), &forwarder, now);
            let rewritten = path.address().expect("no null path").clone();
            prop_assert!(rewritten.local_part().len() <= 64);
            if rewritten == forwarder {
                prop_assert!(local_part.len() + domain.len() > 40, "{sender} would have fitted");
            } else {
                let back = srs.reverse(&rewritten, now.plus(DAY * days));
                prop_assert_eq!(back, Ok(sender));
            }
        }

        #[test]
        fn no_altered_address_is_taken(place in 5_usize..40, letter in "[a-z2-7=]") {
            let srs = of("our.example", 9);
            let rewritten = forwarded(&srs, "somebody.there@good.test");
            let mut text = rewritten.local_part().to_owned();
            text.replace_range(place..=place, &letter);
            if text.eq_ignore_ascii_case(rewritten.local_part()) {
                return Ok(());
            }
            if let Ok(altered) = Address::from_parts(&text, "our.example") {
                prop_assert!(srs.reverse(&altered, NOW).is_err());
            }
        }

        #[test]
        fn nothing_panics(local_part in "[sS][rR][sS][01][=+-][!-~]{0,40}") {
            let srs = of("our.example", 9);
            if let Ok(address) = Address::from_parts(&local_part, "our.example") {
                prop_assert!(srs.reverse(&address, NOW).is_err());
            }
            if let Ok(other) = Address::from_parts(&local_part, "other.example") {
                forwarded(&srs, &other.to_string());
            }
        }
    }
}
