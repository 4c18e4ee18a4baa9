//! Properties against plain models.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{NOW, Stored, channel, message, room, tick, told};
use crate::base::error::Result;
use crate::base::name::{ChannelId, MessageId};
use crate::sds::{
    BloomAck, ChannelEvent, ChannelOptions, ChannelState, ClockUnit, Effects, HistoryEntry, ReceiveStatus, SdsMessage,
    WireFormat, encode,
};

/// A message in words: its number is its place in the graph.
#[derive(Clone, Debug)]
struct Node {
    timestamp: i64,
    causes: Vec<usize>,
}

fn name(number: usize) -> String {
    format!("m{number:02}")
}

/// Any graph: causes are usually earlier messages, sometimes later ones, so that there are circles, or the message itself.
fn graph() -> impl Strategy<Value = Vec<Node>> {
    vec((0_i64..6, vec((any::<Index>(), 0_u8..20), 0..4)), 1..24).prop_map(|nodes| {
        let count = nodes.len();
        let node = |(own, (timestamp, causes)): (usize, (i64, Vec<(Index, u8)>))| {
            let cause = |(index, kind): (Index, u8)| match kind {
                0 => Some(index.index(count)),
                _ if own > 0 => Some(index.index(own)),
                _ => None,
            };
            Node { timestamp, causes: causes.into_iter().filter_map(cause).collect() }
        };
        nodes.into_iter().enumerate().map(node).collect()
    })
}

/// The rule in its plainest form: as long as some message has arrived, is not delivered, and has all its causes known, the
/// smallest of them by (timestamp, id) is delivered.
#[derive(Default)]
struct Model {
    arrived: BTreeSet<(i64, String, usize)>,
    known: BTreeSet<usize>,
    delivered: Vec<String>,
}

impl Model {
    fn settle(&mut self, graph: &[Node]) {
        let next = |model: &Self| {
            let ready = |&&(_, _, number): &&(i64, String, usize)| {
                graph[number].causes.iter().all(|cause| *cause == number || model.known.contains(cause))
            };
            model.arrived.iter().find(ready).cloned()
        };
        while let Some(first) = next(self) {
            self.arrived.remove(&first);
            self.known.insert(first.2);
            self.delivered.push(first.1);
        }
    }
}

fn ready(effects: &Effects) -> Vec<String> {
    let ready = |event: &ChannelEvent| match event {
        ChannelEvent::Ready { message } => Some(message.message_id.to_string()),
        _ => None,
    };
    effects.events.iter().filter_map(ready).collect()
}

pub(super) fn check_invariants(state: &ChannelState) {
    let mut waited_for = BTreeSet::new();
    let mut bytes = 0;
    for parked in state.parking.iter() {
        let id = &parked.message.message_id;
        assert!(!parked.missing.is_empty() && !parked.missing.contains(id));
        assert!(!state.history.contains(id.as_bytes()));
        assert!(parked.missing.iter().all(|cause| !state.is_known(cause.as_bytes())));
        waited_for.extend(parked.missing.iter().cloned());
        bytes += parked.message.parked_bytes();
    }
    assert_eq!(state.missing(), waited_for.into_iter().collect::<Vec<_>>());
    assert_eq!((state.stats().parked_bytes, state.stats().parked), (bytes, state.parking.iter().count()));
    let meta = state.meta();
    for request in &meta.outgoing_repair {
        let id = request.entry.message_id.as_bytes();
        assert!(!state.is_known(id) && !state.parking.contains(id), "asked for, though it is here");
    }
    assert!(meta.incoming_repair.iter().all(|repair| state.history.contains(repair.entry.message_id.as_bytes())));
    let asked = |id: &MessageId| meta.outgoing_repair.iter().any(|request| request.entry.message_id == *id);
    for id in state.missing().iter().filter(|id| state.repairs_on() && state.parking.wants(id.as_bytes())) {
        let pending = asked(id) || id.is_empty() || state.repairs.unasked.contains(id.as_bytes());
        assert!(pending, "nobody asks for {id}, nor ever will");
    }
    assert!(state.stats().requests <= state.options().max_requests);
    assert!(state.stats().responses <= state.options().max_responses);
    assert!(state.stats().history <= state.options().max_history);
    assert!(state.remembered.len().max(state.synced.len()) <= state.options().max_remembered);
    let history = state.history();
    assert!(history.is_sorted_by_key(|message| (message.lamport_timestamp, message.message_id.clone())));
    assert!(history.iter().all(|message| message.bloom_filter.is_empty() && message.repair_request.is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn ch_16_any_graph_in_any_order_with_copies_is_delivered_once_causes_first(
        graph in graph(), arrivals in vec(any::<Index>(), 0..60), milliseconds in any::<bool>()
    ) {
        let unit = if milliseconds { ClockUnit::Milliseconds } else { ClockUnit::Seconds };
        let mut state = channel(ChannelOptions::default().with_clock_unit(unit));
        let mut model = Model::default();
        // At random with copies, then whatever has not come yet.
        let order = arrivals.iter().map(|index| index.index(graph.len())).chain(0..graph.len());
        let mut came = BTreeSet::new();
        let mut delivered = Vec::new();
        for number in order {
            let node = &graph[number];
            let causes: Vec<_> = node.causes.iter().copied().map(name).collect();
            let causes: Vec<_> = causes.iter().map(String::as_str).collect();
            let bytes = encode(WireFormat::NimSds, &message(&name(number), node.timestamp, &causes));
            let (received, effects) = state.receive(&bytes, NOW).unwrap();

            let copy = !came.insert(number);
            let before = model.delivered.len();
            if !copy {
                model.arrived.insert((node.timestamp, name(number), number));
                model.settle(&graph);
            }
            prop_assert_eq!(ready(&effects), &model.delivered[before..]);
            let expected = match (model.known.contains(&number), copy) {
                (false, _) => ReceiveStatus::Parked,
                (true, true) => ReceiveStatus::Duplicate,
                (true, false) => ReceiveStatus::Delivered,
            };
            prop_assert_eq!(received.status, expected);
            let mut seen = BTreeSet::new();
            let missing: Vec<_> = node.causes.iter()
                .filter(|cause| expected == ReceiveStatus::Parked && !came.contains(cause) && seen.insert(**cause))
                .copied().map(name).collect();
            prop_assert_eq!(super::ids(&received.missing), missing);
            delivered.extend(ready(&effects));
            check_invariants(&state);
        }
        prop_assert_eq!(&delivered, &model.delivered);
        let once: BTreeSet<_> = delivered.iter().collect();
        prop_assert_eq!(once.len(), delivered.len());
        prop_assert_eq!(state.stats().parked, graph.len() - delivered.len());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wrap(usize, u8),
    Hand(usize, Index),
    Forge(usize, Box<SdsMessage>),
    Waive(usize, u8),
    Hint(usize, u8, bool),
    Sync(usize, u8),
    Tick(usize),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0_usize..2;
    let forged = (0_u8..12, 0_i64..9, vec(0_u8..12, 0..4), any::<bool>(), any::<bool>(), vec(0_u8..12, 0..4)).prop_map(
        |(id, timestamp, causes, sync, far, wanted)| {
            let causes: Vec<_> = causes.iter().map(|cause| format!("w{cause}")).collect();
            let causes: Vec<_> = causes.iter().map(String::as_str).collect();
            let timestamp = if far { i64::MAX - timestamp } else { timestamp };
            let mut message = message(&format!("w{id}"), timestamp, &causes);
            if sync {
                message.content = Bytes::new();
            }
            message.sender_id = ["", "alice", "bob", "carol"][usize::from(id) % 4].into();
            message.repair_request = wanted.into_iter().map(|wanted| HistoryEntry::new(format!("w{wanted}"))).collect();
            message
        },
    );
    prop_oneof![
        4 => (peer.clone(), 0_u8..12).prop_map(|(peer, id)| Step::Wrap(peer, id)),
        6 => (peer.clone(), any::<Index>()).prop_map(|(peer, index)| Step::Hand(peer, index)),
        3 => (peer.clone(), forged).prop_map(|(peer, message)| Step::Forge(peer, Box::new(message))),
        1 => (peer.clone(), 0_u8..12).prop_map(|(peer, id)| Step::Waive(peer, id)),
        1 => (peer.clone(), 0_u8..12, any::<bool>()).prop_map(|(peer, id, set)| Step::Hint(peer, id, set)),
        1 => (peer.clone(), 0_u8..12).prop_map(|(peer, id)| Step::Sync(peer, id)),
        3 => peer.clone().prop_map(Step::Tick),
        1 => peer.prop_map(Step::Restart),
    ]
}

impl Step {
    fn peer(&self) -> usize {
        match self {
            Self::Wrap(peer, ..)
            | Self::Hand(peer, ..)
            | Self::Forge(peer, ..)
            | Self::Waive(peer, ..)
            | Self::Hint(peer, ..)
            | Self::Sync(peer, ..)
            | Self::Tick(peer)
            | Self::Restart(peer) => *peer,
        }
    }
}

/// What a step does to its peer, and the packet that comes of it.
fn act(state: &mut ChannelState, step: &Step, packets: &[Bytes], now: i64) -> Result<(Effects, Option<Bytes>)> {
    let with = |(bytes, effects)| (effects, Some(bytes));
    Ok(match step {
        Step::Wrap(_, id) => with(state.wrap(format!("w{id}"), "content", now)?),
        Step::Hand(_, index) if !packets.is_empty() => (state.receive(index.get::<Bytes>(packets), now)?.1, None),
        Step::Forge(_, message) => (state.receive(&encode(WireFormat::NimSds, message), now)?.1, None),
        Step::Waive(_, id) => (state.mark_dependencies_met([format!("w{id}")], now)?, None),
        Step::Hint(_, id, set) => (state.set_hint(format!("w{id}"), if *set { "hint" } else { "" })?.1, None),
        Step::Sync(_, id) => with(state.sync_message(format!("w{id}"), now)?),
        Step::Tick(_) => (tick(state, now), None),
        Step::Hand(..) | Step::Restart(_) => (Effects::default(), None),
    })
}

/// Whether there is a message beyond the clock.
fn looks_ahead(state: &ChannelState) -> bool {
    let clock = state.stats().lamport_timestamp;
    state.history().iter().any(|message| message.lamport_timestamp > clock)
}

/// What is long overdue may come in another order after loading.
fn in_any_order(effects: &Effects) -> (Vec<String>, bool, String) {
    let mut events = told(effects);
    events.sort();
    (events, effects.meta_changed, format!("{:?} {:?}", effects.history, effects.hints))
}

/// The same channel as it comes back from what was saved, with what is not saved: what it remembers, its bloom filter,
/// when its sweeps tick, and in which order it will ask.
fn reloaded(live: &ChannelState, stored: &Stored, options: &ChannelOptions, now: i64) -> ChannelState {
    let (mut twin, effects) = stored.load_at(options, now);
    assert!(effects.saves_nothing() || looks_ahead(live), "nothing to mend in what was saved: {effects:?}");
    let unasked = |state: &ChannelState| {
        let ids = state.repairs.unasked.iter().map(|(id, ())| id.clone());
        ids.filter(|id| state.parking.wants(id.as_bytes())).collect::<BTreeSet<_>>()
    };
    assert_eq!(unasked(&twin), unasked(live), "what is still to be asked for");
    twin.repairs.resemble(&live.repairs);
    twin.clock = live.clock.clone();
    twin.bloom = live.bloom.clone();
    (twin.remembered, twin.synced) = (live.remembered.clone(), live.synced.clone());
    twin.echoes = live.echoes.clone();
    twin.timers = live.timers.clone();
    (twin.blooms_rejected, twin.clock_clamped) = (live.blooms_rejected, live.clock_clamped);
    twin
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    /// Whatever two peers do to each other, under tight limits: an adapter that does what the effects say has all of the
    /// state, a channel loaded from it does at every step what the live one does, what is exported imports as it was, and
    /// refusals change nothing.
    #[test]
    fn what_the_effects_say_is_all_that_changed(
        steps in vec(step(), 1..80), hint in any::<bool>(), milliseconds in any::<bool>(), max_history in 1_usize..6
    ) {
        let options = ChannelOptions::default()
            .with_bloom_capacity(8)
            .with_max_history(max_history)
            .with_max_parked(3)
            .with_max_missing(4)
            .with_max_outgoing(4)
            .with_max_remembered(5)
            .with_max_requests(3)
            .with_max_responses(2)
            .with_max_resend_attempts(2)
            .with_resend_interval(Duration::from_millis(1_500))
            .with_buffer_sweep_interval(Duration::from_secs(1))
            .with_repair_sweep_interval(Duration::from_millis(500))
            .with_sync_interval(Some(Duration::from_secs(3)))
            .with_park_timeout(Some(Duration::from_secs(9)))
            .with_repair_t_min(Duration::from_millis(100))
            .with_repair_t_max(Duration::from_secs(3))
            .with_clock_unit(if milliseconds { ClockUnit::Milliseconds } else { ClockUnit::Seconds })
            .with_bloom_ack(if hint { BloomAck::Hint } else { BloomAck::Accept });
        let options = ["alice", "bob"].map(|peer| options.clone().with_participant(peer));
        let mut peers = options.clone().map(channel);
        let mut stored = [Stored::default(), Stored::default()];
        let mut packets = Vec::new();
        let mut now = NOW;
        for step in steps {
            let peer = step.peer();
            let (options, stored) = (&options[peer], &mut stored[peer]);
            if let Step::Tick(_) = step
                && peers[peer].next_due().is_some_and(|due| due <= now)
            {
                // Loading puts off what is overdue until its next sweep, so nothing is.
                let effects = tick(&mut peers[peer], now);
                stored.save(&peers[peer], &effects);
            }
            let mut twin = reloaded(&peers[peer], stored, options, now);
            now += 700;
            let state = &mut peers[peer];
            if let Step::Restart(_) = step {
                let (loaded, effects) = stored.load_at(options, now);
                let mut meta = state.meta();
                // Of a message from the far future the clock takes another step with every load.
                if looks_ahead(state) {
                    meta.lamport_timestamp = loaded.meta().lamport_timestamp;
                } else {
                    prop_assert!(effects.saves_nothing(), "nothing to mend in what was saved: {:?}", effects);
                }
                prop_assert_eq!(loaded.meta(), meta);
                prop_assert_eq!(loaded.history(), state.history());
                *state = loaded;
                stored.save(state, &effects);
            } else {
                let (before, due) = (state.clone(), state.next_due());
                match (act(state, &step, &packets, now), act(&mut twin, &step, &packets, now)) {
                    (Ok((effects, packet)), Ok((same, _))) => {
                        prop_assert_eq!(in_any_order(&effects), in_any_order(&same), "live and loaded differ");
                        if let Step::Tick(_) = step {
                            if due.is_none_or(|due| due > now) {
                                prop_assert!(effects == Effects::default() && *state == before, "it was not time");
                            }
                            prop_assert!(state.next_due().is_none_or(|due| due > now), "all that was due is done");
                        }
                        packets.extend(packet);
                        packets.extend(effects.events.iter().filter_map(|event| match event {
                            ChannelEvent::Resend { bytes, .. }
                            | ChannelEvent::Repair { bytes, .. }
                            | ChannelEvent::Sync { bytes, .. } => Some(bytes.clone()),
                            _ => None,
                        }));
                        stored.save(state, &effects);
                    }
                    (Err(error), Err(same)) => {
                        prop_assert_eq!(error.to_string(), same.to_string(), "live and loaded differ");
                        prop_assert!(*state == before, "a refusal changed something");
                    }
                    (live, loaded) => prop_assert!(false, "live {live:?}, loaded {loaded:?}"),
                }
                prop_assert_eq!(state.meta(), twin.meta(), "live and loaded differ");
                prop_assert_eq!(state.history(), twin.history(), "live and loaded differ");
            }
            stored.assert_complete(state);
            check_invariants(state);
        }
        for (state, options) in peers.iter().zip(options).filter(|(state, _)| !looks_ahead(state)) {
            let exported = state.export();
            let (imported, _) = ChannelState::import(room(), options, &exported, now).unwrap();
            prop_assert_eq!(imported.export(), exported, "what is imported is what was exported");
        }
    }

    /// Any state and history, of any two moments, however damaged: it loads into something consistent, what that changed
    /// is told, and loading the result again changes nothing.
    #[test]
    fn anything_that_was_saved_loads_into_something_consistent(
        history in vec((0_u8..12, 0_i64..9), 0..12),
        incoming in vec((0_u8..12, 0_i64..9, vec(0_u8..12, 0..4)), 0..8),
        outgoing in vec(0_u8..12, 0..4),
        hints in vec(0_u8..12, 0..4),
        clock in 0_i64..9, max_history in 1_usize..8
    ) {
        let id = |number: u8| format!("w{number}");
        let options = ChannelOptions::default().with_max_history(max_history);
        let mut stored = Stored::default();
        for (number, timestamp) in history {
            stored.messages.insert(id(number).into(), message(&id(number), timestamp, &[]));
        }
        stored.hints = hints.into_iter().map(|number| (id(number).into(), "hint".into())).collect();
        // A parked message has moved the clock that was saved with it.
        stored.data.meta.lamport_timestamp = if incoming.is_empty() { clock } else { 9 };
        for (number, timestamp, causes) in incoming {
            let missing: BTreeSet<MessageId> = causes.into_iter().map(|cause| id(cause).into()).collect();
            let message = message(&id(number), timestamp, &[]);
            stored.data.meta.incoming.push(crate::sds::IncomingMessage { message, missing, parked_at_ms: 1 });
        }
        for number in outgoing {
            let message = message(&id(number), 1, &[]);
            stored.data.meta.outgoing.push(crate::sds::UnacknowledgedMessage { message, ..Default::default() });
        }
        let (state, effects) = stored.load(&options);
        check_invariants(&state);
        stored.save(&state, &effects);
        stored.assert_complete(&state);
        let (again, effects) = stored.load(&options);
        prop_assert!(effects.saves_nothing(), "{:?}", effects);
        prop_assert_eq!(again.meta(), state.meta());
    }
}

#[test]
fn channels_of_different_ids_share_nothing() {
    let mut one = ChannelState::new(room(), ChannelOptions::default()).unwrap();
    let mut two = ChannelState::new(ChannelId::new("two").unwrap(), ChannelOptions::default()).unwrap();
    let (bytes, _) = one.wrap("m1", "x", NOW).unwrap();
    two.wrap("m1", "y", NOW).unwrap();
    assert_eq!(super::refused(&mut two, |two| two.receive(&bytes, NOW)), "WrongChannel");
    let contents: BTreeMap<_, _> =
        [("one", one), ("two", two)].map(|(n, c)| (n, c.history()[0].content.clone())).into();
    assert_eq!(contents, [("one", Bytes::from("x")), ("two", Bytes::from("y"))].into());
}
