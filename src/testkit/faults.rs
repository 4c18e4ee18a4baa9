//! What goes wrong, when, and what was asked before and after: the part of the faulty adapter that tests hold.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::{Commit, Save};
use crate::records::BucketChange;
use crate::sds::{ChannelMeta, HistoryUpdate};
use crate::testkit::random::Random;

/// One call of an adapter, with what it was handed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Call {
    /// `commit`.
    Commit(Commit),
    /// `claim`.
    Claim(StoreName),
    /// `close`.
    Close(StoreName),
    /// `load_bucket`.
    LoadBucket(BucketKey),
    /// `load_channel`.
    LoadChannel(ChannelKey),
    /// `save_bucket`, which a store never calls.
    SaveBucket(BucketKey, BucketChange),
    /// `drop_bucket`, which a store never calls.
    DropBucket(BucketKey),
    /// `save_channel_meta`, which a store never calls.
    SaveChannelMeta(ChannelKey, ChannelMeta),
    /// `update_history`, which a store never calls.
    UpdateHistory(ChannelKey, HistoryUpdate),
    /// `set_retrieval_hint`, which a store never calls.
    SetRetrievalHint(ChannelKey, MessageId, Bytes),
    /// `drop_channel`, which a store never calls.
    DropChannel(ChannelKey),
    /// `quarantine`.
    Quarantine(StoreName, Subject),
    /// `backup`.
    Backup(PathBuf),
    /// `compact`.
    Compact,
}

/// Kinds of calls, to choose some of them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// `commit`, whatever is in it.
    Commit,
    /// A commit with at least one drop in it, and the two single drops.
    Drop,
    /// The two loads.
    Load,
    /// `claim`.
    Claim,
    /// `close`.
    Close,
    /// `quarantine`.
    Quarantine,
    /// `backup`.
    Backup,
    /// `compact`.
    Compact,
    /// The single saves, which a store never calls.
    Save,
}

impl Call {
    fn is(&self, operation: Operation) -> bool {
        match operation {
            Operation::Commit => matches!(self, Self::Commit(_)),
            Operation::Drop => match self {
                Self::Commit(commit) => {
                    commit.saves.iter().any(|save| matches!(save, Save::DropBucket(_) | Save::DropChannel(_)))
                }
                other => matches!(other, Self::DropBucket(_) | Self::DropChannel(_)),
            },
            Operation::Load => matches!(self, Self::LoadBucket(_) | Self::LoadChannel(_)),
            Operation::Claim => matches!(self, Self::Claim(_)),
            Operation::Close => matches!(self, Self::Close(_)),
            Operation::Quarantine => matches!(self, Self::Quarantine(..)),
            Operation::Backup => matches!(self, Self::Backup(_)),
            Operation::Compact => matches!(self, Self::Compact),
            Operation::Save => matches!(
                self,
                Self::SaveBucket(..) | Self::SaveChannelMeta(..) | Self::UpdateHistory(..) | Self::SetRetrievalHint(..)
            ),
        }
    }

    /// Whether the call is about a bucket or channel, alone or among others.
    pub fn touches(&self, subject: &Subject) -> bool {
        let bucket = |key: &BucketKey| *subject == Subject::Bucket(key.bucket.clone());
        let channel = |key: &ChannelKey| *subject == Subject::Channel(key.channel.clone());
        match self {
            Self::Commit(commit) => commit.saves.iter().any(|save| match save {
                Save::Bucket(name, _) | Save::DropBucket(name) => {
                    matches!(subject, Subject::Bucket(subject) if subject == name)
                }
                Save::ChannelMeta(id, _) | Save::History(id, _) | Save::Hint(id, ..) | Save::DropChannel(id) => {
                    matches!(subject, Subject::Channel(subject) if subject == id)
                }
            }),
            Self::LoadBucket(key) | Self::SaveBucket(key, _) | Self::DropBucket(key) => bucket(key),
            Self::LoadChannel(key)
            | Self::SaveChannelMeta(key, _)
            | Self::UpdateHistory(key, _)
            | Self::SetRetrievalHint(key, ..)
            | Self::DropChannel(key) => channel(key),
            Self::Quarantine(_, quarantined) => quarantined == subject,
            Self::Claim(_) | Self::Close(_) | Self::Backup(_) | Self::Compact => false,
        }
    }
}

/// A call and how it ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Logged {
    /// The call.
    pub call: Call,
    /// What the caller was told; none while it is under way, and for good if its future was dropped.
    pub result: Option<Result<()>>,
}

/// What happens to a call that a [`Fault`] hits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// The wrapped adapter is not called, the caller gets the error.
    Fail(Error),
    /// The wrapped adapter is called, and where it succeeds the caller gets the error all the same: the answer is lost.
    ApplyThenFail(Error),
    /// The call waits that long, on tokio's clock, and goes on.
    Delay(Duration),
    /// The call waits until [`Faults::release`] or [`Faults::heal`], and goes on.
    Hang,
}

/// What goes wrong, and with which calls: all of them, unless narrowed down.
///
/// ```
/// use std::time::Duration;
/// use ractor_persistence::base::error::Error;
/// use ractor_persistence::testkit::{Fault, Operation};
///
/// let disk_full = Error::transient("commit", std::io::Error::from(std::io::ErrorKind::StorageFull));
/// let third_commit = Fault::fail(disk_full).on(Operation::Commit).skip(2).times(1);
/// let slow_loads = Fault::delay(Duration::from_millis(200)).on(Operation::Load);
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    operation: Option<Operation>,
    subject: Option<Subject>,
    skip: u64,
    times: u64,
    random: Option<(Random, f64)>,
}

impl Fault {
    /// Calls have this effect.
    pub fn new(effect: Effect) -> Self {
        Self { effect, operation: None, subject: None, skip: 0, times: u64::MAX, random: None }
    }

    /// Calls fail, see [`Effect::Fail`].
    pub fn fail(error: Error) -> Self {
        Self::new(Effect::Fail(error))
    }

    /// Calls succeed and are said to have failed, see [`Effect::ApplyThenFail`].
    pub fn apply_then_fail(error: Error) -> Self {
        Self::new(Effect::ApplyThenFail(error))
    }

    /// Calls take longer, see [`Effect::Delay`].
    pub fn delay(delay: Duration) -> Self {
        Self::new(Effect::Delay(delay))
    }

    /// Calls hang, see [`Effect::Hang`].
    pub fn hang() -> Self {
        Self::new(Effect::Hang)
    }

    /// Only calls of this kind.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only calls about this bucket or channel, commits that contain others too included.
    #[must_use]
    pub fn touching(mut self, subject: Subject) -> Self {
        self.subject = Some(subject);
        self
    }

    /// The first `calls` that it could hit pass. Default: 0.
    #[must_use]
    pub fn skip(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// It is over after `calls` hits. Default: only with [`Faults::heal`].
    #[must_use]
    pub fn times(mut self, calls: u64) -> Self {
        self.times = calls;
        self
    }

    /// Each call is hit with this probability, 0 to 1. The same seed hits the same calls; it is printed to standard
    /// error when the fault is injected.
    #[must_use]
    pub fn at_random(mut self, seed: u64, probability: f64) -> Self {
        self.random = Some((Random::new(seed), probability));
        self
    }

    /// Whether it hits the call; counts it if it could.
    fn hits(&mut self, call: &Call) -> bool {
        if self.operation.is_some_and(|operation| !call.is(operation))
            || self.subject.as_ref().is_some_and(|subject| !call.touches(subject))
            || self.times == 0
        {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if let Some((random, probability)) = &mut self.random
            && !random.chance(*probability)
        {
            return false;
        }
        self.times -= 1;
        true
    }
}

/// The controls of a [`FaultAdapter`](crate::testkit::FaultAdapter): what goes wrong with it, and what it was asked.
/// Clones control the same adapter.
#[derive(Clone)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    /// Changes with every entry of the log and every release.
    changed: Arc<watch::Sender<()>>,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    log: Vec<Logged>,
    /// The position in all calls ever made of the first one in `log`.
    forgotten: usize,
    /// What hung before the last release goes on.
    releases: u64,
    committing: usize,
    most_committing: usize,
}

impl Default for Faults {
    fn default() -> Self {
        Self { state: Arc::default(), changed: Arc::new(watch::channel(()).0) }
    }
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, so what is behind a poisoned one is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something go wrong from now on. Where several faults hit a call, it suffers them in the order in which they
    /// were injected, until one fails it.
    pub fn inject(&self, fault: Fault) {
        if let Some((random, probability)) = &fault.random {
            eprintln!("faults at random: {random:?}, probability {probability}");
        }
        self.state().faults.push(fault);
    }

    /// All commits fail with this error until [`heal`](Self::heal).
    pub fn fail_commits(&self, error: Error) {
        self.inject(Fault::fail(error).on(Operation::Commit));
    }

    /// All commits that touch this bucket or channel fail with this error until [`heal`](Self::heal).
    pub fn fail_subject(&self, subject: Subject, error: Error) {
        self.inject(Fault::fail(error).on(Operation::Commit).touching(subject));
    }

    /// All loads fail with this error until [`heal`](Self::heal).
    pub fn fail_loads(&self, error: Error) {
        self.inject(Fault::fail(error).on(Operation::Load));
    }

    /// All drops fail with this error until [`heal`](Self::heal), with the commits that they are in.
    pub fn fail_drops(&self, error: Error) {
        self.inject(Fault::fail(error).on(Operation::Drop));
    }

    /// Nothing goes wrong any more; calls that hang go on.
    pub fn heal(&self) {
        self.state().faults.clear();
        self.release();
    }

    /// Calls that hang go on; later ones that are hit hang again.
    pub fn release(&self) {
        self.state().releases += 1;
        self.changed.send_replace(());
    }

    /// All calls since the last [`forget_calls`](Self::forget_calls), in the order in which they were made.
    pub fn calls(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    /// The commits among the calls, whether they succeeded or not.
    pub fn commits(&self) -> Vec<Commit> {
        let commit = |logged: &Logged| match &logged.call {
            Call::Commit(commit) => Some(commit.clone()),
            _ => None,
        };
        self.state().log.iter().filter_map(commit).collect()
    }

    /// Empties the log. What is under way is forgotten, too.
    pub fn forget_calls(&self) {
        let mut state = self.state();
        state.forgotten += state.log.len();
        state.log.clear();
    }

    /// How many commits were ever under way at once.
    pub fn most_commits_at_once(&self) -> usize {
        self.state().most_committing
    }

    /// Waits until the log is as `wanted` says.
    ///
    /// # Cancel safety
    /// It only looks; dropping it has no effect.
    pub async fn until(&self, mut wanted: impl FnMut(&[Logged]) -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            // Marked as seen first: what changes after the look wakes the wait below.
            changed.borrow_and_update();
            if wanted(&self.state().log) {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until at least so many commits have ended, successfully or not.
    ///
    /// # Cancel safety
    /// It only looks; dropping it has no effect.
    pub async fn until_commits_ended(&self, count: usize) {
        self.until(|log| {
            let ended = |logged: &&Logged| matches!(logged.call, Call::Commit(_)) && logged.result.is_some();
            log.iter().filter(ended).count() >= count
        })
        .await;
    }

    /// Notes a call, and what is to happen to it.
    pub(super) fn begin(&self, call: Call) -> (Running, Vec<Effect>) {
        let mut state = self.state();
        let effects = state.faults.iter_mut().filter_map(|fault| fault.hits(&call).then(|| fault.effect.clone()));
        let effects = effects.collect();
        let commits = matches!(call, Call::Commit(_));
        if commits {
            state.committing += 1;
            state.most_committing = state.most_committing.max(state.committing);
        }
        state.log.push(Logged { call, result: None });
        let position = state.forgotten + state.log.len() - 1;
        let releases = state.releases;
        drop(state);
        self.changed.send_replace(());
        (Running { faults: self.clone(), position, commits, releases }, effects)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Faults").field("faults", &state.faults).field("calls", &state.log.len()).finish()
    }
}

/// A call that is under way; dropped with its future.
pub(super) struct Running {
    faults: Faults,
    position: usize,
    commits: bool,
    /// How many releases there had been when it began.
    releases: u64,
}

impl Running {
    /// Waits for a release that came after the call began, whenever the call comes to hang.
    pub(super) async fn hang(&self) {
        let mut changed = self.faults.changed.subscribe();
        while self.faults.state().releases == self.releases && changed.changed().await.is_ok() {}
    }

    pub(super) fn ended(self, result: Result<()>) {
        {
            let mut state = self.faults.state();
            let index = self.position.checked_sub(state.forgotten);
            if let Some(logged) = index.and_then(|index| state.log.get_mut(index)) {
                logged.result = Some(result);
            }
        }
        // Counted as ended before those who wait for that are woken.
        let faults = self.faults.clone();
        drop(self);
        faults.changed.send_replace(());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.commits {
            self.faults.state().committing -= 1;
        }
    }
}
