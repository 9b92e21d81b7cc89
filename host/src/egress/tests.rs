//! The gate as a whole, against the resolvers and servers of a hostile world.

use std::time::Duration;

use testbed::receiver::{Answer, Receiver, Reply};
use tokio::time::Instant;

use super::*;

fn gate(resolver: Resolver, origins: &[&str], networks: &[&str]) -> Gate {
    let origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    Gate::new(Egress { resolver, trust: Arc::default() }, origins, networks)
}

fn within(time: Duration) -> Bounds {
    Bounds { deadline: Instant::now() + time, body_bytes_max: 1 << 20 }
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_request_arrives_as_it_was_meant_and_its_answer_comes_back() {
    let receiver = Receiver::start(|_| Reply::Answer(Answer::status(201).header("X-Id", "7").body("made")));
    let gate = gate(Resolver::System, &[&receiver.origin()], &["127.0.0.0/8"]);
    let mut request = Request::new("POST", &receiver.url("/a?b=c#d"), "body").unwrap();
    request.header("X-One", parse_value("X-One", b"1").unwrap()).unwrap();
    let response = gate.send(request, within(SOON)).await.unwrap();
    assert_eq!((response.status.as_u16(), &*response.body, response.is_truncated), (201, &b"made"[..], false));
    assert_eq!(response.headers["x-id"], "7");
    let request = receiver.requests().remove(0);
    assert_eq!((&*request.method, &*request.path, &*request.text()), ("POST", "/a?b=c", "body"));
    assert_eq!(request.header("host"), Some(format!("127.0.0.1:{}", receiver.port()).as_str()));
    assert_eq!((request.header("content-length"), request.header("x-one")), (Some("4"), Some("1")));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let receiver = Receiver::answering(204);
    let gate = gate(Resolver::System, &[&receiver.origin()], &["127.0.0.0/8"]);
    for _ in 0..5 {
        gate.send(Request::new("POST", &receiver.url("/"), "x").unwrap(), within(SOON)).await.unwrap();
    }
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 5));
}
