//! Which tables there are, and since which version.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::adapters::postgres::fault::Fault;
use crate::adapters::postgres::options::PostgresOptions;
use crate::adapters::postgres::pool::Pool;
use crate::adapters::postgres::statement::quoted;
use crate::adapters::postgres::transaction::beginning;
use crate::base::durability::Durability;
use crate::base::error::{Error, Place, Result};

/// What each version adds to the one before it; the first one is version 1. A version that was released is never
/// changed again.
const MIGRATIONS: [&str; 1] = [VERSION_1];
/// The oldest server that is known to have everything.
const OLDEST_SERVER: i32 = 120_000;

const VERSION_1: &str = r#"
CREATE TABLE $schema.epochs (
    store text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE $schema.buckets (
    store text COLLATE "C", bucket text COLLATE "C",
    revision bigint, schema_version bigint, counter bigint,
    saved_at timestamptz NOT NULL DEFAULT now(),
    data bytea NOT NULL,
    PRIMARY KEY (store, bucket)
);
CREATE TABLE $schema.records (
    store text COLLATE "C", bucket text COLLATE "C", key bytea,
    place bigint,
    data bytea NOT NULL,
    doc jsonb,
    PRIMARY KEY (store, bucket, key)
);
CREATE TABLE $schema.requests (
    store text COLLATE "C", bucket text COLLATE "C", revision bytea,
    data bytea NOT NULL,
    PRIMARY KEY (store, bucket, revision)
);
CREATE TABLE $schema.channels (
    store text COLLATE "C", channel text COLLATE "C",
    saved_at timestamptz NOT NULL DEFAULT now(),
    data bytea NOT NULL,
    PRIMARY KEY (store, channel)
);
CREATE TABLE $schema.history (
    store text COLLATE "C", channel text COLLATE "C", message bytea,
    lamport bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (store, channel, message)
);
CREATE TABLE $schema.hints (
    store text COLLATE "C", channel text COLLATE "C", message bytea,
    data bytea NOT NULL,
    PRIMARY KEY (store, channel, message)
);
CREATE TABLE $schema.quarantine (
    name text COLLATE "C" PRIMARY KEY,
    store text COLLATE "C" NOT NULL,
    subject text NOT NULL,
    moved_at bigint NOT NULL
);
CREATE TABLE $schema.quarantine_rows (
    name text COLLATE "C" REFERENCES $schema.quarantine ON DELETE CASCADE,
    source text COLLATE "C", key bytea,
    value bytea NOT NULL,
    PRIMARY KEY (name, source, key)
);
"#;

/// The newest version, which is the only one that is written and read.
fn known() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Makes the schema what this release needs, whoever else does so at the same time.
///
/// # Errors
/// `UnknownFormat` if a later release has been here; `Permanent` for a server that is too old, keeps texts in another
/// encoding than UTF-8 or refuses; otherwise as the connection fails.
pub(super) async fn prepare(pool: &Arc<Pool>, options: &PostgresOptions) -> Result<()> {
    const OPERATION: &str = "preparing the schema";
    let lease = pool.lease().await.map_err(|fault| fault.into_error("connecting", 0))?;
    let told = |fault: Fault| fault.into_error(OPERATION, 0);
    let client = lease.client().map_err(told)?;
    check_server(client).await.map_err(told)?;
    let quoted = quoted(&options.schema);
    let found = version(client, &quoted).await.map_err(told)?;
    check(&options.schema, found)?;
    if found < known() {
        let outcome = migrate(client, &quoted, options).await.map_err(told)?;
        check(&options.schema, outcome)?;
    }
    lease.give_back();
    Ok(())
}

fn check(schema: &str, found: i32) -> Result<()> {
    if found <= known() {
        return Ok(());
    }
    Err(Error::UnknownFormat {
        format: "postgres schema".to_owned(),
        at: Place::new(format!("{schema}.migrations")),
        found: u64::try_from(found).unwrap_or_default(),
        known: u64::try_from(known()).unwrap_or_default(),
    })
}

async fn check_server(client: &Client) -> Result<(), Fault> {
    let asked = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
                 current_setting('fsync')";
    let row = client.query_one(asked, &[]).await?;
    let (version, encoding, fsync): (i32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if version < OLDEST_SERVER {
        let problem = format!("the server has version {}, the least is {}", version / 10_000, OLDEST_SERVER / 10_000);
        return Err(Fault::lasting(problem));
    }
    if encoding != "UTF8" {
        return Err(Fault::lasting(format!("the database has the encoding {encoding}, it must be UTF8")));
    }
    if fsync != "on" {
        tracing::warn!("fsync is off on the server: what it answers for can be lost in a power cut");
    }
    Ok(())
}

/// The newest version that was applied; 0 if none was.
async fn version(client: &Client, schema: &str) -> Result<i32, Fault> {
    let table = format!("{schema}.migrations");
    if client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?.try_get(0)? {
        let newest = client.query_one(&format!("SELECT max(version) FROM {table}"), &[]).await?;
        return Ok(newest.try_get::<_, Option<i32>>(0)?.unwrap_or_default());
    }
    Ok(0)
}

/// Applies what is missing; answers the version that was found.
async fn migrate(client: &Client, schema: &str, options: &PostgresOptions) -> Result<i32, Fault> {
    client.batch_execute(&beginning(options, Durability::Fsync)).await?;
    // Whoever comes second finds everything done. The number stands for the schema's name.
    let lock =
        i64::from_be_bytes(farmhash::fingerprint64(format!("ractor_persistence {schema}").as_bytes()).to_be_bytes());
    client.query("SELECT pg_advisory_xact_lock($1)", &[&lock]).await?;
    // Asked for first, because making one that is there needs the right to make one.
    let there = client.query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&schema]).await?;
    if !there.try_get::<_, bool>(0)? {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    }
    let found = version(client, schema).await?;
    if found < known() {
        client
            .batch_execute(&format!(
                "CREATE TABLE IF NOT EXISTS {schema}.migrations
                 (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            ))
            .await?;
        for (number, migration) in (1_i32..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
            client.batch_execute(&migration.replace("$schema", schema)).await?;
            client.execute(&format!("INSERT INTO {schema}.migrations (version) VALUES ($1)"), &[&number]).await?;
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(found)
}
