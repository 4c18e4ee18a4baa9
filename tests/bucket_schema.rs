//! A definition says what a record may hold; whatever breaks it is refused with all its faults, at insert and
//! update, and a definition that has faults itself never becomes a bucket. Without it a bucket would hold what its readers
//! cannot read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by unwrapping it")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ractor_persistence::Store;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::error::{Error, IssueCode};
use ractor_persistence::base::value::{IntoObject, Object, Value};
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Draws, Field, Format, Generated, Record, Schema, Table, Write};

fn table(definition: BucketDefinition) -> Table {
    Table::new(Arc::new(Schema::new(definition).unwrap()))
}

fn write(table: &mut Table, write: Write) -> Result<Arc<Record>, Error> {
    let mut uuid = uuid::Uuid::new_v4;
    let plan = table.plan(write, &mut Draws { now: 1_000, uuid: &mut uuid })?;
    Ok(table.apply(plan).written.into_record().unwrap())
}

fn insert(table: &mut Table, data: Object) -> Result<Arc<Record>, Error> {
    write(table, Write::Insert(data))
}

#[track_caller]
fn issues<T: std::fmt::Debug>(refused: Result<T, Error>) -> Vec<(String, IssueCode)> {
    let Err(Error::Validation { issues, .. }) = refused else { panic!("{refused:?}") };
    issues.into_iter().map(|issue| (issue.field, issue.code)).collect()
}

#[track_caller]
fn problems(definition: BucketDefinition) -> Vec<String> {
    match Schema::new(definition) {
        Err(Error::InvalidDefinition { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

fn keyed(name: &str) -> BucketDefinition {
    BucketDefinition::new(name).key("id").field("id", Field::int().generated(Generated::Autoincrement))
}

fn of_one(field: Field) -> BucketDefinition {
    keyed("one").field("f", field)
}

// ---- what a record may hold

#[test]
fn bk_04_every_fault_of_a_record_is_told_in_order_and_type_ends_a_field() {
    let mut table = table(
        BucketDefinition::new("all")
            .key("id")
            .field("id", Field::string().min_length(3).pattern("^k"))
            .field("required", Field::int().required().min(0))
            .field("kind", Field::string().min_length(9).one_of(["a"]))
            // Lengths that no text can have break one by one; so both are seen only in two fields.
            .field("short", Field::string().one_of(["abcd"]).min_length(4).pattern("x").format(Format::Email))
            .field("long", Field::string().one_of(["abcd"]).max_length(1).pattern("x").format(Format::Url))
            .field("low", Field::number().one_of([5]).min(4).max(6))
            .field("high", Field::float().one_of([5]).min(4).max(6))
            .field("fine", Field::string().required()),
    );
    let faulty = record! {
        "id": "", "kind": 1, "short": "abc", "long": "abc", "low": 3, "high": 7.5, "fine": "",
        "a free one": [f64::NAN], "_expires_at": "soon",
    };
    let expected = [
        ("id", IssueCode::MinLength),
        ("id", IssueCode::Pattern),
        ("required", IssueCode::Required),
        ("kind", IssueCode::Type),
        ("short", IssueCode::Enum),
        ("short", IssueCode::MinLength),
        ("short", IssueCode::Pattern),
        ("short", IssueCode::Format),
        ("long", IssueCode::Enum),
        ("long", IssueCode::MaxLength),
        ("long", IssueCode::Pattern),
        ("long", IssueCode::Format),
        ("low", IssueCode::Enum),
        ("low", IssueCode::Min),
        ("high", IssueCode::Enum),
        ("high", IssueCode::Max),
        ("a free one.0", IssueCode::Type),
        ("_expires_at", IssueCode::Type),
    ]
    .map(|(field, code)| (field.to_owned(), code));
    assert_eq!(issues(insert(&mut table, faulty.clone())), expected);
    assert!(table.is_empty());

    // An update finds the same ones, but for the key that it leaves alone and the field that is not in it.
    let good = record! { "id": "key", "required": 0, "fine": "" };
    insert(&mut table, good).unwrap();
    let found = issues(write(&mut table, Write::Update("key".into(), faulty)));
    assert_eq!(found, expected[3..]);
    let nulls = record! { "required": null, "kind": null, "fine": null };
    let found = issues(write(&mut table, Write::Update("key".into(), nulls)));
    assert_eq!(
        found,
        [("required", IssueCode::Required), ("fine", IssueCode::Required)].map(|(f, c)| (f.to_owned(), c))
    );
}

#[test]
fn bk_05_numbers_that_json_does_not_have_are_refused_wherever_they_are() {
    let mut table = table(
        keyed("n")
            .field("int", Field::int())
            .field("float", Field::float())
            .field("number", Field::number())
            .field("any", Field::any())
            .field("object", Field::object())
            .field("array", Field::array())
            .field("made", Field::any().default_with(|| 1)),
    );
    insert(&mut table, record! { "id": 1 }).unwrap();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for (data, path) in [
            (record! { "int": bad }, "int"),
            (record! { "float": bad }, "float"),
            (record! { "number": bad }, "number"),
            (record! { "any": bad }, "any"),
            (record! { "any": { "a": [1, { "b": bad }] } }, "any.a.1.b"),
            (record! { "object": { "a": bad } }, "object.a"),
            (record! { "array": [0, bad] }, "array.1"),
            (record! { "free": bad }, "free"),
            (record! { "free": { "a": [bad] } }, "free.a.0"),
            (record! { "_expires_at": bad }, "_expires_at"),
        ] {
            let expected = [(path.to_owned(), IssueCode::Type)];
            assert_eq!(issues(insert(&mut table, data.clone())), expected, "{data:?}");
            assert_eq!(issues(write(&mut table, Write::Update(1.into(), data))), expected);
        }
    }
    #[derive(serde::Serialize)]
    struct Wide {
        int: u64,
    }
    let wide = Wide { int: u64::MAX }.into_object().unwrap();
    assert_eq!(issues(insert(&mut table, wide)), [("int".to_owned(), IssueCode::Type)]);
    assert_eq!((table.len(), table.revision()), (1, 1), "nothing is stored");
    let zero = insert(&mut table, record! { "float": -0.0, "free": [-0.0] }).unwrap();
    assert_eq!(
        (zero.to_json()["float"].to_string(), zero.to_json()["free"].to_string()),
        ("0.0".into(), "[0.0]".into())
    );
}

/// Runs itself in other zones: a process has one.
#[test]
fn bk_07_formats_are_checked_as_written_in_any_host_zone() {
    const CHILD: &str = "BUCKET_SCHEMA_ZONE";
    let mut table = table(
        keyed("formats")
            .field("iso", Field::string().format(Format::IsoDate))
            .field("date", Field::date())
            .field("email", Field::string().format(Format::Email))
            .field("url", Field::string().format(Format::Url)),
    );
    for good in ["2024-01-15T23:30:00-05:00", "2024-01-15T00:30:00+14:00", "2024-02-29", "2024-03-31T02:30:00"] {
        insert(&mut table, record! { "iso": good, "date": good, "email": "a@b.c", "url": "https://x/y" }).unwrap();
    }
    let found = issues(insert(
        &mut table,
        record! { "iso": "2024-02-30", "date": "2024-02-30", "email": "a@b..c", "url": "mailto:x" },
    ));
    let expected = [
        ("iso", IssueCode::Format),
        ("date", IssueCode::Type),
        ("email", IssueCode::Format),
        ("url", IssueCode::Format),
    ];
    assert_eq!(found, expected.map(|(field, code)| (field.to_owned(), code)));
    if std::env::var_os(CHILD).is_none() {
        for zone in ["Pacific/Kiritimati", "America/New_York", "Asia/Kolkata", "XXX+12"] {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "bk_07_formats_are_checked_as_written_in_any_host_zone"])
                .env("TZ", zone)
                .env(CHILD, zone)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success() && told.contains("1 passed"), "{zone}: {told}");
        }
    }
}

#[test]
fn lengths_count_scalar_values_octets_and_items() {
    let mut table = table(
        keyed("lengths")
            .field("text", Field::string().min_length(2).max_length(3))
            .field("bytes", Field::bytes().min_length(2).max_length(3))
            .field("list", Field::array().min_length(2).max_length(3)),
    );
    let three = [1_u8, 2, 3];
    insert(&mut table, record! { "text": "\u{1f600}é\u{301}", "bytes": &three[..], "list": [1, [2, 3, 4, 5], 3] })
        .unwrap();
    insert(&mut table, record! { "bytes": "AQI=" }).expect("two octets, as text of four characters");
    let found = issues(insert(&mut table, record! { "text": "é", "bytes": [1], "list": [[1, 2]] }));
    assert_eq!(found.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [IssueCode::MinLength; 3]);
    let found = issues(insert(&mut table, record! { "text": "abcd", "bytes": [1, 2, 3, 4], "list": [1, 2, 3, 4] }));
    assert_eq!(found.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [IssueCode::MaxLength; 3]);
}

#[test]
fn bounds_are_inclusive_and_exact_and_dates_compare_as_moments() {
    let refused = |field: Field, value: Value| {
        let mut table = table(of_one(field));
        match insert(&mut table, record! { "f": value }) {
            Ok(_) => None,
            refused => Some(issues(refused).remove(0).1),
        }
    };
    let wide = (1_i64 << 53) + 1;
    for (field, value, expected) in [
        (Field::int().min(1).max(3), Value::Int(1), None),
        (Field::int().min(1).max(3), Value::Int(3), None),
        (Field::int().min(1).max(3), Value::Int(0), Some(IssueCode::Min)),
        (Field::int().min(1).max(3), Value::Float(4.0), Some(IssueCode::Max)),
        (Field::int().min(0.5), Value::Int(0), Some(IssueCode::Min)),
        (Field::number().max(9_007_199_254_740_992.0), Value::Int(wide), Some(IssueCode::Max)),
        (Field::float().min(0), Value::Float(-0.0), None),
        (Field::float().min(0), Value::Float(-0.5), Some(IssueCode::Min)),
        (Field::date().min("2024-01-01"), Value::Int(1_704_067_200_000), None),
        (Field::date().min("2024-01-01"), Value::Int(1_704_067_199_999), Some(IssueCode::Min)),
        (Field::date().min("2024-01-01"), "2024-01-01T00:00:00+01:00".into(), Some(IssueCode::Min)),
        (Field::date().min("2024-01-01"), "2023-12-31T23:00:00-01:00".into(), None),
        (Field::date().max(1_704_067_200_000_i64), "2024-01-01T00:00:00.000000001Z".into(), Some(IssueCode::Max)),
        (Field::date().max(1_704_067_200_000_i64), "2024-01-01".into(), None),
    ] {
        assert_eq!(refused(field.clone(), value.clone()), expected, "{field:?} {value:?}");
    }
}

#[test]
fn members_are_equal_by_value_in_the_kind_of_the_field() {
    let mut table = table(
        keyed("members")
            .field("number", Field::number().one_of([1.0, 2.5]))
            .field("bytes", Field::bytes().one_of(["AQI="]))
            .field("any", Field::any().one_of([Value::Null, vec![1, 2].into(), "x".into()])),
    );
    insert(&mut table, record! { "number": 1, "bytes": [1, 2], "any": [1.0, 2] }).unwrap();
    insert(&mut table, record! { "number": null, "bytes": null, "any": null })
        .expect("null passes where it is optional");
    let found = issues(insert(&mut table, record! { "number": 2, "bytes": [1], "any": [2, 1] }));
    assert_eq!(found.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [IssueCode::Enum; 3]);
}

#[test]
fn a_pattern_is_found_anywhere_in_the_text_unless_it_is_tied() {
    let mut table = table(
        keyed("p").field("in", Field::string().pattern("b+")).field("all", Field::string().pattern(r"^\w{1,64}$")),
    );
    insert(&mut table, record! { "in": "abbc", "all": "ünïcode" }).unwrap();
    let found = issues(insert(&mut table, record! { "in": "ac", "all": "no blanks" }));
    assert_eq!(found, [("in".to_owned(), IssueCode::Pattern), ("all".to_owned(), IssueCode::Pattern)]);
}

#[test]
fn generated_ids_have_their_form_and_sort_by_time() {
    let mut table = table(
        BucketDefinition::new("ids")
            .key("id")
            .field("id", Field::string().generated(Generated::Cuid).min_length(33).max_length(33))
            .field("uuid", Field::string().generated(Generated::Uuid).default("beaten by the generator")),
    );
    let first = insert(&mut table, record! { "id": null }).unwrap();
    let second = insert(&mut table, record! {}).unwrap();
    let id = first.key().as_value().as_str().unwrap();
    assert!(id.starts_with(&format!("c{:012x}", 1_000)) && id.bytes().skip(1).all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_ne!(first.key(), second.key());
    assert_eq!(first.get("uuid").and_then(Value::as_str).map(str::len), Some(36));
    let found = issues(insert(&mut table, record! { "id": "explicit, and so checked" }));
    assert_eq!(found, [("id".to_owned(), IssueCode::MinLength)]);
}

#[test]
fn a_record_expires_when_its_bucket_or_itself_says_so() {
    let mut timed = table(keyed("timed").ttl("1s"));
    let expiry = |record: &Record| record.metadata().expires_at;
    assert_eq!(expiry(&insert(&mut timed, record! {}).unwrap()), Some(2_000));
    assert_eq!(expiry(&insert(&mut timed, record! { "_expires_at": null }).unwrap()), None);
    assert_eq!(expiry(&insert(&mut timed, record! { "_expires_at": 9_000.0 }).unwrap()), Some(9_000));
    let mut update = |changes| expiry(&write(&mut timed, Write::Update(1.into(), changes)).unwrap());
    assert_eq!(update(record! { "x": 1 }), Some(2_000), "kept");
    assert_eq!(update(record! { "_expires_at": 5_000 }), Some(5_000));
    assert_eq!(update(record! { "_expires_at": null }), None);
    assert_eq!(update(record! {}), None, "kept");

    let mut plain = table(keyed("plain"));
    assert_eq!(expiry(&insert(&mut plain, record! {}).unwrap()), None);
    assert_eq!(expiry(&insert(&mut plain, record! { "_expires_at": 7_000 }).unwrap()), Some(7_000));
    for bad in [Value::from("7000"), Value::Float(0.5), true.into(), Object::new().into()] {
        let refused = insert(&mut plain, record! { "_expires_at": &bad });
        assert_eq!(issues(refused), [("_expires_at".to_owned(), IssueCode::Type)], "{bad:?}");
    }
    let mut endless = table(keyed("endless").ttl(Duration::from_millis(i64::MAX.unsigned_abs() - 1)));
    assert_eq!(expiry(&insert(&mut endless, record! {}).unwrap()), Some(i64::MAX));
}

// ---- defaults

#[test]
fn a_default_that_is_worked_out_is_asked_once_checked_and_may_panic() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut counting =
        table(of_one(Field::int().min(0).default_with(move || match counted.fetch_add(1, Ordering::Relaxed) {
            2 => Value::Int(-1),
            3 => panic!("on the fourth call"),
            call => Value::Float(f64::from(u32::try_from(call).unwrap())),
        })));
    for call in [0, 1] {
        let record = insert(&mut counting, record! {}).unwrap();
        assert_eq!(format!("{:?}", record.get("f")), format!("Some(Int({call}))"), "brought into the field's kind");
    }
    assert_eq!(insert(&mut counting, record! { "f": null }).unwrap().get("f"), Some(&Value::Null));
    assert_eq!(insert(&mut counting, record! { "f": 7 }).unwrap().get("f"), Some(&Value::Int(7)));
    assert_eq!(calls.load(Ordering::Relaxed), 2, "an explicit value beats it, and then it is not called");
    assert_eq!(issues(insert(&mut counting, record! {})), [("f".to_owned(), IssueCode::Min)]);
    let before = (counting.revision(), counting.counter(), counting.len());
    assert!(matches!(insert(&mut counting, record! {}), Err(Error::UserCode { place: "default_with" })));
    assert_eq!((counting.revision(), counting.counter(), counting.len()), before);
    assert_eq!(insert(&mut counting, record! {}).unwrap().get("f"), Some(&Value::Int(4)), "the next one is served");

    let mut deep =
        table(of_one(Field::any().default_with(|| (0..64).fold(Value::Null, |inner, _| vec![inner].into()))));
    assert!(matches!(insert(&mut deep, record! {}), Err(Error::InvalidValue { path, .. }) if path == "f"));
}

// ---- definitions

#[test]
fn bk_26_each_text_of_a_lifetime_is_read_or_refused() {
    for (text, ms) in [("1.5h", 5_400_000), ("30 m", 1_800_000), ("10s", 10_000), ("10m", 600_000), ("2d", 172_800_000)]
    {
        assert_eq!(Schema::new(keyed("t").ttl(text)).unwrap().ttl_ms(), Some(ms), "{text}");
    }
    for text in ["", "1000", "h", "10x", "-5m", "0s", "1H"] {
        assert_eq!(problems(keyed("t").ttl(text)).len(), 1, "{text}");
    }
    assert_eq!(Schema::new(keyed("t").ttl(Duration::from_secs(1))).unwrap().ttl_ms(), Some(1_000));
    assert_eq!(Schema::new(keyed("t").ttl(String::from("1 s"))).unwrap().ttl_ms(), Some(1_000));
    assert_eq!(problems(keyed("t").ttl(Duration::ZERO)).len(), 1);
}

#[test]
fn what_makes_no_sense_in_a_definition_is_a_problem_of_it() {
    let one = |field: Field, part: &str| {
        let found = problems(of_one(field));
        assert!(found.len() == 1 && found[0].contains(part) && found[0].contains("\"f\""), "{part}: {found:?}");
    };
    one(Field::string().pattern("("), "pattern");
    one(Field::string().pattern(r"\w{1000}{1000}"), "pattern");
    one(Field::int().pattern("x"), "pattern");
    one(Field::date().format(Format::IsoDate), "format");
    one(Field::any().format(Format::Email), "format");
    one(Field::int().min_length(1), "length");
    one(Field::object().max_length(1), "length");
    one(Field::string().min_length(2).max_length(1), "over its max_length");
    one(Field::int().min(2).max(1), "over its max");
    one(Field::date().min("2024-01-01T00:00:00Z").max("2024-01-01T00:00:00+01:00"), "over its max");
    one(Field::int().min("1"), "min");
    one(Field::float().max(f64::NAN), "max");
    one(Field::date().max("2024-02-30"), "max");
    one(Field::string().min(1), "no min");
    one(Field::bool().max(1), "no max");
    one(Field::string().one_of(Vec::<Value>::new()), "no member");
    one(Field::int().one_of([Value::from(1), "x".into()]), "member 1");
    one(Field::string().one_of(["a", "b"]).default("c"), "default");
    one(Field::string().min_length(2).default("c"), "default");
    one(Field::string().required().default(Value::Null), "default");
    one(Field::int().default("c"), "default");
    one(Field::int().generated(Generated::Uuid), "generate");
    one(Field::bytes().generated(Generated::Cuid), "generate");
    one(Field::string().generated(Generated::Autoincrement), "generate");

    let step = |record: Object| Ok::<_, String>(record);
    for (definition, part) in [
        (keyed("d").max_size(0), "max_size"),
        (keyed("d").request_window(65_537), "request window"),
        (keyed("d").schema_version(0), "schema version"),
        (keyed("d").schema_version(2).migrate(0, step), "version 0"),
        (keyed("d").schema_version(2).migrate(2, step), "version 2"),
        (keyed("d").schema_version(3).migrate(1, step).migrate(1, step), "two migrations"),
        (keyed("d").index(["id..x"]), "empty name"),
        (keyed("d").index(["id."]), "empty name"),
        (keyed("d").index([""]), "empty name"),
        (keyed("d").index(["_version"]), "not declared"),
        (keyed("d").index(vec!["id"; 9]), "9 paths"),
        (BucketDefinition::new("d").key("k").field("k", Field::string().default("")), "default"),
    ] {
        let found = problems(definition);
        assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
    }
    let fine = keyed("d").schema_version(3).migrate(2, step).migrate(1, step).max_size(1).request_window(0);
    let schema = Schema::new(fine.ttl("1d").ordered()).unwrap();
    assert_eq!((schema.max_size(), schema.request_window(), schema.ordered()), (Some(1), 0, true));
    let plain = Schema::new(keyed("d")).unwrap();
    assert_eq!((plain.max_size(), plain.request_window(), plain.ttl_ms()), (None, 1_024, None));
}

#[test]
fn what_a_definition_holds_is_not_shown() {
    let field = Field::string().one_of(["secret"]).default("secret");
    let definition = of_one(field).field("n", Field::int().min(4_711).default_with(|| 4_712));
    let shown = format!("{definition:?} {:?}", Schema::new(definition.clone()).unwrap());
    assert!(!shown.contains("secret") && !shown.contains("471"), "{shown}");
}

#[tokio::test]
async fn bk_50_a_definition_with_three_faults_tells_all_of_them_and_leaves_its_name_free() {
    let store = Store::builder("definitions").adapter(MemoryAdapter::default()).start().await.unwrap();
    let faulty =
        keyed("users").field("name", Field::string().pattern("(")).field("age", Field::int().min(2).max(1)).ttl("10x");
    let Err(Error::InvalidDefinition { bucket, problems }) = store.define_bucket(faulty).await else {
        panic!("accepted")
    };
    assert_eq!((bucket.as_str(), problems.len()), ("users", 3), "{problems:?}");
    for part in ["pattern", "min", "ttl"] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
    }
    assert!(matches!(store.bucket("users"), Err(Error::BucketNotDefined { .. })));
    let fine = keyed("users")
        .field("name", Field::string().pattern("^.$"))
        .field("age", Field::int().min(1).max(2))
        .ttl("10m");
    let users = store.define_bucket(fine).await.unwrap();
    users.insert(record! { "name": "A", "age": 1 }).await.unwrap();
    store.stop().await.unwrap();
}
