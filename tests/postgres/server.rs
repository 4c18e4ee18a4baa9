//! A server for tests: the one that `DATABASE_URL` names, or a throwaway one of this machine, and a schema on it that
//! nobody else uses.
#![allow(dead_code, reason = "each that includes this uses a part")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use ractor_persistence::adapters::postgres::{PostgresAdapter, PostgresOptions};
use ractor_persistence::base::error::Result;
use ractor_persistence::base::name::ChannelId;
use ractor_persistence::persistence::Save;
use tokio_postgres::{Client, NoTls};

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres")
}

/// What the script prints; the test fails with what it complains of.
fn ask(arguments: &[&str]) -> String {
    let output = Command::new(script()).args(arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no PostgreSQL server to test with: {complaint}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The server that tests share. Without `DATABASE_URL` it is one that is gone when the test run has ended.
pub(crate) fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| match std::env::var("DATABASE_URL") {
        Ok(url) => url,
        // The runner's process: it runs all tests, each maybe in a process of its own.
        Err(_) => ask(&["share", &std::os::unix::process::parent_id().to_string()]),
    })
}

/// A server of one's own, to do with as one likes.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = ask(&["start", directory.path().to_str().unwrap()]);
        Self { directory, url }
    }

    fn tell(&self, command: &str) {
        ask(&[command, self.directory.path().to_str().unwrap()]);
    }

    /// As a crash of the machine's would: nothing is said and nothing written any more.
    pub(crate) fn kill(&self) {
        self.tell("kill");
    }

    /// Starts it again as one that only follows another, or as one of its own.
    pub(crate) fn become_standby(&self, standby: bool) {
        self.tell("stop");
        let sign = self.directory.path().join("data/standby.signal");
        if standby {
            std::fs::write(sign, "").unwrap();
        } else {
            std::fs::remove_file(sign).unwrap();
        }
        self.start_again();
    }

    /// The certificate of who made the server's.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.crt")
    }

    pub(crate) fn start_again(&self) {
        assert_eq!(ask(&["start", self.directory.path().to_str().unwrap()]), self.url);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = Command::new(script()).arg("stop").arg(self.directory.path()).status();
        assert!(stopped.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// A schema that nobody else uses; it is dropped with this.
pub(crate) struct Place {
    url: String,
    pub(crate) schema: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::on(url())
    }

    pub(crate) fn on(url: &str) -> Self {
        let schema = format!("test \"{}\"", uuid::Uuid::new_v4().simple());
        Self { url: url.to_owned(), schema }
    }

    /// A schema that somebody else may have made.
    pub(crate) fn called(schema: impl Into<String>) -> Self {
        Self { url: url().to_owned(), schema: schema.into() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions::default().with_schema(&self.schema)
    }

    pub(crate) async fn open(&self) -> Result<PostgresAdapter> {
        PostgresAdapter::connect_with(&self.url, self.options()).await
    }

    /// The schema as it stands in SQL.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    /// SQL of the test's own, with `$schema` for the schema.
    pub(crate) fn sql(&self, text: &str) -> String {
        text.replace("$schema", &self.quoted())
    }

    /// A connection beside the adapter's.
    pub(crate) async fn client(&self) -> Client {
        client(&self.url).await
    }
}

pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Runs `work` to its end wherever the caller is, in a runtime or not.
pub(crate) fn apart<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work)
        });
        running.join().unwrap()
    })
}

impl Drop for Place {
    fn drop(&mut self) {
        let dropping = async {
            if let Ok((client, connection)) = tokio_postgres::connect(&self.url, NoTls).await {
                tokio::spawn(connection);
                // The runtime that would end them may be the one that waits here.
                let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                           WHERE position($1 in query) > 0 AND pid <> pg_backend_pid()";
                client.query(end, &[&self.quoted()]).await.unwrap();
                let sql = self.sql("SET lock_timeout = '20s'; DROP SCHEMA IF EXISTS $schema CASCADE");
                client.batch_execute(&sql).await.unwrap();
            }
        };
        if !std::thread::panicking() {
            apart(dropping);
        }
    }
}

/// The same server for another role, with a password.
pub(crate) fn as_role(url: &str, role: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{role}:{password}@{place}")
}

/// A save that the server refuses: an index takes no id of so many bytes that do not repeat.
pub(crate) fn poison() -> Save {
    let mut random = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random.to_be_bytes()[0]
    })
    .take(9_000)
    .collect();
    Save::Hint(ChannelId::new("poison").unwrap(), bytes[..].into(), "hint".into())
}
