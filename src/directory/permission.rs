//! Who may send as whom: own addresses, and mailbox permissions (guide 6682–6700). Pure.

use std::collections::HashSet;
use std::sync::Arc;

use super::organization::{EntityState, Found, Group, Organization, User};
use super::resolve::{Directory, IndexedOrganization};
use crate::id::EntityId;
use crate::mail::{Address, ReversePath};

/// By what right a user may send a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendRight {
    /// All authors are the user.
    Own,
    /// By *Send As*.
    As {
        /// The name of the first author's entity that is not the user.
        owner: Arc<str>,
    },
    /// By *Send On Behalf*, or by *Send As* where the message names the user as its sender anyway.
    OnBehalf {
        /// The name of the first author's entity that is not the user.
        owner: Arc<str>,
        /// One of the user's addresses: what the `Sender` field says, or must be made to say if
        /// there is none.
        sender: Address,
    },
}

/// Why a user may not send a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The organization has no such user, or the user is disabled.
    #[error("{0} is no enabled user of the organization")]
    NoSuchUser(EntityId),
    /// The message names no author.
    #[error("the message has no author")]
    NoAuthor,
    /// The author's address is in a domain that the organization has not.
    #[error("{0} is in no domain of the organization")]
    ForeignDomain(Address),
    /// The address is nobody's, or its owner is disabled.
    #[error("{0} is the address of nobody who may send")]
    Nobody(Address),
    /// The address belongs to somebody else, who has not granted it.
    #[error("{user} has no permission to send as {address} or on its behalf")]
    NotGranted {
        /// Who wanted to.
        user: Arc<str>,
        /// Whose address it is.
        address: Address,
    },
    /// The `Sender` field names somebody else than the user.
    #[error("the Sender {0} is neither the user nor whom the user may send as")]
    Sender(Address),
}

/// What a user may do with one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    OnBehalf,
    As,
    Own,
}

impl Directory {
    /// Whether the user of this id, of the organization with this id, may send a message of these
    /// authors: *all* addresses of the `From` field, and that of the `Sender` field, if there is
    /// one. A caller that cannot read one of them must refuse the message.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn may_send(
        &self,
        organization: &str,
        user: &EntityId,
        header_from: &[Address],
        header_sender: Option<&Address>,
    ) -> Result<SendRight, Denied> {
        let organization = self.organization(organization);
        let organization = organization.ok_or_else(|| Denied::NoSuchUser(user.clone()))?;
        organization.may_send(user, header_from, header_sender)
    }

    /// The organization and the user behind a login, as long as the user may send.
    ///
    /// # Errors
    /// [`Denied::NoSuchUser`]
    pub fn sender(
        &self,
        organization: &str,
        user: &EntityId,
    ) -> Result<(&Arc<Organization>, &User), Denied> {
        let found = self.organization(organization);
        let found = found.ok_or_else(|| Denied::NoSuchUser(user.clone()))?;
        Ok((found.itself(), found.sending_user(user)?))
    }

    /// Whether `user` may name this reverse-path. The null path is everybody's: a client needs it
    /// for disposition notifications, and it is no reason to refuse a message (RFC 6409 §3.2). An
    /// address is the user's, or one that the user may send as or on behalf of, since many
    /// clients put the author there; its owner then learns of failures.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn may_use_reverse_path(
        &self,
        organization: &str,
        user: &EntityId,
        reverse_path: &ReversePath,
    ) -> Result<(), Denied> {
        let no_such_user = || Denied::NoSuchUser(user.clone());
        let organization = self.organization(organization).ok_or_else(no_such_user)?;
        let sender = organization.sending_user(user)?;
        match reverse_path.address() {
            None => Ok(()),
            Some(address) => organization.hold(sender, address).map(|_| ()),
        }
    }
}

impl IndexedOrganization {
    fn may_send(
        &self,
        user: &EntityId,
        header_from: &[Address],
        header_sender: Option<&Address>,
    ) -> Result<SendRight, Denied> {
        let user = self.sending_user(user)?;
        let authors: Vec<(Hold, &Arc<str>)> =
            header_from.iter().map(|author| self.hold(user, author)).collect::<Result<_, _>>()?;
        let weakest = authors.iter().map(|(hold, _)| *hold).min().ok_or(Denied::NoAuthor)?;
        let is_own = |sender: &Address| self.is_own(user, sender);
        let is_author =
            |sender: &Address| header_from.iter().any(|author| author.key() == sender.key());
        let owner = authors.into_iter().find(|(hold, _)| *hold != Hold::Own);
        let Some(owner) = owner.map(|(_, owner)| Arc::clone(owner)) else {
            return match header_sender {
                Some(sender) if !is_own(sender) => Err(Denied::Sender(sender.clone())),
                _ => Ok(SendRight::Own),
            };
        };
        match header_sender {
            Some(sender) if is_own(sender) => {
                Ok(SendRight::OnBehalf { owner, sender: sender.clone() })
            }
            // Guide 6697: with *Send As* the owner appears in both fields.
            Some(sender) if weakest == Hold::As && is_author(sender) => Ok(SendRight::As { owner }),
            Some(sender) => Err(Denied::Sender(sender.clone())),
            None if weakest == Hold::As => Ok(SendRight::As { owner }),
            None => Ok(SendRight::OnBehalf { owner, sender: user.email.clone() }),
        }
    }

    /// The user or resource of that id, if it may do anything at all.
    fn sending_user(&self, id: &EntityId) -> Result<&User, Denied> {
        match self.identified(id) {
            Some(Found::Mailbox(user)) if user.state != EntityState::Disabled => Ok(user),
            Some(Found::Mailbox(_) | Found::Group(_)) | None => Err(Denied::NoSuchUser(id.clone())),
        }
    }

    fn is_own(&self, user: &User, address: &Address) -> bool {
        matches!(self.owner(address), Some(Found::Mailbox(owner)) if owner.name == user.name)
    }

    /// Whose an address is, by the way that mail for it takes: with a tag if the organization has
    /// plus-addressing, and as `postmaster`. Nobody's if its owner is disabled.
    fn owner(&self, address: &Address) -> Option<Found<'_>> {
        // Every organization would know the postmaster of a foreign domain.
        let is_ours = self.domains().contains(address.domain());
        let found = is_ours.then(|| self.find(address)).flatten();
        self.entity(found?).filter(|found| match found {
            Found::Mailbox(user) => user.state != EntityState::Disabled,
            Found::Group(group) => group.is_enabled,
        })
    }

    /// What `user` may do with an address, and its owner's name.
    fn hold(&self, user: &User, address: &Address) -> Result<(Hold, &Arc<str>), Denied> {
        if !self.domains().contains(address.domain()) {
            return Err(Denied::ForeignDomain(address.clone()));
        }
        let owner = match self.owner(address) {
            Some(Found::Mailbox(owner)) if owner.name == user.name => {
                return Ok((Hold::Own, &owner.name));
            }
            Some(Found::Mailbox(owner)) => &owner.name,
            Some(Found::Group(owner)) => &owner.name,
            None => return Err(Denied::Nobody(address.clone())),
        };
        let not_granted =
            || Denied::NotGranted { user: Arc::clone(&user.name), address: address.clone() };
        Ok((self.granted(user, owner).ok_or_else(not_granted)?, owner))
    }

    /// The most that `owner` lets `user` do, by the user's own permission or by a group's.
    fn granted(&self, user: &User, owner: &Arc<str>) -> Option<Hold> {
        let granted = self.permissions_of(owner).filter_map(|permission| {
            let hold = match (permission.send_as, permission.send_on_behalf) {
                (true, _) => Hold::As,
                (false, true) => Hold::OnBehalf,
                (false, false) => return None,
            };
            self.is_or_has_member(&permission.grantee, user).then_some(hold)
        });
        granted.max()
    }

    /// Whether `grantee` is the user, or an enabled group with the user in it or in an enabled
    /// group in it. Each group is opened once, so groups in each other come to an end.
    fn is_or_has_member(&self, grantee: &str, user: &User) -> bool {
        let mut seen = HashSet::from([grantee]);
        let mut open = vec![grantee];
        while let Some(name) = open.pop() {
            match self.named(name) {
                Some(Found::Mailbox(member)) if member.name == user.name => return true,
                Some(Found::Group(Group { members, is_enabled: true, .. })) => {
                    let unseen = members.iter().filter(|member| seen.insert(member));
                    open.extend(unseen.map(|member| &**member));
                }
                Some(Found::Mailbox(_) | Found::Group(_)) | None => {}
            }
        }
        false
    }
}
