//! The API, `/api/v1`: JSON in, JSON out. An error says in one sentence why.

mod asked;
mod dead_letters;
mod events;
mod host;
mod plugins;
mod stats;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, StatusCode, Uri};

use crate::Admin;
use crate::refusal::Refusal;

/// The `OpenAPI` document; a test compares it with the routes.
const OPENAPI: &str = include_str!("openapi.json");

/// Defines the routes with their handlers, and for the tests a list of them.
macro_rules! routes {
    ($($method:ident $path:literal => $answer:path;)+) => {
        pub(super) fn routes() -> Router<Arc<Admin>> {
            Router::new()$(.route($path, $method($answer)))+
        }

        #[cfg(test)]
        const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];
    };
}

routes! {
    get "/openapi.json" => openapi;
    get "/host" => host::show;
    post "/reload" => host::reload;
    get "/stats" => stats::list;
    get "/stats/stream" => stats::stream;
    get "/plugins" => plugins::list;
    post "/plugins/{name}/pause" => plugins::pause;
    post "/plugins/{name}/resume" => plugins::resume;
    post "/plugins/{name}/reload" => plugins::reload;
    get "/events" => events::list;
    get "/events/stream" => events::stream;
    get "/explain" => events::explain;
    get "/dead-letters" => dead_letters::list;
    post "/dead-letters/replay" => dead_letters::replay;
    post "/dead-letters/purge" => dead_letters::purge;
    get "/dead-letters/{id}" => dead_letters::show;
    delete "/dead-letters/{id}" => dead_letters::remove_one;
    post "/dead-letters/{id}/replay" => dead_letters::replay_one;
}

async fn openapi() -> ([(HeaderName, HeaderValue); 1], &'static str) {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], OPENAPI)
}

pub(super) async fn nothing(uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is nothing at {}", uri.path()))
}

pub(super) async fn not_so(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {}", uri.path()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_has_what_there_is_and_nothing_else() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                described.insert((method.clone(), path.clone()));
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let in_path: Vec<_> = parameters.iter().filter(|one| one["in"] == "path").collect();
                assert_eq!(in_path.len(), path.matches('{').count(), "{path}");
                assert!(
                    in_path.iter().all(|one| path.contains(&format!("{{{}}}", one["name"].as_str().unwrap()))),
                    "{path}"
                );
            }
        }
        let api = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), format!("/api/v1{path}")));
        let around = ["/healthz", "/readyz", "/metrics"].map(|path| ("get".to_owned(), path.to_owned()));
        assert_eq!(described, api.chain(around).collect());
    }

    #[test]
    fn what_the_document_refers_to_is_there() {
        fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|member| references(member, found));
                }
                Value::Array(entries) => entries.iter().for_each(|entry| references(entry, found)),
                _ => {}
            }
        }
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
