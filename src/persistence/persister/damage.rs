//! What the adapter finds damaged of its own accord.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::base::error::{Error, Failure};
use crate::base::name::Subject;
use crate::persistence::persister::handle::{Persister, Shared, lock};
use crate::persistence::port::Finding;

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    pub(super) since: Duration,
    pub(super) error: Error,
}

impl Persister {
    /// From now on the adapter tells of damage that it finds.
    pub(super) fn watch(&self) {
        let runtime = Handle::current();
        let shared: Weak<Shared> = Arc::downgrade(&self.shared);
        let watcher = move |subject: Option<&Subject>, finding: Finding| {
            let Some(shared) = shared.upgrade() else { return };
            let persister = Self { shared };
            // Noted at once, so that findings keep their order; told by a task, because that runs the user's code.
            if let Some(failure) = persister.found(subject, finding) {
                runtime.spawn(async move { persister.report(failure) });
            }
        };
        self.shared.adapter.watch(&self.shared.store, Arc::new(watcher));
    }

    /// Notes what was found, and answers what is to be reported of it.
    fn found(&self, subject: Option<&Subject>, finding: Finding) -> Option<Failure> {
        let subject = subject.cloned();
        let mut damaged = lock(&self.shared.damaged);
        match finding {
            Finding::Damaged(error) => {
                let damage = Damage { since: self.shared.now(), error: error.clone() };
                damaged.entry(subject.clone()).or_insert(damage).error = error.clone();
                Some(Failure::new(subject, "upkeep", error, 1))
            }
            Finding::Mended => {
                damaged.remove(&subject);
                None
            }
        }
    }

    /// What was found last and is not mended.
    pub(super) fn newest_damage(&self) -> Option<Damage> {
        let damaged = lock(&self.shared.damaged);
        damaged.values().max_by_key(|damage| damage.since).cloned()
    }
}
