//! Channels in a file: what is written there, what comes back from it, and what becomes of it when it is damaged.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::MessageId;
use ractor_persistence::persistence::{LoadFailure, StorageAdapter};
use ractor_persistence::sds::{ReceiveStatus, WireFormat, decode};
use ractor_persistence::store::Store;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use crate::support::{NOW, builder, history_ids, key, options, packet, prompt, start, stored, synced, told};

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().join("channels.redb"), _directory: directory }
    }

    async fn open(&self) -> RedbAdapter {
        RedbAdapter::open(&self.path).await.unwrap()
    }

    async fn start(&self) -> Store {
        builder(self.open().await).start().await.unwrap()
    }
}

/// A row: table, key, value.
type Row = (String, Vec<u8>, Vec<u8>);

fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

/// All rows but those that count the stores that were started.
fn rows(path: &Path) -> Vec<Row> {
    let file = redb::Database::open(path).unwrap();
    let read = file.begin_read().unwrap();
    let names: Vec<String> = read.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    let mut rows = Vec::new();
    for name in names.iter().filter(|name| *name != "epochs") {
        for row in read.open_table(table(name)).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            rows.push((name.clone(), key.value().to_vec(), value.value().to_vec()));
        }
    }
    rows
}

fn put(path: &Path, (name, key, value): &Row) {
    let file = redb::Database::open(path).unwrap();
    let write = file.begin_write().unwrap();
    write.open_table(table(name)).unwrap().insert(key.as_slice(), value.as_slice()).unwrap();
    write.commit().unwrap();
}

async fn passes_on<A: StorageAdapter + Clone>(adapter: A, again: impl AsyncFn() -> A) {
    let odd = [&b"\xff\x00\xfe"[..], b"\xc3", b"\x80\x80", b"plain"];
    let (first, parked, cause, peer) = (odd[0], odd[1], odd[2], b"\xf0\x9f");
    let from_peer = |id: &[u8], time, cause: &[u8]| {
        let mut message = ractor_persistence::sds::SdsMessage::default();
        message.message_id = id.into();
        message.sender_id = peer[..].into();
        message.lamport_timestamp = time;
        if !cause.is_empty() {
            message.causal_history.push(ractor_persistence::sds::HistoryEntry::new(cause));
        }
        message.channel_id = Bytes::from_static(b"room");
        message.content = Bytes::from_static(b"content");
        ractor_persistence::sds::encode(WireFormat::NimSds, &message)
    };
    let options = || synced().with_participant(&b"\xe2\x28"[..]);
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    let mut events = channel.subscribe();
    channel.receive(from_peer(first, NOW / 1_000, b"")).await.unwrap();
    channel.receive(from_peer(parked, NOW / 1_000 + 1, cause)).await.unwrap();
    channel.set_retrieval_hint(first, &b"\xfd"[..]).await.unwrap();
    channel.wrap(&b"\x99mine"[..], "content").await.unwrap();
    channel.flush().await.unwrap();
    assert_eq!(told(&mut events), [r"ready \xff\x00\xfe", r"missing \xc3: \x80\x80"]);
    assert!(store.stop().await.unwrap().unsaved.is_empty());

    let adapter = again().await;
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    let mut events = channel.subscribe();
    assert_eq!(channel.missing().await.unwrap(), [MessageId::from(cause)]);
    assert_eq!(
        channel.receive(from_peer(cause, NOW / 1_000, b"\x99mine")).await.unwrap().status,
        ReceiveStatus::Delivered
    );
    assert_eq!(told(&mut events), [r"sent \x99mine", r"ready \x80\x80", r"ready \xc3"]);
    let bytes = channel.wrap("next", "content").await.unwrap();
    let message = decode(WireFormat::NimSds, &bytes).unwrap().to_message();
    let mut named: Vec<_> = message.causal_history.iter().map(|entry| entry.message_id.as_bytes().to_vec()).collect();
    named.sort();
    assert_eq!(named, [&b"\x80\x80"[..], b"\x99mine", b"\xc3", b"\xff\x00\xfe"]);
    let entry = message.causal_history.iter().find(|entry| entry.message_id.as_bytes() == first).unwrap();
    assert_eq!((entry.sender_id.as_bytes(), &entry.retrieval_hint[..]), (&peer[..], &b"\xfd"[..]));
    assert_eq!(message.sender_id.as_bytes(), b"\xe2\x28");
    assert_eq!(stored(&adapter).await.message_history.len(), 5);
    store.stop().await.unwrap();
}

#[tokio::test]
async fn ch_05_ids_that_are_not_utf_8_are_received_saved_reloaded_and_passed_on_in_memory() {
    let adapter = MemoryAdapter::default();
    passes_on(adapter.clone(), async || adapter.clone()).await;
}

#[tokio::test]
async fn ch_05_ids_that_are_not_utf_8_are_received_saved_reloaded_and_passed_on_in_a_file() {
    let place = Place::new();
    passes_on(place.open().await, async || place.open().await).await;
}

#[tokio::test]
async fn ch_50_damage_and_unknown_versions_fail_the_opening_and_leave_all_bytes_and_once_mended_it_opens() {
    let place = Place::new();
    let store = place.start().await;
    let channel = store.open_channel("room", synced()).await.unwrap();
    channel.wrap("mine", "content").await.unwrap();
    channel.receive(packet("c", 6, &["b"])).await.unwrap();
    channel.set_retrieval_hint("mine", "here").await.unwrap();
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    let good = rows(&place.path);

    let of_channel: Vec<&Row> =
        good.iter().filter(|(table, ..)| !["meta", "buckets"].contains(&table.as_str())).collect();
    assert_eq!(of_channel.len(), 5, "header, meta, message, its place, its hint: {of_channel:?}");
    for row in of_channel {
        for at in [0, row.2.len() / 2, row.2.len() - 1] {
            let mut damaged = row.clone();
            damaged.2[at] ^= 0xff;
            put(&place.path, &damaged);
            let before = rows(&place.path);
            let store = place.start().await;
            let error = store.open_channel("room", synced()).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. } | Error::UnknownFormat { .. }), "{}: {error}", row.0);
            store.stop().await.unwrap();
            assert_eq!(rows(&place.path), before);
            put(&place.path, row);
        }
    }

    // A state of a later release, in a row that is whole.
    let adapter = place.open().await;
    let meta = stored(&adapter).await.meta;
    let mut later = meta.clone();
    later.schema_version = 2;
    adapter.save_channel_meta(&key("room"), &later).await.unwrap();
    let store = start(&adapter).await;
    let error = store.open_channel("room", synced()).await.unwrap_err();
    assert!(matches!(error, Error::UnknownFormat { found: 2, known: 1, .. }), "{error}");
    assert_eq!(stored(&adapter).await.meta, later);
    adapter.save_channel_meta(&key("room"), &meta).await.unwrap();
    let channel = store.open_channel("room", synced()).await.unwrap();
    assert_eq!(history_ids(&channel).await, ["mine"]);
    store.stop().await.unwrap();

    assert_eq!(rows(&place.path), good);
    let store = place.start().await;
    let channel = store.open_channel("room", synced()).await.unwrap();
    assert_eq!(channel.receive(packet("b", 5, &[])).await.unwrap().status, ReceiveStatus::Delivered);
    assert_eq!(history_ids(&channel).await, ["b", "c", "mine"]);
    store.stop().await.unwrap();
}

#[tokio::test]
async fn ch_52_stored_messages_carry_no_bloom_filter_and_the_meta_of_fifty_outgoing_ones_is_small() {
    let place = Place::new();
    let store = place.start().await;
    // Filters of the default size, of 18,768 bytes each.
    let options = options().with_bloom_capacity(10_000);
    let channel = store.open_channel("room", options.clone()).await.unwrap();
    let mut peer = crate::support::state(options);
    for number in 0..50 {
        let bytes = channel.wrap(format!("mine{number}"), "0123456789").await.unwrap();
        assert!(bytes.len() > 18_768);
        let (bytes, _) = peer.wrap(format!("theirs{number}"), "0123456789", NOW).unwrap();
        if number % 2 == 0 {
            channel.receive(&bytes).await.unwrap();
        }
    }
    store.stop().await.unwrap();
    let data = stored(&place.open().await).await;
    let outgoing = data.meta.outgoing.iter().map(|outgoing| &outgoing.message);
    let parked = data.meta.incoming.iter().map(|parked| &parked.message);
    let all: Vec<_> = outgoing.chain(parked).chain(&data.message_history).collect();
    assert_eq!(all.len(), 50 + 24 + 51);
    assert!(all.iter().all(|message| message.bloom_filter.is_empty() && message.repair_request.is_empty()));

    let place = Place::new();
    let store = place.start().await;
    let channel = store.open_channel("room", synced().with_bloom_capacity(10_000)).await.unwrap();
    for number in 0..50 {
        channel.wrap(format!("message{number}"), "0123456789").await.unwrap();
    }
    store.stop().await.unwrap();
    let rows = rows(&place.path);
    let meta = rows.iter().find(|(table, ..)| table == "channel_meta").unwrap();
    assert!(meta.2.len() < 64 * 1_024, "{} bytes", meta.2.len());
    assert!(rows.iter().all(|(_, _, value)| value.len() < 64 * 1_024));
}

#[tokio::test]
async fn a_damaged_channel_starts_empty_where_that_was_chosen_with_all_its_rows_in_quarantine() {
    let place = Place::new();
    let store = place.start().await;
    let channel = store.open_channel("room", synced()).await.unwrap();
    channel.wrap("mine", "content").await.unwrap();
    channel.receive(packet("theirs", 6, &[])).await.unwrap();
    store.stop().await.unwrap();
    let good = rows(&place.path);
    let mut damaged = good.iter().find(|(table, ..)| table == "channel_meta").unwrap().clone();
    damaged.2[20] ^= 1;
    put(&place.path, &damaged);

    let adapter = place.open().await;
    let options_of_store = prompt().with_load_failure(LoadFailure::StartEmpty);
    let store = builder(adapter.clone()).persistence(options_of_store).start().await.unwrap();
    let channel = store.open_channel("room", synced()).await.unwrap();
    assert_eq!(history_ids(&channel).await, [""; 0]);
    channel.wrap("new", "content").await.unwrap();
    let quarantined = adapter.quarantined().await.unwrap();
    assert!(matches!(&quarantined[..], [one] if one.rows.iter().any(|row| row.value == damaged.2)));
    store.stop().await.unwrap();
    let store = place.start().await;
    assert_eq!(history_ids(&store.open_channel("room", synced()).await.unwrap()).await, ["new"]);
    store.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_channel_leaves_no_row_in_the_file() {
    let place = Place::new();
    let store = place.start().await;
    store.open_channel("other", synced()).await.unwrap().wrap("m1", "content").await.unwrap();
    store.stop().await.unwrap();
    let before = rows(&place.path);
    let store = place.start().await;
    let channel = store.open_channel("room", synced()).await.unwrap();
    channel.wrap("mine", "content").await.unwrap();
    channel.receive(packet("c", 6, &["b"])).await.unwrap();
    channel.set_retrieval_hint("mine", "here").await.unwrap();
    channel.flush().await.unwrap();
    store.drop_channel("room").await.unwrap();
    store.stop().await.unwrap();
    assert_eq!(rows(&place.path), before);
}
