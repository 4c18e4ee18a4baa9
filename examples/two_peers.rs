//! Two peers talk over a link that drops, duplicates, delays and reorders their packets; one of them is restarted in
//! between. Every message is delivered exactly once on the other side, after everything that it refers to.
//!
//! `cargo run --example two_peers`
#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic, reason = "an example that tells its story")]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::channel::{ChannelDelivery, ChannelEvents};
use ractor_persistence::sds::ChannelEvent;
use ractor_persistence::{Channel, ChannelOptions, Durability, Result, Store};

const MESSAGES: usize = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut alice = Peer::start("alice", folder.path()).await?;
    let mut bob = Peer::start("bob", folder.path()).await?;
    let (mut to_bob, mut to_alice) = (Link::new(1), Link::new(2));
    let mut chatter = 0;

    for tick in 0.. {
        assert!(tick < 10_000, "the conversation does not come to an end");
        if tick < 2 * MESSAGES {
            let (peer, link) = if tick % 3 == 0 { (&mut bob, &mut to_alice) } else { (&mut alice, &mut to_bob) };
            link.send(peer.say(&format!("message {tick}")).await?);
        }
        if tick == MESSAGES {
            // Bob's process ends and comes back. What he parked, sent and delivered is on disk; the link holds the rest.
            bob = bob.restart(folder.path()).await?;
        }
        if tick % 5 == 0 {
            // The link may have dropped it: what no peer has shown to have is sent again, as it was.
            alice.unacknowledged.values().for_each(|bytes| to_bob.send(bytes.clone()));
            bob.unacknowledged.values().for_each(|bytes| to_alice.send(bytes.clone()));
        }
        bob.listen(to_bob.due()).await?;
        alice.listen(to_alice.due()).await?;

        let all_said = tick >= 2 * MESSAGES;
        let all_heard = alice.said == bob.heard() && bob.said == alice.heard();
        if all_said && all_heard && alice.is_acknowledged() && bob.is_acknowledged() {
            break;
        }
        if all_said && all_heard && tick % 20 == 0 {
            // A message is acknowledged by what its receiver says later, so somebody has to say something. The last words
            // of all can never be: nobody answers them.
            chatter += 1;
            to_alice.send(bob.say(&format!("chatter {chatter}")).await?);
            to_bob.send(alice.say(&format!("chatter {chatter}")).await?);
        }
    }

    for peer in [&alice, &bob] {
        assert_eq!(peer.delivered.len(), peer.heard().len(), "{}: something was delivered twice", peer.name);
        peer.check_causal_order();
    }
    let (at_alice, at_bob) = (alice.room.history().await?, bob.room.history().await?);
    let ids = |history: &[_]| {
        history
            .iter()
            .map(|message: &std::sync::Arc<ractor_persistence::sds::SdsMessage>| message.message_id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&at_alice), ids(&at_bob), "both remember the same conversation");
    println!("{} messages, each delivered once and after its causes, to both", at_alice.len());
    println!(
        "the link dropped {} packets and doubled {}",
        to_bob.dropped + to_alice.dropped,
        to_bob.doubled + to_alice.doubled
    );

    assert!(alice.store.stop().await?.unsaved.is_empty());
    assert!(bob.store.stop().await?.unsaved.is_empty());
    Ok(())
}

/// One side: a store on a file of its own, with a channel.
struct Peer {
    name: &'static str,
    store: Store,
    room: Channel,
    events: ChannelEvents,
    /// What was sent and not acknowledged yet, by id.
    unacknowledged: BTreeMap<String, Vec<u8>>,
    /// What this side has said.
    said: HashSet<String>,
    /// What was delivered to it, in order: id and the ids that it refers to.
    delivered: Vec<(String, Vec<String>)>,
}

impl Peer {
    async fn start(name: &'static str, folder: &Path) -> Result<Self> {
        let file: PathBuf = folder.join(format!("{name}.redb"));
        let store = Store::builder(name).adapter(RedbAdapter::open(file).await?).start().await?;
        // Subscribed before the channel opens, so that what opening releases is heard too.
        let events = store.subscribe_channel("room")?;
        // Answers and events come after the commit that holds what they tell: nothing is delivered twice, ever.
        let options = ChannelOptions::default().with_participant(name).with_durability(Durability::Fsync);
        let room = store.open_channel("room", options).await?;
        let (unacknowledged, said, delivered) = Default::default();
        Ok(Self { name, store, room, events, unacknowledged, said, delivered })
    }

    async fn restart(self, folder: &Path) -> Result<Self> {
        assert!(self.store.stop().await?.unsaved.is_empty());
        let again = Self::start(self.name, folder).await?;
        let Self { unacknowledged, said, delivered, .. } = self;
        Ok(Self { unacknowledged, said, delivered, ..again })
    }

    async fn say(&mut self, text: &str) -> Result<Vec<u8>> {
        let id = format!("{}: {text}", self.name);
        let bytes = self.room.wrap(id.clone(), text.to_owned()).await?.to_vec();
        self.said.insert(id.clone());
        self.unacknowledged.insert(id, bytes.clone());
        Ok(bytes)
    }

    async fn listen(&mut self, packets: Vec<Vec<u8>>) -> Result<()> {
        for packet in packets {
            self.room.receive(packet).await?;
        }
        while let Some(delivery) = self.events.try_recv() {
            match delivery {
                ChannelDelivery::Event(ChannelEvent::Ready { message }) => {
                    let causes = message.causal_history.iter().map(|entry| entry.message_id.to_string()).collect();
                    self.delivered.push((message.message_id.to_string(), causes));
                }
                ChannelDelivery::Event(ChannelEvent::Sent { id, .. }) => {
                    self.unacknowledged.remove(&id.to_string());
                }
                ChannelDelivery::Event(_) => {}
                ChannelDelivery::Lagged(missed) => panic!("{missed} events were missed"),
            }
        }
        Ok(())
    }

    fn heard(&self) -> HashSet<String> {
        self.delivered.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Whether all but the chatter at the end is known to have arrived.
    fn is_acknowledged(&self) -> bool {
        self.unacknowledged.keys().all(|id| id.contains("chatter"))
    }

    fn check_causal_order(&self) {
        let mut known = self.said.clone();
        for (id, causes) in &self.delivered {
            for cause in causes {
                assert!(known.contains(cause), "{}: {id:?} was delivered before its cause {cause:?}", self.name);
            }
            known.insert(id.clone());
        }
    }
}

/// A link that drops a quarter of all packets, doubles a quarter, and delays each by up to 12 ticks, so that they overtake
/// one another.
struct Link {
    random: u64,
    now: u64,
    under_way: Vec<(u64, Vec<u8>)>,
    dropped: usize,
    doubled: usize,
}

impl Link {
    fn new(seed: u64) -> Self {
        Self { random: seed, now: 0, under_way: Vec::new(), dropped: 0, doubled: 0 }
    }

    /// SplitMix64 (S. Vigna, 2015): the same on every run.
    fn draw(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn send(&mut self, packet: Vec<u8>) {
        let copies = match self.draw(4) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        self.dropped += usize::from(copies == 0);
        self.doubled += usize::from(copies == 2);
        for _ in 0..copies {
            let at = self.now + self.draw(12);
            self.under_way.push((at, packet.clone()));
        }
    }

    /// What arrives at this tick.
    fn due(&mut self) -> Vec<Vec<u8>> {
        let now = self.now;
        self.now += 1;
        self.under_way.extract_if(.., |(at, _)| *at <= now).map(|(_, packet)| packet).collect()
    }
}
