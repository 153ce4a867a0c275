//! Which hosts, in which order, at which addresses.

use super::*;
use crate::mail::GatewayLogin;

const ZONE: &str = "
two.test.        IN MX 20 b.hosts.test.
two.test.        IN MX 10 A.hosts.test.
equal.test.      IN MX 10 a.hosts.test.
equal.test.      IN MX 10 b.hosts.test.
equal.test.      IN MX 5  c.hosts.test.
twice.test.      IN MX 20 a.hosts.test.
twice.test.      IN MX 10 a.hosts.test.
host.test.       IN A 192.0.2.7
host.test.       IN AAAA 2001:db8::7
null.test.       IN MX 0 .
null.test.       IN A 192.0.2.7
nullish.test.    IN MX 0 .
nullish.test.    IN MX 10 a.hosts.test.
text.test.       IN TXT nothing
gone.test.       IN MX 10 nowhere.hosts.test.
gone.test.       IN MX 20 text.test.
partly.test.     IN MX 10 nowhere.hosts.test.
partly.test.     IN MX 20 a.hosts.test.
unsure.test.     IN MX 10 broken.hosts.test.
unsure.test.     IN MX 20 nowhere.hosts.test.
half.test.       IN MX 10 broken.hosts.test.
half.test.       IN MX 20 a.hosts.test.
ip.test.         IN MX 10 192.0.2.1.
alias.test.      IN CNAME two.test.
cname.test.      IN MX 10 alias.hosts.test.
odd.test.        IN MX 10 odd.hosts.test.
a.hosts.test.    IN A 192.0.2.1
a.hosts.test.    IN A 192.0.2.2
a.hosts.test.    IN AAAA 2001:db8::1
b.hosts.test.    IN A 192.0.2.3
c.hosts.test.    IN AAAA ::ffff:192.0.2.4
alias.hosts.test. IN CNAME b.hosts.test.
odd.hosts.test.  IN A 0.0.0.0
odd.hosts.test.  IN A 224.0.0.1
odd.hosts.test.  IN A 255.255.255.255
odd.hosts.test.  IN AAAA ::
odd.hosts.test.  IN AAAA ff02::1
backup.test.     IN MX 10 a.hosts.test.
backup.test.     IN MX 20 b.hosts.test.
backup.test.     IN MX 20 MX.us.test.
backup.test.     IN MX 30 c.hosts.test.
first.test.      IN MX 10 mx.us.test.
first.test.      IN MX 20 a.hosts.test.
ours.test.       IN MX 10 other.us.test.
local.test.      IN MX 10 localhost.us.test.
mx.us.test.      IN A 192.0.2.98
other.us.test.   IN A 192.0.2.99
localhost.us.test. IN A 127.0.0.1
inner.test.      IN MX 10 inner.hosts.test.
inner.test.      IN MX 20 localhost.us.test.
mixed.test.      IN MX 10 inner.hosts.test.
mixed.test.      IN MX 20 half.hosts.test.
unsure-inner.test. IN MX 10 inner.hosts.test.
unsure-inner.test. IN MX 20 broken.hosts.test.
metadata.test.   IN A 169.254.169.254
inner.hosts.test. IN A 10.0.0.25
inner.hosts.test. IN AAAA fd00::25
half.hosts.test. IN A 192.168.0.1
half.hosts.test. IN A 192.0.2.5
";

async fn check_with(settings: Settings, to: &str, expected: Result<&[(&str, &[&str])], &str>) {
    let found = router_with(&World::new(ZONE), settings).route(&domain(to)).await;
    let found = found.map(|route| {
        let shown = |hop: Hop| {
            (hop.name, hop.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        route.hops().iter().cloned().map(shown).collect::<Vec<_>>()
    });
    let expected = expected.map(|hops| {
        let owned = |(name, addresses): &(&str, &[&str])| {
            ((*name).to_owned(), addresses.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>())
        };
        hops.iter().map(owned).collect::<Vec<_>>()
    });
    assert_eq!(
        found.as_ref().map_err(RouteError::status),
        expected.as_ref().map_err(|e| *e),
        "{to}"
    );
}

async fn check(to: &str, expected: Result<&[(&str, &[&str])], &str>) {
    check_with(Settings::default(), to, expected).await;
}

const A: (&str, &[&str]) = ("a.hosts.test", &["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
const B: (&str, &[&str]) = ("b.hosts.test", &["192.0.2.3"]);
const C: (&str, &[&str]) = ("c.hosts.test", &["192.0.2.4"]);

#[tokio::test]
async fn mail_exchangers_are_taken_by_preference() {
    check("two.test", Ok(&[A, B])).await;
    check("equal.test", Ok(&[C, A, B])).await;
    check("twice.test", Ok(&[A])).await;
    check("alias.test", Ok(&[A, B])).await;
    check("partly.test", Ok(&[A])).await;
    check("half.test", Ok(&[A])).await;
    check("cname.test", Ok(&[("alias.hosts.test", B.1)])).await;
    check("nullish.test", Ok(&[A])).await;
}

#[tokio::test]
async fn without_mail_exchangers_the_domain_is_its_own_host() {
    check("host.test", Ok(&[("host.test", &["2001:db8::7", "192.0.2.7"])])).await;
}

#[tokio::test]
async fn what_cannot_be_reached_for_good_is_told_from_what_may_come_back() {
    check("nowhere.test", Err("5.1.2")).await;
    check("null.test", Err("5.1.10")).await;
    check("text.test", Err("5.4.4")).await;
    check("gone.test", Err("5.4.4")).await;
    check("ip.test", Err("5.4.4")).await;
    check("odd.test", Err("5.4.4")).await;
    check("broken.test", Err("4.4.3")).await;
    check("unsure.test", Err("4.4.3")).await;
}

#[tokio::test]
async fn mail_is_not_sent_to_ourselves_nor_to_those_that_would_send_it_here() {
    check("backup.test", Ok(&[A])).await;
    check("first.test", Err("5.4.6")).await;
    check("ours.test", Err("5.4.6")).await;
    check("[192.0.2.99]", Err("5.4.6")).await;
    // On all interfaces we listen at another port.
    let settings = Settings { private_networks: true, ..Settings::default() };
    let localhost: (&str, &[&str]) = ("localhost.us.test", &["127.0.0.1"]);
    check_with(settings.clone(), "local.test", Ok(&[localhost])).await;
    let settings = Settings { port: 2525, ..settings };
    check_with(settings.clone(), "local.test", Err("5.4.6")).await;
    check_with(settings, "ours.test", Ok(&[("other.us.test", &["192.0.2.99"])])).await;
}

#[tokio::test]
async fn an_address_literal_is_its_own_host() {
    check("[192.0.2.1]", Ok(&[("[192.0.2.1]", &["192.0.2.1"])])).await;
    check("[0.0.0.0]", Err("5.4.4")).await;
    check("[IPv6:ff02::1]", Err("5.4.4")).await;
    check("[IPv6:2001:DB8::1]", Ok(&[("[ipv6:2001:db8::1]", &["2001:db8::1"])])).await;
}

#[tokio::test]
async fn it_is_known_whether_there_are_further_hosts() {
    for (to, is_complete) in
        [("two.test", true), ("half.test", false), ("partly.test", true), ("mixed.test", true)]
    {
        let route = router(&World::new(ZONE)).route(&domain(to)).await.unwrap();
        assert_eq!(route.is_complete(), is_complete, "{to}");
    }
}

/// A report to an address or domain of a stranger's choice must not reach our own network.
#[tokio::test]
async fn private_networks_are_no_destination_unless_the_operator_says_so() {
    for to in ["[127.0.0.1]", "[10.1.2.3]", "[172.16.0.1]", "[192.168.0.1]", "[169.254.169.254]"] {
        check(to, Err("5.4.4")).await;
    }
    for to in ["[100.64.0.1]", "[0.0.0.1]", "[IPv6:::1]", "[IPv6:fd00::1]", "[IPv6:fe80::1]"] {
        check(to, Err("5.4.4")).await;
    }
    for to in ["[IPv6:::ffff:127.0.0.1]", "[IPv6:64:ff9b::7f00:1]", "[IPv6:fec0::1]"] {
        check(to, Err("5.4.4")).await;
    }
    for to in ["192.0.0.8", "192.0.0.171", "192.88.99.1", "198.18.0.1", "198.19.255.255"] {
        check(&format!("[{to}]"), Err("5.4.4")).await;
    }
    for to in ["0.255.255.255", "172.31.255.255", "240.0.0.1", "255.255.255.254", "239.1.1.1"] {
        check(&format!("[{to}]"), Err("5.4.4")).await;
    }
    for to in ["::", "::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1"]
    {
        check(&format!("[IPv6:{to}]"), Err("5.4.4")).await;
    }
    for to in ["2001:1ff::1", "2002:7f00:1::1", "2002:c0a8:1::", "5f00::1", "fdff::1", "febf::1"] {
        check(&format!("[IPv6:{to}]"), Err("5.4.4")).await;
    }
    for to in ["192.0.1.1", "172.32.0.1", "198.20.0.1", "9.255.255.255", "223.255.255.255"] {
        check(&format!("[{to}]"), Ok(&[(&format!("[{to}]"), &[to])])).await;
    }
    for to in ["64:ff9b::c000:201", "2002:c000:201::1", "2001:200::1", "2a00::1", "fbff::1"] {
        let literal = format!("[ipv6:{to}]");
        check(&literal, Ok(&[(&literal, &[to])])).await;
    }
    for to in ["local.test", "inner.test", "metadata.test"] {
        check(to, Err("5.4.4")).await;
    }
    // What is not refused is used, and what DNS does not tell may be that.
    check("mixed.test", Ok(&[("half.hosts.test", &["192.0.2.5"])])).await;
    check("unsure-inner.test", Err("4.4.3")).await;
    check("[100.128.0.1]", Ok(&[("[100.128.0.1]", &["100.128.0.1"])])).await;

    let error = router(&World::new(ZONE)).route(&domain("inner.test")).await.unwrap_err();
    let told = "mail for inner.test would go to a private network, where this server sends none \
                unless [queue] private_networks or a [[queue_route]] allows it";
    assert_eq!((error.to_string().as_str(), error.is_permanent()), (told, true));

    let allowed = Settings { private_networks: true, ..Settings::default() };
    check_with(allowed.clone(), "[127.0.0.1]", Ok(&[("[127.0.0.1]", &["127.0.0.1"])])).await;
    let metadata: (&str, &[&str]) = ("metadata.test", &["169.254.169.254"]);
    check_with(allowed, "metadata.test", Ok(&[metadata])).await;
    for host in ["10.0.0.25", "inner.hosts.test"] {
        let route = FixedRoute::to(host, None);
        let fixed = Settings { fixed: [(domain("far.test"), route)].into(), ..Settings::default() };
        assert!(router_with(&World::new(ZONE), fixed).route(&domain("far.test")).await.is_ok());
    }
}

#[tokio::test]
async fn addresses_come_in_the_order_that_is_set() {
    for (addresses, expected) in [
        (AddressOrder::Ipv6First, &["2001:db8::7", "192.0.2.7"][..]),
        (AddressOrder::Ipv4First, &["192.0.2.7", "2001:db8::7"]),
        (AddressOrder::Ipv4Only, &["192.0.2.7"]),
        (AddressOrder::Ipv6Only, &["2001:db8::7"]),
    ] {
        let settings = Settings { addresses, ..Settings::default() };
        check_with(settings, "host.test", Ok(&[("host.test", expected)])).await;
    }
    let settings = Settings { addresses: AddressOrder::Ipv6Only, ..Settings::default() };
    check_with(settings, "cname.test", Err("5.4.4")).await;
}

#[tokio::test]
async fn a_fixed_route_goes_before_dns() {
    let fixed = [
        ("null.test", "b.hosts.test", Some(26)),
        ("nowhere.test", "192.0.2.50", None),
        ("two.test", "nowhere.hosts.test", None),
        ("equal.test", "broken.hosts.test", None),
    ];
    let route =
        |(to, host, port): (&str, &str, Option<u16>)| (domain(to), FixedRoute::to(host, port));
    let fixed = fixed.map(route).into();
    let settings = Settings { port: 2500, fixed, ..Settings::default() };
    check_with(settings.clone(), "null.test", Ok(&[B])).await;
    check_with(settings.clone(), "nowhere.test", Ok(&[("192.0.2.50", &["192.0.2.50"])])).await;
    check_with(settings.clone(), "two.test", Err("5.4.4")).await;
    check_with(settings.clone(), "equal.test", Err("4.4.3")).await;
    let router = router_with(&World::new(ZONE), settings);
    for (to, port) in [("null.test", 26), ("nowhere.test", 2500), ("cname.test", 2500)] {
        assert_eq!(router.route(&domain(to)).await.unwrap().hops()[0].port, port, "{to}");
    }
}

#[tokio::test]
async fn a_relay_takes_all_mail_that_has_no_route_of_its_own() {
    let login = GatewayLogin {
        user_name: "mailweir".to_owned(),
        password: crate::mail::Secret::new("secret".to_owned()),
    };
    let relay = FixedRoute {
        tls: RouteTls::StartTls,
        login: Some(login),
        ..FixedRoute::to("b.hosts.test", Some(587))
    };
    let fixed = [(domain("two.test"), FixedRoute::to("192.0.2.50", None))].into();
    let settings = Settings { fixed, relay: Some(relay.clone()), ..Settings::default() };
    let router = router_with(&World::new(ZONE), settings);
    // Whatever DNS says, and also what has no domain.
    for to in ["equal.test", "null.test", "broken.test", "[192.0.2.1]", "inner.test"] {
        let route = router.route(&domain(to)).await.unwrap();
        let [hop] = route.hops() else { panic!("{to}: {route:?}") };
        assert_eq!((hop.name.as_str(), hop.port, hop.implicit_tls), ("b.hosts.test", 587, false));
        assert!(verifier(hop).is_some() && hop.credentials.is_some(), "{to}");
    }
    let own = router.route(&domain("two.test")).await.unwrap();
    assert_eq!(own.hops()[0].name, "192.0.2.50");
    assert!(verifier(&own.hops()[0]).is_none() && own.hops()[0].credentials.is_none());
    let relay = FixedRoute { tls: RouteTls::Implicit, ..relay };
    let settings = Settings { relay: Some(relay), ..Settings::default() };
    let route = router_with(&World::new(ZONE), settings).route(&domain("two.test")).await.unwrap();
    assert!(route.hops()[0].implicit_tls);
}

#[tokio::test]
async fn hosts_of_one_preference_are_put_into_random_order() {
    let router = router(&World::new(ZONE)).with_random(Arc::new(|_| 0));
    let names = router.route(&domain("equal.test")).await.unwrap();
    let names: Vec<_> = names.hops().iter().map(|hop| &hop.name).collect();
    // Whatever the dice say, a better preference comes first.
    assert_eq!(names[0], "c.hosts.test");
    let router = router.with_random(Arc::new(|below| below - 1));
    let others = router.route(&domain("equal.test")).await.unwrap();
    assert_ne!(*names[1], others.hops()[1].name);
}

#[tokio::test]
async fn a_peer_cannot_make_a_route_long() {
    let mut zone = String::new();
    for number in 0..50 {
        zone += &format!("many.test. IN MX {number} h{number}.many.test.\n");
        for address in 1..=5 {
            zone += &format!("h{number}.many.test. IN A 198.51.100.{}\n", number * 5 + address);
        }
    }
    let route = router(&World::new(&zone)).route(&domain("many.test")).await.unwrap();
    let hops = route.hops();
    assert!(!route.is_complete());
    assert_eq!(hops.len(), 12, "20 hosts are looked up, and 60 addresses are tried");
    assert_eq!(hops.iter().map(|hop| hop.addresses.len()).sum::<usize>(), 60);
    let zone = zone.replace(".many.test. IN A 198.51.100.", ".few.test. IN A 198.51.100.");
    let zone = format!("{zone}h19.many.test. IN A 203.0.113.1\nh20.many.test. IN A 203.0.113.2\n");
    let route = router(&World::new(&zone)).route(&domain("many.test")).await.unwrap();
    assert_eq!(route.hops().len(), 1, "the twenty-first is not looked up");
    assert!(!route.is_complete(), "so it may take what the others refuse");
    let zone = zone.replace("h19.many.test. IN A", "h22.many.test. IN A");
    let error = router(&World::new(&zone)).route(&domain("many.test")).await.unwrap_err();
    assert_eq!(error.status(), "4.4.3", "nor is it known to have no address");
}

#[tokio::test]
async fn a_host_that_may_not_be_used_takes_nothing_from_the_others() {
    let mut zone = "big.test. IN MX 10 a.big.test.\nbig.test. IN MX 20 b.big.test.\n\
                    b.big.test. IN A 192.0.2.1\n\
                    _25._tcp.a.big.test. IN CNAME _25._tcp.a.big.test.\n"
        .to_owned();
    for number in 0..100 {
        zone += &format!("a.big.test. IN A 198.51.100.{number}\n");
    }
    let hops = router(&World::new(&zone)).route(&domain("big.test")).await.unwrap();
    let names: Vec<_> = hops.hops().iter().map(|hop| hop.name.as_str()).collect();
    assert_eq!(names, ["b.big.test"]);
    assert!(!hops.is_complete(), "the other may be used another time");
}
