//! Names of secrets.

/// Maximum bytes of a name. Names go into messages.
const NAME_BYTES_MAX: usize = 255;

/// Returns the heading to write for a secret of this name: `[secrets.slack-token]`.
pub fn heading(name: &str) -> String {
    format!("[secrets.{}]", toml_edit::Key::new(name).display_repr())
}

/// Checks a secret's name. The error says what was expected.
pub(super) fn name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(allowed) {
        return Err(format!("expected a secret's name, made of a-z, A-Z, 0-9, -, _ and ., got {text:?}"));
    }
    Ok(text.to_owned())
}
