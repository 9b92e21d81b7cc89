//! Files of events.

use std::fmt::Write as _;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::bed::{Bed, SOON, bodies, finish, json};

/// Number of lines, larger than the window of unconfirmed messages.
const MANY: usize = 1000;

pub(crate) async fn lines_arrive_byte_for_byte_in_their_order(bed: Bed) {
    let broker = bed.declare().await;
    let lines: Vec<_> = (0..MANY)
        .map(|n| format!(r#"{{ "event":"OrderCreated","event_id":"e{n}", "n" : {n}.0e0,"я":"\u0041" }}"#))
        .collect();
    let path = bed.folder.path().join("events.jsonl");
    std::fs::write(&path, lines.join("\r\n")).unwrap();

    let ran = bed.run(&["send", path.to_str().unwrap()]).await;
    let ids: Vec<_> = (0..MANY).map(|n| format!("e{n}")).collect();
    assert_eq!(ran.lines(), ids);
    let deliveries = bed.take(&broker, MANY).await;
    assert_eq!(bodies(&deliveries), lines);
    assert!(deliveries.iter().all(|delivery| delivery.routing_key == "order.created"));
    assert_eq!(deliveries[7].message.properties.message_id.as_deref(), Some("e7"));
}

pub(crate) async fn bad_lines_are_reported_by_number_and_the_good_ones_sent(bed: Bed) {
    let broker = bed.declare().await;
    let input = concat!(
        "{\"event\":\"OrderCreated\",\"n\":1}\n",
        "{broken\n",
        "\n",
        "[4]\n",
        "{\"event\":\"NobodyWantsThis\"}\n",
        "{\"n\":6}\n",
        "{\"type\":\"order.paid\",\"n\":7}",
    );
    let ran = bed.run_with(&["send", "-", "--json"], input.as_bytes()).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let complaints: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(complaints.len(), 5, "{}", ran.stderr);
    for (line, problem) in
        [(2, "not JSON"), (4, "not (invalid type: sequence"), (5, "nobody.wants.this"), (6, "--routing-key")]
    {
        let named = format!("order-cli: line {line}: ");
        assert!(complaints.iter().any(|told| told.starts_with(&named) && told.contains(problem)), "{}", ran.stderr);
    }
    assert_eq!(complaints[4], "order-cli: 4 of 6 events were not sent");
    let sent: Vec<_> = ran.stdout.lines().map(|line| json(line)["line"].clone()).collect();
    assert_eq!(sent, [1, 7]);
    assert_eq!(bodies(&bed.take(&broker, 2).await), [input.lines().next().unwrap(), input.lines().last().unwrap()]);
}

pub(crate) async fn standard_input_is_sent_as_it_comes(bed: Bed) {
    let _broker = bed.declare().await;
    let mut child = bed.command(&["send", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in ["first", "second"] {
        let line = format!("{{\"event\":\"OrderCreated\",\"id\":\"{id}\"}}\n");
        input.write_all(line.as_bytes()).await.unwrap();
        // The id appears while standard input is still open.
        let shown = tokio::time::timeout(SOON, output.next_line()).await.expect("the id comes soon").unwrap();
        assert_eq!(shown.as_deref(), Some(id));
    }
    drop(input);
    assert_eq!(finish(child).await.code, Some(0));
}

pub(crate) async fn a_large_event_arrives_whole(bed: Bed) {
    const LIMIT: usize = 16 << 20;
    let broker = bed.declare().await;
    let event = |bytes: usize| {
        let (head, tail) = ("{\"event\":\"OrderCreated\",\"text\":\"", "\"}");
        format!("{head}{}{tail}", "x".repeat(bytes - head.len() - tail.len()))
    };
    let mut input = String::new();
    writeln!(input, "{}\n{}", event(LIMIT), event(LIMIT + 1)).unwrap();
    let ran = bed.run_with(&["send", "-"], input.as_bytes()).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("order-cli: line 2: longer than 16 MiB\n"), "{}", ran.stderr);
    assert_eq!(bed.take(&broker, 1).await[0].message.body.len(), LIMIT);
}

pub(crate) async fn a_missing_exchange_stops_at_the_first_line(bed: Bed) {
    let ran = bed.run_with(&["send", "-"], b"\n{\"event\":\"OrderCreated\"}\n").await;
    let sentence = ran.sentence(1);
    assert!(sentence.contains("no exchange") && sentence.contains("line 2"), "{sentence}");
}
