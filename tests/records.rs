//! The table keeps what was written, refuses what breaks its schema, and leaves everything as it was when it refuses.
//! Without it a bucket would answer differently from what it stores.

#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use ractor_persistence::base::error::{Error, IssueCode};
use ractor_persistence::base::value::{Key, Object, Value};
use ractor_persistence::record;
use ractor_persistence::records::{
    BucketChange, BucketDefinition, BucketSnapshot, Change, ChangeSet, Commit, Draws, Field, Filter, Generated, Query,
    Record, Schema, Table, Write, Written,
};

fn write_at(table: &mut Table, write: Write, now: i64) -> Result<Commit, Error> {
    // As many as are drawn are distinct: a commit raises the revision.
    let revision = u128::from(table.revision());
    let mut uuid = || uuid::Uuid::from_u128(revision + 1);
    let plan = table.plan(write, &mut Draws { now, uuid: &mut uuid })?;
    Ok(table.apply(plan))
}

fn insert(table: &mut Table, data: Object) -> Result<Arc<Record>, Error> {
    write_at(table, Write::Insert(data), 1_000).map(|commit| commit.written.into_record().unwrap())
}

fn update(table: &mut Table, key: impl Into<Key>, changes: Object) -> Result<Arc<Record>, Error> {
    write_at(table, Write::Update(key.into(), changes), 2_000).map(|commit| commit.written.into_record().unwrap())
}

fn table(definition: BucketDefinition) -> Table {
    Table::new(Arc::new(Schema::new(definition).unwrap()))
}

fn users() -> BucketDefinition {
    BucketDefinition::new("users")
        .key("id")
        .field("id", Field::string().generated(Generated::Uuid))
        .field("number", Field::int().generated(Generated::Autoincrement))
        .field("name", Field::string().required())
        .field("email", Field::string().unique())
        .field("role", Field::string().default("user"))
        .field("since", Field::date().generated(Generated::Timestamp))
        .field("address", Field::object())
        .index(["role", "address.city"])
}

fn find(table: &Table, filter: &Filter) -> Result<Vec<Arc<Record>>, Error> {
    table.view(filter, 1_000).find(&Query::new(filter.clone()))
}

fn count(table: &Table, filter: &Filter) -> Result<usize, Error> {
    table.view(filter, 1_000).count(filter)
}

/// Everything that can be seen of a table.
fn seen(table: &Table) -> (Vec<Arc<Record>>, u64, i64) {
    (table.all().cloned().collect(), table.revision(), table.counter())
}

#[test]
fn bk_01_a_minimal_insert_is_completed() {
    let mut users = table(users());
    let ada = insert(&mut users, record! { "name": "Ada" }).unwrap();
    assert_eq!(ada.get("id").and_then(Value::as_str).map(str::len), Some(36));
    assert_eq!(ada.get("role"), Some(&Value::from("user")));
    assert_eq!(ada.get("number"), Some(&Value::Int(1)));
    assert_eq!(ada.get("since"), Some(&Value::Int(1_000)));
    assert_eq!(ada.get("email"), None);
    let metadata = ada.metadata();
    assert_eq!((metadata.version, metadata.created_at, metadata.updated_at), (1, 1_000, 1_000));
    assert_eq!(users.get(ada.key(), 1_000).as_ref(), Some(&ada));
    assert_eq!(users.revision(), 1);
}

#[test]
fn bk_02_a_key_that_is_taken_changes_nothing() {
    let mut users = table(users());
    insert(&mut users, record! { "id": "a", "name": "Ada", "email": "a@x" }).unwrap();
    let before = seen(&users);
    let error = insert(&mut users, record! { "id": "a", "name": "Eve", "email": "e@x" }).unwrap_err();
    assert!(matches!(error, Error::DuplicateKey { key, .. } if key == Key::from("a")));
    assert_eq!(seen(&users), before);
    assert!(find(&users, &Filter::eq("email", "e@x")).unwrap().is_empty());
}

#[test]
fn bk_04_all_faults_of_a_record_come_at_once_and_in_schema_order() {
    let mut users = table(users());
    let faulty =
        record! { "id": "", "email": 7, "role": f64::NAN, "address": [1], "other": { "x": [1.0, f64::INFINITY] } };
    let before = seen(&users);
    let Err(Error::Validation { issues, .. }) = insert(&mut users, faulty) else { panic!("accepted") };
    let found: Vec<(&str, IssueCode)> = issues.iter().map(|issue| (issue.field.as_str(), issue.code)).collect();
    assert_eq!(
        found,
        [
            ("id", IssueCode::MinLength),
            ("name", IssueCode::Required),
            ("email", IssueCode::Type),
            ("role", IssueCode::Type),
            ("address", IssueCode::Type),
            ("other.x.1", IssueCode::Type),
        ]
    );
    assert_eq!(seen(&users), before);
}

#[test]
fn bk_05_numbers_that_json_does_not_have_are_refused_everywhere() {
    let mut users = table(users().field("score", Field::number()));
    for (data, path) in [
        (record! { "name": "A", "score": f64::NAN }, "score"),
        (record! { "name": "A", "free": f64::NEG_INFINITY }, "free"),
        (record! { "name": "A", "address": { "geo": [0.5, f64::INFINITY] } }, "address.geo.1"),
    ] {
        let Err(Error::Validation { issues, .. }) = insert(&mut users, data) else { panic!("accepted") };
        assert_eq!((issues[0].field.as_str(), issues[0].code), (path, IssueCode::Type));
    }
    assert!(users.is_empty());
    let zero = insert(&mut users, record! { "name": "A", "score": -0.0 }).unwrap();
    assert_eq!(zero.to_json()["score"].to_string(), "0.0");
}

#[test]
fn bk_08_an_update_leaves_key_generated_fields_and_metadata_alone() {
    let mut users = table(users());
    let ada = insert(&mut users, record! { "id": "a", "name": "Ada", "address": { "city": "London" } }).unwrap();
    let changes = record! {
        "id": "b", "number": 99, "since": 0, "_version": 7, "_created_at": 0, "name": "Ada L.", "email": null,
        "address": { "zip": 1 }, "free": 1,
    };
    let new = update(&mut users, "a", changes).unwrap();
    assert_eq!(new.key(), ada.key());
    for kept in ["id", "number", "since"] {
        assert_eq!(new.get(kept), ada.get(kept), "{kept}");
    }
    assert_eq!(new.get("name"), Some(&Value::from("Ada L.")));
    assert_eq!(new.get("email"), Some(&Value::Null), "Null is stored");
    assert_eq!(new.get("address.city"), None, "merged at the top level only");
    assert_eq!(new.get("free"), Some(&Value::Int(1)));
    let metadata = new.metadata();
    assert_eq!((metadata.version, metadata.created_at, metadata.updated_at), (2, 1_000, 2_000));
    let again = write_at(&mut users, Write::Update("a".into(), Object::new()), 1).unwrap();
    let again = again.written.into_record().unwrap();
    assert_eq!((again.version(), again.metadata().updated_at), (3, 2_000), "the clock went back, the record did not");
}

#[test]
fn bk_09_numbers_go_on_from_the_highest_and_refusals_use_none_up() {
    let numbered = BucketDefinition::new("n")
        .key("id")
        .field("id", Field::int().generated(Generated::Autoincrement))
        .field("twin", Field::int().generated(Generated::Autoincrement))
        .field("u", Field::int().unique());
    let mut table = table(numbered);
    insert(&mut table, record! { "id": 3, "u": 1 }).unwrap();
    assert!(insert(&mut table, record! { "u": 1 }).is_err());
    for expected in [4, 5, 6] {
        let record = insert(&mut table, record! {}).unwrap();
        assert_eq!((record.get("id"), record.get("twin")), (Some(&Value::Int(expected)), Some(&Value::Int(expected))));
    }
    insert(&mut table, record! { "id": i64::MAX }).unwrap();
    let before = seen(&table);
    assert!(matches!(insert(&mut table, record! {}), Err(Error::CounterExhausted { .. })));
    assert_eq!(seen(&table), before);
}

#[test]
fn bk_14_the_wrong_kind_of_key_finds_nothing() {
    let mut table = table(BucketDefinition::new("n").key("id").field("id", Field::int()));
    insert(&mut table, record! { "id": 1 }).unwrap();
    assert!(table.get(&Key::from("1"), 1_000).is_none());
    assert!(find(&table, &Filter::eq("id", "1")).unwrap().is_empty());
    assert_eq!(find(&table, &Filter::eq("id", 1.0)).unwrap().len(), 1);
    let refused = insert(&mut table, record! { "id": "2" });
    assert!(matches!(refused, Err(Error::Validation { .. })));
}

#[test]
fn bk_24_a_unique_value_has_one_holder_and_nulls_have_none() {
    let mut users = table(users());
    insert(&mut users, record! { "id": "a", "name": "A", "email": "a@x" }).unwrap();
    insert(&mut users, record! { "id": "b", "name": "B", "email": null }).unwrap();
    insert(&mut users, record! { "id": "c", "name": "C" }).unwrap();
    let before = seen(&users);
    let taken = |error| {
        let Error::UniqueViolation { index, values, holder, .. } = error else { panic!("{error}") };
        assert_eq!((index.as_str(), &values[..], holder), ("email", &[Value::from("a@x")][..], Key::from("a")));
    };
    taken(insert(&mut users, record! { "name": "D", "email": "a@x" }).unwrap_err());
    taken(update(&mut users, "b", record! { "email": "a@x" }).unwrap_err());
    assert_eq!(seen(&users), before);
    update(&mut users, "a", record! { "email": "a@x", "name": "AA" }).expect("one's own value is fine");
}

#[test]
fn a_unique_value_is_free_after_delete_change_and_clear() {
    let mut users = table(users());
    let free = |users: &mut Table| {
        let id = insert(users, record! { "name": "X", "email": "e" }).expect("free").key().clone();
        write_at(users, Write::Delete(id), 1).unwrap();
    };
    insert(&mut users, record! { "id": "a", "name": "A", "email": "e" }).unwrap();
    update(&mut users, "a", record! { "email": "f" }).unwrap();
    free(&mut users);
    update(&mut users, "a", record! { "email": "e" }).unwrap();
    let commit = write_at(&mut users, Write::Delete("a".into()), 1).unwrap();
    assert_eq!(commit.written, Written::Deleted(true));
    free(&mut users);
    insert(&mut users, record! { "id": "b", "name": "B", "email": "e" }).unwrap();
    let counter = users.counter();
    let commit = write_at(&mut users, Write::Clear, 1).unwrap();
    assert_eq!((commit.written, users.counter()), (Written::Count(1), counter));
    free(&mut users);
}

#[test]
fn what_changes_nothing_is_no_commit() {
    let mut users = table(users());
    for write in [Write::Delete("a".into()), Write::Clear] {
        let commit = write_at(&mut users, write, 1).unwrap();
        assert!(commit.changes.as_slice().is_empty());
        assert_eq!(users.revision(), 0);
    }
    assert!(matches!(update(&mut users, "a", record! {}), Err(Error::NotFound { .. })));
}

#[test]
fn bk_16_absent_and_null_are_alike_to_filters_with_and_without_an_index() {
    let mut users = table(users());
    insert(&mut users, record! { "id": "a", "name": "A", "email": null, "free": null }).unwrap();
    insert(&mut users, record! { "id": "b", "name": "B" }).unwrap();
    insert(&mut users, record! { "id": "c", "name": "C", "email": "c", "free": 1 }).unwrap();
    for path in ["email", "free", "free.deeper"] {
        let found = find(&users, &Filter::eq(path, Value::Null)).unwrap();
        let expected: &[&str] = if path == "free.deeper" { &["a", "b", "c"] } else { &["a", "b"] };
        let keys: Vec<String> = found.iter().map(|record| record.key().to_string()).collect();
        assert_eq!(keys, expected, "{path}");
    }
    assert!(matches!(find(&users, &Filter::eq("a..b", 1)), Err(Error::InvalidArgument { .. })));
    assert!(matches!(count(&users, &Filter::eq("free", f64::NAN)), Err(Error::InvalidArgument { .. })));
}

#[test]
fn values_are_brought_into_the_kind_of_their_field_or_refused() {
    let kinds = BucketDefinition::new("kinds")
        .key("k")
        .field("k", Field::int())
        .field("int", Field::int())
        .field("float", Field::float())
        .field("number", Field::number())
        .field("bool", Field::bool())
        .field("bytes", Field::bytes())
        .field("date", Field::date())
        .field("object", Field::object())
        .field("array", Field::array())
        .field("any", Field::any());
    let mut table = table(kinds);
    let stored = insert(
        &mut table,
        record! { "k": 1.0, "int": 2.0, "float": 3, "number": 4.5, "bool": true, "bytes": "AQI=", "date": "2024-02-29",
        "object": {}, "array": [], "any": [null] },
    )
    .unwrap();
    let shown = |name: &str| format!("{:?}", stored.get(name).unwrap());
    assert_eq!(shown("k"), "Int(1)");
    assert_eq!(shown("int"), "Int(2)");
    assert_eq!(shown("float"), "Float(3.0)");
    assert_eq!(stored.get("bytes"), Some(&Value::from(&[1_u8, 2][..])));
    let listed = insert(&mut table, record! { "k": 2, "bytes": [0, 255] }).unwrap();
    assert_eq!(listed.get("bytes"), Some(&Value::from(&[0_u8, 255][..])));
    for (name, value) in [
        ("int", Value::Float(2.5)),
        ("int", "2".into()),
        ("float", Value::Int((1 << 53) + 1)),
        ("number", "1".into()),
        ("bool", 1.into()),
        ("bytes", "AQI".into()),
        ("bytes", vec![256].into()),
        ("date", "2024-02-30".into()),
        ("date", Value::Float(1.5)),
        ("object", Vec::<i64>::new().into()),
        ("array", Object::new().into()),
    ] {
        let mut data = record! { "k": 9 };
        data.insert(name, value.clone());
        let Err(Error::Validation { issues, .. }) = insert(&mut table, data) else { panic!("{name} took {value:?}") };
        assert_eq!((issues.len(), issues[0].field.as_str(), issues[0].code), (1, name, IssueCode::Type));
    }
    assert_eq!(table.len(), 2);
}

#[test]
fn input_that_is_too_deep_or_too_large_is_refused() {
    let mut table = table(BucketDefinition::new("n").key("id").field("id", Field::int()));
    let mut deep = Value::from(1);
    for _ in 0..64 {
        deep = vec![deep].into();
    }
    let error = insert(&mut table, record! { "id": 1, "deep": deep }).unwrap_err();
    assert!(matches!(error, Error::InvalidValue { path, .. } if path == "deep"));
    let large = "x".repeat(16 << 20);
    assert!(matches!(insert(&mut table, record! { "id": 1, "large": large }), Err(Error::InvalidValue { .. })));
    let long = "x".repeat(1_025);
    let mut texts = crate::table(BucketDefinition::new("t").key("id").field("id", Field::string()));
    let Err(Error::Validation { issues, .. }) = insert(&mut texts, record! { "id": long }) else { panic!("accepted") };
    assert_eq!(issues[0].code, IssueCode::MaxLength);
}

#[test]
fn bk_50_a_faulty_definition_lists_all_its_faults() {
    let faulty = BucketDefinition::new("a\nb")
        .key("nokey")
        .field("a.b", Field::string())
        .field("_version", Field::int())
        .field("twice", Field::int())
        .field("twice", Field::int())
        .field("stamp", Field::string().generated(Generated::Timestamp))
        .field("wrong", Field::int().default("x"))
        .index(["unknown.path"])
        .index(Vec::<String>::new())
        .schema_version(0);
    let Err(Error::InvalidDefinition { problems, .. }) = Schema::new(faulty) else { panic!("accepted") };
    assert_eq!(problems.len(), 10, "{problems:#?}");
    let no_key = Schema::new(BucketDefinition::new("x").field("id", Field::int())).unwrap_err();
    assert!(no_key.to_string().contains("no key"), "{no_key}");
    let kind = Schema::new(BucketDefinition::new("x").key("id").field("id", Field::bool())).unwrap_err();
    assert!(kind.to_string().contains("not an int or string"), "{kind}");
    let many = (0..1_025).fold(BucketDefinition::new("x").key("0"), |definition, number| {
        definition.field(number.to_string(), Field::int())
    });
    assert!(Schema::new(many).is_err());
}

fn restore(definition: BucketDefinition, snapshot: BucketSnapshot) -> Result<(Table, bool), Error> {
    let restored = Table::restore(Arc::new(Schema::new(definition).unwrap()), snapshot)?;
    Ok((restored.table, restored.altered))
}

#[test]
fn a_restored_table_is_the_one_that_was_stored() {
    let mut before = table(users());
    for name in ["A", "B", "C"] {
        insert(&mut before, record! { "name": name, "email": name, "free": [name] }).unwrap();
    }
    let second = before.all().nth(1).unwrap().key().clone();
    write_at(&mut before, Write::Delete(second), 1).unwrap();
    let packed = rmp_serde::to_vec_named(&before.snapshot()).unwrap();
    let snapshot: BucketSnapshot = rmp_serde::from_slice(&packed).unwrap();
    let (mut after, altered) = restore(users(), snapshot).unwrap();
    assert!(!altered);
    assert_eq!(seen(&after), seen(&before));
    assert_eq!(find(&after, &Filter::eq("email", "C")).unwrap(), find(&before, &Filter::eq("email", "C")).unwrap());
    assert!(matches!(insert(&mut after, record! { "name": "X", "email": "A" }), Err(Error::UniqueViolation { .. })));
    let next = insert(&mut after, record! { "name": "D" }).unwrap();
    assert_eq!(next.get("number"), Some(&Value::Int(4)));
    assert_eq!(after.all().last(), Some(&next), "new records go last");
}

#[test]
fn stored_records_that_do_not_fit_are_refused_with_their_keys() {
    let mut before = table(users());
    insert(&mut before, record! { "id": "a", "name": "A", "age": 1 }).unwrap();
    insert(&mut before, record! { "id": "b", "name": "A", "age": "x" }).unwrap();
    let misfit = |definition| match restore(definition, before.snapshot()) {
        Err(Error::Migration { records, total, .. }) => {
            (total, records.iter().map(|misfit| misfit.key.to_string()).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(misfit(users().field("age", Field::int())), (1, vec!["b".to_owned()]));
    assert_eq!(misfit(users().field("new", Field::int().required())).0, 2);
    assert_eq!(misfit(users().unique_index(["name"])).0, 2);
    let mut newer = before.snapshot();
    newer.schema_version = 2;
    assert!(matches!(restore(users(), newer), Err(Error::SchemaTooNew { stored: 2, defined: 1, .. })));
    let (after, altered) = restore(users().field("new", Field::int().default(7)), before.snapshot()).unwrap();
    assert!(altered);
    assert!(after.all().all(|record| record.get("new") == Some(&Value::Int(7))));
}

// ---- against a model

#[derive(Clone, Debug)]
enum Step {
    Insert { key: u8, mail: Option<u8>, role: u8 },
    Update { key: u8, mail: Option<u8>, role: u8 },
    Delete(u8),
    Clear,
    Save,
    Fail,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mail = || proptest::option::weighted(0.7, 0_u8..6);
    let step = prop_oneof![
        5 => (0_u8..12, mail(), 0_u8..3).prop_map(|(key, mail, role)| Step::Insert { key, mail, role }),
        4 => (0_u8..12, mail(), 0_u8..3).prop_map(|(key, mail, role)| Step::Update { key, mail, role }),
        3 => (0_u8..12).prop_map(Step::Delete),
        1 => Just(Step::Clear),
        2 => Just(Step::Save),
        1 => Just(Step::Fail),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A plain model: key to (mail, role, version, place).
type Model = BTreeMap<u8, (Option<u8>, u8, u64, u64)>;

fn definition() -> BucketDefinition {
    BucketDefinition::new("m")
        .key("id")
        .field("id", Field::int())
        .field("mail", Field::int().unique())
        .field("role", Field::int())
        .index(["role", "mail"])
        .index(["role"])
}

fn expected(model: &Model) -> Vec<(i64, u64)> {
    let mut records: Vec<_> =
        model.iter().map(|(key, (_, _, version, place))| (*place, i64::from(*key), *version)).collect();
    records.sort_unstable();
    records.into_iter().map(|(_, key, version)| (key, version)).collect()
}

fn shown<'a>(records: impl IntoIterator<Item = &'a Arc<Record>>) -> Vec<(i64, u64)> {
    records.into_iter().map(|record| (record.key().as_value().as_i64().unwrap(), record.version())).collect()
}

proptest! {
    /// Table, indexes and unsaved changes do what a map does, whatever is written and however saving goes.
    #[test]
    fn a_table_does_what_a_map_does(steps in steps()) {
        let mut table = table(definition());
        let mut model = Model::new();
        let mut next_place = 0;
        let mut revision = 0;
        let mut stored: Option<BucketSnapshot> = None;
        let mut waiting: Option<ChangeSet> = None;
        for step in steps {
            let (write, legal) = match &step {
                Step::Insert { key, mail, role } => {
                    let taken = model.values().any(|(other, ..)| mail.is_some() && other == mail);
                    let data = record! { "id": *key, "mail": mail.map(i64::from), "role": *role };
                    (Write::Insert(data), !model.contains_key(key) && !taken)
                }
                Step::Update { key, mail, role } => {
                    let taken = model.iter().any(|(other, (held, ..))| other != key && mail.is_some() && held == mail);
                    let data = record! { "mail": mail.map(i64::from), "role": *role };
                    (Write::Update(i64::from(*key).into(), data), model.contains_key(key) && !taken)
                }
                Step::Delete(key) => (Write::Delete(i64::from(*key).into()), true),
                Step::Clear => (Write::Clear, true),
                Step::Save => {
                    if let Some(changes) = waiting.take() {
                        stored.get_or_insert_default().apply(&changes.to_change());
                    }
                    continue;
                }
                Step::Fail => {
                    // Captured, changed meanwhile, failed, merged back.
                    if let Some(captured) = waiting.take() {
                        let newer = ChangeSet::new(table.counter(), table.revision(), 1);
                        waiting = Some(newer.over(captured));
                    }
                    continue;
                }
            };
            let outcome = write_at(&mut table, write, 1);
            prop_assert_eq!(outcome.is_ok(), legal, "{:?}", step);
            let Ok(commit) = outcome else { continue };
            let changed = match step {
                Step::Insert { key, mail, role } => {
                    model.insert(key, (mail, role, 1, next_place));
                    next_place += 1;
                    true
                }
                Step::Update { key, mail, role } => {
                    let held = model.get_mut(&key).unwrap();
                    *held = (mail, role, held.2 + 1, held.3);
                    true
                }
                Step::Delete(key) => model.remove(&key).is_some(),
                Step::Clear => !std::mem::take(&mut model).is_empty(),
                Step::Save | Step::Fail => false,
            };
            revision += u64::from(changed);
            prop_assert_eq!(table.revision(), revision);
            prop_assert_eq!(!commit.changes.as_slice().is_empty(), changed);
            for change in commit.changes.as_slice() {
                let changes = waiting.get_or_insert_with(|| ChangeSet::new(0, 0, 1));
                changes.note(change, table.counter(), table.revision());
                let cleared = matches!(change, Change::Cleared { .. });
                prop_assert_eq!(change.key().is_none(), cleared);
            }
            prop_assert_eq!(shown(table.all()), expected(&model));
            for role in 0..3_u8 {
                let hits: Model = model.iter().filter(|(_, held)| held.1 == role).map(|(key, held)| (*key, *held)).collect();
                let filter = Filter::eq("role", role);
                prop_assert_eq!(shown(&find(&table, &filter).unwrap()), expected(&hits));
                prop_assert_eq!(count(&table, &filter).unwrap(), hits.len());
                let mailless: Model = hits.into_iter().filter(|(_, held)| held.0.is_none()).collect();
                let both = Filter::eq("role", role).and(Filter::eq("mail", Value::Null));
                prop_assert_eq!(shown(&find(&table, &both).unwrap()), expected(&mailless));
            }
        }
        // What is stored and what is unsaved are the table, together.
        let mut snapshot = stored.unwrap_or_default();
        if let Some(changes) = waiting {
            let change = changes.to_change();
            if let BucketChange::Delta(delta) = &change {
                let keys: Vec<_> = delta.upserts.iter().map(|record| record.key()).collect();
                prop_assert!(delta.deletes.iter().all(|key| !keys.contains(&key)));
            }
            snapshot.apply(&change);
        }
        snapshot.schema_version = 1;
        let (restored, altered) = restore(definition(), snapshot).unwrap();
        prop_assert!(!altered);
        prop_assert_eq!(shown(restored.all()), shown(table.all()));
    }
}
