//! What follows from a commit's outcome, or from none in time.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::base::jitter::jitter;
use crate::base::name::Subject;
use crate::persistence::cell::Cell;
use crate::persistence::dirty::Verdict;
use crate::persistence::meter::{self, Committed};
use crate::persistence::persister::handle::{Persister, Token, answer, lock};
use crate::persistence::persister::turn::Step;

impl Persister {
    pub(super) fn overdue(&self, limit: Duration) {
        let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
        let error = Error::unknown("commit", slow);
        let turn = lock(&self.shared.turn);
        let verdict = lock(&self.shared.dirty).overdue(&error, self.shared.now());
        self.tell_all([verdict], turn);
    }

    /// The runtime of a commit in flight was shut down. Nothing follows here, as there may be no runtime for it.
    pub(super) fn cut_off(&self) {
        let turn = lock(&self.shared.turn);
        let verdict = self.lost_flight();
        self.tell_all([verdict], turn);
        self.shared.landed.notify_waiters();
        // Who waits for something else that is to be done may be on another runtime.
        self.wake();
    }

    /// Nobody will ever tell what became of the commit in flight. In the persister's turn.
    pub(super) fn lost_flight(&self) -> Verdict<Token> {
        let gone = std::io::Error::other("its runtime was shut down");
        if let Some(work) = lock(&self.shared.flight).take() {
            work.abort();
        }
        let verdict = lock(&self.shared.dirty).failed(&Error::unknown("commit", gone), self.shared.now(), jitter());
        self.settle_cells(&verdict);
        verdict
    }

    /// There is no runtime on which anything could be saved: whoever waits need not wait on. What is unsaved is kept.
    pub(super) fn stranded(&self) {
        self.shared.woken.store(false, Ordering::SeqCst);
        let answers = lock(&self.shared.dirty).strand(&Error::Stopping);
        answer(answers);
        self.shared.landed.notify_waiters();
    }

    pub(super) fn finished(&self, outcome: Result<()>, bytes: usize, took: Duration) {
        let counts = &self.shared.counts;
        counts.last_commit_nanos.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let turn = lock(&self.shared.turn);
        *lock(&self.shared.flight) = None;
        let now = self.shared.now();
        let verdict = match &outcome {
            Ok(()) => {
                counts.commits.fetch_add(1, Ordering::Relaxed);
                counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                lock(&self.shared.dirty).saved(now)
            }
            Err(error) => {
                counts.failed_commits.fetch_add(1, Ordering::Relaxed);
                lock(&self.shared.dirty).failed(error, now, jitter())
            }
        };
        let measured = Committed {
            failure: outcome.as_ref().err(),
            took,
            bytes,
            lag: verdict.lag,
            unsaved_bytes: lock(&self.shared.dirty).unsaved_bytes(),
        };
        self.settle_cells(&verdict);
        // The next commit is on its way before anybody is told: those who are answered get busy at once.
        let next = self.step();
        let is_at_rest = matches!(next, Step::Rest);
        let settled = if let Step::Settled(verdict) = next { Some(verdict) } else { None };
        if !is_at_rest {
            // Whoever is told may take long, and there may be a time to wait for.
            self.wake();
        }
        self.tell_all(iter::once(verdict).chain(settled), turn);
        // Without a lock: it is code of others.
        meter::committed(&self.shared.store, &measured);
        self.shared.landed.notify_waiters();
    }

    /// Carries out what an outcome means for the cells, in the persister's turn; before anybody is told, so that whoever
    /// is answered finds them settled.
    pub(super) fn settle_cells(&self, verdict: &Verdict<Token>) {
        let Verdict { saved, handed, unsaved, dropped, .. } = verdict;
        let cells: Vec<(&Subject, Arc<dyn Cell>)> = {
            let mut cells = lock(&self.shared.cells);
            if let Some(dropped) = dropped {
                cells.remove(dropped);
            }
            let all = saved.iter().chain(handed).chain(unsaved);
            all.filter_map(|subject| Some((subject, Arc::clone(cells.get(subject)?)))).collect()
        };
        for (subject, cell) in cells {
            if saved.binary_search(subject).is_ok() {
                cell.saved();
            } else if unsaved.binary_search(subject).is_ok() {
                cell.restore();
            } else {
                cell.handed();
            }
        }
    }
}
