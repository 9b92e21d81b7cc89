//! `/dead-letters`: lists, shows, replays, edits and deletes dead letters, as `notify-host dead-letters` does.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use dead_letters::{Changed, DeadLetterError, DeadLetterService, Selection};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Admin;
use crate::api::asked::{QueryParams, RequestBody};
use crate::refusal::Refusal;

/// Default and maximum number of letters in a list.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLettersQuery {
    plugin: Option<String>,
    reason: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Replay {
    body: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SelectionBody {
    plugin: Option<String>,
    reason: Option<String>,
    all: bool,
}

impl From<DeadLetterError> for Refusal {
    fn from(error: DeadLetterError) -> Self {
        match error {
            DeadLetterError::Unknown(sentence) => Self::not_found(sentence),
            DeadLetterError::Refused(sentence) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, sentence),
            DeadLetterError::Busy => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "others are at the dead letters: try again in a moment")
            }
            DeadLetterError::Failed(error) => Self::new(StatusCode::BAD_GATEWAY, format!("{error:#}")),
        }
    }
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    QueryParams(query): QueryParams<DeadLettersQuery>,
) -> Result<Json<Value>, Refusal> {
    let limit = query.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let selection = selection(query.plugin, query.reason);
    let (total, letters) = with_service(&admin, |service| async move { service.list(&selection, limit).await }).await?;
    Ok(Json(json!({ "total": total, "letters": letters })))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    Ok(Json(with_service(&admin, |service| async move { service.show(&id).await }).await?))
}

pub(super) async fn replay_one(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    body: RequestBody,
) -> Result<Json<Value>, Refusal> {
    let Replay { body } = body.read()?;
    let how = if body.is_some() { "replaced by an event with what you wrote" } else { "replayed" };
    let done = format!("dead letter {id} is {how}");
    with_service(&admin, |service| async move { service.replay_one(&id, body.as_deref()).await }).await?;
    Ok(Json(json!({ "done": done })))
}

pub(super) async fn remove_one(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let done = format!("dead letter {id} is deleted");
    with_service(&admin, |service| async move { service.remove_one(&id).await }).await?;
    Ok(Json(json!({ "done": done })))
}

pub(super) async fn replay(State(admin): State<Arc<Admin>>, body: RequestBody) -> Result<Json<Value>, Refusal> {
    let meant = meant(&body)?;
    Ok(told(&with_service(&admin, |service| async move { service.replay(&meant).await }).await?))
}

pub(super) async fn purge(State(admin): State<Arc<Admin>>, body: RequestBody) -> Result<Json<Value>, Refusal> {
    let meant = meant(&body)?;
    Ok(told(&with_service(&admin, |service| async move { service.purge(&meant).await }).await?))
}

/// Runs `work` to completion: it may hold letters, which must not be left behind.
async fn with_service<T, W>(admin: &Admin, work: impl FnOnce(Arc<DeadLetterService>) -> W) -> Result<T, Refusal>
where
    T: Send + 'static,
    W: Future<Output = Result<T, DeadLetterError>> + Send + 'static,
{
    Ok(admin.complete(work(Arc::clone(&admin.letters))).await??)
}

fn told(changed: &Changed) -> Json<Value> {
    let stayed = changed.stayed.iter().map(|(id, reason)| json!({ "id": id, "reason": reason }));
    Json(json!({ "count": changed.count, "stayed": stayed.collect::<Vec<_>>() }))
}

/// Reads the selection. All letters are selected only if the body says so.
fn meant(body: &RequestBody) -> Result<Selection, Refusal> {
    let SelectionBody { plugin, reason, all } = body.read()?;
    let selection = selection(plugin, reason);
    if selection.is_empty() != all {
        return Err(Refusal::bad_request("say which letters, by plugin or reason; or all"));
    }
    Ok(selection)
}

fn selection(plugin: Option<String>, reason: Option<String>) -> Selection {
    // An empty string would match every letter.
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Selection::of(given(plugin), given(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_letters_are_meant_only_if_that_is_said() {
        for (body, is_well, is_all) in [
            ("", false, false),
            ("{}", false, false),
            (r#"{"plugin":""}"#, false, false),
            (r#"{"all":true}"#, true, true),
            (r#"{"all":true,"plugin":"a"}"#, false, false),
            (r#"{"plugin":"a"}"#, true, false),
            (r#"{"reason":"x","plugin":null}"#, true, false),
            (r#"{"plugni":"a"}"#, false, false),
            ("[]", false, false),
        ] {
            let meant = meant(&RequestBody::from(body));
            assert_eq!(meant.is_ok(), is_well, "{body}");
            assert_eq!(meant.is_ok_and(|meant| meant.is_empty()), is_all, "{body}");
        }
    }
}
