//! Which way a query is answered, and that it looks at no more than that way promises.

use super::*;
use crate::base::value::Value;
use crate::records::query::{Access, Direction, Explain, Page};

/// `a` has ten values, `b` a thousand texts, `c.x` is unique.
fn filled(definition: BucketDefinition, count: i64) -> Bucket {
    let mut bucket = Bucket::new(definition);
    for key in 0..count {
        let fields = record! { "a": key % 10, "b": format!("t{:03}", key % 1_000), "c": { "x": key } };
        bucket.add(key, fields);
    }
    bucket
}

fn explain(bucket: &Bucket, query: impl Into<Query>) -> Explain {
    let query = query.into();
    bucket.view_for(query.filter()).explain(&query).unwrap()
}

fn shown(explain: &Explain) -> (Option<&str>, Access, usize, bool) {
    (explain.index.as_deref(), explain.access, explain.estimate, explain.sort)
}

#[test]
fn bk_21_the_index_with_the_fewest_entries_is_taken_and_none_is_a_scan() {
    let bucket = filled(definition().index(["a"]).index(["b"]).index(["a", "c.x"]).unique_index(["c.x"]), 2_000);
    let (a, b) = (Filter::eq("a", 3), Filter::eq("b", "t003"));
    let both = a.clone().and(b.clone());
    assert_eq!(shown(&explain(&bucket, both)), (Some("b"), Access::Equality, 2, false));
    let rare = Filter::eq("b", "t003").and(Filter::between("c.x", 3, 3));
    assert_eq!(shown(&explain(&bucket, rare)), (Some("c.x"), Access::Range, 1, false));
    assert_eq!(shown(&explain(&bucket, a.clone())), (Some("a"), Access::Equality, 200, false));
    let compound = a.clone().and(Filter::lt("c.x", 50));
    assert_eq!(shown(&explain(&bucket, compound)), (Some("a,c.x"), Access::Range, 5, true));
    let prefix = Filter::prefix("b", "t00").and(a.clone());
    assert_eq!(shown(&explain(&bucket, prefix)), (Some("b"), Access::Prefix, 20, true));
    let key = Filter::eq("id", 7).and(a.clone());
    assert_eq!(shown(&explain(&bucket, key)), (None, Access::Key, 1, false));
    let wrong = Filter::eq("id", true);
    assert_eq!(shown(&explain(&bucket, wrong)), (None, Access::Key, 0, false));
    let keys = Filter::is_in("id", [7, 8, 9]);
    assert_eq!(shown(&explain(&bucket, keys)), (None, Access::Union, 3, true));
    let either = b.clone().or(Filter::gt("c.x", 1_990)).or(Filter::eq("id", 4));
    assert_eq!(shown(&explain(&bucket, either)), (Some("b + c.x"), Access::Union, 12, true));
    let listed = Filter::is_in("b", ["t001", "t002", "none"]);
    assert_eq!(shown(&explain(&bucket, listed)), (Some("b"), Access::Union, 4, true));
    let free = b.or(Filter::eq("free", 1));
    assert_eq!(shown(&explain(&bucket, free)), (None, Access::Scan, 2_000, false));
    for filter in [Filter::all(), Filter::exists("a"), Filter::ne("a", 1), Filter::contains("b", "t"), a.clone().not()]
    {
        assert_eq!(shown(&explain(&bucket, filter)), (None, Access::Scan, 2_000, false));
    }
    let along = Query::all().order_by("b", Direction::Descending);
    assert_eq!(shown(&explain(&bucket, along)), (Some("b"), Access::Scan, 2_000, false));
    let within = Query::new(a.clone()).order_by("c.x", Direction::Descending);
    assert_eq!(shown(&explain(&bucket, within)), (Some("a,c.x"), Access::Equality, 200, false));
    let off = Query::new(a).order_by("free", Direction::Ascending);
    assert_eq!(shown(&explain(&bucket, off)), (Some("a"), Access::Equality, 200, true));
    let mixed = Query::all().order_by("a", Direction::Ascending).order_by("c.x", Direction::Descending);
    assert_eq!(shown(&explain(&bucket, mixed)), (None, Access::Scan, 2_000, true));
}

/// The part of BK-22 that reads are: what a page or an indexed find costs does not grow with the bucket.
#[test]
fn pages_and_indexed_finds_examine_no_more_entries_in_a_larger_bucket() {
    let examined = |count: i64| {
        let mut bucket = filled(definition().index(["a", "c.x"]).index(["c.x"]).index(["c.kind"]), count);
        for number in 0..7 {
            bucket.add(count + number, record! { "c": { "kind": "rare", "x": -1 - number } });
        }
        let mut all = Vec::new();
        let mut run = |what: &dyn Fn(&View)| {
            let view = bucket.view();
            what(&view);
            all.push(view.examined());
        };
        let by_x = |direction| Query::all().order_by("c.x", direction);
        run(&|view| assert_eq!(view.find(&Query::new(Filter::eq("c.kind", "rare"))).unwrap().len(), 7));
        let filter = Filter::eq("c.kind", "rare").and(Filter::lt("c.x", -3));
        run(&|view| assert_eq!(view.find(&Query::new(filter.clone())).unwrap().len(), 4));
        run(&|view| assert_eq!(view.find(&Query::new(Filter::between("c.x", 100, 109))).unwrap().len(), 10));
        run(&|view| assert_eq!(view.find(&by_x(Direction::Descending).offset(3).limit(2)).unwrap().len(), 2));
        run(&|view| assert_eq!(view.first(5).len() + view.last(5).len(), 10));
        run(&|view| assert_eq!(view.max("c.x", &Filter::all()).unwrap(), Some(Value::Int(count - 1))));
        run(&|view| assert_eq!(view.min("c.x", &Filter::eq("a", 3)).unwrap(), Some(Value::Int(3))));
        for query in [Query::all(), by_x(Direction::Ascending), by_x(Direction::Descending)] {
            run(&|view| {
                let first = view.paginate(&query, &Page::new(10)).unwrap();
                let next = Page::new(10).after(first.next_cursor.unwrap());
                assert_eq!(view.paginate(&query, &next).unwrap().records.len(), 10);
            });
        }
        all
    };
    let small = examined(1_000);
    assert_eq!(small, examined(100_000));
    assert!(small.iter().all(|examined| (1..=22).contains(examined)), "{small:?}");
}

#[test]
fn an_order_by_with_a_limit_looks_along_its_index_before_it_sorts() {
    let bucket = filled(definition().index(["a"]).index(["b"]), 2_000);
    let view = bucket.view();
    let query = Query::new(Filter::eq("a", 3)).order_by("b", Direction::Ascending).limit(2);
    assert_eq!(names(&view.find(&query).unwrap()), ["3", "1003"]);
    assert!(view.examined() < 50, "{}", view.examined());
    // Where that does not come to an end soon, little is lost.
    let last =
        Query::new(Filter::eq("a", 9).and(Filter::eq("c.x", 1_999))).order_by("b", Direction::Ascending).limit(2);
    let view = bucket.view();
    assert_eq!(names(&view.find(&last).unwrap()), ["1999"]);
    assert!(view.examined() <= 250, "{}", view.examined());
}
