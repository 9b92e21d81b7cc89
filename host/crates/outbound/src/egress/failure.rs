//! Why an exchange failed, as a sentence for the plugin and its operator.

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// Not granted; the sentence says what to add.
    #[error("{0}")]
    Denied(String),
    /// The request is malformed, or one that no plugin may send.
    #[error("{0}")]
    Invalid(String),
    /// Too large, or too many at once.
    #[error("{0}")]
    Quota(String),
    #[error("{target}: no end within the time limit while {step}")]
    TimedOut { target: String, step: ExchangeStep },
    #[error("{target}: {problem}")]
    Unavailable { target: String, step: ExchangeStep, problem: String },
    /// There is a response, but its body may not be handed over.
    #[error("{target}: {problem}")]
    UnusableBody { target: String, problem: String },
}

/// The step at which an exchange was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeStep {
    Waiting,
    Resolving,
    Connecting,
    Securing,
    Exchanging,
}

impl std::fmt::Display for ExchangeStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting for its turn",
            Self::Resolving => "resolving its name",
            Self::Connecting => "connecting",
            Self::Securing => "agreeing on TLS",
            Self::Exchanging => "exchanging request and response",
        })
    }
}
