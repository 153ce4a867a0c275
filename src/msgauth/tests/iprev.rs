//! The client's reverse name.

use super::*;

async fn check(dns: Dns, result: IprevResult, name: Option<&str>) {
    let authentication = dns.authenticate(MESSAGE).await;
    assert_eq!(authentication.iprev.result, result);
    assert_eq!(authentication.iprev.name.as_deref(), name);
}

#[tokio::test]
async fn a_name_that_leads_back_passes() {
    let dns = Dns::default().ptr(CLIENT, "Mail.example.test").a("mail.example.test", CLIENT);
    check(dns, IprevResult::Pass, Some("mail.example.test")).await;
    let second = Dns::default()
        .ptr(CLIENT, "other.test")
        .ptr(CLIENT, "mail.example.test")
        .a("other.test", "192.0.2.9")
        .a("mail.example.test", CLIENT);
    check(second, IprevResult::Pass, Some("mail.example.test")).await;
}

#[tokio::test]
async fn a_name_that_does_not_lead_back_fails() {
    let dns = Dns::default().ptr(CLIENT, "mail.example.test").a("mail.example.test", "192.0.2.9");
    check(dns, IprevResult::Fail, None).await;
    check(Dns::default().ptr(CLIENT, "mail.example.test"), IprevResult::Fail, None).await;
}

#[tokio::test]
async fn no_name_and_trouble_are_told_apart() {
    check(Dns::default(), IprevResult::PermError, None).await;
    check(Dns::default().broken("1.2.0.192.in-addr.arpa"), IprevResult::TempError, None).await;
    let dns = Dns::default().ptr(CLIENT, "mail.example.test").broken("mail.example.test");
    check(dns, IprevResult::TempError, None).await;
}

#[tokio::test]
async fn a_name_that_is_none_never_reaches_a_header() {
    for name in ["evil\r\nX-Injected: 1", "a) (b", "", "b\u{fc}ro.test"] {
        check(Dns::default().ptr(CLIENT, name).a(name, CLIENT), IprevResult::Fail, None).await;
    }
}

#[tokio::test]
async fn only_so_many_names_are_tried() {
    let mut dns = Dns::default();
    for number in 0..50 {
        dns = dns.ptr(CLIENT, &format!("host{number}.test"));
    }
    let asked = Arc::clone(&dns.asked);
    check(dns, IprevResult::Fail, None).await;
    let asked = asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|name| name.starts_with("host")).count(), 5);
}

#[tokio::test]
async fn ipv6_clients_are_confirmed_over_aaaa() {
    const V6: &str = "2001:db8::1";
    let dns = Dns::default().ptr(V6, "six.example.test").a("six.example.test", V6);
    let authenticator = Authenticator::new(Arc::new(dns), settings());
    let peer = Peer { ip: V6.parse().unwrap(), ..peer() };
    let request = Request {
        message: MESSAGE.as_bytes(),
        weight: Weight::of(MESSAGE.as_bytes()),
        peer: &peer,
        reverse_path: &ReversePath::Null,
        authors: &[],
        trace_id: TraceId::generate(),
        now: NOW,
    };
    let authentication = authenticator.authenticate(&request).await;
    assert_eq!(authentication.iprev.name.as_deref(), Some("six.example.test"));
    let field = authentication.authentication_results("mx.example.org");
    assert!(field.contains("iprev=pass (six.example.test) policy.iprev=\"2001:db8::1\"\r\n"));
}
