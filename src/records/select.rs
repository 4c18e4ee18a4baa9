//! A record cut down to some of its paths.

use crate::base::value::{Object, Value};
use crate::records::record::Record;

impl Record {
    /// The record with only what is at these paths; key and metadata stay.
    pub(super) fn select(&self, paths: &[String]) -> Self {
        let mut values = vec![None; self.values.len()].into_boxed_slice();
        let mut extra = Object::new();
        for path in paths {
            let Some(value) = self.get(path) else { continue };
            let (name, rest) = match path.split_once('.') {
                Some((name, rest)) => (name, Some(rest)),
                None => (path.as_str(), None),
            };
            match self.layout.position(name) {
                Some(position) if self.layout.is_key(position) => {}
                Some(position) => {
                    if let Some(slot) = values.get_mut(position) {
                        put(slot.get_or_insert_with(|| Object::new().into()), rest, value);
                    }
                }
                None => {
                    let mut slot = extra.remove(name).unwrap_or_else(|| Object::new().into());
                    put(&mut slot, rest, value);
                    extra.insert(name, slot);
                }
            }
        }
        let Self { layout, key, metadata, place, .. } = self;
        Self { layout: layout.clone(), key: key.clone(), values, extra, metadata: *metadata, place: *place, counted: 0 }
    }
}

/// Puts a value at a path below the slot, into objects made on the way. What is there already is of the same record, so
/// it is an object wherever the path goes on.
fn put(slot: &mut Value, path: Option<&str>, value: &Value) {
    let mut slot = slot;
    for name in path.into_iter().flat_map(|path| path.split('.')) {
        let Value::Object(object) = slot else { return };
        if !object.contains(name) {
            object.insert(name, Object::new());
        }
        match object.get_mut(name) {
            Some(inner) => slot = inner,
            None => return,
        }
    }
    slot.clone_from(value);
}
