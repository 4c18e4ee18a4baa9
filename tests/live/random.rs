//! Many writers and many live queries at once: in the end each query has the result of the final state.

use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::bucket::{LiveQuery, QueryContext, Retry, Transaction};
use ractor_persistence::record;
use ractor_persistence::records::{Direction, Filter, Patch, Query};
use ractor_persistence::store::Store;

use crate::support::{define, store};

/// A sequence of numbers that its seed decides.
struct Random(u64);

impl Random {
    /// splitmix64, by S. Vigna.
    fn below(&mut self, bound: u64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i64::try_from((mixed ^ (mixed >> 31)) % bound).unwrap()
    }
}

async fn read(q: QueryContext, which: usize) -> Result<String> {
    let (a, b) = (q.bucket("a")?, q.bucket("b")?);
    Ok(match which {
        0 => format!("{:?}", a.get(3).await?),
        1 => format!("{:?}", a.count(Filter::eq("role", "admin")).await?),
        2 => format!("{:?}", b.find(Query::all().order_by("n", Direction::Descending).limit(3)).await?),
        3 => format!("{:?}", a.sum("n", Filter::lt("n", 50)).await?),
        4 => format!("{:?} {:?}", a.all().await?, b.all().await?),
        // What is read of one bucket depends on the other.
        5 => match a.find_one(Filter::eq("role", "admin")).await? {
            Some(found) => format!("{:?}", b.get(found.key().clone()).await?),
            None => format!("{:?}", b.last(2).await?),
        },
        // It fails now and then.
        _ => match a.count(Filter::ge("n", 90)).await? {
            0 => return Err(Error::invalid_argument("none")),
            count => format!("{count} {:?}", b.first(1).await?),
        },
    })
}

async fn write(store: &Store, random: &mut Random) -> Result<()> {
    let names = ["a", "b"];
    let bucket = store.bucket(names[usize::try_from(random.below(2)).unwrap()])?;
    let (id, n, role) = (random.below(12), random.below(100), ["user", "admin"][usize::from(random.below(8) == 0)]);
    match random.below(20) {
        0 => drop(bucket.clear().await?),
        1 | 2 => drop(bucket.delete_many(Filter::lt("n", n / 2)).await?),
        3..=6 => drop(bucket.delete(id).await?),
        7..=9 => {
            let moved = store.transaction(|tx: Transaction| async move {
                let (a, b) = (tx.bucket("a")?, tx.bucket("b")?);
                if let Some(found) = a.get(id).await? {
                    a.delete(found.key().clone()).await?;
                    b.upsert(record! { "id": id, "n": n, "role": role }).await?;
                } else {
                    a.insert(record! { "id": id, "n": n }).await?;
                }
                Ok::<_, Error>(())
            });
            moved.retry(Retry::default().with_attempts(100)).await?;
        }
        10..=12 => {
            let patched = bucket.patch(id, Patch::new().increment("n", 1)).await;
            assert!(matches!(patched, Ok(_) | Err(Error::NotFound { .. })), "{patched:?}");
        }
        _ => drop(bucket.upsert(record! { "id": id, "n": n, "role": role }).await?),
    }
    Ok(())
}

async fn rounds(seed: u64) {
    let (store, _) = store().await;
    define(&store, "a").await;
    let b = define(&store, "b").await;
    define(&store, "a2").await.insert(record! { "id": 1 }).await.unwrap();
    store.bucket("a").unwrap().insert(record! { "id": 1, "n": 95 }).await.unwrap();
    let mut queries: Vec<LiveQuery<String>> = Vec::new();
    for which in 0..7 {
        queries.push(store.live(move |q| read(q, which)).await.unwrap());
    }
    let mut random = Random(seed);
    for round in 0..20 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let (store, mut random) = (store.clone(), Random(seed ^ (round * 4 + writer + 1)));
            writers.spawn(async move {
                for _ in 0..30 {
                    write(&store, &mut random).await.unwrap();
                }
            });
        }
        // Queries come while others write, too.
        let late = usize::try_from(random.below(6)).unwrap();
        queries.push(store.live(move |q| read(q, late)).await.unwrap());
        while let Some(written) = writers.join_next().await {
            written.unwrap();
        }
        if round == 10 {
            store.drop_bucket("b").await.unwrap();
            define(&store, "b").await;
            b.insert(record! { "id": 5 }).await.unwrap();
        }
        store.settle().await;
        for (at, live) in queries.iter().enumerate() {
            for which in 0..7 {
                if at != which && (which != late || at + 1 != queries.len()) {
                    continue;
                }
                // The one that fails keeps its last result, whatever that was of.
                if let Ok(fresh) = store.live(move |q| read(q, which)).await {
                    assert_eq!(*live.current(), *fresh.current(), "seed {seed}, round {round}, query {at}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_the_end_every_live_query_has_the_result_of_the_final_state() {
    for seed in 1..=3 {
        println!("seed {seed}");
        rounds(seed).await;
    }
}

#[tokio::test]
async fn and_on_one_thread_as_well() {
    rounds(4).await;
}
