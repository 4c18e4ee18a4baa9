//! What one live query has read, and what it has heard of it.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};
use tokio::sync::Notify;

use crate::base::name::BucketName;
use crate::bucket::live::activity::{Activity, Working};
use crate::bucket::live::index::Index;
use crate::bucket::reads::BucketReads;
use crate::bus::Event;
use crate::records::BucketEvent;

/// How much is kept of what is heard during an evaluation; beyond that the evaluation counts as overtaken.
const REMEMBERED: usize = 1_024;

/// What was read, bucket by bucket.
pub(super) type ReadMap = HashMap<BucketName, BucketReads>;

/// One live query, as the sink and its own task see it.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    /// Told when there is something to do for the task.
    wake: Notify,
    activity: Activity,
}

#[derive(Debug)]
struct State {
    /// What the last evaluation has read.
    reads: Arc<ReadMap>,
    /// The buckets whose changes it hears.
    heard_of: HashSet<BucketName>,
    /// What is heard during an evaluation, whose reads are not known yet.
    recent: Option<Recent>,
    /// An evaluation is due.
    due: bool,
    /// The callbacks are to be looked at.
    poked: bool,
    ended: bool,
    /// The commit because of which the last evaluation was due. That evaluation has seen all of it: a commit is applied
    /// as a whole before the first of its events is published.
    commit: u64,
    /// There while something is to be done, or being done.
    working: Option<Working>,
}

#[derive(Debug, Default)]
struct Recent {
    heard: Vec<Heard>,
    too_much: bool,
}

/// Something that may have touched what was read.
enum Heard {
    /// The payload of a bucket's event.
    Change(Arc<dyn Any + Send + Sync>),
    /// The bucket of this name is another one now, or none.
    Replaced(BucketName),
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Change(_) => f.write_str("Change"),
            Self::Replaced(name) => f.debug_tuple("Replaced").field(name).finish(),
        }
    }
}

/// What the task of a live query is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) evaluation: bool,
    pub(super) callbacks: bool,
}

/// Whether a change is later than the reads of its bucket, and touches them.
fn is_touched(reads: &ReadMap, event: &BucketEvent) -> bool {
    let reads = reads.get(&event.bucket);
    reads.is_some_and(|reads| event.revision > reads.since && reads.set.is_touched_by(&event.change))
}

impl State {
    fn touch(&mut self, watch: &Watch, commit: u64) {
        (self.due, self.commit) = (true, commit);
        self.work(watch);
    }

    fn work(&mut self, watch: &Watch) {
        self.working.get_or_insert_with(|| watch.activity.begin());
        watch.wake.notify_one();
    }

    /// Keeps what is heard during an evaluation. Answers whether there is one.
    fn remember(&mut self, heard: impl FnOnce() -> Heard) -> bool {
        let Some(recent) = &mut self.recent else { return false };
        if recent.too_much {
        } else if recent.heard.len() < REMEMBERED {
            recent.heard.push(heard());
        } else {
            *recent = Recent { heard: Vec::new(), too_much: true };
        }
        true
    }
}

impl Watch {
    /// One whose first evaluation is under way.
    pub(super) fn new(activity: Activity) -> Self {
        let state = State {
            reads: Arc::default(),
            heard_of: HashSet::new(),
            recent: None,
            due: false,
            poked: false,
            ended: false,
            commit: 0,
            working: Some(activity.begin()),
        };
        Self { state: Mutex::new(state), wake: Notify::new(), activity }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock, and every change under it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bucket has changed. Runs in the turn of whoever changed it.
    pub(super) fn hear(&self, event: &Event, change: &BucketEvent) {
        let mut state = self.state();
        if state.ended || change.commit == state.commit {
            return;
        }
        let remembered = state.remember(|| Heard::Change(Arc::clone(&event.payload)));
        if !remembered && !state.due && is_touched(&state.reads, change) {
            state.touch(self, change.commit);
        }
    }

    /// The bucket of a name is another one now, or none.
    pub(super) fn replaced(&self, bucket: &BucketName) {
        let mut state = self.state();
        let remembered = state.remember(|| Heard::Replaced(bucket.clone()));
        if !remembered && !state.ended && state.reads.contains_key(bucket) {
            // It belongs to no commit.
            state.touch(self, 0);
        }
    }

    /// There is a new callback.
    pub(super) fn poke(&self) {
        let mut state = self.state();
        if !state.ended {
            state.poked = true;
            state.work(self);
        }
    }

    /// Waits until there is something to do.
    pub(super) async fn wanted(&self) -> Wanted {
        loop {
            {
                let mut state = self.state();
                let wanted = Wanted { evaluation: state.due, callbacks: std::mem::take(&mut state.poked) };
                if wanted.evaluation || wanted.callbacks {
                    return wanted;
                }
                state.working = None;
            }
            self.wake.notified().await;
        }
    }

    /// From now on the changes of a bucket are heard. Called before it is read.
    pub(super) fn listen(self: &Arc<Self>, index: &Index, bucket: &BucketName) {
        let mut state = self.state();
        if !state.ended && state.heard_of.insert(bucket.clone()) {
            index.enter(bucket, self);
        }
    }

    /// An evaluation begins; it sees everything that was applied before.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.due = false;
        state.recent = Some(Recent::default());
    }

    /// An evaluation has ended, and has read this: that replaces what was read before it or, after a failure, is added.
    /// Answers whether a change has touched it meanwhile; then the next one is due.
    pub(super) fn finish(self: &Arc<Self>, index: &Index, reads: ReadMap, succeeded: bool) -> bool {
        let (recent, reads) = {
            let mut state = self.state();
            state.reads = Arc::new(if succeeded { reads } else { added(&state.reads, reads) });
            // From here on changes are compared with these reads at once.
            let recent = state.recent.take().unwrap_or_default();
            let reads = Arc::clone(&state.reads);
            for bucket in state.heard_of.extract_if(|bucket| !reads.contains_key(bucket)) {
                index.leave(&bucket, self);
            }
            (recent, reads)
        };
        let touched = recent.heard.iter().find_map(|heard| match heard {
            Heard::Change(payload) => {
                let event = payload.downcast_ref::<BucketEvent>()?;
                is_touched(&reads, event).then_some(event.commit)
            }
            Heard::Replaced(bucket) => reads.contains_key(bucket).then_some(0),
        });
        let touched = touched.or(recent.too_much.then_some(0));
        let mut state = self.state();
        if let Some(commit) = touched
            && !state.ended
        {
            state.touch(self, commit);
        }
        state.due
    }

    /// Nothing is heard any more.
    pub(super) fn end(self: &Arc<Self>, index: &Index) -> bool {
        let mut state = self.state();
        let ended = std::mem::replace(&mut state.ended, true);
        (state.due, state.poked, state.recent, state.working) = (false, false, None, None);
        for bucket in state.heard_of.drain() {
            index.leave(&bucket, self);
        }
        !ended
    }
}

/// What a failed evaluation has read, and what was read before it.
///
/// Of a bucket that it has read, it has seen the state up to its own reads: what is older touches nothing any more.
fn added(before: &ReadMap, mut reads: ReadMap) -> ReadMap {
    for (bucket, old) in before {
        let new = reads.entry(bucket.clone()).or_insert_with(|| old.clone());
        new.set.merge(&old.set);
        if new.since == u64::MAX {
            new.since = old.since;
        }
    }
    reads
}
