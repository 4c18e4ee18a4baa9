//! The channel's Lamport clock, which doubles as a rough wall clock so that peers that never met order alike.

use std::time::Duration;

use crate::sds::options::ClockUnit;

/// A clock and how far a peer may move it. All times are in its unit; additions stop at the largest number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LamportClock {
    value: i64,
    unit: ClockUnit,
    max_skew: Option<i64>,
}

impl LamportClock {
    pub(crate) fn new(value: i64, unit: ClockUnit, max_skew: Option<Duration>) -> Self {
        let max_skew = max_skew.map(|skew| match unit {
            ClockUnit::Seconds => i64::try_from(skew.as_secs()).unwrap_or(i64::MAX),
            ClockUnit::Milliseconds => i64::try_from(skew.as_millis()).unwrap_or(i64::MAX),
        });
        Self { value, unit, max_skew }
    }

    pub(crate) fn value(&self) -> i64 {
        self.value
    }

    /// The timestamp of a message sent now.
    pub(crate) fn send(&mut self, now_ms: i64) -> i64 {
        let now = self.now(now_ms);
        self.value = match self.unit {
            ClockUnit::Seconds => now.max(self.value).saturating_add(1),
            ClockUnit::Milliseconds => now.max(self.value.saturating_add(1)),
        };
        self.value
    }

    /// A new message came in, to be delivered now or later. Answers whether its timestamp was cut down.
    pub(crate) fn arrive(&mut self, timestamp: i64, now_ms: i64) -> bool {
        match self.unit {
            ClockUnit::Seconds => {
                let (bounded, cut) = self.bound(timestamp, now_ms);
                self.value = bounded.max(self.value).saturating_add(1);
                cut
            }
            ClockUnit::Milliseconds => false,
        }
    }

    /// A message is being delivered. Answers whether its timestamp was cut down.
    pub(crate) fn deliver(&mut self, timestamp: i64, now_ms: i64) -> bool {
        match self.unit {
            ClockUnit::Seconds => false,
            ClockUnit::Milliseconds => self.catch_up(timestamp, now_ms),
        }
    }

    /// Makes up for timestamps that the clock should have seen. Answers whether this one was cut down.
    pub(crate) fn catch_up(&mut self, timestamp: i64, now_ms: i64) -> bool {
        let (bounded, cut) = self.bound(timestamp, now_ms);
        self.value = bounded.max(self.value);
        cut
    }

    fn now(&self, now_ms: i64) -> i64 {
        match self.unit {
            ClockUnit::Seconds => now_ms.div_euclid(1_000),
            ClockUnit::Milliseconds => now_ms,
        }
    }

    fn bound(&self, timestamp: i64, now_ms: i64) -> (i64, bool) {
        match self.max_skew {
            Some(skew) => {
                let limit = self.now(now_ms).max(self.value).saturating_add(skew);
                (timestamp.min(limit), timestamp > limit)
            }
            None => (timestamp, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_timestamp_moves_the_clock_by_at_most_the_skew_in_either_unit() {
        let mut seconds = LamportClock::new(0, ClockUnit::Seconds, Some(DAY));
        assert!(!seconds.arrive(86_400 + 10, 10_999));
        assert_eq!(seconds.value(), 86_400 + 11);
        assert!(seconds.arrive(i64::MAX, 0));
        assert_eq!(seconds.value(), 2 * 86_400 + 12, "beyond its own value, where that is ahead of now");

        let mut milliseconds = LamportClock::new(0, ClockUnit::Milliseconds, Some(DAY));
        assert!(!milliseconds.arrive(5, 10) && milliseconds.value() == 0, "arriving moves nothing");
        assert!(milliseconds.deliver(i64::MAX, 10));
        assert_eq!(milliseconds.value(), 86_400_010);
    }

    #[test]
    fn the_end_of_time_is_reached_and_not_passed() {
        let mut clock = LamportClock::new(0, ClockUnit::Seconds, None);
        assert!(!clock.arrive(i64::MAX, 0));
        assert_eq!((clock.value(), clock.send(0)), (i64::MAX, i64::MAX));
        let mut clock = LamportClock::new(i64::MAX, ClockUnit::Milliseconds, Some(DAY));
        assert_eq!(clock.send(i64::MIN), i64::MAX);
    }
}
