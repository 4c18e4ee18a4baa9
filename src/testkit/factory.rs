//! Where the adapter under test comes from.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::error::Result;
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
}
