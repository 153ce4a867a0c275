//! Whose turn it is next. Pure: who waits is a value of any kind, and time is told, not asked for.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Owner;

/// So many turns, and who has them and waits for them.
///
/// A free turn goes to an owner who has none now, and of those to the one whose turns will have taken
/// the least time when it is over. Who comes anew begins with what is a fair share by now, so that short
/// work waits for turns that have begun, and hardly for what others have waiting. The share grows with
/// all that is done: whoever waits is below it one day, however many come.
#[derive(Debug)]
pub(super) struct Schedule<W> {
    free: usize,
    /// What an owner would have had who was there from the beginning, and had as much as all others.
    fair: Duration,
    accounts: HashMap<Owner, Account<W>>,
    asked: u64,
}

/// What an owner has, has had and waits for.
#[derive(Debug)]
struct Account<W> {
    /// The time that its turns took, counted from `fair` when it came.
    had: Duration,
    turns: usize,
    /// In the order of their coming.
    waiting: VecDeque<Waiting<W>>,
}

/// Somebody in a line.
#[derive(Debug)]
struct Waiting<W> {
    number: u64,
    /// How long the turn will take.
    expected: Duration,
    waiter: W,
}

impl<W> Account<W> {
    fn is_idle(&self) -> bool {
        self.turns == 0 && self.waiting.is_empty()
    }
}

impl<W> Schedule<W> {
    /// All turns free.
    pub(super) fn new(all: usize) -> Self {
        Self { free: all, fair: Duration::ZERO, accounts: HashMap::new(), asked: 0 }
    }

    /// Puts somebody in the owner's line for a turn that may take so long; the number of the place.
    pub(super) fn ask(&mut self, owner: Owner, expected: Duration, waiter: W) -> u64 {
        self.asked += 1;
        // Who has had more is still known, so nobody saves up time, and nobody gets rid of it.
        let new = || Account { had: self.fair, turns: 0, waiting: VecDeque::new() };
        let account = self.accounts.entry(owner).or_insert_with(new);
        account.waiting.push_back(Waiting { number: self.asked, expected, waiter });
        self.asked
    }

    /// Gives up a place in the owner's line, if it is still one.
    pub(super) fn leave(&mut self, owner: Owner, number: u64) {
        if let Some(account) = self.accounts.get_mut(&owner) {
            account.waiting.retain(|waiting| waiting.number != number);
        }
        self.forget();
    }

    /// Takes a free turn for who is next, if anybody may have it.
    pub(super) fn next(&mut self) -> Option<(Owner, W)> {
        if self.free == 0 {
            return None;
        }
        // The last is for an owner who has none.
        let is_for_anybody = self.free > 1;
        let waiting = self.accounts.iter_mut().filter_map(|(owner, account)| {
            let first = account.waiting.front()?;
            let order = (account.turns, account.had + first.expected, first.number);
            let may_have_it = is_for_anybody || account.turns == 0;
            may_have_it.then_some((order, owner, account))
        });
        let (_, owner, account) = waiting.min_by_key(|(order, _, _)| *order)?;
        let first = account.waiting.pop_front()?;
        account.turns += 1;
        self.free -= 1;
        Some((*owner, first.waiter))
    }

    /// Takes back an owner's turn, which took so long.
    pub(super) fn end(&mut self, owner: Owner, took: Duration) {
        let active = self.accounts.values().filter(|account| !account.is_idle()).count();
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        account.turns = account.turns.saturating_sub(1);
        account.had += took;
        self.free += 1;
        let active = u32::try_from(active).unwrap_or(u32::MAX).max(1);
        self.fair += took / active;
        self.forget();
    }

    /// Forgets owners who have had no more than anybody else.
    fn forget(&mut self) {
        let fair = self.fair;
        self.accounts.retain(|_, account| !account.is_idle() || account.had > fair);
        if self.accounts.values().all(Account::is_idle) {
            self.accounts.clear();
            self.fair = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    const TURN: Duration = Duration::from_millis(100);

    fn network(number: u8) -> Owner {
        Owner::Network(IpAddr::from([192, 0, number, 0]).into())
    }

    /// All that can go on now, by the names that they wait under.
    fn all_next<W>(schedule: &mut Schedule<W>) -> Vec<W> {
        std::iter::from_fn(|| schedule.next().map(|(_, waiter)| waiter)).collect()
    }

    #[test]
    fn the_last_turn_is_for_who_has_none() {
        for (all, expected) in [(1, 1), (2, 1), (3, 2), (8, 7)] {
            let mut schedule = Schedule::new(all);
            for number in 0..20 {
                schedule.ask(network(1), TURN, number);
            }
            assert_eq!(all_next(&mut schedule).len(), expected, "of {all}");
            schedule.ask(network(2), TURN, 100);
            schedule.ask(network(2), TURN, 101);
            let of_another = if all == 1 { vec![] } else { vec![100] };
            assert_eq!(all_next(&mut schedule), of_another, "of {all}");
        }
    }

    #[test]
    fn who_has_none_comes_before_who_has_some_and_first_come_before_later() {
        let mut schedule = Schedule::new(4);
        for (owner, name) in [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (3, "e"), (2, "f")] {
            schedule.ask(network(owner), TURN, name);
        }
        assert_eq!(all_next(&mut schedule), ["a", "d", "e"], "the last is for a fourth network");
        schedule.end(network(3), TURN);
        assert_eq!(all_next(&mut schedule), ["b"]);
        schedule.ask(network(3), TURN, "g");
        assert_eq!(all_next(&mut schedule), ["g"], "that network has none any more");
    }

    #[test]
    fn who_has_had_less_is_next() {
        let mut schedule = Schedule::new(1);
        let mut order = Vec::new();
        for (owner, name) in [(1, "long"), (2, "short")] {
            for _ in 0..20 {
                schedule.ask(network(owner), TURN, name);
            }
        }
        for _ in 0..22 {
            let (owner, name) = schedule.next().expect("is free");
            let is_long = owner == network(1);
            order.push(name);
            schedule.end(owner, if is_long { 10 * TURN } else { TURN });
        }
        let long = order.iter().filter(|name| **name == "long").count();
        assert_eq!(long, 2, "{order:?}: of 22 turns the long ones take as much time as the others");
    }

    /// Six networks with large messages, and a seventh with one that has a few short steps: at each
    /// of them it waits for one turn that has begun, and for nobody's that has not.
    #[test]
    fn a_newcomer_waits_for_turns_that_have_begun_only() {
        let short = TURN / 50;
        let mut schedule = Schedule::new(2);
        for owner in 1..=6 {
            schedule.ask(network(owner), TURN, owner);
        }
        let mut running = all_next(&mut schedule);
        let innocent = 7;
        for round in 0..40 {
            if round >= 10 && !running.contains(&innocent) {
                schedule.ask(network(innocent), short, innocent);
            }
            // The longest running one ends, and its network has more.
            let ended = running.remove(0);
            schedule.end(network(ended), if ended == innocent { short } else { TURN });
            if ended != innocent {
                schedule.ask(network(ended), TURN, ended);
            }
            let next = all_next(&mut schedule);
            if round >= 10 && ended != innocent {
                assert_eq!(next, [innocent], "round {round}");
            }
            // It is over long before the others.
            if next.contains(&innocent) {
                running.splice(0..0, next);
            } else {
                running.extend(next);
            }
            assert_eq!(running.len(), 2, "round {round}");
        }
    }

    /// Networks that are always new have not had anything, and yet nobody waits for ever.
    #[test]
    fn endless_newcomers_starve_nobody() {
        let mut schedule = Schedule::new(1);
        schedule.ask(network(0), TURN, 0);
        assert_eq!(all_next(&mut schedule), [0]);
        for newcomer in 1..=3 {
            schedule.ask(network(newcomer), TURN, newcomer);
        }
        schedule.end(network(0), 10 * TURN);
        schedule.ask(network(0), TURN, 0);
        let mut newcomer = 3;
        let mut waited = 0;
        loop {
            let (owner, number) = schedule.next().expect("is free");
            if number == 0 {
                break;
            }
            waited += 1;
            assert!(waited < 100, "it is still not its turn");
            newcomer += 1;
            schedule.ask(network(newcomer), TURN, newcomer);
            schedule.end(owner, TURN);
        }
        assert!(waited > 10, "it had ten turns' time before: {waited}");
    }

    #[test]
    fn nobody_saves_up_time_and_nobody_is_remembered_for_long() {
        // Who has had more than others is known only while they are there.
        let mut schedule = Schedule::new(2);
        for owner in [1, 2] {
            schedule.ask(network(owner), TURN, owner);
        }
        assert_eq!(all_next(&mut schedule), [1, 2]);
        schedule.end(network(1), 10 * TURN);
        schedule.end(network(2), TURN);
        assert!(schedule.accounts.is_empty());
        // And only until others have had as much.
        let mut schedule = Schedule::new(1);
        for owner in 1..=9 {
            schedule.ask(network(owner), TURN, owner);
        }
        for owner in 1..=8 {
            assert_eq!(all_next(&mut schedule), [owner]);
            schedule.end(network(owner), TURN);
            if owner == 4 {
                assert_eq!(schedule.accounts.len(), 9);
            }
        }
        assert_eq!(schedule.accounts.len(), 1);
        let mut schedule = Schedule::new(1);
        for owner in [1, 2] {
            schedule.ask(network(owner), TURN, owner);
        }
        for _ in 0..50 {
            let (owner, number) = schedule.next().expect("is free");
            schedule.ask(owner, TURN, number);
            schedule.end(owner, TURN);
        }
        // A third that has never had anything has no more right to them than the others from now on.
        for _ in 0..10 {
            schedule.ask(network(3), TURN, 3);
        }
        let mut of_third = 0;
        for _ in 0..12 {
            let (owner, number) = schedule.next().expect("is free");
            of_third += usize::from(number == 3);
            if number != 3 {
                schedule.ask(owner, TURN, number);
            }
            schedule.end(owner, TURN);
        }
        assert!((3..=5).contains(&of_third), "{of_third} of 12");
        while let Some((owner, _)) = schedule.next() {
            schedule.end(owner, TURN);
        }
        assert!(schedule.accounts.is_empty());
        assert_eq!((schedule.free, schedule.fair), (1, Duration::ZERO));
    }

    #[test]
    fn who_goes_away_is_not_waited_for() {
        let mut schedule = Schedule::new(1);
        schedule.ask(network(1), TURN, "first");
        assert_eq!(all_next(&mut schedule), ["first"]);
        let second = schedule.ask(network(1), TURN, "second");
        let third = schedule.ask(network(2), TURN, "third");
        schedule.ask(network(2), TURN, "fourth");
        schedule.leave(network(1), second);
        schedule.leave(network(2), third);
        schedule.leave(network(3), 99);
        schedule.end(network(1), TURN);
        assert_eq!(all_next(&mut schedule), ["fourth"]);
        schedule.leave(network(2), 4);
        schedule.end(network(2), TURN);
        assert!(schedule.accounts.is_empty());
    }

    proptest! {
        /// No more turns are given than there are, none stays free that somebody may have, and all
        /// who wait get one.
        #[test]
        fn turns_are_kept_and_everybody_gets_one(
            all in 1_usize..5,
            steps in prop::collection::vec((0_u8..5, 0_u64..1000, any::<bool>()), 1..200),
        ) {
            let mut schedule = Schedule::new(all);
            let mut running: Vec<Owner> = Vec::new();
            let mut waiting = 0;
            for (owner, took, asks) in steps {
                if asks {
                    schedule.ask(network(owner), TURN, network(owner));
                    waiting += 1;
                } else if !running.is_empty() {
                    let ended = running.remove(usize::from(owner) % running.len());
                    schedule.end(ended, Duration::from_millis(took));
                }
                let next = all_next(&mut schedule);
                waiting -= next.len();
                running.extend(next);
                prop_assert!(running.len() <= all);
                prop_assert_eq!(schedule.free, all - running.len());
                let is_one_left = waiting > 0 && running.len() + 1 == all;
                let has_one = |owner: &Owner| running.contains(owner);
                let waits = |account: &Account<Owner>| !account.waiting.is_empty();
                let mut owners = schedule.accounts.iter().filter(|(_, it)| waits(it));
                prop_assert!(waiting == 0 || running.len() == all || is_one_left);
                prop_assert!(!is_one_left || owners.all(|(owner, _)| has_one(owner)));
            }
            while let Some(ended) = running.pop() {
                schedule.end(ended, TURN);
                let next = all_next(&mut schedule);
                waiting -= next.len();
                running.extend(next);
            }
            prop_assert_eq!(waiting, 0);
            prop_assert!(schedule.accounts.is_empty());
        }
    }
}
