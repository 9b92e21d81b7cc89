//! HTTP peers: a receiver that accepts every request unread, and a client that repeats one request as a
//! native program would.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::bail;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Prints its port, and serves until it is killed.
pub(crate) fn receive() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that disconnects is not an error.
        thread::spawn(move || drop(answer(stream)));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let mut filled = 0;
    loop {
        let whole = loop {
            if let Some(length) = length(&buffer[..filled]).filter(|length| *length <= filled) {
                break length;
            }
            let read = stream.read(&mut buffer[filled..])?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
        };
        stream.write_all(ANSWER)?;
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

/// Returns the length of the first request, once its head is complete.
fn length(bytes: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let name = bytes[..head].windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME));
    let body = name.map_or(0, |name| {
        let digits = bytes[name + NAME.len()..head].iter().skip_while(|byte| **byte == b' ');
        digits.take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
    });
    Some(head + 4 + body)
}

/// Posts the body `count` times.
pub(crate) async fn post(url: &str, count: usize, at_once: usize, body: Bytes) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let url: http::Uri = url.parse()?;
    let begun = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..at_once)
        .map(|_| {
            let (client, url, body, begun) = (client.clone(), url.clone(), body.clone(), Arc::clone(&begun));
            tokio::spawn(async move {
                while begun.fetch_add(1, Ordering::Relaxed) < count {
                    let request = http::Request::post(url.clone())
                        .header("content-type", "application/cloudevents+json")
                        .header("idempotency-key", "0f6e5f9a-6f1f-5a63-8d5c-0a8b5b1c1f6e")
                        .header("user-agent", "bench-peer")
                        .body(Full::new(body.clone()))?;
                    let response = client.request(request).await?;
                    if !response.status().is_success() {
                        bail!("the receiver answers {}", response.status());
                    }
                    response.into_body().collect().await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    Ok(())
}
