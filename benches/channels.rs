//! What channels cost: sending and receiving at histories of any length, against nim-sds's own figures; bytes that are
//! stored per message; channels that have nothing to do.
//!
//! `cargo bench --bench channels`, with `-- --smoke` for a quick run whose figures mean nothing.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints a table")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the numbers of a benchmark are small"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::clock::{Clock, SystemClock};
use ractor_persistence::base::name::ChannelId;
use ractor_persistence::channel::Channel;
use ractor_persistence::sds::{ChannelOptions, ChannelState};
use ractor_persistence::store::Store;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

mod support;
use support::{Goal, Report};

/// What nim-sds takes at a full history of 1,000, per operation.
const NIM_RECEIVE: Duration = Duration::from_micros(511);
const NIM_WRAP: Duration = Duration::from_micros(853);

const SIZES: [usize; 3] = [100, 1_000, 10_000];

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut report = Report::default();
    runtime.block_on(operations(smoke, &mut report));
    report.print();
    println!();
    runtime.block_on(stored(smoke));
    runtime.block_on(idle(smoke));
    if smoke {
        println!("smoke run: the figures above mean nothing");
    }
}

// ---- operations

fn room() -> ChannelId {
    ChannelId::new("room").unwrap()
}

fn options(size: usize) -> ChannelOptions {
    ChannelOptions::default().with_participant("us").with_max_history(size).with_max_outgoing(10_000_000)
}

/// So many packets of a peer's, each naming the ten before it, with a filter of the default size.
struct Peer(ChannelState, usize);

impl Peer {
    fn new() -> Self {
        let options = options(20).with_participant("peer");
        Self(ChannelState::new(room(), options).unwrap(), 0)
    }

    fn packets(&mut self, count: usize, now: i64) -> Vec<Bytes> {
        let packet = |_| {
            self.1 += 1;
            self.0
                .wrap(format!("message {}", self.1), "a hundred bytes of content, more or less: ".repeat(2), now)
                .unwrap()
                .0
        };
        (0..count).map(packet).collect()
    }
}

/// Calls that are in flight at a time: with one at a time, a call is two wake-ups of sleeping threads and little else.
const IN_FLIGHT: usize = 50;

/// Begins all calls in their order, and waits for their answers.
async fn in_flight<F: Future>(calls: impl Iterator<Item = F>, answer: impl Fn(F::Output)) {
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    let mut early: Vec<Option<F::Output>> = Vec::new();
    std::future::poll_fn(|context| {
        early = calls
            .iter_mut()
            .map(|call| match call.as_mut().poll(context) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
            .collect();
        Poll::Ready(())
    })
    .await;
    for (call, early) in calls.into_iter().zip(early) {
        answer(match early {
            Some(output) => output,
            None => call.await,
        });
    }
}

/// A channel without an adapter, and the same rules without an actor, both with a full history.
struct Full {
    channel: Channel,
    state: ChannelState,
    peer: Peer,
    number: usize,
}

impl Full {
    async fn new(store: &Store, size: usize) -> Self {
        let channel = store.open_channel(&format!("full of {size}"), options(size)).await.unwrap();
        let mut full =
            Self { channel, state: ChannelState::new(room(), options(size)).unwrap(), peer: Peer::new(), number: 0 };
        for _ in 0..size.div_ceil(100) {
            full.receive(100).await;
        }
        full
    }

    /// How long packets take, through the actor and by the rules alone.
    async fn receive(&mut self, count: usize) -> (Duration, Duration) {
        let now = SystemClock.now_ms();
        let packets = self.peer.packets(count, now);
        // The actor's channel has a name of its own.
        let name = self.channel.id().as_str().to_owned();
        let renamed: Vec<Bytes> = packets.iter().map(|packet| rename(packet, &name)).collect();
        let begun = Instant::now();
        let mut renamed = renamed.into_iter().peekable();
        while renamed.peek().is_some() {
            let calls = renamed.by_ref().take(IN_FLIGHT).map(|packet| self.channel.receive(packet));
            in_flight(calls, |received| drop(received.unwrap())).await;
        }
        let actor = begun.elapsed();
        let begun = Instant::now();
        for packet in &packets {
            drop(self.state.receive(packet, now).unwrap());
        }
        (actor, begun.elapsed())
    }

    async fn wrap(&mut self, count: usize) -> (Duration, Duration) {
        let content = Bytes::from("a hundred bytes of content, more or less: ".repeat(2));
        let ids: Vec<String> = (0..count).map(|number| format!("own {}", self.number + number)).collect();
        self.number += count;
        let begun = Instant::now();
        for some in ids.chunks(IN_FLIGHT) {
            let calls = some.iter().map(|id| self.channel.wrap(id.as_str(), content.clone()));
            in_flight(calls, |wrapped| drop(wrapped.unwrap())).await;
        }
        let actor = begun.elapsed();
        let now = SystemClock.now_ms();
        let begun = Instant::now();
        for id in ids {
            drop(self.state.wrap(id, content.clone(), now).unwrap());
        }
        (actor, begun.elapsed())
    }
}

fn rename(packet: &[u8], channel: &str) -> Bytes {
    let form = ractor_persistence::sds::WireFormat::NimSds;
    let mut message = ractor_persistence::sds::decode(form, packet).unwrap().to_message();
    message.channel_id = Bytes::copy_from_slice(channel.as_bytes());
    ractor_persistence::sds::encode(form, &message)
}

async fn operations(smoke: bool, report: &mut Report) {
    let (count, rounds) = if smoke { (20, 1) } else { (500, 11) };
    let store = Store::builder("memory").start().await.unwrap();
    let mut channels = Vec::new();
    for size in SIZES {
        channels.push(Full::new(&store, if smoke { size / 10 } else { size }).await);
    }
    // Per round: the three sizes, one right after the other.
    let (mut receives, mut wraps) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut times = Vec::new();
        for full in &mut channels {
            times.push(full.receive(count).await);
        }
        receives.push(times);
    }
    for _ in 0..rounds {
        let mut times = Vec::new();
        for full in &mut channels {
            times.push(full.wrap(count).await);
        }
        wraps.push(times);
    }
    for (what, all, nim) in [("receive", &receives, NIM_RECEIVE), ("wrap", &wraps, NIM_WRAP)] {
        for (at, size) in SIZES.iter().enumerate().skip(1) {
            let goal = if at == 2 { Goal::AtMost(1.5) } else { Goal::None };
            let rules: Vec<_> = all.iter().map(|times| (times[at].1, times[0].1)).collect();
            report.add(
                &format!("{what}, rules alone, history of {size}"),
                "the same, history of 100",
                &rules,
                count,
                goal,
            );
            let actors: Vec<_> = all.iter().map(|times| (times[at].0, times[0].0)).collect();
            report.add(
                &format!("{what}, a channel, history of {size}"),
                "the same, history of 100",
                &actors,
                count,
                goal,
            );
        }
        let floor = nim * count as u32;
        let of = |pick: fn(&(Duration, Duration)) -> Duration| {
            all.iter().map(|times| (pick(&times[1]), floor)).collect::<Vec<_>>()
        };
        let nim = "nim-sds's figure, history of 1,000";
        report.add(
            &format!("{what}, rules alone, history of 1000"),
            nim,
            &of(|times| times.1),
            count,
            Goal::AtMost(0.1),
        );
        report.add(&format!("{what}, a channel, history of 1000"), nim, &of(|times| times.0), count, Goal::AtMost(0.1));
    }
    store.stop().await.unwrap();
}

fn judge(what: &str, measured: f64, unit: &str, bound: f64) {
    let verdict = if measured <= bound { "met" } else { "MISSED" };
    println!("{what:<76}{measured:>12.1} {unit:<8} <= {bound:.1}: {verdict}");
}

// ---- what is stored

/// Bytes of keys and values, of the rows of tables whose name has this in it.
fn row_bytes(path: &Path, part: &str) -> usize {
    let file = redb::Database::open(path).unwrap();
    let read = file.begin_read().unwrap();
    let names: Vec<String> = read.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    let mut bytes = 0;
    for name in names.iter().filter(|name| name.contains(part)) {
        let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
        for row in read.open_table(table).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            bytes += key.value().len() + value.value().len();
        }
    }
    bytes
}

async fn stored(smoke: bool) {
    let count = if smoke { 100 } else { 1_000 };
    let folder = tempfile::tempdir().unwrap();
    let content = Bytes::from(vec![b'x'; 100]);
    let mut bytes = Vec::new();
    for (name, messages) in [("one", 1), ("many", count + 1)] {
        let path = folder.path().join(name);
        let store = Store::builder("bench").adapter(RedbAdapter::open(&path).await.unwrap()).start().await.unwrap();
        // Causal histories are not counted, so there are none.
        let options = ChannelOptions::default().with_participant("participant").with_max_causal_history(0);
        let channel = store.open_channel("room", options).await.unwrap();
        for _ in 0..messages {
            channel.wrap_new(content.clone()).await.unwrap();
        }
        assert!(store.stop().await.unwrap().unsaved.is_empty());
        bytes.push((row_bytes(&path, "meta"), row_bytes(&path, "history")));
    }
    let each = |pick: fn(&(usize, usize)) -> usize| (pick(&bytes[1]) - pick(&bytes[0])) as f64 / count as f64 - 100.0;
    judge("stored bytes per unacknowledged message, besides its content", each(|bytes| bytes.0), "bytes", 300.0);
    println!("{:<76}{:>12.1} bytes", "  and in the history, keys and index included", each(|bytes| bytes.1));
}

// ---- channels that have nothing to do

/// Counts how often it is looked at: once per operation, and a wake-up is one.
#[derive(Debug, Default)]
struct Looks(AtomicU64);

impl Clock for Looks {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::SeqCst);
        SystemClock.now_ms()
    }
}

/// Resident memory; 0 where it is not to be had.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4_096
}

async fn idle(smoke: bool) {
    let (count, time) = if smoke { (100, Duration::from_millis(500)) } else { (10_000, Duration::from_secs(10)) };
    let looks = Arc::new(Looks::default());
    let store = Store::builder("idle").clock(Arc::clone(&looks) as Arc<dyn Clock>).ttl_check_interval(Duration::ZERO);
    let store = store.start().await.unwrap();
    let capacity = 100;
    // 15 bits per id, in words.
    let filter = (1 + capacity as usize * 15 / 64) * 8;
    let options =
        |sync| ChannelOptions::default().with_participant("us").with_bloom_capacity(capacity).with_sync_interval(sync);
    let before = resident();
    let mut channels = Vec::with_capacity(count);
    for number in 0..count {
        channels.push(store.open_channel(&format!("idle {number}"), options(None)).await.unwrap());
    }
    let each = (resident().saturating_sub(before)) as f64 / count as f64 - filter as f64;
    judge("resident bytes per idle channel, besides its filter", each, "bytes", 20.0 * 1_024.0);

    looks.0.store(0, Ordering::SeqCst);
    tokio::time::sleep(time).await;
    let woken = looks.0.swap(0, Ordering::SeqCst) as f64;
    judge(&format!("wake-ups of {count} channels that know nothing, in {time:?}"), woken, "", 0.0);

    for number in 0..count {
        let channel = store.open_channel(&format!("talking {number}"), options(Some(time / 5))).await.unwrap();
        channel.wrap("m1", "x").await.unwrap();
    }
    looks.0.store(0, Ordering::SeqCst);
    tokio::time::sleep(time).await;
    let woken = looks.0.swap(0, Ordering::SeqCst) as f64 / count as f64;
    judge(
        &format!("wake-ups of each of {count} that tell something every {:?}, in {time:?}", time / 5),
        woken,
        "",
        5.0,
    );
    store.stop().await.unwrap();
}
