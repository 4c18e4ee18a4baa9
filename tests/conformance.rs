//! Every adapter keeps every promise of the kit: one named test per promise and adapter.
//!
//! What a store trusts its adapter with rests on this. Were it broken, state would come back changed, partly or not at
//! all, and only after a restart would anybody notice.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests say what they expect by unwrapping it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Result;
use ractor_persistence::conformance;
use ractor_persistence::persistence::{Atomicity, Capabilities, StorageAdapter};
use ractor_persistence::testkit::conformance::PROMISES;
use ractor_persistence::testkit::{BackedUp, FaultAdapter};

#[allow(dead_code)]
#[path = "../examples/custom_adapter.rs"]
mod custom_adapter;

fn everything() -> Capabilities {
    Capabilities::default()
        .with_incremental(true)
        .with_atomicity(Atomicity::Whole)
        .with_fencing(true)
        .with_durability(Durability::Fsync)
        .with_channels(true)
}

conformance!(
    memory,
    factory = {
        let place = MemoryAdapter::default();
        move || std::future::ready(Ok(place.clone()))
    },
    capabilities = everything().with_survives_restart(false),
);

conformance!(
    faulty_without_faults,
    factory = {
        let place = FaultAdapter::new(MemoryAdapter::default());
        move || std::future::ready(Ok(place.clone()))
    },
    capabilities = everything().with_survives_restart(false),
);

#[cfg(feature = "json-file")]
conformance!(
    json_file,
    factory = {
        use ractor_persistence::adapters::json_file::JsonFileAdapter;
        let directory = tempfile::tempdir().unwrap();
        let backup = directory.path().join("backup");
        BackedUp::new(move || JsonFileAdapter::open(directory.path().join("place")), backup, JsonFileAdapter::open)
    },
    capabilities = everything().with_atomicity(Atomicity::PerSubject),
);

#[cfg(feature = "redb")]
conformance!(
    redb,
    factory = {
        use ractor_persistence::adapters::redb::RedbAdapter;
        let directory = tempfile::tempdir().unwrap();
        let backup = directory.path().join("backup.redb");
        BackedUp::new(move || RedbAdapter::open(directory.path().join("place.redb")), backup, RedbAdapter::open)
    },
    capabilities = everything(),
);

#[cfg(feature = "postgres")]
#[path = "postgres/server.rs"]
mod server;

#[cfg(feature = "postgres")]
conformance!(
    postgres,
    factory = {
        let place = server::Place::new();
        let open = move || {
            let (url, options) = (place.url().to_owned(), place.options());
            ractor_persistence::adapters::postgres::PostgresAdapter::connect_with(url, options)
        };
        ractor_persistence::testkit::Poisoned::new(open, server::poison())
    },
    capabilities = everything(),
);

fn custom_adapter(directory: PathBuf) -> custom_adapter::FileAdapter {
    custom_adapter::FileAdapter(Arc::new(directory.into()))
}

fn custom() -> Capabilities {
    Capabilities::default().with_atomicity(Atomicity::PerSubject)
}

conformance!(
    ps_31_the_custom_adapter_of_the_example_passes_the_kit,
    factory = {
        let directory = tempfile::tempdir().unwrap();
        move || std::future::ready(Ok(custom_adapter(directory.path().to_owned())))
    },
    capabilities = custom(),
);

/// All files and directories beside and above the place, with what the files hold.
fn surroundings(outer: &Path, place: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![outer.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path == place {
                continue;
            }
            if path.is_dir() {
                left.push(path.clone());
            }
            found.insert(path.clone(), std::fs::read(&path).ok());
        }
    }
    found
}

/// A place three levels down, with files around it that names full of `..` and separators would reach.
async fn stays_inside<A, Opening>(capabilities: Capabilities, open: impl Fn(PathBuf) -> Opening + Send + Sync)
where
    A: StorageAdapter,
    Opening: Future<Output = Result<A>> + Send,
{
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("a/a");
    std::fs::create_dir_all(&inner).unwrap();
    for file in ["a.json", "a/etc", "a/a.json", "a/a/a.json", "a/a/a"] {
        std::fs::write(outer.path().join(file), "somebody else's").unwrap();
    }
    let place = inner.join("place");
    let before = surroundings(outer.path(), &place);
    let about_names = PROMISES.iter().filter(|promise| promise.name.ends_with("_names_never_collide"));
    let mut examined = 0;
    for promise in about_names {
        let part = place.join(promise.name);
        std::fs::create_dir_all(&part).unwrap();
        let factory = || open(part.join("inner"));
        promise.examine(&factory, capabilities).await.unwrap();
        examined += 1;
    }
    assert_eq!(examined, 3);
    assert_eq!(surroundings(outer.path(), &place), before, "something outside of the place was touched");
}

#[tokio::test]
async fn no_name_escapes_the_directory_of_the_custom_adapter_or_collides() {
    stays_inside(custom(), |place| std::future::ready(Ok(custom_adapter(place)))).await;
}

#[cfg(all(feature = "json-file", feature = "redb"))]
#[tokio::test]
async fn ps_30_no_name_escapes_the_adapters_directory_or_collides() {
    use ractor_persistence::adapters::{json_file::JsonFileAdapter, redb::RedbAdapter};
    stays_inside(custom(), |place| std::future::ready(Ok(custom_adapter(place)))).await;
    stays_inside(everything().with_atomicity(Atomicity::PerSubject), JsonFileAdapter::open).await;
    stays_inside(everything(), RedbAdapter::open).await;
}
