//! What the benchmarks share: the report, the record that is written, and the bare actor that calls are held against.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part")]
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a part of programs that print a table")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "the numbers of a benchmark are small"
)]

#[cfg(feature = "postgres")]
pub mod postgres;

use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_persistence::base::value::Object;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field};

pub const IN_FLIGHT: usize = 1_000;

const ROLES: [&str; 4] = ["member", "guest", "editor", "owner"];

// ---- the report

#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// For information: a rate.
    None,
}

#[derive(Default)]
pub struct Report(Vec<(String, String, String, f64, Goal)>);

impl Report {
    /// Medians of both sides, and the median of their ratios per round.
    pub fn add(&mut self, what: &str, floor: &str, rounds: &[(Duration, Duration)], per: usize, goal: Goal) {
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let ratio = |(measured, floor): &(Duration, Duration)| match goal {
            // A rate: how much of the floor's rate is left.
            Goal::AtLeast(_) | Goal::None => floor.as_secs_f64() / measured.as_secs_f64(),
            // A time: how many times the floor's.
            Goal::AtMost(_) => measured.as_secs_f64() / floor.as_secs_f64(),
        };
        let micros = |pick: fn(&(Duration, Duration)) -> Duration| {
            let values = rounds.iter().map(|round| pick(round).as_secs_f64() * 1e6 / per as f64).collect();
            format!("{:>12.2} us", median(values))
        };
        let measured = format!("{what:<46}{}", micros(|round| round.0));
        let floor = format!("{floor:<44}{}", micros(|round| round.1));
        let ratio = median(rounds.iter().map(ratio).collect());
        println!("  {what}: {ratio:.2}");
        self.0.push((measured, floor, String::new(), ratio, goal));
    }

    pub fn print(&self) {
        println!("\n{:<61}{:<59}{:>8}  goal", "measured", "floor", "ratio");
        for (measured, floor, _, ratio, goal) in &self.0 {
            let (goal, met) = match goal {
                Goal::AtLeast(goal) => (format!(">= {goal:.2} of its rate"), ratio >= goal),
                Goal::AtMost(goal) => (format!("<= {goal:.2} of its time"), ratio <= goal),
                Goal::None => {
                    println!("{measured}  {floor}  {ratio:>6.2}  (of its rate)");
                    continue;
                }
            };
            let verdict = if met { "met" } else { "MISSED" };
            println!("{measured}  {floor}  {ratio:>6.2}  {goal}: {verdict}");
        }
    }
}

// ---- calls

/// About 200 bytes of fields.
pub fn data(number: usize) -> Object {
    record! {
        "id": number as i64, "name": format!("user number {number}"), "email": format!("user.{number}@example.com"),
        "role": ROLES[number % ROLES.len()], "city": "Ostrava-Poruba", "score": number as f64 * 0.5, "active": true,
        "note": "thirty-six letters make up a remark.", "logins": (number % 1_000) as i64,
    }
}

pub fn definition(name: &str) -> BucketDefinition {
    BucketDefinition::new(name)
        .key("id")
        .field("id", Field::int())
        .field("name", Field::string().required())
        .field("email", Field::string())
        .field("role", Field::string().default("member"))
        .field("city", Field::string())
        .field("score", Field::float())
        .field("active", Field::bool())
        .field("note", Field::string())
        .field("logins", Field::int().default(0))
}

/// Takes the same payload as an insert, and answers.
pub struct Bare;

pub struct BareCall(pub Object, pub RpcReplyPort<usize>);

#[cfg(feature = "cluster")]
impl ractor::Message for BareCall {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Bare {
    type Msg = BareCall;
    type State = usize;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<BareCall>, (): ()) -> Result<usize, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<BareCall>,
        BareCall(data, port): BareCall,
        state: &mut usize,
    ) -> Result<(), ActorProcessingErr> {
        *state += data.len();
        let _gone = port.send(*state);
        Ok(())
    }
}

/// Calls once per payload, `IN_FLIGHT` at a time, and times that. The payloads are there before the clock starts.
pub async fn in_flight<P, F, Fut>(payloads: Vec<P>, call: F) -> Duration
where
    P: Send + 'static,
    F: Fn(P) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let each = payloads.len().div_ceil(IN_FLIGHT);
    let mut payloads = payloads.into_iter();
    let shares: Vec<Vec<P>> = (0..IN_FLIGHT).map(|_| payloads.by_ref().take(each).collect()).collect();
    let begun = Instant::now();
    let tasks: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let call = call.clone();
            tokio::spawn(async move {
                for payload in share {
                    call(payload).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    begun.elapsed()
}

/// Waits until nothing that was begun before is still at work: what was cleared is freed and folded in the background, and
/// whoever is measured next would pay for it.
pub async fn settle() {
    // A journal is folded after a quarter of a second without a commit.
    tokio::time::sleep(Duration::from_millis(400)).await;
    loop {
        let before = processor_time();
        tokio::time::sleep(Duration::from_millis(50)).await;
        if processor_time() - before <= 1 {
            return;
        }
    }
}

/// What this process has used of its processors, in ticks of a hundredth of a second; always 0 where the system does not
/// tell it as Linux does.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may contain anything; user and system time are the 12th and 13th behind it.
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    behind_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// So many records' data, the first of them with this number.
pub fn all_data(first: usize, total: usize) -> Vec<Object> {
    (first..first + total).map(data).collect()
}
