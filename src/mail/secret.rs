//! A password or token on its way through memory.

use std::fmt;

use zeroize::Zeroizing;

/// A text that is not to be seen: it does not print, and is overwritten with zeros when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes charge of a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for whoever checks or sends it. Comparing it takes time that depends on
    /// where the texts differ; passwords are compared by their hashes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_to_who_asks_and_never_printed() {
        let secret = Secret::new("open sesame".to_owned());
        assert_eq!(secret.expose(), "open sesame");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(..) Some(Secret(..))");
    }
}
