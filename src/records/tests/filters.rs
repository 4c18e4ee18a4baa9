//! What each filter matches, with and without an index, and which are refused.

use std::sync::Arc;

use super::*;
use crate::base::error::Error;
use crate::base::value::Value;
use crate::records::query::Direction;

/// The same records without an index and with every index that can serve `a` and `b`.
fn twins(records: &[(i64, Object)]) -> [Bucket; 2] {
    [definition(), definition().index(["a"]).index(["b", "a"]).index(["c.x"])].map(|definition| {
        let mut bucket = Bucket::new(definition);
        for (key, fields) in records {
            bucket.add(*key, fields.clone());
        }
        bucket
    })
}

#[test]
fn bk_06_numbers_are_equal_by_exact_value_in_filters_indexes_and_unique() {
    const LARGE: i64 = (1 << 53) + 1;
    let large = 9_007_199_254_740_992.0;
    for bucket in &twins(&[
        (1, record! { "a": 2 }),
        (2, record! { "a": 2.0 }),
        (3, record! { "a": LARGE }),
        (4, record! { "a": large }),
    ]) {
        assert_eq!(bucket.find(Filter::eq("a", 2)), ["1", "2"]);
        assert_eq!(bucket.find(Filter::eq("a", 2.0)), ["1", "2"]);
        assert_eq!(bucket.find(Filter::is_in("a", [2.0])), ["1", "2"]);
        assert_eq!(bucket.find(Filter::eq("a", LARGE)), ["3"]);
        assert_eq!(bucket.find(Filter::eq("a", large)), ["4"]);
        assert_eq!(bucket.find(Filter::gt("a", large)), ["3"]);
    }
    let mut unique = Bucket::new(definition().unique_index(["a"]));
    unique.add(1, record! { "a": 2 });
    unique.add(3, record! { "a": LARGE });
    let holder = |value: Value| {
        let mut other = Record::from_parts(9, 9, unique.order.get_min().unwrap().1.metadata(), record! { "a": value });
        other.bind(&unique.schema.layout);
        let values = unique.schema.indexes[0].values(&other);
        unique.indexes[0].holder(&values, None).map(|record| record.key().clone())
    };
    assert_eq!(holder(Value::Float(2.0)), Some(Key::from(1)));
    assert_eq!(holder(Value::Float(large)), None);
    assert_eq!(holder(Value::Int(LARGE)), Some(Key::from(3)));
}

#[test]
fn bk_16_absent_and_null_are_alike_and_not_equal_to_one() {
    let records = [
        (1, record! { "a": null, "c": { "x": null }, "free": null }),
        (2, record! {}),
        (3, record! { "a": 1, "c": { "x": 1 }, "free": 1 }),
        (4, record! { "a": "x", "c": 7, "free": 2 }),
    ];
    for bucket in &twins(&records) {
        for path in ["a", "free"] {
            assert_eq!(bucket.find(Filter::is_null(path)), ["1", "2"], "{path}");
            assert_eq!(bucket.find(Filter::eq(path, Value::Null)), ["1", "2"], "{path}");
            assert_eq!(bucket.find(Filter::is_in(path, [Value::Null, 1.into()])), ["1", "2", "3"], "{path}");
            assert_eq!(bucket.find(Filter::ne(path, 1)), ["1", "2", "4"], "{path}");
            assert_eq!(bucket.find(Filter::exists(path)), ["1", "3", "4"], "{path}");
        }
        assert_eq!(bucket.find(Filter::is_null("c.x")), ["1", "2", "4"], "past a number all is absent");
        assert_eq!(bucket.find(Filter::ne("c.x", 1)), ["1", "2", "4"]);
        assert_eq!(bucket.find(Filter::exists("c.x")), ["1", "3"]);
    }
}

#[test]
fn ranges_stay_within_a_kind_and_prefixes_within_texts() {
    let values: [Value; 12] = [
        Value::Null,
        true.into(),
        false.into(),
        (-1).into(),
        0.5.into(),
        3.into(),
        "".into(),
        "ab".into(),
        "a\u{10ffff}".into(),
        "b".into(),
        (&[1_u8][..]).into(),
        vec!["ab"].into(),
    ];
    let records: Vec<(i64, Object)> = (0..).zip(values).map(|(key, value)| (key, record! { "a": value })).collect();
    for bucket in &twins(&records) {
        assert_eq!(bucket.find(Filter::lt("a", 3)), ["3", "4"]);
        assert_eq!(bucket.find(Filter::le("a", 3.0)), ["3", "4", "5"]);
        assert_eq!(bucket.find(Filter::gt("a", 0)), ["4", "5"]);
        assert_eq!(bucket.find(Filter::ge("a", false)), ["1", "2"]);
        assert_eq!(bucket.find(Filter::lt("a", true)), ["2"]);
        assert_eq!(bucket.find(Filter::ge("a", "")), ["6", "7", "8", "9"]);
        assert_eq!(bucket.find(Filter::le("a", Value::from(&[9_u8][..]))), ["10"]);
        assert_eq!(bucket.find(Filter::between("a", 0.5, 3)), ["4", "5"]);
        assert!(bucket.find(Filter::between("a", 3, 0)).is_empty());
        assert!(bucket.find(Filter::between("a", 0, "z")).is_empty());
        assert_eq!(bucket.find(Filter::gt("a", -1).and(Filter::lt("a", 3))), ["4"]);
        assert_eq!(bucket.find(Filter::prefix("a", "a")), ["7", "8"]);
        assert_eq!(bucket.find(Filter::prefix("a", "")), ["6", "7", "8", "9"]);
        assert_eq!(bucket.find(Filter::contains("a", "b")), ["7", "9"]);
        assert_eq!(bucket.find(Filter::contains("a", "ab")), ["7", "11"]);
    }
}

#[test]
fn logic_is_two_valued() {
    for bucket in &twins(&[(1, record! { "a": 1 }), (2, record! { "b": 1 }), (3, record! {})]) {
        let (a, b) = (Filter::eq("a", 1), Filter::eq("b", 1));
        assert_eq!(bucket.find(a.clone().or(b.clone())), ["1", "2"]);
        assert!(bucket.find(a.clone().and(b.clone())).is_empty());
        assert_eq!(bucket.find(a.clone().or(b.clone()).not()), ["3"]);
        assert_eq!(bucket.find(a.clone().not().not()), ["1"]);
        assert_eq!(bucket.find(Filter::all()), ["1", "2", "3"]);
        assert!(bucket.find(Filter::all().not()).is_empty());
        assert!(bucket.find(Filter::is_in("a", Vec::<i64>::new())).is_empty());
        assert_eq!(bucket.find(Filter::all().and(a.clone())), ["1"]);
        assert_eq!(a.clone().or(b.clone()), b.or(a));
    }
}

#[test]
fn metadata_and_undeclared_fields_are_seen() {
    let mut bucket = Bucket::new(definition());
    bucket.put(1, record! { "free": { "x": 2 } }, Some(5_000));
    bucket.put(2, record! {}, None);
    bucket.put(2, record! { "free": { "x": 1 } }, None);
    assert_eq!(bucket.find(Filter::eq("_version", 2)), ["2"]);
    assert_eq!(bucket.find(Filter::exists("_expires_at")), ["1"]);
    assert_eq!(bucket.find(Filter::is_null("_expires_at")), ["2"]);
    assert_eq!(bucket.find(Filter::le("_created_at", 1)), ["1", "2"]);
    assert!(bucket.find(Filter::exists("_version.x")).is_empty());
    assert_eq!(bucket.find(Query::all().order_by("free.x", Direction::Ascending)), ["2", "1"]);
    assert_eq!(bucket.find(Query::all().order_by("_version", Direction::Descending)), ["2", "1"]);
    assert_eq!(bucket.find(record! { "free.x": 2, "_version": 1 }), ["1"]);
}

#[test]
fn what_no_record_can_be_compared_with_is_refused() {
    let bucket = Bucket::new(definition().index(["a"]));
    let mut deep = Filter::eq("a", 1);
    for level in 0..100_000_u32 {
        deep = if level % 2 == 0 { deep.and(Filter::eq("b", level)) } else { deep.or(Filter::eq("b", level)) };
    }
    let nested: Value = vec![Value::from(record! { "x": f64::INFINITY })].into();
    for filter in [
        Filter::eq("", 1),
        Filter::eq("a.", 1),
        Filter::exists(".a"),
        Filter::prefix("a..b", "x"),
        Filter::eq("a", f64::NAN),
        Filter::eq("a", nested.clone()),
        Filter::contains("a", nested.clone()),
        Filter::is_in("a", [Value::from(1), nested]),
        Filter::lt("a", f64::INFINITY),
        Filter::lt("a", Value::Null),
        Filter::between("a", 1, Value::Null),
        Filter::ge("a", vec![1]),
        Filter::gt("a", Object::new()),
        Filter::eq("b", 1).and(Filter::eq("c", 1).or(Filter::eq("a", f64::NAN).not())),
        deep.clone(),
        deep.clone().not(),
        deep.and(Filter::all()).or(Filter::all()),
    ] {
        let refused = |result: bool| assert!(result, "{filter:?}");
        let view = bucket.view_for(&filter);
        let query = Query::new(filter.clone());
        refused(matches!(view.find(&query), Err(Error::InvalidArgument { .. })));
        refused(matches!(view.count(&filter), Err(Error::InvalidArgument { .. })));
        refused(matches!(view.explain(&query), Err(Error::InvalidArgument { .. })));
        refused(matches!(view.sum("a", &filter), Err(Error::InvalidArgument { .. })));
        refused(matches!(view.min("a", &filter), Err(Error::InvalidArgument { .. })));
    }
    for query in [Query::all().order_by("a..b", Direction::Ascending), Query::all().select([""])] {
        assert!(matches!(bucket.view().find(&query), Err(Error::InvalidArgument { .. })));
    }
    assert!(matches!(bucket.view().avg("a.", &Filter::all()), Err(Error::InvalidArgument { .. })));
    let mut legal = Filter::eq("a", 1);
    for level in 1..MAX_FILTER_DEPTH {
        let other = Filter::eq("b", 1);
        legal = if level % 2 == 0 { legal.and(other) } else { legal.or(other) };
    }
    assert!(bucket.view().find(&Query::new(legal.clone())).is_ok());
    assert!(bucket.view().max("a", &legal).is_ok());
    assert!(bucket.view().find(&Query::new(legal.not())).is_err());
}

#[test]
fn a_filter_matches_a_record_by_itself() {
    let mut bucket = Bucket::new(definition());
    let record = bucket.add(1, record! { "a": 1, "free": "abc" });
    assert!(Filter::eq("id", 1).and(Filter::contains("free", "bc")).matches(&record));
    assert!(!Filter::eq("a", 2).matches(&record));
}

#[test]
fn a_selection_keeps_key_metadata_and_the_paths() {
    let mut bucket = Bucket::new(definition());
    let full =
        bucket.add(1, record! { "a": 1, "b": 2, "c": { "x": 1, "y": { "z": 2, "w": 3 } }, "free": { "p": 1, "q": 2 } });
    let selected = |paths: &[&str]| {
        let query = Query::all().select(paths.iter().copied());
        let found = bucket.view().find(&query).unwrap().pop().unwrap();
        assert_eq!(found.metadata(), full.metadata());
        found.fields().map(|(name, value)| (name.to_owned(), value.to_json())).collect::<serde_json::Value>()
    };
    assert_eq!(selected(&[]), serde_json::json!({ "id": 1 }));
    assert_eq!(selected(&["a", "nothing", "a.b", "_version", "id"]), serde_json::json!({ "id": 1, "a": 1 }));
    assert_eq!(
        selected(&["c.y.w", "c.x", "free.q"]),
        serde_json::json!({ "id": 1, "c": { "x": 1, "y": { "w": 3 } }, "free": { "q": 2 } })
    );
    assert_eq!(selected(&["c.x", "c"]), selected(&["c", "c.y.z"]));
    let page = bucket.view().paginate(&Query::all().select(["b"]), &crate::records::query::Page::new(1)).unwrap();
    assert_eq!(page.records[0].get("a"), None);
    assert_eq!(Arc::strong_count(&full), 2, "the bucket's record is not touched");
}
