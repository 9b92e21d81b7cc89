//! URLs as plugins write them, in one spelling.

use url::Url;

use crate::egress::failure::EgressError;

/// Maximum bytes of a URL.
const URL_BYTES_MAX: usize = 8 << 10;

/// Parses a URL into its one spelling: the result of the standard's parser, without a dot at the end of the host.
pub fn parse_url(text: &str) -> Result<Url, EgressError> {
    parse_url_within(text, URL_BYTES_MAX)
}

/// Parses a URL whose length is not limited, because filled-in secrets do not count.
pub fn parse_long_url(text: &str) -> Result<Url, EgressError> {
    parse_url_within(text, usize::MAX)
}

fn parse_url_within(text: &str, bytes_max: usize) -> Result<Url, EgressError> {
    let refused = |why: &str| EgressError::Invalid(format!("the URL {:?} {why}", cut(text)));
    if text.len() > bytes_max {
        return Err(refused(&format!("has {} bytes, and may have {bytes_max}", text.len())));
    }
    let mut url = Url::parse(text).map_err(|error| refused(&format!("is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The user part is not shown: it may contain a password.
        return Err(EgressError::Invalid(
            "the URL has a user in front of its host: send a header Authorization instead".to_owned(),
        ));
    }
    if let Some(host) = url.host_str().and_then(|host| host.strip_suffix('.')).map(str::to_owned) {
        url.set_host(Some(&host)).map_err(|_| refused("has no host"))?;
    }
    url.set_fragment(None);
    if url.as_str().len() > bytes_max {
        return Err(refused(&format!("has more than {bytes_max} bytes once it is escaped")));
    }
    Ok(url)
}

/// Truncates text from a guest for error messages.
pub(super) fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(200)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
