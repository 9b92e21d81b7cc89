//! The route cache remembers, for each event type, the plugins that may want it.
//!
//! Most plugins want few types. With a hundred plugins, matching all patterns anew for every event would cost
//! more than the event itself. The result for a type is therefore kept until a plugin is added, removed or
//! changed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Maximum number of remembered types. The cache starts over at this number, so that publishers that invent
/// types cannot fill the memory.
const TYPES_MAX: usize = 1024;
/// Maximum bytes of a remembered type. Publishers that send whole texts as types get the uncached search.
const TYPE_BYTES_MAX: usize = 255;

/// The candidates for each event type.
pub(super) struct RouteCache<M>(RwLock<Remembered<M>>);

struct Remembered<M> {
    /// The members that the cache was built from.
    members: Arc<[M]>,
    changes: u64,
    by_type: HashMap<Box<str>, Arc<[M]>>,
}

impl<M> Remembered<M> {
    fn new(members: Arc<[M]>, changes: u64) -> Self {
        Self { members, changes, by_type: HashMap::new() }
    }

    fn is_of(&self, members: &Arc<[M]>, changes: u64) -> bool {
        self.changes == changes && Arc::ptr_eq(&self.members, members)
    }
}

impl<M> Default for RouteCache<M> {
    fn default() -> Self {
        Self(RwLock::new(Remembered::new(Arc::default(), 0)))
    }
}

impl<M: Clone> RouteCache<M> {
    /// Returns the members that `may_want` this type, in their order. `changes` must differ whenever `may_want`
    /// may answer differently. The caller reads it before looking at any member.
    pub(super) fn of(
        &self,
        members: &Arc<[M]>,
        changes: u64,
        event_type: &str,
        may_want: impl Fn(&M) -> bool,
    ) -> Arc<[M]> {
        {
            let remembered = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if remembered.is_of(members, changes)
                && let Some(candidates) = remembered.by_type.get(event_type)
            {
                return Arc::clone(candidates);
            }
        }
        let candidates: Arc<[M]> = members.iter().filter(|member| may_want(member)).cloned().collect();
        if event_type.len() > TYPE_BYTES_MAX {
            return candidates;
        }
        let mut remembered = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !remembered.is_of(members, changes) {
            *remembered = Remembered::new(Arc::clone(members), changes);
        }
        if remembered.by_type.len() >= TYPES_MAX {
            remembered.by_type.clear();
        }
        remembered.by_type.insert(event_type.into(), Arc::clone(&candidates));
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_ends_when_members_or_their_wishes_change() {
        let candidates = RouteCache::default();
        let two: Arc<[_]> = Arc::new(["order", "payment"]);
        let check = |members: &Arc<[&'static str]>, changes, event_type, all_want, expected: &[&str]| {
            let found = candidates.of(members, changes, event_type, |member| all_want || *member == event_type);
            assert_eq!(&*found, expected);
        };
        check(&two, 1, "order", false, &["order"]);
        check(&two, 1, "payment", false, &["payment"]);
        check(&two, 1, "order", true, &["order"]);
        check(&two, 2, "order", true, &["order", "payment"]);
        check(&two, 2, "payment", false, &["payment"]);
        let one: Arc<[_]> = Arc::new(["order"]);
        check(&one, 2, "payment", false, &[]);
        check(&two, 2, "payment", false, &["payment"]);
    }

    #[test]
    fn what_publishers_can_make_it_remember_is_bounded() {
        let candidates = RouteCache::default();
        let members: Arc<[_]> = Arc::new([()]);
        for number in 0..=TYPES_MAX * 2 {
            assert_eq!(candidates.of(&members, 0, &number.to_string(), |()| number % 2 == 0).len(), (number + 1) % 2);
            assert!(candidates.0.read().unwrap().by_type.len() <= TYPES_MAX);
        }
        for (bytes, is_remembered) in [(TYPE_BYTES_MAX, true), (TYPE_BYTES_MAX + 1, false), (1 << 20, false)] {
            let event_type = "x".repeat(bytes);
            assert_eq!(candidates.of(&members, 0, &event_type, |()| true).len(), 1);
            assert_eq!(candidates.0.read().unwrap().by_type.contains_key(&*event_type), is_remembered, "{bytes}");
        }
    }
}
