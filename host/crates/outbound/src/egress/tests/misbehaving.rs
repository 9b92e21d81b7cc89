use testbed::eventually;
use testbed::receiver::{Answer, Reply};

use super::*;

/// Makes an exchange with a server that treats each request like this. Returns the result and the time it took.
async fn exchange_with(reply: Reply, time: Duration) -> (Result<Response, EgressError>, Duration) {
    let receiver = Receiver::start(move |_| reply.clone());
    let gate = gate_to(&receiver);
    let begun = Instant::now();
    let answer = post(&gate, &receiver.url("/hook"), time).await;
    let took = begun.elapsed();
    assert_eq!(receiver.requests().len(), 1, "it is sent once");
    if answer.is_err() {
        assert_eq!(gate.idle_connections(), 0, "no connection is left of it");
        eventually(SOON, "its connection is closed", || match receiver.requests().len() {
            1 => receiver.open_connections() == 0 || matches!(answer, Err(EgressError::TimedOut { .. })),
            _ => false,
        });
    }
    (answer, took)
}

async fn problem_of(reply: Reply) -> String {
    let (answer, took) = exchange_with(reply, SOON).await;
    assert!(took < SOON / 2, "{took:?}");
    match answer {
        Err(EgressError::Unavailable { problem, step: failure::ExchangeStep::Exchanging, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_breaks_off_is_told_of() {
    assert!(problem_of(Reply::Reset).await.contains("Connection reset by peer"));
    assert_eq!(problem_of(Reply::Close).await, "it closed the connection before its answer was complete");
    assert_eq!(problem_of(Reply::Half).await, "it closed the connection before its answer was complete");
}

#[tokio::test]
async fn who_speaks_no_http_is_told_of() {
    assert_eq!(problem_of(Reply::Garbage).await, "its answer is no HTTP");
    assert_eq!(problem_of(Reply::Raw(b"no status line\r\n\r\n".to_vec())).await, "its answer is no HTTP");
    assert_eq!(problem_of(Reply::Headers(1000)).await, "the head of its answer is too large");
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100 << 10));
    assert_eq!(problem_of(Reply::Raw(long.into_bytes())).await, "the head of its answer is too large");
    let two_lengths = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc".to_vec();
    assert_eq!(problem_of(Reply::Raw(two_lengths)).await, "its answer is no HTTP");
    assert!(problem_of(Reply::Switch).await.contains("protocol that nobody asked for"));
}

#[tokio::test]
async fn who_is_slow_costs_the_time_limit_and_no_more() {
    for reply in [Reply::Hang, Reply::Drip] {
        let shown = format!("{reply:?}");
        let (answer, took) = exchange_with(reply, BRIEFLY).await;
        assert!(
            matches!(answer, Err(EgressError::TimedOut { step: failure::ExchangeStep::Exchanging, .. })),
            "{shown}: {answer:?}"
        );
        assert!(took >= BRIEFLY && took < BRIEFLY + Duration::from_secs(1), "{shown}: {took:?}");
    }
}

#[tokio::test]
async fn of_a_gigabyte_as_much_is_taken_as_the_limit_says() {
    let (answer, took) = exchange_with(Reply::Flood(1 << 30), SOON).await;
    let response = answer.unwrap();
    assert_eq!((response.body.len(), response.is_truncated), (1 << 20, true));
    assert!(took < SOON / 2, "{took:?}");
    let (answer, _) = exchange_with(Reply::Flood(1 << 20), SOON).await;
    let response = answer.unwrap();
    assert_eq!((response.body.len(), response.is_truncated), (1 << 20, false), "what just fits is whole");
}

#[tokio::test]
async fn a_connection_whose_answer_was_cut_off_is_not_used_again() {
    let receiver = Receiver::start(|_| Reply::Flood(10 << 20));
    let gate = gate_to(&receiver);
    for count in 1..=3 {
        assert!(get(&gate, &receiver.url("/"), SOON).await.unwrap().is_truncated);
        assert_eq!((receiver.connections(), gate.idle_connections()), (count, 0));
    }
    eventually(SOON, "they are closed", || receiver.open_connections() == 0);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let reply = Reply::Answer(Answer::status(302).header("Location", "http://169.254.169.254/latest/meta-data/"));
    let response = exchange_with(reply, SOON).await.0.unwrap();
    assert_eq!(response.status.as_u16(), 302);
    assert_eq!(response.headers["location"], "http://169.254.169.254/latest/meta-data/");
}

#[tokio::test]
async fn what_http_allows_is_understood() {
    let answer = || Answer::status(200).body("hello, world");
    for reply in [
        Reply::Answer(answer()),
        Reply::AnswerAndClose(answer()),
        Reply::ContinueAndAnswer(answer()),
        Reply::Chunked(answer()),
        Reply::Raw(b"HTTP/1.0 200 OK\r\n\r\nhello, world".to_vec()),
        Reply::Raw(
            [&b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(20)[..], b"HTTP/1.1 200 OK\r\n\r\nhello, world"]
                .concat(),
        ),
    ] {
        let shown = format!("{reply:?}");
        let response = exchange_with(reply, SOON).await.0.unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(&*response.body, b"hello, world", "{shown}");
    }
}

#[tokio::test]
async fn who_is_not_there_is_told_of() {
    let port = testbed::free_port();
    let origin = format!("http://127.0.0.1:{port}");
    let gate = gate(Resolver::System, &[&origin], &["127.0.0.0/8"]);
    let error = post(&gate, &origin, SOON).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("{origin}: cannot connect: Connection refused")), "{error}");
    let name = format!("http://nobody.invalid:{port}");
    let gate = super::gate(Resolver::System, &[&name], &[]);
    let error = post(&gate, &name, SOON).await.unwrap_err();
    assert!(error.to_string().contains("its name does not resolve"), "{error}");
}

#[tokio::test]
async fn an_exchange_that_is_given_up_takes_its_connection_with_it() {
    let receiver = Receiver::start(|_| Reply::Hang);
    let gate = gate_to(&receiver);
    let url = receiver.url("/");
    let given_up = tokio::time::timeout(BRIEFLY, post(&gate, &url, SOON)).await;
    assert!(given_up.is_err());
    assert_eq!(gate.idle_connections(), 0);
}

#[tokio::test]
async fn a_plugin_has_so_many_exchanges_at_once_and_no_more() {
    let receiver = Receiver::start(|_| Reply::Hang);
    let gate = gate_to(&receiver);
    let url = receiver.url("/");
    let hanging = futures_util::future::join_all((0..64).map(|_| post(&gate, &url, SOON)));
    let waiting = post(&gate, &url, BRIEFLY);
    tokio::select! {
        biased;
        _ = hanging => panic!("they hang for longer"),
        answer = waiting => {
            assert!(matches!(answer, Err(EgressError::TimedOut { step: failure::ExchangeStep::Waiting, .. })), "{answer:?}");
        }
    }
    assert_eq!(receiver.connections(), 64);
}
