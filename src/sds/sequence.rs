//! A map by message id that remembers the order of insertion.

use std::collections::VecDeque;
use std::fmt;

use hashbrown::HashMap;

use crate::base::name::MessageId;

/// Values by id, in the order in which they were pushed; every operation on one id is O(1), amortised.
///
/// Removing leaves a hole. Holes at the front go at once, the others when they outnumber the values, so that there are
/// never more holes than values, small sequences aside.
#[derive(Clone)]
pub(crate) struct Sequence<V> {
    /// Serial numbers; the slot of a serial number is at `serial - first`.
    serials: HashMap<MessageId, u64>,
    slots: VecDeque<Option<(MessageId, V)>>,
    first: u64,
}

/// Up to so many slots, holes are not worth the work.
const SMALL: usize = 32;

impl<V> Sequence<V> {
    pub(crate) fn len(&self) -> usize {
        self.serials.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.serials.is_empty()
    }

    pub(crate) fn contains(&self, id: &[u8]) -> bool {
        self.serials.contains_key(id)
    }

    /// Adds at the end. Answers what the id had before, which goes with its place.
    pub(crate) fn push(&mut self, id: MessageId, value: V) -> Option<V> {
        let old = self.remove(id.as_bytes());
        self.serials.insert(id.clone(), self.first + self.slots.len() as u64);
        self.slots.push_back(Some((id, value)));
        old
    }

    pub(crate) fn get(&self, id: &[u8]) -> Option<&V> {
        let index = usize::try_from(self.serials.get(id)?.checked_sub(self.first)?).ok()?;
        self.slots.get(index)?.as_ref().map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, id: &[u8]) -> Option<&mut V> {
        let index = usize::try_from(self.serials.get(id)?.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)?.as_mut().map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, id: &[u8]) -> Option<V> {
        let serial = self.serials.remove(id)?;
        let index = usize::try_from(serial.checked_sub(self.first)?).ok()?;
        let (_, value) = self.slots.get_mut(index)?.take()?;
        self.drop_holes();
        Some(value)
    }

    pub(crate) fn pop_front(&mut self) -> Option<(MessageId, V)> {
        // There is no hole at the front.
        let (id, value) = self.slots.pop_front()??;
        self.first += 1;
        self.serials.remove(id.as_bytes());
        self.drop_holes();
        Some((id, value))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&MessageId, &V)> {
        self.slots.iter().flatten().map(|(id, value)| (id, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&MessageId, &mut V)> {
        self.slots.iter_mut().flatten().map(|(id, value)| (&*id, value))
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = (MessageId, V)> {
        self.slots.into_iter().flatten()
    }

    fn drop_holes(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        if self.slots.len() > SMALL && self.slots.len() > 2 * self.len() {
            self.slots.retain(Option::is_some);
            for (serial, (id, _)) in (self.first..).zip(self.slots.iter().flatten()) {
                if let Some(place) = self.serials.get_mut(id) {
                    *place = serial;
                }
            }
        }
    }
}

impl Sequence<()> {
    /// Adds an id at the end, and drops the oldest ones beyond `limit`.
    pub(crate) fn push_within(&mut self, limit: usize, id: MessageId) {
        self.push(id, ());
        while self.len() > limit {
            self.pop_front();
        }
    }
}

impl<V> Default for Sequence<V> {
    fn default() -> Self {
        Self { serials: HashMap::new(), slots: VecDeque::new(), first: 0 }
    }
}

/// Same ids and values in the same order, wherever the holes are.
impl<V: PartialEq> PartialEq for Sequence<V> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<V: fmt::Debug> fmt::Debug for Sequence<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_list_of_pairs(steps in prop::collection::vec((0_u8..4, 0_u8..90, any::<u8>()), 0..600)) {
            let mut sequence = Sequence::default();
            let mut model: Vec<(MessageId, u8)> = Vec::new();
            for (step, id, value) in steps {
                let id = MessageId::from(format!("id{id}"));
                let place = model.iter().position(|(known, _)| *known == id);
                match step {
                    0 | 1 => {
                        let old = place.map(|place| model.remove(place).1);
                        model.push((id.clone(), value));
                        prop_assert_eq!(sequence.push(id, value), old);
                    }
                    2 => {
                        let old = place.map(|place| model.remove(place).1);
                        prop_assert_eq!(sequence.remove(id.as_bytes()), old);
                    }
                    _ => {
                        let old = if model.is_empty() { None } else { Some(model.remove(0)) };
                        prop_assert_eq!(sequence.pop_front(), old);
                    }
                }
                prop_assert_eq!(sequence.len(), model.len());
                prop_assert!(sequence.slots.len() <= SMALL.max(2 * model.len()));
                prop_assert!(sequence.iter().map(|(id, value)| (id.clone(), *value)).eq(model.iter().cloned()));
            }
        }
    }
}
