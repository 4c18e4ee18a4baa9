//! What a store holds.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio_postgres::Config;

use crate::adapters::postgres::fault::Fault;
use crate::adapters::postgres::options::PostgresOptions;
use crate::adapters::postgres::pool::Pool;
use crate::adapters::postgres::statement::{Sql, quoted};
use crate::adapters::postgres::target::Target;
use crate::adapters::postgres::tls::Tls;
use crate::adapters::postgres::transaction::{Claimed, Writing, beginning};
use crate::adapters::postgres::{apply, load, quarantine, schema};
use crate::base::blocking;
use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::{Atomicity, Capabilities, Commit, Epoch, Quarantined, Save, StorageAdapter};
use crate::records::{BucketChange, BucketSnapshot};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate};

/// How long closing waits for a commit that nobody waits for any more.
const PATIENCE: Duration = Duration::from_secs(1);
/// From so many records on, a commit is encoded on the blocking pool.
const MANY: usize = 1_000;

/// Keeps stores in a PostgreSQL database (encoding UTF-8; older servers than version 12 are refused, version 15 is what it
/// was tested with), which other processes and machines may use too: a store belongs to the one that claimed it last, and
/// whoever had it before is refused with `Fenced`.
///
/// Clones share their connections. These are ended when the last claim is released with
/// [`close`](StorageAdapter::close), or with the last clone.
///
/// What `sslmode` says, in the connection string:
///
/// | `sslmode` | encrypted | the server's certificate |
/// |---|---|---|
/// | `disable` | no | – |
/// | `prefer`, the default | if the server offers it | is not looked at: this keeps out who listens, not who interferes |
/// | `require` | always | must be for the host's name, by the system's roots, or by those in the file or directory that `SSL_CERT_FILE` or `SSL_CERT_DIR` name |
///
/// ```no_run
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use ractor_persistence::Store;
/// use ractor_persistence::adapters::postgres::PostgresAdapter;
///
/// let adapter = PostgresAdapter::connect("postgres://shop:secret@db.example.com/shop?sslmode=require").await?;
/// let store = Store::builder("shop").adapter(adapter).start().await?;
/// # store.stop().await?;
/// # Ok::<(), ractor_persistence::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct PostgresAdapter(Arc<Shared>);

struct Shared {
    target: Target,
    tls: Tls,
    options: PostgresOptions,
    /// The schema's name as it stands in SQL.
    schema: String,
    state: Mutex<State>,
    /// Held while connections are opened or ended.
    turn: tokio::sync::Mutex<()>,
    /// Of each store: held to write by who commits, also where the caller has gone away.
    gates: Mutex<HashMap<StoreName, Arc<RwLock<()>>>>,
}

#[derive(Default)]
struct State {
    pool: Option<Arc<Pool>>,
    /// Of each store that is claimed here the newest epoch, once it is known.
    claims: HashMap<StoreName, Option<Epoch>>,
}

/// Someone used an adapter whose connections are closed.
#[derive(Debug, thiserror::Error)]
#[error("the connections are closed; claim a store to open them again")]
struct Closed;

impl fmt::Debug for PostgresAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresAdapter")
            .field("target", &self.0.target)
            .field("schema", &self.0.options.schema)
            .finish_non_exhaustive()
    }
}

impl PostgresAdapter {
    /// Connects to the server of a connection string, a URL (`postgres://user:password@host:port/database`) or pairs of
    /// names and values (`host=… user=…`), and makes or migrates the schema.
    ///
    /// # Errors
    /// `InvalidArgument` if the string cannot be read; `Transient` if the server cannot be reached or has no room for
    /// another connection; `Permanent` if it refuses, is too old, or has a certificate that nobody vouches for;
    /// `UnknownFormat` if a later release has migrated the schema. No error contains the password.
    ///
    /// # Cancel safety
    /// If the future is dropped, the schema is either as it was or migrated.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::connect_with(url, PostgresOptions::default()).await
    }

    /// Connects with options of your own.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and `InvalidOptions`.
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub async fn connect_with(url: impl AsRef<str>, options: PostgresOptions) -> Result<Self> {
        Self::open(Target::parse(url.as_ref())?, options).await
    }

    /// Connects to the server of a configuration, for those whose password is not in a string.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub async fn connect_config(config: Config, options: PostgresOptions) -> Result<Self> {
        Self::open(Target::new(config), options).await
    }

    async fn open(target: Target, options: PostgresOptions) -> Result<Self> {
        options.check()?;
        let mode = target.0.get_ssl_mode();
        let tls = blocking::run("preparing TLS", move || Tls::of(mode)).await?;
        let shared = Shared {
            target,
            tls,
            schema: quoted(&options.schema),
            options,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            gates: Mutex::default(),
        };
        shared.opened().await?;
        Ok(Self(Arc::new(shared)))
    }

    /// Everything that [`quarantine`](StorageAdapter::quarantine) has moved away, of all stores, read into memory.
    ///
    /// # Errors
    /// As loading a bucket; damaged rows are no error, they are given as they are.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>> {
        quarantine::list(&self.0.pool("reading the quarantine")?, &self.0.schema).await
    }

    /// Saves without a look at the epoch.
    async fn save(&self, store: &StoreName, save: Save) -> Result<()> {
        self.0.write(store, None, Durability::Fsync, vec![save]).await
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, store: &StoreName) -> Arc<RwLock<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry_ref(store).or_default())
    }

    /// Waits for the end of the commits that were asked for before. Those that come later need not wait for a load: it sees
    /// one state of the database.
    async fn settled(&self, store: &StoreName) {
        drop(self.gate(store).read_owned().await);
    }

    fn pool(&self, operation: &str) -> Result<Arc<Pool>> {
        self.state().pool.clone().ok_or_else(|| Error::permanent(operation, Closed))
    }

    /// The connections; opened, and the schema looked at, if they are not.
    async fn opened(&self) -> Result<Arc<Pool>> {
        let _turn = self.turn.lock().await;
        if let Some(pool) = self.state().pool.clone() {
            return Ok(pool);
        }
        let pool = Arc::new(Pool::new(self.target.clone(), self.tls.clone(), &self.options));
        schema::prepare(&pool, &self.options).await?;
        self.state().pool = Some(Arc::clone(&pool));
        Ok(pool)
    }

    /// Ends the connections if nobody has a claim.
    async fn close_unclaimed(&self) {
        let _turn = self.turn.lock().await;
        let pool = {
            let mut state = self.state();
            if state.claims.is_empty() { state.pool.take() } else { None }
        };
        if let Some(pool) = pool {
            pool.close().await;
        }
    }

    fn beginning(&self, durability: Durability) -> String {
        beginning(&self.options, durability)
    }

    /// Writes in a task of its own, so that nothing can cut it off half-way, and so that whoever comes next finds it
    /// ended.
    async fn write(
        &self,
        store: &StoreName,
        epoch: Option<Epoch>,
        durability: Durability,
        saves: Vec<Save>,
    ) -> Result<()> {
        const OPERATION: &str = "commit";
        // In the caller's turn, so that the order in which commits are made is that in which they are asked for.
        let turn: OwnedRwLockWriteGuard<()> = self.gate(store).write_owned().await;
        let (pool, schema, beginning) = (self.pool(OPERATION)?, self.schema.clone(), self.beginning(durability));
        let store = store.clone();
        let writing = tokio::spawn(async move {
            let _turn = turn;
            let many = saves.iter().map(records).sum::<usize>() >= MANY;
            let steps = if many {
                let store = store.clone();
                blocking::run("encoding a commit", move || apply::steps(&store, &saves)).await?
            } else {
                apply::steps(&store, &saves)?
            };
            let claimed = epoch.map(|epoch| Claimed { store: &store, epoch });
            let writing =
                Writing { operation: OPERATION, schema: &schema, beginning: &beginning, claimed, steps: &steps };
            writing.run(&pool).await
        });
        // A panic or the runtime's end: the connection is thrown away, and the server decides.
        writing.await.unwrap_or_else(|error| Err(blocking::lost(OPERATION, &error)))
    }
}

/// How many records a save carries.
fn records(save: &Save) -> usize {
    match save {
        Save::Bucket(_, change) => change.len(),
        Save::History(_, update) => update.append.len(),
        _ => 0,
    }
}

/// Takes a store off the list of claims again, if claiming it came to nothing.
struct Reservation<'a> {
    shared: &'a Shared,
    store: &'a StoreName,
    kept: bool,
}

impl<'a> Reservation<'a> {
    /// Puts the store on the list, so that no closing of another one ends the connections meanwhile.
    fn new(shared: &'a Shared, store: &'a StoreName) -> Self {
        let mut state = shared.state();
        let new = !state.claims.contains_key(store);
        state.claims.entry_ref(store).or_default();
        drop(state);
        Self { shared, store, kept: !new }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.shared.state().claims.remove(self.store);
        }
    }
}

/// `Ram` and `Wal` are answered before the server has synced (`synchronous_commit = off`), `Fsync` after.
///
/// # Cancel safety
/// A commit whose turn has come is carried out even if its future is dropped; before that, it is not begun. Whatever is
/// asked of the same store afterwards waits for its end. A load that is dropped is called off.
#[async_trait]
impl StorageAdapter for PostgresAdapter {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .with_incremental(true)
            .with_atomicity(Atomicity::Whole)
            .with_fencing(true)
            .with_durability(Durability::Fsync)
            .with_channels(true)
            .with_survives_restart(true)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.save(&bucket.store, Save::Bucket(bucket.bucket.clone(), Arc::new(change.clone()))).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.0.settled(&bucket.store).await;
        load::bucket(&self.0.pool("loading a bucket")?, &self.0.schema, bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.save(&bucket.store, Save::DropBucket(bucket.bucket.clone())).await
    }

    async fn save_channel_meta(&self, channel: &ChannelKey, meta: &ChannelMeta) -> Result<()> {
        self.save(&channel.store, Save::ChannelMeta(channel.channel.clone(), Arc::new(meta.clone()))).await
    }

    async fn update_history(&self, channel: &ChannelKey, update: &HistoryUpdate) -> Result<()> {
        self.save(&channel.store, Save::History(channel.channel.clone(), Arc::new(update.clone()))).await
    }

    async fn load_channel(&self, channel: &ChannelKey) -> Result<ChannelData> {
        self.0.settled(&channel.store).await;
        load::channel(&self.0.pool("loading a channel")?, &self.0.schema, channel).await
    }

    async fn drop_channel(&self, channel: &ChannelKey) -> Result<()> {
        self.save(&channel.store, Save::DropChannel(channel.channel.clone())).await
    }

    async fn set_retrieval_hint(&self, channel: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<()> {
        let save = Save::Hint(channel.channel.clone(), message.clone(), Bytes::copy_from_slice(hint));
        self.save(&channel.store, save).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.0.write(&commit.store, Some(commit.epoch), commit.durability, commit.saves.clone()).await
    }

    /// Waits for a commit that is under way, of whatever process; any later one of theirs is fenced.
    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        const OPERATION: &str = "claiming the store";
        let mut reservation = Reservation::new(&self.0, store);
        let claiming = async {
            let pool = self.0.opened().await?;
            let claimed = async {
                let mut lease = pool.lease().await?;
                lease.prepare(&self.0.schema, &[Sql::Claim]).await?;
                lease.client()?.batch_execute(&self.0.beginning(Durability::Fsync)).await?;
                let (client, claim) = lease.prepared(Sql::Claim)?;
                let epoch: i64 = client.query_one(claim, &[&store.as_str()]).await?.try_get(0)?;
                client.batch_execute("COMMIT").await?;
                lease.give_back();
                u64::try_from(epoch).map(Epoch).map_err(|_| Fault::lasting("the epoch in the database is negative"))
            };
            // Whether or not it was committed, the next claim is higher.
            claimed.await.map_err(|fault| fault.into_error(OPERATION, 0))
        };
        match claiming.await {
            Ok(epoch) => {
                reservation.kept = true;
                if let Some(newest) = self.0.state().claims.get_mut(store) {
                    *newest = (*newest).max(Some(epoch));
                }
                Ok(epoch)
            }
            Err(error) => {
                drop(reservation);
                // Nobody else would end what was only opened for this claim.
                self.0.close_unclaimed().await;
                Err(error)
            }
        }
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        self.0.state().claims.remove(store);
        // One whose caller has gone away gets a moment to end; after that it is cut off with its connection, and what
        // became of it is for the next claim to find out, which waits for it.
        let ended = tokio::time::timeout(PATIENCE, self.0.gate(store).write_owned()).await;
        if ended.is_err() {
            tracing::warn!(%store, "a commit has not ended and is given up");
        }
        self.0.close_unclaimed().await;
        Ok(())
    }

    async fn quarantine(&self, store: &StoreName, subject: &Subject) -> Result<String> {
        let _turn = self.0.gate(store).write_owned().await;
        let pool = self.0.pool("moving data into quarantine")?;
        let claimed = self.0.state().claims.get(store).copied().flatten();
        let beginning = self.0.beginning(Durability::Fsync);
        quarantine::move_away(&pool, &self.0.schema, &beginning, store, claimed, subject).await
    }

    async fn backup(&self, _target: &Path) -> Result<u64> {
        Err(Error::unsupported("copying a PostgreSQL database from here, which is what pg_dump and pg_basebackup do,"))
    }

    async fn compact(&self) -> Result<u64> {
        Err(Error::unsupported("compacting a PostgreSQL database from here, which is what its autovacuum does,"))
    }
}
