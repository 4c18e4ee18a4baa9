//! Which actor is whose, so that the supervisor knows what to restart.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use ractor::ActorId;
use tokio::time::Instant;

use crate::base::name::Subject;

/// Restarts within [`WITHIN`] after which a child is given up.
pub(super) const RESTARTS: u32 = 5;
/// See [`RESTARTS`].
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// Whose actor one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Child {
    Persister,
    Subject(Subject),
}

/// The living children of a store's supervisor.
#[derive(Debug, Default)]
pub(super) struct Children(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// None for those whose end is wanted.
    living: HashMap<ActorId, Option<Child>>,
    /// Those that died before they were entered: an actor can die before its spawner has its reference.
    early_deaths: HashSet<ActorId>,
}

impl Children {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic but an allocation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A child was spawned. Answers whether it is still alive.
    #[must_use]
    pub(super) fn born(&self, id: ActorId, child: Child) -> bool {
        let mut state = self.state();
        if state.early_deaths.remove(&id) {
            return false;
        }
        state.living.insert(id, Some(child));
        true
    }

    /// A child died. Answers whose it was, unless its death was announced or its birth was not.
    pub(super) fn died(&self, id: ActorId) -> Option<Child> {
        let mut state = self.state();
        match state.living.remove(&id) {
            Some(child) => child,
            None => {
                state.early_deaths.insert(id);
                None
            }
        }
    }

    /// The end of this actor is wanted, and of no other that its subject may have by now.
    pub(super) fn dismiss_actor(&self, id: ActorId) {
        if let Some(child) = self.state().living.get_mut(&id) {
            *child = None;
        }
    }

    /// The end of a subject's actor is wanted: its death, which [`died`](Self::died) will be told of, is no failure.
    pub(super) fn dismiss(&self, subject: &Subject) {
        let wanted = Some(Child::Subject(subject.clone()));
        for child in self.state().living.values_mut().filter(|child| **child == wanted) {
            *child = None;
        }
    }
}

/// Counts restarts within a sliding time.
#[derive(Debug, Default)]
pub(super) struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// One more restart is needed. Answers whether it may be.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|first| now.duration_since(*first) > WITHIN) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() <= RESTARTS as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_death_is_told_once_and_a_wanted_one_leaves_nothing_behind() {
        let children = Children::default();
        let bucket = Child::Subject(Subject::Bucket("b".try_into().unwrap()));
        let id = ActorId::Local;
        assert!(children.born(id(1), bucket.clone()));
        assert_eq!(children.died(id(1)), Some(bucket.clone()));
        assert_eq!(children.died(id(2)), None, "it died before it was entered");
        assert!(!children.born(id(2), bucket.clone()), "which its spawner is told");
        assert!(children.born(id(3), bucket));
        assert!(children.born(id(4), Child::Persister));
        children.dismiss_actor(id(4));
        children.dismiss(&Subject::Bucket("b".try_into().unwrap()));
        assert_eq!((children.died(id(3)), children.died(id(4))), (None, None));
        let state = children.state();
        assert!(state.living.is_empty() && state.early_deaths.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_sixth_restart_within_thirty_seconds_is_one_too_many() {
        let mut restarts = Restarts::default();
        for _ in 0..5 {
            assert!(restarts.allow(Instant::now()));
        }
        assert!(!restarts.allow(Instant::now()));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(restarts.allow(Instant::now()));
    }
}
