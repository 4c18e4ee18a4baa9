//! What a channel does by itself: it wakes when something is due and at no other time, and what it sends then is saved
//! before, where that was asked for. Without it nothing that is lost on the way would ever be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ractor_persistence::base::clock::Clock;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::channel::{ChannelDelivery, ChannelEvents};
use ractor_persistence::persistence::Backoff;
use ractor_persistence::sds::{ChannelEvent, ChannelOptions, ReceiveStatus, WireFormat, decode};
use ractor_persistence::testkit::{Fault, Operation};
use tokio::time::Instant;

use crate::support::{
    NOW, builder, faulty, in_words, lazy, options, packet, pass, permanent, prompt, start, state, stored, synced,
    ticking, told, transient,
};

/// A wall clock that stands still and counts how often it is looked at: once per operation, a tick is one too.
#[derive(Debug, Default)]
struct Looks(AtomicU64);

impl Clock for Looks {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::SeqCst);
        NOW
    }
}

impl Looks {
    fn since(&self) -> u64 {
        self.0.swap(0, Ordering::SeqCst)
    }
}

fn every(milliseconds: u64) -> ChannelOptions {
    let interval = Duration::from_millis(milliseconds);
    ticking()
        .with_resend_interval(interval)
        .with_buffer_sweep_interval(interval)
        .with_repair_sweep_interval(interval)
        .with_sync_interval(Some(interval))
        .with_park_timeout(Some(interval))
        .with_repair_t_min(Duration::ZERO)
        .with_repair_t_max(interval)
        .with_max_resend_attempts(1_000)
}

/// What is told within so many milliseconds from now, and when.
async fn heard(events: &mut ChannelEvents, begun: Instant, until_ms: u64) -> Vec<(u128, &'static str)> {
    let mut heard = Vec::new();
    let end = begun + Duration::from_millis(until_ms);
    while let Ok(Some(delivery)) = tokio::time::timeout_at(end, events.recv()).await {
        let ChannelDelivery::Event(event) = delivery else { panic!("lagged") };
        heard.push((begun.elapsed().as_millis(), event.kind()));
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn ch_56_with_intervals_of_five_milliseconds_ticks_come_at_exactly_those_times_and_at_no_other() {
    let (adapter, _) = faulty();
    let looks = Arc::new(Looks::default());
    let builder = builder(adapter).clock(Arc::clone(&looks) as Arc<dyn Clock>);
    let store = builder.ttl_check_interval(Duration::ZERO).start().await.unwrap();
    let begun = Instant::now();
    let channel = store.open_channel("room", every(5)).await.unwrap();
    let mut events = channel.subscribe();
    looks.since();
    // Nothing to do: nobody wakes up.
    assert_eq!(heard(&mut events, begun, 3_600_003).await, []);
    assert_eq!(looks.since(), 0);

    // Sent 3 ms after a tick, it is overdue 2 ms before the next but one. Its sync message comes 5 ms after it.
    let at = 3_600_003_u128;
    channel.wrap("m1", "content").await.unwrap();
    let first: Vec<_> = heard(&mut events, begun, 3_600_021).await;
    let expected = [
        (at + 5, "sync"),
        (at + 7, "resend"),
        (at + 10, "sync"),
        (at + 12, "resend"),
        (at + 15, "sync"),
        (at + 17, "resend"),
    ];
    assert_eq!(first, expected);
    assert_eq!(looks.since(), 1 + 6, "one look to send it, and one per tick");

    // Everything has a grid of its own; on none of them does anything come between.
    let rest = heard(&mut events, begun, 3_601_021).await;
    assert_eq!((rest.len(), looks.since()), (400, 400));
    let at_once = |pair: &[(u128, &str)]| pair[0].0 == pair[1].0;
    assert!(!rest.windows(2).any(at_once), "{rest:?}");

    // A cause that never comes: the message is given up at the first sweep that finds it parked for long enough.
    channel.receive(packet("p", 5, &["x", "m1"])).await.unwrap();
    let events_of_parked = heard(&mut events, begun, 3_601_034).await;
    let of = |kind: &str| -> Vec<u128> {
        events_of_parked.iter().filter(|(_, heard)| *heard == kind).map(|(at, _)| *at - 3_601_021).collect()
    };
    assert_eq!((of("sent"), of("missing"), of("resend"), of("lost")), (vec![0], vec![0], vec![], vec![9]));
}

#[tokio::test(start_paused = true)]
async fn ch_56_a_tick_that_comes_late_is_not_made_up_for() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    let begun = Instant::now();
    let channel = store.open_channel("room", every(5).with_sync_interval(None)).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    let mut events = channel.subscribe();
    // As of a process that was stopped for a while.
    tokio::time::advance(Duration::from_millis(23)).await;
    let heard = heard(&mut events, begun, 36).await;
    assert_eq!(heard, [(23, "resend"), (30, "resend"), (35, "resend")]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_by_timer_is_resent_given_up_synchronised_asked_for_and_answered() {
    let (here, _) = faulty();
    let (there, _) = faulty();
    let (alice, bob) = (start(&here).await, start(&there).await);
    let alice =
        alice.open_channel("room", ticking().with_participant("alice").with_max_resend_attempts(2)).await.unwrap();
    let bob = bob.open_channel("room", ticking().with_participant("bob")).await.unwrap();
    let (mut at_alice, mut at_bob) = (alice.subscribe(), bob.subscribe());
    alice.wrap("m1", "lost for good").await.unwrap();
    let m2 = alice.wrap("m2", "arrives").await.unwrap();
    assert_eq!(bob.receive(&m2).await.unwrap().status, ReceiveStatus::Parked);
    // Both are resent twice, unheard, and given up; there is a sync message every half minute.
    pass(181_000).await;
    let told_by = |events: &mut ChannelEvents| -> Vec<String> {
        let told = told(events).into_iter();
        told.map(|event| if event.starts_with("sync") { "sync".to_owned() } else { event }).collect()
    };
    let resends = ["resend m1", "resend m2", "sync"];
    let expected = [&["sync"][..], &resends, &["sync"], &resends, &["sync", "lost m1", "lost m2", "sync"]].concat();
    assert_eq!(told_by(&mut at_alice), expected);

    // Bob has asked for m1 by then. What alice gives him releases what he parked.
    let asked = std::iter::from_fn(|| at_bob.try_recv()).find_map(|delivery| match delivery {
        ChannelDelivery::Event(ChannelEvent::Sync { bytes, .. }) => {
            let message = decode(WireFormat::NimSds, &bytes).unwrap().to_message();
            message.repair_request.iter().any(|entry| entry.message_id == "m1").then_some(bytes)
        }
        _ => None,
    });
    alice.receive(asked.unwrap()).await.unwrap();
    assert_eq!(alice.stats().await.unwrap().responses, 1);
    pass(301_000).await;
    let repair = std::iter::from_fn(|| at_alice.try_recv()).find_map(|delivery| match delivery {
        ChannelDelivery::Event(ChannelEvent::Repair { id, bytes }) => Some((id, bytes)),
        _ => None,
    });
    let (id, bytes) = repair.unwrap();
    assert_eq!(id, "m1");
    told(&mut at_bob);
    assert_eq!(bob.receive(bytes).await.unwrap().status, ReceiveStatus::Delivered);
    assert_eq!(told(&mut at_bob), ["ready m1", "ready m2"]);
}

#[tokio::test(start_paused = true)]
async fn ch_45_what_a_tick_sends_waits_for_the_commit_that_says_so() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let options = synced().with_resend_interval(Duration::from_secs(60));
    let channel = store.open_channel("room", options).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    let mut events = channel.subscribe();
    faults.inject(Fault::hang().on(Operation::Commit).times(1));
    pass(65_000).await;
    assert_eq!(stored(&adapter).await.meta.outgoing[0].resend_attempts, 0);
    assert_eq!(told(&mut events), [""; 0]);
    faults.release();
    pass(1).await;
    assert_eq!(stored(&adapter).await.meta.outgoing[0].resend_attempts, 1);
    assert_eq!(told(&mut events), ["resend m1"]);
    pass(60_000).await;
    assert_eq!(told(&mut events), ["resend m1"], "the next one comes at its time");
}

#[tokio::test(start_paused = true)]
async fn ch_46_with_a_failing_adapter_not_saved_is_answered_and_resend_and_ready_follow_recovery_once() {
    for (kind, fault) in [
        ("transient", Fault::fail(transient())),
        ("permanent", Fault::fail(permanent())),
        ("unknown, though it was done", Fault::apply_then_fail(Error::unknown("testing", std::io::Error::other("?")))),
    ] {
        let (adapter, faults) = faulty();
        let second = Duration::from_secs(1);
        let retrying = prompt().with_retry(Backoff::new(second, second));
        let store = builder(adapter.clone()).persistence(retrying).start().await.unwrap();
        let options =
            synced().with_resend_interval(Duration::from_secs(60)).with_sync_interval(Some(Duration::from_secs(30)));
        let channel = store.open_channel("room", options).await.unwrap();
        let mut events = channel.subscribe();
        faults.inject(fault.on(Operation::Commit));
        assert!(matches!(channel.wrap("m1", "content").await, Err(Error::NotSaved { .. })), "{kind}");
        let received = channel.receive(packet("p1", 5, &[])).await;
        assert!(matches!(received, Err(Error::NotSaved { .. })), "{kind}");
        let sync = channel.sync_message().await;
        assert!(matches!(sync, Err(Error::NotSaved { .. })), "it would tell of p1: {kind}");
        // Many times the interval: nothing leaves, and no heap of it is made.
        pass(600_000).await;
        assert_eq!(told(&mut events), [""; 0], "{kind}");

        faults.heal();
        pass(20_000).await;
        let told_now = told(&mut events);
        let of = |wanted: &str| told_now.iter().filter(|event| event.starts_with(wanted)).count();
        assert_eq!((of("ready p1"), of("sync"), told_now.len() - of("resend")), (1, 1, 2), "{kind}: {told_now:?}");
        pass(60_000).await;
        let later = told(&mut events);
        let resends = told_now.iter().chain(&later).filter(|event| *event == "resend m1").count();
        assert_eq!((resends, later.contains(&"ready p1".to_owned())), (1, false), "{kind}: {later:?}");
        assert_eq!(channel.receive(packet("p1", 5, &[])).await.unwrap().status, ReceiveStatus::Duplicate);
        assert!(channel.wrap("m1", "content").await.is_err(), "its content has been resent, under its id");
    }
}

#[tokio::test(start_paused = true)]
async fn ch_48_what_was_due_while_nobody_was_there_comes_one_interval_after_opening() {
    let (adapter, _) = faulty();
    let clock = |at| Arc::new(ractor_persistence::base::clock::ManualClock::at(at));
    let store = builder(adapter.clone()).clock(clock(NOW)).start().await.unwrap();
    let options = || ticking().with_sync_interval(None);
    let channel = store.open_channel("room", options()).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    pass(61_000).await;
    assert_eq!(channel.stats().await.unwrap().unacknowledged, 1);
    channel.close().await.unwrap();
    store.stop().await.unwrap();
    let before = stored(&adapter).await.meta;
    assert_eq!(before.outgoing[0].resend_attempts, 1);

    // An hour later: what is over is due at once, which is the first sweep.
    let store = builder(adapter.clone()).clock(clock(NOW + 3_600_000)).start().await.unwrap();
    let mut events = store.subscribe_channel("room").unwrap();
    let begun = Instant::now();
    let channel = store.open_channel("room", options()).await.unwrap();
    assert_eq!(heard(&mut events, begun, 60_500).await, [(60_000, "resend")]);
    channel.flush().await.unwrap();
    assert_eq!(stored(&adapter).await.meta.outgoing[0].resend_attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_closed_dropped_or_stopped_has_no_timer_left() {
    let handle = tokio::runtime::Handle::current();
    for end in ["close", "drop", "stop"] {
        let tasks = handle.metrics().num_alive_tasks();
        let (adapter, faults) = faulty();
        let store = start(&adapter).await;
        let channel = store.open_channel("room", every(1_000)).await.unwrap();
        channel.wrap("m1", "content").await.unwrap();
        let mut events = channel.subscribe();
        pass(1_500).await;
        assert!(!told(&mut events).is_empty());
        match end {
            "close" => channel.close().await.unwrap(),
            "drop" => store.drop_channel("room").await.unwrap(),
            _ => drop(store.stop().await.unwrap()),
        }
        faults.forget_calls();
        told(&mut events);
        pass(60_000).await;
        assert_eq!((told(&mut events).len(), faults.commits().len()), (0, 0), "{end}");
        store.stop().await.unwrap();
        pass(1).await;
        assert_eq!(handle.metrics().num_alive_tasks(), tasks, "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_could_not_be_closed_or_dropped_goes_on_ticking() {
    for drops in [false, true] {
        let (adapter, faults) = faulty();
        let store = builder(adapter).persistence(lazy()).start().await.unwrap();
        let channel = store.open_channel("room", ticking()).await.unwrap();
        channel.wrap("m1", "content").await.unwrap();
        faults.fail_drops(permanent());
        faults.fail_commits(permanent());
        let failed = if drops { store.drop_channel("room").await } else { channel.close().await };
        assert!(failed.is_err());
        let mut events = channel.subscribe();
        pass(60_500).await;
        assert!(told(&mut events).contains(&"resend m1".to_owned()), "drops: {drops}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_sends_is_resent_too() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", ticking().with_sync_interval(None)).await.unwrap();
    let mut events = channel.subscribe();
    // No message goes to the actor before the timer has to be armed.
    store.transaction(async |tx| tx.join(&channel)?.wrap("m1", "content")).await.unwrap();
    pass(60_500).await;
    assert_eq!(told(&mut events), ["resend m1"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_out_of_reach_for_long_is_caught_up_with_by_timers_alone() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", ticking()).await.unwrap();
    let mut events = channel.subscribe();
    let mut peer = state(options().with_participant("peer"));
    for number in 0..5 {
        channel.wrap(format!("m{number}"), "content").await.unwrap();
    }
    pass(60_500).await;
    let mut delivered = Vec::new();
    while let Some(ChannelDelivery::Event(event)) = events.try_recv() {
        if let ChannelEvent::Resend { bytes, .. } = event {
            let (_, effects) = peer.receive(&bytes, NOW).unwrap();
            delivered.extend(effects.events.iter().map(|event| in_words(&ChannelDelivery::Event(event.clone()))));
        }
    }
    assert_eq!(delivered, (0..5).map(|number| format!("ready m{number}")).collect::<Vec<_>>());
    let (sync, _) = peer.sync_message("s", NOW).unwrap();
    channel.receive(&sync).await.unwrap();
    assert_eq!(channel.stats().await.unwrap().unacknowledged, 0);
    told(&mut events);
    pass(600_000).await;
    assert!(told(&mut events).iter().all(|event| event.starts_with("sync")));
}

#[tokio::test(start_paused = true)]
async fn a_channel_above_ram_of_a_fenced_store_does_not_wake_up_any_more() {
    let (adapter, _) = faulty();
    let looks = Arc::new(Looks::default());
    let clocked = builder(adapter.clone()).clock(Arc::clone(&looks) as Arc<dyn Clock>);
    let store = clocked.ttl_check_interval(Duration::ZERO).start().await.unwrap();
    let channel = store.open_channel("room", every(1_000).with_durability(Durability::Fsync)).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    pass(2_500).await;
    let mut events = channel.subscribe();
    let successor = start(&adapter).await;
    // The next tick finds out.
    pass(2_000).await;
    looks.since();
    let before = channel.stats().await.unwrap();
    pass(3_600_000).await;
    assert_eq!((looks.since(), told(&mut events).len()), (0, 0));
    assert_eq!(channel.stats().await.unwrap(), before, "nothing was given up that nobody may send");
    assert!(matches!(channel.wrap("m2", "content").await, Err(Error::Fenced { .. })));
    pass(60_000).await;
    assert_eq!(looks.since(), 0);
    successor.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_a_drop_or_a_close_hangs_the_timer_is_not_armed_again() {
    for drops in [false, true] {
        let (adapter, faults) = faulty();
        let looks = Arc::new(Looks::default());
        let clocked = builder(adapter).persistence(lazy()).clock(Arc::clone(&looks) as Arc<dyn Clock>);
        let store = clocked.ttl_check_interval(Duration::ZERO).start().await.unwrap();
        let channel = store.open_channel("room", every(1_000)).await.unwrap();
        channel.wrap("m1", "content").await.unwrap();
        let mut events = channel.subscribe();
        faults.inject(Fault::hang().on(if drops { Operation::Drop } else { Operation::Commit }));
        let ending = {
            let (store, channel) = (store.clone(), channel.clone());
            tokio::spawn(async move { if drops { store.drop_channel("room").await } else { channel.close().await } })
        };
        faults.until(|log| log.iter().any(|logged| logged.result.is_none())).await;
        // The timer that was armed before may fire once, and finds nothing to do.
        pass(2_000).await;
        looks.since();
        pass(20_000).await;
        assert_eq!((looks.since(), told(&mut events).len()), (0, 0), "drops: {drops}");
        assert!(!ending.is_finished());
        faults.heal();
        ending.await.unwrap().unwrap();
        pass(60_000).await;
        assert_eq!((looks.since(), told(&mut events).len()), (0, 0), "drops: {drops}");
        assert!(matches!(channel.stats().await, Err(Error::UnknownChannel { .. })));
        store.stop().await.unwrap();
    }
}
