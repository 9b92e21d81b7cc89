//! Whether writing log lines is a plugin's actual work: `log = "required"`.

use std::str::FromStr;

use event::suggest::nearest;

/// Annotation by which a plugin requests this policy for itself.
const ANNOTATION: &str = "log";
const REQUIRED: &str = "required";
const BEST_EFFORT: &str = "best-effort";

/// Decides about an attempt whose log lines cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPolicy {
    /// The attempt is retried.
    Required,
    /// The attempt counts as done: a webhook that has posted must not post again because of a log line.
    BestEffort,
}

impl LogPolicy {
    pub(super) const WORDS: [&str; 2] = [REQUIRED, BEST_EFFORT];

    /// Reads the policy that a plugin requests in its description. An unknown word counts as no request.
    pub fn asked_for(annotations: &[(String, String)]) -> Self {
        match annotations.iter().find(|(name, _)| name == ANNOTATION) {
            Some((_, value)) if value == REQUIRED => Self::Required,
            Some(_) | None => Self::BestEffort,
        }
    }
}

impl FromStr for LogPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            REQUIRED => Ok(Self::Required),
            BEST_EFFORT => Ok(Self::BestEffort),
            other => {
                let meant = nearest(other, Self::WORDS).map(|word| format!("; did you mean {word:?}?"));
                Err(format!("expected {REQUIRED:?} or {BEST_EFFORT:?}, got {other:?}{}", meant.unwrap_or_default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_word_makes_a_plugins_lines_its_work() {
        let asked = |name: &str, value: &str| LogPolicy::asked_for(&[(name.to_owned(), value.to_owned())]);
        assert_eq!(asked("log", "required"), LogPolicy::Required);
        for (name, value) in [("log", "Required"), ("log", "best-effort"), ("log", ""), ("logs", "required")] {
            assert_eq!(asked(name, value), LogPolicy::BestEffort, "{name} {value}");
        }
        assert_eq!(LogPolicy::asked_for(&[]), LogPolicy::BestEffort);
    }

    #[test]
    fn a_word_that_is_misspelt_is_told_with_the_one_that_was_meant() {
        assert_eq!("required".parse(), Ok(LogPolicy::Required));
        assert_eq!("best-effort".parse(), Ok(LogPolicy::BestEffort));
        for (text, expected) in [
            ("require", "expected \"required\" or \"best-effort\", got \"require\"; did you mean \"required\"?"),
            (
                "best effort",
                "expected \"required\" or \"best-effort\", got \"best effort\"; did you mean \"best-effort\"?",
            ),
            ("no", "expected \"required\" or \"best-effort\", got \"no\""),
        ] {
            assert_eq!(text.parse::<LogPolicy>().unwrap_err(), expected);
        }
    }
}
