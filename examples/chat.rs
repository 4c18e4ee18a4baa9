//! Three peers, each a process of its own with a store on redb, chat over TCP on the loopback interface. Their links lose a
//! quarter of all packets, delay the others and thereby reorder them; one peer is killed in the middle, misses a part of
//! the conversation, and is started again on its file. At the end all three have the same history, and each message was
//! delivered to each of them once, after its causes.
//!
//! `cargo run --release --example chat`
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "an example that tells its story")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::channel::ChannelDelivery;
use ractor_persistence::sds::{ChannelEvent, SdsMessage};
use ractor_persistence::{ChannelOptions, Durability, Result, Store};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const PEERS: [&str; 3] = ["alice", "bob", "carol"];
/// How many messages each peer says, and how often.
const MESSAGES: usize = 12;
const EVERY: Duration = Duration::from_millis(250);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["peer", name, folder] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(peer(name, Path::new(folder))).unwrap();
        }
        _ => director(),
    }
}

// ---- a peer: a store, a channel, and links that are not to be relied on

/// What a peer does: it says what it has to say, sends what the channel wants sent, and writes down what happens.
async fn peer(name: &str, folder: &Path) -> Result<()> {
    let (mut packets, port) = listen();
    let mut commands = read_commands();
    let store =
        Store::builder(name).adapter(RedbAdapter::open(folder.join(format!("{name}.redb"))).await?).start().await?;
    let mut events = store.subscribe_channel("chat")?;
    // Nothing leaves before it is saved, so that a kill takes nothing back and nothing is delivered twice. The intervals
    // are short, for an example.
    let options = ChannelOptions::default()
        .with_participant(name)
        .with_durability(Durability::Fsync)
        .with_resend_interval(Duration::from_millis(400))
        .with_max_resend_attempts(1_000)
        .with_buffer_sweep_interval(Duration::from_millis(100))
        .with_sync_interval(Some(Duration::from_millis(300)))
        .with_repair_sweep_interval(Duration::from_millis(50))
        .with_repair_t_min(Duration::from_millis(100))
        .with_repair_t_max(Duration::from_millis(500));
    let chat = store.open_channel("chat", options).await?;
    // What was delivered before a kill is in the history, whether or not anybody had been told.
    for message in chat.history().await? {
        println!("known {}", message.message_id);
    }
    println!("port {port}");

    let mut links: BTreeMap<String, Link> = BTreeMap::new();
    let mut said = chat.history().await?.iter().filter(|message| message.sender_id == name).count();
    let mut time_to_say = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            Some(packet) = packets.recv() => {
                chat.receive(packet).await?;
            }
            Some(delivery) = events.recv() => match delivery {
                ChannelDelivery::Event(event) => heard(event, &links),
                ChannelDelivery::Lagged(missed) => panic!("{missed} events were missed"),
            },
            _ = time_to_say.tick(), if said < MESSAGES && !links.is_empty() => {
                said += 1;
                let id = format!("{name}-{said}");
                let bytes = chat.wrap(id.as_str(), format!("{name} says {said}")).await?;
                println!("said {id}");
                links.values().for_each(|link| link.send(&bytes));
            }
            command = commands.recv() => {
                let Some(command) = command else { return Ok(()) };
                match command.split(' ').collect::<Vec<_>>()[..] {
                    ["peer", peer, port] => {
                        let link = Link::to(port.parse().unwrap(), name.len() * 31 + peer.len());
                        links.insert(peer.to_owned(), link);
                    }
                    ["report"] => {
                        let history = chat.history().await?;
                        let ids: Vec<String> = history.iter().map(|message| message.message_id.to_string()).collect();
                        println!("report {} {}", chat.stats().await?.unacknowledged, ids.join(","));
                    }
                    _ => {
                        assert!(store.stop().await?.unsaved.is_empty());
                        // What was delivered and not heard yet; nothing comes after it.
                        while let Some(delivery) = events.recv().await {
                            let ChannelDelivery::Event(event) = delivery else { panic!("events were missed") };
                            heard(event, &links);
                        }
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn heard(event: ChannelEvent, links: &BTreeMap<String, Link>) {
    let causes = |message: &SdsMessage| -> Vec<String> {
        message.causal_history.iter().map(|entry| entry.message_id.to_string()).collect()
    };
    match event {
        ChannelEvent::Ready { message } => println!("ready {} {}", message.message_id, causes(&message).join(",")),
        ChannelEvent::Lost { id, .. } => panic!("{id} was given up"),
        ChannelEvent::Resend { id, bytes, .. } => {
            println!("resend {id}");
            links.values().for_each(|link| link.send(&bytes));
        }
        ChannelEvent::Repair { id, bytes } => {
            println!("repair {id}");
            links.values().for_each(|link| link.send(&bytes));
        }
        ChannelEvent::Sync { bytes, .. } => links.values().for_each(|link| link.send(&bytes)),
        // `Sent` and `Missing`; the channel does by itself what they call for.
        _ => {}
    }
}

/// Takes connections, each a row of packets with their lengths before them.
fn listen() -> (UnboundedReceiver<Vec<u8>>, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (packets, received) = unbounded_channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let packets = packets.clone();
            thread::spawn(move || read_packets(stream, &packets));
        }
    });
    (received, port)
}

fn read_packets(mut stream: TcpStream, packets: &UnboundedSender<Vec<u8>>) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        if stream.read_exact(&mut packet).is_err() || packets.send(packet).is_err() {
            return;
        }
    }
}

fn read_commands() -> UnboundedReceiver<String> {
    let (commands, received) = unbounded_channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
            if commands.send(line).is_err() {
                return;
            }
        }
    });
    received
}

/// A link to a peer: it loses a quarter of what it is given, and takes 5 to 150 ms for the rest. What is under way when the
/// connection breaks is lost as well.
struct Link(Sender<Vec<u8>>);

impl Link {
    fn to(port: u16, seed: usize) -> Self {
        let (packets, given) = channel();
        thread::spawn(move || carry(port, &mut Random(seed as u64), &given));
        Self(packets)
    }

    fn send(&self, packet: &[u8]) {
        // A link that has ended loses everything.
        let _lost = self.0.send(packet.to_vec());
    }
}

fn carry(port: u16, random: &mut Random, given: &Receiver<Vec<u8>>) {
    let mut under_way: BinaryHeap<Reverse<(Instant, Vec<u8>)>> = BinaryHeap::new();
    let mut connection: Option<TcpStream> = None;
    loop {
        let next = under_way
            .peek()
            .map_or(Duration::from_secs(60), |Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        match given.recv_timeout(next) {
            Ok(_) if random.below(4) == 0 => {}
            Ok(packet) => {
                let delay = Duration::from_millis(5 + random.below(145));
                under_way.push(Reverse((Instant::now() + delay, packet)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while under_way.peek().is_some_and(|Reverse((at, _))| *at <= Instant::now()) {
            let Some(Reverse((_, packet))) = under_way.pop() else { break };
            if connection.is_none() {
                connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
            }
            let length = u32::try_from(packet.len()).unwrap().to_be_bytes();
            if let Some(stream) = &mut connection
                && stream.write_all(&length).and_then(|()| stream.write_all(&packet)).is_err()
            {
                connection = None;
            }
        }
    }
}

/// SplitMix64 (S. Vigna, 2015).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

// ---- the director: starts the peers, kills one, and checks what they wrote down

struct Running {
    process: Child,
    orders: ChildStdin,
}

impl Running {
    fn start(name: &'static str, folder: &Path, lines: &Sender<(&'static str, String)>) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["peer", name])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (output, orders) = (process.stdout.take().unwrap(), process.stdin.take().unwrap());
        let lines = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                lines.send((name, line)).unwrap();
            }
            // After everything that it wrote.
            lines.send((name, "ended".to_owned())).unwrap();
        });
        Self { process, orders }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }
}

/// What is known of a peer from what it wrote.
#[derive(Default)]
struct Account {
    /// What it has: said, delivered, or found in its history when it started again.
    has: BTreeSet<String>,
    said: usize,
    delivered: usize,
    resends: usize,
    repairs: usize,
    /// Its history at last, once nothing that it said is unacknowledged.
    history: Option<Vec<String>>,
}

impl Account {
    /// Writes a line down and says what to print of it.
    fn note(&mut self, name: &str, line: &str) -> Option<String> {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["said", id] => {
                self.said += 1;
                assert!(self.has.insert(id.to_owned()), "{name} said {id} twice");
                Some(format!("says      {id}"))
            }
            ["ready", id, causes] => {
                self.delivered += 1;
                for cause in causes.split(',').filter(|cause| !cause.is_empty()) {
                    assert!(self.has.contains(cause), "{id} came to {name} before its cause {cause}");
                }
                assert!(self.has.insert(id.to_owned()), "{id} came to {name} twice");
                Some(format!("hears     {id}"))
            }
            ["known", id] => {
                self.has.insert(id.to_owned());
                None
            }
            ["resend", _] => {
                self.resends += 1;
                None
            }
            ["repair", id] => {
                self.repairs += 1;
                Some(format!("repairs   {id}"))
            }
            ["report", unacknowledged, ids] => {
                self.history = (unacknowledged == "0").then(|| ids.split(',').map(str::to_owned).collect());
                None
            }
            _ => panic!("{name} wrote {line:?}"),
        }
    }
}

struct Director {
    begun: Instant,
    folder: tempfile::TempDir,
    peers: BTreeMap<&'static str, Running>,
    ports: BTreeMap<&'static str, String>,
    accounts: BTreeMap<&'static str, Account>,
    lines: Receiver<(&'static str, String)>,
    to_lines: Sender<(&'static str, String)>,
}

impl Director {
    fn tell(&self, name: &str, what: &str) {
        println!("{:>7.3} s  {name:<6} {what}", self.begun.elapsed().as_secs_f64());
    }

    fn start(&mut self, name: &'static str) {
        self.tell(name, "starts");
        let peer = Running::start(name, self.folder.path(), &self.to_lines);
        self.peers.insert(name, peer);
    }

    /// Reads what peers write, for so long or until a peer has ended.
    fn listen(&mut self, time: Duration) -> Option<&'static str> {
        let end = Instant::now() + time;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Err(_) => return None,
                Ok((name, line)) if line == "ended" => return Some(name),
                Ok((name, line)) => match line.strip_prefix("port ") {
                    Some(port) => self.introduce(name, port.to_owned()),
                    None => {
                        if let Some(told) = self.accounts.entry(name).or_default().note(name, &line) {
                            self.tell(name, &told);
                        }
                    }
                },
            }
        }
    }

    /// Tells a peer where the others are, and them where it is.
    fn introduce(&mut self, name: &'static str, port: String) {
        for (other, there) in self.ports.iter().filter(|(other, _)| **other != name) {
            if let Some(peer) = self.peers.get_mut(other) {
                peer.order(&format!("peer {name} {port}"));
                self.peers.get_mut(name).unwrap().order(&format!("peer {other} {there}"));
            }
        }
        self.ports.insert(name, port);
    }
}

fn director() {
    let (to_lines, lines) = channel();
    let mut director = Director {
        begun: Instant::now(),
        folder: tempfile::tempdir().unwrap(),
        peers: BTreeMap::new(),
        ports: BTreeMap::new(),
        accounts: BTreeMap::new(),
        lines,
        to_lines,
    };
    PEERS.into_iter().for_each(|name| director.start(name));
    // Until carol is in the middle of it.
    while director.accounts.get("carol").is_none_or(|carol| carol.said < MESSAGES / 3) {
        assert_eq!(director.listen(Duration::from_millis(50)), None, "a peer ended by itself");
        assert!(director.begun.elapsed() < Duration::from_secs(60), "nobody says anything");
    }
    let mut carol = director.peers.remove("carol").unwrap();
    carol.process.kill().unwrap(); // SIGKILL: nothing is closed, nothing is flushed
    carol.process.wait().unwrap();
    while director.listen(Duration::from_secs(10)) != Some("carol") {}
    director.ports.remove("carol");
    director.tell("carol", "is killed");
    let known_then = director.accounts["carol"].has.clone();
    assert_eq!(director.listen(Duration::from_millis(1_000)), None, "a peer ended by itself");
    director.start("carol");

    // Until everybody has everything and knows that the others have it.
    let all = PEERS.len() * MESSAGES;
    let is_complete = |account: &Account| account.history.as_ref().is_some_and(|history| history.len() == all);
    while director.accounts.len() < PEERS.len() || !director.accounts.values().all(is_complete) {
        assert!(director.begun.elapsed() < Duration::from_secs(60), "the conversation does not come to an end");
        director.peers.values_mut().for_each(|peer| peer.order("report"));
        assert_eq!(director.listen(Duration::from_millis(200)), None, "a peer ended by itself");
    }
    director.peers.values_mut().for_each(|peer| peer.order("stop"));
    // A history may tell of a message before its event has been heard: what peers write until they have ended counts.
    let mut ended = BTreeSet::new();
    while ended.len() < PEERS.len() {
        assert!(director.begun.elapsed() < Duration::from_secs(90), "only {ended:?} have ended");
        ended.extend(director.listen(Duration::from_millis(200)));
    }
    for mut peer in std::mem::take(&mut director.peers).into_values() {
        assert!(peer.process.wait().unwrap().success());
    }

    let accounts = &director.accounts;
    let history = accounts["alice"].history.clone().unwrap();
    println!("\nthe history of all three: {}", history.join(" "));
    for (name, account) in accounts {
        assert_eq!(account.history.as_ref(), Some(&history), "{name} remembers another conversation");
        assert_eq!(account.has, history.iter().cloned().collect(), "{name} was not told of everything");
        let Account { delivered, resends, repairs, .. } = account;
        println!("{name:<6} heard {delivered} messages, each once; sent {resends} again and repaired {repairs}");
    }
    assert!(known_then.is_subset(&accounts["carol"].has), "the kill took something away");
    println!("carol had {} of {all} messages when she was killed, and has kept them", known_then.len());
}
