//! Where the adapter under test comes from.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::error::{Error, Result};
use crate::persistence::{Save, StorageAdapter};

/// One place where an adapter keeps data, and the way to open it.
///
/// Each promise is given a place of its own, on which nothing is stored, and opens it again after closing what it had
/// open: on the same path for an adapter on files, a clone for one in memory. A temporary directory that the factory
/// owns is there for as long as the promise needs it.
///
/// Any closure that returns a future of an adapter is a factory:
///
/// ```
/// # use ractor_persistence::{adapters::memory::MemoryAdapter, testkit::Factory};
/// fn memory() -> impl Factory {
///     let place = MemoryAdapter::default();
///     move || std::future::ready(Ok(place.clone()))
/// }
/// ```
#[async_trait]
pub trait Factory: Send + Sync {
    /// Opens the adapter on this place.
    ///
    /// # Errors
    /// The adapter's own; a promise that did not expect it is broken by it.
    async fn open(&self) -> Result<Arc<dyn StorageAdapter>>;

    /// A save which the adapter refuses, if there is one: what it does to a commit that it is the last part of is then
    /// examined. It must not be about a bucket or channel named `atomic…`.
    fn poison(&self) -> Option<Save> {
        None
    }

    /// Where the adapter may make a backup of this place: a path that nothing has, another one for each number. Without
    /// one, backups are not examined.
    fn backup_target(&self, _number: u32) -> Option<PathBuf> {
        None
    }

    /// Opens the adapter on a backup that it has made.
    ///
    /// # Errors
    /// The adapter's own; `Unsupported` where there is no [`backup_target`](Self::backup_target).
    async fn open_backup(&self, _target: &Path) -> Result<Arc<dyn StorageAdapter>> {
        Err(Error::unsupported("opening a backup"))
    }
}

#[async_trait]
impl<F, Opening, A> Factory for F
where
    F: Fn() -> Opening + Send + Sync,
    Opening: Future<Output = Result<A>> + Send,
    A: StorageAdapter,
{
    async fn open(&self) -> Result<Arc<dyn StorageAdapter>> {
        Ok(Arc::new(self().await?))
    }
}

/// A factory whose adapter is known to refuse a certain save.
#[derive(Clone, Debug)]
pub struct Poisoned<F> {
    factory: F,
    poison: Save,
}

impl<F: Factory> Poisoned<F> {
    /// Adds the save that is refused, see [`Factory::poison`].
    pub fn new(factory: F, poison: Save) -> Self {
        Self { factory, poison }
    }
}

#[async_trait]
impl<F: Factory> Factory for Poisoned<F> {
    async fn open(&self) -> Result<Arc<dyn StorageAdapter>> {
        self.factory.open().await
    }

    fn poison(&self) -> Option<Save> {
        Some(self.poison.clone())
    }

    fn backup_target(&self, number: u32) -> Option<PathBuf> {
        self.factory.backup_target(number)
    }

    async fn open_backup(&self, target: &Path) -> Result<Arc<dyn StorageAdapter>> {
        self.factory.open_backup(target).await
    }
}

/// A factory whose adapter makes backups, and the way to open one.
///
/// ```
/// use ractor_persistence::testkit::{BackedUp, Factory};
/// # use ractor_persistence::adapters::json_file::JsonFileAdapter;
/// fn json_file() -> impl Factory {
///     let directory = tempfile::tempdir().unwrap();
///     let (place, backup) = (directory.path().join("place"), directory.path().join("backup"));
///     let open = move || {
///         let _kept = &directory;
///         JsonFileAdapter::open(place.clone())
///     };
///     BackedUp::new(open, backup, JsonFileAdapter::open)
/// }
/// assert!(json_file().backup_target(1).is_some());
/// ```
#[derive(Clone, Debug)]
pub struct BackedUp<F, O> {
    factory: F,
    target: PathBuf,
    open: O,
}

impl<F, O, Opening, A> BackedUp<F, O>
where
    F: Factory,
    O: Fn(PathBuf) -> Opening + Send + Sync,
    Opening: Future<Output = Result<A>> + Send,
    A: StorageAdapter,
{
    /// Adds where backups go, `target` with a number behind it, and how they are opened.
    pub fn new(factory: F, target: impl Into<PathBuf>, open: O) -> Self {
        Self { factory, target: target.into(), open }
    }
}

#[async_trait]
impl<F, O, Opening, A> Factory for BackedUp<F, O>
where
    F: Factory,
    O: Fn(PathBuf) -> Opening + Send + Sync,
    Opening: Future<Output = Result<A>> + Send,
    A: StorageAdapter,
{
    async fn open(&self) -> Result<Arc<dyn StorageAdapter>> {
        self.factory.open().await
    }

    fn poison(&self) -> Option<Save> {
        self.factory.poison()
    }

    fn backup_target(&self, number: u32) -> Option<PathBuf> {
        let mut target = self.target.clone().into_os_string();
        target.push(format!("-{number}"));
        Some(target.into())
    }

    async fn open_backup(&self, target: &Path) -> Result<Arc<dyn StorageAdapter>> {
        Ok(Arc::new((self.open)(target.to_path_buf()).await?))
    }
}
