//! A resolver and what it was made from.

use std::path::Path;
use std::sync::Arc;

use super::{Resolver, Settings, SetupError, Source, from_settings};

/// Where `Source::System` finds its servers.
pub const SYSTEM_FILE: &str = "/etc/resolv.conf";

/// A resolver that is kept, with all that it knows, until what it was made from has changed.
#[derive(Clone)]
pub struct Configured {
    resolver: Arc<dyn Resolver>,
    basis: Basis,
}

/// What a resolver is made from.
#[derive(Clone, PartialEq, Eq)]
struct Basis {
    settings: Settings,
    system_file: Option<Vec<u8>>,
}

impl Basis {
    fn of(settings: &Settings) -> Self {
        let system_file = match settings.source {
            // One that cannot be read is told when the resolver is made.
            Source::System => std::fs::read(SYSTEM_FILE).ok(),
            Source::Servers(_) | Source::ZoneFile(_) => None,
        };
        Self { settings: settings.clone(), system_file }
    }

    /// A zone file is read again each time: it knows nothing that is not in it.
    fn is_kept(&self) -> bool {
        !matches!(self.settings.source, Source::ZoneFile(_))
    }
}

impl Configured {
    /// The resolver that the settings ask for, as [`from_settings`] makes it.
    ///
    /// # Errors
    /// [`SetupError`], for the operator.
    pub fn new(settings: &Settings, base: &Path) -> Result<Self, SetupError> {
        let basis = Basis::of(settings);
        Ok(Self { resolver: from_settings(settings, base)?, basis })
    }

    /// The resolver for these settings: this one, if it would be made the same.
    ///
    /// # Errors
    /// [`SetupError`], for the operator.
    pub fn renewed(&self, settings: &Settings, base: &Path) -> Result<Self, SetupError> {
        if self.basis.is_kept() && self.basis == Basis::of(settings) {
            return Ok(self.clone());
        }
        Self::new(settings, base)
    }

    /// The resolver.
    pub fn resolver(&self) -> Arc<dyn Resolver> {
        Arc::clone(&self.resolver)
    }
}
