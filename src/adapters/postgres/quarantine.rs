//! Data that could not be read, moved out of the way as it is.

use std::sync::Arc;

use tokio_postgres::types::ToSql;

use crate::adapters::postgres::fault::Fault;
use crate::adapters::postgres::pool::Pool;
use crate::adapters::postgres::statement::Sql;
use crate::base::clock::{Clock, SystemClock};
use crate::base::error::{Error, Place, Result};
use crate::base::name::{StoreName, Subject};
use crate::base::utc::Utc;
use crate::persistence::{Epoch, Quarantined, RawRow};

/// The tables of a subject: table, column of its name, key.
fn sources(subject: &Subject) -> [(&'static str, &'static str, &'static str); 3] {
    match subject {
        Subject::Bucket(_) => {
            [("buckets", "bucket", "''::bytea"), ("records", "bucket", "key"), ("requests", "bucket", "revision")]
        }
        Subject::Channel(_) => {
            [("channels", "channel", "''::bytea"), ("history", "channel", "message"), ("hints", "channel", "message")]
        }
    }
}

/// Moves everything of a subject away and answers under which name it can be found. Under a claim that is not the newest
/// one, nothing is moved: the data is somebody else's.
pub(super) async fn move_away(
    pool: &Arc<Pool>,
    schema: &str,
    beginning: &str,
    store: &StoreName,
    claimed: Option<Epoch>,
    subject: &Subject,
) -> Result<String> {
    const OPERATION: &str = "moving data into quarantine";
    let told = |fault: Fault| fault.into_error(OPERATION, claimed.unwrap_or_default().0);
    let lease = pool.lease().await.map_err(told)?;
    let moving = async {
        let client = lease.client()?;
        client.batch_execute(beginning).await?;
        if let Some(epoch) = claimed {
            let row = client.query_opt(&Sql::LockEpoch.text(schema), &[&store.as_str()]).await?;
            let current: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
            let current = current.and_then(|current| u64::try_from(current).ok()).unwrap_or_default();
            if current != epoch.0 {
                return Err(Fault::Fenced(current));
            }
        }
        let moved_at = SystemClock.now_ms();
        let kind = match subject {
            Subject::Bucket(_) => "bucket",
            Subject::Channel(_) => "channel",
        };
        let base = format!("{store}/{kind}/{}.quarantine-{}", subject.shown_name(), Utc(moved_at));
        let (store, told) = (store.as_str(), subject.to_string());
        let insert = format!(
            "INSERT INTO {schema}.quarantine (name, store, subject, moved_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING"
        );
        let mut name = base.clone();
        let mut attempt = 1_u32;
        while client.execute(&insert, &[&name, &store, &told, &moved_at]).await? == 0 {
            attempt += 1;
            name = format!("{base}-{attempt}");
        }
        for (table, column, key) in sources(subject) {
            let sql = format!(
                "WITH gone AS (DELETE FROM {schema}.{table} WHERE store = $1 AND {column} = $2 RETURNING {key} AS key, data)
                 INSERT INTO {schema}.quarantine_rows (name, source, key, value) SELECT $3, $4, key, data FROM gone"
            );
            let parameters: [&(dyn ToSql + Sync); 4] = [&store, &subject.name(), &name, &table];
            client.execute(&sql, &parameters).await?;
        }
        Ok::<String, Fault>(name)
    };
    let name = moving.await.map_err(told)?;
    let committed = async { Ok::<(), Fault>(lease.client()?.batch_execute("COMMIT").await?) };
    committed.await.map_err(|fault| fault.into_unknown(OPERATION))?;
    lease.give_back();
    Ok(name)
}

/// Everything that lies in quarantine, by name.
pub(super) async fn list(pool: &Arc<Pool>, schema: &str) -> Result<Vec<Quarantined>> {
    const OPERATION: &str = "reading the quarantine";
    let reading = async {
        let lease = pool.lease().await?;
        // One statement sees one state.
        let sql = format!(
            "SELECT q.name, q.store, q.subject, q.moved_at, r.source, r.key, r.value FROM {schema}.quarantine AS q
             LEFT JOIN {schema}.quarantine_rows AS r ON r.name = q.name ORDER BY q.name, r.source, r.key"
        );
        let rows = lease.client()?.query(&sql, &[]).await?;
        lease.give_back();
        let mut found: Vec<(String, String, String, i64, Vec<RawRow>)> = Vec::new();
        for row in rows {
            let name: String = row.try_get(0)?;
            if found.last().is_none_or(|(last, ..)| *last != name) {
                found.push((name, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, Vec::new()));
            }
            let (table, key, value): (Option<String>, Option<&[u8]>, Option<&[u8]>) =
                (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
            if let (Some(table), Some(key), Some(value), Some(last)) = (table, key, value, found.last_mut()) {
                last.4.push(RawRow::new(table, key.to_vec(), value.to_vec()));
            }
        }
        Ok::<_, Fault>(found)
    };
    let found = reading.await.map_err(|fault| fault.into_error(OPERATION, 0))?;
    let named = |(name, store, subject, moved_at, rows): (String, String, String, i64, Vec<RawRow>)| {
        let store = StoreName::new(store)
            .map_err(|error| Error::corrupt(Place::new("quarantine").at(name.clone()), error.to_string()))?;
        Ok(Quarantined::new(name, store, subject, moved_at, rows))
    };
    found.into_iter().map(named).collect()
}
