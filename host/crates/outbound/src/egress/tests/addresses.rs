use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};

use config::Origin;
use testbed::receiver::{Answer, Reply};

use super::*;
use crate::egress::address::set_aside;
use crate::egress::urls::parse_url;

/// Reserved addresses, written as the host of a URL, and their descriptions.
const REFUSED: [(&str, &str); 83] = [
    // This machine, in every spelling.
    ("127.0.0.1", "a loopback address"),
    ("127.0.0.1.", "a loopback address"),
    ("127.1", "a loopback address"),
    ("127.0.1", "a loopback address"),
    ("127.255.255.254", "a loopback address"),
    ("2130706433", "a loopback address"),
    ("2130706433.", "a loopback address"),
    ("017700000001", "a loopback address"),
    ("0177.0.0.1", "a loopback address"),
    ("0177.0.0.01", "a loopback address"),
    ("0x7f000001", "a loopback address"),
    ("0X7F000001", "a loopback address"),
    ("0x7f.0.0.1", "a loopback address"),
    ("0x7f.1", "a loopback address"),
    ("0x7f.0x0.0x0.0x1", "a loopback address"),
    ("%31%32%37.0.0.1", "a loopback address"),
    ("127%2e0%2e0%2e1", "a loopback address"),
    ("１２７.０.０.１", "a loopback address"),
    ("①②⑦.0.0.1", "a loopback address"),
    ("127。0。0。1", "a loopback address"),
    ("[::1]", "the loopback address"),
    ("[0:0:0:0:0:0:0:1]", "the loopback address"),
    ("[0000::0001]", "the loopback address"),
    ("[::ffff:127.0.0.1]", "a loopback address"),
    ("[::FFFF:7f00:1]", "a loopback address"),
    ("[0:0:0:0:0:ffff:127.0.0.1]", "a loopback address"),
    ("[::127.0.0.1]", "an IPv4-compatible address"),
    ("[::7f00:1]", "an IPv4-compatible address"),
    ("[64:ff9b::127.0.0.1]", "a loopback address"),
    ("[64:ff9b::7f00:1]", "a loopback address"),
    ("[64:ff9b:1::7f00:1]", "a translator's own network"),
    ("[2002:7f00:1::]", "a 6to4 address"),
    ("[2001:0:7f00:1::1]", "a Teredo address"),
    ("0", "this host on this network"),
    ("0.0.0.0", "this host on this network"),
    ("0x0", "this host on this network"),
    ("0.1.2.3", "this host on this network"),
    ("[::]", "the unspecified address"),
    ("[::ffff:0.0.0.0]", "this host on this network"),
    // This network.
    ("10.0.0.1", "a private address"),
    ("10.255.255.255", "a private address"),
    ("167772161", "a private address"),
    ("012.0.0.1", "a private address"),
    ("[::ffff:10.0.0.1]", "a private address"),
    ("[64:ff9b::10.0.0.1]", "a private address"),
    ("172.16.0.1", "a private address"),
    ("172.31.255.255", "a private address"),
    ("192.168.0.1", "a private address"),
    ("192.168.257", "a private address"),
    ("0xc0a80001", "a private address"),
    ("100.64.0.1", "a shared address"),
    ("100.127.255.255", "a shared address"),
    ("100.100.100.200", "a shared address"),
    ("169.254.1.1", "a link-local address"),
    ("[fe80::1]", "a link-local address"),
    ("[febf::1]", "a link-local address"),
    ("[fec0::1]", "a site-local address"),
    ("[fc00::1]", "a unique local address"),
    ("[fdff::1]", "a unique local address"),
    // Clouds.
    ("169.254.169.254", "cloud metadata"),
    ("2852039166", "cloud metadata"),
    ("0xa9fea9fe", "cloud metadata"),
    ("0251.0376.0251.0376", "cloud metadata"),
    ("[::ffff:169.254.169.254]", "cloud metadata"),
    ("[::ffff:a9fe:a9fe]", "cloud metadata"),
    ("[fd00:ec2::254]", "cloud metadata"),
    ("168.63.129.16", "a cloud's own services"),
    // Special purposes, and unassigned addresses.
    ("192.0.0.192", "an address for protocols"),
    ("192.0.2.1", "an address for documentation"),
    ("198.51.100.1", "an address for documentation"),
    ("203.0.113.1", "an address for documentation"),
    ("[2001:db8::1]", "an address for documentation"),
    ("[3fff::1]", "an address for documentation"),
    ("198.18.0.1", "an address for benchmarks"),
    ("[2001:2::1]", "an address for benchmarks"),
    ("192.88.99.1", "a relay of 6to4"),
    ("224.0.0.1", "a multicast address"),
    ("[ff02::1]", "a multicast address"),
    ("240.0.0.1", "a reserved address"),
    ("255.255.255.255", "the broadcast address"),
    ("[100::1]", "packets are discarded"),
    ("[2001:10::1]", "an ORCHID"),
    ("[4000::1]", "nobody has been given"),
];

/// Returns a gate that grants the origin of this host but no network, and the URL.
fn granted(host: &str) -> (Gate, String) {
    let url = format!("http://{host}:1/");
    let origin = Origin::of_url(&parse_url(&url).unwrap()).unwrap();
    (Gate::new(Egress::default(), vec![origin], Vec::new()), url)
}

#[tokio::test]
async fn an_address_that_is_not_public_is_refused_in_every_spelling_even_if_its_origin_is_granted() {
    for (host, what) in REFUSED {
        let (gate, url) = granted(host);
        let error = get(&gate, &url, SOON).await.expect_err(host);
        let EgressError::Denied(sentence) = error else { panic!("{host}: {error:?}") };
        assert!(sentence.contains(what), "{host}: {sentence}");
        assert!(sentence.contains("by [grants] networks = [\""), "{host}: {sentence}");
    }
}

/// Returns the address that a URL's host stands for.
fn address_in(host: &str) -> IpAddr {
    match parse_url(&format!("http://{host}/")).unwrap().host().unwrap() {
        url::Host::Ipv4(address) => address.into(),
        url::Host::Ipv6(address) => address.into(),
        url::Host::Domain(name) => panic!("{host} is the name {name}"),
    }
}

#[tokio::test]
async fn a_name_that_leads_to_such_an_address_is_refused() {
    for (host, what) in REFUSED {
        let address = address_in(host).to_string();
        let script = Script::new(&[&[&address]]);
        let gate = gate(Resolver::Scripted(script.clone()), &["https://*.example.com"], &[]);
        let error = get(&gate, "https://a.example.com/", SOON).await.expect_err(host);
        assert!(matches!(&error, EgressError::Denied(sentence) if sentence.contains(what)), "{host}: {error}");
        assert_eq!(script.asked(), ["a.example.com"]);
    }
}

#[test]
fn with_its_network_granted_an_address_passes() {
    for (host, _) in REFUSED {
        let address = address_in(host);
        let block = set_aside(address).unwrap_or_else(|| panic!("{host}"));
        let network = |text: &str| text.parse().unwrap();
        // Granting the network that the message suggests helps.
        let said = network(&block.network.to_string());
        assert_eq!(dial::admitted(&[address], &[said]), Ok(vec![address.to_canonical()]), "{host}");
        let others = [network("11.0.0.0/8"), network("2a00::/16")];
        assert!(dial::admitted(&[address], &others).is_err(), "{host}");
    }
    // The system dials the mapped IPv4 address, not its IPv6 form.
    let mapped = address_in("[::ffff:10.0.0.1]");
    assert!(dial::admitted(&[mapped], &["10.0.0.0/8".parse().unwrap()]).is_ok());
    let translated = address_in("[64:ff9b::10.0.0.1]");
    assert!(dial::admitted(&[translated], &["10.0.0.0/8".parse().unwrap()]).is_err(), "another network's 10.0.0.1");
}

#[test]
fn a_public_address_passes() {
    for host in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "[2001:200::1]",
        "[2001:4860:4860::8888]",
        "[2606:4700::1111]",
        "[2a00:1450::1]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::8.8.8.8]",
    ] {
        let address = address_in(host);
        assert_eq!(dial::admitted(&[address], &[]), Ok(vec![address.to_canonical()]), "{host}");
    }
}

#[tokio::test]
async fn what_is_granted_is_reached_in_every_spelling() {
    let receiver = Receiver::answering(204);
    let port = receiver.port();
    let mut reached = 0;
    for host in
        ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "%31%32%37.0.0.1", "１２７.0.0.1", "127.0.0.1."]
    {
        let gate = gate_to(&receiver);
        get(&gate, &format!("http://{host}:{port}/"), SOON).await.unwrap_or_else(|error| panic!("{host}: {error}"));
        reached += 1;
        assert_eq!(receiver.requests().pop().unwrap().header("host"), Some(format!("127.0.0.1:{port}").as_str()));
    }
    let origin = format!("http://[::ffff:127.0.0.1]:{port}");
    let mapped = gate(Resolver::System, &[&origin], &["127.0.0.1/32"]);
    get(&mapped, &origin, SOON).await.unwrap();
    for (name, asked) in [
        ("internal.example", "internal.example"),
        ("INTERNAL.example.", "internal.example"),
        ("inter%6eal.example", "internal.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("ＢÜCHER.example", "xn--bcher-kva.example"),
    ] {
        let script = Script::new(&[&["127.0.0.1"]]);
        let gate = gate(Resolver::Scripted(script.clone()), &[&format!("http://{asked}:{port}")], &["127.0.0.0/8"]);
        get(&gate, &format!("http:\\\\{name}:{port}\\path"), SOON)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        reached += 1;
        assert_eq!(script.asked(), [asked], "what is asked for is what was checked");
        let request = receiver.requests().pop().unwrap();
        assert_eq!((request.header("host"), &*request.path), (Some(&*format!("{asked}:{port}")), "/path"));
    }
    assert_eq!(receiver.requests().len(), reached + 1);
}

#[tokio::test]
async fn what_is_not_granted_is_not_even_looked_up() {
    let script = Script::new(&[&["127.0.0.1"]]);
    let granted = ["https://hooks.example.com", "https://*.example.org:8443"];
    let gate = gate(Resolver::Scripted(script.clone()), &granted, &["0.0.0.0/0", "::/0"]);
    for url in [
        "https://example.com/",
        "https://a.hooks.example.com/",
        "https://hooks.example.com.evil.example/",
        "https://hooks.example.com:8443/",
        "http://hooks.example.com/",
        "http://hooks.example.com:443/",
        "https://example.org:8443/",
        "https://a.example.org/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https:/\\evil.example\\@hooks.example.com/",
        "https://evil.example/?https://hooks.example.com",
        "https://evil.example#@hooks.example.com/",
        "https://hooks.example.com%2eevil.example/",
        "https://h\u{43e}oks.example.com/",
        "\thttps://evil.exa\nmple/",
    ] {
        let error = get(&gate, url, SOON).await.expect_err(url);
        let EgressError::Denied(sentence) = error else { panic!("{url}: {error:?}") };
        assert!(sentence.contains("no grant for") && sentence.contains("[grants] http = [\"http"), "{url}: {sentence}");
    }
    let nothing = Gate::default();
    assert!(matches!(get(&nothing, "https://hooks.example.com/", SOON).await, Err(EgressError::Denied(_))));
    assert_eq!(script.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_at_the_second_question_is_refused_then() {
    let receiver = Receiver::start(|_| Reply::AnswerAndClose(Answer::status(200)));
    let script = Script::new(&[&["127.0.0.1"], &["127.0.0.2"], &["::1"], &["169.254.169.254"]]);
    let origin = format!("http://rebinding.example:{}", receiver.port());
    let gate = gate(Resolver::Scripted(script.clone()), &[&origin], &["127.0.0.1/32"]);
    get(&gate, &origin, SOON).await.unwrap();
    assert_eq!(script.asked().len(), 1, "what is dialled is the answer that was checked");
    testbed::eventually(SOON, "it is closed", || receiver.open_connections() == 0);
    for address in ["127.0.0.2", "::1", "169.254.169.254"] {
        let error = get(&gate, &origin, SOON).await.expect_err(address);
        assert!(matches!(&error, EgressError::Denied(sentence) if sentence.contains(address)), "{address}: {error}");
    }
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn of_several_answers_only_those_that_are_granted_are_dialled() {
    let receiver = Receiver::answering(200);
    let port = receiver.port();
    // Other servers listen on the same port of addresses that are not granted.
    let others: Vec<_> = ["127.0.0.2", "127.0.0.3"]
        .map(|address| TcpListener::bind((address, port)).unwrap())
        .into_iter()
        .inspect(|listener| listener.set_nonblocking(true).unwrap())
        .collect();
    let origin = format!("http://mixed.example:{port}");
    let script = Script::new(&[&["127.0.0.2", "::1", "127.0.0.1", "127.0.0.3"]]);
    let gate = gate(Resolver::Scripted(script), &[&origin], &["127.0.0.1/32"]);
    get(&gate, &origin, SOON).await.unwrap();
    for listener in others {
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[tokio::test]
async fn a_resolver_that_never_answers_costs_the_time_limit() {
    let gate = gate(Resolver::Scripted(Script::new(&[])), &["https://a.example"], &[]);
    let error = get(&gate, "https://a.example/", BRIEFLY).await.unwrap_err();
    assert_eq!(error.to_string(), "https://a.example: no end within the time limit while resolving its name");
    let nobody = Script::new(&[&[]]);
    let gate = super::gate(Resolver::Scripted(nobody), &["https://a.example"], &[]);
    let error = get(&gate, "https://a.example/", SOON).await.unwrap_err();
    assert_eq!(error.to_string(), "https://a.example: its name has no address");
}
