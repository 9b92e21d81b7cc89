//! Checks how an order ends when its receiver misbehaves, against each row of the webhook plugin's README.

use std::collections::BTreeMap;

use testbed::eventually;
use testbed::receiver::{Answer, Identity, Receiver, Reply};

use crate::webhook::{create, plug};
use crate::world::{SOON, World};

const METADATA: &str = "http://169.254.169.254/latest/meta-data/";
const GIBIBYTE: u64 = 1 << 30;

/// Settings that allow one attempt of two seconds.
const ONCE: &str = "[retry]\nattempts = 1\n[limits]\ntime = \"2s\"\n";

/// The expected end of an order.
#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    /// A dead letter with this code and this text in its reason. With more attempts, `retry` would
    /// have been tried again.
    DeadLetter(&'static str, &'static str),
    /// The plugin is paused with this text in the reason, and the event is kept.
    Paused(&'static str),
}

fn answer(status: u16, body: &str) -> Receiver {
    let answer = Answer::status(status).body(body);
    Receiver::start(move |_| Reply::Answer(answer.clone()))
}

fn reply(reply: Reply) -> Receiver {
    Receiver::start(move |_| reply.clone())
}

#[test]
fn what_a_receiver_does_decides_what_becomes_of_the_order() {
    let world = World::on_rabbitmq();
    let moved = |status| {
        let answer = Answer::status(status).header("Location", METADATA);
        Receiver::start(move |_| Reply::Answer(answer.clone()))
    };
    let cases: Vec<(&str, Receiver, End)> = vec![
        ("s200", answer(200, "thanks"), End::Done),
        ("s204", answer(204, ""), End::Done),
        ("s400", answer(400, "no\r\nsuch \x1b[31mfield"), End::DeadLetter("http-400", "HTTP 400: no such [31mfield")),
        ("s404", answer(404, ""), End::DeadLetter("http-404", "HTTP 404")),
        ("s408", answer(408, ""), End::DeadLetter("retry", "HTTP 408")),
        ("s425", answer(425, ""), End::DeadLetter("retry", "HTTP 425")),
        ("s429", answer(429, "slow down"), End::DeadLetter("retry", "HTTP 429: slow down")),
        ("s500", answer(500, "<h1>oops</h1>"), End::DeadLetter("retry", "HTTP 500: <h1>oops</h1>")),
        ("s503", answer(503, ""), End::DeadLetter("retry", "HTTP 503")),
        ("s410", answer(410, "gone for good"), End::Paused("HTTP 410: gone for good")),
        ("s301", moved(301), End::Paused("HTTP 301: redirects are not followed; this one leads to http://169.254")),
        ("s307", moved(307), End::Paused("HTTP 307: redirects are not followed")),
        // The error says "broke" or "closed": the system reports a reset only once, and later calls see
        // the end of the stream.
        ("reset", reply(Reply::Reset), End::DeadLetter("retry", " the connection ")),
        ("close", reply(Reply::Close), End::DeadLetter("retry", "closed the connection")),
        ("half", reply(Reply::Half), End::DeadLetter("retry", "before its answer was complete")),
        ("garbage", reply(Reply::Garbage), End::DeadLetter("retry", "its answer is no HTTP")),
        ("hang", reply(Reply::Hang), End::DeadLetter("retry", "no complete answer in the")),
        ("drip", reply(Reply::Drip), End::DeadLetter("retry", "no complete answer in the")),
        ("flood", reply(Reply::Flood(GIBIBYTE)), End::Done),
        (
            "bad-tls",
            Receiver::secure(&Identity::self_signed("localhost"), |_| Reply::Answer(Answer::status(204))),
            End::DeadLetter("retry", "no secure connection"),
        ),
    ];
    for (name, receiver, _) in &cases {
        plug(&world, name, &receiver.url("/"), ONCE, "");
    }
    // A port without a listener.
    plug(&world, "nobody", &Receiver::answering(200).url("/"), ONCE, "");
    // A plugin without a grant for its own URL.
    plug(&world, "denied", "https://hooks.example.com/", ONCE, "");
    let toml = world.plugins().join("denied.toml");
    let without = std::fs::read_to_string(&toml).unwrap().replace("http = [\"https://hooks.example.com\"]", "");
    std::fs::write(&toml, without).unwrap();
    let ends: BTreeMap<_, _> = cases
        .iter()
        .map(|(name, _, end)| (*name, *end))
        .chain([
            ("nobody", End::DeadLetter("retry", "cannot connect")),
            ("denied", End::Paused("https://hooks.example.com")),
        ])
        .collect();

    let host = world.host();
    create(&world);
    let broker = world.broker();
    let is_dead = |end: &&End| matches!(end, End::DeadLetter(..));
    let letters = world.dead_letters(&broker, ends.values().filter(is_dead).count());
    let letters: BTreeMap<_, _> = letters
        .iter()
        .map(|letter| {
            let headers = &letter.message.properties.headers;
            let header = |name: &str| headers.get(name).and_then(broker::Value::to_text).unwrap_or_default();
            (header("x-notify-plugin"), (header("x-notify-code"), header("x-notify-reason")))
        })
        .collect();
    for (name, end) in ends {
        println!("{name}: {end:?}, {:?}", letters.get(name));
        let waiting = || world.queue_state(&broker, &world.names().plugin(name)).ready;
        match end {
            End::Done => {
                let (_, receiver, _) = cases.iter().find(|(own, _, _)| *own == name).unwrap();
                eventually(SOON, &format!("{name} is sent"), || !receiver.requests().is_empty());
                assert!(!letters.contains_key(name), "{:?}", letters[name]);
                assert_eq!(waiting(), 0, "{name}");
            }
            End::DeadLetter(code, reason) => {
                let (told_code, told) = &letters.get(name).unwrap_or_else(|| panic!("{name} is no dead letter"));
                assert!(told_code == code && told.contains(reason), "{name}: {told_code}: {told}");
                assert!(told.len() < 1000, "{name}: {told}");
            }
            End::Paused(reason) => {
                let log = host.child_guard.stderr();
                let mut lines = log.lines().filter(|line| line.contains(&format!("\"plugin\":\"{name}\"")));
                assert!(lines.any(|line| line.contains("paused: ") && line.contains(reason)), "{name}: {log}");
                eventually(SOON, &format!("the event of {name} is kept"), || waiting() == 1);
            }
        }
    }
    eventually(SOON, "the order is settled", || {
        let state = world.queue_state(&broker, &world.queue);
        state.ready == 0
    });
    host.stop();
    for (name, receiver, _) in &cases {
        assert!(receiver.requests().len() <= 1, "{name} was asked once");
    }
}
