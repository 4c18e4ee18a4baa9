//! Names and values, sorted by name.

use crate::base::value::{Text, Value};

/// Names and values: sorted by name, none twice.
///
/// ```
/// use ractor_persistence::base::value::{Object, Value};
/// let mut object: Object = [("b", 2), ("a", 1), ("b", 3)].into_iter().collect();
/// assert_eq!(object.get("b"), Some(&Value::Int(3)));
/// object.insert("c", true);
/// assert_eq!(object.names().collect::<Vec<_>>(), ["a", "b", "c"]);
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::box_collection, reason = "one word wide, so that a value stays at 24 bytes")]
pub struct Object(Option<Box<Vec<(Text, Value)>>>);

impl Object {
    /// An object without names.
    pub fn new() -> Self {
        Self::default()
    }

    fn entries(&self) -> &[(Text, Value)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries().binary_search_by(|(other, _)| other.as_str().cmp(name))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let index = self.find(name).ok()?;
        self.entries().get(index).map(|(_, value)| value)
    }

    /// Whether the name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The value of a name, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let index = self.find(name).ok()?;
        self.0.as_mut()?.get_mut(index).map(|(_, value)| value)
    }

    /// Sets the value of a name; answers the value that it had.
    pub fn insert(&mut self, name: impl Into<Text>, value: impl Into<Value>) -> Option<Value> {
        let (name, value) = (name.into(), value.into());
        let found = self.find(&name);
        let entries = self.0.get_or_insert_default();
        match found {
            Ok(index) => Some(std::mem::replace(&mut entries[index].1, value)),
            Err(index) => {
                entries.insert(index, (name, value));
                None
            }
        }
    }

    /// Takes a name out; answers the value that it had.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let index = self.find(name).ok()?;
        let entries = self.0.as_mut()?;
        let (_, value) = entries.remove(index);
        if entries.is_empty() {
            self.0 = None;
        }
        Some(value)
    }

    /// The names and values, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Text, &Value)> + DoubleEndedIterator {
        self.entries().iter().map(|(name, value)| (name, value))
    }

    /// The names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries().iter().map(|(name, _)| name.as_str())
    }

    /// The names, and the values to change.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = (&Text, &mut Value)> {
        self.0.iter_mut().flat_map(|entries| entries.iter_mut()).map(|(name, value)| (&*name, value))
    }

    /// Bytes that the object takes, as [`Value::estimated_bytes`] counts.
    pub fn estimated_bytes(&self) -> usize {
        self.entries().iter().map(|(name, value)| 24 + name.len() + value.estimated_bytes()).sum()
    }

    /// Sorts once instead of at every name; of a name that comes twice, the last value stays.
    pub(crate) fn from_unsorted(mut entries: Vec<(Text, Value)>) -> Self {
        if entries.is_empty() {
            return Self(None);
        }
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        entries.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        Self(Some(Box::new(entries)))
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: Into<Text>, V: Into<Value>> FromIterator<(N, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(iter: I) -> Self {
        Self::from_unsorted(iter.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl<N: Into<Text>, V: Into<Value>> Extend<(N, V)> for Object {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, iter: I) {
        for (name, value) in iter {
            self.insert(name, value);
        }
    }
}

impl IntoIterator for Object {
    type Item = (Text, Value);
    type IntoIter = std::vec::IntoIter<(Text, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.map(|entries| *entries).unwrap_or_default().into_iter()
    }
}

impl Object {
    /// Plain JSON, as [`Value::to_json`].
    pub fn to_json(&self) -> serde_json::Value {
        self.iter().map(|(name, value)| (name.as_str().to_owned(), value.to_json())).collect()
    }
}
