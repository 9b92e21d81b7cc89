//! The dashboard. Its files are embedded in the program, so that nothing is loaded from elsewhere.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};

use crate::refusal::Refusal;

/// One embedded file.
struct Asset {
    /// Path below `/assets/`.
    path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Lists assets with their content, from the `page` folder.
macro_rules! assets {
    ($($path:literal: $content_type:expr,)*) => {
        [$(Asset { path: $path, content_type: $content_type, content: include_bytes!(concat!("page/", $path)) },)*]
    };
}

const INDEX: Asset =
    Asset { path: "index.html", content_type: "text/html; charset=utf-8", content: include_bytes!("page/index.html") };

/// All files but the index.
const ASSETS: &[Asset] = &assets![
    "api.js": JAVASCRIPT,
    "app.js": JAVASCRIPT,
    "cell.js": JAVASCRIPT,
    "dialog.js": JAVASCRIPT,
    "events.js": JAVASCRIPT,
    "explain.js": JAVASCRIPT,
    "format.js": JAVASCRIPT,
    "host.js": JAVASCRIPT,
    "icon.svg": "image/svg+xml",
    "letter.js": JAVASCRIPT,
    "letters.js": JAVASCRIPT,
    "more.js": JAVASCRIPT,
    "notice.js": JAVASCRIPT,
    "plot.js": JAVASCRIPT,
    "plugins.js": JAVASCRIPT,
    "record.js": JAVASCRIPT,
    "stats.js": JAVASCRIPT,
    "style.css": CSS,
    "token.js": JAVASCRIPT,
    "vendor/htm-preact.js": JAVASCRIPT,
    "vendor/uplot.css": CSS,
    "vendor/uplot.js": JAVASCRIPT,
];

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn below(folder: &Path, within: &str, files: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{within}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                below(&entry.path(), &format!("{name}/"), files);
            } else {
                files.insert(name);
            }
        }
    }

    #[test]
    fn what_is_in_the_folder_is_in_the_program() {
        let mut files = BTreeSet::new();
        below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page"), "", &mut files);
        // It is for readers of the source.
        assert!(files.remove("vendor/README.md"));
        let assets: BTreeSet<_> = ASSETS.iter().chain([&INDEX]).map(|asset| asset.path.to_owned()).collect();
        assert_eq!(assets, files);
    }

    /// Checks that every file the page asks for is embedded, and that nothing is inline or from elsewhere.
    #[test]
    fn the_page_wants_nothing_else() {
        for asset in ASSETS.iter().chain([&INDEX]).filter(|asset| !asset.path.starts_with("vendor/")) {
            let text = std::str::from_utf8(asset.content).unwrap();
            for quoted in text.split('"').filter(|quoted| quoted.starts_with("/assets/") || quoted.starts_with("./")) {
                let path = quoted.trim_start_matches("/assets/").trim_start_matches("./");
                assert!(ASSETS.iter().any(|asset| asset.path == path), "{}: {quoted}", asset.path);
            }
            for forbidden in ["//cdn", " style=", "<style", "innerHTML", "dangerously", "eval("] {
                assert!(!text.contains(forbidden), "{}: {forbidden}", asset.path);
            }
        }
    }
}
