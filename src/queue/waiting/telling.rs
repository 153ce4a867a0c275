//! What entries wait for, told to their operator.

use super::sender::Sender;
use super::{LaneState, Stage, Waiting};
use crate::clock::Timestamp;
use crate::queue::lane::{Class, Lane};
use crate::queue::waits_for::{Share, WaitingEntry, WaitsFor};
use crate::queue::wanted::Wanted;
use crate::store::{QueueId, QueuedMail};

impl Waiting {
    /// Everything that is in the queue, and what it waits for, oldest first.
    pub(in crate::queue) fn tell(&mut self, now: Timestamp) -> Vec<WaitingEntry> {
        let mut ids: Vec<_> = self.mails.keys().chain(self.under_way.keys()).copied().collect();
        ids.sort_unstable();
        let mut told = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(waits_for) = self.waits_for(id, now) {
                told.push(WaitingEntry { id, waits_for });
            }
        }
        told
    }

    /// The entries that are meant, oldest first; those named by their ids as they are named,
    /// whether there are such or not.
    pub(in crate::queue) fn find(&self, wanted: &Wanted) -> Vec<QueueId> {
        let under_way = self.under_way.values().map(|entry| &entry.mail);
        let all = self.mails.values().chain(under_way);
        let is_meant = |mail: &&QueuedMail| match wanted {
            Wanted::Ids(_) => false,
            Wanted::All => true,
            Wanted::To(whom) => !whom.places(mail).is_empty(),
        };
        if let Wanted::Ids(ids) = wanted {
            return ids.clone();
        }
        let mut ids: Vec<_> = all.filter(is_meant).map(|mail| mail.id).collect();
        ids.sort_unstable();
        ids
    }

    /// What an entry waits for; `None` if it is not in the queue.
    pub(in crate::queue) fn waits_for(&mut self, id: QueueId, now: Timestamp) -> Option<WaitsFor> {
        self.promote(now);
        if let Some(entry) = self.under_way.get(&id) {
            return Some(match entry.stage {
                Stage::Memory => WaitsFor::Memory,
                Stage::Attempt => WaitsFor::InFlight,
                Stage::Broken => WaitsFor::Restart,
            });
        }
        let mail = self.mails.get(&id)?;
        if self.is_paused {
            return Some(WaitsFor::Paused);
        }
        let next_attempt = mail.state.next_attempt;
        if self.due.contains(&(next_attempt, id)) {
            return Some(WaitsFor::NextAttempt { until: next_attempt });
        }
        let lane = self.lane_of(mail);
        let state = self.lanes.get(&lane);
        let rests_until = |state: &LaneState| state.ready.rests_until(&Sender::of(&mail.entry), id);
        Some(if let Some(until) = state.and_then(|state| state.held_until) {
            WaitsFor::DestinationDown { until }
        } else if let Some(until) = state.and_then(rests_until) {
            WaitsFor::SenderTurnedAway { until }
        } else {
            WaitsFor::Connection { share: self.used_up(&lane, &Sender::of(&mail.entry)) }
        })
    }

    /// Why a lane has no connection for a sender whose mail is due.
    fn used_up(&self, lane: &Lane, sender: &Sender) -> Share {
        let class = self.class(lane);
        let connections = self.lanes.get(lane).map_or(0, |state| state.connections);
        let is_lane_full = connections >= self.limits.of_lane(class);
        match class {
            _ if self.connections_at(lane) >= self.limits.per_destination => Share::Destination,
            Class { is_proven: false, .. } if is_lane_full => Share::FirstAnswer,
            Class { is_report: true, .. } if is_lane_full => Share::DestinationReports,
            _ if self.open.total() >= self.limits.connections() => Share::All,
            Class { is_proven: false, .. } if !self.has_room(class) => {
                if self.open.has_room(Class { is_report: false, ..class }, self.limits) {
                    Share::Reports
                } else {
                    Share::Unproven
                }
            }
            _ if !self.has_room(class) => Share::Reports,
            _ => self.users_share(lane, sender).unwrap_or(Share::Turn),
        }
    }

    /// The share of a lane's connections that a user, or strangers in all, have used up.
    fn users_share(&self, lane: &Lane, sender: &Sender) -> Option<Share> {
        let shares = self.shares(lane);
        let most = self.limits.of_lone_user();
        if !shares.user_has_room(&sender.user, most) {
            return Some(Share::User);
        }
        (!shares.have_room(&sender.user, sender.origin, most)).then_some(Share::Strangers)
    }
}
