//! Bloom filters: ours, which forgets old ids by rolling, and those that peers send.
//!
//! For capacity c and error rate p there are e = ⌈−ln p / (ln 2)²⌉ bits per element, k = ln 2 · e hashes, rounded half
//! up, m = c · e bits, and 1 + m div 64 words of 8 bytes. An item sets the bits (|H(x)| mod m + i · (|H(x ++ " b")| mod
//! m)) mod m for i from 0 to k − 1; bit j is bit j mod 8 of byte j div 8. Serialized as protobuf: 1 the bits, 2 c,
//! 3 ⌊p · 10⁶⌋, 4 k, 5 m, all always written.

use std::collections::VecDeque;

use crate::sds::hash::BloomHash;
use crate::sds::proto::{Fault, Field, Reader, put_header, put_number};

/// The numbers that follow from capacity and error rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) hashes: u64,
    pub(crate) bits_per_element: u64,
    pub(crate) bits: u64,
    pub(crate) bytes: usize,
    /// The error rate in millionths, rounded down.
    pub(crate) millionths: u64,
}

impl Shape {
    /// For a capacity from 1 and an error rate from 10⁻⁶ to 0.5, which give 2 to 29 bits per element.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "all three are small and positive")]
    pub(crate) fn new(capacity: u32, error_rate: f64) -> Self {
        let bits_per_element = (-error_rate.ln() / std::f64::consts::LN_2.powi(2)).ceil();
        let hashes = (std::f64::consts::LN_2 * bits_per_element + 0.5).floor() as u64;
        let millionths = (error_rate * 1_000_000.0).floor() as u64;
        let bits_per_element = bits_per_element as u64;
        let bits = u64::from(capacity) * bits_per_element;
        Self { hashes, bits_per_element, bits, bytes: bytes_for(bits), millionths }
    }
}

fn bytes_for(bits: u64) -> usize {
    usize::try_from(bits / 64).unwrap_or(usize::MAX / 8 - 1).saturating_add(1).saturating_mul(8)
}

/// Where an item's bits are: byte and mask. A filter without bits has none.
fn positions(item: BloomHash, hashes: u64, bits: u64) -> impl Iterator<Item = (usize, u8)> {
    let mut bit = item.start.checked_rem(bits);
    let step = item.step.checked_rem(bits).unwrap_or(0);
    (0..hashes).map_while(move |_| {
        let at = bit?;
        // Both are below `bits`, so one subtraction is the remainder.
        let next = at + step;
        bit = Some(if next >= bits { next - bits } else { next });
        Some((usize::try_from(at / 8).ok()?, 1 << (at % 8)))
    })
}

/// A filter that ids are added to. It is kept in its serialized form, so that sending it costs one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BloomFilter {
    shape: Shape,
    serialized: Vec<u8>,
    /// Where in it the bits begin.
    offset: usize,
}

impl BloomFilter {
    pub(crate) fn new(capacity: u32, error_rate: f64) -> Self {
        let shape = Shape::new(capacity, error_rate);
        let mut serialized = Vec::with_capacity(shape.bytes + 32);
        put_header(&mut serialized, 1, shape.bytes);
        let offset = serialized.len();
        serialized.resize(offset + shape.bytes, 0);
        put_number(&mut serialized, 2, u64::from(capacity));
        put_number(&mut serialized, 3, shape.millionths);
        put_number(&mut serialized, 4, shape.hashes);
        put_number(&mut serialized, 5, shape.bits);
        Self { shape, serialized, offset }
    }

    pub(crate) fn insert(&mut self, item: BloomHash) {
        for (byte, mask) in positions(item, self.shape.hashes, self.shape.bits) {
            if let Some(byte) = self.serialized.get_mut(self.offset + byte) {
                *byte |= mask;
            }
        }
    }

    pub(crate) fn contains(&self, item: BloomHash) -> bool {
        let bits = self.serialized.get(self.offset..).unwrap_or_default();
        contains(bits, item, self.shape.hashes, self.shape.bits)
    }

    pub(crate) fn serialized(&self) -> &[u8] {
        &self.serialized
    }
}

fn contains(bytes: &[u8], item: BloomHash, hashes: u64, bits: u64) -> bool {
    positions(item, hashes, bits).all(|(byte, mask)| bytes.get(byte).is_some_and(|byte| byte & mask != 0))
}

/// The filter of what this channel has seen lately. An add that makes the list of ids longer than 1.2 times the
/// capacity keeps the last 0.8 times the capacity.
///
/// Which ids the next filter will have is known as soon as they are added, so it is filled along with this one and no add
/// costs more than another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RollingBloom {
    filter: BloomFilter,
    /// What was added, in order, repeats included: the hashes are all that a filter needs.
    added: VecDeque<BloomHash>,
    /// The filter that takes over next, once there is anything for it.
    next: Option<BloomFilter>,
    /// How many of `added` are in `next` or will not be.
    copied: usize,
    low: usize,
    high: u32,
    error_rate: f64,
}

impl RollingBloom {
    pub(crate) fn new(capacity: u32, error_rate: f64) -> Self {
        let high = u32::try_from(u64::from(capacity) * 6 / 5).unwrap_or(u32::MAX);
        let low = usize::try_from(u64::from(capacity) * 4 / 5).unwrap_or(usize::MAX);
        let filter = BloomFilter::new(capacity, error_rate);
        let mut rolling = Self { filter, added: VecDeque::new(), next: None, copied: 0, low, high, error_rate };
        rolling.copied = rolling.dropped();
        rolling
    }

    /// How many ids go when the list is one too long.
    fn dropped(&self) -> usize {
        usize::try_from(self.high).unwrap_or(usize::MAX).saturating_add(1).saturating_sub(self.low)
    }

    pub(crate) fn add(&mut self, item: BloomHash) {
        self.added.push_back(item);
        let rolls = self.added.len() as u64 > u64::from(self.high);
        if !rolls {
            self.filter.insert(item);
        }
        // When the filter has rolled, `low` ids are there, of which those from `dropped` on are to be copied: fewer than
        // adds until the next roll. So at two copies per add nothing is left when it rolls.
        let copies = if rolls { usize::MAX } else { 2 };
        for _ in 0..copies {
            let Some(&item) = self.added.get(self.copied) else { break };
            let (high, error_rate) = (self.high, self.error_rate);
            self.next.get_or_insert_with(|| BloomFilter::new(high, error_rate)).insert(item);
            self.copied += 1;
        }
        if rolls {
            self.added.drain(..self.dropped());
            self.filter = self.next.take().unwrap_or_else(|| BloomFilter::new(self.high, self.error_rate));
            self.copied = self.dropped();
        }
    }

    pub(crate) fn contains(&self, item: BloomHash) -> bool {
        self.filter.contains(item)
    }

    pub(crate) fn serialized(&self) -> &[u8] {
        self.filter.serialized()
    }

    #[cfg(test)]
    pub(crate) fn added(&self) -> usize {
        self.added.len()
    }
}

/// A filter that a peer sent, borrowed from its packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerBloom<'a> {
    bits: &'a [u8],
    hashes: u64,
    size: u64,
}

impl<'a> PeerBloom<'a> {
    /// Reads a filter, none from no bytes.
    ///
    /// A filter that is out of shape, or so full that it says nothing, is refused: it would acknowledge everything.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<Self>, Fault> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (mut bits, mut capacity, mut error_rate, mut hashes, mut size) = (None, None, None, None, None);
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.next()? {
            match field {
                (1, Field::Bytes(value)) => bits = Some(value),
                (2, Field::Varint(value)) => capacity = Some(value),
                (3, Field::Varint(value)) => error_rate = Some(value),
                (4, Field::Varint(value)) => hashes = Some(value),
                (5, Field::Varint(value)) => size = Some(value),
                _ => {}
            }
        }
        let (Some(bits), Some(_), Some(_), Some(hashes), Some(size)) = (bits, capacity, error_rate, hashes, size)
        else {
            return Err("a field is absent");
        };
        if !(1..=32).contains(&hashes) || !(1..=1 << 32).contains(&size) || bits.len() != bytes_for(size) {
            return Err("it is out of shape");
        }
        if ones(bits, size) * 8 > size * 7 {
            return Err("it is too full");
        }
        Ok(Some(Self { bits, hashes, size }))
    }

    pub(crate) fn contains(&self, item: BloomHash) -> bool {
        contains(self.bits, item, self.hashes, self.size)
    }
}

/// How many of the first `size` bits are set.
fn ones(bytes: &[u8], size: u64) -> u64 {
    let whole = usize::try_from(size / 8).unwrap_or(usize::MAX).min(bytes.len());
    let (full, rest) = bytes.split_at(whole);
    let (words, tail) = full.as_chunks::<8>();
    let words: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    let tail: u64 = tail.iter().map(|byte| u64::from(byte.count_ones())).sum();
    let partial = rest.first().map_or(0, |byte| byte & !(0xff_u8 << (size % 8)));
    words + tail + u64::from(partial.count_ones())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str) -> BloomHash {
        BloomHash::of(id.as_bytes())
    }

    #[test]
    fn ch_06_ten_thousand_ids_are_all_found_and_foreign_ones_hardly_ever() {
        let mut filter = BloomFilter::new(10_000, 0.001);
        for i in 0..10_000 {
            filter.insert(of(&format!("id-{i}")));
        }
        assert!((0..10_000).all(|i| filter.contains(of(&format!("id-{i}")))));
        let errors = (0..5_000).filter(|i| filter.contains(of(&format!("foreign-{i}")))).count();
        assert!(errors * 10_000 < 5_000 * 15, "{errors} of 5,000");
        let peer = PeerBloom::read(filter.serialized()).unwrap().unwrap();
        assert!((0..10_000).all(|i| peer.contains(of(&format!("id-{i}")))), "a peer finds the same");
    }

    #[test]
    fn ch_07_a_filter_for_ten_rolls_at_the_thirteenth_and_the_eighteenth_add() {
        let mut rolling = RollingBloom::new(10, 0.001);
        let capacity = |rolling: &RollingBloom| rolling.filter.shape.bits / rolling.filter.shape.bits_per_element;
        let mut seen = Vec::new();
        for i in 1..=18 {
            rolling.add(of(&format!("id-{i}")));
            seen.push((rolling.added(), capacity(&rolling)));
        }
        let expected: Vec<_> = (1..=12).map(|n| (n, 10)).chain((8..=12).map(|n| (n, 12))).chain([(8, 12)]).collect();
        assert_eq!(seen, expected);
        assert!((11..=18).all(|i| rolling.contains(of(&format!("id-{i}")))));
        assert!(!(1..=10).all(|i| rolling.contains(of(&format!("id-{i}")))));
    }

    #[test]
    fn a_filter_that_rolled_is_the_one_that_its_last_ids_make_and_no_add_copies_many() {
        for capacity in (1..40).chain([99, 100, 101, 1_000]) {
            let mut rolling = RollingBloom::new(capacity, 0.001);
            let (mut list, mut expected) = (Vec::new(), BloomFilter::new(capacity, 0.001));
            for i in 0..5 * capacity {
                let item = of(&format!("id-{i}"));
                let left = rolling.added.len().saturating_sub(rolling.copied);
                rolling.add(item);
                assert!(left <= rolling.low && (list.len() < rolling.high as usize || left <= 1), "{capacity} {i}");
                list.push(item);
                if list.len() > rolling.high as usize {
                    list.drain(..list.len() - rolling.low);
                    expected = BloomFilter::new(rolling.high, 0.001);
                    list.iter().for_each(|item| expected.insert(*item));
                } else {
                    expected.insert(item);
                }
                assert!(rolling.filter == expected && rolling.added == list, "capacity {capacity}, id {i}");
            }
        }
    }

    #[test]
    fn ids_added_twice_count_twice() {
        let mut rolling = RollingBloom::new(10, 0.001);
        for _ in 0..13 {
            rolling.add(of("same"));
        }
        assert_eq!(rolling.added(), 8);
    }

    #[test]
    fn a_filter_that_is_exactly_seven_eighths_full_is_taken_and_one_bit_more_is_not() {
        // 100 bits: 87 are within 87.5, 88 are not. The 28 bits beyond do not count.
        let build = |set: usize| {
            let mut filter = BloomFilter::new(10, 0.01);
            for bit in (0..set).chain(100..128) {
                filter.serialized[filter.offset + bit / 8] |= 1 << (bit % 8);
            }
            filter
        };
        assert!(PeerBloom::read(build(87).serialized()).is_ok());
        assert_eq!(PeerBloom::read(build(88).serialized()).unwrap_err(), "it is too full");
    }

    #[test]
    fn a_filter_without_one_of_its_fields_is_refused_and_no_bytes_are_no_filter() {
        let fields = |skip: u64| {
            let mut bytes = Vec::new();
            if skip != 1 {
                crate::sds::proto::put_bytes(&mut bytes, 1, &[0; 16]);
            }
            for (field, value) in [(2, 10), (3, 10_000), (4, 7), (5, 100)] {
                if skip != field {
                    put_number(&mut bytes, field, value);
                }
            }
            bytes
        };
        assert!(PeerBloom::read(&fields(0)).unwrap().is_some());
        for skip in 1..=5 {
            assert_eq!(PeerBloom::read(&fields(skip)).unwrap_err(), "a field is absent", "{skip}");
        }
        assert!(PeerBloom::read(&[]).unwrap().is_none());
    }
}
