//! Whose store is it? A claim shuts out everybody before it, and never in the middle of what they do.

use std::collections::BTreeSet;

use ractor_persistence::Durability;
use ractor_persistence::Store;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::Subject;
use ractor_persistence::persistence::{Commit, Health, StorageAdapter};
use ractor_persistence::record;

use crate::server::Place;
use crate::world::*;

#[tokio::test]
async fn a_claim_waits_for_the_commit_under_way_and_shuts_out_the_next_one() {
    let place = Place::new();
    let (first, second) = (place.open().await.unwrap(), place.open().await.unwrap());
    let old = first.claim(&shop()).await.unwrap();
    first.commit(&storing(old, 1, &[(1, "of the first")])).await.unwrap();

    let blocker = lock_records(&place).await;
    let committing = tokio::spawn({
        let first = first.clone();
        async move { first.commit(&storing(old, 2, &[(2, "of the first, under way")])).await }
    });
    waiting(&blocker, &place, "INSERT INTO %records%", 1).await;
    let claiming = tokio::spawn({
        let second = second.clone();
        async move { second.claim(&shop()).await }
    });
    waiting(&blocker, &place, "INSERT INTO %epochs%", 1).await;
    assert!(!committing.is_finished() && !claiming.is_finished());
    blocker.batch_execute("COMMIT").await.unwrap();

    committing.await.unwrap().unwrap();
    let new = claiming.await.unwrap().unwrap();
    assert!(new > old);
    for late in [storing(old, 3, &[(1, "too late")]), Commit::new(shop(), old, Durability::Fsync, vec![])] {
        let refused = first.commit(&late).await;
        let Err(Error::Fenced { epoch, current }) = refused else { panic!("{refused:?}") };
        assert_eq!((epoch, current), (old.0, new.0));
    }
    second.commit(&storing(new, 4, &[(3, "of the second")])).await.unwrap();
    let everything = expect([(1, "of the first"), (2, "of the first, under way"), (3, "of the second")]);
    assert_eq!(stored(&second).await, everything);
    assert_eq!(stored(&first).await, everything, "the one that was shut out may still look");
}

#[tokio::test]
async fn no_two_claims_get_the_same_epoch_however_many_claim_at_once() {
    let place = Place::new();
    let mut claims = Vec::new();
    for _ in 0..4 {
        let adapter = place.open().await.unwrap();
        for _ in 0..8 {
            let adapter = adapter.clone();
            claims.push(tokio::spawn(async move { adapter.claim(&shop()).await.unwrap() }));
        }
    }
    let mut epochs = BTreeSet::new();
    for claim in claims {
        epochs.insert(claim.await.unwrap().0);
    }
    assert_eq!(epochs, (1..=32).collect());
}

#[tokio::test]
async fn a_store_that_another_process_takes_over_is_fenced_and_its_successor_has_everything() {
    let place = Place::new();
    let first = Store::builder("shop").adapter(place.open().await.unwrap()).start().await.unwrap();
    let old = first.define_bucket(items()).await.unwrap().with_durability(Durability::Fsync);
    old.insert(record! { "id": 1, "text": "acknowledged" }).await.unwrap();
    let second = Store::builder("shop").adapter(place.open().await.unwrap()).start().await.unwrap();
    let new = second.define_bucket(items()).await.unwrap().with_durability(Durability::Fsync);
    let late = old.update(1, record! { "text": "too late" }).await.unwrap_err();
    let Error::NotSaved { source, .. } = &late else { panic!("{late:?}") };
    assert!(matches!(**source, Error::Fenced { .. }), "{late:?}");
    assert!(matches!(first.health(), Health::Fenced));
    new.insert(record! { "id": 2, "text": "of the successor" }).await.unwrap();
    first.stop().await.unwrap();
    assert!(second.stop().await.unwrap().unsaved.is_empty());
    let expected = expect([(1, "acknowledged"), (2, "of the successor")]);
    assert_eq!(stored(&place.open().await.unwrap()).await, expected);
}

#[tokio::test]
async fn a_store_that_was_taken_over_moves_nothing_of_its_successors_into_quarantine() {
    let place = Place::new();
    let (first, second) = (place.open().await.unwrap(), place.open().await.unwrap());
    let old = first.claim(&shop()).await.unwrap();
    first.commit(&storing(old, 1, &[(1, "of the first")])).await.unwrap();
    let new = second.claim(&shop()).await.unwrap();
    second.commit(&storing(new, 2, &[(2, "of the second")])).await.unwrap();
    let subject = Subject::Bucket(name("items"));
    let refused = first.quarantine(&shop(), &subject).await;
    let Err(Error::Fenced { epoch, current }) = refused else { panic!("{refused:?}") };
    assert_eq!((epoch, current), (old.0, new.0));
    assert_eq!(stored(&second).await, expect([(1, "of the first"), (2, "of the second")]));
    assert_eq!(second.quarantined().await.unwrap(), []);
    second.quarantine(&shop(), &subject).await.unwrap();
    assert_eq!(stored(&second).await, expect([]));
}
