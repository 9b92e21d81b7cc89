//! What somebody may have meant who misspelt a name.

/// Below this two names have nothing to do with each other (Jaro-Winkler, from 0 to 1).
const LIKENESS_MIN: f64 = 0.8;

/// The name that is most like the one that was written, if any is like it.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name| strsim::jaro_winkler(name, written);
    let near = names.into_iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(near) > LIKENESS_MIN).then_some(near)
}
