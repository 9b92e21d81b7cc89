//! Parses messages in RabbitMQ's wire format as lapin does, with the broker crate's guard in front and without it.

use std::hint::black_box;
use std::time::Instant;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::basic::{AMQPMethod, AMQPProperties, Deliver};
use amq_protocol::protocol::{AMQPClass, BasicProperties};
use amq_protocol::types::{AMQPValue, FieldTable};
use anyhow::{Context as _, anyhow};
use broker::GuardBench;

const BODY_BYTES: usize = 1024;
/// Messages per read. A busy RabbitMQ sends frames in pieces of about this size.
const MESSAGES_TOGETHER: usize = 32;
/// Number of turns. Both ways take turns, so that a noisy moment affects both.
const TURNS: usize = 20;

/// Returns the median microseconds per message, without the guard and with it.
pub(crate) fn compare(count: usize) -> anyhow::Result<(f64, f64)> {
    let bytes = deliveries()?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let rounds = (count / MESSAGES_TOGETHER / TURNS).max(1);
    for _ in 0..TURNS {
        let began = Instant::now();
        for _ in 0..rounds {
            let frames = read(&bytes)?;
            black_box(frames);
        }
        without.push(micros(began, rounds));
        let (mut guard, began) = (GuardBench::default(), Instant::now());
        for _ in 0..rounds {
            let mut frames = Vec::new();
            guard.pass(&bytes, |passed| {
                frames = read(passed)?;
                anyhow::Ok(())
            })??;
            let mut body = Vec::new();
            for frame in frames {
                match frame {
                    AMQPFrame::Method(..) if !body.is_empty() => {
                        black_box(GuardBench::message(std::mem::take(&mut body)).context("no preamble")?);
                    }
                    AMQPFrame::Body(_, part) => body.extend(part),
                    _ => {}
                }
            }
            black_box(GuardBench::message(body).context("no preamble")?);
        }
        with.push(micros(began, rounds));
    }
    Ok((median(without), median(with)))
}

/// Returns some messages with the properties that a CloudEvents publisher sets.
fn deliveries() -> anyhow::Result<Vec<u8>> {
    let mut headers = FieldTable::default();
    for (name, value) in [("specversion", "1.0"), ("type", "OrderCreated"), ("source", "/shop"), ("id", "4711")] {
        headers.insert(format!("cloudEvents:{name}").into(), AMQPValue::LongString(value.into()));
    }
    let properties: AMQPProperties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id("0198c2b4-7c1e-7d52-a7a1-2d0e94f65c13".into())
        .with_headers(headers);
    let deliver = Deliver {
        consumer_tag: "amq.ctag-x".into(),
        delivery_tag: 1,
        redelivered: false,
        exchange: "orders".into(),
        routing_key: "order.created".into(),
    };
    let header = AMQPContentHeader { class_id: 60, body_size: BODY_BYTES as u64, properties };
    let frames = [
        AMQPFrame::Method(1, AMQPClass::Basic(AMQPMethod::Deliver(deliver))),
        AMQPFrame::Header(1, header),
        AMQPFrame::Body(1, vec![b'x'; BODY_BYTES]),
    ];
    let mut bytes = Vec::new();
    for frame in &frames {
        let written = gen_frame(frame)(bytes.into()).map_err(|error| anyhow!("{error:?}"))?;
        bytes = written.write;
    }
    Ok(bytes.repeat(MESSAGES_TOGETHER))
}

fn read(mut bytes: &[u8]) -> anyhow::Result<Vec<AMQPFrame>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).map_err(|error| anyhow!("{error:?}"))?;
        frames.push(frame);
        bytes = rest;
    }
    Ok(frames)
}

#[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
fn micros(began: Instant, rounds: usize) -> f64 {
    began.elapsed().as_secs_f64() * 1e6 / (rounds * MESSAGES_TOGETHER) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
