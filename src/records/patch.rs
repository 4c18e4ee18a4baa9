//! Changes by path: several operations on one record, all of them or none.

use std::fmt;

use serde::Serialize;

use crate::base::error::{Error, Issue, IssueCode, Result};
use crate::base::value::{MAX_BYTES, MAX_DEPTH, Object, Text, Value};
use crate::records::check::{Findings, check_numbers, is_too_deep};
use crate::records::record::{METADATA, Record};
use crate::records::schema::{Changed, Expiry, Schema};

/// Changes to parts of a record, by paths: names separated by `.`, which step through objects.
///
/// Operations apply in order, each to what the earlier ones left, and all or none: the first one that cannot be applied
/// refuses the patch, and so does a result that breaks the schema. What is changed is checked as at an update. A path
/// makes the objects that are missing on its way, where nothing or Null is; anything else there is the issue `type`. The
/// key, generated fields and metadata cannot be patched.
///
/// ```
/// use ractor_persistence::records::Patch;
/// let seen = Patch::new().set("address.city", "Brno").unset("nick").increment("visits", 1).push("tags", "new");
/// assert_eq!(seen.len(), 4);
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[must_use]
pub struct Patch {
    operations: Vec<(Text, Operation)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
enum Operation {
    Set(Value),
    Unset,
    Increment(Value),
    Push(Value),
}

impl Patch {
    /// A patch without operations: like an empty update, it counts the version on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value at a path.
    pub fn set(self, path: impl Into<Text>, value: impl Into<Value>) -> Self {
        self.with(path, Operation::Set(value.into()))
    }

    /// Takes away what is at a path; nothing there is fine. A declared field gets its default back, if it has one.
    pub fn unset(self, path: impl Into<Text>) -> Self {
        self.with(path, Operation::Unset)
    }

    /// Adds an Int or Float to the number at a path; nothing or Null there counts as 0. The sum of two Ints is an Int, and
    /// beyond 64 bits the issue `max`; with a Float it is a Float.
    pub fn increment(self, path: impl Into<Text>, by: impl Into<Value>) -> Self {
        self.with(path, Operation::Increment(by.into()))
    }

    /// Adds an item to the end of the array at a path; nothing or Null there counts as an empty one.
    pub fn push(self, path: impl Into<Text>, item: impl Into<Value>) -> Self {
        self.with(path, Operation::Push(item.into()))
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn with(mut self, path: impl Into<Text>, operation: Operation) -> Self {
        self.operations.push((path.into(), operation));
        self
    }
}

impl Operation {
    fn name(&self) -> &'static str {
        match self {
            Self::Set(_) => "set",
            Self::Unset => "unset",
            Self::Increment(_) => "increment",
            Self::Push(_) => "push",
        }
    }

    /// Applies itself to what is at its path.
    fn apply(self, slot: &mut Option<Value>) -> Result<(), Fault> {
        let present = slot.take().filter(|value| !value.is_null());
        *slot = match self {
            Self::Set(value) => Some(value),
            Self::Unset => None,
            Self::Increment(by) => Some(sum(present.unwrap_or(Value::Int(0)), by)?),
            Self::Push(item) => {
                let mut items = match present {
                    None => Vec::new(),
                    Some(Value::Array(items)) => items.into_vec(),
                    Some(other) => return Err(Fault::kind(&other, "an array")),
                };
                items.push(item);
                Some(Value::Array(items.into()))
            }
        };
        Ok(())
    }

    /// Applies itself below `slot`, at the path `rest`, which has at most as many names as values have levels.
    fn apply_at(self, slot: &mut Option<Value>, rest: Option<&str>) -> Result<(), Fault> {
        let Some(rest) = rest else { return self.apply(slot) };
        let (name, rest) = split(rest);
        if slot.as_ref().is_none_or(Value::is_null) {
            if matches!(self, Self::Unset) {
                return Ok(());
            }
            *slot = Some(Value::Object(Object::new()));
        }
        match slot {
            Some(Value::Object(object)) => {
                let mut inner = object.remove(name);
                self.apply_at(&mut inner, rest)?;
                if let Some(value) = inner {
                    object.insert(name, value);
                }
                Ok(())
            }
            Some(other) => Err(Fault::kind(other, "an object, on the way")),
            // Filled above.
            None => Ok(()),
        }
    }
}

/// Why an operation cannot be applied.
struct Fault {
    code: IssueCode,
    message: String,
}

impl Fault {
    fn kind(found: &Value, wanted: &str) -> Self {
        Self { code: IssueCode::Type, message: format!("is {}, not {wanted}", found.kind()) }
    }
}

fn sum(number: Value, by: Value) -> Result<Value, Fault> {
    match (&number, &by) {
        (Value::Int(number), Value::Int(by)) => number
            .checked_add(*by)
            .map(Value::Int)
            .ok_or_else(|| Fault { code: IssueCode::Max, message: "the sum is beyond 64 bits with sign".to_owned() }),
        _ => match (number.as_f64(), by.as_f64()) {
            (Some(number), Some(by)) => Ok(Value::Float(number + by)),
            (None, _) => Err(Fault::kind(&number, "a number")),
            (_, None) => Err(Fault::kind(&by, "a number")),
        },
    }
}

/// The first name of a path, and the rest.
fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)))
}

impl Schema {
    /// Whether a patch could be applied to any record at all.
    ///
    /// # Errors
    /// `InvalidArgument` for a path with an empty name or more than 64, for one into the key, a generated field or
    /// metadata, and for an increment by something that is no number.
    pub(super) fn check_patch(&self, patch: &Patch) -> Result<()> {
        for (path, operation) in &patch.operations {
            let refuse =
                |reason: &str| Err(Error::invalid_argument(format!("{} {path:?}: {reason}", operation.name())));
            if path.split('.').any(str::is_empty) {
                return refuse("the path has an empty name");
            }
            if path.split('.').nth(MAX_DEPTH).is_some() {
                return refuse("the path has more than 64 names");
            }
            let (root, _) = split(path);
            match self.layout.position(root) {
                Some(position) if position == self.key => return refuse("the key stays as it is"),
                Some(position) if self.is_fixed(position) => return refuse("a generated field stays as it is"),
                None if METADATA.contains(&root) => return refuse("metadata is the store's"),
                _ => {}
            }
            if let Operation::Increment(by) = operation
                && by.as_f64().is_none()
            {
                return refuse("it is not by a number");
            }
        }
        Ok(())
    }

    /// Applies a patch to a record's fields.
    ///
    /// # Errors
    /// As [`check_patch`](Self::check_patch); `Validation`; `InvalidValue`, if a field that it touches ends up nested too
    /// deeply or all of them too large for input; `UserCode` because of a default.
    pub(super) fn fields_of_patch(&self, record: &Record, patch: Patch) -> Result<Changed> {
        self.check_patch(&patch)?;
        let (mut values, mut extra) = (record.values.clone(), record.extra.clone());
        let (mut declared, mut undeclared): (Vec<usize>, Vec<Text>) = (Vec::new(), Vec::new());
        for (path, operation) in patch.operations {
            let (root, rest) = split(&path);
            let position = self.layout.position(root);
            let mut slot = match position {
                Some(position) => values[position].take(),
                None => extra.remove(root),
            };
            if let Some(position) = position
                && !(rest.is_none() && matches!(operation, Operation::Set(_) | Operation::Unset))
            {
                // It is absent because an operation took it away: what follows works on its default.
                self.fill_default(position, &mut slot)?;
            }
            let applied = operation.apply_at(&mut slot, rest);
            applied.map_err(|Fault { code, message }| self.refuse(vec![Issue::new(path.as_str(), code, message)]))?;
            match (position, slot) {
                (Some(position), slot) => {
                    values[position] = slot;
                    declared.push(position);
                }
                (None, Some(value)) => {
                    extra.insert(root, value);
                    undeclared.push(root.into());
                }
                (None, None) => {}
            }
        }
        declared.sort_unstable();
        declared.dedup();
        for position in &declared {
            self.fill_default(*position, &mut values[*position])?;
        }
        undeclared.sort_unstable();
        undeclared.dedup();

        // A patch is as good as an update by what it makes of the fields that it touches, and bounded like one.
        let of_declared =
            declared.iter().filter_map(|at| Some((self.fields[*at].name.as_str(), values[*at].as_ref()?)));
        let of_extra = undeclared.iter().filter_map(|name| Some((name.as_str(), extra.get(name)?)));
        check_bounds(of_declared.chain(of_extra))?;

        let mut findings = Findings::default();
        self.check_touched(&mut values, declared, &mut findings);
        for name in &undeclared {
            findings.issues.extend(extra.get_mut(name).and_then(|value| check_numbers(name, value)));
        }
        if findings.issues.is_empty() {
            Ok(Changed { values, extra, expires_at: Expiry::Default })
        } else {
            Err(self.refuse(findings.issues))
        }
    }
}

fn check_bounds<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>) -> Result<()> {
    let mut bytes = 0;
    for (name, value) in fields {
        if is_too_deep(value, 1) {
            let reason = "nested more than 64 levels deep".to_owned();
            return Err(Error::InvalidValue { path: name.to_owned(), reason });
        }
        bytes += 24 + name.len() + value.estimated_bytes();
    }
    if bytes > MAX_BYTES {
        return Err(Error::InvalidValue { path: String::new(), reason: "larger than 16 MiB".to_owned() });
    }
    Ok(())
}

impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is set is contents, and contents do not belong into logs.
        let operations = self.operations.iter().map(|(path, operation)| (operation.name(), path));
        f.write_str("Patch ")?;
        f.debug_list().entries(operations).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::base::value::Key;
    use crate::records::change::BucketSnapshot;
    use crate::records::definition::BucketDefinition;
    use crate::records::field::{Field, Generated};
    use crate::records::schema::Draws;
    use crate::records::table::Table;
    use crate::records::write::Write;

    fn definition() -> BucketDefinition {
        BucketDefinition::new("p")
            .key("id")
            .field("id", Field::int())
            .field("stamp", Field::int().generated(Generated::Timestamp))
            .field("name", Field::string().required().max_length(5))
            .field("count", Field::int().max(100))
            .field("role", Field::string().default("user"))
            .field("score", Field::float())
            .field("tags", Field::array().max_length(3))
            .field("address", Field::object())
            .field("stats", Field::object().default(record! { "seen": 1 }))
    }

    /// A table with one record, of key 1.
    fn table(definition: BucketDefinition, data: Object) -> Table {
        let mut table = Table::new(Arc::new(Schema::new(definition).unwrap()));
        let mut uuid = uuid::Uuid::new_v4;
        let plan = table.plan(Write::Insert(data), &mut Draws { now: 7, uuid: &mut uuid }).unwrap();
        let _commit = table.apply(plan);
        table
    }

    fn patch(table: &Table, patch: Patch) -> Result<Object> {
        let record = table.get(&Key::from(1), 0).unwrap();
        let before = Record::clone(&record);
        let changed = table.schema().fields_of_patch(&record, patch);
        assert_eq!(*record, before, "the record itself never changes");
        let Changed { values, extra, expires_at } = changed?;
        assert_eq!(expires_at, Expiry::Default);
        let fields = table.schema().fields.iter().zip(values);
        Ok(fields.filter_map(|(field, value)| Some((field.name.clone(), value?))).chain(extra).collect())
    }

    fn ada() -> Table {
        let data = record! {
            "id": 1, "name": "Ada", "tags": ["a"], "address": { "city": "London", "geo": { "x": 1 } }, "free": { "n": 1 },
            "nothing": null,
        };
        table(definition(), data)
    }

    #[track_caller]
    fn issues(refused: Result<Object>) -> Vec<(String, IssueCode)> {
        let Err(Error::Validation { issues, .. }) = refused else { panic!("{refused:?}") };
        issues.into_iter().map(|issue| (issue.field, issue.code)).collect()
    }

    fn one(field: &str, code: IssueCode) -> Vec<(String, IssueCode)> {
        vec![(field.to_owned(), code)]
    }

    #[test]
    fn operations_apply_in_order_each_to_what_the_earlier_ones_left() {
        let patched = patch(
            &ada(),
            Patch::new()
                .set("name", "Bob")
                .set("address.city", "Brno")
                .set("address.geo.y.z", 2)
                .unset("address.geo.x")
                .unset("address.no.such.thing")
                .increment("count", 2)
                .increment("count", 40)
                .increment("free.n", 0.5)
                .increment("free.m.deep", -3)
                .increment("score", 1)
                .increment("nothing", 1)
                .push("tags", "b")
                .push("tags", vec![1, 2])
                .push("lists.new", Value::Null)
                .set("gone", 1)
                .unset("gone"),
        );
        let expected = record! {
            "stamp": 7, "name": "Bob", "count": 42, "role": "user", "score": 1.0, "tags": ["a", "b", [1, 2]],
            "address": { "city": "Brno", "geo": { "y": { "z": 2 } } }, "stats": { "seen": 1 },
            "free": { "n": 1.5, "m": { "deep": -3 } }, "nothing": 1, "lists": { "new": [null] },
        };
        assert_eq!(patched.unwrap(), expected);
    }

    #[test]
    fn an_increment_of_what_is_absent_or_null_by_two_is_two() {
        for (path, by) in [("count", Value::Int(2)), ("nothing", Value::Int(2)), ("new.a.b", Value::Int(2))] {
            let patched = patch(&ada(), Patch::new().increment(path, by.clone())).unwrap();
            let found = Value::Object(patched).at(path).cloned();
            assert_eq!(format!("{found:?}"), format!("{:?}", Some(by)), "{path}");
        }
        let patched = patch(&ada(), Patch::new().increment("nothing", 2.0)).unwrap();
        assert_eq!(format!("{:?}", patched.get("nothing")), "Some(Float(2.0))");
    }

    #[test]
    fn a_patch_whose_last_operation_fails_applies_none() {
        // That the record is as it was is checked at each patch.
        let fine = || Patch::new().set("name", "Eve").increment("count", 1).push("tags", 1);
        patch(&ada(), fine()).unwrap();
        for (last, expected) in [
            (fine().increment("name", 1), one("name", IssueCode::Type)),
            (fine().increment("free", 1), one("free", IssueCode::Type)),
            (fine().push("name", 1), one("name", IssueCode::Type)),
            (fine().set("name.first", 1), one("name.first", IssueCode::Type)),
            (fine().unset("tags.0"), one("tags.0", IssueCode::Type)),
            (fine().increment("free.n", i64::MAX), one("free.n", IssueCode::Max)),
            (fine().increment("count", i64::MAX), one("count", IssueCode::Max)),
            // These are what an update would find.
            (fine().increment("count", 100), one("count", IssueCode::Max)),
            (fine().increment("count", 0.5), one("count", IssueCode::Type)),
            (fine().push("tags", 1).push("tags", 2), one("tags", IssueCode::MaxLength)),
            (fine().set("free.n", f64::NAN), one("free.n", IssueCode::Type)),
            (fine().set("score", f64::MAX).increment("score", f64::MAX), one("score", IssueCode::Type)),
            (fine().increment("free.n", f64::INFINITY), one("free.n", IssueCode::Type)),
            (fine().unset("name"), one("name", IssueCode::Required)),
            (fine().set("name", Value::Null), one("name", IssueCode::Required)),
            (fine().set("address", 1), one("address", IssueCode::Type)),
        ] {
            assert_eq!(issues(patch(&ada(), last.clone())), expected, "{last:?}");
        }
        let several = Patch::new().set("free.n", f64::NAN).set("address", 1).set("name", "too long");
        let expected = [("name", IssueCode::MaxLength), ("address", IssueCode::Type), ("free.n", IssueCode::Type)];
        assert_eq!(issues(patch(&ada(), several)), expected.map(|(field, code)| (field.to_owned(), code)));
    }

    #[test]
    fn what_no_record_could_take_is_an_invalid_argument() {
        let long = vec!["a"; 65].join(".");
        for refused in [
            Patch::new().set("id", 2),
            Patch::new().unset("id"),
            Patch::new().set("id.x", 2),
            Patch::new().increment("stamp", 1),
            Patch::new().set("_version", 2),
            Patch::new().set("_expires_at", 2),
            Patch::new().push("_created_at.x", 2),
            Patch::new().set("", 1),
            Patch::new().set("a..b", 1),
            Patch::new().unset(".a"),
            Patch::new().push("a.", 1),
            Patch::new().set(long.as_str(), 1),
            Patch::new().increment("count", "1"),
            Patch::new().increment("count", Value::Null),
        ] {
            let outcome = patch(
                &ada(),
                Patch { operations: [Patch::new().set("name", "Eve").operations, refused.operations.clone()].concat() },
            );
            assert!(matches!(outcome, Err(Error::InvalidArgument { .. })), "{refused:?}: {outcome:?}");
        }
    }

    #[test]
    fn what_a_patch_makes_is_bounded_like_input() {
        let deep = |levels: usize| (0..levels).fold(Value::Null, |inner, _| vec![inner].into());
        patch(&ada(), Patch::new().set("free.a.b", deep(61))).unwrap();
        for refused in [
            Patch::new().set("free.a.b", deep(62)),
            Patch::new().set("address.a", deep(63)),
            Patch::new().push("tags", deep(63)),
            Patch::new().set("new", "x".repeat(16 << 20)),
        ] {
            let outcome = patch(&ada(), refused);
            assert!(matches!(outcome, Err(Error::InvalidValue { .. })), "{outcome:?}");
        }
        let path = vec!["a"; 64].join(".");
        patch(&ada(), Patch::new().set(path, 1)).unwrap();
    }

    #[test]
    fn bk_10_a_default_is_made_per_record_null_stays_and_unset_brings_it_back() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let made = Field::int().default_with(move || i64::try_from(counted.fetch_add(1, Ordering::Relaxed)).unwrap());
        let calls = || calls.load(Ordering::Relaxed);
        let definition = BucketDefinition::new("d").key("id").field("id", Field::int()).field("made", made);
        let mut table = table(definition, record! { "id": 1 });
        let mut uuid = uuid::Uuid::new_v4;
        let mut insert = |data: Object| {
            let plan = table.plan(Write::Insert(data), &mut Draws { now: 7, uuid: &mut uuid }).unwrap();
            table.apply(plan).written.into_record().unwrap().get("made").cloned()
        };
        assert_eq!(insert(record! { "id": 2 }), Some(Value::Int(1)));
        assert_eq!(calls(), 2);
        assert_eq!(insert(record! { "id": 3, "made": null }), Some(Value::Null));
        assert_eq!(calls(), 2);
        let made = |operations| patch(&table, operations).unwrap().get("made").cloned();
        assert_eq!(made(Patch::new().set("made", Value::Null)), Some(Value::Null));
        assert_eq!(made(Patch::new().unset("made")), Some(Value::Int(2)), "the default again");
        assert_eq!(made(Patch::new().unset("made").unset("made").increment("made", 10)), Some(Value::Int(13)));
        assert_eq!(made(Patch::new().unset("made").set("made", 5)), Some(Value::Int(5)), "not asked for one in vain");
        assert_eq!(calls(), 4);
    }

    #[test]
    fn unset_puts_a_default_back_that_later_operations_find() {
        let patched = patch(&ada(), Patch::new().set("role", "x").unset("role").set("stats.seen", 9).unset("stats"));
        let patched = patched.unwrap();
        assert_eq!(
            (patched.get("role"), patched.get("stats")),
            (Some(&"user".into()), Some(&record! { "seen": 1 }.into()))
        );
        let patched =
            patch(&ada(), Patch::new().set("stats.seen", 9).unset("stats").increment("stats.seen", 1)).unwrap();
        assert_eq!(patched.get("stats"), Some(&record! { "seen": 2 }.into()));
        let panics = Field::int().default_with(|| -> i64 { panic!("a default") });
        let panicking = table(definition().field("made", panics), record! { "id": 1, "name": "x", "made": 1 });
        let outcome = patch(&panicking, Patch::new().unset("made"));
        assert!(matches!(outcome, Err(Error::UserCode { place: "default_with" })));
    }

    #[test]
    fn a_patch_shows_its_paths_and_not_what_it_writes() {
        let shown =
            format!("{:?}", Patch::new().set("a.b", "secret").unset("c").increment("d", 4_711).push("e", "secret"));
        assert_eq!(shown, r#"Patch [("set", "a.b"), ("unset", "c"), ("increment", "d"), ("push", "e")]"#);
        assert_eq!(Patch::new().set("a", 1), Patch::new().set("a", 1.0), "equal values, equal patches");
        assert!(Patch::new().set("a", 1) != Patch::new().push("a", 1) && Patch::new().is_empty());
    }

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Int),
            (-3_i64..3).prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            "[a-c]{0,6}".prop_map(Value::from),
            Just(Value::from(vec![1, 2])),
            Just(Value::Object(record! { "city": "Brno", "x": { "y": 1 } })),
        ]
    }

    fn operations() -> impl Strategy<Value = Patch> {
        let roots = vec!["name", "count", "role", "score", "tags", "address", "stats", "free", "nothing", "new"];
        let rests = vec!["", "", "", ".city", ".x", ".x.y", ".seen", ".n"];
        let path = (proptest::sample::select(roots), proptest::sample::select(rests));
        let path = path.prop_map(|(root, rest)| format!("{root}{rest}"));
        let operation = (path, 0..4, values()).prop_map(|(path, which, value)| match which {
            0 => Patch::new().set(path, value),
            1 => Patch::new().unset(path),
            2 => Patch::new().increment(path, if value.as_f64().is_some() { value } else { 1.into() }),
            _ => Patch::new().push(path, value),
        });
        proptest::collection::vec(operation, 0..6).prop_map(|operations| Patch {
            operations: operations.into_iter().flat_map(|patch| patch.operations).collect(),
        })
    }

    proptest! {
        /// What one check accepts, the other does: a record that was patched can be loaded, and is loaded as it was.
        #[test]
        fn what_a_patch_makes_can_be_loaded(patch in operations()) {
            let table = ada();
            let old = table.get(&Key::from(1), 0).unwrap();
            let Ok(Changed { values, extra, .. }) = table.schema().fields_of_patch(&old, patch) else { return Ok(()) };
            let new = Record { values, extra, ..Record::clone(&old) };
            let packed = rmp_serde::to_vec_named(&BucketSnapshot::new(1, 1, 0, vec![new.clone().into()])).unwrap();
            let restored = Table::restore(Arc::clone(table.schema()), rmp_serde::from_slice(&packed).unwrap()).unwrap();
            prop_assert!(!restored.altered);
            prop_assert_eq!(&*restored.table.get(&Key::from(1), 0).unwrap(), &new);
        }
    }
}
