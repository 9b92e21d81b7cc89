//! Everything that a guest sees of answers, from an attacker's viewpoint.

use std::io::Read as _;

use notify_plugin::bindings::notify::plugin::{http, secrets};
use notify_plugin::{Handled, HostError, done, info};
use serde::Deserialize;
use wasip2::http::{outgoing_handler, types};

use crate::Settings;

/// A request to a server.
#[derive(Deserialize)]
pub(crate) struct Ask {
    url: String,
    /// Number of dashes before the body, and after it in the next field.
    #[serde(default)]
    before: usize,
    #[serde(default)]
    after: usize,
    #[serde(default)]
    body: String,
    /// Number of characters before the secret in the header.
    #[serde(default)]
    prefix: usize,
}

/// Headers that would make a server send a part or another encoding.
const TRICKS: [(&str, &str); 4] =
    [("accept-encoding", "gzip, br"), ("range", "bytes=0-9"), ("if-range", "\"x\""), ("a-im", "gzip")];

/// Sends every request by the contract and by WASI, and logs each view on a line.
pub(crate) fn look(settings: &Settings) -> Handled {
    for ask in &settings.asks {
        let body = [&b"-".repeat(ask.before), ask.body.as_bytes(), &b"-".repeat(ask.after)].concat();
        info!("by contract: {}", by_contract(settings, ask, body.clone())?);
        if !ask.url.contains('{') && ask.prefix == 0 {
            info!("by WASI: {}", by_wasi(ask, &body).unwrap_or_else(|error| format!("error {error}")));
        }
    }
    done()
}

/// Formats a view in a way that the host's redaction does not recognize, so that the log shows what the guest saw.
fn view(status: u16, mut headers: Vec<(String, Vec<u8>)>, body: &[u8], end: &str) -> String {
    headers.sort();
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
    format!("{status} {end} {}: {}", headers.join(" "), shown(body))
}

fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= 200 {
        return backwards(bytes);
    }
    let digest = bytes.iter().fold(5381u64, |digest, byte| digest.wrapping_mul(33) ^ u64::from(*byte));
    format!("{} bytes of digest {digest:x}", bytes.len())
}

fn backwards(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().rev().collect()
}

fn by_contract(settings: &Settings, ask: &Ask, body: Vec<u8>) -> Result<String, HostError> {
    let secret = secrets::open(&settings.secret)?;
    let tricks = TRICKS.map(|(name, value)| (name.to_owned(), http::HeaderValue::Text(value.to_owned())));
    let bearer = format!("Bearer {}", "p".repeat(ask.prefix));
    let mut headers = Vec::from(tricks);
    headers.push(("authorization".to_owned(), http::HeaderValue::Secret((bearer, &secret))));
    let request = http::Request { method: "POST".to_owned(), url: ask.url.clone(), headers, body, timeout: None };
    Ok(match http::send(&request) {
        Ok(answer) => {
            let end = if answer.truncated { "cut" } else { "whole" };
            view(answer.status, answer.headers, &answer.body, end)
        }
        Err(error) => format!("error {error:?}"),
    })
}

fn by_wasi(ask: &Ask, body: &[u8]) -> Result<String, String> {
    let told = |error: types::ErrorCode| format!("{error:?}");
    let rest = ask.url.strip_prefix("http://").ok_or("another scheme")?;
    let (authority, path) = rest.split_at(rest.find('/').ok_or("no path")?);
    let fields = types::Fields::new();
    for (name, value) in TRICKS {
        fields.set(name, &[value.as_bytes().to_vec()]).map_err(|error| format!("{error:?}"))?;
    }
    let request = types::OutgoingRequest::new(fields);
    let set = request
        .set_method(&types::Method::Post)
        .and_then(|()| request.set_scheme(Some(&types::Scheme::Http)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(path)));
    set.map_err(|()| "no such request".to_owned())?;
    let outgoing = request.body().map_err(|()| "no body".to_owned())?;
    let future = outgoing_handler::handle(request, None).map_err(told)?;
    {
        let stream = outgoing.write().map_err(|()| "no stream".to_owned())?;
        for chunk in body.chunks(4096) {
            stream.blocking_write_and_flush(chunk).map_err(|error| format!("{error:?}"))?;
        }
    }
    types::OutgoingBody::finish(outgoing, None).map_err(told)?;
    future.subscribe().block();
    let answer = future.get().ok_or("it is not ready")?.map_err(|()| "somebody has it".to_owned())?.map_err(told)?;
    let (status, headers) = (answer.status(), answer.headers().entries());
    let incoming = answer.consume().map_err(|()| "it has no body".to_owned())?;
    let mut stream = incoming.stream().map_err(|()| "it has no stream".to_owned())?;
    let mut content = Vec::new();
    let end = stream.read_to_end(&mut content).map_or_else(|error| format!("cut: {error},"), |_| "whole".to_owned());
    // A backtrace of the host may follow.
    let end = end.lines().next().unwrap_or_default();
    Ok(view(status, headers, &content, end))
}
