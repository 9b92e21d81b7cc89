//! Counts the calls of a guest into the host.

/// Counts of calls into the host by interface and function, in the order of their first calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(Vec<(&'static str, u64)>);

impl Calls {
    /// Counts a call of a function such as `log.write` or `http.send`.
    pub fn count(&mut self, function: &'static str) {
        self.add(function, 1);
    }

    pub(crate) fn add(&mut self, function: &'static str, calls: u64) {
        // A linear search beats a map for a handful of functions.
        match self.0.iter_mut().find(|(name, _)| *name == function) {
            Some((_, count)) => *count += calls,
            None => self.0.push((function, calls)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}
