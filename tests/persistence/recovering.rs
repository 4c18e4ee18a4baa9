//! What is told of data that could be read only after a repair, or not at all?

use ractor_persistence::base::error::Error;
use ractor_persistence::persistence::{LoadFailure, PersistenceOutcome};
use ractor_persistence::store::Store;

use crate::world::*;

const NEEDLE: &str = "a text that is nowhere else";
const DAMAGED: &str = "a text that is nowhere elsX";

#[tokio::test]
async fn an_empty_start_is_told_with_the_place_of_what_could_not_be_read_by_callback_and_event() {
    for disk in disks() {
        let store = disk.start(options()).await;
        let bucket = store.define_bucket(items("damaged")).await.unwrap();
        for id in 0..20 {
            insert(&bucket, id, if id == 7 { NEEDLE } else { "fine" }).await.unwrap();
        }
        store.stop().await.unwrap();
        assert!(disk.replace(NEEDLE.as_bytes(), DAMAGED.as_bytes()) > 0);

        for round in 0..2 {
            let failures = Failures::default();
            let store = Store::builder("shop")
                .shared_adapter(disk.open().await)
                .persistence(options().with_load_failure(LoadFailure::StartEmpty))
                .on_error(failures.note())
                .start()
                .await
                .unwrap();
            let mut events = store.subscribe("persistence.damaged.*").unwrap();
            let bucket = store.define_bucket(items("damaged")).await.unwrap();
            let told: Vec<_> = outcomes(&mut events).into_iter().map(|event| event.outcome).collect();
            match &told[..] {
                [
                    PersistenceOutcome::Failed { error: Error::Corrupt { at, reason }, attempt: 1 },
                    PersistenceOutcome::Recovered { count: 0, quarantine: Some(place), .. },
                ] if round == 0 => {
                    assert!(at.container.contains("damaged") && !reason.is_empty(), "{told:?}");
                    assert!(!place.is_empty());
                    assert_eq!(failures.all().len(), 1);
                }
                // The second time there is nothing to tell of.
                [PersistenceOutcome::Recovered { count: 1, quarantine: None, repairs, .. }] if round == 1 => {
                    assert!(repairs.is_empty() && failures.all().is_empty());
                }
                _ => panic!("{round}: {told:?}"),
            }
            if round == 0 {
                insert(&bucket, 1, "anew").await.unwrap();
            }
            store.stop().await.unwrap();
            assert!(!disk.quarantined().await.is_empty(), "nothing takes it away");
        }
    }
}

#[cfg(feature = "json-file")]
#[tokio::test]
async fn the_torn_end_of_a_file_is_cut_and_told_with_file_and_line() {
    use ractor_persistence::adapters::json_file::JsonFileAdapter;

    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let store = start(JsonFileAdapter::open(&place).await.unwrap()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "fine").await.unwrap();
    store.flush().await.unwrap();
    insert(&bucket, 2, &NEEDLE.repeat(100)).await.unwrap();
    store.flush().await.unwrap();
    store.stop().await.unwrap();
    // No later line says that the last one was ever synced. A sector of it that is still as it was makes it torn.
    let journal = place.join("shop").join("bucket.items.jsonl");
    let bytes = std::fs::read(&journal).unwrap();
    let at = bytes.windows(NEEDLE.len()).position(|found| found == NEEDLE.as_bytes()).unwrap();
    let mut torn = bytes.clone();
    let sector = at.next_multiple_of(512);
    torn[sector..sector + 512].fill(b'\t');
    std::fs::write(&journal, torn).unwrap();

    let store = start(JsonFileAdapter::open(&place).await.unwrap()).await;
    let mut events = store.subscribe("persistence.items.recovered").unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    assert_eq!(held(&bucket).await, expect([(1, "fine")]));
    let told = outcomes(&mut events);
    let [PersistenceOutcome::Recovered { count: 1, repairs, quarantine: None, .. }] =
        told.iter().map(|event| &event.outcome).collect::<Vec<_>>()[..]
    else {
        panic!("{told:?}")
    };
    let [repair] = &repairs[..] else { panic!("{repairs:?}") };
    assert!(repair.at.container.ends_with("bucket.items.jsonl"), "{repair:?}");
    assert_eq!(repair.at.position.as_deref(), Some("line 2"));
    // It is told once; what is written next goes into files that are whole.
    insert(&bucket, 3, "fine").await.unwrap();
    store.stop().await.unwrap();
    let store = start(JsonFileAdapter::open(&place).await.unwrap()).await;
    let mut events = store.subscribe("persistence.items.recovered").unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    assert_eq!(held(&bucket).await, expect([(1, "fine"), (3, "fine")]));
    let told = outcomes(&mut events);
    assert!(
        matches!(&told[..], [event] if matches!(&event.outcome, PersistenceOutcome::Recovered { repairs, .. } if repairs.is_empty())),
        "{told:?}"
    );
    store.stop().await.unwrap();
}
