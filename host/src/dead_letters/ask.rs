//! Asking before something is done that cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

pub(super) enum Answer {
    Yes,
    No,
    NobodyToAsk,
}

/// Asks on the terminal, unless the answer is given already.
pub(super) fn confirm(question: &str, yes: bool) -> Answer {
    if yes {
        return Answer::Yes;
    }
    if !io::stdin().is_terminal() {
        return Answer::NobodyToAsk;
    }
    eprint!("{question} [y/N] ");
    // What cannot be asked is not agreed to.
    let _ = io::stderr().flush();
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(_) if matches!(line.trim().to_lowercase().as_str(), "y" | "yes") => Answer::Yes,
        Ok(_) | Err(_) => Answer::No,
    }
}
