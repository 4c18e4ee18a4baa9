//! All durable values of a store, as records of its reserved bucket, with who may change them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::base::clock::Clock;
use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketName, DurableName, Subject};
use crate::base::value::{Key, Object};
use crate::durable::stored::place_of;
use crate::persistence::{BucketCell, Cell, Coordinator, Persister};
use crate::records::{BucketSnapshot, Cause, Change, Metadata, Record};

/// The name of the reserved bucket, and of what the records in it look like.
const BUCKET: &str = "durable values";
/// The version of the records' own form, apart from the versions of the values in them.
const FORM: u32 = 1;

/// The durable values of a store; clones share them.
#[derive(Clone)]
pub(crate) struct Values {
    shared: Arc<Shared>,
}

struct Shared {
    bucket: BucketName,
    subject: Subject,
    clock: Arc<dyn Clock>,
    coordinator: Coordinator,
    /// None without an adapter.
    cell: Option<Arc<BucketCell>>,
    state: Mutex<State>,
}

/// Locked for moments, never while user code runs; after a value's turn, the coordinator's turn and the commit gate.
#[derive(Debug, Default)]
struct State {
    /// The newest state of every value, open or not.
    records: HashMap<Key, Arc<Record>>,
    /// Who may change a value: the newest handle that was opened under its name.
    activations: HashMap<Key, u64>,
    /// Numbers activations; none is used twice in a store.
    opened: u64,
    revision: u64,
    next_place: u64,
    closed: bool,
}

/// Who changes a value, and what state of it the change is of.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) name: DurableName,
    pub(super) activation: u64,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

impl Values {
    pub(crate) fn new(coordinator: Coordinator, clock: Arc<dyn Clock>) -> Self {
        let bucket = BucketName::reserved(BUCKET);
        let cell = |persister: &Persister| Arc::new(BucketCell::new(bucket.clone(), FORM, persister.granularity()));
        let cell = coordinator.persister().map(cell);
        let subject = Subject::Bucket(bucket.clone());
        let shared = Shared { bucket, subject, clock, coordinator, cell, state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The reserved bucket's name.
    pub(crate) fn bucket(&self) -> &BucketName {
        &self.shared.bucket
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.shared.subject
    }

    pub(super) fn coordinator(&self) -> &Coordinator {
        &self.shared.coordinator
    }

    pub(super) fn persister(&self) -> Option<&Persister> {
        self.shared.coordinator.persister()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No user code runs under it, and what changes is moved in whole.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was stored; called once, before any value is opened. Answers how many values there are.
    ///
    /// # Errors
    /// `SchemaTooNew`, if the records have a later form.
    pub(crate) fn loaded(&self, stored: Option<BucketSnapshot>) -> Result<usize> {
        let snapshot = stored.unwrap_or_default();
        if snapshot.schema_version > FORM {
            let (bucket, stored) = (self.shared.bucket.clone(), snapshot.schema_version);
            return Err(Error::SchemaTooNew { bucket, stored, defined: FORM });
        }
        let (revision, records) = (snapshot.revision, snapshot.records);
        if let (Some(persister), Some(cell)) = (self.persister(), &self.shared.cell) {
            cell.stands_at(revision, &records);
            persister.register(Arc::clone(cell) as Arc<dyn Cell>, revision);
        }
        let mut state = self.state();
        state.revision = revision;
        state.next_place = records.iter().map(|record| record.place()).max().map_or(0, |last| last.saturating_add(1));
        state.records = records.into_iter().map(|record| (record.key().clone(), record)).collect();
        Ok(state.records.len())
    }

    /// From now on nothing is changed: it would not be saved any more.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// The newest state of a value; none where it is not there.
    pub(super) fn record(&self, name: &DurableName) -> Option<Arc<Record>> {
        self.state().records.get(&key(name)).cloned()
    }

    /// Takes a value over, if it is still as it was looked at, and puts `fields` in its place, where they are given.
    /// Answers the number of the new activation and the revision to wait for; none where somebody has changed it meanwhile.
    ///
    /// # Errors
    /// `Stopping`.
    pub(super) fn take_over(
        &self,
        name: &DurableName,
        seen: Option<&Arc<Record>>,
        fields: Option<Object>,
    ) -> Result<Option<(u64, u64)>> {
        // No transaction is about to apply a change of the one before.
        let _turn = self.shared.coordinator.turn();
        let mut state = self.state();
        state.admit()?;
        let unchanged = match (seen, state.records.get(&key(name))) {
            (None, None) => true,
            (Some(seen), Some(current)) => Arc::ptr_eq(seen, current),
            _ => false,
        };
        if !unchanged {
            return Ok(None);
        }
        state.opened += 1;
        let activation = state.opened;
        state.activations.insert(key(name), activation);
        if let Some(fields) = fields {
            self.put(&mut state, name, fields);
        }
        Ok(Some((activation, state.revision)))
    }

    /// Refuses whoever may not change a value (any more).
    ///
    /// # Errors
    /// `Stopping`, `Superseded`; `NotFound` where it was deleted.
    pub(super) fn check(&self, claim: &Claim) -> Result<()> {
        self.state().check(claim)
    }

    /// Puts fields in a value's place, and notes them as unsaved; answers the revision that they are saved with. For who
    /// has the value's turn.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn write(&self, claim: &Claim, fields: Object) -> Result<u64> {
        let mut state = self.state();
        state.check(claim)?;
        Ok(self.put(&mut state, &claim.name, fields))
    }

    /// The same for a transaction that has checked before, and has both the value's turn and the coordinator's.
    pub(super) fn apply(&self, claim: &Claim, fields: Object) -> u64 {
        self.put(&mut self.state(), &claim.name, fields)
    }

    /// Removes a value, for who has its turn.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn remove(&self, claim: &Claim) -> Result<u64> {
        let _turn = self.shared.coordinator.turn();
        let mut state = self.state();
        state.check(claim)?;
        state.activations.remove(&key(&claim.name));
        // It has a record: what has an activation was stored when that began.
        let record = state.records.remove(&key(&claim.name)).ok_or_else(|| gone(&claim.name))?;
        Ok(self.note(&mut state, Change::Deleted { record, cause: Cause::Requested }))
    }

    fn put(&self, state: &mut State, name: &DurableName, fields: Object) -> u64 {
        let now = self.shared.clock.now_ms();
        let old = state.records.get(&key(name)).cloned();
        let (place, metadata) = match &old {
            Some(old) => {
                let Metadata { version, created_at, updated_at, expires_at } = old.metadata();
                let (version, updated_at) = (version.saturating_add(1), updated_at.max(now));
                (old.place(), Metadata { version, created_at, updated_at, expires_at })
            }
            None => {
                let place = state.next_place;
                state.next_place = place.saturating_add(1);
                (place, Metadata { version: 1, created_at: now, updated_at: now, expires_at: None })
            }
        };
        let record = Arc::new(Record::from_parts(key(name), place, metadata, fields));
        state.records.insert(key(name), Arc::clone(&record));
        let change = match old {
            Some(old) => Change::Updated { old, new: record },
            None => Change::Inserted { record },
        };
        self.note(state, change)
    }

    /// Under the lock on the state: the cell hears of changes in their order, and the persister of each before stopping
    /// has made sure that there are no more, and looks for the last time.
    fn note(&self, state: &mut State, change: Change) -> u64 {
        state.revision += 1;
        let revision = state.revision;
        if let (Some(persister), Some(cell)) = (self.persister(), &self.shared.cell) {
            let bytes = cell.note(&[change], None, 0, revision, 0);
            persister.changed(&self.shared.subject, revision, bytes);
        }
        revision
    }

    /// Waits until a revision is saved at a level; at once without an adapter.
    ///
    /// # Errors
    /// `NotSaved` with what the commit said.
    pub(super) async fn saved(&self, revision: u64, level: Durability) -> Result<()> {
        match self.persister().filter(|_| level > Durability::Ram) {
            Some(persister) => {
                let saved = persister.saved(&self.shared.subject, revision, level).await;
                saved.map_err(|error| Error::NotSaved { revision, source: Arc::new(error) })
            }
            None => Ok(()),
        }
    }
}

impl State {
    fn admit(&self) -> Result<()> {
        if self.closed { Err(Error::Stopping) } else { Ok(()) }
    }

    fn check(&self, claim: &Claim) -> Result<()> {
        self.admit()?;
        match self.activations.get(&key(&claim.name)) {
            Some(current) if *current == claim.activation => Ok(()),
            Some(current) => {
                let (name, activation, current) = (claim.name.to_string(), claim.activation, *current);
                Err(Error::Superseded { name, activation, current })
            }
            None => Err(gone(&claim.name)),
        }
    }
}

/// What handles of a value that was deleted are told.
fn gone(name: &DurableName) -> Error {
    Error::NotFound { bucket: place_of(name), key: key(name) }
}

fn key(name: &DurableName) -> Key {
    Key::from(name.as_str())
}
