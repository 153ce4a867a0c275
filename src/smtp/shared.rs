//! What all connections of all listeners share: the handler, limits, and what is counted.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::budget::{InFlight, NetworkPlace, Place, Places, Reservation};
use super::guesses::Guesses;
use super::handler::Handler;
use super::reason::Reason;
use super::settings::{Limits, Protocol};
use super::tls::Tls;
use super::turns::Turns;
use super::waited::Waited;
use crate::mail::Domain;

/// What all connections of all listeners share.
pub struct Shared<H> {
    handler: H,
    hostname: Domain,
    limits: ArcSwap<Limits>,
    tls: Tls,
    places: Arc<Places>,
    turns: ArcSwap<Turns>,
    unknown_users: Guesses,
    failed_logins: Guesses,
    in_flight: Arc<InFlight>,
    waited: Waited,
}

impl<H: Handler> Shared<H> {
    /// `hostname` stands in the banner and in the answer to EHLO.
    pub fn new(handler: H, hostname: Domain, limits: Limits, tls: Tls) -> Arc<Self> {
        Arc::new(Self {
            handler,
            hostname,
            turns: ArcSwap::from_pointee(Turns::new(&limits)),
            limits: ArcSwap::from_pointee(limits),
            tls,
            places: Arc::default(),
            unknown_users: Guesses::default(),
            failed_logins: Guesses::default(),
            in_flight: Arc::default(),
            waited: Waited::default(),
        })
    }

    /// New limits, for connections from now on. Messages that are worked on keep their turns and
    /// do not count among the new ones.
    pub fn set_limits(&self, limits: Limits) {
        if limits.processing != self.limits().processing {
            self.turns.store(Arc::new(Turns::new(&limits)));
        }
        self.limits.store(Arc::new(limits));
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    pub(crate) fn hostname(&self) -> &Domain {
        &self.hostname
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// A place among all connections.
    ///
    /// # Errors
    /// [`Reason::TooManyConnections`]
    pub(crate) fn take_place(&self, limits: &Limits) -> Result<Place, Reason> {
        self.places.take(limits)
    }

    /// A place among the connections of the client's network. Networks that ask for recipients who
    /// do not exist get none where other MTAs come; users may still log in from there.
    ///
    /// # Errors
    /// [`Reason::TooManyUnknownUsers`] or [`Reason::TooManyFromNetwork`]
    pub(crate) fn take_in_network(
        &self,
        ip: IpAddr,
        protocol: Protocol,
        limits: &Limits,
    ) -> Result<NetworkPlace, Reason> {
        let is_guessing = self.unknown_users.are_spent(ip, limits.unknown_users_per_network);
        if is_guessing && !protocol.is_submission() {
            return Err(Reason::TooManyUnknownUsers);
        }
        self.places.take_in_network(ip, limits)
    }

    /// Whether more than one client network is connected.
    pub(crate) fn is_shared(&self) -> bool {
        self.places.are_shared()
    }

    pub(crate) fn turns(&self) -> Arc<Turns> {
        self.turns.load_full()
    }

    /// Recipients who do not exist.
    pub(crate) fn unknown_users(&self) -> &Guesses {
        &self.unknown_users
    }

    /// Wrong passwords.
    pub(crate) fn failed_logins(&self) -> &Guesses {
        &self.failed_logins
    }

    /// Clients that have waited for their banner.
    pub(crate) fn waited(&self) -> &Waited {
        &self.waited
    }

    pub(crate) fn reservation(&self) -> Reservation {
        Reservation::new(Arc::clone(&self.in_flight))
    }
}
