//! What users hold of a store.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ractor::{Actor, ActorCell, ActorId};

use crate::base::blocking;
use crate::base::error::{Error, Failure, Result};
use crate::base::name::{BucketName, ChannelId, StoreName};
use crate::bucket::{Bucket, Transaction, TransactionBuilder};
use crate::bus::{Bus, Pattern, Subscription};
use crate::channel::{Channel, ChannelEvents};
use crate::persistence::{DirtySink, Health, PersistenceStats, Persister};
use crate::records::BucketDefinition;
use crate::sds::{ChannelOptions, Received};
use crate::store::bucket::Fate;
use crate::store::builder::StoreBuilder;
use crate::store::expiry;
use crate::store::inner::{Inner, lock, report};
use crate::store::report::{StopReport, StoreStats};
use crate::store::supervisor::Supervisor;

/// A store: supervises buckets and channels, and saves what changes in them.
///
/// A handle is a cheap clone; dropping handles changes nothing, the store runs until it is stopped.
///
/// ```
/// use ractor_persistence::adapters::memory::MemoryAdapter;
/// use ractor_persistence::record;
/// use ractor_persistence::records::{BucketDefinition, Field, Generated};
/// use ractor_persistence::store::Store;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let store = Store::builder("shop").adapter(MemoryAdapter::default()).start().await?;
/// let users = store
///     .define_bucket(
///         BucketDefinition::new("users")
///             .key("id")
///             .field("id", Field::int().generated(Generated::Autoincrement))
///             .field("name", Field::string().required()),
///     )
///     .await?;
/// let ada = users.insert(record! { "name": "Ada" }).await?;
/// assert_eq!(ada.key(), &1.into());
/// let report = store.stop().await?;
/// assert!(report.unsaved.is_empty());
/// # Ok::<_, ractor_persistence::base::error::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

impl Store {
    /// What a store is started from; its name is 1 to 128 bytes of Unicode without control characters.
    pub fn builder(name: impl Into<String>) -> StoreBuilder {
        StoreBuilder::new(name)
    }

    pub(super) async fn launch(builder: StoreBuilder, above: Option<ActorCell>) -> Result<Self> {
        let StoreBuilder { name, adapter, options, on_error, clock, ttl_check_interval, auto_create } = builder;
        let name = StoreName::new(&name)?;
        blocking::runtime("starting the store")?;
        options.validate()?;
        auto_create.validate()?;
        expiry::validate(ttl_check_interval)?;
        let (for_bus, stop_timeout) = (on_error.clone(), options.stop_timeout);
        let bus = Bus::new(move |failure: Failure| report(for_bus.as_ref(), &failure));
        let persister = match adapter {
            Some(adapter) => {
                Some(Persister::claim(name.clone(), adapter, options, bus.clone(), on_error.clone()).await?)
            }
            None => None,
        };
        let dirty = match &persister {
            Some(persister) => {
                let everything = Pattern::parse("bucket.*.*")?;
                Some(bus.subscribe_sink(everything, Arc::new(DirtySink(persister.clone()))))
            }
            None => None,
        };
        let mut inner = Inner::new(name, bus, clock, persister, on_error, dirty, ttl_check_interval);
        inner.stop_timeout = stop_timeout;
        inner.auto_create = auto_create;
        let inner = Arc::new(inner);
        let spawned = match above {
            Some(above) => Supervisor::spawn_linked(None, Supervisor, Arc::clone(&inner), above).await,
            None => Supervisor::spawn(None, Supervisor, Arc::clone(&inner)).await,
        };
        let started = match spawned {
            // The cell is set here and nowhere else.
            Ok((supervisor, _ended)) => inner.supervisor.set(supervisor).map_err(|_| Error::Stopping),
            Err(error) => Err(Error::permanent("starting the store", error)),
        };
        let started = match started {
            Ok(()) => inner.spawn_persister().await,
            failed => failed,
        };
        if let Err(error) = started {
            // The claim is given back; the reason for which the store did not start is what matters.
            inner.shut_down().await;
            if let Some(supervisor) = inner.supervisor.get() {
                supervisor.stop(None);
            }
            return Err(error);
        }
        if !ttl_check_interval.is_zero() {
            expiry::tick(&inner, ttl_check_interval);
        }
        Ok(Self { inner })
    }

    /// The store's name.
    pub fn name(&self) -> &StoreName {
        &self.inner.name
    }

    /// Whether this is the id of the store's own actor: for a supervisor that is told of a child's end, and asks whose.
    pub fn is_actor(&self, id: ActorId) -> bool {
        self.inner.supervisor.get().is_some_and(|supervisor| supervisor.get_id() == id)
    }

    /// Defines a bucket: checks the definition, loads what is stored under its name, checks that against the
    /// definition, rebuilds indexes and counter, starts the bucket's actor. Nothing is published about restored records.
    ///
    /// # Errors
    /// `InvalidDefinition` with every fault, `BucketAlreadyExists`, `SchemaTooNew`, `Migration`, `Corrupt`,
    /// `UnknownFormat`, and whatever else the adapter answers: then the name is free again and the stored data as it
    /// was.
    ///
    /// # Cancel safety
    /// A definition that has begun goes on when its future is dropped.
    pub async fn define_bucket(&self, definition: BucketDefinition) -> Result<Bucket> {
        self.inner.define_bucket(definition).await
    }

    /// A handle on a bucket that is defined.
    ///
    /// # Errors
    /// `BucketNotDefined`, `InvalidName`, `Stopping`.
    pub fn bucket(&self, name: &str) -> Result<Bucket> {
        self.inner.bucket(name)
    }

    /// A transaction over any of the buckets: what the function reads holds until the commit, and what it writes is
    /// applied as a whole or not at all. Serializable, optimistic: where something that was read has changed meanwhile,
    /// the transaction fails with `Conflict`, or is repeated, see [`TransactionBuilder::retry`].
    ///
    /// ```
    /// use ractor_persistence::base::error::Error;
    /// use ractor_persistence::bucket::Retry;
    /// use ractor_persistence::record;
    /// use ractor_persistence::records::{BucketDefinition, Field, Patch};
    /// use ractor_persistence::store::Store;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let store = Store::builder("bank").start().await?;
    /// let account = |name| {
    ///     BucketDefinition::new(name).key("id").field("id", Field::string()).field("amount", Field::int().min(0))
    /// };
    /// let savings = store.define_bucket(account("savings")).await?;
    /// let current = store.define_bucket(account("current")).await?;
    /// savings.insert(record! { "id": "ada", "amount": 100 }).await?;
    /// current.insert(record! { "id": "ada", "amount": 0 }).await?;
    /// store
    ///     .transaction(|tx| async move {
    ///         tx.bucket("savings")?.patch("ada", Patch::new().increment("amount", -30)).await?;
    ///         tx.bucket("current")?.patch("ada", Patch::new().increment("amount", 30)).await?;
    ///         Ok::<_, Error>(())
    ///     })
    ///     .retry(Retry::default())
    ///     .await?;
    /// assert_eq!(current.get("ada").await?.unwrap().get("amount"), Some(&30.into()));
    /// # Ok::<_, Error>(())
    /// # }).unwrap();
    /// ```
    pub fn transaction<'a, F, Fut>(&self, function: F) -> TransactionBuilder<'a, F>
    where
        F: FnMut(Transaction) -> Fut + Send + 'a,
        Fut: Future + Send + 'a,
    {
        TransactionBuilder::new(self.inner.directory.clone(), self.inner.coordinator.clone(), function)
    }

    /// Removes the records that have expired, in all buckets, without waiting for the next tick; answers how many.
    ///
    /// # Errors
    /// `Timeout`, `ActorLost`, `Stopping`.
    pub async fn purge_expired(&self) -> Result<usize> {
        self.inner.admit()?;
        self.inner.purge_expired().await
    }

    /// Ends a bucket and deletes what is stored of it. Handles then get `BucketNotDefined`. Of a bucket that is opted out
    /// with `persistent(false)`, what is on disk under its name stays: to delete that, define it without opting out first.
    ///
    /// # Errors
    /// `BucketNotDefined`, `Stopping`, and what the adapter answers: then the bucket serves on and its data is there.
    ///
    /// # Cancel safety
    /// A drop that has begun goes on when its future is dropped.
    pub async fn drop_bucket(&self, name: &str) -> Result<()> {
        self.inner.end_bucket(&BucketName::new(name)?, Fate::Drop).await
    }

    /// Ends a bucket and keeps what is stored of it, once everything is saved. Handles then get `BucketNotDefined`.
    ///
    /// # Errors
    /// `BucketNotDefined`, `Stopping`, and what the last commit answers: then the bucket serves on.
    ///
    /// # Cancel safety
    /// A detachment that has begun goes on when its future is dropped.
    pub async fn detach_bucket(&self, name: &str) -> Result<()> {
        self.inner.end_bucket(&BucketName::new(name)?, Fate::Detach).await
    }

    /// Opens a channel: loads what is stored under its id, makes it consistent, starts the channel's actor. Concurrent
    /// openings share it, and so does one of a channel that is open with the same options.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidOptions` with every fault, or if the channel is open with others; `Unsupported` where the
    /// adapter keeps no channels or has not the durability; `Corrupt`, `UnknownFormat` and whatever else the adapter
    /// answers: then the stored data is as it was. `Stopping`.
    ///
    /// # Cancel safety
    /// An opening that has begun goes on when its future is dropped.
    pub async fn open_channel(&self, id: &str, options: ChannelOptions) -> Result<Channel> {
        self.inner.open_channel(ChannelId::new(id)?, options).await
    }

    /// Opens a channel on a snapshot: what [`Channel::export`] answered, elsewhere or before, or what nim-sds has saved.
    /// History, unacknowledged and parked messages, requests and clock are as there; retrieval hints are not in it. What
    /// the snapshot has to say comes as events, as when opening. Above `Ram` it is saved when this returns.
    ///
    /// A message's author and clock belong to one place: an exported channel is to be used where it was exported or where
    /// it was imported, not in both.
    ///
    /// ```
    /// use ractor_persistence::sds::ChannelOptions;
    /// use ractor_persistence::store::Store;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let options = || ChannelOptions::default().with_participant("alice");
    /// let (here, there) = (Store::builder("here").start().await?, Store::builder("there").start().await?);
    /// let channel = here.open_channel("room", options()).await?;
    /// channel.wrap("m1", "hello").await?;
    /// let moved = there.import_channel("room", options(), channel.export().await?).await?;
    /// assert_eq!(moved.history().await?, channel.history().await?);
    /// assert_eq!(moved.stats().await?.unacknowledged, 1);
    /// # Ok::<(), ractor_persistence::base::error::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `ChannelExists` where one of this id is open or stored; `MalformedMessage`, `UnknownFormat`, `TooManyEntries`,
    /// `InvalidId` for bytes that are no snapshot, `WrongChannel` for one of another channel; and as
    /// [`open_channel`](Self::open_channel): nothing has changed then. `NotSaved`: the channel is open, and saving it is
    /// tried again.
    ///
    /// # Cancel safety
    /// An import that has begun goes on when its future is dropped.
    pub async fn import_channel(
        &self,
        id: &str,
        options: ChannelOptions,
        snapshot: impl Into<Bytes>,
    ) -> Result<Channel> {
        self.inner.import_channel(ChannelId::new(id)?, options, snapshot.into()).await
    }

    /// Hands a packet to the channel whose id it carries, and answers that channel too: [`Channel::receive`] for who has
    /// one transport for many channels. What becomes of a packet whose channel is not open is up to
    /// [`StoreBuilder::auto_create`].
    ///
    /// ```
    /// use ractor_persistence::base::error::Error;
    /// use ractor_persistence::sds::{ChannelOptions, ReceiveStatus};
    /// use ractor_persistence::store::{AutoCreate, Store};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let peer = Store::builder("peer").start().await?;
    /// let packet = peer.open_channel("room", ChannelOptions::default()).await?.wrap("m1", "hello").await?;
    ///
    /// let closed = Store::builder("closed").start().await?;
    /// assert!(matches!(closed.receive(&packet).await, Err(Error::UnknownChannel { .. })));
    /// let options = ChannelOptions::default().with_participant("us");
    /// let open = Store::builder("open").auto_create(AutoCreate::UpTo(256, options)).start().await?;
    /// let (room, received) = open.receive(&packet).await?;
    /// assert_eq!((room.id().as_str(), received.status), ("room", ReceiveStatus::Delivered));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `MalformedMessage`, `TooManyEntries`, `InvalidId` for what is no packet; `UnknownChannel`; `TooManyChannels` and
    /// what [`open_channel`](Self::open_channel) answers where a channel is to be opened; what [`Channel::receive`]
    /// answers.
    pub async fn receive(&self, bytes: impl AsRef<[u8]>) -> Result<(Channel, Received)> {
        self.inner.receive(Bytes::copy_from_slice(bytes.as_ref())).await
    }

    /// Ends a channel and keeps what is stored of it, once everything is saved. Handles then get `UnknownChannel`.
    ///
    /// # Errors
    /// `UnknownChannel`, `Stopping`, and what the last commit answers: then the channel serves on.
    pub async fn close_channel(&self, id: &str) -> Result<()> {
        self.inner.end_channel(ChannelId::new(id)?, Fate::Detach).await
    }

    /// Ends a channel, open or not, and deletes what is stored of it. Handles then get `UnknownChannel`.
    ///
    /// # Errors
    /// `InvalidName`, `Stopping`, and what the adapter answers: then the channel serves on and its data is there.
    pub async fn drop_channel(&self, id: &str) -> Result<()> {
        self.inner.end_channel(ChannelId::new(id)?, Fate::Drop).await
    }

    /// The events of a channel, open already or later, from now on.
    ///
    /// # Errors
    /// `InvalidName`.
    pub fn subscribe_channel(&self, id: &str) -> Result<ChannelEvents> {
        Ok(ChannelEvents::of(&self.inner.bus, &ChannelId::new(id)?))
    }

    /// Where the store's events are published.
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// A bounded stream of the events whose topics match a pattern such as `bucket.users.*`.
    ///
    /// # Errors
    /// `InvalidArgument` if the text is no pattern.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription> {
        Ok(self.inner.bus.subscribe(Pattern::parse(pattern)?))
    }

    /// Waits until everything accepted so far is saved; at once without an adapter.
    ///
    /// # Errors
    /// What the commit said: everything is kept and retried. `Stopping`.
    pub async fn flush(&self) -> Result<()> {
        match &self.inner.persister {
            Some(persister) => persister.flush(None).await,
            None => self.inner.admit(),
        }
    }

    /// Saves everything accepted so far, then copies what the adapter holds, of all its stores, to `target`, while the
    /// store serves on; answers how many bytes were written. To restore, open an adapter on the copy.
    ///
    /// # Errors
    /// `Unsupported` without an adapter, or where the back-end has means of its own; `InvalidArgument` if something is
    /// at `target`; what the commit or the adapter answers otherwise. `Stopping`. Nothing is left at `target` then, except
    /// that after `Unknown` a copy that is whole may be there.
    pub async fn backup(&self, target: impl Into<PathBuf>) -> Result<u64> {
        self.inner.admit()?;
        self.persister("a backup")?.backup(target.into()).await
    }

    /// Has the adapter give back the space that it does not need any more; commits wait meanwhile. Answers by how many
    /// bytes what is stored shrank.
    ///
    /// # Errors
    /// `Unsupported` without an adapter, or where there is nothing of that kind to do; what the adapter answers
    /// otherwise. `Stopping`.
    pub async fn compact(&self) -> Result<u64> {
        self.inner.admit()?;
        self.persister("compacting")?.compact().await
    }

    fn persister(&self, what: &str) -> Result<&Persister> {
        self.inner.persister.as_ref().ok_or_else(|| Error::unsupported(format!("{what} without an adapter")))
    }

    /// How saving is doing; without an adapter there is nothing that could be wrong with it.
    pub fn health(&self) -> Health {
        match &self.inner.persister {
            _ if self.inner.is_stopping() => Health::Stopped,
            Some(persister) => persister.health(),
            None => Health::Healthy,
        }
    }

    /// The store's numbers. Asks every bucket, and counts none that does not answer.
    pub async fn stats(&self) -> StoreStats {
        let names: Vec<BucketName> = lock(&self.inner.buckets).keys().cloned().collect();
        let mut records = 0;
        for name in &names {
            if let Ok(bucket) = self.inner.bucket(name.as_str())
                && let Ok(stats) = bucket.stats().await
            {
                records += stats.records;
            }
        }
        let persistence = self.inner.persister.as_ref().map_or_else(PersistenceStats::default, Persister::stats);
        StoreStats {
            store: self.inner.name.clone(),
            buckets: names.len(),
            channels: lock(&self.inner.channels).values().filter(|entry| entry.live().is_some()).count(),
            records,
            queries: self.inner.queries.count(),
            subscriptions: self.inner.live.count(),
            ttl_check_interval: self.inner.ttl_check_interval,
            subscribers: self.inner.bus.subscriber_count(),
            persistence,
        }
    }

    /// Stops the store: refuses what is new, finishes what was accepted, saves, closes the adapter. The report tells
    /// what could not be saved within `stop_timeout`; a stop that has been reported before is reported again.
    ///
    /// # Errors
    /// None at present; what went wrong with saving is in the report.
    pub async fn stop(&self) -> Result<StopReport> {
        let inner = Arc::clone(&self.inner);
        // In a task of its own, so that stopping goes on when nobody waits for it any more.
        let work = tokio::spawn(async move { inner.shut_down().await });
        let report = work.await.map_err(|error| blocking::lost("stopping", &error))?;
        if let Some(supervisor) = self.inner.supervisor.get() {
            // A supervisor that is dead already is as good as stopped.
            let _dead = supervisor.stop_and_wait(None, None).await;
        }
        Ok(report)
    }
}
