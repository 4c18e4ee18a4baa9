//! What cannot be read is never overwritten: it fails the opening, or goes into quarantine where that was chosen.

use ractor_persistence::adapters::memory::{MemoryAdapter, QuarantinedData};
use ractor_persistence::base::error::{Error, Place};
use ractor_persistence::persistence::{LoadFailure, StorageAdapter};
use ractor_persistence::testkit::{Call, Fault, FaultAdapter, Faults, Operation};

use crate::support::{builder, faulty, history_ids, key, options, prompt, room, start, stored, stored_ids, transient};

async fn filled() -> (FaultAdapter<MemoryAdapter>, Faults) {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    store.open_channel("room", options()).await.unwrap().wrap("m1", "content").await.unwrap();
    store.stop().await.unwrap();
    (adapter, faults)
}

#[tokio::test(start_paused = true)]
async fn where_it_was_chosen_what_cannot_be_read_is_in_quarantine_and_the_channel_starts_empty() {
    let (adapter, faults) = filled().await;
    let before = stored(&adapter).await;
    let options_of_store = prompt().with_load_failure(LoadFailure::StartEmpty);
    let (failures, reported) = std::sync::mpsc::channel();
    let report = move |failure: &ractor_persistence::base::error::Failure| failures.send(failure.clone()).unwrap();
    let store = builder(adapter.clone()).persistence(options_of_store).on_error(report).start().await.unwrap();

    // Not for what may be readable later.
    faults.inject(Fault::fail(transient()).on(Operation::Load).times(1));
    assert!(matches!(store.open_channel("room", options()).await, Err(Error::Transient { .. })));
    assert!(adapter.inner().quarantined().is_empty());

    // Nor without a place to put it.
    faults.inject(Fault::fail(Error::corrupt(Place::new("here"), "odd")).on(Operation::Load).times(2));
    faults.inject(Fault::fail(transient()).on(Operation::Quarantine).times(1));
    assert!(matches!(store.open_channel("room", options()).await, Err(Error::Transient { .. })));
    assert_eq!(stored(adapter.inner().as_ref()).await, before);

    let channel = store.open_channel("room", options()).await.unwrap();
    assert_eq!(history_ids(&channel).await, [""; 0]);
    let quarantined = adapter.inner().quarantined();
    assert!(matches!(&quarantined[..], [one] if one.subject == room()));
    assert!(matches!(&quarantined[0].data, QuarantinedData::Channel(data) if **data == before));
    let failure = reported.try_recv().unwrap();
    assert_eq!((failure.subject, failure.operation), (Some(room()), "load"));
    channel.wrap("m2", "content").await.unwrap();
    store.stop().await.unwrap();
    assert_eq!(stored_ids(&adapter).await, ["m2"]);
}

#[tokio::test(start_paused = true)]
async fn a_state_of_an_unknown_version_is_refused_by_name_and_left_as_it_is() {
    let (adapter, faults) = filled().await;
    let key = key("room");
    let good = stored(&adapter).await.meta;
    let mut later = good.clone();
    later.schema_version = 2;
    adapter.inner().save_channel_meta(&key, &later).await.unwrap();
    for load_failure in [LoadFailure::Fail, LoadFailure::StartEmpty] {
        let options_of_store = prompt().with_load_failure(load_failure);
        let store = builder(adapter.clone()).persistence(options_of_store).start().await.unwrap();
        faults.forget_calls();
        let before = stored(adapter.inner().as_ref()).await;
        let outcome = store.open_channel("room", options()).await;
        if load_failure == LoadFailure::Fail {
            assert!(matches!(outcome, Err(Error::UnknownFormat { found: 2, known: 1, .. })));
            store.stop().await.unwrap();
            assert_eq!(stored(adapter.inner().as_ref()).await, before);
            let touched = faults.calls().iter().filter(|logged| matches!(logged.call, Call::Commit(_))).count();
            assert_eq!(touched, 0);
        } else {
            assert_eq!(history_ids(&outcome.unwrap()).await, [""; 0]);
            assert_eq!(adapter.inner().quarantined().len(), 1);
            store.stop().await.unwrap();
        }
    }
}
