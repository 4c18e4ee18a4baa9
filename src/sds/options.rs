//! What a channel can be told to be.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{MAX_ID_BYTES, ParticipantId};

/// The bytes that a channel speaks. It is never guessed: a channel refuses the other form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WireFormat {
    /// As nim-sds writes them (<https://github.com/logos-messaging/nim-sds>).
    #[default]
    NimSds,
    /// As the SDS specification has them (<https://rfc.vac.dev/vac/raw/sds>).
    Rfc,
}

/// What a channel's Lamport clock counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClockUnit {
    /// Seconds, as nim-sds does: every message sent or received moves the clock on by at least one.
    #[default]
    Seconds,
    /// Milliseconds, as the specification does: sending moves it on, delivering at most catches up.
    Milliseconds,
}

/// What it means that a peer's bloom filter contains a message of ours. Bloom filters err, if rarely, and only to this
/// side: they never deny what they contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BloomAck {
    /// The message is acknowledged, though not for certain.
    #[default]
    Accept,
    /// The message may have been acknowledged: it is sent again half as often.
    Hint,
}

/// How a channel behaves and what bounds it. Bad values are refused where the channel is opened, all of them at once.
///
/// ```
/// use ractor_persistence::base::durability::Durability;
/// use ractor_persistence::sds::ChannelOptions;
/// let options = ChannelOptions::default().with_participant("alice").with_durability(Durability::Fsync);
/// assert!(options.validate().is_ok());
/// let fault = options.with_persistent(false).with_max_history(0).validate().unwrap_err();
/// assert_eq!(
///     fault.to_string(),
///     "invalid options: max_history is 0, not 1 to 1000000; durability above Ram needs a persistent channel"
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChannelOptions {
    /// Who we are, as the author of our messages: 0 to 1,024 bytes. Default: empty, which is nobody in particular.
    pub participant: ParticipantId,
    /// What a hit in a peer's bloom filter counts for. Default: [`BloomAck::Accept`].
    pub bloom_ack: BloomAck,
    /// The wire form. Default: [`WireFormat::NimSds`].
    pub wire: WireFormat,
    /// The clock's unit, the same for all peers of a channel. Default: [`ClockUnit::Seconds`].
    pub clock_unit: ClockUnit,
    /// How far ahead of the later of clock and wall clock a peer's timestamp may move the clock: 1 s or more, or `None`
    /// for any distance. Default: 1 day.
    pub max_clock_skew: Option<Duration>,
    /// Whether the channel is saved at all. Default: yes.
    pub persistent: bool,
    /// How safe a change is before it is answered; above `Ram` only where `persistent`. Default: `Ram`.
    pub durability: Durability,
    /// How many messages the history keeps: 1 to 1,000,000. Default: 1,000.
    pub max_history: usize,
    /// How many causes a message names at most: 0 to 1,024. Default: 10.
    pub max_causal_history: usize,
    /// How many ids the bloom filter is made for: 1 to 1,000,000. Default: 10,000.
    pub bloom_capacity: u32,
    /// How often the bloom filter may err: 0.000001 to 0.5. Default: 0.001.
    pub bloom_error_rate: f64,
    /// The most bytes of content that are sent or taken: 1 to 64 MiB. Default: 1 MiB.
    pub max_message_size: usize,
    /// The most bytes that `receive` takes: 1 to 64 MiB. Default: 2 MiB.
    pub max_packet_size: usize,
    /// How long a message waits for an acknowledgement before it is sent again: 1 ms to 1 day. Default: 60 s.
    pub resend_interval: Duration,
    /// How often a message is sent again before it is given up: 0 to 1,000. Default: 5.
    pub max_resend_attempts: u32,
    /// How often the channel looks for messages to send again, and for those that were parked for too long: 1 ms to 1
    /// day. Default: 60 s.
    pub buffer_sweep_interval: Duration,
    /// How often the channel looks for requests of peers to answer: 1 ms to 1 day. Default: 5 s.
    pub repair_sweep_interval: Duration,
    /// After how long without a message sent a channel tells what it has: 1 ms to 1 day, or `None` for never, as among
    /// peers of nim-sds, which would log it. Default: 30 s.
    pub sync_interval: Option<Duration>,
    /// How long a message may be parked: 1 ms or more, or `None` for as long as it takes. Default: none.
    pub park_timeout: Option<Duration>,
    /// How long to wait at least before asking for a missing message: 0 to 1 day. Default: 30 s.
    pub repair_t_min: Duration,
    /// How long to wait at most before asking for a missing message and before answering, and how long a request is kept
    /// from when it was first due; one that found no place in a message is kept for its turn: 0 to 1 day. Requests
    /// travel with messages, so it should be several times the `sync_interval`. Default: 300 s.
    pub repair_t_max: Duration,
    /// Into how many groups peers fall, of which the author's answers a request: 1 to 65,536. Default: 1.
    pub response_groups: u32,
    /// How many requests a message carries at most: 0 to 64. Default: 3.
    pub max_repair_requests: usize,
    /// The most messages that are asked for at a time; beyond it a missing one is announced and not asked for. Default:
    /// 1,000.
    pub max_requests: usize,
    /// The most requests of peers that wait to be answered; beyond it they are ignored. Default: 256.
    pub max_responses: usize,
    /// The most messages that wait for an acknowledgement; `wrap` answers `OutgoingFull`. Default: 10,000.
    pub max_outgoing: usize,
    /// The most messages that are parked; `receive` answers `ParkedFull`. A peer that was away parks as many as it
    /// missed, so this should be no less than its peers' `max_history`. Default: 1,000.
    pub max_parked: usize,
    /// The most bytes of parked messages (content, ids, authors and hints, and 128 for each cause); `receive` answers
    /// `ParkedFull`. Default: 16 MiB.
    pub max_parked_bytes: usize,
    /// The most ids that parked messages wait for; `receive` answers `ParkedFull`. Default: 10,000.
    pub max_missing: usize,
    /// How many ids are remembered of messages that are not in the history (any more), and as many of sync messages:
    /// beyond it the oldest is forgotten. Default: 10,000.
    pub max_remembered: usize,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            participant: ParticipantId::default(),
            bloom_ack: BloomAck::default(),
            wire: WireFormat::default(),
            clock_unit: ClockUnit::default(),
            max_clock_skew: Some(DAY),
            persistent: true,
            durability: Durability::default(),
            max_history: 1_000,
            max_causal_history: 10,
            bloom_capacity: 10_000,
            bloom_error_rate: 0.001,
            max_message_size: MIB,
            max_packet_size: 2 * MIB,
            resend_interval: Duration::from_secs(60),
            max_resend_attempts: 5,
            buffer_sweep_interval: Duration::from_secs(60),
            repair_sweep_interval: Duration::from_secs(5),
            sync_interval: Some(Duration::from_secs(30)),
            park_timeout: None,
            repair_t_min: Duration::from_secs(30),
            repair_t_max: Duration::from_secs(300),
            response_groups: 1,
            max_repair_requests: 3,
            max_requests: 1_000,
            max_responses: 256,
            max_outgoing: 10_000,
            max_parked: 1_000,
            max_parked_bytes: 16 * MIB,
            max_missing: 10_000,
            max_remembered: 10_000,
        }
    }
}

const MIB: usize = 1 << 20;
const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The entries that a list on the wire may have.
pub(crate) const MAX_ENTRIES: usize = 1_024;
/// The bytes that a retrieval hint may have.
pub(crate) const MAX_HINT_BYTES: usize = 4_096;

impl ChannelOptions {
    /// Sets [`participant`](Self::participant).
    #[must_use]
    pub fn with_participant(mut self, participant: impl Into<ParticipantId>) -> Self {
        self.participant = participant.into();
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// `InvalidOptions` with all faults.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        if self.participant.as_bytes().len() > MAX_ID_BYTES {
            problems.push(format!("participant has more than {MAX_ID_BYTES} bytes"));
        }
        if self.max_clock_skew.is_some_and(|skew| skew < Duration::from_secs(1)) {
            problems.push("max_clock_skew is below 1 s".to_owned());
        }
        within(&mut problems, "max_history", &self.max_history, 1..=1_000_000);
        within(&mut problems, "max_causal_history", &self.max_causal_history, 0..=MAX_ENTRIES);
        within(&mut problems, "bloom_capacity", &self.bloom_capacity, 1..=1_000_000);
        within(&mut problems, "bloom_error_rate", &self.bloom_error_rate, 0.000_001..=0.5);
        within(&mut problems, "max_message_size", &self.max_message_size, 1..=64 * MIB);
        within(&mut problems, "max_packet_size", &self.max_packet_size, 1..=64 * MIB);
        for (name, interval) in [
            ("resend_interval", Some(self.resend_interval)),
            ("buffer_sweep_interval", Some(self.buffer_sweep_interval)),
            ("repair_sweep_interval", Some(self.repair_sweep_interval)),
            ("sync_interval", self.sync_interval),
        ] {
            if interval.is_some_and(|interval| !(MILLISECOND..=DAY).contains(&interval)) {
                problems.push(format!("{name} is not 1 ms to 1 day"));
            }
        }
        within(&mut problems, "max_resend_attempts", &self.max_resend_attempts, 0..=1_000);
        if self.park_timeout.is_some_and(|timeout| timeout < MILLISECOND) {
            problems.push("park_timeout is below 1 ms".to_owned());
        }
        for (name, wait) in [("repair_t_min", self.repair_t_min), ("repair_t_max", self.repair_t_max)] {
            if wait > DAY {
                problems.push(format!("{name} is more than 1 day"));
            }
        }
        within(&mut problems, "response_groups", &self.response_groups, 1..=65_536);
        within(&mut problems, "max_repair_requests", &self.max_repair_requests, 0..=64);
        if self.durability > Durability::Ram && !self.persistent {
            problems.push("durability above Ram needs a persistent channel".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::InvalidOptions { problems }) }
    }
}

fn within<T: PartialOrd + Display>(problems: &mut Vec<String>, name: &str, value: &T, bounds: RangeInclusive<T>) {
    // A number that is none is within no bounds.
    if !bounds.contains(value) {
        problems.push(format!("{name} is {value}, not {} to {}", bounds.start(), bounds.end()));
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty;)*) => {
        impl ChannelOptions {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $setter(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

setters! {
    with_bloom_ack bloom_ack: BloomAck;
    with_wire wire: WireFormat;
    with_clock_unit clock_unit: ClockUnit;
    with_max_clock_skew max_clock_skew: Option<Duration>;
    with_persistent persistent: bool;
    with_durability durability: Durability;
    with_max_history max_history: usize;
    with_max_causal_history max_causal_history: usize;
    with_bloom_capacity bloom_capacity: u32;
    with_bloom_error_rate bloom_error_rate: f64;
    with_max_message_size max_message_size: usize;
    with_max_packet_size max_packet_size: usize;
    with_resend_interval resend_interval: Duration;
    with_max_resend_attempts max_resend_attempts: u32;
    with_buffer_sweep_interval buffer_sweep_interval: Duration;
    with_repair_sweep_interval repair_sweep_interval: Duration;
    with_sync_interval sync_interval: Option<Duration>;
    with_park_timeout park_timeout: Option<Duration>;
    with_repair_t_min repair_t_min: Duration;
    with_repair_t_max repair_t_max: Duration;
    with_response_groups response_groups: u32;
    with_max_repair_requests max_repair_requests: usize;
    with_max_requests max_requests: usize;
    with_max_responses max_responses: usize;
    with_max_outgoing max_outgoing: usize;
    with_max_parked max_parked: usize;
    with_max_parked_bytes max_parked_bytes: usize;
    with_max_missing max_missing: usize;
    with_max_remembered max_remembered: usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(options: &ChannelOptions) -> Vec<String> {
        match options.validate() {
            Ok(()) => Vec::new(),
            Err(Error::InvalidOptions { problems }) => problems,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_bounds_themselves_are_fine() {
        let lowest = ChannelOptions::default()
            .with_max_clock_skew(Some(Duration::from_secs(1)))
            .with_max_history(1)
            .with_max_causal_history(0)
            .with_bloom_capacity(1)
            .with_bloom_error_rate(0.000_001)
            .with_max_message_size(1)
            .with_max_packet_size(1)
            .with_resend_interval(MILLISECOND)
            .with_max_resend_attempts(0)
            .with_buffer_sweep_interval(MILLISECOND)
            .with_repair_sweep_interval(MILLISECOND)
            .with_sync_interval(Some(MILLISECOND))
            .with_park_timeout(Some(MILLISECOND))
            .with_repair_t_min(Duration::ZERO)
            .with_repair_t_max(Duration::ZERO)
            .with_response_groups(1)
            .with_max_repair_requests(0);
        let highest = ChannelOptions::default()
            .with_participant("x".repeat(1_024))
            .with_max_clock_skew(None)
            .with_max_history(1_000_000)
            .with_max_causal_history(1_024)
            .with_bloom_capacity(1_000_000)
            .with_bloom_error_rate(0.5)
            .with_max_message_size(64 * MIB)
            .with_max_packet_size(64 * MIB)
            .with_resend_interval(DAY)
            .with_max_resend_attempts(1_000)
            .with_buffer_sweep_interval(DAY)
            .with_repair_sweep_interval(DAY)
            .with_sync_interval(None)
            .with_park_timeout(Some(Duration::MAX))
            .with_repair_t_min(DAY)
            .with_repair_t_max(DAY)
            .with_response_groups(65_536)
            .with_max_repair_requests(64);
        assert_eq!((problems(&lowest), problems(&highest)), (vec![], vec![]));
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let options = ChannelOptions::default()
            .with_participant("x".repeat(1_025))
            .with_max_clock_skew(Some(Duration::from_millis(999)))
            .with_max_history(1_000_001)
            .with_max_causal_history(1_025)
            .with_bloom_capacity(0)
            .with_bloom_error_rate(f64::NAN)
            .with_max_message_size(64 * MIB + 1)
            .with_max_packet_size(0)
            .with_durability(Durability::Wal)
            .with_persistent(false)
            .with_resend_interval(DAY + MILLISECOND)
            .with_max_resend_attempts(1_001)
            .with_buffer_sweep_interval(Duration::ZERO)
            .with_repair_sweep_interval(Duration::from_micros(999))
            .with_sync_interval(Some(Duration::ZERO))
            .with_park_timeout(Some(Duration::ZERO))
            .with_repair_t_min(DAY + MILLISECOND)
            .with_repair_t_max(DAY + MILLISECOND)
            .with_response_groups(0)
            .with_max_repair_requests(65);
        assert_eq!(problems(&options).len(), 19, "{:?}", problems(&options));
        for rate in [0.0, 0.000_000_9, 0.500_001, f64::INFINITY, -0.1] {
            assert_eq!(problems(&ChannelOptions::default().with_bloom_error_rate(rate)).len(), 1, "{rate}");
        }
    }
}
