//! Why an exchange did not come about, as a sentence for the plugin and its operator.

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// It is not granted; the sentence says what to add.
    #[error("{0}")]
    Denied(String),
    /// The request makes no sense, or is one that no plugin may send.
    #[error("{0}")]
    Invalid(String),
    /// Too large, or too many at once.
    #[error("{0}")]
    Quota(String),
    #[error("{target}: no end within the time limit while {step}")]
    TimedOut { target: String, step: Step },
    #[error("{target}: {problem}")]
    Unavailable { target: String, step: Step, problem: String },
    /// There is an answer, and nobody may have its body.
    #[error("{target}: {problem}")]
    UnmatchedTypes { target: String, problem: String },
}

/// Where an exchange was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Waiting,
    Resolving,
    Connecting,
    Securing,
    Exchanging,
}

impl std::fmt::Display for Step {
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
