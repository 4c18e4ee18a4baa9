//! What a channel's actor is told.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ractor::RpcReplyPort;
use tokio::sync::oneshot;

use crate::base::error::Result;
use crate::base::name::MessageId;
use crate::sds::{ChannelStats, Received, SdsMessage};

/// What a channel's actor is told.
pub(crate) enum ChannelMessage {
    /// A message of ours, to be sent.
    Wrap(MessageId, Bytes, RpcReplyPort<Result<Answer<Bytes>>>),
    /// A packet of a peer's.
    Receive(Bytes, RpcReplyPort<Result<Answer<Received>>>),
    /// Causes that are waived.
    DependenciesMet(Vec<MessageId>, RpcReplyPort<Result<Answer<()>>>),
    /// Where a message may be found.
    Hint(MessageId, Bytes, RpcReplyPort<Result<bool>>),
    /// A message without content, to be sent.
    Sync(RpcReplyPort<Result<Answer<Bytes>>>),
    /// Everything, as nim-sds saves it.
    Export(RpcReplyPort<Result<Answer<Bytes>>>),
    /// Messages by (Lamport timestamp, id).
    History(RpcReplyPort<Result<Vec<Arc<SdsMessage>>>>),
    /// Ids that are waited for.
    Missing(RpcReplyPort<Result<Vec<MessageId>>>),
    /// Counters.
    Stats(RpcReplyPort<Result<ChannelStats>>),
    /// The timer has fired.
    Tick,
    /// What the last tick told has left.
    Released,
    /// Somebody else has changed the state, or it may be changed again: look when it is due.
    Wake,
}

/// Its kind alone: what it carries is the application's.
impl fmt::Debug for ChannelMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrap(..) => "Wrap",
            Self::Receive(..) => "Receive",
            Self::DependenciesMet(..) => "DependenciesMet",
            Self::Hint(..) => "Hint",
            Self::Sync(_) => "Sync",
            Self::Export(_) => "Export",
            Self::History(_) => "History",
            Self::Missing(_) => "Missing",
            Self::Stats(_) => "Stats",
            Self::Tick => "Tick",
            Self::Released => "Released",
            Self::Wake => "Wake",
        })
    }
}

#[cfg(feature = "cluster")]
impl ractor::Message for ChannelMessage {}

/// The answer of an operation that is in memory.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    /// The channel's revision: what the answer reveals is saved with it.
    pub(crate) revision: u64,
    /// Resolves when the operation's events have been raised, where they wait for a commit.
    pub(crate) told: Option<oneshot::Receiver<()>>,
}
