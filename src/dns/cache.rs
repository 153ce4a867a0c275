//! A bounded cache in front of what asks the network.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::name::{Key, key};
use super::{Answer, Lookup, LookupError, LookupResult, RecordData, RecordType, Resolver};

/// The longest time for which an answer is kept, whatever its TTL says (RFC 8767 §4 recommends
/// at most a week; keys and policies change faster).
const MAX_KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// For a negative answer without an SOA record; RFC 2308 §5 would not keep it at all, but then
/// a peer could make every message of its cost a query.
const NEGATIVE_KEEP: Duration = Duration::from_secs(60);
/// RFC 2308 §5: negative answers kept for one to three hours work well.
const MAX_NEGATIVE_KEEP: Duration = Duration::from_secs(60 * 60);
/// The shortest that RFC 9520 allows for a failure. It is that of one question: a server that cannot
/// be reached at all is remembered by whoever speaks to it.
const FAILURE_KEEP: Duration = Duration::from_secs(1);
/// An entry of this many octets counts as one; a larger one counts for more.
const OCTETS_PER_ENTRY: usize = 512;

/// What an upstream came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The answer.
    pub result: LookupResult,
    /// For how long a negative answer may be kept, if the server said so (RFC 2308 §5).
    pub negative_ttl: Option<Duration>,
}

/// A fetch under way.
pub type Fetch<'a> = Pin<Box<dyn Future<Output = Fetched> + Send + 'a>>;

/// Where answers come from when they are not in the cache.
pub trait Upstream: Send + Sync {
    /// Looks up as [`Resolver::lookup`] does.
    fn fetch<'a>(&'a self, name: &'a str, record_type: RecordType) -> Fetch<'a>;
}

/// Keeps answers of an [`Upstream`] for as long as their TTL allows, in bounded memory: peers
/// choose the names.
pub struct CachedResolver<U> {
    upstream: U,
    entries: Cache<Key, Entry>,
}

#[derive(Clone)]
struct Entry {
    result: LookupResult,
    expires: Instant,
}

impl<U: Upstream> CachedResolver<U> {
    /// A cache of at most `entries` answers.
    pub fn new(upstream: U, entries: u64) -> Self {
        let entries = Cache::builder().max_capacity(entries).weigher(weight).build();
        Self { upstream, entries }
    }

    fn cached(&self, key: &[u8]) -> Option<LookupResult> {
        let Entry { result, expires } = self.entries.get(key)?;
        let left = expires.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some(result.map(|answer| Answer { ttl: left, ..answer }))
    }

    async fn fetch(&self, key: Key, name: &str, record_type: RecordType) -> LookupResult {
        let fetched = self.upstream.fetch(name, record_type).await;
        if let Some(keep) = keep(&fetched) {
            let entry = Entry { result: fetched.result.clone(), expires: Instant::now() + keep };
            self.entries.insert(key, entry);
        }
        fetched.result
    }
}

impl<U: Upstream> Resolver for CachedResolver<U> {
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a> {
        let mut buffer = [0; 256];
        let Some(key) = key(name, record_type, &mut buffer) else {
            return Box::pin(std::future::ready(Err(LookupError::NoSuchName)));
        };
        match self.cached(key) {
            Some(result) => Box::pin(std::future::ready(result)),
            None => {
                let key = Key::from(key);
                Box::pin(self.fetch(key, name, record_type))
            }
        }
    }
}

/// For how long to keep an answer; `None` is not at all.
fn keep(fetched: &Fetched) -> Option<Duration> {
    let keep = match &fetched.result {
        Ok(answer) => answer.ttl.min(MAX_KEEP),
        Err(LookupError::NoSuchName | LookupError::NoData) => {
            fetched.negative_ttl.unwrap_or(NEGATIVE_KEEP).min(MAX_NEGATIVE_KEEP)
        }
        Err(LookupError::Transient(_)) => FAILURE_KEEP,
    };
    // RFC 1035 §3.2.1: what has a TTL of 0 is for the transaction in progress only.
    (!keep.is_zero()).then_some(keep)
}

fn weight(key: &Key, entry: &Entry) -> u32 {
    let records = entry.result.as_ref().map_or(&[][..], |answer| &answer.records);
    let octets = key.len() + records.iter().map(size_octets).sum::<usize>();
    u32::try_from(octets.div_ceil(OCTETS_PER_ENTRY)).unwrap_or(u32::MAX)
}

fn size_octets(record: &RecordData) -> usize {
    let data = match record {
        RecordData::Txt(text) => text.len(),
        RecordData::Mx { exchange: name, .. } | RecordData::Ptr(name) => name.len(),
        RecordData::Tlsa(tlsa) => tlsa.data.len(),
        RecordData::A(_) | RecordData::Aaaa(_) => 0,
    };
    data + size_of::<RecordData>()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Gives one answer to everything, and counts how often it is asked.
    struct Counting {
        fetched: Fetched,
        asked: AtomicUsize,
    }

    impl Upstream for Counting {
        fn fetch<'a>(&'a self, _name: &'a str, _record_type: RecordType) -> Fetch<'a> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::ready(self.fetched.clone()))
        }
    }

    fn cache(result: LookupResult, negative_ttl: Option<u64>) -> CachedResolver<Counting> {
        let negative_ttl = negative_ttl.map(Duration::from_secs);
        let fetched = Fetched { result, negative_ttl };
        CachedResolver::new(Counting { fetched, asked: AtomicUsize::new(0) }, 1000)
    }

    fn answer(ttl: u64) -> LookupResult {
        let records = [RecordData::A(Ipv4Addr::LOCALHOST)].into();
        Ok(Answer { records, ttl: Duration::from_secs(ttl), is_secure: true })
    }

    /// Asks, asks again just before `keep` seconds have gone by, and again after them.
    async fn check_kept(result: LookupResult, negative_ttl: Option<u64>, keep: u64) {
        let cache = cache(result.clone(), negative_ttl);
        assert_eq!(cache.lookup("host.test", RecordType::A).await, result);
        tokio::time::advance(Duration::from_millis(keep * 1000 - 10)).await;
        let again = cache.lookup("HOST.test", RecordType::A).await;
        assert_eq!(again.is_ok(), result.is_ok());
        assert_eq!(cache.upstream.asked.load(Ordering::SeqCst), 1, "{result:?} was not kept");
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(cache.lookup("host.test", RecordType::A).await, result);
        assert_eq!(cache.upstream.asked.load(Ordering::SeqCst), 2, "{result:?} was kept too long");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_their_time_to_live() {
        check_kept(answer(300), None, 300).await;
        check_kept(answer(1), None, 1).await;
        check_kept(answer(10_000_000), None, 86_400).await;
        check_kept(Err(LookupError::NoSuchName), Some(20), 20).await;
        check_kept(Err(LookupError::NoSuchName), None, 60).await;
        check_kept(Err(LookupError::NoData), Some(1_000_000), 3600).await;
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_kept_for_a_second() {
        check_kept(Err(LookupError::Transient("SERVFAIL".into())), None, 1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_time_to_live_is_asked_for_each_time() {
        for (result, negative_ttl) in [
            (answer(0), None),
            (Err(LookupError::NoSuchName), Some(0)),
            (Err(LookupError::NoData), Some(0)),
        ] {
            let cache = cache(result.clone(), negative_ttl);
            for asked in 1..4 {
                assert_eq!(cache.lookup("host.test", RecordType::Txt).await, result);
                assert_eq!(cache.upstream.asked.load(Ordering::SeqCst), asked, "{result:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_answer_says_how_long_it_still_lives_and_keeps_the_rest() {
        let cache = cache(answer(300), None);
        let first = cache.lookup("host.test", RecordType::A).await.unwrap();
        tokio::time::advance(Duration::from_secs(100)).await;
        let second = cache.lookup("host.test.", RecordType::A).await.unwrap();
        assert_eq!(second.ttl, Duration::from_secs(200));
        assert!(std::sync::Arc::ptr_eq(&first.records, &second.records));
        assert!(second.is_secure, "what was validated is lost in the cache");
    }

    #[tokio::test]
    async fn types_of_one_name_are_kept_apart() {
        let cache = cache(answer(300), None);
        for record_type in [RecordType::A, RecordType::Aaaa, RecordType::Txt, RecordType::Mx] {
            cache.lookup("host.test", record_type).await.unwrap();
        }
        assert_eq!(cache.upstream.asked.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn memory_is_bounded_by_size_not_by_number() {
        let text: Box<[u8]> = vec![b'x'; 60_000].into();
        let records = [RecordData::Txt(text)].into();
        let cache =
            cache(Ok(Answer { records, ttl: Duration::from_secs(300), is_secure: false }), None);
        for number in 0..500 {
            cache.lookup(&format!("n{number}.test"), RecordType::Txt).await.unwrap();
        }
        cache.entries.run_pending_tasks();
        // 60,000 octets weigh 118 entries of the thousand.
        assert!(cache.entries.entry_count() <= 8, "{}", cache.entries.entry_count());
    }

    #[tokio::test]
    async fn a_name_that_dns_cannot_carry_does_not_exist() {
        let cache = cache(answer(300), None);
        let long = format!("{}.test", "a".repeat(64));
        let deep = "a.".repeat(128);
        for name in [long.as_str(), deep.as_str(), "a..test", ".test", ""] {
            let result = cache.lookup(name, RecordType::A).await;
            assert_eq!(result, Err(LookupError::NoSuchName), "{name}");
        }
        assert_eq!(cache.upstream.asked.load(Ordering::SeqCst), 0);
    }
}
