//! An open directory: its lock, who may write, and the subjects in use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::adapters::json_file::error::{Fault, NotOpen, Refused, parse};
use crate::adapters::json_file::journal;
use crate::adapters::json_file::names::{self, Ids};
use crate::adapters::json_file::plan;
use crate::adapters::json_file::seal::{self, VERSION};
use crate::adapters::json_file::state::{BucketState, ChannelState};
use crate::adapters::json_file::subject::{Env, Saved, SubjectFiles, Unsynced};
use crate::base::disk::{DirectoryLock, DiskError, FailStopFile, create_dir_all, read, replace};
use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{StoreName, Subject};
use crate::persistence::{Epoch, Repair, Save};
use crate::records::BucketSnapshot;
use crate::sds::ChannelData;

/// No header of a journal has as many bytes.
const HEAD: usize = 4_096;

const EPOCH_FORMAT: &str = "ractor-persistence/json_file/epoch";

/// A directory that is locked. Locks are taken in this order: a subject's, `subjects`, one of the others.
#[derive(Debug)]
pub(super) struct Session {
    env: Arc<Env>,
    _lock: DirectoryLock,
    claims: HashMap<StoreName, Epoch>,
    /// Stores whose directory is known to be there for good.
    stores: Mutex<BTreeSet<StoreName>>,
    subjects: Mutex<HashMap<Ids, Arc<Mutex<SubjectFiles>>>>,
    /// Subjects with lines that were written and not synced.
    unsynced: Mutex<BTreeMap<Ids, Unsynced>>,
    open: Mutex<OpenFiles>,
}

/// Which journals are open, in the order of their last use.
#[derive(Debug, Default)]
struct OpenFiles {
    turn: u64,
    by_turn: BTreeMap<u64, Ids>,
    turns: HashMap<Ids, u64>,
}

impl OpenFiles {
    fn touch(&mut self, ids: &Ids) {
        self.forget(ids);
        self.turn += 1;
        self.by_turn.insert(self.turn, ids.clone());
        self.turns.insert(ids.clone(), self.turn);
    }

    fn forget(&mut self, ids: &Ids) {
        if let Some(turn) = self.turns.remove(ids) {
            self.by_turn.remove(&turn);
        }
    }

    /// Takes out the ones that have not been used for longest, beyond `limit`.
    fn surplus(&mut self, limit: usize) -> Vec<Ids> {
        let mut surplus = Vec::new();
        while self.by_turn.len() > limit {
            let Some((_, ids)) = self.by_turn.pop_first() else { break };
            self.turns.remove(&ids);
            surplus.push(ids);
        }
        surplus
    }
}

/// What these mutexes keep is whole between any two statements, so that a panic elsewhere does not matter.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A subject's files, read again if a panic interrupted whoever held them last.
fn hold_files(files: &Mutex<SubjectFiles>) -> MutexGuard<'_, SubjectFiles> {
    files.lock().unwrap_or_else(|poisoned| {
        let mut held = poisoned.into_inner();
        held.forget();
        files.clear_poison();
        held
    })
}

fn sync_files(files: &mut SubjectFiles, expected: Unsynced) -> Result<(), Fault> {
    match files.ids.subject {
        Subject::Bucket(_) => files.sync::<BucketState>(expected),
        Subject::Channel(_) => files.sync::<ChannelState>(expected),
    }
}

/// A load changes nothing of what is stored, so nothing is in doubt after one that failed.
fn failed_load(fault: Fault, ids: &Ids) -> Error {
    match fault.into_error(&operation("loading", ids)) {
        Error::Unknown { operation, source } => Error::Transient { operation, source },
        error => error,
    }
}

fn operation(verb: &str, ids: &Ids) -> String {
    format!("{verb} {} of store {}", ids.subject, ids.store)
}

impl Session {
    /// Makes and locks the directory.
    pub(super) fn open(env: Arc<Env>) -> Result<Self> {
        create_dir_all(env.disk(), &env.root).map_err(|error| error.into_error("opening a directory of JSON files"))?;
        let lock = DirectoryLock::acquire(Arc::clone(&env.options.disk), &env.root, env.clock())?;
        Ok(Self {
            env,
            _lock: lock,
            claims: HashMap::new(),
            stores: Mutex::default(),
            subjects: Mutex::default(),
            unsynced: Mutex::default(),
            open: Mutex::default(),
        })
    }

    pub(super) fn is_claimed(&self) -> bool {
        !self.claims.is_empty()
    }

    /// Takes a store over. `least` is the highest epoch that this process knows of.
    pub(super) fn claim(&mut self, store: &StoreName, least: u64) -> Result<Epoch> {
        let operation = format!("claiming store {store}");
        let claimed = self.next_epoch(store, least).map_err(|fault| fault.into_error(&operation))?;
        self.claims.insert(store.clone(), claimed);
        Ok(claimed)
    }

    fn next_epoch(&self, store: &StoreName, least: u64) -> Result<Epoch, Fault> {
        self.ensure_store(store)?;
        let stored = self.stored_epoch(store)?;
        if stored.is_none() && self.has_subjects(store)? {
            tracing::warn!(%store, "the store's EPOCH is missing; claims are counted from the beginning");
        }
        let next = stored.unwrap_or(0).max(least).checked_add(1).ok_or(Refused::TooLarge)?;
        let name = serde_json::to_string(store).map_err(|_| Refused::Json)?;
        let members = format!("\"format\":\"{EPOCH_FORMAT}\",\"version\":{VERSION},\"store\":{name},\"epoch\":{next}");
        let mut text = seal::line(seal::ALONE, members.as_bytes());
        text.push(b'\n');
        replace(self.env.disk(), &names::epoch_file(&self.env.root, store), &text)?;
        Ok(Epoch(next))
    }

    fn stored_epoch(&self, store: &StoreName) -> Result<Option<u64>, Fault> {
        let path = names::epoch_file(&self.env.root, store);
        match read(self.env.disk(), &path)? {
            Some(text) => read_epoch(&path, store, &text).map(Some),
            None => Ok(None),
        }
    }

    fn has_subjects(&self, store: &StoreName) -> Result<bool, Fault> {
        let directory = names::store_directory(&self.env.root, store);
        let names = self.env.disk().list(&directory).map_err(|error| DiskError::new("list", &directory, error))?;
        let names = names.iter().map(|name| name.to_string_lossy());
        Ok(names.into_iter().any(|name| name.starts_with("bucket.") || name.starts_with("channel.")))
    }

    fn ensure_store(&self, store: &StoreName) -> Result<(), Fault> {
        if hold(&self.stores).contains(store) {
            return Ok(());
        }
        create_dir_all(self.env.disk(), &names::store_directory(&self.env.root, store))?;
        // One that was there already may have been made just before a crash.
        let synced = self.env.disk().sync_dir(&self.env.root);
        synced.map_err(|error| DiskError::new("sync", &self.env.root, error))?;
        hold(&self.stores).insert(store.clone());
        Ok(())
    }

    /// Refuses an epoch that is not the newest claim's.
    pub(super) fn check(&self, store: &StoreName, epoch: Epoch) -> Result<()> {
        let operation = "saving";
        let current = match self.claims.get(store) {
            Some(current) if *current == epoch => return Ok(()),
            Some(current) => current.0,
            None => self.stored_epoch(store).map_err(|fault| fault.into_error(operation))?.unwrap_or(0),
        };
        if current == epoch.0 {
            return Err(Error::permanent(operation, NotOpen::NotClaimed));
        }
        Err(Error::Fenced { epoch: epoch.0, current })
    }

    fn files(&self, ids: &Ids) -> Arc<Mutex<SubjectFiles>> {
        let mut subjects = hold(&self.subjects);
        let files = subjects.entry(ids.clone());
        let new = || Arc::new(Mutex::new(SubjectFiles::new(Arc::clone(&self.env), ids.clone())));
        Arc::clone(files.or_insert_with(new))
    }

    /// Applies saves in order and answers when they are as durable as asked.
    pub(super) fn commit(&self, store: &StoreName, durability: Durability, saves: &[Save]) -> Result<()> {
        if !saves.is_empty() {
            self.ensure_store(store).map_err(|fault| fault.into_error("saving"))?;
        }
        let groups = plan::by_subject(saves);
        let mut touched = Vec::with_capacity(groups.len());
        for (subject, saves) in groups {
            let ids = Ids { store: store.clone(), subject };
            self.save(&ids, &saves).map_err(|fault| fault.into_error(&operation("saving", &ids)))?;
            touched.push(ids);
        }
        if durability >= Durability::Fsync {
            self.sync(store)?;
        }
        for ids in &touched {
            self.compact(ids);
        }
        Ok(())
    }

    fn save(&self, ids: &Ids, saves: &[&Save]) -> Result<(), Fault> {
        let shared = self.files(ids);
        let mut files = hold_files(&shared);
        let saved = match &ids.subject {
            Subject::Bucket(_) => files.save(plan::bucket(saves)?)?,
            Subject::Channel(_) => files.save(plan::channel(saves)?)?,
        };
        match saved {
            Saved::Line(line) => {
                hold(&self.unsynced).insert(ids.clone(), line);
                self.keep_open(ids);
            }
            Saved::Durable => {
                hold(&self.unsynced).remove(ids);
            }
            Saved::Nothing => {}
        }
        if files.is_gone() {
            drop(files);
            self.forget(ids, &shared);
        }
        Ok(())
    }

    /// Gives up what is kept of a subject that was dropped, unless somebody waits for it.
    fn forget(&self, ids: &Ids, shared: &Arc<Mutex<SubjectFiles>>) {
        let mut subjects = hold(&self.subjects);
        // Nobody can come to share it now, because that takes the map. The map and this call have one each.
        if Arc::strong_count(shared) == 2 && shared.try_lock().is_ok_and(|files| files.is_gone()) {
            subjects.remove(ids);
            hold(&self.open).forget(ids);
        }
    }

    /// Notes that a journal is open, and closes those that were not used for longest.
    fn keep_open(&self, ids: &Ids) {
        let surplus = {
            let mut open = hold(&self.open);
            open.touch(ids);
            open.surplus(self.env.options.open_files)
        };
        for ids in surplus {
            let shared = self.files(&ids);
            // Waiting for it while holding another could last forever; whoever holds it uses it right now.
            let Ok(mut files) = shared.try_lock() else {
                hold(&self.open).touch(&ids);
                continue;
            };
            if files.is_open() {
                // After a failed sync the file is closed, and the next sync of the store begins with reading it.
                self.sync_held(&ids, &mut files).unwrap_or_else(|fault| {
                    let error = fault.into_error(&operation("syncing", &ids));
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a journal was closed before it was synced"
                    );
                });
                files.close_file();
            }
        }
    }

    fn sync_held(&self, ids: &Ids, files: &mut SubjectFiles) -> Result<(), Fault> {
        // Looked up while the files are held, so that it is the newest.
        let expected = hold(&self.unsynced).get(ids).copied();
        let Some(expected) = expected else { return Ok(()) };
        let answer = sync_files(files, expected);
        if matches!(answer, Ok(()) | Err(Fault::Lost(_))) {
            // What is lost stays lost; it is told once, and whoever wrote it writes it again.
            hold(&self.unsynced).remove(ids);
        }
        answer
    }

    /// Syncs all of a store's lines. All are tried; the first failure is answered.
    fn sync(&self, store: &StoreName) -> Result<()> {
        let unsynced: Vec<Ids> = hold(&self.unsynced).keys().filter(|ids| ids.store == *store).cloned().collect();
        let mut answer = Ok(());
        for ids in unsynced {
            let shared = self.files(&ids);
            let synced = self.sync_held(&ids, &mut hold_files(&shared));
            answer = answer.and(synced.map_err(|fault| fault.into_error(&operation("syncing", &ids))));
        }
        answer
    }

    fn compact(&self, ids: &Ids) {
        let shared = self.files(ids);
        let mut files = hold_files(&shared);
        match &ids.subject {
            Subject::Bucket(_) => files.compact::<BucketState>(),
            Subject::Channel(_) => files.compact::<ChannelState>(),
        }
    }

    /// Writes the checkpoints of all subjects anew that have a journal, and answers by how many bytes their files shrank.
    /// All are tried; the first failure is answered.
    pub(super) fn squeeze(&self) -> Result<u64> {
        let (mut before, mut after, mut answer) = (0_u64, 0_u64, Ok(()));
        for journal in self.journals().map_err(|fault| fault.into_error("compacting"))? {
            match self.squeeze_one(&journal) {
                Ok(bytes) => (before, after) = (before + bytes.0, after + bytes.1),
                Err(error) => answer = answer.and(Err(error)),
            }
        }
        // A checkpoint may need more than the lines did that went into it.
        answer.map(|()| before.saturating_sub(after))
    }

    fn squeeze_one(&self, path: &Path) -> Result<(u64, u64)> {
        let head = match FailStopFile::open(self.env.disk(), path).and_then(|file| file.read(0, HEAD)) {
            Ok(head) => head,
            // It was dropped meanwhile.
            Err(error) if error.is_not_found() => return Ok((0, 0)),
            Err(error) => return Err(error.into_error("compacting")),
        };
        let ids = journal::claimed_ids(path, &head).and_then(|ids| {
            let own = names::journal_file(&self.env.root, &ids) == path;
            if own { Ok(ids) } else { Err(Fault::corrupt_line(path, 1, "it is another one's journal")) }
        });
        let ids = ids.map_err(|fault| fault.into_error("compacting"))?;
        let shared = self.files(&ids);
        let mut files = hold_files(&shared);
        let squeezed = match &ids.subject {
            Subject::Bucket(_) => files.squeeze::<BucketState>(),
            Subject::Channel(_) => files.squeeze::<ChannelState>(),
        };
        let is_gone = files.is_gone();
        drop(files);
        if is_gone {
            self.forget(&ids, &shared);
        }
        squeezed.map_err(|fault| fault.into_error(&operation("compacting", &ids)))
    }

    fn journals(&self) -> Result<Vec<PathBuf>, Fault> {
        let (disk, root) = (self.env.disk(), &self.env.root);
        let mut journals = Vec::new();
        for store in disk.list(root).map_err(|error| DiskError::new("list", root, error))? {
            let store = root.join(store);
            // A file, or a directory of somebody else's.
            let Ok(files) = disk.list(&store) else { continue };
            let names = files.into_iter().filter(|file| names::is_journal(&file.to_string_lossy()));
            journals.extend(names.map(|file| store.join(file)));
        }
        Ok(journals)
    }

    /// Loads a bucket. `turn` ends as soon as the bucket is held, so that a long load keeps nobody from others.
    pub(super) fn load_bucket<T>(&self, ids: &Ids, turn: T) -> Result<Option<BucketSnapshot>> {
        let shared = self.files(ids);
        let mut files = hold_files(&shared);
        drop(turn);
        let loaded = files.load_durably::<BucketState>();
        drop(files);
        let loaded = loaded.map_err(|fault| failed_load(fault, ids))?;
        Ok(loaded.map(BucketState::into_snapshot))
    }

    /// Loads a channel, as [`load_bucket`](Self::load_bucket) does a bucket.
    pub(super) fn load_channel<T>(&self, ids: &Ids, turn: T) -> Result<ChannelData> {
        let shared = self.files(ids);
        let mut files = hold_files(&shared);
        drop(turn);
        let loaded = files.load_durably::<ChannelState>();
        drop(files);
        let loaded = loaded.map_err(|fault| failed_load(fault, ids))?;
        Ok(loaded.unwrap_or_default().into_data())
    }

    /// What the last load of a subject has repaired; told once.
    pub(super) fn repairs(&self, ids: &Ids) -> Vec<Repair> {
        hold_files(&self.files(ids)).repairs()
    }

    pub(super) fn quarantine(&self, ids: &Ids) -> Result<String> {
        let shared = self.files(ids);
        let mut files = hold_files(&shared);
        hold(&self.unsynced).remove(ids);
        files.quarantine().map_err(|fault| fault.into_error(&operation("moving into quarantine", ids)))
    }

    /// Syncs what is not, and forgets the store.
    pub(super) fn release(&mut self, store: &StoreName) -> Result<()> {
        let synced = self.sync(store);
        self.claims.remove(store);
        hold(&self.subjects).retain(|ids, _| ids.store != *store);
        hold(&self.unsynced).retain(|ids, _| ids.store != *store);
        let mut open = hold(&self.open);
        let closed: Vec<Ids> = open.turns.keys().filter(|ids| ids.store == *store).cloned().collect();
        closed.iter().for_each(|ids| open.forget(ids));
        synced
    }
}

fn read_epoch(path: &Path, store: &StoreName, text: &[u8]) -> Result<u64, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Text {
        #[serde(rename = "crc")]
        _crc: IgnoredAny,
        format: String,
        #[serde(rename = "version")]
        _version: IgnoredAny,
        store: String,
        epoch: u64,
    }
    if let Some((format, found)) = seal::claimed(text)
        && format == EPOCH_FORMAT
        && found != VERSION
    {
        return Err(Fault::Version { path: path.to_path_buf(), format, found, known: VERSION });
    }
    let line = text.strip_suffix(b"\n").filter(|line| seal::open(seal::LINE, seal::ALONE, line).is_some());
    let Some(line) = line else {
        return Err(Fault::corrupt(path, "its checksum does not match: it was damaged, cut short or edited"));
    };
    let read: Text = parse(line).map_err(|reason| Fault::corrupt(path, reason))?;
    if read.format != EPOCH_FORMAT || read.store != store.as_str() {
        return Err(Fault::corrupt(path, format!("it is {:?} of store {:?}", read.format, read.store)));
    }
    Ok(read.epoch)
}
