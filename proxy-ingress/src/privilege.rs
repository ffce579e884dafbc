//! The right to take ports below 1024: taken up for that moment, and put down before a client is heard.
//!
//! A container's user who is not root has it only as permitted, by a file capability (docs/decisions/0041). Who is root keeps root's
//! rights: manifests that he names may be anybody's.

use std::io;

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What ports below 1024 need.
const PORTS: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Takes up what is permitted and is needed for ports.
pub fn take_up() -> io::Result<()> {
    let has = capabilities(None)?;
    let wanted = taken_up(has);
    if wanted != has {
        set_capabilities(None, wanted)?;
    }
    Ok(())
}

/// Puts all rights down, but root's. Threads that begin later have none either, and nobody gets one back.
pub fn put_down() -> io::Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    put_all_down()
}

fn put_all_down() -> io::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, none)?)
}

fn taken_up(has: CapabilitySets) -> CapabilitySets {
    CapabilitySets {
        effective: has.effective | (has.permitted & PORTS),
        ..has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_permitted_is_taken_up_and_only_for_ports() {
        let all = PORTS | CapabilitySet::SYS_ADMIN;
        for (permitted, effective) in [
            (CapabilitySet::empty(), CapabilitySet::empty()),
            (PORTS, PORTS),
            (all, PORTS),
        ] {
            let has = CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted,
                inheritable: CapabilitySet::empty(),
            };
            let taken = taken_up(has);
            assert_eq!((taken.effective, taken.permitted), (effective, permitted));
        }
    }

    #[test]
    fn rights_are_put_down_for_good() {
        // A thread of its own: rights are a thread's, and others go on to need theirs.
        let after = std::thread::spawn(|| {
            put_all_down().unwrap();
            let again = std::thread::spawn(|| capabilities(None).unwrap()).join().unwrap();
            (capabilities(None).unwrap(), again)
        });
        let (own, next) = after.join().unwrap();
        assert!(own.permitted.is_empty() && own.effective.is_empty());
        assert!(next.permitted.is_empty());
    }
}
