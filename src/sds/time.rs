//! The two clocks, and what is due when.

use std::collections::BTreeSet;
use std::time::Duration;

/// A moment by both clocks: the wall clock, which tells the time of day and may be set, and one that only runs.
///
/// What is saved counts by the wall clock, which outlives the process; what is due counts by the other one, so that a
/// clock that is set neither strands nor floods.
///
/// ```
/// use ractor_persistence::sds::Now;
/// assert_eq!(Now::from(5), Now::new(5, 5)); // where nobody sets the clock, one number does
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Now {
    /// Milliseconds since the Unix epoch, negative before it.
    pub unix_ms: i64,
    /// Milliseconds since any fixed moment; never less than at an earlier operation on the same channel.
    pub monotonic_ms: i64,
}

impl Now {
    /// A moment by both clocks.
    pub fn new(unix_ms: i64, monotonic_ms: i64) -> Self {
        Self { unix_ms, monotonic_ms }
    }

    /// So many milliseconds later.
    pub(crate) fn plus(self, ms: i64) -> Self {
        Self { unix_ms: self.unix_ms.saturating_add(ms), monotonic_ms: self.monotonic_ms.saturating_add(ms) }
    }

    /// A deadline that was saved, seen from now: what remains of it is at least nothing and at most `longest_ms`. What is
    /// saved stays as it is: a wall clock that is wrong now may be right again at the next start.
    pub(crate) fn deadline(self, unix_ms: i64, longest_ms: i64) -> Self {
        let remaining = unix_ms.saturating_sub(self.unix_ms).min(longest_ms).max(0);
        Self { unix_ms, monotonic_ms: self.monotonic_ms.saturating_add(remaining) }
    }

    /// A moment of the past that was saved, seen from now: it is at least no and at most `longest_ms` old.
    pub(crate) fn past(self, unix_ms: i64, longest_ms: i64) -> Self {
        let age = self.unix_ms.saturating_sub(unix_ms).min(longest_ms).max(0);
        Self { unix_ms, monotonic_ms: self.monotonic_ms.saturating_sub(age) }
    }
}

/// Both clocks alike, for those who have one that nobody sets.
impl From<i64> for Now {
    fn from(ms: i64) -> Self {
        Self::new(ms, ms)
    }
}

/// Whole milliseconds, as many as there can be.
pub(crate) fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Ticks at equal distances, the first one `interval` after the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticker {
    base_ms: i64,
    interval_ms: i64,
}

impl Ticker {
    pub(crate) fn new(base_ms: i64, interval: Duration) -> Self {
        Self { base_ms, interval_ms: whole_ms(interval).max(1) }
    }

    /// Begins anew.
    pub(crate) fn restart(&mut self, base_ms: i64) {
        self.base_ms = base_ms;
    }

    /// The first tick that is not before `at_ms`.
    pub(crate) fn at_or_after(&self, at_ms: i64) -> i64 {
        let passed = at_ms.saturating_sub(self.base_ms).max(1);
        let ticks = (passed - 1) / self.interval_ms + 1;
        self.base_ms.saturating_add(ticks.saturating_mul(self.interval_ms))
    }

    /// The first tick after `at_ms`.
    pub(crate) fn after(&self, at_ms: i64) -> i64 {
        self.at_or_after(at_ms.saturating_add(1))
    }
}

/// What is due when, in order of time and then of the keys; every change is O(log n).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Agenda<K: Ord>(BTreeSet<(i64, K)>);

impl<K: Ord> Default for Agenda<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord + Clone> Agenda<K> {
    pub(crate) fn insert(&mut self, due_ms: i64, key: K) {
        self.0.insert((due_ms, key));
    }

    pub(crate) fn remove(&mut self, due_ms: i64, key: K) {
        self.0.remove(&(due_ms, key));
    }

    /// When the first is due.
    pub(crate) fn first(&self) -> Option<i64> {
        self.0.first().map(|(due_ms, _)| *due_ms)
    }

    /// What is due by now, at most `count`, the earliest first.
    pub(crate) fn due(&self, now_ms: i64, count: usize) -> Vec<K> {
        let due = self.0.iter().take_while(|(due_ms, _)| *due_ms <= now_ms);
        due.take(count).map(|(_, key)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_an_interval_apart_and_the_first_is_one_interval_away() {
        let ticker = Ticker::new(100, Duration::from_millis(10));
        let at_or_after = [0, 100, 101, 110, 111, 120].map(|at| ticker.at_or_after(at));
        assert_eq!(at_or_after, [110, 110, 110, 110, 120, 120]);
        assert_eq!([99, 100, 109, 110].map(|at| ticker.after(at)), [110, 110, 110, 120]);
        assert_eq!(ticker.after(i64::MAX) / 10, i64::MAX / 10, "the end of time is no overflow");
    }

    #[test]
    fn what_was_saved_is_due_within_its_own_interval_whatever_the_wall_clock_says() {
        let now = Now::new(1_000, 50);
        assert_eq!(now.deadline(1_030, 60), Now::new(1_030, 80));
        assert_eq!(now.deadline(900, 60), Now::new(900, 50), "over while nobody was there");
        assert_eq!(now.deadline(9_000, 60), Now::new(9_000, 110), "the clock was set back");
        assert_eq!(now.past(970, 60), Now::new(970, 20));
        assert_eq!(now.past(1, 60), Now::new(1, -10));
        assert_eq!(now.past(9_000, 60), Now::new(9_000, 50), "the clock was set back");
        assert_eq!(Now::new(i64::MIN, 0).past(i64::MAX, 1), Now::new(i64::MAX, 0));
        assert_eq!(Now::new(i64::MIN, 0).deadline(i64::MAX, 5), Now::new(i64::MAX, 5));
    }
}
