//! The network, its time, and what befalls the peers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;

use super::peer::{Peer, Saving};
use crate::base::name::MessageId;
use crate::sds::{BloomAck, ChannelEvent, ChannelOptions, ClockUnit, LostReason, WireFormat};

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn ms(&mut self, bound: i64) -> i64 {
        i64::try_from(self.below(bound.unsigned_abs())).unwrap()
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrive {
        to: usize,
        bytes: Bytes,
    },
    Wake {
        peer: usize,
        life: u64,
    },
    Write {
        peer: usize,
    },
    Hint {
        peer: usize,
    },
    Save {
        peer: usize,
    },
    Crash {
        peer: usize,
    },
    Restart {
        peer: usize,
    },
    /// Peers of different bits do not hear each other.
    Part {
        sides: u64,
    },
    Heal,
    /// Looks whether all is well.
    Check,
}

#[derive(Clone, Copy)]
struct Trouble {
    loss: u64,
    repeats: u64,
    delay_ms: i64,
    /// Of 1,000 operations, so many end in a crash.
    crashes: u64,
}

pub(super) struct World {
    chance: Chance,
    peers: Vec<Peer>,
    now_ms: i64,
    count: u64,
    agenda: BinaryHeap<Reverse<(i64, u64, Happening)>>,
    trouble: Trouble,
    sides: u64,
    healed: bool,
    /// How many packets of 100 come back to their sender: some transports echo.
    echoes: u64,
    /// Histories forget, so that not every message can be had by everybody.
    forgetful: bool,
    /// By message: whose application got it, as bits.
    reached: HashMap<MessageId, u64>,
    /// Own messages of which was told what became of them.
    told: HashSet<MessageId>,
    /// When all was well for the first time.
    well_ms: Option<i64>,
}

const SECOND: i64 = 1_000;
const CHAOS: i64 = 120 * SECOND;
/// It is not well after this time of healing: something is stuck.
const PATIENCE: i64 = 12 * 3_600 * SECOND;
/// Who still waits after this time of healing for what nobody has gives it up.
const FORGOTTEN: i64 = 600 * SECOND;
/// Nothing may be delivered once more in this time.
const AFTERMATH: i64 = 120 * SECOND;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    fn new(chance: Chance, peers: Vec<Peer>, trouble: Trouble) -> Self {
        Self {
            chance,
            peers,
            now_ms: 0,
            count: 0,
            agenda: BinaryHeap::new(),
            trouble,
            sides: 0,
            healed: false,
            echoes: 5,
            forgetful: false,
            reached: HashMap::new(),
            told: HashSet::new(),
            well_ms: None,
        }
    }

    /// Two peers that both send, over a link that never gets better.
    pub(super) fn lossy(seed: u64) -> Self {
        let named = |name| ChannelOptions::default().with_participant(name);
        Self::pair(Chance(seed), [named("alice"), named("bob")])
    }

    /// The same without repair: all that helps is that what is not acknowledged is sent again. So what is told as sent has
    /// to be, however much of what they say comes back to them.
    pub(super) fn nameless(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let options = ChannelOptions::default()
            .with_wire(chance.of(&[WireFormat::NimSds, WireFormat::Rfc]))
            .with_clock_unit(chance.of(&[ClockUnit::Seconds, ClockUnit::Milliseconds]))
            .with_bloom_ack(chance.of(&[BloomAck::Accept, BloomAck::Hint]))
            .with_resend_interval(secs(chance.of(&[3, 10])))
            .with_max_resend_attempts(1_000)
            .with_buffer_sweep_interval(secs(1))
            .with_sync_interval(Some(secs(chance.of(&[5, 20]))));
        let echoes = chance.of(&[5, 50]);
        let mut world = Self::pair(chance, [options.clone(), options]);
        world.echoes = echoes;
        world
    }

    fn pair(chance: Chance, options: [ChannelOptions; 2]) -> Self {
        let peers = options.map(|options| Peer::new(options, Saving::Durable, 0)).into();
        let trouble = Trouble { loss: 50, repeats: 0, delay_ms: 500, crashes: 0 };
        let mut world = Self::new(chance, peers, trouble);
        for _ in 0..30 {
            let (at, peer) = (world.chance.ms(CHAOS), world.chance.of(&[0, 1]));
            world.plan(at, Happening::Write { peer });
        }
        world.healed = true;
        world.plan(CHAOS, Happening::Check);
        world
    }

    /// Everything at once, until it heals.
    pub(super) fn chaotic(seed: u64) -> Self {
        Self::chaotic_with(seed, |options| options)
    }

    /// The same with histories that keep less than is said, and nobody who crashes and thereby forgets that he had what
    /// his history has not.
    pub(super) fn forgetful(seed: u64) -> Self {
        // Drawn apart from what the seed means otherwise.
        let mut more = Chance(!seed);
        let (kept, named, asked) = (more.of(&[1, 4, 15]), more.of(&[0, 1, 10]), more.of(&[1, 3]));
        let mut world = Self::chaotic_with(seed, |options| {
            // Who is named few causes at a time has to park all that he missed.
            let options = options.with_max_history(kept).with_max_causal_history(named).with_max_parked(1_000);
            // What only others than the author's group still have is answered by nobody.
            options.with_max_repair_requests(asked).with_max_missing(10_000).with_response_groups(1)
        });
        world.trouble.crashes = 0;
        world.agenda.retain(|Reverse((.., happening))| !matches!(happening, Happening::Crash { .. }));
        Self { echoes: more.of(&[0, 5, 50]), forgetful: true, ..world }
    }

    fn chaotic_with(seed: u64, change: impl FnOnce(ChannelOptions) -> ChannelOptions) -> Self {
        let mut chance = Chance(seed);
        let saving = chance.of(&[Saving::Durable, Saving::Lazy]);
        let count = 3 + chance.below(6);
        let mut options = ChannelOptions::default()
            .with_wire(chance.of(&[WireFormat::NimSds, WireFormat::Rfc]))
            .with_clock_unit(chance.of(&[ClockUnit::Seconds, ClockUnit::Milliseconds]))
            .with_bloom_ack(chance.of(&[BloomAck::Accept, BloomAck::Hint]))
            .with_bloom_capacity(chance.of(&[20, 200]))
            // Every message is named by those that follow, so that nobody who misses one fails to hear of it.
            .with_max_causal_history(100)
            .with_resend_interval(secs(chance.of(&[3, 10])))
            .with_max_resend_attempts(chance.of(&[0, 2, 5]))
            .with_buffer_sweep_interval(secs(chance.of(&[1, 5])))
            .with_repair_sweep_interval(secs(chance.of(&[1, 3])))
            .with_sync_interval(Some(secs(chance.of(&[5, 20]))))
            .with_repair_t_min(secs(chance.of(&[0, 2])))
            // Requests travel with messages, so they have to outlast the silence between them.
            .with_repair_t_max(secs(chance.of(&[30, 60])))
            .with_park_timeout(chance.of(&[None, Some(secs(15))]))
            .with_max_parked(chance.of(&[8, 1_000]))
            .with_max_missing(chance.of(&[20, 10_000]))
            .with_max_requests(chance.of(&[6, 1_000]))
            .with_max_responses(chance.of(&[4, 256]));
        // Only the author's group answers. An author that has forgotten a message may be alone in its group.
        if saving == Saving::Durable {
            options.response_groups = chance.of(&[1, 3]);
        }
        let options = change(options);
        let peers = (0..count)
            .map(|number| {
                let offset_ms = chance.ms(20 * SECOND) - 10 * SECOND;
                Peer::new(options.clone().with_participant(format!("peer {number}")), saving, offset_ms)
            })
            .collect();
        let trouble = Trouble {
            loss: chance.of(&[5, 30, 60]),
            repeats: chance.of(&[0, 20]),
            delay_ms: chance.of(&[100, 5 * SECOND, 30 * SECOND]),
            crashes: chance.of(&[0, 5, 40]),
        };
        let mut world = Self::new(chance, peers, trouble);
        for _ in 0..20 + world.chance.below(40) {
            let (at, peer) = (world.chance.ms(CHAOS), world.anyone());
            world.plan(at, Happening::Write { peer });
        }
        for _ in 0..world.chance.below(6) {
            let (at, sides) = (world.chance.ms(CHAOS), world.chance.next());
            world.plan(at, Happening::Part { sides });
            let until = at + world.chance.ms(40 * SECOND);
            world.plan(until, Happening::Part { sides: 0 });
        }
        for _ in 0..10 {
            let (at, peer) = (world.chance.ms(CHAOS), world.anyone());
            world.plan(at, Happening::Hint { peer });
            if world.trouble.crashes > 0 {
                let (at, peer) = (world.chance.ms(CHAOS), world.anyone());
                world.plan(at, Happening::Crash { peer });
            }
        }
        world.plan(CHAOS, Happening::Heal);
        world.plan(CHAOS + SECOND, Happening::Check);
        world
    }

    fn anyone(&mut self) -> usize {
        usize::try_from(self.chance.below(self.peers.len() as u64)).unwrap()
    }

    fn plan(&mut self, at_ms: i64, happening: Happening) {
        self.count += 1;
        self.agenda.push(Reverse((at_ms, self.count, happening)));
    }

    pub(super) fn run(mut self) {
        while let Some(Reverse((at_ms, _, happening))) = self.agenda.pop() {
            assert!(at_ms >= self.now_ms && self.count < 3_000_000, "it never comes to rest");
            self.now_ms = at_ms;
            match happening {
                Happening::Arrive { to, bytes } => self.arrive(to, &bytes),
                Happening::Wake { peer, life } => self.wake(peer, life),
                Happening::Write { peer } => self.write(peer),
                Happening::Hint { peer } => self.hint(peer),
                Happening::Save { peer } => self.peers[peer].save(),
                Happening::Crash { peer } => self.crash(peer),
                Happening::Restart { peer } => self.restart(peer),
                Happening::Part { sides } => self.sides = if self.healed { 0 } else { sides },
                Happening::Heal => self.heal(),
                Happening::Check if self.check() => return,
                Happening::Check => self.plan(at_ms + 10 * SECOND, Happening::Check),
            }
        }
        panic!("everybody has fallen silent before all was well");
    }

    fn heal(&mut self) {
        self.healed = true;
        self.sides = 0;
        self.trouble = Trouble { loss: 0, repeats: 0, delay_ms: 100, crashes: 0 };
        for peer in 0..self.peers.len() {
            if self.peers[peer].state.is_none() {
                self.restart(peer);
            }
        }
    }

    /// Whether all has been well for long enough.
    fn check(&mut self) -> bool {
        let all: HashSet<MessageId> = self.peers.iter().flat_map(|peer| peer.has_taken().iter().cloned()).collect();
        let settled = |peer: &Peer| peer.is_settled() && (self.forgetful || *peer.has_taken() == all);
        let well = self.peers.iter().all(settled);
        if !well {
            // Who never heard of a message may hear of it late, where few are named.
            assert!(self.forgetful || self.well_ms.is_none(), "all was well, and is not any more");
            self.well_ms = None;
            if self.now_ms > CHAOS + PATIENCE {
                for peer in &self.peers {
                    let state = peer.state.as_ref().unwrap();
                    let lacks: Vec<_> = all.difference(peer.has_taken()).collect();
                    eprintln!("{:?}: {:?}, lacks {lacks:?}", peer.options.participant, state.stats());
                }
                panic!("not well after half a day of peace");
            }
            self.give_up();
            return false;
        }
        let since = *self.well_ms.get_or_insert(self.now_ms);
        if self.now_ms < since + AFTERMATH {
            return false;
        }
        assert!(!all.is_empty());
        let histories: Vec<_> = self.peers.iter().map(|peer| peer.state.as_ref().unwrap().history()).collect();
        assert!(self.forgetful || histories.windows(2).all(|pair| pair[0] == pair[1]), "histories differ");
        true
    }

    /// What its author forgot in a crash before anybody had it is nowhere; whoever waits for it has to waive it.
    fn give_up(&mut self) {
        if self.now_ms < CHAOS + FORGOTTEN {
            return;
        }
        let held: HashSet<MessageId> = self.peers.iter().flat_map(|peer| peer.holds(self.forgetful)).collect();
        for peer in 0..self.peers.len() {
            let hopeless = self.peers[peer].hopeless(&held);
            if !hopeless.is_empty() {
                assert!(self.forgetful || self.peers[peer].saving == Saving::Lazy, "{hopeless:?} was lost");
                let effects = self.peers[peer].waive(hopeless, self.now_ms);
                self.settle(peer, effects, None);
            }
        }
    }

    /// One operation: changes, saves, answers and events, with a crash in between or not.
    fn settle(&mut self, peer: usize, effects: crate::sds::Effects, packet: Option<Bytes>) {
        let crash = (!self.healed && self.chance.below(1_000) < self.trouble.crashes).then(|| self.chance.below(2));
        let it = &mut self.peers[peer];
        let saving = it.saving;
        let own = packet.as_ref().and_then(|_| {
            it.state
                .as_ref()
                .unwrap()
                .history()
                .into_iter()
                .find(|message| message.message_id.as_bytes() == format!("{peer}-{}", it.wrapped).as_bytes())
        });
        let events = it.settle(effects);
        if saving == Saving::Durable {
            // Before or after the commit, and before anything gets out.
            if crash == Some(0) {
                return self.crash(peer);
            }
            it.save();
            if crash == Some(1) {
                return self.crash(peer);
            }
        }
        if let Some(own) = own {
            it.take(crate::sds::SdsMessage::clone(&own));
        }
        it.consume(&events);
        self.hear(peer, &events);
        if let Some(bytes) = packet {
            self.broadcast(peer, &bytes);
        }
        for event in events {
            if let ChannelEvent::Sync { bytes, .. }
            | ChannelEvent::Repair { bytes, .. }
            | ChannelEvent::Resend { bytes, .. } = event
            {
                self.broadcast(peer, &bytes);
            }
        }
        if saving == Saving::Lazy {
            if crash.is_some() {
                return self.crash(peer);
            }
            let at_ms = self.now_ms + self.chance.ms(10 * SECOND);
            self.plan(at_ms, Happening::Save { peer });
        }
        self.arm(peer);
    }

    /// Nothing is told as sent for certain that nobody else got, and nothing is told twice by those who forget nothing.
    fn hear(&mut self, peer: usize, events: &[ChannelEvent]) {
        for event in events {
            match event {
                ChannelEvent::Ready { message } => {
                    *self.reached.entry(message.message_id.clone()).or_default() |= 1 << peer;
                }
                ChannelEvent::Sent { id, .. } | ChannelEvent::Lost { id, reason: LostReason::Unacknowledged } => {
                    let others = self.reached.get(id).is_some_and(|peers| peers & !(1 << peer) != 0);
                    assert!(others || !matches!(event, ChannelEvent::Sent { certain: true, .. }), "nobody has {id}");
                    let once = self.told.insert(id.clone()) || self.peers[peer].saving == Saving::Lazy;
                    assert!(once, "what became of {id} is told twice");
                }
                _ => {}
            }
        }
    }

    fn broadcast(&mut self, from: usize, bytes: &Bytes) {
        for to in 0..self.peers.len() {
            let apart = (self.sides >> from ^ self.sides >> to) & 1 == 1;
            if apart || (to == from && !self.chance.percent(self.echoes)) {
                continue;
            }
            while !self.chance.percent(self.trouble.loss) {
                let at_ms = self.now_ms + 1 + self.chance.ms(self.trouble.delay_ms);
                self.plan(at_ms, Happening::Arrive { to, bytes: bytes.clone() });
                if !self.chance.percent(self.trouble.repeats) {
                    break;
                }
            }
        }
    }

    fn arrive(&mut self, to: usize, bytes: &Bytes) {
        let now = self.peers[to].now(self.now_ms);
        let Some(state) = &mut self.peers[to].state else { return };
        match state.receive(bytes, now) {
            Ok((_, effects)) => self.settle(to, effects, None),
            Err(crate::base::error::Error::ParkedFull { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn write(&mut self, peer: usize) {
        let it = &mut self.peers[peer];
        let now = it.now(self.now_ms);
        let Some(state) = &mut it.state else { return };
        it.wrapped += 1;
        let id = format!("{peer}-{}", it.wrapped);
        let (bytes, effects) = state.wrap(id.clone(), id, now).unwrap();
        self.settle(peer, effects, Some(bytes));
    }

    fn hint(&mut self, peer: usize) {
        let Some(state) = &mut self.peers[peer].state else { return };
        if let Some(last) = state.history().last().map(|message| message.message_id.clone()) {
            let (_, effects) = state.set_hint(last, "where").unwrap();
            self.settle(peer, effects, None);
        }
    }

    fn wake(&mut self, peer: usize, life: u64) {
        let it = &mut self.peers[peer];
        let now = it.now(self.now_ms);
        if it.life != life || it.state.is_none() || it.next_due().is_none_or(|due| due > self.now_ms) {
            return;
        }
        it.wake_ms = None;
        let fresh = MessageId::from(format!("sync {peer} {life} {}", self.now_ms));
        let effects = it.state.as_mut().unwrap().tick(now, || fresh);
        let done = it.next_due().is_none_or(|due| due > self.now_ms);
        assert!(done || !effects.events.is_empty(), "it spins");
        self.settle(peer, effects, None);
    }

    fn arm(&mut self, peer: usize) {
        let it = &mut self.peers[peer];
        let (due, life) = (it.next_due(), it.life);
        if due == it.wake_ms {
            return;
        }
        it.wake_ms = due;
        if let Some(due) = due {
            let late = if self.chance.percent(20) { self.chance.ms(3 * SECOND) } else { 0 };
            self.plan(due.max(self.now_ms) + late, Happening::Wake { peer, life });
        }
    }

    fn crash(&mut self, peer: usize) {
        if self.peers[peer].state.is_none() || self.healed {
            return;
        }
        self.peers[peer].crash();
        let at_ms = self.now_ms + self.chance.ms(20 * SECOND);
        self.plan(at_ms, Happening::Restart { peer });
    }

    fn restart(&mut self, peer: usize) {
        if self.peers[peer].state.is_some() {
            return;
        }
        // Somebody may have set its clock meanwhile.
        if self.chance.percent(30) {
            self.peers[peer].offset_ms += self.chance.ms(600 * SECOND) - 300 * SECOND;
        }
        let events = self.peers[peer].start(self.now_ms);
        self.hear(peer, &events);
        // What was committed before the crash reaches the application now.
        for message in self.peers[peer].has_taken() {
            *self.reached.entry(message.clone()).or_default() |= 1 << peer;
        }
        self.arm(peer);
    }
}
