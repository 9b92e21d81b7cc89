//! Extractors for queries and bodies. Their errors are refusals like all others.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::refusal::Refusal;

/// Time limit for receiving a body.
const BODY_TIME_MAX: Duration = Duration::from_secs(15);

/// The parsed query string.
pub(super) struct QueryParams<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| Refusal::bad_request(error.body_text()))
    }
}

/// The whole body.
pub(super) struct RequestBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for RequestBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match tokio::time::timeout(BODY_TIME_MAX, Bytes::from_request(request, state)).await {
            Ok(Ok(body)) => Ok(Self(body)),
            Ok(Err(error)) => Err(Refusal::new(error.status(), error.body_text())),
            Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
        }
    }
}

impl RequestBody {
    /// Parses the body as JSON. An empty body counts as an empty object.
    pub(super) fn read<T: DeserializeOwned + Default>(&self) -> Result<T, Refusal> {
        if self.0.is_empty() {
            return Ok(T::default());
        }
        let problem = |error| Refusal::bad_request(format!("the body is not what is expected: {error}"));
        serde_json::from_slice(&self.0).map_err(problem)
    }
}

#[cfg(test)]
impl From<&'static str> for RequestBody {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}
