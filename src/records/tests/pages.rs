//! Pages and the ends of a bucket: every record once, whatever happens to the one that a cursor was taken at.

use proptest::prelude::*;

use super::*;
use crate::base::error::Error;
use crate::records::cursor::Cursor;
use crate::records::query::{Direction, Page};

fn numbered(definition: BucketDefinition, count: i64) -> Bucket {
    let mut bucket = Bucket::new(definition);
    for key in 0..count {
        bucket.add(key, record! { "a": key % 3, "b": count - key });
    }
    bucket
}

fn is_refused<T>(result: crate::base::error::Result<T>) -> bool {
    matches!(result, Err(Error::InvalidArgument { .. }))
}

#[test]
fn bk_18_an_ordered_bucket_sorts_ints_before_texts_by_scalar_value() {
    let mut bucket = Bucket::new(definition().ordered());
    let texts = ["9", "10", "a", "Z", "\u{e4}", "z", "\u{ff5e}", "\u{1f600}"];
    for text in texts {
        bucket.add(text, record! {});
    }
    for number in [10, -3, 9] {
        bucket.add(number, record! {});
    }
    let sorted = ["-3", "9", "10", "10", "9", "Z", "a", "z", "\u{e4}", "\u{ff5e}", "\u{1f600}"];
    assert_eq!(names(&bucket.view().all()), sorted);
    assert_eq!(bucket.find(Query::all().order_by("id", Direction::Ascending)), sorted);
    let mut reversed = sorted;
    reversed.reverse();
    assert_eq!(bucket.find(Query::all().order_by("id", Direction::Descending)), reversed);
    let after = bucket.view().paginate(&Query::all(), &Page::new(20).after_key(9)).unwrap();
    assert_eq!(names(&after.records), sorted[2..]);
    let after = bucket.view().paginate(&Query::all(), &Page::new(2).after_key("Y")).unwrap();
    assert_eq!((names(&after.records), after.has_more), (vec!["Z".to_owned(), "a".to_owned()], true));
}

#[test]
fn bk_19_the_ends_are_ascending_and_a_page_has_room() {
    for definition in [definition(), definition().ordered()] {
        let view = numbered(definition, 5).view();
        assert!(view.first(0).is_empty() && view.last(0).is_empty());
        assert_eq!(names(&view.first(2)), ["0", "1"]);
        assert_eq!(names(&view.last(3)), ["2", "3", "4"]);
        assert_eq!(view.first(9), view.all());
        assert_eq!(view.last(usize::MAX), view.all());
        assert!(is_refused(view.paginate(&Query::all(), &Page::new(0))));
        assert!(is_refused(view.paginate(&Query::all().limit(3), &Page::new(1))));
        assert!(is_refused(view.paginate(&Query::all().offset(1), &Page::new(1))));
        let all = view.paginate(&Query::all(), &Page::new(usize::MAX)).unwrap();
        assert!(all.records.len() == 5 && !all.has_more && all.next_cursor.is_some());
    }
}

#[test]
fn bk_20_pages_go_on_where_they_ended_although_that_record_is_gone() {
    let orders = [
        Query::all(),
        Query::new(Filter::eq("a", 1)),
        Query::new(Filter::ge("b", 3)),
        Query::all().order_by("b", Direction::Ascending),
        Query::all().order_by("a", Direction::Descending),
        Query::all().order_by("a", Direction::Descending).order_by("c", Direction::Ascending),
        Query::new(Filter::ne("c", 5)).order_by("a", Direction::Ascending).order_by("b", Direction::Descending),
    ];
    for query in orders {
        for definition in [definition(), definition().ordered(), definition().index(["a"]).index(["b"])] {
            let mut bucket = numbered(definition, 30);
            let expected = bucket.find(query.clone());
            let mut seen = Vec::new();
            let mut page = Page::new(2);
            loop {
                let found = bucket.view().paginate(&query, &page).unwrap();
                seen.extend(names(&found.records));
                assert_eq!(found.has_more, seen.len() < expected.len());
                let Some(cursor) = found.next_cursor else { break };
                assert!(!found.records.is_empty());
                bucket.delete(found.records.last().unwrap().key());
                page = Page::new(2).after(Cursor::from(cursor.to_string()));
            }
            assert_eq!(seen, expected, "{query:?}");
        }
    }
}

#[test]
fn a_cursor_is_good_for_its_bucket_and_order_only() {
    let bucket = numbered(definition(), 5);
    let cursor_of = |bucket: &Bucket, query: &Query| {
        bucket.view().paginate(query, &Page::new(2)).unwrap().next_cursor.expect("the page is not empty")
    };
    let by_a = Query::all().order_by("a", Direction::Ascending);
    let cursor = cursor_of(&bucket, &Query::all());
    let accepts =
        |query: &Query, cursor: &Cursor| !is_refused(bucket.view().paginate(query, &Page::new(2).after(cursor)));
    assert!(accepts(&Query::all(), &cursor));
    assert!(accepts(&Query::new(Filter::eq("a", 1)), &cursor), "the filter may change");
    assert!(!accepts(&by_a, &cursor));
    assert!(!accepts(&Query::all(), &cursor_of(&bucket, &by_a)));
    assert!(!accepts(&Query::all().order_by("a", Direction::Descending), &cursor_of(&bucket, &by_a)));
    assert!(!accepts(&Query::all(), &cursor_of(&numbered(definition().ordered(), 5), &Query::all())));
    let other = BucketDefinition::new("other").key("id").field("id", crate::records::Field::int());
    assert!(!accepts(&Query::all(), &cursor_of(&numbered(other, 5), &Query::all())));
    for text in ["", "x", "AAAA", "%%%", &cursor.as_str()[1..], &format!("{cursor}=")] {
        assert!(!accepts(&Query::all(), &Cursor::from(text)), "{text}");
    }
    assert!(is_refused(bucket.view().paginate(&Query::all(), &Page::new(1).after_key(1))));
    let ordered = numbered(definition().ordered(), 5);
    assert!(is_refused(ordered.view().paginate(&by_a, &Page::new(1).after_key(1))));
}

/// The filter fixes what the order sorts by: then the place in a cursor of another value says nothing.
#[test]
fn a_cursor_of_another_value_than_the_filter_fixes_goes_on_by_that_value() {
    let by_a = |value: i64, direction| Query::new(Filter::eq("a", value)).order_by("a", direction);
    for definition in [definition(), definition().index(["a"]), definition().index(["a", "b"]), definition().ordered()]
    {
        let view = numbered(definition, 9).view();
        for (direction, after, before) in [(Direction::Ascending, 2, 0), (Direction::Descending, 0, 2)] {
            for more in [None, Some("b")] {
                let query = |value| match more {
                    Some(path) => by_a(value, direction).order_by(path, direction),
                    None => by_a(value, direction),
                };
                let cursor = view.paginate(&query(1), &Page::new(2)).unwrap().next_cursor.unwrap();
                let page = Page::new(9).after(cursor);
                let all = view.find(&query(after)).unwrap();
                assert_eq!((all.len(), view.paginate(&query(after), &page).unwrap().records), (3, all));
                assert!(view.paginate(&query(before), &page).unwrap().records.is_empty());
            }
        }
    }
}

#[test]
fn the_first_of_many_off_an_index_are_the_first_of_the_whole_order() {
    let mut bucket = Bucket::new(definition());
    for key in 0..2_000_i64 {
        bucket.add(key, record! { "a": key * 7_919 % 101, "b": key * 31 % 17 });
    }
    let query = Query::all().order_by("b", Direction::Descending).order_by("a", Direction::Ascending);
    let all = bucket.find(query.clone());
    for (offset, limit) in [(0, 1), (0, 10), (5, 31), (32, 1), (100, 100), (1_999, 5), (0, 5_000)] {
        let part = bucket.find(query.clone().offset(offset).limit(limit));
        assert_eq!(part, all[offset..all.len().min(offset + limit)], "{offset} {limit}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_page_panic(text in "[A-Za-z0-9_-]{0,40}|.{0,20}", flip in any::<(prop::sample::Index, u8)>()) {
        let bucket = numbered(definition(), 5);
        let query = Query::all().order_by("a", Direction::Ascending);
        let _ = bucket.view().paginate(&query, &Page::new(2).after(text));
        let cursor = bucket.view().paginate(&query, &Page::new(2)).unwrap().next_cursor.unwrap();
        let mut bytes = String::from(cursor).into_bytes();
        let at = flip.0.index(bytes.len());
        bytes[at] = flip.1 & 0x7f;
        let damaged = String::from_utf8(bytes).unwrap();
        let _ = bucket.view().paginate(&query, &Page::new(2).after(damaged));
    }
}
