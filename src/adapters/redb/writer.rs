//! The thread that owns the database: one request after the other, and all commits that have queued up in one
//! transaction.

mod folding;

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};

use redb::{ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::adapters::redb::fault::{Fault, guarded};
use crate::adapters::redb::file::{self, OpenFile};
use crate::adapters::redb::keys::JournalKeys;
use crate::adapters::redb::options::RedbOptions;
use crate::adapters::redb::writer::folding::{Folding, Load};
use crate::adapters::redb::{apply, quarantine};
use crate::base::error::{Cause, Error, Result};
use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, StoreName, Subject};
use crate::persistence::{Epoch, Save, Watcher};
use crate::records::BucketChange;

/// Where an answer goes. Whoever has gone away meanwhile does not need it.
type Reply<T> = oneshot::Sender<Result<T>>;

/// Which opening of the file, counted from 0: a file that failed several readers is opened again only once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Opening(u64);

/// Saves that are written as a whole.
pub(super) struct Submission {
    pub(super) store: StoreName,
    /// Compared with the store's newest claim before anything is written; the single methods of the port have none.
    pub(super) epoch: Option<Epoch>,
    pub(super) saves: Vec<Save>,
}

impl Submission {
    fn owner(&self, save: &Save) -> JournalKeys {
        let bucket = |name: &BucketName| JournalKeys::of_bucket(&BucketKey::new(self.store.clone(), name.clone()));
        let channel = |id: &ChannelId| JournalKeys::of_channel(&ChannelKey::new(self.store.clone(), id.clone()));
        match save {
            Save::Bucket(name, _) | Save::DropBucket(name) => bucket(name),
            Save::ChannelMeta(id, _) | Save::History(id, _) | Save::Hint(id, ..) | Save::DropChannel(id) => channel(id),
        }
    }

    /// Those of which it leaves nothing older in the journal.
    fn forgotten(&self) -> impl Iterator<Item = JournalKeys> {
        self.saves.iter().filter(|save| leaves_nothing_older(save)).map(|save| self.owner(save))
    }

    /// Why it would put something behind damage, where it cannot be loaded.
    fn refusal(&self, stuck: &HashMap<JournalKeys, Error>) -> Option<Error> {
        if stuck.is_empty() {
            return None;
        }
        let mut mended = HashSet::new();
        for save in &self.saves {
            let owner = self.owner(save);
            if leaves_nothing_older(save) {
                mended.insert(owner);
            } else if let Some(error) = stuck.get(&owner)
                && !mended.contains(&owner)
            {
                return Some(error.clone());
            }
        }
        None
    }
}

fn leaves_nothing_older(save: &Save) -> bool {
    match save {
        Save::Bucket(_, change) => matches!(**change, BucketChange::Full(_)),
        Save::DropBucket(_) | Save::DropChannel(_) => true,
        Save::ChannelMeta(..) | Save::History(..) | Save::Hint(..) => false,
    }
}

pub(super) enum Request {
    Commit(Submission, Reply<()>),
    /// A snapshot of what is committed by then, with nothing of `whole` left in the journal. `failed` is the opening on
    /// which the asker has met a failure.
    Read {
        operation: &'static str,
        whole: Option<JournalKeys>,
        failed: Option<Opening>,
        reply: Reply<(ReadTransaction, Opening)>,
    },
    Claim(StoreName, Reply<Epoch>),
    Close(StoreName, Reply<()>),
    Quarantine(StoreName, Subject, Reply<String>),
    Watch(StoreName, Watcher),
    Compact(Reply<u64>),
    /// Folds one step, and answers whether there may be more.
    #[cfg(test)]
    Fold(Reply<bool>),
}

/// Opens the file on a thread of its own, which then serves requests until every sender is gone.
pub(super) async fn start(path: PathBuf, options: RedbOptions) -> Result<Sender<Request>> {
    let (requests, queue) = channel();
    let (reply, opened) = oneshot::channel();
    let thread = std::thread::Builder::new().name("redb-writer".to_owned());
    let run = move || match file::open_or_create(&path, &options) {
        Ok(file) => {
            let mut writer = Writer {
                path,
                folding: Folding::new(options.step_bytes),
                options,
                state: State::Closed,
                opening: Opening::default(),
                claims: HashSet::new(),
                loads: VecDeque::new(),
                watchers: HashMap::new(),
                unrecorded: false,
            };
            writer.opened(file);
            // A caller that has gone away also dropped the sender, so the queue ends at once.
            reply.send(Ok(())).ok();
            writer.serve(&queue);
            writer.close();
        }
        Err(error) => {
            reply.send(Err(error)).ok();
        }
    };
    thread.spawn(run).map_err(|error| Error::transient("starting the writer's thread", error))?;
    opened.await.map_err(|lost| Error::permanent("opening the database", lost))??;
    Ok(requests)
}

enum State {
    Open(OpenFile),
    /// Failed, and to be opened again; it must be the file with this id.
    Broken(Uuid),
    Closed,
}

struct Writer {
    path: PathBuf,
    options: RedbOptions,
    state: State,
    opening: Opening,
    claims: HashSet<StoreName>,
    /// Those who wait for something to be folded.
    loads: VecDeque<Load>,
    folding: Folding,
    /// Who is told of damage to a store's data.
    watchers: HashMap<StoreName, Watcher>,
    /// There may be commits since the free pages were last recorded.
    unrecorded: bool,
}

/// Someone used a file that was closed.
#[derive(Debug, thiserror::Error)]
#[error("the file is closed; claim a store to open it again")]
struct Closed;

/// How far a transaction came.
enum Attempt {
    /// It is on disk, or there was nothing to write. Answers in the order of the submissions, and how many bytes of them
    /// are in the journal now.
    Ended(Vec<Result<()>>, u64),
    /// Nothing was written, because of one submission, counted from 0.
    Refused(usize, Fault),
}

impl Writer {
    fn serve(&mut self, queue: &Receiver<Request>) {
        let mut held = None;
        loop {
            let next = match held.take() {
                Some(request) => request,
                None => match self.next(queue) {
                    Some(request) => request,
                    None => return,
                },
            };
            match next {
                Request::Commit(submission, reply) => {
                    // What queued up while the last transaction ran is taken as it is, without waiting for more.
                    // Anything but a commit ends the group, so that requests are served in their order.
                    let mut group = vec![(submission, reply)];
                    held = loop {
                        match queue.try_recv() {
                            Ok(Request::Commit(submission, reply)) => group.push((submission, reply)),
                            Ok(other) => break Some(other),
                            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break None,
                        }
                    };
                    self.commit(group);
                }
                Request::Read { operation, whole, failed, reply } => self.read_whole(operation, whole, failed, reply),
                Request::Claim(store, reply) => answer(reply, self.claim(store)),
                Request::Close(store, reply) => {
                    self.claims.remove(&store);
                    if self.claims.is_empty() {
                        self.fold_before_closing();
                        self.close();
                    }
                    self.watchers.remove(&store);
                    answer(reply, Ok(()));
                }
                Request::Quarantine(store, subject, reply) => {
                    let moved = self
                        .transact("moving data into quarantine", |txn| quarantine::move_away(txn, &store, &subject));
                    if moved.is_ok() {
                        self.mended(&match subject {
                            Subject::Bucket(name) => JournalKeys::of_bucket(&BucketKey::new(store, name)),
                            Subject::Channel(id) => JournalKeys::of_channel(&ChannelKey::new(store, id)),
                        });
                    }
                    answer(reply, moved);
                }
                Request::Watch(store, watcher) => self.watch(store, watcher),
                Request::Compact(reply) => answer(reply, self.compact()),
                #[cfg(test)]
                Request::Fold(reply) => {
                    let more = self.fold(None, 1).map(|step| step.more);
                    answer(reply, more);
                }
            }
        }
    }

    /// Waits for a request; none when every sender is gone. Uses a pause after commits to fold them, and to prepare for a
    /// crash; with nothing left to do, it only waits.
    fn next(&mut self, queue: &Receiver<Request>) -> Option<Request> {
        // Commits come between the steps, and a step comes between commits.
        while self.advance_load() {
            match queue.try_recv() {
                Ok(request) => return Some(request),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
        }
        if self.folding.is_due() {
            match queue.recv_timeout(self.options.quiet) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while self.folding.is_due() {
                self.fold_on(self.folding.pace);
                match queue.try_recv() {
                    Ok(request) => return Some(request),
                    Err(TryRecvError::Disconnected) => return None,
                    Err(TryRecvError::Empty) => {}
                }
            }
        }
        if self.unrecorded {
            match queue.recv_timeout(self.options.pause) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.record_allocator(),
            }
        }
        queue.recv().ok()
    }

    /// Writes down which pages are free, so that opening after a crash need not walk the file to find out. redb can do
    /// that in every commit (`quick_repair`), at the cost of a second sync; done in a pause, nobody waits for it.
    fn record_allocator(&mut self) {
        const OPERATION: &str = "recording the free pages";
        self.unrecorded = false;
        let State::Open(_) = self.state else { return };
        // A small file is walked in no time, and one whose size cannot be told is treated as a large one.
        if std::fs::metadata(&self.path).is_ok_and(|file| file.len() < self.options.worth_recording) {
            return;
        }
        let recorded = self.transact(OPERATION, |txn| {
            txn.set_quick_repair(true);
            Ok(())
        });
        // This was a commit too, but one that has recorded them; a failed one is not repeated for its own sake.
        self.unrecorded = false;
        if let Err(error) = recorded {
            tracing::warn!(path = %self.path.display(), %error, "the free pages could not be recorded");
        }
    }

    /// The open file; one that has failed is opened again first, once per request.
    fn file(&mut self, operation: &str) -> Result<&mut OpenFile> {
        if let State::Broken(id) = self.state {
            let file = file::open(&self.path, &self.options).map_err(|error| match error {
                error @ (Error::Corrupt { .. } | Error::UnknownFormat { .. }) => error,
                error => Error::transient(operation, error),
            })?;
            let same = file.id == id;
            if !same {
                file.close(&self.path);
                return Err(Error::permanent(operation, Replaced));
            }
            self.opened(file);
        }
        match &mut self.state {
            State::Open(file) => Ok(file),
            State::Broken(_) | State::Closed => Err(Error::permanent(operation, Closed)),
        }
    }

    fn opened(&mut self, file: OpenFile) {
        // A step that failed with the file may go well now; but only a commit says so.
        self.folding.unfolded = file.unfolded;
        self.state = State::Open(file);
    }

    fn close(&mut self) {
        if let State::Open(file) = std::mem::replace(&mut self.state, State::Closed) {
            file.close(&self.path);
        }
    }

    /// After a failure that the handle does not survive: closes the file and tries to open it again.
    fn recover(&mut self, cause: &dyn std::error::Error) {
        let State::Open(file) = &self.state else { return };
        tracing::warn!(path = %self.path.display(), error = %cause, "the file failed and is opened again");
        let id = file.id;
        self.close();
        self.state = State::Broken(id);
        self.opening.0 += 1;
        if let Err(error) = self.file("opening the file again") {
            // Not the end: the next request tries again, and its caller is told.
            tracing::warn!(path = %self.path.display(), error = %error.report(), "the file could not be opened again");
        }
    }

    fn commit(&mut self, group: Vec<(Submission, Reply<()>)>) {
        const OPERATION: &str = "commit";
        let (mut waiting, mut replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        while !waiting.is_empty() {
            let refusals: Vec<_> = waiting.iter().map(|submission| submission.refusal(&self.folding.stuck)).collect();
            let file = match self.file(OPERATION) {
                Ok(file) => file,
                Err(error) => {
                    for reply in replies {
                        answer(reply, Err(error.clone()));
                    }
                    return;
                }
            };
            let at = Cell::new(None);
            let (index, fault) = match guarded(|| attempt(file, &waiting, &refusals, &at)) {
                Ok(Ok(Attempt::Ended(answers, journalled))) => {
                    file.journalled |= journalled > 0;
                    self.unrecorded = true;
                    if !self.folding.stuck.is_empty() {
                        let written = waiting.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
                        written.flat_map(|(submission, _)| submission.forgotten()).for_each(|of| self.mended(&of));
                    }
                    for (reply, outcome) in replies.into_iter().zip(answers) {
                        answer(reply, outcome);
                    }
                    self.journalled(journalled);
                    return;
                }
                Ok(Ok(Attempt::Refused(index, fault))) => (index, fault),
                Ok(Err(fault)) => {
                    let error = fault.into_error(OPERATION, &self.path);
                    self.recover(&error);
                    for reply in replies {
                        answer(reply, Err(error.clone()));
                    }
                    return;
                }
                Err(panic) => {
                    self.recover(&panic);
                    match at.get() {
                        // redb panics where it stumbles over damage, so it is this submission that leads there.
                        Some(index) => (index, Fault::Damaged(panic.to_string())),
                        None => {
                            let cause: Cause = Arc::new(panic);
                            for reply in replies {
                                let source = Some(Arc::clone(&cause));
                                answer(reply, Err(Error::Unknown { operation: OPERATION.to_owned(), source }));
                            }
                            return;
                        }
                    }
                }
            };
            // The others are innocent and go into a transaction without it.
            waiting.remove(index);
            answer(replies.remove(index), Err(fault.into_error(OPERATION, &self.path)));
        }
    }

    /// One transaction with nothing else in it.
    fn transact<T>(
        &mut self,
        operation: &str,
        work: impl FnOnce(&mut WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T> {
        let db = &self.file(operation)?.db;
        let outcome = guarded(|| -> Result<T, Fault> {
            let mut txn = db.begin_write()?;
            match work(&mut txn) {
                Ok(value) => {
                    txn.commit()?;
                    Ok(value)
                }
                Err(fault) => {
                    txn.abort()?;
                    Err(fault)
                }
            }
        });
        match outcome {
            Ok(Ok(value)) => {
                self.unrecorded = true;
                Ok(value)
            }
            Ok(Err(fault)) => {
                // What redb calls damage may be its own state of mind, which opening the file again puts right.
                let own = matches!(fault, Fault::Own(_));
                let error = fault.into_error(operation, &self.path);
                if !own {
                    self.recover(&error);
                }
                Err(error)
            }
            Err(panic) => {
                self.recover(&panic);
                Err(Fault::Damaged(panic.to_string()).into_error(operation, &self.path))
            }
        }
    }

    fn read(&mut self, operation: &str, failed: Option<Opening>) -> Result<(ReadTransaction, Opening)> {
        if failed == Some(self.opening) {
            self.recover(&FailedReader);
        }
        let db = &self.file(operation)?.db;
        let txn = guarded(|| db.begin_read());
        let txn = txn.unwrap_or_else(|panic| Err(redb::StorageError::Corrupted(panic.to_string()).into()));
        let txn = txn.map_err(|error| Fault::from(error).into_read_error(operation, &self.path))?;
        Ok((txn, self.opening))
    }

    fn claim(&mut self, store: StoreName) -> Result<Epoch> {
        const OPERATION: &str = "claiming the store";
        if matches!(self.state, State::Closed) {
            let file = file::open_or_create(&self.path, &self.options)?;
            self.folding = Folding::new(self.options.step_bytes);
            self.opened(file);
        }
        let claimed = self.transact(OPERATION, |txn| {
            let newest = apply::epoch_before_claim(txn, &store)?;
            let next = newest.0.checked_add(1).map(Epoch);
            let next = next.ok_or_else(|| Error::permanent(OPERATION, NoMoreEpochs))?;
            apply::set_epoch(txn, &store, next)?;
            Ok(next)
        });
        match claimed {
            Ok(epoch) => {
                self.claims.insert(store);
                Ok(epoch)
            }
            Err(error) => {
                // Nobody else would close what was only opened for this claim.
                if self.claims.is_empty() {
                    self.close();
                }
                Err(error)
            }
        }
    }

    /// By how many bytes the file has shrunk.
    fn compact(&mut self) -> Result<u64> {
        const OPERATION: &str = "compacting";
        while self.advance_load() {}
        self.folding.paused = false;
        while self.folding.is_due() {
            self.fold_on(self.folding.pace);
        }
        let length = |path: &Path| {
            let measured = std::fs::metadata(path).map(|file| file.len());
            measured.map_err(|error| Error::transient("measuring the database", error))
        };
        let before = length(&self.path)?;
        let db = &mut self.file(OPERATION)?.db;
        match guarded(|| db.compact().map_err(Fault::from)) {
            Ok(Ok(_)) => Ok(before.saturating_sub(length(&self.path)?)),
            Ok(Err(fault)) => {
                let own = matches!(fault, Fault::Own(_));
                // Compacting changes no contents, so nothing is in doubt.
                let error = fault.into_read_error(OPERATION, &self.path);
                if !own {
                    self.recover(&error);
                }
                Err(error)
            }
            Err(panic) => {
                self.recover(&panic);
                Err(Fault::Damaged(panic.to_string()).into_error(OPERATION, &self.path))
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a read failed")]
struct FailedReader;

#[derive(Debug, thiserror::Error)]
#[error("another file has taken the place of the one that was open")]
struct Replaced;

#[derive(Debug, thiserror::Error)]
#[error("there are no more epochs")]
struct NoMoreEpochs;

/// Whoever waits for an answer may have gone away; what was asked for is done all the same.
fn answer<T>(reply: Reply<T>, outcome: Result<T>) {
    if let Err(Err(error)) = reply.send(outcome) {
        tracing::warn!(error = %error.report(), "a request failed after its caller had gone away");
    }
}

/// One transaction with all submissions in it, but for fenced ones, unless there is a reason to refuse one. `at` tells
/// which one is being written.
fn attempt(
    file: &OpenFile,
    submissions: &[Submission],
    refusals: &[Option<Error>],
    at: &Cell<Option<usize>>,
) -> Result<Attempt, Fault> {
    let txn = file.db.begin_write()?;
    let mut answers = Vec::with_capacity(submissions.len());
    let (mut written, mut journalled) = (false, 0);
    for (index, (submission, refusal)) in submissions.iter().zip(refusals).enumerate() {
        at.set(Some(index));
        match write(&txn, submission, refusal.as_ref()) {
            Ok(Ok(bytes)) => {
                written |= !submission.saves.is_empty();
                journalled += bytes;
                answers.push(Ok(()));
            }
            Ok(Err(fenced)) => answers.push(Err(fenced)),
            Err(fault @ Fault::Broken(_)) => return Err(fault),
            Err(fault) => {
                txn.abort()?;
                return Ok(Attempt::Refused(index, fault));
            }
        }
    }
    at.set(None);
    if journalled > 0 && !file.journalled {
        file::begin_journal(&txn)?;
    }
    if written {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(Attempt::Ended(answers, journalled))
}

/// How many bytes of it the journal got. The inner error is a fenced submission's, of which nothing was written.
fn write(txn: &WriteTransaction, submission: &Submission, refusal: Option<&Error>) -> Result<Result<u64>, Fault> {
    if let Some(epoch) = submission.epoch {
        let newest = apply::newest_epoch(txn, &submission.store)?;
        if newest != Some(epoch) {
            let current = newest.unwrap_or_default().0;
            return Ok(Err(Error::Fenced { epoch: epoch.0, current }));
        }
    }
    if let Some(error) = refusal {
        return Err(error.clone().into());
    }
    let mut journalled = 0;
    for save in &submission.saves {
        journalled += apply::save(txn, &submission.store, save)?;
    }
    Ok(Ok(journalled))
}
