//! Why order-cli stopped short, in one sentence, and the exit code that goes with it.
//!
//! | code | means |
//! |---|---|
//! | 0 | everything is with the broker, confirmed |
//! | 1 | something is not |
//! | 2 | the command line makes no sense |
//! | 130 | interrupted |

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use broker::{BrokerError, ConnectError, PublishError, UrlError};

use crate::own_exchange::OWN_EXCHANGE;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No session with the broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The broker did not take the message, or nobody can say that it did.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The broker is silent.
    #[error("the broker did not confirm within {seconds} s; the message may be there or not")]
    NotConfirmed {
        /// The limit.
        seconds: u64,
    },
    /// The broker did not do what it was asked.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker is silent.
    #[error("the broker did not answer within {seconds} s")]
    NoAnswer {
        /// The limit.
        seconds: u64,
    },
    /// A load cannot have a queue of its own.
    #[error("the load's own queue {OWN_EXCHANGE:?} cannot be used: {0}; or name an exchange with --exchange")]
    OwnQueue(Box<Failure>),
    /// Part of a file was sent.
    #[error("{what}; the good lines before line {line} are sent, so go on from there")]
    StoppedAtLine {
        /// The first line of which nobody can say that it was sent.
        line: u64,
        /// Why.
        what: Box<Failure>,
    },
    /// Some lines of a file are bad; each was named when it was met.
    #[error("{bad} of {events} events were not sent")]
    BadLines {
        /// How many.
        bad: u64,
        /// Of how many.
        events: u64,
    },
    /// Part of a load was sent.
    #[error("{what}; {confirmed} of {count} events are confirmed")]
    LoadStopped {
        /// How many were confirmed.
        confirmed: u64,
        /// Of how many.
        count: u64,
        /// Why.
        what: Box<Failure>,
    },
    /// The events to send cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    Input {
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: std::io::Error,
    },
    /// The manual pages cannot be written.
    #[error("cannot write into {}: {problem}", folder.display())]
    Pages {
        /// Where to.
        folder: PathBuf,
        /// Why.
        problem: std::io::Error,
    },
    /// The ids cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] std::io::Error),
    /// The operating system gives no threads or no signals.
    #[error("cannot start: {0}")]
    Start(#[source] std::io::Error),
    /// The broker's URL is wrong.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The variable is no text.
    #[error("NOTIFY_EXCHANGE is not UTF-8: correct it, or name an exchange with --exchange")]
    ExchangeVariable,
    /// There is no broker to go to.
    #[error("there is no home directory to keep the default queue in: name a broker with --broker or NOTIFY_BROKER")]
    NoBroker,
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    pub(crate) fn own_queue(what: Self) -> Self {
        Self::OwnQueue(Box::new(what))
    }

    /// What the process ends with.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Url(_) | Self::NoBroker | Self::ExchangeVariable => 2,
            Self::Interrupted => 130,
            Self::StoppedAtLine { what, .. } | Self::LoadStopped { what, .. } => what.code(),
            Self::Connect(_)
            | Self::Publish(_)
            | Self::NotConfirmed { .. }
            | Self::Broker(_)
            | Self::NoAnswer { .. }
            | Self::OwnQueue(_)
            | Self::BadLines { .. }
            | Self::Input { .. }
            | Self::Pages { .. }
            | Self::Output(_)
            | Self::Start(_) => 1,
        }
    }
}

/// Says what went wrong, if anything did, and what the process ends with.
pub(crate) fn conclude(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

/// Prints what clap has to say instead of running anything: the help, the version, or what is wrong with the arguments.
pub(crate) fn of_arguments(said: &clap::Error) -> ExitCode {
    match said.print() {
        // Help that is not where it was to be is none.
        Err(error) if !said.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => {
            conclude(Err(Failure::Output(error)))
        }
        Ok(()) | Err(_) => ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(2)),
    }
}

/// A sentence on standard error. If that is full or closed there is nowhere else to tell it: the exit code says so much.
pub(crate) fn say(sentence: &str) {
    let _ = writeln!(io::stderr(), "order-cli: {sentence}");
}
