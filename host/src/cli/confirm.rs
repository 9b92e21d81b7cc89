//! Asking before something is done that somebody must want.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

/// Dead letters are held meanwhile, and no other command sees them; RabbitMQ itself would end that
/// after half an hour.
const ANSWER_MINUTES_MAX: u64 = 5;

pub(crate) enum Answer {
    Yes,
    No,
    NobodyToAsk,
    /// Nobody did, in all this time.
    NotGiven,
}

/// Asks on the terminal.
pub(crate) async fn confirm(question: &str) -> Answer {
    match line(&format!("{question} [y/N] ")).await {
        Line::Given(line) if matches!(line.to_lowercase().as_str(), "y" | "yes") => Answer::Yes,
        Line::Given(_) => Answer::No,
        Line::NobodyToAsk => Answer::NobodyToAsk,
        Line::NotGiven => Answer::NotGiven,
    }
}

pub(crate) enum Line {
    /// Without blanks around it.
    Given(String),
    NobodyToAsk,
    /// Nobody did, in all this time.
    NotGiven,
}

/// Asks for a line on the terminal.
pub(crate) async fn line(question: &str) -> Line {
    if !io::stdin().is_terminal() {
        return Line::NobodyToAsk;
    }
    // What cannot be asked is not agreed to.
    let _ = write!(io::stderr(), "{question}");
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    match tokio::time::timeout(Duration::from_mins(ANSWER_MINUTES_MAX), line).await {
        Ok(Ok(Ok(line))) => Line::Given(line.trim().to_owned()),
        // It cannot be read.
        Ok(_) => Line::Given(String::new()),
        Err(_) => Line::NotGiven,
    }
}
