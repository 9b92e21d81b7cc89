//! Asks for confirmations and other input on the terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

/// Time limit for an answer, in minutes. Dead letters are held while waiting, and no other command sees them. RabbitMQ
/// itself would end that after half an hour.
const ANSWER_MINUTES_MAX: u64 = 5;

pub(crate) enum ConfirmAnswer {
    Yes,
    No,
    NobodyToAsk,
    /// No answer came within the time limit.
    NotGiven,
}

/// Asks a yes-or-no question on the terminal.
pub(crate) async fn confirm(question: &str) -> ConfirmAnswer {
    match line(&format!("{question} [y/N] ")).await {
        PromptedLine::Given(line) if matches!(line.to_lowercase().as_str(), "y" | "yes") => ConfirmAnswer::Yes,
        PromptedLine::Given(_) => ConfirmAnswer::No,
        PromptedLine::NobodyToAsk => ConfirmAnswer::NobodyToAsk,
        PromptedLine::NotGiven => ConfirmAnswer::NotGiven,
    }
}

pub(crate) enum PromptedLine {
    /// The line, trimmed.
    Given(String),
    NobodyToAsk,
    /// No answer came within the time limit.
    NotGiven,
}

/// Asks for a line on the terminal.
pub(crate) async fn line(question: &str) -> PromptedLine {
    if !io::stdin().is_terminal() {
        return PromptedLine::NobodyToAsk;
    }
    // If the question cannot be shown, nobody can agree to it.
    let _ = write!(io::stderr(), "{question}");
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    match tokio::time::timeout(Duration::from_mins(ANSWER_MINUTES_MAX), line).await {
        Ok(Ok(Ok(line))) => PromptedLine::Given(line.trim().to_owned()),
        // Standard input cannot be read.
        Ok(_) => PromptedLine::Given(String::new()),
        Err(_) => PromptedLine::NotGiven,
    }
}
