//! What is asked of the adapter besides commits: loads, quarantine, copies.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, Subject};
use crate::persistence::persister::handle::{Persister, isolated};
use crate::records::BucketSnapshot;
use crate::sds::ChannelData;

impl Persister {
    /// Loads a bucket, when its turn has come.
    ///
    /// # Errors
    /// What the adapter said; `Transient` where it took too long.
    pub(crate) async fn load_bucket(&self, name: &BucketName) -> Result<Option<BucketSnapshot>> {
        let key = BucketKey::new(self.shared.store.clone(), name.clone());
        let adapter = Arc::clone(&self.shared.adapter);
        self.load(&Subject::Bucket(name.clone()), async move { adapter.load_bucket(&key).await }).await
    }

    /// Loads a channel, when its turn has come.
    ///
    /// # Errors
    /// What the adapter said; `Transient` where it took too long.
    pub(crate) async fn load_channel(&self, id: &ChannelId) -> Result<ChannelData> {
        let key = ChannelKey::new(self.shared.store.clone(), id.clone());
        let adapter = Arc::clone(&self.shared.adapter);
        self.load(&Subject::Channel(id.clone()), async move { adapter.load_channel(&key).await }).await
    }

    async fn load<T, F>(&self, subject: &Subject, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let _turn = self.shared.loads.acquire().await.map_err(|_| Error::Stopping)?;
        let limit = self.shared.options.load_timeout;
        let ended = tokio::time::timeout(limit, isolated("load", work)).await.map_err(|_| {
            let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
            Error::transient(format!("loading {subject}"), slow)
        })?;
        self.shared.counts.loads.fetch_add(1, Ordering::Relaxed);
        ended
    }

    /// Moves what could not be read out of the way; answers where it is.
    ///
    /// # Errors
    /// What the adapter said: then nothing may be written over the data.
    pub(crate) async fn quarantine(&self, subject: &Subject) -> Result<String> {
        let (shared, subject) = (Arc::clone(&self.shared), subject.clone());
        isolated("quarantine", async move { shared.adapter.quarantine(&shared.store, &subject).await }).await
    }

    /// Saves everything accepted so far, then has the adapter copy what it holds; answers the bytes written.
    ///
    /// # Errors
    /// What the commit or the adapter said.
    pub(crate) async fn backup(&self, target: PathBuf) -> Result<u64> {
        self.flush(None).await?;
        let shared = Arc::clone(&self.shared);
        isolated("backup", async move { shared.adapter.backup(&target).await }).await
    }

    /// Has the adapter give back what space it does not need; answers how many bytes that was.
    ///
    /// # Errors
    /// What the adapter said.
    pub(crate) async fn compact(&self) -> Result<u64> {
        let shared = Arc::clone(&self.shared);
        isolated("compact", async move { shared.adapter.compact().await }).await
    }
}
