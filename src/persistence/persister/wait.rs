//! Who waits for a save, and is told of it.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::Subject;
use crate::persistence::dirty::DirtySet;
use crate::persistence::persister::handle::{Persister, Token, lock};

/// Whether something was saved, as soon as that is known.
#[derive(Debug)]
pub(crate) enum Saved {
    /// It is known.
    Known(Result<()>),
    /// Whoever saves it will tell.
    Coming(oneshot::Receiver<Result<()>>),
}

impl Saved {
    /// Waits until it is known.
    ///
    /// # Errors
    /// What the commit said; `Stopping` where saving has ended, and what fenced the store.
    pub(crate) async fn outcome(self) -> Result<()> {
        match self {
            Self::Known(outcome) => outcome,
            Self::Coming(outcome) => outcome.await.unwrap_or(Err(Error::Stopping)),
        }
    }
}

impl Persister {
    /// Waits until a revision of a subject is saved at a level.
    ///
    /// # Errors
    /// What the commit said; `Stopping` where saving has ended.
    pub(crate) async fn saved(&self, subject: &Subject, revision: u64, level: Durability) -> Result<()> {
        let outcome = self.wait(|dirty, token| dirty.await_saved(subject, revision, level, token)).await;
        self.unless_saved(outcome, subject, revision, level)
    }

    /// When a revision of a subject is saved at a level, however often that fails first; hurries nothing. It is noted
    /// now, so that nothing which happens after the save changes the answer, however late it is asked for.
    pub(crate) fn follow(&self, subject: &Subject, revision: u64, level: Durability) -> Saved {
        let (saved, is_to_do) = self.begin_wait(|dirty, token| dirty.follow(subject, revision, level, token));
        if is_to_do {
            self.wake();
        }
        match saved {
            Saved::Known(outcome) => Saved::Known(self.unless_saved(outcome, subject, revision, level)),
            later => later,
        }
    }

    /// The last flush of a stop may have saved a change before it was waited for.
    fn unless_saved(&self, outcome: Result<()>, subject: &Subject, revision: u64, level: Durability) -> Result<()> {
        match outcome {
            Err(Error::Stopping) if lock(&self.shared.dirty).is_saved(subject, revision, level) => Ok(()),
            outcome => outcome,
        }
    }

    /// Waits until everything accepted so far is saved, of one subject or of all.
    ///
    /// # Errors
    /// What the commit said; `Stopping` where saving has ended.
    pub(crate) async fn flush(&self, subject: Option<&Subject>) -> Result<()> {
        self.wait(|dirty, token| dirty.flush(subject, token)).await
    }

    /// Deletes what is stored of a subject and forgets it; waits for a commit in flight first.
    ///
    /// # Errors
    /// What the adapter said; the subject is still there then.
    pub(crate) async fn drop_stored(&self, subject: &Subject) -> Result<()> {
        self.wait(|dirty, token| dirty.drop_subject(subject.clone(), token)).await
    }

    async fn wait(
        &self,
        register: impl FnOnce(&mut DirtySet<Token>, Token) -> Option<(Token, Result<()>)>,
    ) -> Result<()> {
        let (saved, is_to_do) = self.begin_wait(register);
        if is_to_do {
            self.wake();
        }
        saved.outcome().await
    }

    /// Answers also whether there may be something to do for it.
    fn begin_wait(
        &self,
        register: impl FnOnce(&mut DirtySet<Token>, Token) -> Option<(Token, Result<()>)>,
    ) -> (Saved, bool) {
        let (token, outcome) = oneshot::channel();
        let in_flight = {
            let mut dirty = lock(&self.shared.dirty);
            // Under the lock: who has registered when saving ends is told so, who comes later has to see it here.
            if self.shared.ended.load(Ordering::SeqCst) {
                return (Saved::Known(Err(Error::Stopping)), false);
            }
            if let Some((_, answer)) = register(&mut dirty, token) {
                return (Saved::Known(answer), false);
            }
            dirty.in_flight()
        };
        // What is in flight ends with a look at everything.
        (Saved::Coming(outcome), !in_flight)
    }
}
