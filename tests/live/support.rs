//! What the tests share: a store with buckets, a query that counts its evaluations, a gate.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use ractor_persistence::base::error::{Error, Failure, Result};
use ractor_persistence::base::value::Object;
use ractor_persistence::bucket::{Bucket, LiveQuery};
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field};
use ractor_persistence::store::Store;

pub(crate) type Failures = Arc<Mutex<Vec<Failure>>>;

/// A store that keeps what it reports.
pub(crate) async fn store() -> (Store, Failures) {
    let failures = Failures::default();
    let told = Arc::clone(&failures);
    let builder = Store::builder("app").ttl_check_interval(Duration::ZERO);
    let store = builder.on_error(move |failure| told.lock().unwrap().push(failure.clone())).start().await.unwrap();
    (store, failures)
}

pub(crate) fn people(name: &str) -> BucketDefinition {
    BucketDefinition::new(name)
        .key("id")
        .field("id", Field::int())
        .field("role", Field::string().default("user"))
        .field("n", Field::int().default(0))
}

pub(crate) async fn define(store: &Store, name: &str) -> Bucket {
    store.define_bucket(people(name)).await.unwrap()
}

pub(crate) fn admin(id: i64) -> Object {
    record! { "id": id, "role": "admin" }
}

pub(crate) fn user(id: i64) -> Object {
    record! { "id": id, "role": "user" }
}

/// Counts; clones count together.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

/// The next answer, if it is there already.
pub(crate) async fn next_now<R: PartialEq>(live: &mut LiveQuery<R>) -> Option<Result<Arc<R>, Error>> {
    let mut next = pin!(live.next());
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
