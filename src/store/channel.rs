//! A channel's life: opened, restarted, closed, dropped.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ractor::{Actor, ActorStatus};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::base::blocking;
use crate::base::durability::{Durability, Lack};
use crate::base::error::{Error, Result};
use crate::base::name::{ChannelId, Subject};
use crate::base::slot::{Place, Slot};
use crate::channel::{
    Channel, ChannelActor, ChannelCell, ChannelMessage, ChannelStart, Clocks, Closing, Owner, Reach, Teller,
};
use crate::persistence::{Cell, Persister};
use crate::sds::{ChannelData, ChannelOptions, ChannelState, Effects, WireFormat};
use crate::store::bucket::Fate;
use crate::store::children::{Child, Restarts};
use crate::store::inner::{Inner, lock};

/// What a store knows of a channel. Concurrent openings share it.
#[derive(Debug, Default)]
pub(super) struct ChannelEntry {
    live: OnceCell<Live>,
}

/// A channel that is open.
#[derive(Debug)]
pub(super) struct Live {
    options: ChannelOptions,
    pub(super) slot: Arc<Slot<ChannelMessage>>,
    /// Everything that its actor needs; the state is in it.
    start: ChannelStart,
    restarts: Mutex<Restarts>,
    /// Ends when all held events have been raised.
    teller: Mutex<Option<JoinHandle<()>>>,
}

/// What was stored of a channel, made a state.
struct Loaded {
    state: ChannelState,
    effects: Effects,
    /// Where it is now, if it could not be read.
    quarantine: Option<String>,
    clocks: Clocks,
}

impl ChannelEntry {
    /// The channel, if it is open by now.
    pub(super) fn live(&self) -> Option<&Live> {
        self.live.get()
    }
}

impl Inner {
    /// Opens a channel, or answers the one that is open with the same options.
    pub(super) async fn open_channel(self: &Arc<Self>, id: ChannelId, options: ChannelOptions) -> Result<Channel> {
        self.admit()?;
        options.validate()?;
        let inner = Arc::clone(self);
        // In a task of its own: an opening that has begun goes on when its caller stops waiting, and the next one shares it.
        let work = tokio::spawn(async move { inner.find_or_start_channel(&id, options, None).await });
        work.await.unwrap_or_else(|error| Err(blocking::lost("opening a channel", &error)))
    }

    /// Opens a channel on what is stored of it, or on a snapshot; without one, the channel may be open already.
    async fn find_or_start_channel(
        self: &Arc<Self>,
        id: &ChannelId,
        options: ChannelOptions,
        snapshot: Option<Bytes>,
    ) -> Result<Channel> {
        let persister = self.channel_persister(id, &options)?;
        let is_import = snapshot.is_some();
        loop {
            let entry = self.channel_entry(id);
            let mut is_new = false;
            let start = || {
                is_new = true;
                self.start_channel(id.clone(), options.clone(), persister.clone(), snapshot.clone())
            };
            let live = match entry.live.get_or_try_init(start).await {
                Ok(live) => live,
                Err(error) => {
                    self.forget_unopened(id, &entry);
                    return Err(error);
                }
            };
            if self.is_stopping() {
                // The shutdown may have looked before the channel was there.
                live.slot.drain().await;
                return Err(Error::Stopping);
            }
            if !is_new && live.is_ended() {
                // It makes room for another one when its end is complete.
                drop(live.slot.exclusive().await?);
                continue;
            }
            self.look_after(live);
            if is_import && !is_new {
                return Err(Error::ChannelExists { id: id.to_string() });
            }
            if live.options != options {
                let problem = format!("channel {id} is open with other options");
                return Err(Error::InvalidOptions { problems: vec![problem] });
            }
            if let Some(persister) = persister.filter(|_| is_import && options.durability > Durability::Ram) {
                let ((), revision) = live.start.cell.read_with_revision(|_| ())?;
                let saved = persister.saved(live.slot.subject(), revision, options.durability).await;
                saved.map_err(|error| Error::NotSaved { revision, source: Arc::new(error) })?;
            }
            return Ok(self.channel_handle(id, live));
        }
    }

    /// Opens a channel on a snapshot, where there is none yet.
    pub(super) async fn import_channel(
        self: &Arc<Self>,
        id: ChannelId,
        options: ChannelOptions,
        snapshot: Bytes,
    ) -> Result<Channel> {
        self.admit()?;
        options.validate()?;
        let inner = Arc::clone(self);
        let work = tokio::spawn(async move { inner.find_or_start_channel(&id, options, Some(snapshot)).await });
        work.await.unwrap_or_else(|error| Err(blocking::lost("importing a channel", &error)))
    }

    /// An actor that died before its opening was complete was nobody's yet when that was told: it is restarted now.
    fn look_after(self: &Arc<Self>, live: &Live) {
        if matches!(live.slot.place(), Place::Running(actor, ()) if actor.get_status() >= ActorStatus::Stopping) {
            self.revive(Child::Subject(live.slot.subject().clone()));
        }
    }

    /// The one entry of this id; its cell lets one opening or dropping at a time have its turn.
    fn channel_entry(&self, id: &ChannelId) -> Arc<ChannelEntry> {
        Arc::clone(lock(&self.channels).entry(id.clone()).or_default())
    }

    /// Takes an entry without a channel away, unless somebody else waits for his turn with it.
    fn forget_unopened(&self, id: &ChannelId, entry: &Arc<ChannelEntry>) {
        let mut channels = lock(&self.channels);
        let current = channels.get(id).is_some_and(|current| Arc::ptr_eq(current, entry));
        // Entries are handed out under this lock: the map and the caller have one each.
        if current && entry.live().is_none() && Arc::strong_count(entry) == 2 {
            channels.remove(id);
        }
    }

    pub(super) fn channel_handle(self: &Arc<Self>, id: &ChannelId, live: &Live) -> Channel {
        let (slot, bus) = (Arc::clone(&live.slot), self.bus.clone());
        let owner: Arc<dyn Owner> = Arc::clone(self) as _;
        let reach = Reach::new(&live.start, self.coordinator.clone(), Arc::downgrade(&owner));
        Channel::new(id.clone(), slot, bus, live.start.persister.clone(), live.options.durability, reach)
    }

    /// Who saves the channel, if anybody is to; refuses what the adapter cannot do.
    fn channel_persister(&self, id: &ChannelId, options: &ChannelOptions) -> Result<Option<Persister>> {
        let persister = self.persister.as_ref().filter(|_| options.persistent);
        let has = persister.map_or(Durability::Ram, |persister| persister.capabilities().durability);
        if options.durability > has {
            let why = match (options.persistent, persister) {
                (false, _) => Lack::OptedOut,
                (true, None) => Lack::NoAdapter,
                (true, Some(_)) => Lack::OfAdapter,
            };
            return Err(options.durability.refused(Subject::Channel(id.clone()), why, has));
        }
        match persister {
            Some(persister) if !persister.capabilities().channels => {
                Err(Error::unsupported("keeping channels with this adapter"))
            }
            persister => Ok(persister.cloned()),
        }
    }

    async fn start_channel(
        self: &Arc<Self>,
        id: ChannelId,
        options: ChannelOptions,
        persister: Option<Persister>,
        snapshot: Option<Bytes>,
    ) -> Result<Live> {
        let begun = Instant::now();
        let subject = Subject::Channel(id.clone());
        let loading = self.load_state(&id, &options, persister.as_ref(), snapshot);
        let Loaded { state, effects, quarantine, clocks } = self.unless_stopping(loading).await?;
        let count = state.history().len();
        let cell = Arc::new(ChannelCell::new(id.clone(), state));
        let (teller, task) = Teller::new(id.clone(), self.bus.clone(), persister.as_ref(), options.durability);
        let pause_ms = i64::try_from(options.buffer_sweep_interval.as_millis()).unwrap_or(i64::MAX);
        let start = ChannelStart { cell, teller: Arc::new(teller), clocks, pause_ms, persister };
        let live = Live {
            options,
            slot: Arc::new(Slot::new(subject.clone())),
            start,
            restarts: Mutex::default(),
            teller: Mutex::new(task),
        };
        if let Some(persister) = &live.start.persister {
            persister.register(Arc::clone(&live.start.cell) as Arc<dyn Cell>, 0);
        }
        if let Err(error) = self.spawn_channel(&live).await {
            if let Some(persister) = &live.start.persister {
                persister.forget(&subject);
            }
            return Err(error);
        }
        // Before any later call: nobody has a handle yet.
        live.start.settle(effects)?;
        live.wake();
        if let Some(persister) = &live.start.persister {
            persister.recovered(&subject, count, begun.elapsed(), quarantine);
        }
        Ok(live)
    }

    /// What is stored, or a snapshot where nothing is, made a state. Where what is stored cannot be read, and that was
    /// chosen: an empty state, and where the data is now.
    async fn load_state(
        &self,
        id: &ChannelId,
        options: &ChannelOptions,
        persister: Option<&Persister>,
        snapshot: Option<Bytes>,
    ) -> Result<Loaded> {
        let stored = match persister {
            Some(persister) => persister.load_channel(id).await,
            None => Ok(ChannelData::default()),
        };
        // Timers count from here.
        let clocks = Clocks::new(Arc::clone(&self.clock));
        if let Some(snapshot) = snapshot {
            if stored? != ChannelData::default() {
                return Err(Error::ChannelExists { id: id.to_string() });
            }
            let (state, effects) = ChannelState::import(id.clone(), options.clone(), &snapshot, clocks.now())?;
            return Ok(Loaded { state, effects, quarantine: None, clocks });
        }
        let load = |data| ChannelState::load(id.clone(), options.clone(), data, clocks.now());
        let ((state, effects), quarantine) = match (stored.and_then(load), persister) {
            (Err(error), Some(persister)) => {
                let place = self.set_aside(persister, &Subject::Channel(id.clone()), error).await?;
                (load(ChannelData::default())?, Some(place))
            }
            (loaded, _) => (loaded?, None),
        };
        Ok(Loaded { state, effects, quarantine, clocks })
    }

    async fn spawn_channel(self: &Arc<Self>, live: &Live) -> Result<()> {
        self.admit()?;
        let supervisor = self.supervisor()?.get_cell();
        let spawned = ChannelActor::spawn_linked(None, ChannelActor, live.start.clone(), supervisor).await;
        let (actor, _ended) = spawned.map_err(|error| Error::permanent("starting a channel", error))?;
        let subject = live.slot.subject().clone();
        let (id, unwanted) = (actor.get_id(), actor.get_cell());
        // Before its death can be told: whoever is to restart it finds it there.
        let wanted = live.slot.started(actor, ());
        let alive = self.children.born(id, Child::Subject(subject.clone()));
        if !wanted {
            // Stopped, dropped or closed meanwhile, and maybe opened again: that one is not to be dismissed.
            self.children.dismiss_actor(id);
            let _dead = unwanted.stop_and_wait(None, None).await;
            return Err(Error::Stopping);
        }
        if !alive {
            self.revive(Child::Subject(subject));
        }
        Ok(())
    }

    /// Restarts a channel. Its state has outlived the actor; one that an operation left torn is loaded anew.
    pub(super) async fn revive_channel(self: &Arc<Self>, id: &ChannelId) {
        let Some(entry) = lock(&self.channels).get(id).cloned() else { return };
        let Some(live) = entry.live() else { return };
        // It may have been closed or dropped and opened again meanwhile.
        if live.slot.replacing().is_none() {
            return;
        }
        self.bring_back(&live.slot, &live.restarts, || self.restart_channel(id, live)).await;
    }

    async fn restart_channel(self: &Arc<Self>, id: &ChannelId, live: &Live) -> Result<()> {
        if live.start.cell.is_torn() {
            let stored = match &live.start.persister {
                Some(persister) => self.unless_stopping(persister.load_channel(id)).await?,
                None => ChannelData::default(),
            };
            if let Place::Gone(error) = live.slot.place() {
                // Another one may have been opened in its place: nothing of this one is told or saved any more.
                return Err(error);
            }
            let now = live.start.clocks.now();
            live.start.mend(|data| ChannelState::load(id.clone(), live.options.clone(), data, now), stored)?;
        }
        self.spawn_channel(live).await?;
        live.wake();
        Ok(())
    }

    /// Ends a channel, its stored data with it or not. On failure it serves on. Dropping works on a channel that is not
    /// open too.
    pub(super) async fn end_channel(self: &Arc<Self>, id: ChannelId, fate: Fate) -> Result<()> {
        self.admit()?;
        let inner = Arc::clone(self);
        let work = tokio::spawn(async move {
            loop {
                let entry = inner.channel_entry(&id);
                // Where it is not open, nobody opens it before this is done.
                let found = entry.live.get_or_try_init(|| async { Err(inner.end_unopened(&id, fate).await) }).await;
                let outcome = match found {
                    Ok(live) => inner.end_live_channel(&id, live, fate).await,
                    Err(outcome) => {
                        inner.forget_unopened(&id, &entry);
                        return outcome;
                    }
                };
                // Another call has ended it, and may have kept what is stored.
                if fate == Fate::Detach || !matches!(outcome, Err(Error::UnknownChannel { .. })) {
                    return outcome;
                }
            }
        });
        work.await.unwrap_or_else(|error| Err(blocking::lost("ending a channel", &error)))
    }

    async fn end_unopened(&self, id: &ChannelId, fate: Fate) -> Result<()> {
        match (&self.persister, fate) {
            (_, Fate::Detach) => Err(Error::UnknownChannel { id: id.to_string() }),
            (Some(persister), Fate::Drop) if persister.capabilities().channels => {
                persister.drop_stored(&Subject::Channel(id.clone())).await
            }
            (_, Fate::Drop) => Ok(()),
        }
    }

    async fn end_live_channel(self: &Arc<Self>, id: &ChannelId, live: &Live, fate: Fate) -> Result<()> {
        let subject = live.slot.subject().clone();
        // Waits for the calls under way, and keeps new ones waiting until the outcome is known.
        let _alone = live.slot.exclusive().await?;
        match live.slot.place() {
            // With any other error it was given up, and ending it is the way to open it anew.
            Place::Gone(error @ (Error::Stopping | Error::UnknownChannel { .. })) => return Err(error),
            // Calls that nobody waits for any more may still be in its mailbox: they come before this one. One that is
            // dead has nothing left to handle.
            Place::Running(actor, ()) => drop(actor.call(ChannelMessage::Stats, None).await),
            Place::Starting | Place::Gone(_) => {}
        }
        if let Some(persister) = &live.start.persister {
            // Transactions and the timer do not take turns with calls: what they change from here on might not be saved
            // any more.
            live.start.cell.seal(true);
            let outcome = match fate {
                Fate::Drop => persister.drop_stored(&subject).await,
                Fate::Detach => persister.flush(Some(&subject)).await,
            };
            if let Err(error) = outcome {
                live.start.cell.seal(false);
                live.wake();
                if fate == Fate::Drop && matches!(error, Error::Unknown { .. }) {
                    // It may be gone from the disk: memory has it, and writes it again.
                    live.start.resave()?;
                }
                return Err(error);
            }
        }
        self.children.dismiss(&subject);
        let place = live.slot.close(Error::UnknownChannel { id: id.to_string() });
        if let Place::Running(actor, ()) = place {
            // An actor that is dead already is as good as stopped.
            let _dead = actor.stop_and_wait(None, None).await;
        }
        if let Some(persister) = &live.start.persister {
            persister.forget(&subject);
        }
        // Its events come before those of a channel that is opened in its place.
        live.hushed().await;
        lock(&self.channels).remove(id);
        Ok(())
    }
}

impl Owner for Inner {
    fn close(self: Arc<Self>, id: ChannelId) -> Closing {
        Box::pin(async move { self.end_channel(id, Fate::Detach).await })
    }
}

impl Live {
    pub(super) fn is_saved(&self) -> bool {
        self.start.persister.is_some()
    }

    /// Has the actor look when its state is next due.
    fn wake(&self) {
        if let Place::Running(actor, ()) = self.slot.place() {
            // One that is dead is replaced by one that looks.
            let _dead = actor.send_message(ChannelMessage::Wake);
        }
    }

    /// The form that it speaks.
    pub(super) fn wire(&self) -> WireFormat {
        self.options.wire
    }

    /// Whether it was closed or dropped.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.slot.place(), Place::Gone(Error::UnknownChannel { .. }))
    }

    /// Waits until every event that was held for a commit has been raised or never will be.
    pub(super) async fn hushed(&self) {
        let task = lock(&self.teller).take();
        if let Some(task) = task {
            self.start.teller.hush();
            // A teller that panicked has nothing left to raise.
            let _panicked = task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use crate::adapters::memory::MemoryAdapter;
    use crate::store::Store;

    use super::*;

    fn actor(live: &Live) -> ractor::ActorRef<ChannelMessage> {
        match live.slot.place() {
            Place::Running(actor, ()) => actor,
            Place::Starting | Place::Gone(_) => panic!("it does not run"),
        }
    }

    /// A channel that was closed while its actor was being restarted, and the one that was opened in its place.
    async fn closed_and_opened_again() -> (Store, ChannelId, Arc<ChannelEntry>, Arc<ChannelEntry>) {
        let store = Store::builder("app").adapter(MemoryAdapter::default()).start().await.unwrap();
        let id = ChannelId::new("room").unwrap();
        let entry = || store.inner.channel_entry(&id);
        store.open_channel("room", ChannelOptions::default()).await.unwrap();
        let old = entry();
        store.close_channel("room").await.unwrap();
        store.open_channel("room", ChannelOptions::default()).await.unwrap();
        let new = entry();
        (store, id, old, new)
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_that_comes_after_the_end_of_its_channel_does_not_touch_the_one_in_its_place() {
        let (store, id, old, new) = closed_and_opened_again().await;
        let first = actor(new.live().unwrap());
        // What was on its way when the channel was closed: an actor that starts, and the news of one that died.
        assert!(matches!(store.inner.restart_channel(&id, old.live().unwrap()).await, Err(Error::Stopping)));
        store.inner.revive_channel(&id).await;
        assert_eq!(actor(new.live().unwrap()).get_id(), first.get_id(), "nothing has happened to it");

        first.kill();
        let channel = store.open_channel("room", ChannelOptions::default()).await.unwrap();
        channel.stats().await.unwrap();
        assert_ne!(actor(new.live().unwrap()).get_id(), first.get_id(), "it is still looked after");
        store.stop().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_actor_whose_death_was_told_before_its_opening_was_complete_is_restarted() {
        let store = Store::builder("app").adapter(MemoryAdapter::default()).start().await.unwrap();
        let channel = store.open_channel("room", ChannelOptions::default()).await.unwrap();
        let entry = store.inner.channel_entry(&ChannelId::new("room").unwrap());
        let live = entry.live().unwrap();
        // As it is then: the death is told, and nothing follows from it.
        store.inner.children.dismiss(live.slot.subject());
        actor(live).kill_and_wait(None).await.unwrap();
        store.open_channel("room", ChannelOptions::default()).await.unwrap();
        channel.stats().await.unwrap();
        store.stop().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_torn_state_cannot_tell_is_not_taken_for_saved_before_it_is_mended() {
        let store = Store::builder("app").adapter(MemoryAdapter::default()).start().await.unwrap();
        let channel = store.open_channel("room", ChannelOptions::default()).await.unwrap();
        let healthy = store.open_channel("healthy", ChannelOptions::default()).await.unwrap();
        let entry = store.inner.channel_entry(channel.id());
        let live = entry.live().unwrap();
        let (cell, persister) = (&live.start.cell, live.start.persister.clone().unwrap());
        let ((), done) =
            cell.operate(|state| state.wrap("mine", Bytes::from_static(b"x"), 1_000).map(|(_, e)| ((), e))).unwrap();
        let torn = catch_unwind(AssertUnwindSafe(|| cell.operate::<()>(|_| panic!("a mistake of ours"))));
        assert!(torn.is_err());

        persister.changed(live.slot.subject(), done.revision, done.unsaved.unwrap());
        healthy.wrap("theirs", "x").await.unwrap();
        let saved = persister.saved(live.slot.subject(), done.revision, Durability::Fsync).await;
        assert!(matches!(saved, Err(Error::Permanent { .. })), "{saved:?}");
        healthy.flush().await.unwrap();

        // Its actor finds it, and is replaced by one with a whole state.
        live.wake();
        channel.stats().await.unwrap();
        channel.flush().await.unwrap();
        let stored = persister.load_channel(channel.id()).await.unwrap();
        assert_eq!(stored.meta.outgoing.len(), 1, "it is sent until somebody acknowledges it, crash or not");
        store.stop().await.unwrap();
    }
}
