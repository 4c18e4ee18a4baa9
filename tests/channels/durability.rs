//! Above `Ram` nothing leaves a channel before what it reveals is saved, and what is saved is told exactly once. Without
//! it a peer would be told that a message has arrived which a crash then takes away.

use std::time::Duration;

use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::channel::Channel;
use ractor_persistence::sds::ReceiveStatus;
use ractor_persistence::testkit::{Fault, Faults, Operation};
use tokio::task::JoinHandle;

use crate::support::{
    builder, faulty, history_ids, options, packet, pass, permanent, prompt, start, state, stored, stored_ids, synced,
    told, transient,
};

/// Calls in tasks of their own.
fn receive(channel: &Channel, bytes: bytes::Bytes) -> JoinHandle<Result<ReceiveStatus>> {
    let channel = channel.clone();
    tokio::spawn(async move { Ok(channel.receive(bytes).await?.status) })
}

fn wrap(channel: &Channel, id: &'static str) -> JoinHandle<Result<bytes::Bytes>> {
    let channel = channel.clone();
    tokio::spawn(async move { channel.wrap(id, "content").await })
}

async fn until_a_commit_is_under_way(faults: &Faults) {
    faults.until(|log| log.iter().any(|logged| logged.result.is_none())).await;
}

#[tokio::test(start_paused = true)]
async fn ch_45_no_reply_event_or_bytes_come_before_the_commit_and_a_kill_after_the_reply_loses_nothing() {
    for durability in [Durability::Wal, Durability::Fsync] {
        let (adapter, faults) = faulty();
        let store = start(&adapter).await;
        let channel = store.open_channel("room", options().with_durability(durability)).await.unwrap();
        let mut events = channel.subscribe();
        let mine = channel.wrap("mine", "content").await.unwrap();
        let mut peer = state(options().with_participant("peer"));
        let _ = peer.receive(&mine, 0).unwrap();
        let (theirs, _) = peer.wrap("theirs", "content", 0).unwrap();

        faults.inject(Fault::hang().on(Operation::Commit));
        faults.forget_calls();
        let first = receive(&channel, theirs.clone());
        until_a_commit_is_under_way(&faults).await;
        // What comes while a commit is under way: a copy, whose answer would reveal the first, sending, and waiving.
        let copy = receive(&channel, theirs);
        let bytes = wrap(&channel, "second");
        let waived = {
            let channel = channel.clone();
            tokio::spawn(async move { channel.mark_dependencies_met(["x"]).await })
        };
        let parked = receive(&channel, packet("late", 5, &["y"]));
        let sync = {
            let channel = channel.clone();
            tokio::spawn(async move { channel.sync_message().await })
        };
        let export = {
            let channel = channel.clone();
            tokio::spawn(async move { channel.export().await })
        };
        pass(10_000).await;
        assert_eq!(history_ids(&channel).await.len(), 3, "all of it is in memory");
        let pending = [first.is_finished(), copy.is_finished(), bytes.is_finished(), waived.is_finished()];
        assert_eq!((pending, parked.is_finished()), ([false; 4], false), "{durability:?}");
        assert_eq!((sync.is_finished(), export.is_finished()), (false, false), "{durability:?}");
        assert_eq!(told(&mut events), [""; 0], "nothing was told");
        assert_eq!(stored_ids(&adapter).await, ["mine"]);

        // The first commit ends: what it holds is answered and told, the rest waits for the next one.
        faults.release();
        assert_eq!(first.await.unwrap().unwrap(), ReceiveStatus::Delivered);
        until_a_commit_is_under_way(&faults).await;
        pass(10_000).await;
        assert!(![bytes.is_finished(), waived.is_finished(), parked.is_finished()].contains(&true));
        assert_eq!((sync.is_finished(), export.is_finished()), (false, false), "{durability:?}");
        assert_eq!(told(&mut events), ["sent mine", "ready theirs"]);
        faults.release();
        assert_eq!(copy.await.unwrap().unwrap(), ReceiveStatus::Duplicate);
        assert!(!bytes.await.unwrap().unwrap().is_empty());
        waived.await.unwrap().unwrap();
        assert_eq!(parked.await.unwrap().unwrap(), ReceiveStatus::Parked);
        assert!(!sync.await.unwrap().unwrap().is_empty() && !export.await.unwrap().unwrap().is_empty());
        assert_eq!(told(&mut events), ["missing late: y"]);

        // As after a kill: nobody stops the store, another one takes over what is there at this moment.
        faults.fail_commits(permanent());
        let successor = start(adapter.inner().as_ref()).await;
        let again = successor.open_channel("room", options().with_durability(durability)).await.unwrap();
        assert_eq!(history_ids(&again).await, history_ids(&channel).await);
        assert_eq!(again.stats().await.unwrap().parked, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_given_when_its_events_have_been_told() {
    let (adapter, _) = faulty();
    let channel = start(&adapter).await.open_channel("room", synced()).await.unwrap();
    let mut events = channel.subscribe();
    for id in ["a", "b", "c"] {
        channel.receive(packet(id, 5, &[])).await.unwrap();
        assert_eq!(told(&mut events), [format!("ready {id}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_commit_not_saved_is_answered_and_the_events_follow_the_save_once_and_in_order() {
    let faults_of_each_kind = [
        ("transient", Fault::fail(transient())),
        ("permanent", Fault::fail(permanent())),
        ("unknown, though it was done", Fault::apply_then_fail(Error::unknown("testing", std::io::Error::other("?")))),
    ];
    for (kind, fault) in faults_of_each_kind {
        let (adapter, faults) = faulty();
        let store = start(&adapter).await;
        let channel = store.open_channel("room", synced()).await.unwrap();
        let mut events = channel.subscribe();
        faults.inject(fault.on(Operation::Commit));
        let m1 = packet("m1", 5, &[]);
        for bytes in [packet("m2", 6, &["m1"]), m1.clone(), packet("m3", 7, &[])] {
            let error = channel.receive(bytes).await.unwrap_err();
            assert!(matches!(error, Error::NotSaved { revision, .. } if revision > 0), "{kind}: {error}");
        }
        let error = channel.wrap("mine", "content").await.unwrap_err();
        assert!(matches!(error, Error::NotSaved { .. }), "{kind}: {error}");
        assert!(matches!(channel.wrap("mine", "content").await, Err(Error::DuplicateId { .. })), "it is in memory");
        pass(1_000).await;
        assert_eq!(told(&mut events), [""; 0], "{kind}");

        faults.heal();
        pass(1_000).await;
        assert_eq!(told(&mut events), ["missing m2: m1", "ready m1", "ready m2", "ready m3"], "{kind}");
        assert_eq!(channel.receive(m1).await.unwrap().status, ReceiveStatus::Duplicate);
        assert_eq!(told(&mut events), [""; 0], "{kind}");
        let data = stored(&adapter).await;
        assert_eq!((data.message_history.len(), data.meta.outgoing.len(), data.meta.incoming.len()), (4, 1, 0));
    }
}

/// Thousands of calls wait for a commit that does not end; then it ends, and there is room again.
async fn fills_up(mut call: impl FnMut(&Channel, usize) -> JoinHandle<Result<()>>) {
    let (adapter, faults) = faulty();
    let options = prompt().with_commit_timeout(Duration::from_secs(3_600));
    let store = builder(adapter).persistence(options).start().await.unwrap();
    let room = synced().with_max_history(20_000).with_max_outgoing(20_000).with_max_causal_history(0);
    let channel = store.open_channel("room", room).await.unwrap();
    faults.inject(Fault::hang().on(Operation::Commit));
    let held: Vec<_> = (0..10_000).map(|number| call(&channel, number)).collect();
    while channel.stats().await.unwrap().history < held.len() {}
    assert!(held.iter().all(|call| !call.is_finished()));
    let refused = |error: Error| matches!(error, Error::Backpressure { limit: 10_000 });
    assert!(refused(call(&channel, 10_000).await.unwrap().unwrap_err()));
    assert!(refused(channel.receive(packet("one too many", 5, &[])).await.unwrap_err()));
    assert!(refused(channel.wrap("one too many", "content").await.unwrap_err()));
    assert_eq!(channel.stats().await.unwrap().history, 10_000, "a refusal changes nothing");
    assert!(channel.set_retrieval_hint("m0", "here").await.unwrap(), "a hint is never held");

    faults.heal();
    for call in held {
        call.await.unwrap().unwrap();
    }
    call(&channel, 10_000).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn ch_38_with_ten_thousand_replies_to_receive_held_there_is_backpressure_until_a_commit_succeeds() {
    fills_up(|channel, number| {
        let (channel, bytes) = (channel.clone(), packet(format!("m{number}"), 5, &[]));
        tokio::spawn(async move { channel.receive(bytes).await.map(drop) })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ch_38_with_ten_thousand_replies_to_wrap_held_there_is_backpressure_until_a_commit_succeeds() {
    fills_up(|channel, number| {
        let channel = channel.clone();
        tokio::spawn(async move { channel.wrap(format!("m{number}"), "content").await.map(drop) })
    })
    .await;
}

#[derive(Clone, Copy, Debug)]
enum End {
    Stop,
    Close,
}

#[tokio::test(start_paused = true)]
async fn what_the_last_commit_saved_is_told_before_the_channel_ends() {
    for end in [End::Stop, End::Close] {
        let (adapter, faults) = faulty();
        let store = start(&adapter).await;
        let channel = store.open_channel("room", synced()).await.unwrap();
        let mut events = channel.subscribe();
        faults.inject(Fault::hang().on(Operation::Commit));
        let mut calls = Vec::new();
        for number in 0..1_000 {
            calls.push(receive(&channel, packet(format!("m{number:03}"), number, &[])));
        }
        until_a_commit_is_under_way(&faults).await;
        while channel.stats().await.unwrap().history < 1_000 {}
        let ending = {
            let store = store.clone();
            tokio::spawn(async move {
                match end {
                    End::Stop => store.stop().await.map(|report| assert!(report.unsaved.is_empty())),
                    End::Close => store.close_channel("room").await,
                }
            })
        };
        pass(1).await;
        faults.heal();
        ending.await.unwrap().unwrap();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), ReceiveStatus::Delivered, "{end:?}");
        }
        let expected: Vec<String> = (0..1_000).map(|number| format!("ready m{number:03}")).collect();
        let told = told(&mut events);
        assert!(told == expected, "{end:?}: {} events", told.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_fenced_tells_nothing_that_its_successor_does_not_know() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", synced()).await.unwrap();
    let mut events = channel.subscribe();
    let successor = start(&adapter).await;
    let heir = successor.open_channel("room", synced()).await.unwrap();

    let late = channel.receive(packet("m1", 5, &[])).await.unwrap_err();
    assert!(matches!(&late, Error::NotSaved { source, .. } if matches!(**source, Error::Fenced { .. })), "{late}");
    assert!(matches!(channel.receive(packet("m2", 5, &[])).await, Err(Error::Fenced { .. })));
    assert!(matches!(channel.wrap("m3", "content").await, Err(Error::Fenced { .. })));
    pass(60_000).await;
    assert_eq!(told(&mut events), [""; 0]);
    heir.receive(packet("m1", 5, &[])).await.unwrap();
    assert_eq!(stored_ids(&adapter).await, ["m1"]);
}

#[tokio::test(start_paused = true)]
async fn ch_45_a_transaction_that_finds_a_copy_waits_for_the_commit_of_what_it_is_a_copy_of() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", synced()).await.unwrap();
    faults.inject(Fault::hang().on(Operation::Commit));
    let bytes = packet("m1", 5, &[]);
    let first = receive(&channel, bytes.clone());
    until_a_commit_is_under_way(&faults).await;
    let copy = {
        let (store, channel) = (store.clone(), channel.clone());
        tokio::spawn(async move { store.transaction(async |tx| tx.join(&channel)?.receive(&bytes)).await })
    };
    pass(1_000).await;
    assert!(!first.is_finished() && !copy.is_finished(), "that it is a copy would tell that the first is here");
    faults.heal();
    assert_eq!(first.await.unwrap().unwrap(), ReceiveStatus::Delivered);
    let commits = faults.commits().len();
    assert_eq!(copy.await.unwrap().unwrap().received.status, ReceiveStatus::Duplicate);
    assert_eq!(faults.commits().len(), commits, "it changed nothing itself");
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_sends_and_could_not_save_at_first_is_released_by_its_save() {
    for (channels, transactions) in [(Durability::Fsync, Durability::Ram), (Durability::Ram, Durability::Fsync)] {
        let (adapter, faults) = faulty();
        let store = start(&adapter).await;
        let channel = store.open_channel("room", options().with_durability(channels)).await.unwrap();
        let (sent, out) = std::sync::mpsc::channel();
        faults.fail_commits(transient());
        let outcome = store
            .transaction(async |tx| {
                sent.send(tx.join(&channel)?.wrap("m1", "content")?).unwrap();
                Ok::<_, Error>(())
            })
            .durability(transactions)
            .await;
        assert!(matches!(outcome, Err(Error::NotSaved { .. })), "{outcome:?}");
        let message = out.recv().unwrap();
        pass(10_000).await;
        assert!(message.bytes().is_none(), "it is not saved");
        faults.heal();
        pass(10_000).await;
        assert_eq!(stored_ids(&adapter).await, ["m1"]);
        let peer = start(&faulty().0).await.open_channel("room", options().with_participant("peer")).await.unwrap();
        assert_eq!(peer.receive(message.bytes().unwrap()).await.unwrap().status, ReceiveStatus::Delivered);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_sends_is_released_by_its_save_though_nobody_waits_for_it_any_more() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", synced()).await.unwrap();
    let (sent, out) = std::sync::mpsc::channel();
    faults.inject(Fault::hang().on(Operation::Commit));
    let given_up = {
        let (store, channel) = (store.clone(), channel.clone());
        tokio::spawn(async move {
            store
                .transaction(async |tx| {
                    sent.send(tx.join(&channel)?.wrap("m1", "content")?).unwrap();
                    Ok::<_, Error>(())
                })
                .await
        })
    };
    until_a_commit_is_under_way(&faults).await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let message = out.recv().unwrap();
    pass(1_000).await;
    assert!(message.bytes().is_none(), "it is not saved");
    faults.heal();
    pass(1_000).await;
    assert!(message.bytes().is_some());
}
