//! What a reload cannot change, and a restart can.

use crate::config::{Configuration, LogSettings};
use crate::events::audit::ArnSettings;
use crate::smtp::{ListenerSettings, TlsSettings};
use crate::{events, store};

/// What a daemon keeps from its start to its end.
#[derive(Debug)]
pub(super) struct Fixed {
    hostname: String,
    listeners: Vec<ListenerSettings>,
    tls: Option<TlsSettings>,
    store: store::Settings,
    events: events::Settings,
    arns: ArnSettings,
    log: LogSettings,
}

impl Fixed {
    pub(super) fn of(configuration: &Configuration) -> Self {
        Self {
            hostname: configuration.pipeline.hostname.clone(),
            listeners: configuration.listeners.clone(),
            tls: configuration.tls.clone(),
            store: configuration.store.clone(),
            events: configuration.events,
            arns: configuration.arns.clone(),
            log: configuration.log.clone(),
        }
    }

    /// What is another in `now`, by its name in the file.
    pub(super) fn differences(&self, now: &Self) -> Vec<String> {
        let data_dir = now.store.data_dir.clone();
        let elsewhere = store::Settings { data_dir, ..self.store.clone() };
        named(&[
            ("data_dir", self.store.data_dir != now.store.data_dir),
            ("hostname", self.hostname != now.hostname),
            ("[[listener]]", self.listeners != now.listeners),
            ("[tls]", self.tls != now.tls),
            ("[store]", elsewhere != now.store),
            ("[events]", self.events != now.events),
            ("[arn]", self.arns != now.arns),
            ("[log]", self.log != now.log),
        ])
    }

    /// Gives a new configuration the old name: banner, certificate and greeting of outgoing mail
    /// keep it, so that everything else has to as well.
    pub(super) fn keep_hostname(&self, configuration: &mut Configuration) {
        configuration.pipeline.hostname.clone_from(&self.hostname);
        configuration.msgauth.authserv_id.clone_from(&self.hostname);
    }
}

/// The names of those parts that are changed.
fn named(parts: &[(&str, bool)]) -> Vec<String> {
    let changed = parts.iter().filter(|(_, is_changed)| *is_changed);
    changed.map(|(name, _)| (*name).to_owned()).collect()
}
