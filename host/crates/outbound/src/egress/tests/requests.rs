use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use testbed::eventually;
use testbed::receiver::{Answer, Reply};

use super::*;

#[tokio::test]
async fn a_request_arrives_as_it_was_meant_and_its_answer_comes_back() {
    let receiver = Receiver::start(|_| Reply::Answer(Answer::status(201).header("X-Id", "7").body("made")));
    let gate = gate_to(&receiver);
    let mut request = Request::new("POST", &receiver.url("/a/../b?c=d e#f"), "body").unwrap();
    request.header("X-One", parse_value("X-One", b"1").unwrap()).unwrap();
    let response = gate.send(request, within(SOON)).await.unwrap();
    assert_eq!((response.status.as_u16(), &*response.body, response.is_truncated), (201, &b"made"[..], false));
    assert_eq!(response.headers["x-id"], "7");
    let request = receiver.requests().remove(0);
    assert_eq!((&*request.method, &*request.path, &*request.text()), ("POST", "/b?c=d%20e", "body"));
    assert_eq!(request.header("host"), Some(format!("127.0.0.1:{}", receiver.port()).as_str()));
    assert_eq!((request.header("content-length"), request.header("x-one")), (Some("4"), Some("1")));
}

#[test]
fn what_no_plugin_may_send_is_refused() {
    let check = |method: &str, url: &str, expected: &str| {
        let error = Request::new(method, url, "").expect_err(url);
        assert!(matches!(error, EgressError::Invalid(_)) && error.to_string().contains(expected), "{url}: {error}");
    };
    for method in ["CONNECT", "connect", "TRACE", "TRACK"] {
        check(method, "https://a.example/", "is not for plugins");
    }
    for method in ["", "GE T", "GET\r\nHost: b", "G\u{e9}T"] {
        check(method, "https://a.example/", "is none");
    }
    check(&"X".repeat(33), "https://a.example/", "too long");
    for url in ["ftp://a.example/", "file:///etc/passwd", "javascript:1", "gopher://a.example/", "data:,x"] {
        check("GET", url, "is neither http nor https");
    }
    for url in ["", "a.example", "//a.example/", "https://", "http://[::1", "http://[fe80::1%25eth0]/", "http://a b/"] {
        check("GET", url, "is none");
    }
    for url in ["https://user@a.example/", "https://:secret@a.example/", "https://a.example:x@127.0.0.1/"] {
        check("GET", url, "user in front of its host");
    }
    check("GET", &format!("https://a.example/{}", "x".repeat(9000)), "may have 8192");
    check("GET", &format!("https://a.example/{}", " ".repeat(3000) + "x"), "once it is escaped");
}

#[test]
fn headers_of_the_connection_are_the_hosts() {
    let mut request = Request::new("GET", "https://a.example/", "").unwrap();
    let value = || parse_value("x", b"1").unwrap();
    for name in
        ["Host", "content-length", "Transfer-Encoding", "Connection", "Upgrade", "TE", "Proxy-Authorization", "Expect"]
    {
        let error = request.header(name, value()).unwrap_err();
        assert!(error.to_string().contains("is set by the host"), "{name}: {error}");
    }
    for name in ["", "a b", "a:b", "a\r\nb", "\u{e9}"] {
        let error = request.header(name, value()).unwrap_err();
        assert!(error.to_string().contains("is no name of a header"), "{name}: {error}");
    }
    for bytes in [&b"a\r\nHost: b"[..], b"a\nb", b"a\0b", b"\x7f"] {
        let error = parse_value("x-secret", bytes).unwrap_err();
        assert_eq!(error.to_string(), "the value of the header \"x-secret\" has a character that none may have");
    }
    for number in 0..100 {
        request.header(&format!("x-{number}"), value()).unwrap();
    }
    assert!(matches!(request.header("x-100", value()), Err(EgressError::Quota(_))));
    let mut request = Request::new("GET", "https://a.example/", "").unwrap();
    let long = parse_value("x", &b"x".repeat(40_000)).unwrap();
    assert!(matches!(request.header("x", long), Err(EgressError::Quota(_))));
}

#[tokio::test]
async fn a_connection_is_used_again_and_ends_with_its_gate() {
    let receiver = Receiver::answering(204);
    let gate = gate_to(&receiver);
    for _ in 0..5 {
        post(&gate, &receiver.url("/"), SOON).await.unwrap();
    }
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 5));
    let other = gate_to(&receiver);
    post(&other, &receiver.url("/"), SOON).await.unwrap();
    assert_eq!(receiver.connections(), 2, "not one of another plugin's");
    drop((gate, other));
    eventually(SOON, "they are closed", || receiver.open_connections() == 0);
}

#[tokio::test]
async fn a_connection_that_nobody_needs_is_closed() {
    let receiver = Receiver::answering(204);
    let mut gate = gate_to(&receiver);
    gate.keep_idle_for(BRIEFLY);
    post(&gate, &receiver.url("/"), SOON).await.unwrap();
    assert_eq!((gate.idle_connections(), receiver.open_connections()), (1, 1));
    tokio::task::spawn_blocking(move || eventually(SOON, "it is closed", || receiver.open_connections() == 0))
        .await
        .unwrap();
    assert_eq!(gate.idle_connections(), 0);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_not_used() {
    let receiver = Receiver::start(|_| Reply::AnswerAndClose(Answer::status(200)));
    let gate = gate_to(&receiver);
    for count in 1..=5 {
        post(&gate, &receiver.url("/"), SOON).await.unwrap();
        eventually(SOON, "it is closed", || receiver.open_connections() == 0);
        assert_eq!(receiver.connections(), count);
    }
}

/// Starts a server that sends these bytes on every connection before it has read a whole request, and then waits.
fn blurting(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // Wait for the first bytes of the request.
            let _ = stream.read(&mut [0; 16]);
            let _ = stream.write_all(bytes);
            open.push(stream);
        }
    });
    port
}

#[tokio::test]
async fn what_a_server_says_unasked_is_not_taken_for_an_answer() {
    let port =
        blurting(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    let origin = format!("http://127.0.0.1:{port}");
    let gate = gate(Resolver::System, &[&origin], &["127.0.0.0/8"]);
    for _ in 0..5 {
        assert_eq!(&*get(&gate, &origin, SOON).await.unwrap().body, b"ok");
    }
}

#[tokio::test]
async fn a_server_that_answers_before_it_has_read_leaves_no_connection() {
    let port = blurting(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    let origin = format!("http://127.0.0.1:{port}");
    let gate = gate(Resolver::System, &[&origin], &["127.0.0.0/8"]);
    let request = Request::new("POST", &origin, vec![b'x'; 16 << 20]).unwrap();
    let response = gate.send(request, within(SOON)).await.unwrap();
    assert_eq!((response.status.as_u16(), gate.idle_connections()), (413, 0));
}
