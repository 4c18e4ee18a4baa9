//! When the journal is folded: before what it holds is loaded, in quiet moments, before closing, and between commits once
//! it has grown large.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use redb::ReadTransaction;

use crate::adapters::redb::fault::{Fault, guarded};
use crate::adapters::redb::fold::{self, Plan, Step};
use crate::adapters::redb::keys::JournalKeys;
use crate::adapters::redb::writer::{Opening, Reply, State, Writer, answer};
use crate::adapters::redb::{journal, load, rows};
use crate::base::error::{Error, Result};
use crate::base::name::StoreName;
use crate::persistence::{Finding, Watcher};

/// Somebody who reads once everything of `whole` has been folded.
pub(super) struct Load {
    pub(super) operation: &'static str,
    pub(super) whole: JournalKeys,
    pub(super) reply: Reply<(ReadTransaction, Opening)>,
}

/// What there is to fold, and how it went so far.
pub(super) struct Folding {
    /// About how many bytes are in the journal that can be folded.
    pub(super) unfolded: u64,
    /// The file failed in a step: there is no next one of its own accord before a commit has succeeded.
    pub(super) paused: bool,
    /// Whose sections or rows are damaged, and how. They are left alone until somebody wants them, and get no more: what
    /// is behind the damage cannot be loaded.
    pub(super) stuck: HashMap<JournalKeys, Error>,
    /// There is damage that is nobody's in particular.
    pub(super) damaged: Option<Error>,
    /// How many bytes a step took lately in the time that it may take.
    pub(super) pace: u64,
}

impl Folding {
    pub(super) fn new(pace: u64) -> Self {
        Self { unfolded: 0, paused: false, stuck: HashMap::new(), damaged: None, pace }
    }

    pub(super) fn is_due(&self) -> bool {
        self.unfolded > 0 && !self.paused
    }
}

/// A step that takes longer is followed by smaller ones.
const STEP_TIME: Duration = Duration::from_millis(50);
/// The least bytes of a step, because each costs a sync.
const LEAST_STEP: u64 = 256 << 10;
/// A file that is closed is folded for so long; the rest is left to the next opening.
const CLOSING_TIME: Duration = Duration::from_secs(2);

impl Writer {
    /// One step of folding: of `only`, or of whoever is not stuck.
    ///
    /// It is synced like any commit. A step that was not would cost the next commit its pages all the same, and redb
    /// could not use again what it frees before that.
    pub(super) fn fold(&mut self, only: Option<&JournalKeys>, bytes: u64) -> Result<Step> {
        const OPERATION: &str = "folding the journal";
        let mut again = true;
        let (outcome, at) = loop {
            let at = RefCell::new(None);
            let opening = self.opening;
            let stuck = std::mem::take(&mut self.folding.stuck);
            let plan = Plan { bytes, only, stuck: &stuck, at: &at };
            let outcome = self.transact(OPERATION, |txn| fold::step(txn, &plan));
            self.folding.stuck = stuck;
            // What redb calls damage may be its own state of mind, which has ended with that opening of the file.
            let reopened = self.opening != opening && matches!(outcome, Err(Error::Corrupt { .. }));
            if !(reopened && std::mem::take(&mut again)) {
                break (outcome, at.take());
            }
        };
        match &outcome {
            Ok(step) => {
                if let Some(only) = only.filter(|_| !step.more) {
                    self.mended(only);
                }
                self.folding.unfolded = match (only, step.more) {
                    (None, false) => 0,
                    _ => self.folding.unfolded.saturating_sub(step.folded).max(1),
                };
                if only.is_none() && self.folding.damaged.take().is_some() {
                    self.tell_all(&Finding::Mended);
                }
            }
            // The file has failed, and may do so again at once.
            Err(Error::Unknown { .. } | Error::Transient { .. }) => self.folding.paused = true,
            Err(error) => self.damaged(at, error),
        }
        outcome
    }

    /// A step has met damage.
    fn damaged(&mut self, at: Option<JournalKeys>, error: &Error) {
        let known = match &at {
            Some(of) => self.folding.stuck.insert(of.clone(), error.clone()),
            None => {
                self.folding.paused = true;
                self.folding.damaged.replace(error.clone())
            }
        };
        if known.is_some() {
            return;
        }
        tracing::warn!(path = %self.path.display(), error = %error.report(), "a part of the journal cannot be folded");
        let finding = Finding::Damaged(error.clone());
        match at {
            Some(of) => self.tell(&of, finding),
            None => self.tell_all(&finding),
        }
    }

    /// There is nothing damaged of an owner any more.
    pub(super) fn mended(&mut self, of: &JournalKeys) {
        if self.folding.stuck.remove(of).is_some() {
            self.tell(of, Finding::Mended);
        }
    }

    fn tell(&self, of: &JournalKeys, finding: Finding) {
        if let Some((store, subject)) = of.subject()
            && let Some(watcher) = self.watchers.get(&store)
        {
            watcher(Some(&subject), finding);
        }
    }

    fn tell_all(&self, finding: &Finding) {
        for watcher in self.watchers.values() {
            watcher(None, finding.clone());
        }
    }

    /// What is known already is told at once.
    pub(super) fn watch(&mut self, store: StoreName, watcher: Watcher) {
        for (of, error) in &self.folding.stuck {
            if let Some((_, subject)) = of.subject().filter(|(owner, _)| *owner == store) {
                watcher(Some(&subject), Finding::Damaged(error.clone()));
            }
        }
        if let Some(error) = &self.folding.damaged {
            watcher(None, Finding::Damaged(error.clone()));
        }
        self.watchers.insert(store, watcher);
    }

    /// A step that nobody has asked for.
    pub(super) fn fold_on(&mut self, bytes: u64) {
        let begun = Instant::now();
        let outcome = self.fold(None, bytes);
        let took = begun.elapsed();
        match outcome {
            Ok(_) if took > STEP_TIME => self.folding.pace = (self.folding.pace / 2).max(LEAST_STEP),
            Ok(_) if took < STEP_TIME / 4 => self.folding.pace *= 2,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(path = %self.path.display(), error = %error.report(), "a step of folding failed");
            }
        }
        self.folding.pace = self.folding.pace.min(self.options.step_bytes);
    }

    /// What is left of the journal by then is left to the next opening.
    pub(super) fn fold_before_closing(&mut self) {
        while self.advance_load() {}
        let begun = Instant::now();
        while matches!(self.state, State::Open(_)) && self.folding.is_due() && begun.elapsed() < CLOSING_TIME {
            self.fold_on(self.folding.pace);
        }
    }

    /// Folds a step for whoever has waited longest, and answers whether somebody still waits.
    pub(super) fn advance_load(&mut self) -> bool {
        let Some(Load { operation, whole, reply }) = self.loads.pop_front() else { return false };
        match self.fold(Some(&whole), self.folding.pace) {
            Ok(Step { more: true, .. }) => self.loads.push_front(Load { operation, whole, reply }),
            Ok(_) => answer(reply, self.read(operation, None)),
            // Folding is no change of what is stored, so nothing is in doubt.
            Err(Error::Unknown { operation, source }) => answer(reply, Err(Error::Transient { operation, source })),
            Err(error) => answer(reply, Err(error)),
        }
        !self.loads.is_empty()
    }

    /// Answers with a snapshot, at once if the journal has nothing of `whole`.
    pub(super) fn read_whole(
        &mut self,
        operation: &'static str,
        whole: Option<JournalKeys>,
        failed: Option<Opening>,
        reply: Reply<(ReadTransaction, Opening)>,
    ) {
        let snapshot = self.read(operation, failed);
        let Some(whole) = whole else { return answer(reply, snapshot) };
        let unfolded = snapshot.and_then(|(txn, opening)| {
            let found = guarded(|| match load::open(&txn, rows::JOURNAL)? {
                Some(table) => journal::has_in(&table, &whole),
                None => Ok(false),
            });
            match found {
                Ok(Ok(true)) => Ok(None),
                Ok(Ok(false)) => Ok(Some((txn, opening))),
                Ok(Err(fault)) => Err(fault.into_read_error("reading the journal", &self.path)),
                Err(panic) => Err(Fault::Damaged(panic.to_string()).into_read_error("reading the journal", &self.path)),
            }
        });
        match unfolded {
            Ok(None) => self.loads.push_back(Load { operation, whole, reply }),
            Ok(Some(snapshot)) => answer(reply, Ok(snapshot)),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// After a transaction that put so many bytes into the journal: if that has become too large, it gets smaller by more
    /// than it grew, before the next commit.
    pub(super) fn journalled(&mut self, bytes: u64) {
        self.folding.paused = false;
        self.folding.unfolded += bytes;
        if self.folding.unfolded > self.options.journal_bytes {
            self.fold_on(self.folding.pace.max(2 * bytes));
        }
    }
}
