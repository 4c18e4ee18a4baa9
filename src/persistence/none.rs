//! What a store without an adapter has.

use async_trait::async_trait;

use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::name::{BucketKey, ChannelKey, MessageId};
use crate::persistence::port::{Capabilities, StorageAdapter};
use crate::records::{BucketChange, BucketSnapshot};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate};

/// Discards every write and loads nothing: what a store has without an adapter. Such a store treats every bucket and
/// channel as opted out, so its persister never runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPersistence;

#[async_trait]
impl StorageAdapter for NoPersistence {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .with_incremental(true)
            .with_durability(Durability::Ram)
            .with_channels(true)
            .with_survives_restart(false)
    }

    async fn save_bucket(&self, _bucket: &BucketKey, _change: &BucketChange) -> Result<()> {
        Ok(())
    }

    async fn load_bucket(&self, _bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        Ok(None)
    }

    async fn drop_bucket(&self, _bucket: &BucketKey) -> Result<()> {
        Ok(())
    }

    async fn save_channel_meta(&self, _channel: &ChannelKey, _meta: &ChannelMeta) -> Result<()> {
        Ok(())
    }

    async fn update_history(&self, _channel: &ChannelKey, _update: &HistoryUpdate) -> Result<()> {
        Ok(())
    }

    async fn load_channel(&self, _channel: &ChannelKey) -> Result<ChannelData> {
        Ok(ChannelData::default())
    }

    async fn drop_channel(&self, _channel: &ChannelKey) -> Result<()> {
        Ok(())
    }

    async fn set_retrieval_hint(&self, _channel: &ChannelKey, _message: &MessageId, _hint: &[u8]) -> Result<()> {
        Ok(())
    }
}
