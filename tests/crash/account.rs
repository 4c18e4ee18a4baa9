//! What a killed process was promised, and what that entails for what is found on disk.

use std::collections::HashMap;

use crate::data::State;
use crate::told::{Changed, Told};

/// So many windows may pass, by the killed process's own clock, between a change, or the end of a commit that went
/// before, and the commit that holds the change. One is what the store promises; the rest is for a busy machine. A
/// store that lets later changes postpone the commit exceeds any number of them.
const PATIENCE: u32 = 40;

/// What a child told until it was killed.
#[derive(Debug)]
pub(crate) struct Account {
    /// What the child found.
    base: State,
    /// In the order of their revisions, without a gap.
    changes: Vec<(u64, Changed)>,
    /// The newest change of each key, clears apart.
    of_key: HashMap<String, u64>,
    /// The newest clear.
    cleared: u64,
    /// Up to here, a write at more than `Ram` was acknowledged.
    acknowledged: u64,
    /// Up to here, a `saved` event came.
    saved: u64,
    /// Up to here, a commit has succeeded.
    committed: u64,
    /// Up to here, the newest commit that was begun reaches.
    begun: u64,
    in_flight: bool,
    /// The next commit has to reach up to here at least.
    expected: u64,
    /// Windows that have passed while a change waited and no commit was in flight.
    waited: u32,
    pub(crate) opening: bool,
    pub(crate) ready: bool,
    pub(crate) done: bool,
    pub(crate) notes: Vec<String>,
    pub(crate) acknowledgements: usize,
    pub(crate) commits: usize,
}

impl Account {
    pub(crate) fn new(base: State) -> Self {
        let revision = base.revision;
        Self {
            base,
            changes: Vec::new(),
            of_key: HashMap::new(),
            cleared: 0,
            acknowledged: revision,
            saved: revision,
            committed: revision,
            begun: revision,
            in_flight: false,
            expected: revision,
            waited: 0,
            opening: false,
            ready: false,
            done: false,
            notes: Vec::new(),
            acknowledgements: 0,
            commits: 0,
        }
    }

    /// The newest change.
    pub(crate) fn newest(&self) -> u64 {
        self.changes.last().map_or(self.base.revision, |(revision, _)| *revision)
    }

    /// Everything was reported as saved.
    pub(crate) fn all_saved(&self) -> bool {
        self.saved == self.newest()
    }

    pub(crate) fn hear(&mut self, told: Told) {
        match told {
            Told::Opening => self.opening = true,
            Told::Ready { revision } => {
                assert_eq!(revision, self.base.revision, "a child finds what was found after the one before it");
                self.ready = true;
            }
            Told::Changed { revision, change } => {
                assert_eq!(revision, self.newest() + 1, "each change is told, in order");
                match &change {
                    Changed::Inserted { key, .. } | Changed::Updated { key, .. } | Changed::Deleted { key } => {
                        self.of_key.insert(key.clone(), revision);
                    }
                    Changed::Cleared => self.cleared = revision,
                }
                self.changes.push((revision, change));
            }
            Told::Acknowledged { key } => {
                // Each key is changed by one task, one change after the other, and so is the bucket cleared.
                let revision = match key {
                    Some(key) => self.of_key[&key],
                    None => self.cleared,
                };
                assert!(self.committed >= revision, "revision {revision} is acknowledged before its commit has ended");
                self.acknowledged = self.acknowledged.max(revision);
                self.acknowledgements += 1;
            }
            Told::Begun { revision } => {
                assert!(!self.in_flight, "one commit is in flight at a time");
                if let Some(revision) = revision {
                    assert!(revision >= self.expected, "what waited when the commit before ended is in this one");
                    self.begun = revision;
                }
                (self.in_flight, self.waited) = (true, 0);
                self.commits += 1;
            }
            Told::Ended => {
                self.in_flight = false;
                self.committed = self.begun;
                self.expected = self.newest();
            }
            Told::Failed { error } => panic!("a commit failed: {error}"),
            Told::Saved { revision } => {
                assert!(self.committed >= revision, "revision {revision} is told as saved before its commit has ended");
                self.saved = self.saved.max(revision);
            }
            Told::Tick => {
                if !self.in_flight && self.begun < self.newest() {
                    self.waited += 1;
                    assert!(self.waited <= PATIENCE, "a change waits {} windows for its commit", self.waited);
                }
            }
            Told::Done => self.done = true,
            Told::Note(note) => self.notes.push(note),
        }
    }

    /// Compares what was found with what was promised; answers how many changes are lost.
    pub(crate) fn settle(&self, found: &State) -> u64 {
        let revision = found.revision;
        let promises = [
            (self.acknowledged, "was acknowledged at more than `Ram`"),
            (self.saved, "was told as saved"),
            (self.committed, "was committed"),
        ];
        for (promised, how) in promises {
            assert!(revision >= promised, "revision {promised} {how}, and {revision} is what was found");
        }
        // The commit in flight is there or not, and nothing in between. By what `hear` has checked, what came after it
        // is of the time while it ran, or of the last window if none ran.
        assert!(
            revision == self.committed || (self.in_flight && revision == self.begun),
            "revision {revision} is neither of the last commit, {}, nor of the one in flight, {}",
            self.committed,
            self.begun
        );
        let mut model = self.base.clone();
        for (at, change) in self.changes.iter().take_while(|(at, _)| *at <= revision) {
            model.apply(*at, change);
        }
        assert_eq!(found, &model, "what was found is the bucket as it was at revision {revision}");
        self.newest() - revision
    }
}
