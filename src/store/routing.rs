//! Packets find their channel by the id that they carry; one for a channel that is not open may open it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::base::blocking;
use crate::base::error::{Error, Result};
use crate::base::name::ChannelId;
use crate::channel::{Channel, Clocks};
use crate::sds::{ChannelOptions, ChannelState, Received, WireFormat, decode};
use crate::store::inner::{Inner, lock};

/// What [`Store::receive`](crate::store::Store::receive) does with a packet of a channel that is not open. Default:
/// [`Off`](Self::Off).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "a store has one")]
pub enum AutoCreate {
    /// It is refused with `UnknownChannel`.
    #[default]
    Off,
    /// The channel is opened with these options, unless so many are open that were opened in this way; 256 is a good
    /// number. Beyond it `TooManyChannels` is answered, until one of them is closed or dropped.
    ///
    /// Whoever can send packets chooses the ids, and what is stored under an id is loaded.
    UpTo(usize, ChannelOptions),
}

impl AutoCreate {
    pub(super) fn validate(&self) -> Result<()> {
        match self {
            Self::Off => Ok(()),
            Self::UpTo(_, options) => options.validate(),
        }
    }
}

/// The channels that packets have opened; some of them may have been closed since. Whoever opens another one holds it.
pub(super) type Created = Mutex<HashSet<ChannelId>>;

const FORMS: [WireFormat; 2] = [WireFormat::NimSds, WireFormat::Rfc];

impl Inner {
    /// Hands a packet to its channel, and answers that too.
    pub(super) async fn receive(self: &Arc<Self>, bytes: Bytes) -> Result<(Channel, Received)> {
        self.admit()?;
        let channel = match self.addressee(&bytes)? {
            Ok(channel) => channel,
            Err(id) => match &self.auto_create {
                AutoCreate::Off => return Err(Error::UnknownChannel { id }),
                AutoCreate::UpTo(limit, options) => self.create(&bytes, *limit, options).await?,
            },
        };
        let received = channel.take_in(bytes).await?;
        Ok((channel, received))
    }

    /// The open channel that a packet is for, or the id that it carries, escaped.
    ///
    /// The form is not guessed: a packet that is one in both forms goes to the channel that speaks the form in which it
    /// names it; whether a channel takes a packet is up to the channel.
    fn addressee(self: &Arc<Self>, bytes: &[u8]) -> Result<std::result::Result<Channel, String>> {
        let decoded = FORMS.map(|form| decode(form, bytes).map(|packet| (form, packet.channel_id)));
        let named = || {
            decoded.iter().flatten().filter_map(|(form, id)| {
                let (channel, speaks) = self.open_one(id)?;
                Some((channel, speaks == *form))
            })
        };
        if let Some((channel, _)) = named().find(|(_, speaks_it)| *speaks_it).or_else(|| named().next()) {
            return Ok(Ok(channel));
        }
        let [nim_sds, rfc] = decoded;
        let (_, id) = match (nim_sds, rfc) {
            (Err(error), Err(_)) => return Err(error),
            (Ok(found), _) | (_, Ok(found)) => found,
        };
        Ok(Err(id.escape_ascii().to_string()))
    }

    /// A channel that is open, with the form that it speaks.
    fn open_one(self: &Arc<Self>, id: &[u8]) -> Option<(Channel, WireFormat)> {
        let id = ChannelId::new(std::str::from_utf8(id).ok()?).ok()?;
        let entry = lock(&self.channels).get(&id).cloned()?;
        let live = entry.live().filter(|live| !live.is_ended())?;
        Some((self.channel_handle(&id, live), live.wire()))
    }

    /// Opens the channel that a packet is for, if the packet is one that a new channel takes.
    async fn create(self: &Arc<Self>, bytes: &Bytes, limit: usize, options: &ChannelOptions) -> Result<Channel> {
        let (inner, bytes, options) = (Arc::clone(self), bytes.clone(), options.clone());
        // In a task of its own, so that a channel which is open in the end is counted.
        let work = tokio::spawn(async move {
            let packet = decode(options.wire, &bytes)?;
            let id = std::str::from_utf8(packet.channel_id)
                .map_err(|_| Error::UnknownChannel { id: packet.channel_id.escape_ascii().to_string() })?;
            let id = ChannelId::new(id)?;
            let mut created = inner.created.lock().await;
            if let Some((channel, _)) = inner.open_one(packet.channel_id) {
                return Ok(channel);
            }
            created.retain(|id| inner.open_one(id.as_str().as_bytes()).is_some());
            if created.len() >= limit {
                return Err(Error::TooManyChannels { limit });
            }
            // A packet that is refused makes no channel.
            let now = Clocks::new(Arc::clone(&inner.clock)).now();
            drop(ChannelState::new(id.clone(), options.clone())?.receive(&bytes, now)?);
            match inner.open_channel(id.clone(), options).await {
                Ok(channel) => {
                    created.insert(id);
                    Ok(channel)
                }
                // Somebody else may have opened it meanwhile, with options of his own.
                Err(error) => inner.open_one(id.as_str().as_bytes()).map(|(channel, _)| channel).ok_or(error),
            }
        });
        work.await.unwrap_or_else(|error| Err(blocking::lost("opening a channel", &error)))
    }
}
