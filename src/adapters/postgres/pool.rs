//! Who has which connection, and what becomes of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio_postgres::{Client, NoTls, Statement};

use crate::adapters::postgres::fault::Fault;
use crate::adapters::postgres::options::PostgresOptions;
use crate::adapters::postgres::statement::Sql;
use crate::adapters::postgres::target::Target;
use crate::adapters::postgres::tls::Tls;

/// How long connections have to say goodbye when the pool is closed.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the server is asked to stop working for a connection that nobody waits for any more.
const CANCELLING: Duration = Duration::from_secs(2);

/// Connections to one server.
pub(super) struct Pool {
    target: Target,
    tls: Tls,
    connect_timeout: Duration,
    permits: Arc<Semaphore>,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    idle: Vec<Connection>,
    /// What moves the bytes of each connection; ends with it.
    tasks: JoinSet<()>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("target", &self.target).finish_non_exhaustive()
    }
}

struct Connection {
    client: Client,
    task: AbortHandle,
    /// What the server has prepared on it.
    statements: HashMap<Sql, Statement>,
}

impl Pool {
    pub(super) fn new(target: Target, tls: Tls, options: &PostgresOptions) -> Self {
        Self {
            target,
            tls,
            connect_timeout: options.connect_timeout,
            permits: Arc::new(Semaphore::new(options.connections)),
            shelf: Mutex::default(),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Nothing under the lock panics half-way through a change.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of one's own; waits until one is free, and makes one if none is open.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, Fault> {
        let closed = || Fault::passing("the connections are being closed");
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let ready = {
            let mut shelf = self.shelf();
            while shelf.tasks.try_join_next().is_some() {}
            loop {
                match shelf.idle.pop() {
                    // The server, or what is in between, has ended it meanwhile.
                    Some(connection) if connection.client.is_closed() => {}
                    other => break other,
                }
            }
        };
        let connection = match ready {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Lease { connection: Some(connection), pool: Arc::clone(self), _permit: permit })
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        let connecting = async {
            let config = &self.target.0;
            let (client, task) = match &self.tls.0 {
                Some(tls) => {
                    let (client, connection) = config.connect(tls.clone()).await?;
                    (client, self.spawn(connection))
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    (client, self.spawn(connection))
                }
            };
            Ok(Connection { client, task, statements: HashMap::new() })
        };
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::passing("the server did not answer within connect_timeout")),
        }
    }

    fn spawn<F>(&self, connection: F) -> AbortHandle
    where
        F: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        self.shelf().tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = ?Fault::of(&error), "a connection has ended");
            }
        })
    }

    /// Ends all connections, also those that somebody has; nobody is given one any more.
    pub(super) async fn close(&self) {
        self.permits.close();
        let mut tasks = {
            let mut shelf = self.shelf();
            shelf.idle.clear();
            std::mem::take(&mut shelf.tasks)
        };
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

/// A connection that one has for oneself. Dropped, it is thrown away, and what the server does for it is called off.
pub(super) struct Lease {
    /// Taken when the lease ends, not before.
    connection: Option<Connection>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    fn connection(&mut self) -> Result<&mut Connection, Fault> {
        self.connection.as_mut().ok_or_else(|| Fault::lasting("the connection was given back"))
    }

    pub(super) fn client(&self) -> Result<&Client, Fault> {
        let connection = self.connection.as_ref();
        connection.map(|one| &one.client).ok_or_else(|| Fault::lasting("the connection was given back"))
    }

    /// Has statements prepared that are not yet.
    pub(super) async fn prepare(&mut self, schema: &str, needed: &[Sql]) -> Result<(), Fault> {
        let connection = self.connection()?;
        let missing: Vec<Sql> = needed.iter().copied().filter(|sql| !connection.statements.contains_key(sql)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = missing.iter().map(|sql| sql.text(schema)).collect();
        let preparing = texts.iter().map(|text| connection.client.prepare(text)).collect();
        let prepared = crate::adapters::postgres::transaction::in_order(preparing).await;
        for (sql, statement) in missing.into_iter().zip(prepared) {
            connection.statements.insert(sql, statement?);
        }
        Ok(())
    }

    /// The client, and a statement that was prepared on it.
    pub(super) fn prepared(&self, sql: Sql) -> Result<(&Client, &Statement), Fault> {
        let connection = self.connection.as_ref();
        let found = connection.and_then(|one| Some((&one.client, one.statements.get(&sql)?)));
        found.ok_or_else(|| Fault::lasting("a statement was not prepared"))
    }

    /// Puts the connection back for others: only where no transaction is open on it and no answer outstanding.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            let mut shelf = self.pool.shelf();
            // A pool that was closed keeps nothing.
            if !self.pool.permits.is_closed() {
                shelf.idle.push(connection);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(Connection { client, task, .. }) = self.connection.take() else { return };
        let (false, Ok(runtime)) = (client.is_closed(), tokio::runtime::Handle::try_current()) else {
            task.abort();
            return;
        };
        // The server notices that its client is gone only when it writes to it. Asked over another connection, it stops
        // at once, and frees the locks.
        let (token, tls) = (client.cancel_token(), self.pool.tls.clone());
        runtime.spawn(async move {
            let cancelling = async {
                match tls.0 {
                    Some(tls) => token.cancel_query(tls).await,
                    None => token.cancel_query(NoTls).await,
                }
            };
            let outcome = tokio::time::timeout(CANCELLING, cancelling).await;
            if !matches!(outcome, Ok(Ok(()))) {
                tracing::debug!("the server could not be told that nobody waits any more");
            }
            task.abort();
            drop(client);
        });
    }
}
