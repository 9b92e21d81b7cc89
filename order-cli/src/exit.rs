//! Failures of order-cli, each described in one sentence, and their exit codes.
//!
//! | code | means |
//! |---|---|
//! | 0 | the broker has confirmed everything |
//! | 1 | something was not confirmed |
//! | 2 | the command line is wrong |
//! | 130 | interrupted |

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use broker::{BrokerError, ConnectError, PublishError, UrlError};

use crate::own_exchange::OWN_EXCHANGE;

/// A failure of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no session with the broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The broker refused the message, or its answer was lost.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The broker did not confirm a message in time.
    #[error("the broker did not confirm within {seconds} s; the message may be there or not")]
    NotConfirmed {
        /// The limit.
        seconds: u64,
    },
    /// The broker did not do as requested.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker did not answer in time.
    #[error("the broker did not answer within {seconds} s")]
    NoAnswer {
        /// The limit.
        seconds: u64,
    },
    /// The load's own queue cannot be used.
    #[error("the load's own queue {OWN_EXCHANGE:?} cannot be used: {0}; or name an exchange with --exchange")]
    OwnQueue(Box<Failure>),
    /// Only part of a file was sent.
    #[error("{what}; the good lines before line {line} are sent, so go on from there")]
    StoppedAtLine {
        /// The first line that may not have been sent.
        line: u64,
        /// The cause.
        what: Box<Failure>,
    },
    /// Some lines of a file are bad. Each was reported when it was read.
    #[error("{bad} of {events} events were not sent")]
    BadLines {
        /// Number of bad lines.
        bad: u64,
        /// Number of events in the file.
        events: u64,
    },
    /// Only part of a load was sent.
    #[error("{what}; {confirmed} of {count} events are confirmed")]
    LoadStopped {
        /// Number of confirmed events.
        confirmed: u64,
        /// Number of requested events.
        count: u64,
        /// The cause.
        what: Box<Failure>,
    },
    /// The events to send cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// The cause.
        problem: std::io::Error,
    },
    /// The manual pages cannot be written.
    #[error("cannot write into {}: {problem}", folder.display())]
    Pages {
        /// The target folder.
        folder: PathBuf,
        /// The cause.
        problem: std::io::Error,
    },
    /// The ids cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] std::io::Error),
    /// The operating system refused threads or signal handlers.
    #[error("cannot start: {0}")]
    Start(#[source] std::io::Error),
    /// The broker's URL is wrong.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The variable is not valid text.
    #[error("NOTIFY_EXCHANGE is not UTF-8: correct it, or name an exchange with --exchange")]
    ExchangeVariable,
    /// No broker is configured, and there is no default.
    #[error("there is no home directory to keep the default queue in: name a broker with --broker or NOTIFY_BROKER")]
    NoBroker,
    /// Ctrl-C was pressed.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    pub(crate) fn own_queue(what: Self) -> Self {
        Self::OwnQueue(Box::new(what))
    }

    /// Returns the exit code.
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

/// Reports a failure and returns the exit code.
pub(crate) fn conclude(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

/// Prints clap's message: the help, the version, or an error about the arguments.
pub(crate) fn of_arguments(said: &clap::Error) -> ExitCode {
    match said.print() {
        // Help that could not be written was not shown, so report it. A reader may close the pipe early.
        Err(error) if !said.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => {
            conclude(Err(Failure::Output(error)))
        }
        Ok(()) | Err(_) => ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(2)),
    }
}

/// Prints a sentence on standard error. If that is full or closed, the exit code alone has to tell.
pub(crate) fn say(sentence: &str) {
    let _ = writeln!(io::stderr(), "order-cli: {sentence}");
}
