//! The example with which channels are explained, as it is told: a link that loses packets, and a peer that is restarted,
//! by a stop or by a kill.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ractor_persistence::Durability;
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::error::Result;
use ractor_persistence::channel::{ChannelDelivery, ChannelEvents};
use ractor_persistence::sds::{ChannelEvent, ChannelOptions, ReceiveStatus, Received};
use ractor_persistence::store::Store;

async fn start(name: &str, file: &Path) -> Result<Store> {
    Store::builder(name).adapter(RedbAdapter::open(file).await?).start().await
}

/// What SIGKILL leaves at this moment: what was written, without anything that stopping would do. Nothing is being written
/// when two copies are the same.
fn killed(file: &Path) -> PathBuf {
    let copy = file.with_extension("after-kill.redb");
    loop {
        let (first, second) = (std::fs::read(file).unwrap(), std::fs::read(file).unwrap());
        if first == second {
            std::fs::write(&copy, first).unwrap();
            return copy;
        }
    }
}

async fn next_resend(events: &mut ChannelEvents) -> Bytes {
    loop {
        match events.recv().await.unwrap() {
            ChannelDelivery::Event(ChannelEvent::Resend { bytes, .. }) => return bytes,
            ChannelDelivery::Event(_) => {}
            ChannelDelivery::Lagged(missed) => panic!("{missed} missed"),
        }
    }
}

fn ready_ids(events: &mut ChannelEvents) -> Vec<String> {
    let told = std::iter::from_fn(|| events.try_recv());
    told.filter_map(|delivery| match delivery {
        ChannelDelivery::Event(ChannelEvent::Ready { message }) => Some(message.message_id.to_string()),
        _ => None,
    })
    .collect()
}

async fn story(is_killed: bool) -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (alice_file, bob_file) = (folder.path().join("alice.redb"), folder.path().join("bob.redb"));
    let options = |me: &str| {
        let options = ChannelOptions::default().with_participant(me).with_durability(Durability::Fsync);
        // As told, but for a minute that nobody wants to wait for.
        options
            .with_resend_interval(Duration::from_millis(200))
            .with_buffer_sweep_interval(Duration::from_millis(50))
            .with_max_resend_attempts(1_000)
    };
    let (alice_store, bob_store) = (start("alice", &alice_file).await?, start("bob", &bob_file).await?);
    let alice = alice_store.open_channel("room", options("alice")).await?;
    let bob = bob_store.open_channel("room", options("bob")).await?;
    let mut at_alice = alice.subscribe();

    alice.wrap("m1", "one").await?;
    let m2 = alice.wrap("m2", "two").await?;
    let Received { content, missing, status, .. } = bob.receive(&m2).await?;
    assert_eq!(status, ReceiveStatus::Parked);
    assert_eq!((&content[..], missing[0].message_id.as_str()), (&b"two"[..], Some("m1")));

    let bob_file = if is_killed {
        killed(&bob_file)
    } else {
        assert!(bob_store.stop().await?.unsaved.is_empty());
        bob_file
    };
    let bob_store = start("bob", &bob_file).await?;
    let mut at_bob = bob_store.subscribe_channel("room")?;
    let bob = bob_store.open_channel("room", options("bob")).await?;

    for expected in [ReceiveStatus::Delivered, ReceiveStatus::Duplicate] {
        let bytes = next_resend(&mut at_alice).await;
        assert_eq!(bob.receive(&bytes).await?.status, expected);
    }
    assert_eq!(ready_ids(&mut at_bob), ["m1", "m2"]);

    let m3 = bob.wrap("m3", "got both").await?;
    assert_eq!(alice.receive(&m3).await?.status, ReceiveStatus::Delivered);
    assert_eq!(alice.stats().await?.unacknowledged, 0);
    let said: Vec<_> = bob.history().await?.iter().map(|m| m.content.clone()).collect();
    assert_eq!(said, ["one", "two", "got both"]);
    alice_store.stop().await?;
    bob_store.stop().await?;
    Ok(())
}

#[tokio::test]
async fn ch_58_the_example_runs_as_told_with_a_clean_stop() {
    story(false).await.unwrap();
}

#[tokio::test]
async fn ch_58_the_example_runs_as_told_with_a_kill() {
    story(true).await.unwrap();
}
