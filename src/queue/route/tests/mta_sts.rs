//! MTA-STS, with a web server on a loopback port.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls_pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::authority::{Authority, Leaf};
use super::*;
use crate::store::Memo;

/// A web server that gives one answer to whoever asks for the policy, and counts.
struct Web {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Web {
    async fn start(leaf: &Leaf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = leaf.acceptor(&[], &rustls::version::TLS13);
        let (answer, asked) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap().to_lowercase();
                assert!(
                    request.starts_with("get /.well-known/mta-sts.txt http/1.1\r\n"),
                    "{request}"
                );
                assert!(request.contains("\r\nhost: mta-sts.to.test\r\n"), "{request}");
                let answer = answers.lock().unwrap().clone();
                // A client that has read enough may be gone.
                drop(stream.write_all(answer.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        });
        Self { address, answer, asked }
    }

    fn answer(&self, status: &str, media_type: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().unwrap() = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\
             Location: https://mta-sts.to.test/other\r\n\r\n{body}"
        );
    }

    fn publish(&self, policy: &str) {
        self.answer("200 OK", "text/plain; charset=utf-8", policy);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

const HOSTS: &str = "
to.test.          IN MX 10 mx.to.test.
to.test.          IN MX 20 b.other.test.
mx.to.test.       IN A 192.0.2.1
b.other.test.     IN A 192.0.2.2
mta-sts.to.test.  IN A 127.0.0.1
";

/// The zone with a policy's id.
fn zone(id: &str) -> String {
    format!("{HOSTS}_mta-sts.to.test. IN TXT \"v=STSv1; id={id};\"\n")
}

fn policy(mode: &str, host: &str) -> String {
    format!("version: STSv1\nmode: {mode}\nmx: {host}\nmax_age: 604800\n")
}

struct Scene {
    authority: Authority,
    web: Web,
    world: Arc<World>,
    clock: Arc<ManualClock>,
    router: Router,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let authority = Authority::new("the web's authority");
        let leaf = authority.leaf("mta-sts.to.test");
        Self::with(authority, leaf).await
    }

    async fn with(authority: Authority, leaf: Leaf) -> Self {
        let web = Web::start(&leaf).await;
        let world = World::new(&zone("1"));
        let clock = Arc::new(ManualClock::new(NOW));
        let folder = tempfile::tempdir().unwrap();
        let router = start(&authority, &web, &world, &clock, &folder);
        Self { authority, web, world, clock, router, folder }
    }

    fn restart(&mut self) {
        let Self { authority, web, world, clock, folder, .. } = &*self;
        self.router = start(authority, web, world, clock, folder);
    }

    /// Hosts with whether their certificate is verified, or the status.
    async fn check(&self, expected: Result<&[(&str, bool)], &str>) {
        let found = self.router.route(&domain("to.test")).await;
        let shown = |hop: &Hop| (hop.name.clone(), verifier(hop).is_some());
        let found = found.map(|route| route.hops().iter().map(shown).collect::<Vec<_>>());
        let found = found.as_ref().map_err(RouteError::status);
        let expected = expected.map(|hosts| {
            hosts.iter().map(|(name, verified)| ((*name).to_owned(), *verified)).collect::<Vec<_>>()
        });
        assert_eq!(found, expected.as_ref().map_err(|status| *status));
    }
}

fn start(
    authority: &Authority,
    web: &Web,
    world: &Arc<World>,
    clock: &Arc<ManualClock>,
    folder: &tempfile::TempDir,
) -> Router {
    let memo = Arc::new(Memo::open(&folder.path().join("mta-sts.sqlite")).unwrap());
    let fetcher = Fetcher::new(authority.roots(), web.address.port(), Networks::All);
    let clock = Arc::clone(clock) as Arc<dyn crate::clock::Clock>;
    let policies = Arc::new(Policies::open(Some(memo), fetcher, clock).unwrap());
    build(world, Settings::default(), policies)
}

const OPPORTUNISTIC: Result<&[(&str, bool)], &str> =
    Ok(&[("mx.to.test", false), ("b.other.test", false)]);
const ENFORCED: Result<&[(&str, bool)], &str> = Ok(&[("mx.to.test", true)]);

#[tokio::test]
async fn an_enforced_policy_chooses_hosts_and_has_their_certificates_verified() {
    let scene = Scene::new().await;
    scene.web.publish(&policy("enforce", "*.to.test"));
    scene.check(ENFORCED).await;
    scene.check(ENFORCED).await;
    assert_eq!(scene.web.asked(), 1, "a policy is kept");
    let route = scene.router.route(&domain("to.test")).await.unwrap();
    let hops = route.hops();
    let verifier = verifier(&hops[0]).unwrap();
    let name = ServerName::try_from(hops[0].name.clone()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_millis(NOW.as_millis()));
    let verify = |leaf: Leaf| verifier.verify_server_cert(&leaf.certificate, &[], &name, &[], now);
    assert!(verify(scene.authority.leaf("mx.to.test")).is_ok());
    assert!(verify(scene.authority.leaf("to.test")).is_err());
    assert!(verify(scene.authority.expired_leaf("mx.to.test")).is_err());
    assert!(verify(Authority::new("another").leaf("mx.to.test")).is_err());
}

#[tokio::test]
async fn a_policy_that_allows_no_host_defers() {
    let scene = Scene::new().await;
    scene.web.publish(&policy("enforce", "mx.elsewhere.test"));
    scene.check(Err("4.7.0")).await;
    let error = scene.router.route(&domain("to.test")).await.unwrap_err();
    assert!(error.to_string().contains("MTA-STS"), "{error}");
    assert!(!error.is_permanent());
}

#[tokio::test]
async fn a_policy_that_is_not_enforced_changes_nothing() {
    for mode in ["testing", "none"] {
        let scene = Scene::new().await;
        scene.web.publish(&policy(mode, "mx.elsewhere.test"));
        scene.check(OPPORTUNISTIC).await;
        assert_eq!(scene.web.asked(), 1, "{mode}");
    }
}

#[tokio::test]
async fn without_a_record_nobody_asks_for_a_policy() {
    let scene = Scene::new().await;
    scene.web.publish(&policy("enforce", "mx.to.test"));
    scene.world.change(HOSTS);
    scene.check(OPPORTUNISTIC).await;
    assert_eq!(scene.web.asked(), 0);
}

#[tokio::test]
async fn what_is_not_a_policy_counts_as_none_and_is_not_asked_for_again_at_once() {
    let good = policy("enforce", "mx.to.test");
    let long = format!("{good}{}", "x: y\n".repeat(20_000));
    for (status, media_type, body) in [
        ("301 Moved Permanently", "text/plain", good.as_str()),
        ("404 Not Found", "text/plain", &good),
        ("200 OK", "text/html", &good),
        ("200 OK", "text/plain", "mode: enforce"),
        ("200 OK", "text/plain", &long),
        ("nonsense", "text/plain", &good),
    ] {
        let scene = Scene::new().await;
        scene.web.answer(status, media_type, body);
        scene.check(OPPORTUNISTIC).await;
        scene.check(OPPORTUNISTIC).await;
        assert_eq!(scene.web.asked(), 1, "{status} {media_type}");
        scene.clock.advance(Duration::from_secs(301));
        scene.web.publish(&good);
        scene.check(ENFORCED).await;
    }
}

#[tokio::test]
async fn the_policy_host_must_have_a_good_certificate() {
    let good = policy("enforce", "mx.to.test");
    let authority = || Authority::new("the web's authority");
    let cases: [fn(&Authority) -> Leaf; 3] = [
        |authority| authority.leaf("to.test"),
        |authority| authority.expired_leaf("mta-sts.to.test"),
        |_| Authority::new("another").leaf("mta-sts.to.test"),
    ];
    for leaf in cases {
        let authority = authority();
        let leaf = leaf(&authority);
        let scene = Scene::with(authority, leaf).await;
        scene.web.publish(&good);
        scene.check(OPPORTUNISTIC).await;
        assert_eq!(scene.web.asked(), 0);
    }
}

#[tokio::test]
async fn a_reload_changes_whom_policy_hosts_are_verified_by() {
    let other = Authority::new("another");
    let leaf = other.leaf("mta-sts.to.test");
    let scene = Scene::with(Authority::new("the web's authority"), leaf).await;
    scene.web.publish(&policy("enforce", "mx.to.test"));
    scene.check(OPPORTUNISTIC).await;
    let fetcher = Fetcher::new(other.roots(), scene.web.address.port(), Networks::All);
    scene.router.policies.reload(fetcher);
    scene.clock.advance(Duration::from_secs(301));
    scene.check(ENFORCED).await;
}

#[tokio::test]
async fn a_known_policy_holds_while_dns_and_the_web_say_nothing() {
    let mut scene = Scene::new().await;
    scene.web.publish(&policy("enforce", "mx.to.test"));
    scene.check(ENFORCED).await;
    scene.web.answer("503 Service Unavailable", "text/plain", "");
    scene.world.change(&zone("2"));
    scene.check(ENFORCED).await;
    scene.world.change(HOSTS);
    scene.check(ENFORCED).await;
    scene.restart();
    scene.check(ENFORCED).await;
    scene.clock.advance(Duration::from_secs(604_800));
    scene.check(OPPORTUNISTIC).await;
    scene.restart();
    scene.check(OPPORTUNISTIC).await;
}

#[tokio::test]
async fn a_new_id_or_a_day_brings_the_policy_anew() {
    let scene = Scene::new().await;
    scene.web.publish(&policy("enforce", "mx.to.test"));
    scene.check(ENFORCED).await;
    scene.web.publish(&policy("enforce", "b.other.test"));
    scene.check(ENFORCED).await;
    scene.world.change(&zone("2"));
    scene.check(Ok(&[("b.other.test", true)])).await;
    scene.web.publish(&policy("none", "mx.to.test"));
    scene.clock.advance(Duration::from_secs(24 * 60 * 60));
    scene.check(OPPORTUNISTIC).await;
    assert_eq!(scene.web.asked(), 3);
}

#[tokio::test]
async fn dane_goes_before_a_policy() {
    let scene = Scene::new().await;
    scene.web.publish(&policy("enforce", "b.other.test"));
    let tlsa = |parameters: &str| {
        format!("_25._tcp.mx.to.test. IN TLSA {parameters} {}\n", "00".repeat(32))
    };
    // The policy does not allow the host that DANE vouches for.
    scene.world.change(&format!("{}{}", zone("1"), tlsa("3 1 1")));
    scene.check(Ok(&[("mx.to.test", true), ("b.other.test", true)])).await;
    // Records that authenticate nothing do not replace a policy that does.
    scene.world.change(&format!("{}{}", zone("1"), tlsa("0 1 1")));
    scene.check(Ok(&[("b.other.test", true)])).await;
}

#[tokio::test]
async fn a_web_server_that_does_not_answer_holds_mail_up_for_ten_seconds_at_most() {
    let authority = Authority::new("the web's authority");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let clock = Arc::new(ManualClock::new(NOW));
    let fetcher = Fetcher::new(authority.roots(), port, Networks::All);
    let policies = Arc::new(Policies::open(None, fetcher, clock).unwrap());
    let router = build(&World::new(&zone("1")), Settings::default(), policies);
    tokio::time::pause();
    let begun = Instant::now();
    assert_eq!(router.route(&domain("to.test")).await.unwrap().hops().len(), 2);
    let waited = begun.elapsed();
    assert!(waited <= Duration::from_secs(11), "{waited:?}");
    assert_eq!(router.route(&domain("to.test")).await.unwrap().hops().len(), 2);
    assert_eq!(begun.elapsed(), waited, "the second mail does not wait");
}

/// Else a domain's DNS could make this server open connections inside its own network.
#[tokio::test]
async fn a_policy_in_a_private_network_is_not_asked_for() {
    let authority = Authority::new("the web's authority");
    let leaf = authority.leaf("mta-sts.to.test");
    let web = Web::start(&leaf).await;
    web.publish(&policy("enforce", "mx.to.test"));
    for (networks, is_obeyed) in [(Networks::Public, false), (Networks::All, true)] {
        let clock = Arc::new(ManualClock::new(NOW));
        let fetcher = Fetcher::new(authority.roots(), web.address.port(), networks);
        let policies = Arc::new(Policies::open(None, fetcher, clock).unwrap());
        let router = build(&World::new(&zone("1")), Settings::default(), policies);
        let route = router.route(&domain("to.test")).await.unwrap();
        assert_eq!(verifier(&route.hops()[0]).is_some(), is_obeyed, "{networks:?}");
        assert_eq!(web.asked(), usize::from(is_obeyed), "{networks:?}");
    }
}
