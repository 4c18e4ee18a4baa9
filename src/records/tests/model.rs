//! BK-15: any query under any set of indexes answers what a full scan of a plain list answers. Without it an index that
//! misses or repeats a record, a wrong cut of a range or an order that depends on the plan would go unseen.

use std::cmp::Ordering;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::base::value::Value;
use crate::records::query::{Direction, Page};
use crate::records::span::Span;

const NOW: i64 = 1_000;
const PATHS: [&str; 9] = ["a", "b", "c.x", "c", "free", "free.x", "_version", "_expires_at", "id"];
const INDEXES: [&[&str]; 9] =
    [&["a"], &["b"], &["a", "b"], &["b", "a"], &["c.x"], &["c.x", "a"], &["a", "b", "c.x"], &["id"], &["id", "a"]];

/// What a record is to a scan: an object with everything in it, in bucket order.
struct Row {
    key: Key,
    all: Object,
}

/// A filter, told twice: to be planned, and to be followed word by word.
#[derive(Clone, Debug)]
enum Told {
    Eq(&'static str, Value),
    Ne(&'static str, Value),
    IsNull(&'static str),
    Exists(&'static str),
    Lt(&'static str, Value),
    Le(&'static str, Value),
    Gt(&'static str, Value),
    Ge(&'static str, Value),
    Between(&'static str, Value, Value),
    In(&'static str, Vec<Value>),
    Prefix(&'static str, String),
    Contains(&'static str, Value),
    And(Box<Told>, Box<Told>),
    Or(Box<Told>, Box<Told>),
    Not(Box<Told>),
    All,
}

fn same_kind(left: &Value, right: &Value) -> bool {
    let kind = |value: &Value| match value {
        Value::Int(_) | Value::Float(_) => "number",
        other => other.kind(),
    };
    kind(left) == kind(right)
}

impl Told {
    fn filter(&self) -> Filter {
        match self.clone() {
            Self::Eq(path, value) => Filter::eq(path, value),
            Self::Ne(path, value) => Filter::ne(path, value),
            Self::IsNull(path) => Filter::is_null(path),
            Self::Exists(path) => Filter::exists(path),
            Self::Lt(path, value) => Filter::lt(path, value),
            Self::Le(path, value) => Filter::le(path, value),
            Self::Gt(path, value) => Filter::gt(path, value),
            Self::Ge(path, value) => Filter::ge(path, value),
            Self::Between(path, from, to) => Filter::between(path, from, to),
            Self::In(path, values) => Filter::is_in(path, values),
            Self::Prefix(path, text) => Filter::prefix(path, text),
            Self::Contains(path, part) => Filter::contains(path, part),
            Self::And(left, right) => left.filter().and(right.filter()),
            Self::Or(left, right) => left.filter().or(right.filter()),
            Self::Not(inner) => inner.filter().not(),
            Self::All => Filter::all(),
        }
    }

    fn holds(&self, all: &Object) -> bool {
        let at = |path: &str| found(all, path);
        let or_null = |path: &str| at(path).unwrap_or(Value::Null);
        let ranged = |path: &str, value: &Value, fits: fn(Ordering) -> bool| {
            at(path).is_some_and(|own| same_kind(&own, value) && fits(own.cmp(value)))
        };
        match self {
            Self::Eq(path, value) => or_null(path) == *value,
            Self::Ne(path, value) => or_null(path) != *value,
            Self::IsNull(path) => or_null(path).is_null(),
            Self::Exists(path) => at(path).is_some(),
            Self::Lt(path, value) => ranged(path, value, Ordering::is_lt),
            Self::Le(path, value) => ranged(path, value, Ordering::is_le),
            Self::Gt(path, value) => ranged(path, value, Ordering::is_gt),
            Self::Ge(path, value) => ranged(path, value, Ordering::is_ge),
            Self::Between(path, from, to) => ranged(path, from, Ordering::is_ge) && ranged(path, to, Ordering::is_le),
            Self::In(path, values) => values.contains(&or_null(path)),
            Self::Prefix(path, text) => {
                at(path).and_then(|own| own.as_str().map(|own| own.starts_with(text))) == Some(true)
            }
            Self::Contains(path, part) => match at(path) {
                Some(Value::String(text)) => part.as_str().is_some_and(|part| text.contains(part)),
                Some(Value::Array(items)) => items.contains(part),
                _ => false,
            },
            Self::And(left, right) => left.holds(all) && right.holds(all),
            Self::Or(left, right) => left.holds(all) || right.holds(all),
            Self::Not(inner) => !inner.holds(all),
            Self::All => true,
        }
    }
}

fn found(all: &Object, path: &str) -> Option<Value> {
    Value::from(all.clone()).at(path).cloned()
}

fn compare(left: &Object, right: &Object, order: &[(&'static str, Direction)]) -> Ordering {
    order.iter().fold(Ordering::Equal, |decided, (path, direction)| {
        let value = |all: &Object| found(all, path).unwrap_or(Value::Null);
        let next = value(left).cmp(&value(right));
        decided.then(if *direction == Direction::Ascending { next } else { next.reverse() })
    })
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        6 => (-2_i64..4).prop_map(Value::Int),
        2 => (-3_i32..6).prop_map(|half| Value::Float(f64::from(half) / 2.0)),
        4 => select(vec!["", "a", "ab", "abc", "b", "a\u{10ffff}"]).prop_map(Value::from),
        1 => select(vec![&b""[..], &b"a"[..], &b"b"[..]]).prop_map(Value::from),
        1 => proptest::collection::vec(0_i64..3, 0..3).prop_map(Value::from),
        1 => (0_i64..3).prop_map(|x| Value::from(record! { "x": x })),
    ]
}

fn ranged() -> impl Strategy<Value = Value> {
    values()
        .prop_filter("kinds with ranges", |value| !matches!(value, Value::Null | Value::Array(_) | Value::Object(_)))
}

fn filters() -> impl Strategy<Value = Told> {
    let path = || select(PATHS.to_vec());
    let leaf = prop_oneof![
        6 => (path(), values()).prop_map(|(path, value)| Told::Eq(path, value)),
        1 => (path(), values()).prop_map(|(path, value)| Told::Ne(path, value)),
        1 => path().prop_map(Told::IsNull),
        1 => path().prop_map(Told::Exists),
        2 => (path(), ranged()).prop_map(|(path, value)| Told::Lt(path, value)),
        2 => (path(), ranged()).prop_map(|(path, value)| Told::Le(path, value)),
        2 => (path(), ranged()).prop_map(|(path, value)| Told::Gt(path, value)),
        2 => (path(), ranged()).prop_map(|(path, value)| Told::Ge(path, value)),
        2 => (path(), ranged(), ranged()).prop_map(|(path, from, to)| Told::Between(path, from, to)),
        3 => (path(), proptest::collection::vec(values(), 0..4)).prop_map(|(path, values)| Told::In(path, values)),
        2 => (path(), select(vec!["", "a", "ab", "b"])).prop_map(|(path, text)| Told::Prefix(path, text.to_owned())),
        1 => (path(), values()).prop_map(|(path, part)| Told::Contains(path, part)),
        1 => Just(Told::All),
    ];
    leaf.prop_recursive(3, 10, 2, |inner| {
        let pair = || (inner.clone(), inner.clone()).prop_map(|(left, right)| (Box::new(left), Box::new(right)));
        prop_oneof![
            5 => pair().prop_map(|(left, right)| Told::And(left, right)),
            3 => pair().prop_map(|(left, right)| Told::Or(left, right)),
            1 => inner.prop_map(|inner| Told::Not(Box::new(inner))),
        ]
    })
}

fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::Ascending, Direction::Descending])
}

/// Any paths and directions, or along an index so that walks are common.
fn orders() -> impl Strategy<Value = Vec<(&'static str, Direction)>> {
    prop_oneof![
        1 => Just(Vec::new()),
        1 => proptest::collection::vec((select(PATHS.to_vec()), direction()), 1..4),
        2 => (select(INDEXES.to_vec()), 0_usize..2, direction()).prop_map(|(paths, skip, direction)| {
            paths.iter().skip(skip).map(|path| (*path, direction)).collect()
        }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Put { key: Key, fields: Object, expires_at: Option<i64> },
    Delete(Key),
}

fn keys() -> impl Strategy<Value = Key> {
    prop_oneof![4 => (-2_i64..60).prop_map(Key::from), 1 => select(vec!["a", "ab", "b"]).prop_map(Key::from)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let field = || proptest::option::weighted(0.8, values());
    let put = (
        keys(),
        field(),
        field(),
        field(),
        field(),
        field(),
        prop_oneof![5 => Just(None), 1 => (NOW - 1..NOW + 2).prop_map(Some)],
    )
        .prop_map(|(key, a, b, x, c, free, expires_at)| {
            let mut fields = Object::new();
            let c = x.map(|x| Value::from(record! { "x": x })).or(c);
            for (name, value) in [("a", a), ("b", b), ("c", c), ("free", free)] {
                if let Some(value) = value {
                    fields.insert(name, value);
                }
            }
            Step::Put { key, fields, expires_at }
        });
    proptest::collection::vec(prop_oneof![6 => put, 1 => keys().prop_map(Step::Delete)], 0..140)
}

/// Writes the steps; answers the bucket and its live rows in bucket order, which is worked out beside it.
fn written(indexes: &[&[&str]], ordered: bool, steps: &[Step]) -> (Bucket, Vec<Row>) {
    let indexed = indexes.iter().fold(definition(), |definition, paths| definition.index(paths.iter().copied()));
    let mut bucket = Bucket::new(if ordered { indexed.ordered() } else { indexed });
    let mut rows: Vec<Row> = Vec::new();
    for step in steps {
        match step {
            Step::Put { key, fields, expires_at } => {
                let record = bucket.put(key.clone(), fields.clone(), *expires_at);
                let mut all = fields.clone();
                all.insert("id", key);
                all.insert("_version", i64::try_from(record.version()).unwrap());
                if let Some(at) = expires_at {
                    all.insert("_expires_at", *at);
                }
                match rows.iter_mut().find(|row| row.key == *key) {
                    Some(row) => row.all = all,
                    None => rows.push(Row { key: key.clone(), all }),
                }
            }
            Step::Delete(key) => {
                bucket.delete(key);
                rows.retain(|row| row.key != *key);
            }
        }
    }
    rows.retain(|row| row.all.get("_expires_at").and_then(Value::as_i64).is_none_or(|at| at > NOW));
    if ordered {
        rows.sort_by(|left, right| left.key.cmp(&right.key));
    }
    (bucket, rows)
}

fn shown<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<String> {
    rows.into_iter().map(|row| row.key.to_string()).collect()
}

fn query_of(told: &Told, order: &[(&'static str, Direction)]) -> Query {
    order.iter().fold(Query::new(told.filter()), |query, (path, direction)| query.order_by(*path, *direction))
}

fn scan<'a>(rows: &'a [Row], told: &Told, order: &[(&'static str, Direction)]) -> Vec<&'a Row> {
    let mut hits: Vec<&Row> = rows.iter().filter(|row| told.holds(&row.all)).collect();
    hits.sort_by(|left, right| compare(&left.all, &right.all, order));
    hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn bk_15_any_query_under_any_indexes_answers_what_a_scan_answers(
        steps in steps(),
        indexes in subsequence(INDEXES.to_vec(), 0..=INDEXES.len()),
        ordered in any::<bool>(),
        looks_up in any::<bool>(),
        told in filters(),
        order in orders(),
        (offset, limit) in (prop_oneof![2 => Just(0), 1 => 0_usize..4], proptest::option::of(0_usize..6)),
        page in 1_usize..4,
    ) {
        let (bucket, rows) = written(&indexes, ordered, &steps);
        let filter = told.filter();
        let view = if looks_up { bucket.view_for(&filter) } else { bucket.view() };
        let query = query_of(&told, &order);
        let hits = scan(&rows, &told, &order);
        prop_assert_eq!(names(&view.find(&query).unwrap()), shown(hits.iter().copied()));
        let one = view.find_one(&query).unwrap().map(|record| record.key().to_string());
        prop_assert_eq!(one, shown(hits.iter().copied()).into_iter().next());
        let mut part = query.clone().offset(offset);
        if let Some(limit) = limit {
            part = part.limit(limit);
        }
        let wanted = hits.iter().copied().skip(offset).take(limit.unwrap_or(usize::MAX));
        prop_assert_eq!(names(&view.find(&part).unwrap()), shown(wanted));
        prop_assert_eq!(view.count(&filter).unwrap(), hits.len());
        prop_assert!(view.explain(&query).unwrap().estimate <= bucket.order.len().max(4));

        // Page by page.
        let (mut seen, mut next) = (Vec::new(), Page::new(page));
        loop {
            let found = view.paginate(&query, &next).unwrap();
            prop_assert_eq!(found.next_cursor.is_some(), !found.records.is_empty());
            seen.extend(names(&found.records));
            prop_assert_eq!(found.has_more, seen.len() < hits.len());
            let Some(cursor) = found.next_cursor else { break };
            next = Page::new(page).after(cursor);
        }
        prop_assert_eq!(seen, shown(hits.iter().copied()));

        // Every record by itself.
        for row in &rows {
            let record = bucket.get(&row.key).unwrap();
            prop_assert_eq!(filter.matches(record), told.holds(&row.all));
        }

        // The ends of the bucket.
        prop_assert_eq!(names(&view.all()), shown(&rows));
        prop_assert_eq!(names(&view.first(page)), shown(rows.iter().take(page)));
        prop_assert_eq!(names(&view.last(page)), shown(rows.iter().skip(rows.len().saturating_sub(page))));
        prop_assert_eq!(view.count(&Filter::all()).unwrap(), rows.len());
    }

    #[test]
    fn a_cursor_goes_on_in_the_result_of_another_filter(
        steps in steps(),
        indexes in subsequence(INDEXES.to_vec(), 0..=INDEXES.len()),
        ordered in any::<bool>(),
        (told, other) in (filters(), filters()),
        order in orders(),
        page in 1_usize..4,
    ) {
        let (bucket, rows) = written(&indexes, ordered, &steps);
        let view = bucket.view();
        let first = view.paginate(&query_of(&told, &order), &Page::new(page)).unwrap();
        let (Some(cursor), Some(last)) = (first.next_cursor, first.records.last()) else { return Ok(()) };
        // Among all rows in this order: what comes after the row of the cursor.
        let all = scan(&rows, &Told::All, &order);
        let at = all.iter().position(|row| row.key == *last.key()).unwrap();
        let expected = all.iter().copied().skip(at + 1).filter(|row| other.holds(&row.all)).take(page);
        let found = view.paginate(&query_of(&other, &order), &Page::new(page).after(cursor)).unwrap();
        prop_assert_eq!(names(&found.records), shown(expected));
    }

    #[test]
    fn aggregates_answer_what_a_scan_answers(
        steps in steps(),
        indexes in subsequence(INDEXES.to_vec(), 0..=INDEXES.len()),
        ordered in any::<bool>(),
        told in filters(),
        path in select(PATHS.to_vec()),
    ) {
        let (bucket, rows) = written(&indexes, ordered, &steps);
        let filter = told.filter();
        let view = bucket.view_for(&filter);
        let hits = scan(&rows, &told, &[]);
        let numbers: Vec<Value> = hits.iter().filter_map(|row| found(&row.all, path)).filter(|value| value.as_f64().is_some()).collect();
        // Small halves: any order of adding them is exact.
        let exact: f64 = numbers.iter().filter_map(Value::as_f64).sum();
        let ints = numbers.iter().all(|value| matches!(value, Value::Int(_)));
        let sum = view.sum(path, &filter).unwrap();
        prop_assert_eq!(sum.clone(), Value::Float(exact));
        prop_assert_eq!(matches!(sum, Value::Int(_)), ints);
        let mean = if numbers.is_empty() { 0.0 } else { exact / f64::from(u32::try_from(numbers.len()).unwrap()) };
        prop_assert_eq!(view.avg(path, &filter).unwrap().to_bits(), (mean + 0.0).to_bits());
        prop_assert_eq!(view.min(path, &filter).unwrap(), numbers.iter().min().cloned());
        prop_assert_eq!(view.max(path, &filter).unwrap(), numbers.iter().max().cloned());
    }

    /// Written one by one or built at once, an index is the same.
    #[test]
    fn an_index_that_was_changed_is_the_one_that_is_built(
        steps in steps(),
        indexes in subsequence(INDEXES.to_vec(), 1..=INDEXES.len()),
        ordered in any::<bool>(),
    ) {
        let (bucket, _) = written(&indexes, ordered, &steps);
        for (rule, index) in bucket.schema.indexes.iter().zip(&bucket.indexes) {
            let built = Index::build(rule, &bucket.schema, bucket.order.values());
            let entries = |index: &Index| {
                let entries = index.between(Span::new().start(), Span::new().end());
                entries.map(|(values, postings)| (values.clone(), postings.iter().cloned().collect())).collect::<Vec<(_, Vec<_>)>>()
            };
            prop_assert_eq!(entries(&built), entries(index));
            let sharing = |index: &Index| index.collisions().count();
            prop_assert_eq!(sharing(&built), sharing(index));
        }
    }
}
