//! What is done next, and what is captured for it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Instrument;

use crate::base::blocking;
use crate::base::durability::Durability;
use crate::base::error::Error;
use crate::base::jitter::jitter;
use crate::base::name::Subject;
use crate::persistence::actor::PersisterMessage;
use crate::persistence::dirty::{Next, Verdict};
use crate::persistence::meter;
use crate::persistence::persister::handle::{Persister, Token, lock};
use crate::persistence::port::{Commit, Save};

/// What [`Persister::step`] came to.
pub(super) enum Step {
    /// There is nothing to do before the next wake-up.
    Rest,
    /// There will be something to do.
    Wait(Duration),
    /// There was nothing to hand over; this follows all the same.
    Settled(Verdict<Token>),
}

/// What is told of a subject whose state is torn; it is loaded anew soon.
fn broken() -> Error {
    Error::permanent("saving a torn state", std::io::Error::other("an operation on it panicked"))
}

impl Persister {
    /// The actor looks at what there is to do; wake-ups on their way count for one.
    pub(super) fn wake(&self) {
        if self.shared.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        let actor = lock(&self.shared.actor).clone();
        if actor.is_none_or(|actor| actor.cast(PersisterMessage::Wake).is_err()) {
            // The actor is dead. Whoever waits is served all the same, even if it is never replaced because its
            // supervisor was killed; the debounce timer is what is missing until then.
            Errand::new(self.clone()).send(&self.shared.home);
        }
    }

    /// Does what is to be done; answers when to look again. Called by the actor.
    pub(in crate::persistence) fn advance(&self) -> Option<Duration> {
        // Cleared first: a change that comes from here on sends a wake-up of its own.
        self.shared.woken.store(false, Ordering::SeqCst);
        loop {
            let turn = lock(&self.shared.turn);
            match self.step() {
                Step::Rest => return None,
                Step::Wait(delay) => return Some(delay),
                Step::Settled(verdict) => self.tell_all([verdict], turn),
            }
        }
    }

    /// One step, in the persister's turn.
    pub(super) fn step(&self) -> Step {
        if self.shared.ended.load(Ordering::SeqCst) {
            return Step::Rest;
        }
        let now = self.shared.now();
        let alone = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        let next = lock(&self.shared.dirty).next(now);
        match next {
            Next::Rest => Step::Rest,
            Next::WaitUntil(at) => Step::Wait(at.saturating_sub(now)),
            Next::Drop(subject) => {
                drop(alone);
                let save = match &subject {
                    Subject::Bucket(name) => Save::DropBucket(name.clone()),
                    Subject::Channel(id) => Save::DropChannel(id.clone()),
                };
                self.launch(vec![save], self.shared.capabilities.durability, 1, 0)
            }
            Next::Commit { subjects, level, sync } => {
                let mut saves = Vec::with_capacity(subjects.len());
                let (mut bytes, mut torn) = (0, false);
                for subject in &subjects {
                    let cell = lock(&self.shared.cells).get(subject).cloned();
                    let Some(cell) = cell else { continue };
                    let captured = cell.capture();
                    bytes += captured.bytes;
                    torn |= captured.torn;
                    saves.extend(captured.saves);
                    lock(&self.shared.dirty).captured(subject, captured.revision);
                }
                drop(alone);
                if torn {
                    // As if the adapter had refused one of them: which one is found out, and the others are saved.
                    let verdict = lock(&self.shared.dirty).failed(&broken(), now, jitter());
                    self.settle_cells(&verdict);
                    return Step::Settled(verdict);
                }
                if saves.is_empty() && !sync {
                    // Everything was captured by an earlier commit.
                    let verdict = lock(&self.shared.dirty).saved(now);
                    self.settle_cells(&verdict);
                    return Step::Settled(verdict);
                }
                self.launch(saves, level, subjects.len(), bytes)
            }
        }
    }

    /// Hands a commit to the adapter, in tasks of their own, unless saving has ended. A panic of the adapter is an unknown
    /// outcome, and so is a runtime that is being shut down.
    fn launch(&self, saves: Vec<Save>, level: Durability, subjects: usize, bytes: usize) -> Step {
        let shared = &self.shared;
        let unsaved = lock(&shared.dirty).unsaved_bytes();
        meter::unsaved(&shared.store, unsaved);
        let flush = tracing::debug_span!("store.flush", store = %shared.store, subjects, bytes);
        let handed = tracing::debug_span!(
            parent: &flush, "adapter.commit", store = %shared.store, epoch = %shared.epoch, saves = saves.len(), bytes, ?level
        );
        let limit = shared.options.commit_timeout;
        let commit = Commit::new(shared.store.clone(), shared.epoch, level, saves);
        let adapter = Arc::clone(&shared.adapter);
        let stage = Arc::new(AtomicU8::new(LAUNCHING));
        // Settled when neither the commit nor who watches it is left: the commit may go on for a while without the other.
        let flown = Arc::new(Flight { persister: self.clone(), stage: Arc::clone(&stage) });
        let flying = Arc::clone(&flown);
        let begun = Instant::now();
        let mut work = {
            // Under the lock: a stop gives up what it finds here after it has ended saving, and nothing may come later.
            let mut flight = lock(&shared.flight);
            if shared.ended.load(Ordering::SeqCst) {
                return Step::Rest;
            }
            let work = tokio::spawn(
                async move {
                    let _flying = flying;
                    adapter.commit(&commit).await
                }
                .instrument(handed),
            );
            *flight = Some(work.abort_handle());
            work
        };
        let watch = async move {
            // It is waited for however long it takes, but whoever waits for it is told in time.
            let ended = loop {
                match tokio::time::timeout(limit, &mut work).await {
                    Ok(ended) => break ended,
                    Err(_) => flown.persister.overdue(limit),
                }
            };
            let outcome = ended.unwrap_or_else(|error| Err(blocking::lost("commit", &error)));
            flown.landed().finished(outcome, bytes, begun.elapsed());
        };
        tokio::spawn(watch.instrument(flush));
        match stage.compare_exchange(LAUNCHING, FLYING, Ordering::SeqCst, Ordering::SeqCst) {
            Err(CUT_OFF) => Step::Settled(self.lost_flight()),
            _ => Step::Rest,
        }
    }
}

/// A look at what there is to do, without the actor.
struct Errand {
    persister: Persister,
    /// Where the runtime of the store is gone, another one may be left.
    is_last: bool,
    is_done: bool,
}

impl Errand {
    fn new(persister: Persister) -> Self {
        Self { persister, is_last: false, is_done: false }
    }

    fn send(mut self, runtime: &Handle) {
        runtime.spawn(async move {
            self.is_done = true;
            self.persister.advance();
        });
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // The runtime was shut down: it lets go of what it has not run.
        let home = self.persister.shared.home.id();
        match Handle::try_current() {
            Ok(other) if !self.is_last && other.id() != home => {
                Self { persister: self.persister.clone(), is_last: true, is_done: false }.send(&other);
            }
            _ => self.persister.stranded(),
        }
    }
}

/// A commit in flight. Its runtime may be shut down before it lands, even before it has taken off.
struct Flight {
    persister: Persister,
    stage: Arc<AtomicU8>,
}

/// Who launches it has the persister's turn, and looks after it.
const LAUNCHING: u8 = 0;
const FLYING: u8 = 1;
const LANDED: u8 = 2;
const CUT_OFF: u8 = 3;

impl Flight {
    fn landed(&self) -> &Persister {
        self.stage.store(LANDED, Ordering::SeqCst);
        &self.persister
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let cut_off = |stage| self.stage.compare_exchange(stage, CUT_OFF, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !cut_off(LAUNCHING) && cut_off(FLYING) {
            self.persister.cut_off();
        }
    }
}
