//! Does a bucket keep within its `max_size`, at the cost of the oldest and of nobody else, and quickly?

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::record;
use ractor_persistence::records::{Draws, Field, Filter, Page, Query, Schema, Table, Write};

use crate::world::*;

#[tokio::test]
async fn bk_30_an_insert_at_max_size_evicts_the_oldest_if_it_is_accepted_and_nothing_if_it_is_refused() {
    for ordered in [false, true] {
        let (store, clock) = start().await;
        let definition = texts("texts").max_size(3).field("email", Field::string().unique());
        let definition = if ordered { definition.ordered() } else { definition };
        let bucket = store.define_bucket(definition).await.unwrap();
        for id in ["m", "z", "a"] {
            bucket.insert(record! { "id": id, "email": id }).await.unwrap();
        }
        let mut events = store.subscribe("bucket.*").unwrap();
        let before = (bucket.all().await.unwrap(), revision(&bucket).await);
        assert!(bucket.insert(record! { "id": "b", "email": "m" }).await.is_err(), "the oldest holds it still");
        assert!(bucket.insert(record! { "id": "m" }).await.is_err());
        assert!(bucket.insert(record! { "id": "b", "text": 1 }).await.is_err());
        assert!(bucket.upsert(record! { "id": "b", "email": "z" }).await.is_err());
        assert!(bucket.insert_many([record! { "id": "b" }, record! { "id": "a" }]).await.is_err());
        let four = (0..4).map(|id| record! { "id": format!("{id}") });
        let outcome = bucket.insert_many(four).await;
        assert!(matches!(outcome, Err(Error::CapacityExceeded { max_size: 3, .. })), "{outcome:?}");
        assert_eq!((bucket.all().await.unwrap(), revision(&bucket).await), before);
        assert!(events.is_empty());

        // Changes are no inserts, and make nobody younger.
        bucket.update("m", record! { "text": "x" }).await.unwrap();
        bucket.upsert(record! { "id": "z", "text": "x" }).await.unwrap();
        assert_eq!(told(&mut events), ["updated m", "updated z"]);
        bucket.insert(record! { "id": "n" }).await.unwrap();
        let heard = heard(&mut events);
        assert_eq!(heard.iter().map(short).collect::<Vec<_>>(), ["deleted m (Evicted)", "inserted n"]);
        assert_eq!((heard[0].revision, heard[0].count, heard[1].index), (heard[1].revision, 2, 1));
        bucket.insert_many([record! { "id": "c" }, record! { "id": "b" }]).await.unwrap();
        let expected = ["deleted z (Evicted)", "deleted a (Evicted)", "inserted c", "inserted b"];
        assert_eq!(told(&mut events), expected);
        // What has expired goes before what is old.
        bucket.update("b", record! { "_expires_at": START + 1 }).await.unwrap();
        told(&mut events);
        clock.advance(1);
        bucket.insert(record! { "id": "o" }).await.unwrap();
        assert_eq!(told(&mut events), ["deleted b (Expired)", "inserted o"]);
        let all = ids(&bucket).await;
        assert_eq!(all, if ordered { ["c", "n", "o"] } else { ["n", "c", "o"] });
        assert_eq!(bucket.stats().await.unwrap().records, 3);
    }
}

/// A full table of so many records.
fn full(records: i64) -> Table {
    let definition = numbered("numbers").field("group", Field::int()).index(["group"]);
    let schema = Schema::new(definition.max_size(usize::try_from(records).unwrap())).unwrap();
    let mut table = Table::new(schema.into());
    let inputs = (0..records).map(|id| record! { "group": id % (records / 10) }).collect();
    let plan = plan(&table, Write::InsertMany(inputs));
    let _commit = table.apply(plan);
    table
}

fn plan(table: &Table, write: Write) -> ractor_persistence::records::Plan {
    table.plan(write, &mut Draws { now: START, uuid: &mut uuid::Uuid::new_v4 }).unwrap()
}

#[test]
fn bk_22_a_page_an_indexed_find_and_an_insert_at_capacity_examine_as_many_entries_however_many_there_are() {
    let examined = |records: i64| {
        let table = full(records);
        let page = table.whole(START);
        let first = page.paginate(&Query::all(), &Page::new(10)).unwrap();
        let begun = page.examined();
        let next = Page::new(10).after(first.next_cursor.unwrap());
        assert_eq!(page.paginate(&Query::all(), &next).unwrap().records[0].key(), &11.into());
        // Somewhere in the middle, too.
        let middle = table.whole(START);
        let from = middle.paginate(&Query::new(Filter::ge("id", records / 2)), &Page::new(1)).unwrap();
        let before = middle.examined();
        middle.paginate(&Query::all(), &Page::new(10).after(from.next_cursor.unwrap())).unwrap();

        let filter = Filter::eq("group", 7);
        let find = table.view(&filter, START);
        assert_eq!(find.find(&Query::new(filter)).unwrap().len(), 10);

        let insert = plan(&table, Write::Insert(record! { "group": 1 }));
        let many = plan(&table, Write::InsertMany(vec![record! {}; 5]));
        [
            begun,
            page.examined() - begun,
            middle.examined() - before,
            find.examined(),
            insert.examined(),
            many.examined(),
        ]
    };
    let few = examined(1_000);
    assert_eq!(few, examined(100_000));
    assert_eq!((few[4], few[5]), (1, 5), "as many as have to go");
    assert!(few.iter().all(|examined| (1..=20).contains(examined)), "{few:?}");
}

#[tokio::test]
async fn what_is_beyond_a_lowered_max_size_is_gone_when_the_bucket_is_there() {
    for ordered in [false, true] {
        let adapter = MemoryAdapter::default();
        let definition = |max_size| {
            let definition = numbered("numbers").max_size(max_size);
            if ordered { definition.ordered() } else { definition }
        };
        let (store, clock) = start_on(adapter.clone()).await;
        let bucket = store.define_bucket(definition(100)).await.unwrap();
        // The newest have the lowest keys.
        for id in (1..=50).rev() {
            bucket.insert(record! { "id": id }).await.unwrap();
        }
        bucket.update(2, record! { "_expires_at": START + 1 }).await.unwrap();
        clock.advance(1);
        store.stop().await.unwrap();

        let (store, clock) = start_on(adapter.clone()).await;
        clock.advance(1);
        let mut events = store.subscribe("bucket.*").unwrap();
        let bucket = store.define_bucket(definition(5)).await.unwrap();
        let left = bucket.all().await.unwrap();
        let mut left: Vec<_> = left.iter().map(|record| record.key().as_value().as_i64().unwrap()).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 3, 4, 5, 6]);
        let told = told(&mut events);
        assert_eq!((told.len(), &*told[0], &*told[1]), (45, "deleted 2 (Expired)", "deleted 50 (Evicted)"));
        assert_eq!(bucket.stats().await.unwrap().counter, 50);
        store.stop().await.unwrap();

        let (store, _) = start_on(adapter.clone()).await;
        let bucket = store.define_bucket(definition(100)).await.unwrap();
        assert_eq!(bucket.count(Filter::all()).await.unwrap(), 5, "and from the disk");
        store.stop().await.unwrap();
    }
}
