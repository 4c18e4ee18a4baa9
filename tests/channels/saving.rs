//! What is saved, when, and as how much: one operation is one unit, what changes nothing costs nothing, and what failed
//! is saved later without anybody's help. Without it a disk would hold half of an operation, or work for nothing.

use bytes::Bytes;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::{ChannelId, MessageId};
use ractor_persistence::channel::Channel;
use ractor_persistence::persistence::{Commit, Save, StorageAdapter};
use ractor_persistence::sds::{ChannelData, ChannelOptions, ChannelState, Effects, ReceiveStatus, WireFormat, decode};
use ractor_persistence::testkit::{Fault, Operation};

use crate::support::{
    NOW, builder, faulty, history_ids, lazy, options, packet, pass, prompt, start, state, stored, stored_ids, synced,
    told, transient,
};

/// Metas and history updates in a commit.
fn parts(commit: &Commit) -> (usize, usize) {
    let count = |wanted: fn(&Save) -> bool| commit.saves.iter().filter(|save| wanted(save)).count();
    (count(|save| matches!(save, Save::ChannelMeta(..))), count(|save| matches!(save, Save::History(..))))
}

#[tokio::test(start_paused = true)]
async fn ch_40_an_operation_is_at_most_one_meta_and_one_update_in_one_commit_a_cascade_of_three_too() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", synced().with_max_history(6)).await.unwrap();
    let commits = async |operation: &str| {
        // Nothing follows later either.
        pass(60_000).await;
        let commits: Vec<(usize, usize)> = faults.commits().iter().map(parts).collect();
        faults.forget_calls();
        (operation.to_owned(), commits)
    };
    faults.forget_calls();
    let mut seen = Vec::new();
    channel.wrap("mine", "content").await.unwrap();
    seen.push(commits("sent").await);
    channel.receive(packet("d", 9, &["c"])).await.unwrap();
    seen.push(commits("parked").await);
    channel.receive(packet("c", 8, &["b", "x"])).await.unwrap();
    seen.push(commits("parked too").await);
    channel.mark_dependencies_met(["x", "y"]).await.unwrap();
    seen.push(commits("waived").await);
    channel.receive(packet("b", 7, &["mine"])).await.unwrap();
    let last = faults.commits().pop().unwrap();
    seen.push(commits("delivered, two with it, and one acknowledged").await);
    channel.receive(packet("e", 10, &[])).await.unwrap();
    channel.receive(packet("f", 11, &[])).await.unwrap();
    faults.forget_calls();
    channel.receive(packet("g", 12, &[])).await.unwrap();
    let evicting = faults.commits().pop().unwrap();
    seen.push(commits("delivered, and one evicted").await);
    let expected = [
        ("sent", vec![(1, 1)]),
        ("parked", vec![(1, 0)]),
        ("parked too", vec![(1, 0)]),
        ("waived", vec![(1, 0)]),
        ("delivered, two with it, and one acknowledged", vec![(1, 1)]),
        ("delivered, and one evicted", vec![(1, 1)]),
    ];
    assert_eq!(seen, expected.map(|(operation, commits)| (operation.to_owned(), commits)));
    let sizes = |commit: &Commit| {
        let update = commit.saves.iter().find_map(|save| match save {
            Save::History(_, update) => Some((update.append.len(), update.evict.len())),
            _ => None,
        });
        update.unwrap()
    };
    assert_eq!((sizes(&last), sizes(&evicting)), ((3, 0), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn what_happens_within_a_window_is_one_meta_and_one_update() {
    let (adapter, faults) = faulty();
    let store = builder(adapter).persistence(lazy()).start().await.unwrap();
    let channel = store.open_channel("room", options()).await.unwrap();
    faults.forget_calls();
    for number in 0..100 {
        channel.receive(packet(format!("m{number}"), number, &[])).await.unwrap();
        channel.wrap(format!("w{number}"), "content").await.unwrap();
    }
    channel.flush().await.unwrap();
    assert_eq!(faults.commits().iter().map(parts).collect::<Vec<_>>(), [(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn ch_41_duplicates_empty_sweeps_sync_messages_without_requests_and_refusals_call_no_adapter() {
    for options in [options(), synced()] {
        let (adapter, faults) = faulty();
        let store = start(&adapter).await;
        let second = std::time::Duration::from_secs(1);
        let options = options
            .with_max_outgoing(1)
            .with_max_parked(1)
            .with_max_message_size(10)
            .with_max_packet_size(500)
            .with_buffer_sweep_interval(second)
            .with_repair_sweep_interval(second)
            .with_sync_interval(Some(second));
        let channel = store.open_channel("room", options).await.unwrap();
        let mine = channel.wrap("mine", "content").await.unwrap();
        channel.receive(packet("a", 5, &[])).await.unwrap();
        channel.receive(packet("c", 7, &["b"])).await.unwrap();
        channel.set_retrieval_hint("a", "here").await.unwrap();
        channel.flush().await.unwrap();
        faults.forget_calls();
        let before = (channel.history().await.unwrap(), channel.stats().await.unwrap(), stored(&adapter).await);
        faults.forget_calls();

        for (bytes, status) in [
            (mine, ReceiveStatus::Duplicate),
            (packet("a", 5, &[]), ReceiveStatus::Duplicate),
            (packet("a", 99, &["z"]), ReceiveStatus::Duplicate),
            (packet("c", 7, &["b"]), ReceiveStatus::Parked),
        ] {
            assert_eq!(channel.receive(bytes).await.unwrap().status, status);
        }
        channel.mark_dependencies_met(["a", "mine"]).await.unwrap();
        assert!(channel.set_retrieval_hint("a", "here").await.unwrap());
        assert!(!channel.set_retrieval_hint("unknown", "here").await.unwrap());

        let wraps = [
            ("m", "", "EmptyContent"),
            ("m", "01234567890", "MessageTooLarge"),
            ("", "x", "InvalidId"),
            ("a", "x", "DuplicateId"),
            ("c", "x", "DuplicateId"),
            ("mine", "x", "DuplicateId"),
            ("m", "x", "OutgoingFull"),
        ];
        for (id, content, expected) in wraps {
            refused(channel.wrap(id, content).await, expected);
        }
        let wrong_channel = ChannelState::new(ChannelId::new("other").unwrap(), ChannelOptions::default());
        let (wrong_channel, _) = wrong_channel.unwrap().wrap("m", "x", NOW).unwrap();
        let receives = [
            (packet("d", 8, &["e"]), "ParkedFull"),
            (packet("", 8, &[]), "InvalidId"),
            (Bytes::from_static(b"\xff\xff"), "MalformedMessage"),
            (Bytes::from(vec![0; 501]), "MessageTooLarge"),
            (wrong_channel, "MessageTooLarge"),
            (packet(vec![b'x'; 1_025].as_slice(), 8, &[]), "MessageTooLarge"),
        ];
        for (bytes, expected) in receives {
            refused(channel.receive(bytes).await, expected);
        }
        refused(channel.mark_dependencies_met([vec![b'x'; 1_025].as_slice()]).await, "InvalidId");
        refused(channel.set_retrieval_hint("a", vec![b'x'; 4_097]).await, "InvalidId");
        channel.missing().await.unwrap();
        let sync = decode(WireFormat::NimSds, &channel.sync_message().await.unwrap()).unwrap().to_message();
        assert_eq!((sync.repair_request.len(), channel.stats().await.unwrap().requests), (0, 1));

        channel.flush().await.unwrap();
        store.flush().await.unwrap();
        let mut events = channel.subscribe();
        pass(60_500).await;
        let syncs = told(&mut events);
        assert!(syncs.len() == 60 && syncs.iter().all(|event| event.starts_with("sync")), "{syncs:?}");
        assert!(faults.calls().is_empty(), "{:?}", faults.calls());
        // Ids of sync messages are remembered, in memory only.
        let mut stats = channel.stats().await.unwrap();
        stats.remembered = before.1.remembered;
        assert_eq!((channel.history().await.unwrap(), stats, stored(&adapter).await), before);
    }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, expected: &str) {
    let error = format!("{:?}", outcome.unwrap_err());
    assert!(error.starts_with(expected), "{error} is not {expected}");
}

#[tokio::test(start_paused = true)]
async fn ch_42_what_could_not_be_saved_is_saved_later_without_traffic_and_no_event_waited_for_it() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    let mut events = channel.subscribe();
    faults.fail_commits(transient());
    faults.forget_calls();
    for (id, timestamp) in [("m1", 5), ("m2", 6), ("m3", 7)] {
        let failed = faults.commits().len();
        let before = tokio::time::Instant::now();
        channel.receive(packet(id, timestamp, &[])).await.unwrap();
        assert_eq!(told(&mut events), [format!("ready {id}")]);
        assert_eq!(before.elapsed().as_nanos(), 0);
        faults.until_commits_ended(failed + 1).await;
    }
    assert_eq!(stored_ids(&adapter).await, [""; 0]);
    assert!(!store.health().is_healthy());

    faults.heal();
    faults.forget_calls();
    pass(60_000).await;
    assert_eq!(stored_ids(&adapter).await, ["m1", "m2", "m3"]);
    assert_eq!(faults.commits().iter().map(parts).collect::<Vec<_>>(), [(1, 1)], "once, together");
    assert!(store.health().is_healthy());
    assert_eq!(told(&mut events), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn while_saving_fails_the_unsaved_appends_never_outgrow_the_history() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options().with_max_history(10)).await.unwrap();
    channel.receive(packet("old", 1, &[])).await.unwrap();
    channel.flush().await.unwrap();
    faults.fail_commits(transient());
    for number in 2..500 {
        channel.receive(packet(format!("m{number:03}"), number, &[])).await.unwrap();
        if number % 50 == 0 {
            pass(10).await;
        }
    }
    faults.heal();
    faults.forget_calls();
    channel.flush().await.unwrap();
    let Some(Save::History(_, update)) = faults.commits().pop().unwrap().saves.first().cloned() else { panic!() };
    assert_eq!(update.append.len(), 10);
    assert!(update.evict.contains(&MessageId::from("old")));
    assert_eq!(stored_ids(&adapter).await, history_ids(&channel).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_only_handed_over_is_written_again_when_its_sync_fails() {
    let (adapter, faults) = faulty();
    let window = std::time::Duration::from_millis(100);
    let options_of_store = prompt().with_debounce(window).with_save_durability(Durability::Wal);
    let store = builder(adapter.clone()).persistence(options_of_store).start().await.unwrap();
    let channel = store.open_channel("room", options().with_max_history(2)).await.unwrap();
    faults.forget_calls();
    channel.receive(packet("m1", 1, &[])).await.unwrap();
    faults.until_commits_ended(1).await;
    channel.receive(packet("m2", 2, &[])).await.unwrap();
    channel.receive(packet("m3", 3, &[])).await.unwrap();
    // What the commit before it wrote may be gone with it.
    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(1));
    faults.until_commits_ended(3).await;
    let commits = faults.commits();
    let levels: Vec<Durability> = commits.iter().map(|commit| commit.durability).collect();
    assert_eq!(levels[..2], [Durability::Wal, Durability::Fsync]);
    let Some(Save::History(_, update)) = commits[2].saves.first() else { panic!() };
    let appended: Vec<_> = update.append.iter().map(|message| message.message_id.to_string()).collect();
    assert_eq!((appended, update.evict.as_slice()), (vec!["m2".to_owned(), "m3".to_owned()], &["m1".into()][..]));
    pass(1_000).await;
    assert_eq!(stored_ids(&adapter).await, ["m2", "m3"]);
    assert!(store.stop().await.unwrap().unsaved.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ch_43_a_delivery_while_a_commit_is_in_flight_is_saved_by_the_next() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    faults.inject(Fault::hang().on(Operation::Commit).times(1));
    channel.receive(packet("m1", 5, &[])).await.unwrap();
    faults.until(|log| log.iter().any(|logged| logged.result.is_none())).await;
    channel.receive(packet("m2", 6, &["m1"])).await.unwrap();
    faults.release();
    pass(60_000).await;
    assert_eq!(stored_ids(&adapter).await, ["m1", "m2"]);
    assert_eq!(faults.most_commits_at_once(), 1);
}

/// What is done to a channel, by actor and by plain state alike.
#[derive(Clone, Copy)]
enum Step {
    Wrap(u32),
    Receive(u32, i64, Option<u32>),
    Waive(u32),
    Hint(u32),
}

impl Step {
    fn at(number: u32) -> Self {
        let cause = |back: u32| number.saturating_sub(back);
        match number % 7 {
            0 | 3 => Self::Wrap(number),
            // Parked until its cause comes two steps later, or is waived.
            1 => Self::Receive(
                number,
                i64::from(number),
                Some(number + if number.is_multiple_of(2) { 1 } else { 10_000 }),
            ),
            2 => Self::Receive(number, i64::from(number), None),
            4 => Self::Waive(cause(3) + 10_000),
            5 => Self::Receive(number, i64::from(number), Some(cause(2))),
            _ => Self::Hint(cause(1)),
        }
    }

    async fn on_channel(self, channel: &Channel) {
        match self {
            Self::Wrap(id) => drop(channel.wrap(format!("m{id}"), "content").await.unwrap()),
            Self::Receive(id, time, cause) => drop(channel.receive(Self::packet(id, time, cause)).await.unwrap()),
            Self::Waive(id) => channel.mark_dependencies_met([format!("m{id}")]).await.unwrap(),
            Self::Hint(id) => assert!(channel.set_retrieval_hint(format!("m{id}"), "here").await.unwrap()),
        }
    }

    fn on_state(self, state: &mut ChannelState) -> Effects {
        match self {
            Self::Wrap(id) => state.wrap(format!("m{id}"), "content", NOW).unwrap().1,
            Self::Receive(id, time, cause) => state.receive(&Self::packet(id, time, cause), NOW).unwrap().1,
            Self::Waive(id) => state.mark_dependencies_met([format!("m{id}")], NOW).unwrap(),
            Self::Hint(id) => state.set_hint(format!("m{id}"), "here").unwrap().1,
        }
    }

    fn packet(id: u32, time: i64, cause: Option<u32>) -> Bytes {
        let cause = cause.map(|cause| format!("m{cause}"));
        // As late as what is sent, so that it is not the first to be evicted.
        packet(format!("m{id}"), NOW / 1_000 + time, cause.as_deref().as_slice())
    }
}

/// What a store would have of a state if it were saved now.
fn snapshot(state: &ChannelState) -> ChannelData {
    let history = state.history().iter().map(|message| (**message).clone()).collect();
    let mut hints: Vec<_> = state.hints().map(|(id, hint)| (id.clone(), hint.clone())).collect();
    hints.sort_unstable();
    ChannelData::new(state.meta(), history, hints)
}

/// An adapter whose commits are all or nothing has, whenever the process is killed, a number of whole commits. All these
/// images are examined: each is what the channel was after some operation, and none of them goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ch_44_killed_at_any_point_meta_and_history_are_of_one_moment() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let options = options().with_max_history(20).with_max_outgoing(usize::MAX);
    let channel = store.open_channel("room", options.clone()).await.unwrap();
    let steps: Vec<Step> = (0..400).map(Step::at).collect();
    let mut model = state(options.clone());
    let mut moments = vec![snapshot(&model)];
    for step in &steps {
        // Commits begin and end while this goes on.
        step.on_channel(&channel).await;
        let _ = step.on_state(&mut model);
        moments.push(snapshot(&model));
    }
    channel.flush().await.unwrap();
    assert_eq!(snapshot(&model), stored(&adapter).await);

    let commits = faults.commits();
    assert!(commits.len() > 10, "{} commits", commits.len());
    let disk = ractor_persistence::adapters::memory::MemoryAdapter::default();
    let (mut moment, mut kills) = (0, 0);
    for commit in commits {
        let epoch = disk.claim(&commit.store).await.unwrap();
        disk.commit(&Commit::new(commit.store.clone(), epoch, commit.durability, commit.saves)).await.unwrap();
        let image = stored(&disk).await;
        let found = moments.iter().skip(moment).position(|moment| *moment == image);
        moment += found.unwrap_or_else(|| panic!("after {kills} commits the disk is of no one moment"));
        // A store takes it up as it is.
        if kills % 10 == 0 {
            let heir = start(&disk).await;
            let again = heir.open_channel("room", options.clone()).await.unwrap();
            assert_eq!(again.history().await.unwrap().len(), image.message_history.len());
            again.flush().await.unwrap();
            assert_eq!(stored(&disk).await, image, "nothing had to be mended");
            heir.stop().await.unwrap();
        }
        kills += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn ch_53_a_hint_is_told_in_causal_histories_after_a_restart_too_and_goes_with_its_message() {
    let hints = |bytes: &Bytes| -> Vec<(String, Bytes)> {
        let message = decode(WireFormat::NimSds, bytes).unwrap().to_message();
        let entries = message.causal_history.into_iter();
        entries.map(|entry| (entry.message_id.to_string(), entry.retrieval_hint)).collect()
    };
    let told = |id: &str, hint: &'static str| (id.to_owned(), Bytes::from_static(hint.as_bytes()));
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options().with_max_history(3)).await.unwrap();
    channel.receive(packet("m1", 5, &[])).await.unwrap();
    // Its save may fail: that is nobody's concern here, and it is tried again.
    faults.fail_commits(transient());
    assert!(channel.set_retrieval_hint("m1", "where it was").await.unwrap());
    pass(1_000).await;
    assert!(channel.set_retrieval_hint("m1", "here").await.unwrap());
    assert!(!channel.set_retrieval_hint("m2", "there").await.unwrap());
    pass(1_000).await;
    assert_eq!(stored(&adapter).await.hints, []);
    faults.heal();
    pass(1_000).await;
    assert_eq!(stored(&adapter).await.hints, [("m1".into(), Bytes::from_static(b"here"))]);
    assert_eq!(hints(&channel.wrap("m2", "content").await.unwrap()), [told("m1", "here")]);
    store.stop().await.unwrap();

    let store = start(&adapter).await;
    let channel = store.open_channel("room", options().with_max_history(3)).await.unwrap();
    assert_eq!(hints(&channel.wrap("m3", "content").await.unwrap()), [told("m1", "here"), told("m2", "")]);
    channel.set_retrieval_hint("m2", "there").await.unwrap();
    channel.set_retrieval_hint("m3", "anywhere").await.unwrap();
    channel.set_retrieval_hint("m3", "").await.unwrap();
    channel.wrap("m4", "content").await.unwrap();
    channel.flush().await.unwrap();
    assert_eq!(stored(&adapter).await.hints, [("m2".into(), Bytes::from_static(b"there"))], "m1 was evicted");
    assert!(!channel.set_retrieval_hint("m1", "here").await.unwrap());
    store.stop().await.unwrap();
    let channel = start(&adapter).await.open_channel("room", options().with_max_history(3)).await.unwrap();
    let last = hints(&channel.wrap("m5", "content").await.unwrap());
    assert_eq!(last, [told("m2", "there"), told("m3", ""), told("m4", "")]);
}
