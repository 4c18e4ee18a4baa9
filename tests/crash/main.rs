//! What is on disk when the process is killed: a child process writes under load and tells on its standard output what
//! it was promised; it is killed with SIGKILL at a random moment; this process opens the file and compares.
//!
//! Were this broken, state that an application was told to be safe would be gone after a crash, or come back torn.
//!
//! The child is this very test binary, run again with the ignored test `child` alone. Seeds are printed; what a child
//! has done when it is killed depends on the machine all the same. `RACTOR_PERSISTENCE_CRASH_SECONDS` sets for how long
//! children are killed under load, per adapter (default 10), `RACTOR_PERSISTENCE_CRASH_SEED` the seed.
//!
//! A server of PostgreSQL lives on when its client is killed: what was acknowledged has to be there for the next one.
//!
//! `told` is what the two processes say to each other, `child` the one that is killed, `victim` the hold on it,
//! `account` what it was promised and what that entails, `data` what is in the bucket; `upkeep` and `pairs` have children
//! of their own.
#![cfg(all(unix, feature = "redb", feature = "json-file"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(missing_docs, reason = "nobody uses a test from outside")]

mod account;
mod child;
mod data;
mod pairs;
mod random;
mod rounds;
#[cfg(feature = "postgres")]
#[path = "../postgres/server.rs"]
mod server;
mod told;
mod upkeep;
mod victim;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use ractor_persistence::base::error::Result;
use ractor_persistence::persistence::StorageAdapter;

/// An adapter under test.
#[derive(Clone, Copy)]
struct Backend {
    /// The module of its tests.
    name: &'static str,
    /// On what belongs to a directory.
    open: fn(PathBuf) -> Opening,
    /// Removes what belongs to a directory and is not in it.
    clear: fn(&Path),
    /// What children find in their environment.
    environment: fn() -> Option<(&'static str, String)>,
}

/// A place that nobody else uses; what is there goes with it.
struct Ground {
    backend: Backend,
    directory: tempfile::TempDir,
}

impl Ground {
    fn of(backend: Backend) -> Self {
        Self { backend, directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            (self.backend.clear)(self.directory.path());
        }
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn StorageAdapter>>> + Send>>;

/// All tests for one adapter, which `$open` opens in a directory.
macro_rules! crash_tests {
    (
        $name:ident, $transactions:ident, $open:expr, $clear:expr, $environment:expr
        $(, $more:ident => $test:path)*
    ) => {
        mod $name {
            use super::*;

            const BACKEND: Backend = Backend {
                name: stringify!($name),
                open: |directory| {
                    Box::pin(async move {
                        let adapter = $open(directory).await?;
                        Ok(Arc::new(adapter) as Arc<dyn StorageAdapter>)
                    })
                },
                clear: $clear,
                environment: $environment,
            };

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn ps_16_a_clear_that_was_saved_stays_cleared_after_sigkill() {
                rounds::saved_clears(BACKEND).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn ps_17_purges_evictions_and_counters_survive_sigkill_after_their_saved_event() {
                upkeep::survives(BACKEND).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $transactions() {
                pairs::whole_or_not_at_all(BACKEND).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn ps_19_sigkill_under_load_loses_at_most_a_window_and_a_commit_and_never_an_fsync_write() {
                rounds::killed_under_load(BACKEND).await;
            }

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $more() {
                    $test(BACKEND).await;
                }
            )*

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "the process that the other tests start and kill"]
            async fn child() {
                child::run(BACKEND).await;
            }
        }
    };
}

crash_tests! {
    json_file,
    transactions_that_were_synced_are_there_after_sigkill,
    |directory: PathBuf| ractor_persistence::adapters::json_file::JsonFileAdapter::open(directory.join("data")),
    |_| {},
    || None,
    ps_23_a_second_store_on_the_same_directory_is_refused_with_locked => rounds::locked_out
}
crash_tests! {
    redb,
    ps_18_a_transaction_is_on_disk_whole_or_not_at_all_whenever_sigkill_comes,
    |directory: PathBuf| ractor_persistence::adapters::redb::RedbAdapter::open(directory.join("data.redb")),
    |_| {},
    || None,
    ps_23_a_second_store_on_the_same_file_is_refused_with_locked => rounds::locked_out
}
#[cfg(feature = "postgres")]
crash_tests! {
    postgres,
    ps_18_a_transaction_is_on_the_server_whole_or_not_at_all_whenever_sigkill_comes,
    |directory: PathBuf| async move {
        let options = ractor_persistence::adapters::postgres::PostgresOptions::default();
        let options = options.with_schema(schema(&directory));
        ractor_persistence::adapters::postgres::PostgresAdapter::connect_with(server::url(), options).await
    },
    |directory| drop(server::Place::called(schema(directory))),
    || Some(("DATABASE_URL", server::url().to_owned()))
}

/// The schema that belongs to a directory.
#[cfg(feature = "postgres")]
fn schema(directory: &Path) -> String {
    format!("crash {}", directory.file_name().unwrap().to_string_lossy())
}
