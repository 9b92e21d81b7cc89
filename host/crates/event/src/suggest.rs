//! Suggests the name that a misspelt one may have meant.

/// Minimum similarity of two names (Jaro-Winkler, from 0 to 1).
const LIKENESS_MIN: f64 = 0.8;

/// Returns the most similar name, if any is similar enough.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name| strsim::jaro_winkler(name, written);
    let near = names.into_iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(near) > LIKENESS_MIN).then_some(near)
}
