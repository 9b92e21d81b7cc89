//! Access to the admin server, decided by the operator's token file.
//!
//! The files that ship with the host contain a placeholder for the operator's own token. Placeholders are public, so
//! none is accepted silently: `change-me` lets nobody in, and the trial token is warned about at each start.

use std::path::Path;

use anyhow::bail;
use config::BadConfig;
use config::{AdminConfig, SecretSource};
use outbound::secret_value::SecretValue;
use tracing::warn;

/// Minimum bytes of a token. A shorter one can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Prefix of placeholders in shipped files, in any case.
const PLACEHOLDER: &str = "change-me";
/// The trial token in docker-compose.yml, which publishes the port on loopback only.
const FOR_TRYING: &str = "only-to-try-notify-host";

/// Decides which requests are let in.
#[derive(Debug)]
pub(super) enum Access {
    /// No token is required.
    Everybody,
    Token(SecretValue),
    /// Only paths that need no token are served: the file still has its placeholder.
    Nobody,
}

impl Access {
    /// Reads the token file that the settings name. An unusable token is a mistake in the settings.
    pub(super) fn read(config: &AdminConfig) -> anyhow::Result<Self> {
        let Some(file) = &config.token_file else { return Ok(Self::Everybody) };
        let token = SecretValue::read(&SecretSource::File(file.clone())).map_err(|error| problem(file, &error))?;
        let Some(text) = token.text() else { bail!(problem(file, "the token is no text")) };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(problem(file, "a token is one line of visible ASCII characters, without spaces"))
        }
        if text.get(..PLACEHOLDER.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PLACEHOLDER)) {
            warn!(
                "admin-token-file {}: it still holds a placeholder, so only /healthz and /readyz are served: put a token of \
                 your own there, such as from `openssl rand -hex 32`, and restart the host",
                file.display()
            );
            return Ok(Self::Nobody);
        }
        if text.len() < TOKEN_BYTES_MIN {
            bail!(problem(file, &format!("the token is too short to be safe: it needs {TOKEN_BYTES_MIN} characters")))
        }
        if text == FOR_TRYING {
            warn!(
                "admin-token-file {}: the token is the one that docker-compose.yml ships, which everybody knows: set \
                 NOTIFY_ADMIN_TOKEN to one of your own before other machines can reach the host",
                file.display()
            );
        }
        Ok(Self::Token(token))
    }
}

fn problem(file: &Path, problem: &str) -> BadConfig {
    BadConfig(format!("admin-token-file {}: {problem}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(token: &str) -> Result<&'static str, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, token).unwrap();
        let access = Access::read(&AdminConfig { token_file: Some(file), ..AdminConfig::default() });
        access.map_err(|error| error.to_string()).map(|access| match access {
            Access::Everybody => "everybody",
            Access::Token(_) => "token",
            Access::Nobody => "nobody",
        })
    }

    #[test]
    fn a_token_lets_in_whoever_has_it_and_a_placeholder_nobody() {
        assert!(matches!(Access::read(&AdminConfig::default()), Ok(Access::Everybody)));
        for (token, expected) in [
            ("0123456789abcdef\n", Ok("token")),
            (FOR_TRYING, Ok("token")),
            ("CHANGE-ME", Ok("nobody")),
            ("change-me-to-something-long\n", Ok("nobody")),
            ("notify", Err("the token is too short to be safe: it needs 16 characters")),
            ("0123456789abcde", Err("too short")),
            ("change me to something", Err("without spaces")),
        ] {
            match (read(token), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{token}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{token}: {found}"),
                (found, _) => panic!("{token}: {found:?}"),
            }
        }
    }

    /// Otherwise nobody would notice when a shipped token stays in use.
    #[test]
    fn the_tokens_in_shipped_files_are_known() {
        let compose = include_str!("../../../../docker-compose.yml");
        assert!(compose.contains(&format!("${{NOTIFY_ADMIN_TOKEN:-{FOR_TRYING}}}")));
        let kubernetes = include_str!("../../../../packaging/kubernetes/notify-host.yml");
        let token = kubernetes.lines().find_map(|line| line.trim().strip_prefix("admin-token: ")).unwrap();
        assert_eq!(read(token), Ok("nobody"));
    }
}
