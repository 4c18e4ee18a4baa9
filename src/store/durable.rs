//! Opens durable values of users' own actors.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::base::error::Result;
use crate::base::name::DurableName;
use crate::durable::{Durable, DurableOptions};
use crate::store::handle::Store;
use crate::store::inner::Inner;

impl Store {
    /// Opens the durable value of a name, for an actor's `pre_start`: what is stored, brought to the options' schema
    /// version, or what the options begin with; that is saved too. The first one that is opened loads all of them.
    ///
    /// A value that is open is taken over, with all changes, saved or not, as when an actor was killed and its successor
    /// starts: the handles before are refused with `Superseded` from then on.
    ///
    /// The store keeps its durable values in a reserved bucket, which is no bucket of users': it is not defined, counted or
    /// subscribed to as one. As something to be saved it is told of like any other, in `persistence.*.*` events, in
    /// statistics, health and reports, under a name of which [`BucketName::is_reserved`] is true.
    ///
    /// [`BucketName::is_reserved`]: crate::base::name::BucketName::is_reserved
    ///
    /// ```
    /// use ractor_persistence::durable::DurableOptions;
    /// use ractor_persistence::{Error, Store};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let store = Store::builder("shop").start().await?; // without an adapter: in memory
    /// let first = store.durable::<u32>("visits", DurableOptions::default()).await?;
    /// first.update(|visits| *visits += 1)?;
    /// let second = store.durable::<u32>("visits", DurableOptions::default()).await?;
    /// assert_eq!(second.get(), 1);
    /// assert!(matches!(first.update(|visits| *visits += 1), Err(Error::Superseded { .. })));
    /// # Ok::<_, Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `InvalidName`, `InvalidOptions` with every fault, `Unsupported` where the adapter has not the durability;
    /// `SchemaTooNew`, `Migration`; `Decode` if what is stored is of another type, `InvalidValue` if what it begins with or
    /// was migrated to cannot be stored, `UserCode` if code of the type's or the options' panics; `Corrupt` and whatever
    /// else the adapter answers, `Stopping`. Then what is stored, and who has it, is as it was.
    ///
    /// # Cancel safety
    /// Dropped, it has opened nothing.
    pub async fn durable<S>(&self, name: &str, options: DurableOptions<S>) -> Result<Durable<S>>
    where
        S: Serialize + DeserializeOwned,
    {
        self.inner.admit()?;
        let name = DurableName::new(name)?;
        self.inner.unless_stopping(self.inner.values_loaded.get_or_try_init(|| self.inner.load_values())).await?;
        Durable::open(&self.inner.values, &name, options)
    }
}

impl Inner {
    /// Loads what is stored of all durable values. Once it has succeeded, it is not done again.
    async fn load_values(&self) -> Result<()> {
        let begun = Instant::now();
        let Some(persister) = &self.persister else { return self.values.loaded(None).map(drop) };
        let (bucket, subject) = (self.values.bucket(), self.values.subject());
        let (stored, quarantine) = match persister.load_bucket(bucket).await {
            Ok(stored) => (stored, None),
            Err(error) => (None, Some(self.set_aside(persister, subject, error).await?)),
        };
        let count = self.values.loaded(stored)?;
        persister.recovered(subject, count, begun.elapsed(), quarantine);
        Ok(())
    }
}
