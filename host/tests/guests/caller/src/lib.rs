//! A guest that calls the URLs in its settings, by the contract and by WASI, and reports how each call went:
//! `http URL: 200, 4 bytes`.

use std::io::Read as _;

use notify_plugin::bindings::notify::plugin::http;
use notify_plugin::{Delivery, Event, Handled, HostError, Info, Plugin, done, info};
use serde::Deserialize;
use wasip2::http::{outgoing_handler, types};

#[derive(Deserialize)]
struct Settings {
    urls: Vec<String>,
    /// Size of the request body in bytes.
    #[serde(default)]
    bytes: usize,
    #[serde(default)]
    milliseconds: Option<u64>,
}

struct Caller;

impl Plugin for Caller {
    fn describe() -> Info {
        Info::new("caller", env!("CARGO_PKG_VERSION"), "Calls who its settings say")
    }

    fn handle(_event: Event, _delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        for url in &settings.urls {
            info!("http {url}: {}", by_contract(url, &settings));
            info!("wasi {url}: {}", by_wasi(url, &settings).unwrap_or_else(|error| error));
        }
        done()
    }
}

fn by_contract(url: &str, settings: &Settings) -> String {
    let request = http::Request {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: vec![("x-one".to_owned(), http::HeaderValue::Text("1".to_owned()))],
        body: vec![b'x'; settings.bytes],
        timeout: settings.milliseconds,
    };
    match http::send(&request) {
        Ok(answer) if answer.truncated => format!("{}, cut at {} bytes", answer.status, answer.body.len()),
        Ok(answer) => format!("{}, {} bytes", answer.status, answer.body.len()),
        Err(HostError::Denied(why)) => format!("denied: {why}"),
        Err(HostError::Invalid(why)) => format!("invalid: {why}"),
        Err(HostError::Quota(why)) => format!("quota: {why}"),
        Err(HostError::Timeout) => "timeout".to_owned(),
        Err(HostError::Unavailable(why)) => format!("unavailable: {why}"),
        Err(HostError::Refused(why)) => format!("refused: {why}"),
    }
}

fn by_wasi(url: &str, settings: &Settings) -> Result<String, String> {
    let told = |error: types::ErrorCode| format!("{error:?}");
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let scheme = match scheme {
        "http" => types::Scheme::Http,
        "https" => types::Scheme::Https,
        other => types::Scheme::Other(other.to_owned()),
    };
    let fields = types::Fields::new();
    fields.set("x-one", &[b"1".to_vec()]).map_err(|error| format!("{error:?}"))?;
    let request = types::OutgoingRequest::new(fields);
    let set = request
        .set_method(&types::Method::Post)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(path)));
    set.map_err(|()| "no such request".to_owned())?;
    let body = request.body().map_err(|()| "no body".to_owned())?;
    let options = types::RequestOptions::new();
    if let Some(milliseconds) = settings.milliseconds {
        options.set_first_byte_timeout(Some(milliseconds * 1_000_000)).map_err(|()| "no time limit".to_owned())?;
    }
    let future = outgoing_handler::handle(request, Some(options)).map_err(told)?;
    {
        let stream = body.write().map_err(|()| "no stream".to_owned())?;
        for chunk in vec![b'x'; settings.bytes].chunks(4096) {
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
    }
    // The answer tells whether the body arrived.
    let _ = types::OutgoingBody::finish(body, None);
    future.subscribe().block();
    let answer = future.get().ok_or("it is not ready")?.map_err(|()| "somebody has it".to_owned())?.map_err(told)?;
    let status = answer.status();
    let body = answer.consume().map_err(|()| "it has no body".to_owned())?;
    let mut stream = body.stream().map_err(|()| "it has no stream".to_owned())?;
    let mut content = Vec::new();
    match stream.read_to_end(&mut content) {
        Ok(bytes) => Ok(format!("{status}, {bytes} bytes")),
        Err(error) => Ok(format!("{status}, cut at {} bytes: {error}", content.len())),
    }
}

notify_plugin::export!(Caller);
