//! One transport for many channels: a packet finds its channel, one for nobody makes nothing unless that was allowed, and
//! what happens to one channel happens to no other. Without it a stranger could fill the disk with channels.

use std::time::Duration;

use bytes::Bytes;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::ChannelId;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::sds::{ChannelData, ChannelOptions, ChannelState, ReceiveStatus, WireFormat};
use ractor_persistence::store::AutoCreate;

use crate::support::{
    NOW, builder, faulty, history_ids, key, options, packet, pass, start, stored, stored_ids, synced, ticking, told,
};

/// A packet from a peer for a channel.
fn for_channel(channel: &str, id: &str, wire: WireFormat) -> Bytes {
    let options = ChannelOptions::default().with_wire(wire).with_bloom_capacity(10);
    let mut peer = ChannelState::new(ChannelId::new(channel).unwrap(), options).unwrap();
    peer.wrap(id, "content", NOW).unwrap().0
}

#[tokio::test(start_paused = true)]
async fn ch_39_bytes_of_a_channel_that_is_not_open_are_refused_and_make_nothing() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let open = store.open_channel("open", options()).await.unwrap();
    let closed = store.open_channel("closed", options()).await.unwrap();
    closed.close().await.unwrap();
    pass(1_000).await;
    faults.forget_calls();
    for channel in ["room", "closed", "a\u{e9}"] {
        let refused = store.receive(for_channel(channel, "m1", WireFormat::NimSds)).await.unwrap_err();
        let escaped = channel.as_bytes().escape_ascii().to_string();
        assert!(matches!(&refused, Error::UnknownChannel { id } if *id == escaped), "{refused}");
    }
    assert!(matches!(store.receive(b"\xff\xff").await, Err(Error::MalformedMessage { .. })));
    pass(1_000).await;
    assert_eq!((faults.calls().len(), store.stats().await.channels), (0, 1));
    let (channel, received) = store.receive(for_channel("open", "m1", WireFormat::NimSds)).await.unwrap();
    assert_eq!((channel.id(), received.status), (open.id(), ReceiveStatus::Delivered));
    assert_eq!(history_ids(&open).await, ["m1"]);
    store.stop().await.unwrap();
    assert!(matches!(store.receive(for_channel("open", "m2", WireFormat::NimSds)).await, Err(Error::Stopping)));
}

#[tokio::test(start_paused = true)]
async fn ch_39_where_two_channels_may_be_made_the_third_is_refused_until_one_is_closed() {
    let (adapter, faults) = faulty();
    let auto = AutoCreate::UpTo(2, synced());
    let store = builder(adapter.clone()).auto_create(auto).start().await.unwrap();
    // Opened by the application: it does not count.
    store.open_channel("own", options()).await.unwrap();
    let mut events = store.subscribe_channel("one").unwrap();
    for channel in ["one", "two", "one"] {
        let (found, _) = store.receive(for_channel(channel, "m1", WireFormat::NimSds)).await.unwrap();
        assert_eq!(found.id().as_str(), channel);
    }
    assert_eq!(told(&mut events), ["ready m1"]);
    pass(1_000).await;
    faults.forget_calls();
    let third = for_channel("three", "m1", WireFormat::NimSds);
    assert!(matches!(store.receive(&third).await, Err(Error::TooManyChannels { limit: 2 })));
    pass(1_000).await;
    assert_eq!((faults.calls().len(), store.stats().await.channels), (0, 3));
    store.close_channel("one").await.unwrap();
    assert_eq!(store.receive(&third).await.unwrap().1.status, ReceiveStatus::Delivered, "the same bytes");
    let refused = store.receive(for_channel("one", "m2", WireFormat::NimSds)).await;
    assert!(matches!(refused, Err(Error::TooManyChannels { limit: 2 })), "one that is stored counts as well");
}

#[tokio::test(start_paused = true)]
async fn a_packet_that_a_new_channel_would_refuse_makes_none() {
    let (adapter, faults) = faulty();
    let auto = AutoCreate::UpTo(2, options().with_max_message_size(3));
    let store = builder(adapter.clone()).auto_create(auto).start().await.unwrap();
    faults.forget_calls();
    let refused = |outcome: Result<_, Error>| format!("{:?}", outcome.map(drop).unwrap_err());
    let too_long = for_channel("room", "m1", WireFormat::NimSds);
    assert!(refused(store.receive(too_long).await).starts_with("MessageTooLarge"));
    let other_form = for_channel("room", "m1", WireFormat::Rfc);
    assert!(refused(store.receive(other_form).await).starts_with("MalformedMessage"));
    let no_name = ractor_persistence::sds::encode(WireFormat::NimSds, &{
        let mut message = ractor_persistence::sds::SdsMessage::default();
        message.message_id = "m1".into();
        message.channel_id = Bytes::from_static(b"a\nb");
        message
    });
    assert!(refused(store.receive(no_name).await).starts_with("InvalidName"));
    assert_eq!((faults.calls().len(), store.stats().await.channels), (0, 0));
    let bad = AutoCreate::UpTo(2, options().with_max_history(0));
    let outcome = builder(MemoryAdapter::default()).auto_create(bad).start().await;
    assert!(matches!(outcome, Err(Error::InvalidOptions { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_many_packets_come_at_once_no_more_channels_are_made_than_may_be() {
    let auto = AutoCreate::UpTo(5, options());
    let store = builder(MemoryAdapter::default()).auto_create(auto).start().await.unwrap();
    let receiving: Vec<_> = (0..200)
        .map(|number| {
            let store = store.clone();
            let bytes = for_channel(&format!("c{}", number % 20), &format!("m{number}"), WireFormat::NimSds);
            tokio::spawn(async move { store.receive(bytes).await.map(drop) })
        })
        .collect();
    let mut taken = 0;
    for outcome in receiving {
        match outcome.await.unwrap() {
            Ok(()) => taken += 1,
            Err(error) => assert!(matches!(error, Error::TooManyChannels { limit: 5 }), "{error}"),
        }
    }
    assert_eq!((store.stats().await.channels, taken), (5, 50), "ten packets for each of five channels");
}

#[tokio::test(start_paused = true)]
async fn a_packet_goes_to_the_channel_whatever_form_it_speaks_and_the_channel_decides() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    store.open_channel("nim", options()).await.unwrap();
    store.open_channel("rfc", options().with_wire(WireFormat::Rfc)).await.unwrap();
    for (channel, form, other) in
        [("nim", WireFormat::NimSds, WireFormat::Rfc), ("rfc", WireFormat::Rfc, WireFormat::NimSds)]
    {
        let (found, received) = store.receive(for_channel(channel, "m1", form)).await.unwrap();
        assert_eq!((found.id().as_str(), received.status), (channel, ReceiveStatus::Delivered));
        let refused = store.receive(for_channel(channel, "m2", other)).await.unwrap_err();
        assert!(matches!(&refused, Error::MalformedMessage { .. }), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn ch_55_two_channels_of_a_store_share_neither_history_filter_repairs_nor_events_nor_their_end() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let options = || ticking().with_sync_interval(Some(Duration::from_secs(30)));
    let room = store.open_channel("room", options()).await.unwrap();
    let other = store.open_channel("other", options()).await.unwrap();
    let (mut at_room, mut at_other) = (room.subscribe(), other.subscribe());
    let untouched = (other.stats().await.unwrap(), other.sync_message().await.unwrap().len());
    other.flush().await.unwrap();
    faults.forget_calls();

    let m1 = room.wrap("m1", "content").await.unwrap();
    room.receive(packet("p", 5, &["x"])).await.unwrap();
    room.receive(packet("q", 6, &[])).await.unwrap();
    room.set_retrieval_hint("m1", "here").await.unwrap();
    room.mark_dependencies_met(["w"]).await.unwrap();
    assert_eq!(told(&mut at_room), ["missing p: x", "ready q"]);
    pass(61_000).await;
    assert!(told(&mut at_room).contains(&"resend m1".to_owned()));
    assert_eq!(told(&mut at_other), [""; 0]);
    let mut stats = other.stats().await.unwrap();
    // The sync message above.
    stats.remembered = untouched.0.remembered;
    assert_eq!(stats, untouched.0);
    assert_eq!(other.history().await.unwrap(), []);
    let touches_other = |commit: &ractor_persistence::persistence::Commit| {
        commit.saves.iter().any(|save| format!("{save:?}").contains("other"))
    };
    assert!(!faults.commits().iter().any(touches_other));
    // The same bytes are of no use there, the same ids are, and its filter knows none of them.
    assert!(matches!(other.receive(&m1).await, Err(Error::WrongChannel)));
    let sync = other.sync_message().await.unwrap();
    assert_eq!(sync.len(), untouched.1);
    let filter =
        |bytes: &Bytes| ractor_persistence::sds::decode(WireFormat::NimSds, bytes).unwrap().to_message().bloom_filter;
    let fresh = for_channel_of(&options());
    assert_eq!(filter(&sync), filter(&fresh));
    other.wrap("m1", "another").await.unwrap();
    assert_eq!(adapter.load_channel(&key("room")).await.unwrap().hints.len(), 1);
    assert_eq!(adapter.load_channel(&key("other")).await.unwrap().hints.len(), 0);

    // One ends, and the other does not.
    other.flush().await.unwrap();
    store.drop_channel("other").await.unwrap();
    assert_eq!(adapter.load_channel(&key("other")).await.unwrap(), ChannelData::default());
    room.wrap("m2", "content").await.unwrap();
    room.flush().await.unwrap();
    assert_eq!(stored_ids(&adapter).await, history_ids(&room).await);
    assert_eq!(stored(&adapter).await.hints.len(), 1);
}

/// A sync message of a channel that knows nothing.
fn for_channel_of(options: &ChannelOptions) -> Bytes {
    let mut fresh = ChannelState::new(ChannelId::new("other").unwrap(), options.clone()).unwrap();
    fresh.sync_message("s", NOW).unwrap().0
}
