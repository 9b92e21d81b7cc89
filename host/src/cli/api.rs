//! Requests to a host's HTTP API, and its answers.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;

/// Makes a request. A change is marked as intended, which hosts require.
pub(super) fn request(method: &Method, uri: &str) -> http::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(method).uri(uri).header(ACCEPT, "application/json");
    if method == Method::POST {
        request = request.header(CONTENT_TYPE, "application/json").header("x-notify-request", "1");
    }
    request.body(Full::from(if method == Method::POST { "{}" } else { "" }))
}

/// Reads an answer. The value is `None` if the body is no JSON.
pub(super) async fn read(
    answer: Response<Incoming>,
    bytes_max: usize,
) -> Result<(StatusCode, Option<Value>), Box<dyn std::error::Error + Send + Sync>> {
    let (status, body) = (answer.status(), answer.into_body());
    let body = Limited::new(body, bytes_max).collect().await?.to_bytes();
    Ok((status, serde_json::from_slice(&body).ok()))
}
