//! Asking for what is missing, and answering. Without this, a message that one peer lacks is lost to it as soon as its
//! author has stopped sending it, or all peers answer at once, or a stranger makes one of them answer.

use std::time::Duration;

use bytes::Bytes;

use super::{NOW, Stored, decoded, ids, message, opened, packet, receive, status, tick, told, told_until};
use crate::base::name::MessageId;
use crate::sds::repair::RepairTiming;
use crate::sds::{
    ChannelEvent, ChannelOptions, ChannelState, Effects, HistoryEntry, Now, OutgoingRepairEntry, ReceiveStatus,
    SdsMessage, WireFormat, encode,
};

const SECOND: i64 = 1_000;

/// Without sync messages, which have tests of their own.
fn options(me: &str) -> ChannelOptions {
    ChannelOptions::default().with_participant(me).with_sync_interval(None)
}

fn entry(id: &str, author: &str) -> HistoryEntry {
    HistoryEntry { message_id: id.into(), sender_id: author.into(), retrieval_hint: Bytes::new() }
}

fn by(author: &str, id: &str) -> Bytes {
    encode(WireFormat::NimSds, &SdsMessage { sender_id: author.into(), ..message(id, 1, &[]) })
}

/// A sync message that asks.
fn asking(id: &str, wanted: &[HistoryEntry]) -> Bytes {
    let content = Bytes::new();
    encode(WireFormat::NimSds, &SdsMessage { content, repair_request: wanted.to_vec(), ..message(id, 1, &[]) })
}

fn wait(me: &str, id: &str) -> i64 {
    RepairTiming::of(&options(me)).request_ms(&me.into(), id.as_bytes())
}

fn answer_after(me: &str, author: &str, id: &str) -> i64 {
    RepairTiming::of(&options(me)).response_ms(&me.into(), &author.into(), id.as_bytes())
}

fn held(state: &ChannelState) -> Vec<(String, i64)> {
    let requests = state.meta().outgoing_repair.into_iter();
    requests.map(|request| (request.entry.message_id.to_string(), request.due_ms - NOW)).collect()
}

fn attached(state: &mut ChannelState, id: &str, now: i64) -> Vec<String> {
    ids(&decoded(&state.wrap(id, "x", now).unwrap().0).repair_request)
}

fn repairs(effects: &Effects) -> Vec<Bytes> {
    let bytes = |event: &ChannelEvent| match event {
        ChannelEvent::Repair { bytes, .. } => Some(bytes.clone()),
        _ => None,
    };
    effects.events.iter().filter_map(bytes).collect()
}

#[test]
fn ch_31_a_missing_cause_is_asked_for_once_when_the_formula_says() {
    let mut state = opened(&options("bob"));
    let named = HistoryEntry { retrieval_hint: "there".into(), ..entry("m1", "alice") };
    let later = |id: &str| SdsMessage { causal_history: vec![named.clone()], ..message(id, 2, &[]) };
    let (_, effects) = receive(&mut state, &encode(WireFormat::NimSds, &later("m2")));
    assert!(effects.meta_changed);
    let due_ms = NOW + 105_515;
    let request = OutgoingRepairEntry { entry: named.clone(), due_ms, expires_ms: due_ms + 300 * SECOND };
    assert_eq!(state.meta().outgoing_repair, std::slice::from_ref(&request));
    state.receive(&encode(WireFormat::NimSds, &later("m3")), NOW + 9).unwrap();
    assert_eq!(state.meta().outgoing_repair, [request], "once");
    // Nothing is asked for before its time, nor after it has come.
    assert_eq!(attached(&mut state, "own", due_ms - 1), [""; 0]);
    assert_eq!(status(&mut state, &packet("m1", 1, &[])), ReceiveStatus::Delivered);
    assert_eq!((attached(&mut state, "own2", due_ms), held(&state)), (vec![], vec![]));
}

#[test]
fn ch_31_nobody_in_particular_does_not_ask_and_what_is_parked_is_not_asked_for() {
    let mut nobody = opened(&options(""));
    receive(&mut nobody, &packet("m2", 2, &["m1"]));
    assert_eq!((held(&nobody), nobody.next_due()), (vec![], None));
    let mut state = opened(&options("bob"));
    receive(&mut state, &packet("m2", 2, &["m1"]));
    receive(&mut state, &packet("m3", 3, &["m2", "m1", "m3"]));
    assert_eq!(held(&state), [("m1".to_owned(), 105_515)]);
}

#[test]
fn a_sync_message_that_names_a_missing_cause_has_it_asked_for_too() {
    let mut state = opened(&options("bob"));
    let sync = SdsMessage { content: Bytes::new(), ..message("s1", 2, &["m1"]) };
    assert_eq!(status(&mut state, &encode(WireFormat::NimSds, &sync)), ReceiveStatus::Sync);
    assert_eq!(held(&state).len(), 1);
}

#[test]
fn a_request_ends_when_its_message_arrives_parked_or_not_or_is_waived_or_wrapped() {
    let mut state = opened(&options("bob"));
    receive(&mut state, &packet("m9", 9, &["a", "b", "c", "d"]));
    assert_eq!(held(&state).len(), 4);
    let left = |state: &ChannelState| held(state).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(status(&mut state, &packet("a", 2, &["e"])), ReceiveStatus::Parked);
    assert_eq!(left(&state), ["b", "c", "d", "e"]);
    assert!(receive(&mut state, &packet("b", 2, &[])).1.meta_changed);
    assert!(state.mark_dependencies_met(["c"], NOW).unwrap().meta_changed);
    state.wrap("d", "x", NOW).unwrap();
    assert_eq!(left(&state), ["e"]);
}

#[test]
fn ch_32_of_five_requests_due_the_three_earliest_are_attached_and_all_five_stay_held() {
    let mut state = opened(&options("bob"));
    let names = ["x1", "x2", "x3", "x4", "x5"];
    receive(&mut state, &packet("p", 2, &names));
    let now = NOW + 300 * SECOND;
    let mut by_due: Vec<_> = held(&state).into_iter().map(|(id, due)| (due, id)).collect();
    by_due.sort();
    let earliest: Vec<_> = by_due.iter().take(3).map(|(_, id)| id.clone()).collect();
    assert_ne!(earliest, names[..3], "the order of ids is not the order of time here");
    assert_eq!(attached(&mut state, "own", now), earliest);
    let expected: Vec<_> = by_due
        .iter()
        .map(|(due, id)| (id.clone(), if earliest.contains(id) { now - NOW + wait("bob", id) } else { *due }))
        .collect();
    let mut after = held(&state);
    after.sort_by_key(|(id, _)| by_due.iter().position(|(_, other)| other == id));
    assert_eq!(after, expected);
    // A sync message carries the others, and tells that this is to be saved.
    let (bytes, effects) = state.sync_message("s", now).unwrap();
    assert_eq!(ids(&decoded(&bytes).repair_request), by_due[3..].iter().map(|(_, id)| id.clone()).collect::<Vec<_>>());
    assert!(effects.meta_changed);
}

#[test]
fn ch_33_a_request_is_attached_again_when_it_is_due_again_and_never_after_its_end() {
    let mut state = opened(&options("bob"));
    receive(&mut state, &packet("m2", 2, &["m1"]));
    let first = wait("bob", "m1");
    let expires = first + 300 * SECOND;
    let mut when = Vec::new();
    for now in (0..600 * SECOND).step_by(5) {
        let (bytes, _) = state.sync_message(format!("s{now}"), NOW + now).unwrap();
        if !decoded(&bytes).repair_request.is_empty() {
            when.push(now);
        }
    }
    assert_eq!(when, [first, 2 * first, 3 * first], "4 times {first} is after {expires}");
    assert_eq!(held(&state), []);

    // The sweep ends it too; at its very end it is still asked for.
    let mut state = opened(&options("bob"));
    receive(&mut state, &packet("m2", 2, &["m1"]));
    let sweep = (expires / (5 * SECOND) + 1) * 5 * SECOND;
    assert_eq!(state.next_due(), Some(NOW + sweep));
    assert_eq!(ids(&decoded(&state.clone().sync_message("s", NOW + expires).unwrap().0).repair_request), ["m1"]);
    assert!(tick(&mut state, NOW + sweep).meta_changed);
    assert_eq!((held(&state), state.next_due()), (vec![], None));
    // Named once more, it is asked for once more.
    state.receive(&packet("m3", 3, &["m1"]), NOW + 600 * SECOND).unwrap();
    assert_eq!(held(&state), [("m1".to_owned(), 600 * SECOND + first)]);
}

#[test]
fn what_is_still_waited_for_when_its_request_ends_is_asked_for_anew_when_a_peer_is_heard() {
    let mut state = opened(&options("bob").with_max_requests(1));
    receive(&mut state, &packet("m2", 2, &["m1", "m0"]));
    assert_eq!(held(&state), [("m1".to_owned(), wait("bob", "m1"))], "no room for the other");
    let end = NOW + 410 * SECOND;
    assert_eq!(tick(&mut state, end).events, []);
    assert_eq!((held(&state), state.next_due()), (vec![], None), "nobody is there, so nothing is asked for");
    // A copy may be an echo of the network's; a new message shows a peer. What never had its turn comes first.
    state.receive(&packet("m2", 2, &["m1", "m0"]), end).unwrap();
    assert_eq!(held(&state), []);
    let (_, effects) = state.receive(&packet("m3", 1, &[]), end).unwrap();
    assert!(effects.meta_changed);
    assert_eq!(held(&state), [("m0".to_owned(), end - NOW + wait("bob", "m0"))]);
    // That one arrives; the next message has the other asked for.
    state.receive(&packet("m0", 1, &[]), end).unwrap();
    assert_eq!(held(&state), [("m1".to_owned(), end - NOW + wait("bob", "m1"))]);
    // What is waited for no more is not asked for.
    state.receive(&packet("m5", 2, &["m4"]), end).unwrap();
    state.mark_dependencies_met(["m4"], end).unwrap();
    state.receive(&packet("m1", 1, &[]), end).unwrap();
    assert_eq!((held(&state), state.stats().parked), (vec![], 0));
}

#[test]
fn a_request_that_others_left_no_place_for_is_kept_for_its_turn() {
    let mut state = opened(&options("bob").with_max_repair_requests(1).with_repair_t_max(Duration::from_secs(60)));
    let names = ["x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8"];
    receive(&mut state, &packet("p", 2, &names));
    // So many do not fit into the messages of their minute, and none of them is ever answered.
    let mut asked = std::collections::BTreeSet::new();
    for round in 1..=16 {
        let now = NOW + round * 20 * SECOND;
        tick(&mut state, now);
        asked.extend(ids(&decoded(&state.sync_message(format!("s{round}"), now).unwrap().0).repair_request));
    }
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), names);
    // Once each has had its turn, they end, though messages go out all the time.
    for round in 17..=21 {
        let now = NOW + round * 20 * SECOND;
        tick(&mut state, now);
        state.sync_message(format!("s{round}"), now).unwrap();
    }
    assert_eq!((held(&state), state.next_due()), (vec![], None));
}

#[test]
fn a_request_does_not_wait_for_a_turn_that_never_comes() {
    let mut state = opened(&options("bob").with_max_repair_requests(1));
    receive(&mut state, &packet("p", 2, &["x1", "x2", "x3"]));
    assert_eq!(attached(&mut state, "own", NOW + 300 * SECOND).len(), 1);
    receive(&mut state, &packet("q", 2, &["own"]));
    // Nothing is sent any more, so the two that were passed over end as well, one lifetime later.
    told_until(&mut state, NOW + 3_000 * SECOND);
    assert_eq!((held(&state), state.next_due()), (vec![], None));
}

#[test]
fn a_parked_cause_that_expires_is_asked_for_when_a_peer_is_heard() {
    let mut state = opened(&options("bob").with_park_timeout(Some(Duration::from_secs(60))));
    state.receive(&packet("b", 2, &["a"]), NOW).unwrap();
    state.receive(&packet("c", 3, &["b"]), NOW + 30 * SECOND).unwrap();
    assert_eq!(told(&tick(&mut state, NOW + 60 * SECOND)), ["expired b"]);
    // c waits for b still, which was here until now.
    assert_eq!(held(&state), [("a".to_owned(), wait("bob", "a"))]);
    state.receive(&packet("p", 1, &[]), NOW + 61 * SECOND).unwrap();
    let asked: Vec<_> = held(&state).into_iter().map(|(id, _)| id).collect();
    assert_eq!(asked, ["a", "b"]);
}

#[test]
fn nobody_is_asked_for_a_cause_without_an_id_after_a_restart_either() {
    let (mut state, mut stored) = (opened(&options("bob")), Stored::default());
    let (_, effects) = receive(&mut state, &packet("m2", 2, &[""]));
    stored.save(&state, &effects);
    assert_eq!((held(&state), state.missing()), (vec![], vec![MessageId::default()]));
    for mut state in [state, stored.load(&options("bob")).0] {
        receive(&mut state, &packet("p", 1, &[]));
        assert_eq!(held(&state), [], "no message has the empty id, so nobody could answer");
    }
}

#[test]
fn a_peer_that_asks_for_the_same_puts_our_request_off() {
    let mut state = opened(&options("bob"));
    receive(&mut state, &packet("m2", 2, &["m1"]));
    let expires = state.meta().outgoing_repair[0].expires_ms;
    let (_, effects) = state.receive(&asking("s", &[entry("m1", "alice")]), NOW + 100 * SECOND).unwrap();
    assert!(effects.meta_changed);
    assert_eq!(held(&state), [("m1".to_owned(), 100 * SECOND + 105_515)]);
    assert_eq!(state.meta().outgoing_repair[0].expires_ms, expires);
    assert_eq!(state.stats().responses, 0, "what we lack we cannot answer");
}

#[test]
fn ch_34_two_requests_are_answered_once_at_the_time_of_the_first() {
    let mut state = opened(&options("bob"));
    receive(&mut state, &by("alice", "m1"));
    let (_, effects) = state.receive(&asking("s1", &[entry("m1", "alice")]), NOW + SECOND).unwrap();
    assert!(effects.meta_changed);
    state.receive(&asking("s2", &[entry("m1", "alice")]), NOW + 30 * SECOND).unwrap();
    let due = SECOND + 47_732;
    assert_eq!(state.meta().incoming_repair[0].due_ms, NOW + due, "T_resp of bob for alice's m1 is 47,732");
    let sweep = (due / (5 * SECOND) + 1) * 5 * SECOND;
    assert_eq!(told_until(&mut state, NOW + 10_000 * SECOND), [(sweep, vec!["repair m1".to_owned()])]);
}

#[test]
fn ch_34_a_copy_that_comes_before_cancels_the_answer() {
    let mut state = opened(&options("bob"));
    receive(&mut state, &by("alice", "m1"));
    receive(&mut state, &asking("s1", &[entry("m1", "alice")]));
    let (received, effects) = receive(&mut state, &by("alice", "m1"));
    assert_eq!((received.status, effects.meta_changed), (ReceiveStatus::Duplicate, true));
    assert_eq!((state.next_due(), state.stats().responses), (None, 0));
}

#[test]
fn the_author_answers_at_the_next_sweep_and_nobody_in_particular_never() {
    let mut alice = opened(&options("alice").with_max_resend_attempts(0));
    alice.wrap("m1", "x", NOW).unwrap();
    alice.receive(&asking("s1", &[entry("m1", "")]), NOW + 1).unwrap();
    assert_eq!(told_until(&mut alice, NOW + 59 * SECOND), [(5 * SECOND, vec!["repair m1".to_owned()])]);

    let mut nobody = opened(&options(""));
    receive(&mut nobody, &by("alice", "m1"));
    assert!(receive(&mut nobody, &asking("s1", &[entry("m1", "alice")])).1.events.is_empty());
    let mut bob = opened(&options("bob"));
    receive(&mut bob, &by("", "m1"));
    receive(&mut bob, &asking("s1", &[entry("m1", "alice")]));
    assert_eq!((nobody.stats().responses, bob.stats().responses), (0, 0), "of nobody's message there is no formula");
}

#[test]
fn ch_35_a_request_that_names_its_receiver_as_the_author_is_answered_by_the_formula_of_the_true_one() {
    let mut state = opened(&options("bob"));
    receive(&mut state, &by("alice", "m1"));
    receive(&mut state, &asking("s1", &[entry("m1", "bob")]));
    assert_eq!(state.meta().incoming_repair[0].due_ms, NOW + answer_after("bob", "alice", "m1"));
    assert_eq!(state.meta().incoming_repair[0].entry, entry("m1", "alice"));
    assert_eq!((answer_after("bob", "alice", "m1"), answer_after("bob", "bob", "m1")), (47_732, 0));
}

#[test]
fn ch_36_a_repair_is_the_message_as_delivered_and_a_third_peer_delivers_it() {
    let mut alice = opened(&options("alice"));
    alice.wrap("m0", "zero", NOW).unwrap();
    let (m1, _) = alice.wrap("m1", "one", NOW).unwrap();
    let mut bob = opened(&options("bob"));
    bob.mark_dependencies_met(["m0"], NOW).unwrap();
    receive(&mut bob, &m1);
    let mut carol = opened(&options("carol"));
    carol.mark_dependencies_met(["m0"], NOW).unwrap();
    assert_eq!(status(&mut carol, &packet("m2", 9, &["m1"])), ReceiveStatus::Parked);
    let due = NOW + wait("carol", "m1");
    let (request, _) = carol.sync_message("s", due).unwrap();
    bob.receive(&request, due).unwrap();
    let bytes = loop {
        let effects = {
            let due = bob.next_due().unwrap();
            tick(&mut bob, due)
        };
        if let Some(bytes) = repairs(&effects).pop() {
            break bytes;
        }
    };
    let expected = SdsMessage { bloom_filter: Bytes::new(), ..decoded(&m1) };
    assert_eq!(decoded(&bytes), expected);
    assert_eq!((expected.sender_id.as_str(), expected.causal_history.len()), (Some("alice"), 1));
    assert_eq!(told(&receive(&mut carol, &bytes).1), ["ready m1", "ready m2"]);
    assert_eq!(carol.stats().requests, 0);
}

#[test]
fn ch_37_exactly_the_peers_of_the_authors_group_answer() {
    let timing = RepairTiming::of(&options("").with_response_groups(10));
    let mut answering = 0;
    for number in 0..60 {
        let name = if number == 0 { "author".to_owned() } else { format!("peer {number}") };
        let mut state = opened(&options(&name).with_response_groups(10));
        receive(&mut state, &by("author", "m1"));
        receive(&mut state, &asking("s1", &[entry("m1", "author")]));
        let same = timing.group(&name.as_str().into(), b"m1") == timing.group(&"author".into(), b"m1");
        assert_eq!(state.stats().responses == 1, same, "{name}");
        answering += usize::from(same);
    }
    assert!((2..20).contains(&answering), "{answering} of 60");
}

#[test]
fn a_message_that_leaves_the_history_is_not_answered_for() {
    let mut state = opened(&options("bob").with_max_history(1));
    receive(&mut state, &by("alice", "m1"));
    receive(&mut state, &asking("s1", &[entry("m1", "alice"), entry("unheard of", "alice"), entry("", "alice")]));
    assert_eq!(state.stats().responses, 1);
    let (_, effects) = receive(&mut state, &packet("m2", 2, &[]));
    assert!(effects.meta_changed);
    assert_eq!((state.next_due(), state.meta().incoming_repair.len()), (None, 0));
}

#[test]
fn what_is_kept_of_a_request_does_not_keep_the_packet() {
    let mut state = opened(&options("bob"));
    let large = HistoryEntry { retrieval_hint: vec![7; 4_096].into(), ..entry("m1", "alice") };
    let mut sync = SdsMessage { content: Bytes::new(), ..message("s1", 2, &["m0"]) };
    sync.causal_history.extend([large.clone(), entry("", "alice")]);
    receive(&mut state, &encode(WireFormat::NimSds, &sync));
    let requests = state.meta().outgoing_repair;
    assert_eq!(requests.iter().map(|request| &request.entry).collect::<Vec<_>>(), [&entry("m0", ""), &large]);
    let starts: Vec<_> = requests.iter().map(|request| request.entry.retrieval_hint.as_ptr()).collect();
    let ids: Vec<_> = requests.iter().map(|request| request.entry.message_id.as_bytes().as_ptr()).collect();
    assert!(starts[1] as usize - ids[1] as usize == 2, "an allocation of its own, from its id on");
}

#[test]
fn ch_48_a_restart_keeps_clock_messages_attempts_requests_and_deadlines() {
    let options = ChannelOptions::default().with_participant("bob").with_park_timeout(Some(Duration::from_secs(500)));
    let (mut state, mut stored) = (opened(&options), Stored::default());
    let mut run = |operation: &mut dyn FnMut(&mut ChannelState) -> Effects| {
        let effects = operation(&mut state);
        stored.save(&state, &effects);
    };
    run(&mut |state| state.wrap("m1", "x", NOW).unwrap().1);
    run(&mut |state| state.receive(&by("alice", "a1"), NOW + 1).unwrap().1);
    run(&mut |state| state.receive(&packet("p", 9, &["gone", "m1", "a1"]), NOW + 2).unwrap().1);
    run(&mut |state| state.wrap("m2", "x", NOW + 3).unwrap().1);
    run(&mut |state| tick(state, NOW + 60 * SECOND));
    run(&mut |state| tick(state, NOW + 120 * SECOND));
    run(&mut |state| state.receive(&asking("s", &[entry("a1", "alice")]), NOW + 121 * SECOND).unwrap().1);
    let meta = state.meta();
    assert_eq!(meta.outgoing.iter().map(|m| m.resend_attempts).collect::<Vec<_>>(), [1]);
    assert_eq!((meta.incoming.len(), meta.outgoing_repair.len(), meta.incoming_repair.len()), (1, 1, 1));

    // Up again after a second, with a monotonic clock that begins at 5.
    let begin = Now::new(NOW + 122 * SECOND, 5);
    let (mut again, effects) = stored.load_at(&options, begin);
    assert!(effects.saves_nothing(), "{effects:?}");
    assert_eq!((told(&effects), again.meta()), (vec!["missing p: gone".to_owned()], meta.clone()));
    assert_eq!(again.history(), state.history());
    let at = |unix_ms: i64| Now::new(unix_ms, unix_ms - begin.unix_ms + 5);
    // Each deadline is where it was, at the next sweep that counts from the opening.
    let mut log = Vec::new();
    while let Some(due) = again.next_due().filter(|due| *due < 500 * SECOND) {
        let now = at(due - 5 + begin.unix_ms);
        let events = told(&again.tick(now, || MessageId::from(format!("s{due}"))));
        log.extend(events.into_iter().filter(|event| event != "sync").map(|event| (due - 5, event)));
    }
    let sweep = |deadline: i64, interval: i64| (deadline - 122 * SECOND + interval - 1) / interval * interval;
    let first = meta.outgoing[0].send_time_ms - NOW + 60 * SECOND;
    let mut expected = vec![
        (sweep(first, 60 * SECOND), "resend m2 2".to_owned()),
        (sweep(first, 60 * SECOND) + 60 * SECOND, "resend m2 3".to_owned()),
        (sweep(meta.incoming_repair[0].due_ms - NOW, 5 * SECOND), "repair a1".to_owned()),
        (sweep(2 + 500 * SECOND, 60 * SECOND), "expired p".to_owned()),
    ];
    expected.extend((2..=3).map(|i| {
        let event = if i < 3 { format!("resend m2 {}", i + 2) } else { "resend m2 5".to_owned() };
        (sweep(first, 60 * SECOND) + i * 60 * SECOND, event)
    }));
    expected.push((sweep(first, 60 * SECOND) + 4 * 60 * SECOND, "lost m2".to_owned()));
    expected.sort();
    log.sort();
    assert_eq!(log, expected);
}

#[test]
fn ch_48_a_wall_clock_that_was_set_in_between_neither_strands_nor_floods() {
    let options = options("bob");
    let (mut state, mut stored) = (opened(&options), Stored::default());
    for id in ["m1", "m2"] {
        let (_, effects) = state.wrap(id, "x", NOW).unwrap();
        stored.save(&state, &effects);
    }
    let (_, effects) = receive(&mut state, &packet("p", 9, &["gone"]));
    stored.save(&state, &effects);
    let year = 365 * 86_400 * SECOND;
    for step in [-year, year] {
        let (mut again, _) = stored.load_at(&options, Now::new(NOW + step, 0));
        let log: Vec<_> = std::iter::from_fn(|| {
            let due = again.next_due().filter(|due| *due <= 120 * SECOND)?;
            Some((due / SECOND, told(&again.tick(Now::new(NOW + step + due, due), || unreachable!())).join(", ")))
        })
        .filter(|(_, told)| !told.is_empty())
        .collect();
        let rounds = [(60, "resend m1 1, resend m2 1"), (120, "resend m1 2, resend m2 2")];
        assert_eq!(log, rounds.map(|(time, told)| (time, told.to_owned())), "{step}");
        let later = 120 * SECOND + wait("bob", "gone");
        let request = again.sync_message("s", Now::new(NOW + step + later, later)).unwrap().0;
        let asked = !decoded(&request).repair_request.is_empty();
        assert_eq!(asked, step < 0, "a year later the request has ended, a year earlier it is due within its wait");
    }
}
