//! The page for people: files that are part of the program, so that nothing is loaded from elsewhere.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};

use crate::admin::refusal::Refusal;

/// One file.
struct Asset {
    /// Below `/assets/`.
    path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

const INDEX: Asset =
    Asset { path: "index.html", content_type: "text/html; charset=utf-8", content: include_bytes!("page/index.html") };

/// All others.
const ASSETS: &[Asset] = &[];

pub(super) async fn index() -> Response {
    INDEX.answer()
}

pub(super) async fn asset(Path(path): Path<String>) -> Result<Response, Refusal> {
    let asset = ASSETS.iter().find(|asset| asset.path == path);
    asset.map(Asset::answer).ok_or_else(|| Refusal::not_found(format!("there is no file {path:?} in the page")))
}

impl Asset {
    fn answer(&self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type))], self.content).into_response()
    }
}
