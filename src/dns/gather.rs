//! Several questions at once.

use std::future::poll_fn;
use std::task::Poll;

use tokio::time::{Instant, timeout_at};

use super::{Lookup, LookupError, LookupResult, RecordType, Resolver};

/// Looks up all `names` side by side, each result in its name's place. A lookup that has not
/// ended by the deadline is [`LookupError::Transient`]; the others keep their results.
pub async fn lookup_all(
    resolver: &dyn Resolver,
    names: &[(&str, RecordType)],
    deadline: Instant,
) -> Vec<LookupResult> {
    let mut pending: Vec<State<'_>> =
        names.iter().map(|(name, kind)| State::Pending(resolver.lookup(name, *kind))).collect();
    let all = poll_fn(|context| {
        let mut ready = true;
        for state in &mut pending {
            if let State::Pending(lookup) = state {
                match lookup.as_mut().poll(context) {
                    Poll::Ready(result) => *state = State::Ready(result),
                    Poll::Pending => ready = false,
                }
            }
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    });
    // What the deadline cut off is seen below, in what is still pending.
    let _in_time = timeout_at(deadline, all).await.is_ok();
    pending.into_iter().map(State::result).collect()
}

enum State<'a> {
    Pending(Lookup<'a>),
    Ready(LookupResult),
}

impl State<'_> {
    fn result(self) -> LookupResult {
        match self {
            Self::Ready(result) => result,
            Self::Pending(_) => Err(LookupError::Transient("no answer within the deadline".into())),
        }
    }
}
