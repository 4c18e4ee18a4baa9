//! A bucket's life: defined, restarted, dropped, detached.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use ractor::Actor;
use tokio::time::Instant;

use crate::base::blocking;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketName, Subject};
use crate::base::slot::{Place, Slot};
use crate::bucket::{Address, Bucket, BucketActor, BucketMessage, BucketSlot, DEFAULT_TIMEOUT, Instance, Surroundings};
use crate::persistence::{BucketCell, Cell, Persister};
use crate::records::{BucketDefinition, BucketSnapshot, Restored, Schema, Table};
use crate::store::children::{Child, Restarts};
use crate::store::inner::{Inner, lock};

/// What a store knows of a bucket.
#[derive(Debug)]
pub(super) struct BucketEntry {
    schema: Arc<Schema>,
    pub(super) address: Arc<Address>,
    around: Surroundings,
    restarts: Mutex<Restarts>,
}

impl BucketEntry {
    fn name(&self) -> &BucketName {
        self.schema.bucket()
    }

    pub(super) fn slot(&self) -> &BucketSlot {
        &self.address.slot
    }

    pub(super) fn is_saved(&self) -> bool {
        self.cell().is_some()
    }

    /// None where the bucket is not saved.
    fn cell(&self) -> Option<&Arc<BucketCell>> {
        self.around.cell.as_ref()
    }
}

impl Inner {
    /// Defines a bucket: checks, loads, restores, starts. A failure at any step leaves nothing behind.
    pub(super) async fn define_bucket(self: &Arc<Self>, definition: BucketDefinition) -> Result<Bucket> {
        self.admit()?;
        let schema = Arc::new(Schema::new(definition)?);
        let name = schema.bucket().clone();
        let persister = self.persister.as_ref().filter(|_| schema.persistent());
        let cell = persister
            .map(|persister| Arc::new(BucketCell::new(name.clone(), schema.schema_version(), persister.granularity())));
        let slot = Slot::new(Subject::Bucket(name.clone()));
        let address =
            Arc::new(Address { name: name.clone(), slot, schema: Arc::clone(&schema), persister: persister.cloned() });
        let around = Surroundings {
            cell,
            clock: Arc::clone(&self.clock),
            bus: self.bus.clone(),
            revision: Arc::default(),
            commits: Arc::clone(&self.commits),
        };
        let entry = Arc::new(BucketEntry { schema, address, around, restarts: Mutex::default() });
        match lock(&self.buckets).entry(name.clone()) {
            hashbrown::hash_map::Entry::Occupied(_) => {
                return Err(Error::BucketAlreadyExists { bucket: name });
            }
            hashbrown::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(&entry));
                self.directory.enter(Arc::clone(&entry.address));
            }
        }
        // In a task of its own, so that a caller who stops waiting leaves no half-defined bucket.
        let inner = Arc::clone(self);
        let work = tokio::spawn(async move {
            let outcome = inner.start_bucket(&entry).await;
            if let Err(error) = &outcome {
                inner.undefine(&entry, error.clone());
            }
            outcome.map(|()| inner.handle_of(&entry))
        });
        work.await.unwrap_or_else(|error| Err(blocking::lost("defining a bucket", &error)))
    }

    fn handle_of(&self, entry: &BucketEntry) -> Bucket {
        Bucket::new(Arc::clone(&entry.address), self.directory.clone())
    }

    fn undefine(&self, entry: &BucketEntry, error: Error) -> Place<BucketMessage, Arc<Instance>> {
        let place = entry.slot().close(error);
        self.directory.remove(&entry.address);
        let name = entry.name();
        let mut buckets = lock(&self.buckets);
        if buckets.get(name).is_some_and(|current| Arc::ptr_eq(&current.address, &entry.address)) {
            buckets.remove(name);
        }
        drop(buckets);
        self.live.replaced(name);
        place
    }

    async fn start_bucket(self: &Arc<Self>, entry: &BucketEntry) -> Result<()> {
        let begun = Instant::now();
        let subject = entry.slot().subject().clone();
        let mut table = Table::new(Arc::clone(&entry.schema));
        if let (Some(persister), Some(cell)) = (&self.persister, entry.cell()) {
            let (stored, quarantine) = entry.slot().while_open(self.load_or_start_empty(persister, entry)).await?;
            let stored_revision = stored.as_ref().map_or(0, |snapshot| snapshot.revision);
            let mut altered = false;
            if let Some(snapshot) = stored {
                let restored = restore(&entry.schema, snapshot).await?;
                cell.loaded(&restored.table);
                (table, altered) = (restored.table, restored.altered);
            }
            persister.register(Arc::clone(cell) as Arc<dyn Cell>, stored_revision);
            if altered {
                cell.replace(table.snapshot());
                persister.rewritten(&subject, table.revision());
            }
            let (count, took) = (table.len(), begun.elapsed());
            if let Err(error) = self.spawn_bucket(entry, table).await {
                persister.forget(&subject);
                return Err(error);
            }
            persister.recovered(&subject, count, took, quarantine);
            return Ok(());
        }
        self.spawn_bucket(entry, table).await
    }

    /// What is stored; or nothing, and where it is now, if it cannot be read and an empty start was chosen for that.
    async fn load_or_start_empty(
        &self,
        persister: &Persister,
        entry: &BucketEntry,
    ) -> Result<(Option<BucketSnapshot>, Option<String>)> {
        match persister.load_bucket(entry.name()).await {
            Ok(stored) => Ok((stored, None)),
            Err(error) => Ok((None, Some(self.set_aside(persister, entry.slot().subject(), error).await?))),
        }
    }

    async fn spawn_bucket(self: &Arc<Self>, entry: &BucketEntry, table: Table) -> Result<()> {
        self.admit()?;
        let instance = Arc::new(Instance::new(table, entry.around.clone()));
        let supervisor = self.supervisor()?.get_cell();
        let spawned = BucketActor::spawn_linked(None, BucketActor, Arc::clone(&instance), supervisor).await;
        let (actor, _ended) = spawned.map_err(|error| Error::permanent("starting a bucket", error))?;
        // Nobody has the actor's address yet: its turn is ours. Whoever finds the bucket finds it within its bound.
        if let Err(error) = instance.trim() {
            actor.stop(None);
            return Err(error);
        }
        let subject = entry.slot().subject().clone();
        let (id, unwanted) = (actor.get_id(), actor.get_cell());
        // Before its death can be told: whoever is to restart it finds it there.
        let wanted = entry.slot().started(actor, instance);
        let alive = self.children.born(id, Child::Subject(subject.clone()));
        if !wanted {
            // Stopped, dropped or detached meanwhile, and maybe defined again: that one is not to be dismissed.
            self.children.dismiss_actor(id);
            let _dead = unwanted.stop_and_wait(None, None).await;
            return Err(Error::Stopping);
        }
        // Not before others find it: who reads the one before has to be told of this one.
        self.live.replaced(entry.name());
        if !alive {
            self.revive(Child::Subject(subject));
        }
        Ok(())
    }

    /// Restarts a bucket from its last save and its unsaved commits.
    pub(super) async fn revive_bucket(self: &Arc<Self>, name: &BucketName) {
        let Some(entry) = lock(&self.buckets).get(name).cloned() else { return };
        // It may have been dropped meanwhile, and be defined again or about to be.
        let Some(instance) = entry.slot().replacing() else { return };
        // A transaction may hold it still: nothing that it commits from here on would be saved or seen.
        instance.retire();
        if self.bring_back(entry.slot(), &entry.restarts, || self.restart_bucket(&entry)).await {
            self.live.replaced(name);
        }
    }

    async fn restart_bucket(self: &Arc<Self>, entry: &BucketEntry) -> Result<()> {
        let (Some(persister), Some(cell)) = (&self.persister, entry.cell()) else {
            let table = Table::empty_at(Arc::clone(&entry.schema), entry.around.revision.load(Ordering::Relaxed));
            return self.spawn_bucket(entry, table).await;
        };
        // Taken before the load: what is saved in between is in both, and nothing is in neither.
        let unsaved = cell.overlay();
        let mut snapshot = entry.slot().while_open(persister.load_bucket(entry.name())).await?.unwrap_or_default();
        if let Some(change) = unsaved {
            snapshot.apply(&change);
            // The actor may have died before it could tell of its last change.
            persister.changed(cell.subject(), change.revision(), 0);
        }
        if snapshot.schema_version == 0 {
            snapshot.schema_version = entry.schema.schema_version();
        }
        let Restored { table, altered } = restore(&entry.schema, snapshot).await?;
        if altered {
            cell.replace(table.snapshot());
            persister.rewritten(cell.subject(), table.revision());
        }
        self.spawn_bucket(entry, table).await
    }

    /// Ends a bucket, its stored data with it or not. On failure it serves on.
    pub(super) async fn end_bucket(self: &Arc<Self>, name: &BucketName, fate: Fate) -> Result<()> {
        self.admit()?;
        let undefined = || Error::BucketNotDefined { bucket: name.clone() };
        let entry = lock(&self.buckets).get(name).cloned().ok_or_else(undefined)?;
        let inner = Arc::clone(self);
        let work = tokio::spawn(async move { inner.end_entry(&entry, fate).await });
        work.await.unwrap_or_else(|error| Err(blocking::lost("ending a bucket", &error)))
    }

    async fn end_entry(self: &Arc<Self>, entry: &BucketEntry, fate: Fate) -> Result<()> {
        let name = entry.name();
        let subject = Subject::Bucket(name.clone());
        // Waits for the calls under way, and keeps new ones waiting until the outcome is known.
        let _alone = entry.slot().exclusive().await?;
        if let Place::Gone(error @ (Error::Stopping | Error::BucketNotDefined { .. })) = entry.slot().place() {
            // With any other error it was given up, and ending it is the way to define it anew.
            return Err(error);
        }
        if let (Some(persister), Some(cell)) = (&self.persister, entry.cell()) {
            let outcome = match fate {
                Fate::Drop => persister.drop_stored(&subject).await,
                Fate::Detach => persister.flush(Some(&subject)).await,
            };
            if let Err(error) = outcome {
                if fate == Fate::Drop && matches!(error, Error::Unknown { .. }) {
                    // It may be gone from the disk: memory has it, and writes it again as a whole.
                    self.resave(persister, cell, entry).await;
                }
                return Err(error);
            }
        }
        self.children.dismiss(&subject);
        if let Place::Running(actor, _) = entry.slot().place() {
            // What was posted goes before the end; an actor that is dead already has nothing left to drain.
            let _dead = actor.drain_and_wait(None).await;
        }
        if let Some(persister) = self.persister.as_ref().filter(|_| entry.cell().is_some()) {
            if fate == Fate::Detach
                && let Err(error) = persister.flush(Some(&subject)).await
            {
                // What was posted meanwhile is not saved: it serves on.
                self.revive(Child::Subject(subject));
                return Err(error);
            }
            // Not before its actor is dead: an event of it would be taken for a change of the next one of its name.
            persister.forget(&subject);
        }
        if let Place::Running(actor, _) = self.undefine(entry, Error::BucketNotDefined { bucket: name.clone() }) {
            // It may have been restarted meanwhile. An actor that is dead already is as good as stopped.
            let _dead = actor.stop_and_wait(None, None).await;
        }
        Ok(())
    }

    async fn resave(&self, persister: &Persister, cell: &Arc<BucketCell>, entry: &BucketEntry) {
        // One that is being restarted is waited for. The cell is told under the table's lock: what is committed next, by a
        // transaction or by a posted write, is noted over it.
        let whole = |table: &Table| {
            cell.replace(table.snapshot());
            table.revision()
        };
        if let Ok(instance) = entry.slot().shared(Instant::now() + DEFAULT_TIMEOUT, |_| true).await
            && let Ok(revision) = instance.read(whole)
        {
            persister.rewritten(cell.subject(), revision);
        }
    }

    /// A handle on a bucket that is defined.
    pub(super) fn bucket(&self, name: &str) -> Result<Bucket> {
        self.admit()?;
        self.directory.bucket(name)
    }
}

/// What becomes of a bucket's stored data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is deleted.
    Drop,
    /// It is saved and kept.
    Detach,
}

/// Binding and checking a large bucket takes long: off the async workers.
async fn restore(schema: &Arc<Schema>, snapshot: BucketSnapshot) -> Result<Restored> {
    let schema = Arc::clone(schema);
    blocking::run("restoring a bucket", move || Table::restore(schema, snapshot)).await
}

#[cfg(test)]
mod tests {
    use crate::adapters::memory::MemoryAdapter;
    use crate::records::Field;
    use crate::store::Store;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_late_news_of_a_death_starts_no_second_actor_of_a_bucket_that_is_being_defined() {
        let store = Store::builder("app").adapter(MemoryAdapter::default()).start().await.unwrap();
        let name = BucketName::new("b").unwrap();
        // As when one of its name was dropped whose actor had just died.
        let definition = BucketDefinition::new("b").key("id").field("id", Field::int());
        let defining = store.define_bucket(definition);
        let (bucket, ()) = tokio::join!(defining, store.inner.revive_bucket(&name));
        assert_eq!(bucket.unwrap().stats().await.unwrap().records, 0);
        assert_eq!(store.inner.persister.as_ref().unwrap().stats().loads, 1, "it was loaded by one alone");
        store.stop().await.unwrap();
    }
}
