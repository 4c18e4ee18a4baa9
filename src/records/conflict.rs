//! What a transaction has read, and which changes touch it.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::base::value::Key;
use crate::records::event::Change;
use crate::records::filter::Filter;
use crate::records::record::Record;

/// How many changes a bucket remembers for those who have read before them.
const REMEMBERED: usize = 4_096;

/// What became of one record, or of all.
#[derive(Clone, Debug)]
pub(super) enum Touch {
    Record { old: Option<Arc<Record>>, new: Option<Arc<Record>> },
    All,
}

impl Touch {
    fn of(change: &Change) -> Self {
        let (old, new) = match change {
            Change::Inserted { record } => (None, Some(record)),
            Change::Updated { old, new } => (Some(old), Some(new)),
            Change::Deleted { record, .. } => (Some(record), None),
            Change::Cleared { .. } => return Self::All,
        };
        Self::Record { old: old.cloned(), new: new.cloned() }
    }
}

/// The newest changes of a bucket, kept while somebody may ask for them.
#[derive(Debug, Default)]
pub(super) struct Recent {
    watchers: usize,
    /// Every change after this revision is in `log`.
    complete_after: u64,
    log: VecDeque<(u64, Touch)>,
}

impl Recent {
    /// Somebody reads from this revision on.
    pub(super) fn watch(&mut self, revision: u64) {
        if self.watchers == 0 {
            self.log.clear();
            self.complete_after = revision;
        }
        self.watchers += 1;
    }

    /// Somebody has read to the end.
    pub(super) fn unwatch(&mut self) {
        self.watchers = self.watchers.saturating_sub(1);
        if self.watchers == 0 {
            self.log.clear();
        }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watchers > 0
    }

    pub(super) fn note(&mut self, revision: u64, change: &Change) {
        self.log.push_back((revision, Touch::of(change)));
        if self.log.len() > REMEMBERED
            && let Some((forgotten, _)) = self.log.pop_front()
        {
            self.complete_after = forgotten;
        }
    }

    /// The changes after a revision; none where some of them are forgotten.
    fn since(&self, revision: u64) -> Option<impl Iterator<Item = &Touch>> {
        if revision < self.complete_after {
            return None;
        }
        let from = self.log.partition_point(|(at, _)| *at <= revision);
        Some(self.log.range(from..).map(|(_, touch)| touch))
    }
}

/// A read was overtaken by a change: of this record, where it was one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overtaken(pub(super) Option<Key>);

/// What was read of one bucket.
#[derive(Clone, Debug, Default)]
pub struct ReadSet {
    keys: HashSet<Key>,
    predicates: Vec<Filter>,
    whole: bool,
}

impl ReadSet {
    /// A key was looked up, found or not.
    pub fn key(&mut self, key: &Key) {
        if !self.keys.contains(key) {
            self.keys.insert(key.clone());
        }
    }

    /// Everything that matches was looked at.
    pub fn predicate(&mut self, filter: &Filter) {
        if !self.predicates.contains(filter) {
            self.predicates.push(filter.clone());
        }
    }

    /// Everything was looked at.
    pub fn whole(&mut self) {
        self.whole = true;
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        !self.whole && self.keys.is_empty() && self.predicates.is_empty()
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        self.whole |= other.whole;
        self.keys.extend(other.keys.iter().cloned());
        for filter in &other.predicates {
            self.predicate(filter);
        }
    }

    /// Whether a change touches what was read: a predicate if the old or the new record matches it.
    pub fn is_touched_by(&self, change: &Change) -> bool {
        match change {
            Change::Inserted { record } | Change::Deleted { record, .. } => self.sees(record),
            Change::Updated { old, new } => self.sees(old) || self.sees(new),
            Change::Cleared { .. } => !self.is_empty(),
        }
    }

    fn sees(&self, record: &Record) -> bool {
        self.whole || self.keys.contains(record.key()) || self.predicates.iter().any(|filter| filter.matches(record))
    }

    /// Whether any change after `revision` touches it, or too many came to know.
    pub(super) fn check(&self, recent: &Recent, revision: u64, newest: u64) -> Result<(), Overtaken> {
        if self.is_empty() || revision == newest {
            return Ok(());
        }
        let Some(mut since) = recent.since(revision) else { return Err(Overtaken(None)) };
        let overtaken = since.find_map(|touch| match touch {
            Touch::All => Some(Overtaken(None)),
            Touch::Record { old, new } => {
                let seen = old.iter().chain(new).find(|record| self.sees(record))?;
                Some(Overtaken(Some(seen.key().clone())))
            }
        });
        overtaken.map_or(Ok(()), Err)
    }

    /// Whether a record that expired meanwhile was read.
    pub(super) fn check_expired<'a>(
        &self,
        mut expired: impl Iterator<Item = &'a Arc<Record>>,
    ) -> Result<(), Overtaken> {
        match expired.find(|record| self.sees(record)) {
            Some(record) => Err(Overtaken(Some(record.key().clone()))),
            None => Ok(()),
        }
    }
}
