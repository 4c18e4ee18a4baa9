//! A channel moves: out of one store and into another, and over from nim-sds. Without it whoever changes machine or
//! library loses what is under way.

use bytes::Bytes;
use ractor_persistence::base::error::Error;
use ractor_persistence::sds::{ChannelData, ReceiveStatus};
use ractor_persistence::testkit::{Fault, Operation};

use crate::support::{
    NOW, builder, faulty, history_ids, key, lazy, options, packet, pass, start, stored, synced, told, transient,
};
use ractor_persistence::persistence::StorageAdapter;

#[tokio::test(start_paused = true)]
async fn ch_54_what_is_exported_and_imported_elsewhere_is_the_same_and_is_saved() {
    for options in [options(), synced()] {
        let (here, _) = faulty();
        let (there, _) = faulty();
        let (first, second) = (start(&here).await, start(&there).await);
        let channel = first.open_channel("room", options.clone()).await.unwrap();
        channel.wrap("mine", "content").await.unwrap();
        channel.receive(packet("a", 5, &[])).await.unwrap();
        channel.receive(packet("c", NOW / 1_000 + 9, &["b", "a"])).await.unwrap();
        let snapshot = channel.export().await.unwrap();

        let mut events = second.subscribe_channel("room").unwrap();
        let moved = second.import_channel("room", options.clone(), snapshot.clone()).await.unwrap();
        assert_eq!(told(&mut events), ["missing c: b"], "what is parked is announced again");
        assert_eq!(moved.history().await.unwrap(), channel.history().await.unwrap());
        assert_eq!(moved.missing().await.unwrap(), channel.missing().await.unwrap());
        assert_eq!(moved.stats().await.unwrap(), channel.stats().await.unwrap());
        moved.flush().await.unwrap();
        channel.flush().await.unwrap();
        assert_eq!(stored(&there).await, stored(&here).await);
        assert_eq!(moved.export().await.unwrap(), snapshot);

        // It goes on from there, after a restart too.
        second.stop().await.unwrap();
        let moved = start(&there).await.open_channel("room", options).await.unwrap();
        assert_eq!(moved.receive(packet("a", 5, &[])).await.unwrap().status, ReceiveStatus::Duplicate);
        assert_eq!(moved.receive(packet("b", 6, &["mine"])).await.unwrap().status, ReceiveStatus::Delivered);
        assert_eq!(history_ids(&moved).await, ["a", "b", "mine", "c"]);
        assert_eq!(moved.stats().await.unwrap().unacknowledged, 0);
    }
}

/// A case of the golden vectors: what nim-sds has saved of a channel `chan`.
fn of_nim_sds() -> Bytes {
    let text = include_str!("../vectors/sds.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let hex = vectors["channel_data"]["cases"][0]["hex"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn ch_54_what_nim_sds_has_saved_is_imported() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    let channel = store.import_channel("chan", options(), of_nim_sds()).await.unwrap();
    assert_eq!(history_ids(&channel).await, ["h1", "h2"]);
    assert_eq!(channel.stats().await.unwrap().lamport_timestamp, 17);
    assert_eq!(channel.export().await.unwrap(), of_nim_sds(), "byte for byte");
    channel.flush().await.unwrap();
    assert_eq!(adapter.load_channel(&key("chan")).await.unwrap().message_history.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_imported_over_what_is_there_or_from_what_is_no_snapshot() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    let snapshot = channel.export().await.unwrap();
    let import = async |id: &str, bytes: &Bytes| store.import_channel(id, options(), bytes.clone()).await.map(drop);
    assert!(matches!(import("room", &snapshot).await, Err(Error::ChannelExists { id }) if id == "room"), "open");
    channel.close().await.unwrap();
    let before = stored(&adapter).await;
    assert!(matches!(import("room", &snapshot).await, Err(Error::ChannelExists { .. })), "stored");
    faults.forget_calls();
    assert!(matches!(import("other", &snapshot).await, Err(Error::WrongChannel)));
    assert!(matches!(import("other", &Bytes::new()).await, Err(Error::MalformedMessage { .. })));
    let cut = snapshot.slice(..snapshot.len() - 1);
    assert!(matches!(import("other", &cut).await, Err(Error::MalformedMessage { .. })));
    let newer = Bytes::from_static(b"\x0a\x05\x08\xe7\x07\x10\x00");
    assert!(matches!(import("other", &newer).await, Err(Error::UnknownFormat { found: 999, .. })));
    assert!(matches!(import("", &snapshot).await, Err(Error::InvalidName { .. })));
    faults.inject(Fault::fail(transient()).on(Operation::Load).times(1));
    assert!(matches!(import("other", &snapshot).await, Err(Error::Transient { .. })));
    pass(1_000).await;
    assert_eq!((faults.commits().len(), store.stats().await.channels), (0, 0));
    assert_eq!(stored(&adapter).await, before);
    store.drop_channel("room").await.unwrap();
    import("room", &snapshot).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(stored(&adapter).await.message_history, before.message_history);
}

#[tokio::test(start_paused = true)]
async fn above_ram_an_import_is_saved_when_it_returns_or_says_so() {
    let (here, _) = faulty();
    let channel = start(&here).await.open_channel("room", options()).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    let snapshot = channel.export().await.unwrap();
    let (adapter, faults) = faulty();
    let store = builder(adapter.clone()).persistence(lazy()).start().await.unwrap();
    store.import_channel("room", synced(), snapshot.clone()).await.unwrap();
    assert_eq!(stored(&adapter).await.message_history.len(), 1);
    store.drop_channel("room").await.unwrap();
    faults.fail_commits(transient());
    let outcome = store.import_channel("room", synced(), snapshot).await.map(drop);
    assert!(matches!(outcome, Err(Error::NotSaved { .. })), "{outcome:?}");
    assert_eq!(stored(&adapter).await, ChannelData::default());
    faults.heal();
    // It is open, and saved by itself.
    let open = store.open_channel("room", synced()).await.unwrap();
    assert_eq!(history_ids(&open).await, ["m1"]);
    pass(60_000).await;
    assert_eq!(stored(&adapter).await.message_history.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handle_closes_its_channel_and_no_other() {
    let (adapter, _) = faulty();
    let store = builder(adapter.clone()).persistence(lazy()).start().await.unwrap();
    let channel = store.open_channel("room", options()).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    channel.close().await.unwrap();
    assert_eq!(stored(&adapter).await.message_history.len(), 1, "saved first");
    assert!(matches!(channel.wrap("m2", "content").await, Err(Error::UnknownChannel { .. })));
    assert!(matches!(channel.close().await, Err(Error::UnknownChannel { .. })));
    let again = store.open_channel("room", options()).await.unwrap();
    assert!(matches!(channel.close().await, Err(Error::UnknownChannel { .. })), "an old handle");
    again.wrap("m2", "content").await.unwrap();
    assert_eq!(history_ids(&again).await, ["m1", "m2"]);
    store.stop().await.unwrap();
    assert!(matches!(again.close().await, Err(Error::Stopping)));
}
