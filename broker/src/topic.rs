//! Topic patterns: dotted words, where `*` stands for one word and `#` for any number of words
//! (<https://www.rabbitmq.com/tutorials/tutorial-five-rust>). Used for bindings and for plugin subscriptions.

/// Returns whether a routing key (or any dotted name) matches a pattern.
///
/// ```
/// assert!(broker::topic_matches("order.*", "order.created"));
/// assert!(broker::topic_matches("order.#", "order"));
/// assert!(!broker::topic_matches("order.*", "order.item.added"));
/// ```
pub fn matches(pattern: &str, key: &str) -> bool {
    let mut words = words_of(key);
    let mut parts = words_of(pattern);
    // Where to resume when a later part fails: after the last `#`, with one more word taken by it.
    // One such position is enough, because a later `#` can take over all words of an earlier one.
    let mut retry = None;
    loop {
        let at = words.clone();
        match (parts.next(), words.next()) {
            (Some("#"), _) => {
                words = at.clone();
                retry = Some((parts.clone(), at));
            }
            (Some("*"), Some(_)) => {}
            (Some(part), Some(word)) if part == word => {}
            (None, None) => return true,
            _ => {
                let Some((after, mut rest)) = retry.take() else { return false };
                if rest.next().is_none() {
                    return false;
                }
                parts = after.clone();
                words = rest.clone();
                retry = Some((after, rest));
            }
        }
    }
}

/// Splits a name into words. Empty text has no words, as in RabbitMQ; `split` alone would yield one.
fn words_of(text: &str) -> std::iter::Skip<std::str::Split<'_, char>> {
    text.split('.').skip(usize::from(text.is_empty()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    /// The definition of matching, word by word.
    fn model(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => model(rest, key) || (!key.is_empty() && model(pattern, &key[1..])),
            (Some((&"*", rest)), Some((_, words))) => model(rest, words),
            (Some((part, rest)), Some((word, words))) => part == word && model(rest, words),
            _ => false,
        }
    }

    #[test]
    fn patterns_match_as_in_rabbitmq() {
        for (pattern, key, expected) in [
            ("#", "", true),
            ("#", "order.created", true),
            ("*", "", false),
            ("*", ".", false),
            ("*.*", ".", true),
            ("order.*", "order.created", true),
            ("order.*", "order", false),
            ("order.#", "order", true),
            ("#.created", "order.item.created", true),
            ("*.*", "order", false),
            ("order", "order", true),
            ("", "", true),
            ("a.#.b.#.c", "a.b.c", true),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} on {key}");
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            pattern in proptest::collection::vec(prop_oneof!["a", "b", r"\*", "#"], 1..7),
            key in proptest::collection::vec("[ab]", 1..7),
        ) {
            let (pattern, key) = (pattern.join("."), key.join("."));
            let expected = model(&pattern.split('.').collect::<Vec<_>>(), &key.split('.').collect::<Vec<_>>());
            prop_assert_eq!(matches(&pattern, &key), expected);
        }
    }
}
