//! Packets of our own that come back, for some transports echo. They tell what we have seen ourselves, which acknowledges
//! nothing.

use crate::base::name::{MessageId, ParticipantId};
use crate::sds::sequence::Sequence;
use crate::sds::wire::Packet;

/// Which packets may be echoes, beyond messages of ours that are still outgoing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Echoes {
    /// Ids of sync messages of ours, and of messages of ours that are not outgoing any more, the newest ones.
    spoken: Sequence<()>,
    limit: usize,
    /// The timestamp of what would have been sent when the channel was loaded: what an earlier life said is not later.
    began: i64,
}

impl Echoes {
    pub(crate) fn new(limit: usize) -> Self {
        Self { spoken: Sequence::default(), limit, began: i64::MIN }
    }

    /// The channel comes back with messages of an earlier life, which has said more than is known.
    pub(crate) fn begin(&mut self, timestamp: i64) {
        self.began = timestamp;
    }

    pub(crate) fn spoke(&mut self, id: MessageId) {
        self.spoken.push_within(self.limit, id);
    }

    /// Whether we may have sent the packet ourselves. Others may use our name, so the name alone only counts for what is
    /// as old as our earlier lives: what others say later is heard.
    pub(crate) fn has(&self, packet: &Packet<'_>, me: &ParticipantId) -> bool {
        let early = packet.lamport_timestamp.is_some_and(|timestamp| timestamp <= self.began);
        let ours = !me.is_empty() && packet.sender_id == me.as_bytes();
        (early && ours) || self.spoken.contains(packet.message_id)
    }
}
