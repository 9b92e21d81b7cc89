//! Keeps this process's memory private: no core dumps, and no access by other processes of the same user.

use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};

/// Makes memory private from now on. Call it before secrets are loaded. If the system does not support it, the host
/// continues without.
///
/// The engine must exist already: it inspects its own memory through a file that cannot be opened afterwards.
pub(crate) fn keep_memory_private() {
    // The parent process may have allowed dumps. A dump that is piped into a program ignores the limit, hence the
    // next call.
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
