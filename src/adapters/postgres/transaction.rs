//! In which order a transaction is sent, and what the answers mean.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use crate::adapters::postgres::fault::Fault;
use crate::adapters::postgres::options::PostgresOptions;
use crate::adapters::postgres::pool::{Lease, Pool};
use crate::adapters::postgres::statement::Sql;
use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::jitter::jitter;
use crate::base::name::StoreName;
use crate::persistence::Epoch;

/// How often a transaction is tried that others are in the way of.
const ATTEMPTS: u32 = 5;
/// Most bytes of parameters that are under way at once: more are sent when these have been answered.
const WINDOW: usize = 32 << 20;

/// One statement with its parameters.
pub(super) struct Step {
    sql: Sql,
    parameters: Vec<Box<dyn ToSql + Send + Sync>>,
    bytes: usize,
}

impl Step {
    pub(super) fn new(sql: Sql, parameters: Vec<Box<dyn ToSql + Send + Sync>>) -> Self {
        Self { sql, parameters, bytes: 0 }
    }

    /// Says about how many bytes its parameters have.
    pub(super) fn of_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }
}

/// A parameter that does not show itself: the driver logs what it sends, which is what records hold.
struct Unshown<'a>(&'a (dyn ToSql + Sync));

impl fmt::Debug for Unshown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

type Unwritable = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Unshown<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Unwritable> {
        self.0.to_sql_checked(kind, out)
    }

    fn accepts(_: &Type) -> bool {
        // The parameter itself is asked when it is written.
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Unwritable> {
        self.0.to_sql_checked(kind, out)
    }

    fn encode_format(&self, kind: &Type) -> Format {
        self.0.encode_format(kind)
    }
}

/// Polls futures that each send something when they are polled first, so that it is sent in this order and without
/// waiting for the answers; waits for all of them.
pub(super) async fn in_order<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(answer) => *output = Some(answer),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

/// How a transaction that writes begins.
pub(super) fn beginning(options: &PostgresOptions, durability: Durability) -> String {
    let (statement, lock) = (options.statement_timeout.as_millis(), options.lock_timeout.as_millis());
    // With `off`, the server answers before it has synced, and syncs soon. Where it is off for everybody, those who ask
    // for `Fsync` still get it; any other setting syncs, here or on standbys too, and is left as it is.
    let synced = if durability < Durability::Fsync {
        "SET LOCAL synchronous_commit = off".to_owned()
    } else {
        "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
            .to_owned()
    };
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = {statement}; \
         SET LOCAL lock_timeout = {lock}; SET LOCAL idle_in_transaction_session_timeout = {statement}; {synced}"
    )
}

/// What failed, and whether the transaction may have been committed all the same.
struct Failure {
    fault: Fault,
    open: bool,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, open: false }
    }
}

/// Under which claim a transaction writes.
pub(super) struct Claimed<'a> {
    pub(super) store: &'a StoreName,
    pub(super) epoch: Epoch,
}

/// A transaction that writes.
pub(super) struct Writing<'a> {
    pub(super) operation: &'static str,
    pub(super) schema: &'a str,
    pub(super) beginning: &'a str,
    /// Whose claim has to be the newest one, if it matters.
    pub(super) claimed: Option<Claimed<'a>>,
    pub(super) steps: &'a [Step],
}

impl Writing<'_> {
    /// Writes all steps, or nothing.
    pub(super) async fn run(&self, pool: &Arc<Pool>) -> Result<()> {
        let mut attempt = 1;
        loop {
            match self.once(pool).await {
                Ok(()) => return Ok(()),
                Err(Failure { fault, open: true }) => return Err(fault.into_unknown(self.operation)),
                Err(Failure { fault: fault @ Fault::Conflict(_), open: false }) if attempt < ATTEMPTS => {
                    tracing::debug!(?fault, attempt, "a transaction was in another's way and is tried again");
                    tokio::time::sleep(Duration::from_millis(20).mul_f64(jitter() * f64::from(attempt))).await;
                    attempt += 1;
                }
                Err(Failure { fault, open: false }) => {
                    let epoch = self.claimed.as_ref().map_or(0, |claimed| claimed.epoch.0);
                    return Err(fault.into_error(self.operation, epoch));
                }
            }
        }
    }

    async fn once(&self, pool: &Arc<Pool>) -> Result<(), Failure> {
        let mut lease = pool.lease().await?;
        let needed: Vec<Sql> = self.steps.iter().map(|step| step.sql).chain([Sql::LockEpoch]).collect();
        lease.prepare(self.schema, &needed).await?;
        self.begin(&lease).await?;
        let mut rest = self.steps;
        loop {
            let mut bytes = 0_usize;
            let fits = rest.iter().take_while(|step| {
                let begun = bytes > 0;
                bytes = bytes.saturating_add(step.bytes);
                !begun || bytes <= WINDOW
            });
            let (now, later) = rest.split_at(fits.count());
            send(&lease, now, later.is_empty()).await?;
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        lease.give_back();
        Ok(())
    }

    /// Nothing is written before the answers to this are there: outside of a transaction, statements would be committed
    /// one by one.
    async fn begin(&self, lease: &Lease) -> Result<(), Fault> {
        let (client, lock) = lease.prepared(Sql::LockEpoch)?;
        let begin = client.batch_execute(self.beginning);
        let Some(Claimed { store, epoch }) = &self.claimed else {
            return Ok(begin.await?);
        };
        let store = store.as_str();
        let parameters: [&(dyn ToSql + Sync); 1] = [&store];
        // Sent in this order, which is that of their first polls.
        let (begun, row) = tokio::join!(begin, client.query_opt(lock, &parameters));
        begun?;
        let current: Option<i64> = row?.map(|row| row.try_get(0)).transpose()?;
        let current = current.and_then(|current| u64::try_from(current).ok()).unwrap_or_default();
        if current == epoch.0 { Ok(()) } else { Err(Fault::Fenced(current)) }
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send + 'a>>;

/// Sends a part of a transaction at once, and waits for all answers.
async fn send(lease: &Lease, steps: &[Step], commit: bool) -> Result<(), Failure> {
    let client = lease.client()?;
    // The driver itself refuses what cannot be written down: it does so when a statement is polled first. No `COMMIT` may
    // be sent behind it, because the server knows of nothing wrong.
    let (failed, committing) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut sending: Vec<Answer<'_>> = Vec::with_capacity(steps.len() + 1);
    for step in steps {
        let (client, statement) = lease.prepared(step.sql)?;
        let parameters: Vec<_> = step.parameters.iter().map(|parameter| Unshown(&**parameter)).collect();
        let failed = &failed;
        sending.push(Box::pin(async move {
            let parameters: Vec<_> = parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect();
            let answer = client.execute(statement, &parameters).await;
            failed.fetch_or(answer.is_err(), Ordering::Relaxed);
            answer.map(drop)
        }));
    }
    if commit {
        sending.push(Box::pin(async {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            committing.store(true, Ordering::Relaxed);
            client.batch_execute("COMMIT").await
        }));
    }
    let answers = in_order(sending).await;
    let committing = committing.load(Ordering::Relaxed);
    // Of several errors the first is the reason of the others.
    for (at, answer) in answers.into_iter().enumerate() {
        let Err(error) = answer else { continue };
        let at_commit = at == steps.len();
        // A statement that the server refused is one that rolls the transaction back. If the server has said nothing, or
        // nothing that can be understood, the `COMMIT` that was sent behind it may have been carried out; so it may if
        // that alone was not answered.
        let refused = if at_commit { !Fault::leaves_commit_open(&error) } else { error.as_db_error().is_some() };
        return Err(Failure { fault: Fault::of(&error), open: committing && !refused });
    }
    Ok(())
}

/// Reads in one transaction, which sees one state of the database. Nothing bounds how long the server may take: those
/// who load have a timeout of their own.
pub(super) const READING: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0";
