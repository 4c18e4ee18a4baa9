//! What is asked of the adapter besides commits: loads, quarantine, copies.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, Subject};
use crate::persistence::event::Repair;
use crate::persistence::meter;
use crate::persistence::persister::handle::{Persister, isolated, lock, timely};
use crate::records::BucketSnapshot;
use crate::sds::{ChannelData, SdsMessage};

impl Persister {
    /// Loads a bucket, when its turn has come.
    ///
    /// # Errors
    /// What the adapter said; `Transient` where it took too long.
    pub(crate) async fn load_bucket(&self, name: &BucketName) -> Result<Option<BucketSnapshot>> {
        let key = BucketKey::new(self.shared.store.clone(), name.clone());
        let adapter = Arc::clone(&self.shared.adapter);
        let subject = Subject::Bucket(name.clone());
        let span = tracing::debug_span!(
            "bucket.load", store = %self.shared.store, %subject, records = Empty, bytes = Empty
        );
        let size = |loaded: &Option<BucketSnapshot>| {
            let records = loaded.as_ref().map_or(&[][..], |snapshot| &snapshot.records);
            ("records", records.len(), records.iter().map(|record| record.estimated_bytes()).sum())
        };
        self.load(&subject, span, size, async move { adapter.load_bucket(&key).await }).await
    }

    /// Loads a channel, when its turn has come.
    ///
    /// # Errors
    /// What the adapter said; `Transient` where it took too long.
    pub(crate) async fn load_channel(&self, id: &ChannelId) -> Result<ChannelData> {
        let key = ChannelKey::new(self.shared.store.clone(), id.clone());
        let adapter = Arc::clone(&self.shared.adapter);
        let subject = Subject::Channel(id.clone());
        let span = tracing::debug_span!(
            "channel.load", store = %self.shared.store, %subject, messages = Empty, bytes = Empty
        );
        let size = |loaded: &ChannelData| {
            let history = &loaded.message_history;
            ("messages", history.len(), history.iter().map(SdsMessage::stored_bytes).sum())
        };
        self.load(&subject, span, size, async move { adapter.load_channel(&key).await }).await
    }

    /// `size` answers what is counted of what was loaded, how much of it there is, and its estimated bytes.
    async fn load<T, F>(
        &self,
        subject: &Subject,
        span: Span,
        size: impl Fn(&T) -> (&'static str, usize, usize),
        work: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let shared = &self.shared;
        let _turn = shared.loads.acquire().await.map_err(|_| Error::Stopping)?;
        let begun = Instant::now();
        let (asked, adapter, store) = (subject.clone(), Arc::clone(&shared.adapter), shared.store.clone());
        let work = async move {
            let loaded = work.await?;
            Ok((loaded, adapter.repairs(&store, &asked).await))
        };
        let operation = format!("loading {subject}");
        let within = timely(operation, shared.options.load_timeout, isolated("load", work.instrument(span.clone())));
        let ended = within.await;
        shared.counts.loads.fetch_add(1, Ordering::Relaxed);
        meter::loaded(&shared.store, begun.elapsed());
        let (loaded, repairs) = ended?;
        if !span.is_disabled() {
            let (what, count, bytes) = size(&loaded);
            span.record(what, count).record("bytes", bytes);
        }
        let _within = span.enter();
        for Repair { at, what } in &repairs {
            tracing::warn!(store = %shared.store, %subject, %at, what, "stored data was repaired");
        }
        if !repairs.is_empty() {
            lock(&shared.repairs).insert(subject.clone(), repairs);
        }
        Ok(loaded)
    }

    /// Moves what could not be read out of the way; answers where it is.
    ///
    /// # Errors
    /// What the adapter said: then nothing may be written over the data. `Fenced` where it is a later claim's by now.
    pub(crate) async fn quarantine(&self, subject: &Subject) -> Result<String> {
        self.claim_holds().await?;
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
