//! The Sender Rewriting Scheme: envelope senders for forwarded mail that pass SPF.
//!
//! Mail that is forwarded with its first sender fails SPF at the next server, which sees our
//! address and their domain. So the sender is written into a local-part of our own domain, and
//! bounces to it are sent back to where they belong. There is no RFC; the form is that of the
//! scheme's paper and of libsrs2, so that other forwarders read ours as we read theirs:
//!
//! ```text
//! SRS0=hash=day=their.domain=local-part@our.domain            their mail, forwarded by us
//! SRS1=hash+day=first.domain==hash=day=their.domain=local-part@our.domain   forwarded before, by first.domain
//! SRS0=hash=day=1=place@our.domain                    a sender that fits into no such address
//! ```
//!
//! Without the hash we would relay to anybody; without the day, to whoever ever got a forward. The
//! last form is a token: the sender itself is kept with the forwarded message, at that place. To
//! other forwarders it looks as any `SRS0` does, and they carry it as they carry those.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};

use super::{Address, Domain};
use crate::clock::Timestamp;

/// Characters of the hash: 40 bits of HMAC-SHA256. A guess costs a connection's worth of work, and
/// what a right one earns is one address to bounce to for [`VALID_DAYS`].
const HASH_LENGTH: usize = 8;
/// Days that a rewritten address takes bounces for. Queues give up after five (RFC 5321
/// §4.5.4.1), and a forward may pass through a few of them.
pub const VALID_DAYS: u64 = 21;
/// Octets of a local-part that every server takes (RFC 5321 §4.5.3.1.1).
const MAX_LOCAL_PART: usize = 64;
/// What stands in the place of a token's domain; a sender of a domain of that name has a token.
const TOKEN: &str = "1";
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

/// Who sent first what was forwarded under an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstSender {
    /// This address, or who forwarded it before us.
    Address(Address),
    /// An address that is kept with the message, at this place.
    KeptAt(u64),
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
    Token,
}

impl Srs {
    /// Rewrites to addresses of `domain`, whose mail must come to us. `key` is secret, and made for
    /// this use alone; with another one, bounces of what was forwarded before are lost.
    pub fn new(domain: Domain, key: &[u8; 32]) -> Self {
        Self { domain, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The envelope sender under which mail of `sender` is forwarded. `None` if it fits into no
    /// local-part that every server takes: it is too long, quoted, or an address literal. Then a
    /// [`token`](Self::token) has to stand for it.
    pub fn forward(&self, sender: &Address, now: Timestamp) -> Option<Address> {
        if *sender.domain() == self.domain {
            return Some(sender.clone());
        }
        if sender.domain().as_str() == TOKEN {
            return None;
        }
        let local_part = self.rewritten(sender, now);
        fits(&local_part).then(|| Address::from_parts(&local_part, self.domain.as_str()).ok())?
    }

    /// The address that stands for a sender kept at `place`, with a message that came at `at`.
    pub fn token(&self, place: u64, at: Timestamp) -> Option<Address> {
        let day = encoded_day(at);
        let place = format!("{place:x}");
        let hash = self.hash(Kind::Token, &[&day, TOKEN, &place]);
        let local_part = format!("SRS0={hash}={day}={TOKEN}={place}");
        Address::from_parts(&local_part, self.domain.as_str()).ok()
    }

    /// Whether an address has the form of one that this scheme makes, here or elsewhere.
    pub fn is_rewritten(address: &Address) -> bool {
        let local_part = address.local_part();
        tagged(local_part, "SRS0").or_else(|| tagged(local_part, "SRS1")).is_some()
    }

    /// What a sender that was forwarded more than once was to the first forwarder: `SRS0` with
    /// that one's domain. Only the first forwarder can say whether it is right.
    pub fn of_first_forwarder(sender: &Address) -> Option<Address> {
        tagged(sender.local_part(), "SRS1")?;
        let (first, rest) = forwarded_before(sender)?;
        Address::from_parts(&format!("SRS0{rest}"), first).ok()
    }

    /// Where a bounce to `address` belongs.
    ///
    /// # Errors
    /// [`SrsError`]: then there is no such address here.
    pub fn reverse(&self, address: &Address, now: Timestamp) -> Result<FirstSender, SrsError> {
        if *address.domain() != self.domain {
            return Err(SrsError::NotSrs);
        }
        if let Some(rest) = tagged(address.local_part(), "SRS0") {
            return self.reverse_first(rest, now);
        }
        let rest = tagged(address.local_part(), "SRS1").ok_or(SrsError::NotSrs)?;
        self.reverse_again(rest, now).map(FirstSender::Address)
    }

    fn rewritten(&self, sender: &Address, now: Timestamp) -> String {
        let day = encoded_day(now);
        if let Some((first, rest)) = forwarded_before(sender) {
            let hash = self.hash(Kind::Srs1, &[&day, first, rest]);
            return format!("SRS1={hash}{day}={first}={rest}");
        }
        let domain = sender.domain().as_str();
        let local_part = sender.local_part();
        let hash = self.hash(Kind::Srs0, &[&day, domain, local_part]);
        format!("SRS0={hash}={day}={domain}={local_part}")
    }

    /// `hash=day=domain=local-part`, or a token's `hash=day=1=place`.
    fn reverse_first(&self, rest: &str, now: Timestamp) -> Result<FirstSender, SrsError> {
        let mut parts = rest.splitn(4, '=');
        let mut next = || parts.next().ok_or(SrsError::NotSrs);
        let hash = next()?;
        let day = next()?;
        let domain = next()?;
        let local_part = next()?;
        let kind = if domain == TOKEN { Kind::Token } else { Kind::Srs0 };
        self.check(hash, kind, &[day, domain, local_part])?;
        check_age(day, now)?;
        if domain == TOKEN {
            let place = u64::from_str_radix(local_part, 16);
            return place.map(FirstSender::KeptAt).map_err(|_| SrsError::NotSrs);
        }
        let sender = Address::from_parts(local_part, domain).map_err(|_| SrsError::NotSrs)?;
        Ok(FirstSender::Address(sender))
    }

    /// `hash+day=domain=rest`, where the rest is what followed the first forwarder's `SRS0`. That
    /// one checks its own hash and day; ours say that we have written the two together, and when.
    fn reverse_again(&self, text: &str, now: Timestamp) -> Result<Address, SrsError> {
        let (mark, text) = text.split_once('=').ok_or(SrsError::NotSrs)?;
        let (first, rest) = text.split_once('=').ok_or(SrsError::NotSrs)?;
        let (hash, day) = mark.split_at_checked(HASH_LENGTH).ok_or(SrsError::Forged)?;
        self.check(hash, Kind::Srs1, &[day, first, rest])?;
        check_age(day, now)?;
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
            Kind::Token => b"token",
        });
        for part in parts {
            context.update(b"\0");
            context.update(part.to_lowercase().as_bytes());
        }
        base32(context.sign().as_ref())
    }
}

/// Whether every server takes it as a local-part; what we take ourselves may be odder.
fn fits(local_part: &str) -> bool {
    let is_dot_string = local_part.split('.').all(|atom| !atom.is_empty());
    is_dot_string && local_part.len() <= MAX_LOCAL_PART
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
pub(super) fn base32(bytes: &[u8]) -> String {
    let bits = bytes.iter().take(5).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..HASH_LENGTH).rev().map(|place| digit(bits >> (5 * place))).collect()
}

fn digit(bits: u64) -> char {
    char::from(BASE32[(bits & 31) as usize])
}

fn today(now: Timestamp) -> u64 {
    now.as_secs() / DAY.as_secs() % DAYS
}

fn check_age(day: &str, now: Timestamp) -> Result<(), SrsError> {
    let made = decoded_day(day).ok_or(SrsError::NotSrs)?;
    let age_days = (today(now) + DAYS - made) % DAYS;
    if age_days > VALID_DAYS { Err(SrsError::Expired) } else { Ok(()) }
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

    fn of(domain: &str, key: u8) -> Srs {
        Srs::new(Domain::parse(domain).expect("a domain"), &[key; 32])
    }

    fn forwarded(srs: &Srs, sender: &str) -> Address {
        srs.forward(&address(sender), NOW).expect("fits")
    }

    fn reversed(srs: &Srs, of: &Address, now: Timestamp) -> Result<Address, SrsError> {
        srs.reverse(of, now).map(|first| match first {
            FirstSender::Address(address) => address,
            FirstSender::KeptAt(place) => panic!("{of} is kept at {place}"),
        })
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
            "SRS1=42gdrfyijk=first.test==HHH=TT=good.test=bob@example.test",
        );
        check(
            "SRS1+b7q2=first.test=-HHH=TT=good.test=bob@second.test",
            "SRS1=46qiaz27jk=first.test=-HHH=TT=good.test=bob@example.test",
        );
        check("carol@example.test", "carol@example.test");
        let long = format!("{}@good.test", "b".repeat(64));
        for sender in [long.as_str(), "\"a b\"@good.test", "bob@[192.0.2.1]", "bob@1"] {
            assert_eq!(srs.forward(&address(sender), NOW), None, "{sender}");
        }
    }

    #[test]
    fn a_token_says_where_its_sender_is_kept() {
        let srs = of("example.test", 1);
        for place in [0, 0x1f40, u64::MAX] {
            let token = srs.token(place, NOW).expect("fits");
            assert!(token.local_part().len() <= 40, "{token}");
            let check = |text: &str, later_days: u32, expected| {
                let found = srs.reverse(&address(text), NOW.plus(DAY * later_days));
                assert_eq!(found, expected, "{text} after {later_days} days");
            };
            let text = token.to_string();
            check(&text, 0, Ok(FirstSender::KeptAt(place)));
            check(&text.to_lowercase(), 21, Ok(FirstSender::KeptAt(place)));
            check(
                &text.to_uppercase().replace("EXAMPLE.TEST", "example.test"),
                21,
                Ok(FirstSender::KeptAt(place)),
            );
            check(&text, 22, Err(SrsError::Expired));
            check(&text.replace("=1=", "=1=1"), 0, Err(SrsError::Forged));
            check(&text.replace("=1=", "=2="), 0, Err(SrsError::Forged));
            // Another forwarder carries it as any other, and it comes back as it was.
            let other = of("two.test", 2);
            let carried = forwarded(&other, &text);
            assert_eq!(reversed(&other, &carried, NOW), Ok(token));
        }
    }

    #[test]
    fn a_bounce_goes_back_through_every_forwarder() {
        let (one, two, three) = (of("one.test", 1), of("two.test", 2), of("three.test", 3));
        let first = forwarded(&one, "Bob=x@good.test");
        let second = forwarded(&two, &first.to_string());
        let third = forwarded(&three, &second.to_string());
        assert!(third.to_string().starts_with("SRS1="), "{third}");
        // The third sends it to the first, past the second.
        assert_eq!(reversed(&three, &third, NOW).as_ref(), Ok(&first));
        assert_eq!(reversed(&two, &second, NOW).as_ref(), Ok(&first));
        assert_eq!(reversed(&one, &first, NOW), Ok(address("Bob=x@good.test")));
        // What we have written of another forwarder's has its day too.
        assert_eq!(reversed(&three, &third, NOW.plus(DAY * 22)), Err(SrsError::Expired));
        assert_eq!(Srs::of_first_forwarder(&third), Some(first.clone()));
        assert_eq!(Srs::of_first_forwarder(&first), None);
        assert!(Srs::is_rewritten(&first) && Srs::is_rewritten(&third));
        assert!(!Srs::is_rewritten(&address("srs1@one.test")));
    }

    #[test]
    fn only_our_own_fresh_addresses_lead_back() {
        let srs = of("example.test", 1);
        let rewritten = forwarded(&srs, "bob@good.test").to_string();
        let check = |text: &str, later_days: u32, expected: Result<&str, SrsError>| {
            let found = reversed(&srs, &address(text), NOW.plus(DAY * later_days));
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
            let now = Timestamp::from_millis(start);
            let Some(rewritten) = srs.forward(&sender, now) else {
                prop_assert!(local_part.len() + domain.len() > 40, "{sender} would have fitted");
                return Ok(());
            };
            prop_assert!(rewritten.local_part().len() <= 64);
            prop_assert_eq!(reversed(&srs, &rewritten, now.plus(DAY * days)), Ok(sender));
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
                srs.forward(&other, NOW);
                Srs::of_first_forwarder(&other);
            }
        }
    }
}
