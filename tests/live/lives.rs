//! What becomes of live queries when buckets, handles and stores come and go; queries by name.

use ractor_persistence::base::error::Error;
use ractor_persistence::base::value::Value;
use ractor_persistence::bucket::QueryContext;
use ractor_persistence::records::Filter;

use crate::support::{admin, define, next_now, people, store, user};

async fn count(q: QueryContext) -> Result<usize, Error> {
    q.bucket("users")?.count(Filter::all()).await
}

#[tokio::test]
async fn a_bucket_that_goes_is_an_error_and_one_that_comes_is_read() {
    for detach in [false, true] {
        let (store, _) = store().await;
        let users = define(&store, "users").await;
        users.insert(user(1)).await.unwrap();
        let mut live = store.live(count).await.unwrap();
        for round in 0..3 {
            let ended = if detach { store.detach_bucket("users").await } else { store.drop_bucket("users").await };
            ended.unwrap();
            store.settle().await;
            let answer = next_now(&mut live).await.unwrap();
            assert!(matches!(answer, Err(Error::BucketNotDefined { .. })), "round {round}: {answer:?}");
            assert!(next_now(&mut live).await.is_none());
            let users = define(&store, "users").await;
            store.settle().await;
            assert_eq!(*next_now(&mut live).await.unwrap().unwrap(), 0, "round {round}");
            // Its revisions begin anew, and are heard all the same.
            users.insert(user(1)).await.unwrap();
            store.settle().await;
            assert_eq!(*next_now(&mut live).await.unwrap().unwrap(), 1, "round {round}");
        }
    }
}

#[tokio::test]
async fn a_bucket_that_restarts_empty_is_read_again() {
    let (store, _) = store().await;
    let users = store.define_bucket(people("users").persistent(false)).await.unwrap();
    users.insert(user(1)).await.unwrap();
    let mut live = store.live(count).await.unwrap();
    users.actor().await.unwrap().kill();
    assert_eq!(*live.next().await.unwrap(), 0);
    users.insert(user(1)).await.unwrap();
    assert_eq!(*live.next().await.unwrap(), 1);
}

#[tokio::test]
async fn a_first_evaluation_that_fails_leaves_nothing() {
    let (store, _) = store().await;
    let before = store.bus().subscriber_count();
    assert!(matches!(store.live(count).await, Err(Error::BucketNotDefined { .. })));
    let panicking = store.live(|_| async { if true { panic!("on purpose") } else { Ok(1) } });
    assert!(matches!(panicking.await, Err(Error::UserCode { .. })));
    let unmade = store.live(|_| -> std::future::Ready<Result<usize, Error>> { panic!("on purpose") });
    assert!(matches!(unmade.await, Err(Error::UserCode { .. })));
    assert_eq!((store.stats().await.subscriptions, store.bus().subscriber_count()), (0, before));
    store.settle().await;
}

#[tokio::test]
async fn a_query_ends_with_its_handle_and_listens_to_the_bus_only_while_there_is_one() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let before = store.bus().subscriber_count();
    let (one, mut other) = (store.live(count).await.unwrap(), store.live(count).await.unwrap());
    assert_eq!((store.stats().await.subscriptions, store.bus().subscriber_count()), (2, before + 1));
    // Something is under way when it ends.
    users.insert(user(1)).await.unwrap();
    drop(one);
    store.settle().await;
    assert_eq!(*next_now(&mut other).await.unwrap().unwrap(), 1);
    assert_eq!((store.stats().await.subscriptions, store.bus().subscriber_count()), (1, before + 1));
    drop(other);
    assert_eq!((store.stats().await.subscriptions, store.bus().subscriber_count()), (0, before));
}

#[tokio::test]
async fn a_future_that_is_dropped_in_its_first_evaluation_leaves_nothing() {
    let (store, _) = store().await;
    define(&store, "users").await;
    let hanging = store.live(|q: QueryContext| async move {
        count(q).await?;
        std::future::pending::<Result<usize, Error>>().await
    });
    let soon = std::time::Duration::from_millis(1);
    assert!(tokio::time::timeout(soon, hanging).await.is_err());
    assert_eq!(store.stats().await.subscriptions, 0);
    store.settle().await;
}

#[tokio::test]
async fn all_queries_end_with_their_store() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let mut live = store.live(count).await.unwrap();
    let mut stuck = store
        .live(|q: QueryContext| async move {
            let count = count(q).await?;
            if count > 0 { std::future::pending().await } else { Ok(count) }
        })
        .await
        .unwrap();
    users.insert(user(1)).await.unwrap();
    assert_eq!(*live.next().await.unwrap(), 1);
    let (stopped, next, other) = tokio::join!(store.stop(), live.next(), stuck.next());
    stopped.unwrap();
    assert!(matches!((next, other), (Err(Error::Stopping), Err(Error::Stopping))));
    assert!(matches!(live.next().await, Err(Error::Stopping)));
    assert_eq!(*live.current(), 1);
    assert!(matches!(store.live(count).await, Err(Error::Stopping)));
    store.settle().await;
}

#[tokio::test]
async fn a_named_query_runs_once_or_lives_with_its_parameters() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let in_role = |q: QueryContext, role: Value| async move {
        let found = q.bucket("users")?.find(Filter::eq("role", role)).await?;
        Ok(Value::from(found.iter().map(|found| Value::from(found.key().clone())).collect::<Vec<_>>()))
    };
    store.define_query("in role", in_role).unwrap();
    let taken = store.define_query("in role", in_role);
    assert!(matches!(taken, Err(Error::QueryAlreadyDefined { name }) if name == "in role"));
    let mut live = store.live_query("in role", "admin").await.unwrap();
    let stats = store.stats().await;
    assert_eq!((stats.queries, stats.subscriptions), (1, 1));
    users.insert(user(1)).await.unwrap();
    users.insert(admin(2)).await.unwrap();
    let only = |id: i64| Value::from(vec![Value::from(id)]);
    assert_eq!(*live.next().await.unwrap(), only(2));
    assert_eq!(store.run_query("in role", "user").await.unwrap(), only(1));

    store.undefine_query("in role").unwrap();
    let undefined = |error| matches!(error, Some(Error::QueryNotDefined { name }) if name == "in role");
    assert!(undefined(store.undefine_query("in role").err()));
    assert!(undefined(store.run_query("in role", "user").await.err()));
    assert!(undefined(store.live_query("in role", "user").await.err()));
    // What began with it goes on.
    users.delete(2).await.unwrap();
    assert_eq!(*live.next().await.unwrap(), Value::from(Vec::<Value>::new()));
    store.define_query("in role", in_role).unwrap();
}
