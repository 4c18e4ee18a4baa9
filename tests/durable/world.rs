//! What the tests share.

use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::adapters::json_file::JsonFileAdapter;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::persistence::{Backoff, PersistenceOptions, StorageAdapter};
use ractor_persistence::{Durable, Result, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counter {
    pub(crate) count: i64,
    pub(crate) by: Vec<String>,
}

/// Where a store keeps its data over restarts.
pub(crate) enum Place {
    Memory(MemoryAdapter),
    JsonFile(TempDir),
    Redb(TempDir),
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self::Memory(MemoryAdapter::default())
    }

    pub(crate) fn json_file() -> Self {
        Self::JsonFile(tempfile::tempdir().unwrap())
    }

    pub(crate) fn redb() -> Self {
        Self::Redb(tempfile::tempdir().unwrap())
    }

    pub(crate) async fn open(&self) -> Store {
        let adapter: Arc<dyn StorageAdapter> = match self {
            Self::Memory(adapter) => Arc::new(adapter.clone()),
            Self::JsonFile(directory) => Arc::new(JsonFileAdapter::open(directory.path()).await.unwrap()),
            Self::Redb(directory) => Arc::new(RedbAdapter::open(directory.path().join("shop.redb")).await.unwrap()),
        };
        Store::builder("shop").shared_adapter(adapter).persistence(options()).start().await.unwrap()
    }
}

pub(crate) fn options() -> PersistenceOptions {
    let retry = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
    PersistenceOptions::default().with_debounce(Duration::from_millis(20)).with_retry(retry)
}

pub(crate) async fn start(adapter: impl StorageAdapter) -> Store {
    Store::builder("shop").adapter(adapter).persistence(options()).start().await.unwrap()
}

pub(crate) async fn open<S: Default + Serialize + DeserializeOwned + 'static>(
    store: &Store,
    name: &str,
) -> Result<Durable<S>> {
    store.durable(name, DurableOptions::default()).await
}

pub(crate) async fn stop(store: Store) {
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
}
