//! What is in this process's memory is for nobody else: no core dump, and no other process of the same user reads it.

use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};

/// From here on. Secrets come into memory next. Where the system does not know how, it goes on without.
///
/// The engine must be there already: it looks at its own memory by a file that cannot be opened afterwards.
pub(crate) fn keep_memory_private() {
    // What starts the process may have allowed dumps, and a dump that is piped into a program obeys no limit.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_private_from_then_on() {
        keep_memory_private();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
