//! Passwords and personal access tokens: what a password must be, and what is kept of either.
//!
//! A password is kept as an Argon2id hash, which is slow on purpose. A token is made here from
//! random octets that nobody can guess, so a fast hash keeps it as well.

use std::borrow::Cow;
use std::fmt;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{digest, rand};
use data_encoding::BASE32_NOPAD;
use icu_normalizer::ComposingNormalizerBorrowed;

use crate::mail::Secret;

/// Characters of a password: at least eight, and less than 64 (guide 5478–5479).
const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 8..=63;
/// Of the five groups of characters, how many a password needs (guide 5482).
const GROUPS_NEEDED: usize = 3;
/// Memory (KiB), passes and lanes of Argon2id: OWASP's minimum, about 20 ms and 19 MiB each time.
const ARGON2_COST: (u32, u32, u32) = (19_456, 2, 1);
const SALT_BYTES: usize = 16;
/// Without those that look alike in some typeface: 0 O o, 1 I l.
const PASSWORD_LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// A password of our making has so many groups of so many characters.
const PASSWORD_GROUPS: usize = 4;
const PASSWORD_GROUP: usize = 5;
/// What every personal access token begins with, so that people and scanners know one.
const TOKEN_PREFIX: &str = "mwpat_";
const TOKEN_BYTES: usize = 32;
/// Belongs to no password; verified where there is no hash, so that this takes as long.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA\
                          $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A rule of the password policy that a password breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenRule {
    /// It has no characters.
    #[error("it is empty")]
    Empty,
    /// It has few characters.
    #[error("it has {0} character{s}; at least 8 are needed", s = if *.0 == 1 { "" } else { "s" })]
    TooShort(usize),
    /// It has many characters.
    #[error("it has {0} characters; less than 64 are allowed")]
    TooLong(usize),
    /// It has a character that is neither Basic Latin nor Latin-1 Supplement, or cannot be typed.
    #[error("it has the character U+{:04X}; all must be Basic Latin or Latin-1", u32::from(*.0))]
    Foreign(char),
    /// It has few kinds of characters.
    #[error(
        "it has characters of {0} of these groups: uppercase, lowercase, digits, special, \
         Latin-1 supplement; three are needed"
    )]
    TooUniform(usize),
    /// It looks like a personal access token, and would be taken for one.
    #[error("it begins with mwpat_, like a personal access token")]
    LooksLikeToken,
}

/// Every rule that a password breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyViolation(pub Vec<BrokenRule>);

impl fmt::Display for PolicyViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the password does not meet the password policy")?;
        for (number, rule) in self.0.iter().enumerate() {
            write!(f, "{} {rule}", if number == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyViolation {}

/// Why a password has no hash.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The system gives no random octets.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// Argon2 failed: there is too little memory.
    #[error("the password cannot be hashed: {0}")]
    Hash(argon2::password_hash::Error),
}

/// Checks a password against the guide's policy (5473–5490), which cannot be changed.
///
/// # Errors
/// Every rule that it breaks.
pub fn check_policy(password: &Secret) -> Result<(), PolicyViolation> {
    let password = prepared(password.expose());
    let password = password.expose();
    let length = password.chars().count();
    if length == 0 {
        return Err(PolicyViolation(vec![BrokenRule::Empty]));
    }
    let groups = groups_of(password);
    let foreign = password.chars().find(|c| !matches!(c, ' '..='\u{ff}') || c.is_control());
    let rules = [
        (length < *PASSWORD_CHARACTERS.start()).then_some(BrokenRule::TooShort(length)),
        (length > *PASSWORD_CHARACTERS.end()).then_some(BrokenRule::TooLong(length)),
        foreign.map(BrokenRule::Foreign),
        (groups < GROUPS_NEEDED).then_some(BrokenRule::TooUniform(groups)),
        is_token(password).then_some(BrokenRule::LooksLikeToken),
    ];
    let broken: Vec<_> = rules.into_iter().flatten().collect();
    if broken.is_empty() { Ok(()) } else { Err(PolicyViolation(broken)) }
}

/// How many of the guide's five groups (5484–5488) a password has characters of. A letter beyond
/// ASCII counts as Latin-1 supplement, not as uppercase or lowercase.
fn groups_of(password: &str) -> usize {
    let groups: [fn(char) -> bool; 5] = [
        |c| c.is_ascii_uppercase(),
        |c| c.is_ascii_lowercase(),
        |c| c.is_ascii_digit(),
        |c| c.is_ascii_punctuation(),
        |c| matches!(c, '\u{a1}'..='\u{ff}'),
    ];
    groups.iter().filter(|is_in| password.contains(**is_in)).count()
}

/// RFC 8265 §4.2.2: spaces beyond ASCII are spaces, and characters are composed, so that every
/// keyboard gives the same octets.
fn prepared(password: &str) -> Secret {
    let is_other_space = |c: char| c.is_whitespace() && !c.is_ascii() && !c.is_control();
    let spaced: Cow<'_, str> = match password.contains(is_other_space) {
        true => Cow::Owned(password.replace(is_other_space, " ")),
        false => Cow::Borrowed(password),
    };
    Secret::new(ComposingNormalizerBorrowed::new_nfc().normalize(&spaced).into_owned())
}

/// What is kept of a password: an Argon2id hash with its parameters, in PHC string format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Hashes a password with a salt of its own. Takes its time: about 20 ms.
    ///
    /// # Errors
    /// [`CredentialError`]
    pub fn of(password: &Secret) -> Result<Self, CredentialError> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| CredentialError::NoRandomness)?;
        let hash = argon2()
            .hash_password_with_salt(prepared(password.expose()).expose().as_bytes(), &salt)
            .map_err(CredentialError::Hash)?;
        Ok(Self(hash.to_string()))
    }

    /// A hash as it was kept; one that cannot be read belongs to no password.
    pub fn from_phc(text: String) -> Self {
        Self(text)
    }

    /// The hash of nobody's password.
    pub fn dummy() -> Self {
        Self(DUMMY_HASH.to_owned())
    }

    /// The PHC string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the password's hash, compared in constant time. Takes as long as making
    /// the hash.
    pub fn verify(&self, password: &Secret) -> bool {
        let Ok(hash) = argon2::PasswordHash::new(&self.0) else { return false };
        argon2().verify_password(prepared(password.expose()).expose().as_bytes(), &hash).is_ok()
    }
}

fn argon2() -> Argon2<'static> {
    let (memory_kib, passes, lanes) = ARGON2_COST;
    let params = Params::new(memory_kib, passes, lanes, None)
        .expect("the constants are within Argon2's limits, which a test computes with");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Makes a password that meets the policy: 20 letters and digits that are not mistaken for each
/// other, in groups of five. That is 115 bits.
///
/// # Errors
/// [`CredentialError::NoRandomness`]
pub fn new_password() -> Result<Secret, CredentialError> {
    loop {
        let mut text = String::new();
        while text.len() < PASSWORD_GROUPS * (PASSWORD_GROUP + 1) - 1 {
            if text.len() % (PASSWORD_GROUP + 1) == PASSWORD_GROUP {
                text.push('-');
            }
            let mut octet = [0];
            rand::fill(&mut octet).map_err(|_| CredentialError::NoRandomness)?;
            // An octet past the end of the list is drawn again, so that all are equally likely.
            text.extend(PASSWORD_LETTERS.get(usize::from(octet[0])).copied().map(char::from));
        }
        let password = Secret::new(text);
        // One in thousands has no digit or no capital.
        if check_policy(&password).is_ok() {
            return Ok(password);
        }
    }
}

/// Makes a personal access token: a prefix, then 32 random octets in lower-case base 32. With its
/// 58 characters it fits where a password of 63 does.
///
/// # Errors
/// [`CredentialError::NoRandomness`]
pub fn new_token() -> Result<Secret, CredentialError> {
    let mut octets = [0; TOKEN_BYTES];
    rand::fill(&mut octets).map_err(|_| CredentialError::NoRandomness)?;
    let text = BASE32_NOPAD.encode(&octets).to_ascii_lowercase();
    Ok(Secret::new(format!("{TOKEN_PREFIX}{text}")))
}

/// Whether a password is meant to be a personal access token.
pub fn is_token(password: &str) -> bool {
    password.starts_with(TOKEN_PREFIX)
}

/// What is kept of a personal access token: its SHA-256. Who looks a token up by it compares
/// nothing that an attacker could approach octet by octet.
pub fn token_hash(token: &Secret) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.expose().as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn each_broken_rule_is_told() {
        let check = |password: &str, expected: &[BrokenRule]| {
            let broken = check_policy(&secret(password)).err().map(|broken| broken.0);
            assert_eq!(broken.unwrap_or_default(), expected, "{password:?}");
        };
        check("", &[BrokenRule::Empty]);
        check("Lemon-tree1", &[]);
        check("lemon tree 1", &[BrokenRule::TooUniform(2)]);
        check("lemon-tree-1", &[]);
        check("zitrone1é", &[]);
        check("ZITRONEÉ", &[BrokenRule::TooUniform(2)]);
        check("Abc-123", &[BrokenRule::TooShort(7)]);
        check("abc", &[BrokenRule::TooShort(3), BrokenRule::TooUniform(1)]);
        check(&"aB3".repeat(21), &[]);
        check(&format!("{}x", "aB3".repeat(21)), &[BrokenRule::TooLong(64)]);
        check("Lemon-tree1\u{142}", &[BrokenRule::Foreign('\u{142}')]);
        check("Lemon-tree1\t", &[BrokenRule::Foreign('\t')]);
        check("mwpat_Abc1", &[BrokenRule::LooksLikeToken]);
        let told = check_policy(&secret("abc")).expect_err("too short").to_string();
        assert_eq!(
            told,
            "the password does not meet the password policy: it has 3 characters; at least 8 are \
             needed; it has characters of 1 of these groups: uppercase, lowercase, digits, \
             special, Latin-1 supplement; three are needed"
        );
    }

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        let hash = PasswordHash::of(&secret("Lemon-tree1 é")).expect("hashes");
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.as_str());
        assert!(hash.verify(&secret("Lemon-tree1 é")));
        assert!(!hash.verify(&secret("lemon-tree1 é")));
        // RFC 8265 §4.2.2: a space of another kind, and an e followed by its accent.
        assert!(hash.verify(&secret("Lemon-tree1\u{a0}e\u{301}")));
        let again = PasswordHash::of(&secret("Lemon-tree1 é")).expect("hashes");
        assert_ne!(hash, again, "each hash has its own salt");
        assert!(!PasswordHash::from_phc("rubbish".into()).verify(&secret("rubbish")));
    }

    #[test]
    fn the_dummy_costs_what_a_hash_costs() {
        let fields = |hash: &PasswordHash| {
            let parsed = argon2::PasswordHash::new(hash.as_str()).expect("reads");
            let params = Params::try_from(&parsed).expect("parameters");
            let length = parsed.hash.map(|hash| hash.len());
            (parsed.algorithm.to_string(), params, parsed.version, length)
        };
        let real = PasswordHash::of(&secret("Lemon-tree1")).expect("hashes");
        assert_eq!(fields(&PasswordHash::dummy()), fields(&real));
        assert!(!PasswordHash::dummy().verify(&secret("Lemon-tree1")));
    }

    #[test]
    fn a_password_of_our_making_meets_the_policy() {
        for _ in 0..200 {
            let (one, other) = (new_password().expect("random"), new_password().expect("random"));
            assert_eq!(check_policy(&one), Ok(()));
            assert_ne!(one, other);
            let lengths: Vec<_> = one.expose().split('-').map(str::len).collect();
            assert_eq!(lengths, [5, 5, 5, 5]);
        }
    }

    #[test]
    fn a_token_is_known_by_its_form() {
        let (one, other) = (new_token().expect("random"), new_token().expect("random"));
        assert_ne!(one, other);
        assert!(is_token(one.expose()) && !is_token("Lemon-tree1"));
        assert_eq!(one.expose().len(), 58);
        assert_ne!(token_hash(&one), token_hash(&other));
        assert_eq!(token_hash(&one), token_hash(&one.clone()));
    }
}
