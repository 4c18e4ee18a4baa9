//! A file that was cut short, or has a bit flipped anywhere, gives back what was saved or is reported; where the damage is
//! to rows, it never ends the process. Otherwise one bad sector would make up records, or take the whole program down.
//!
//! Damage to redb's own pages can make redb panic twice, which ends the process. So the cases are tried in a process of
//! their own, which is started again behind the case that ended it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::Duration;

use redb::{ReadableDatabase, ReadableTable, TableHandle};

use super::journal::fold;
use super::medium::{Medium, roll};
use super::power_cut::{
    BUCKETS, CHANNELS, Contents, by_request, clock, everything, factor, full_of, hint, messages, on, opened, plain,
    put, seed, sorted,
};
use super::*;
use crate::adapters::redb::rows::{self, Definition};
use crate::base::disk::power_cut::image::Dice;
use crate::base::error::Error;

const PAGE: usize = 4096;
/// What redb has at the beginning of the file: what it is, and its two roots.
const HEADER: usize = 320;
/// What the process that tries cases is told: a directory, and from where on.
const ORDER: &str = "RACTOR_PERSISTENCE_TEST_DAMAGE";

struct Saved {
    /// What is damaged.
    image: Vec<u8>,
    /// The same, killed, and so before the last commit.
    good: Vec<u8>,
    before: Vec<u8>,
}

/// Rows of all kinds, and a journal over them if the file was not closed.
async fn saved(closed: bool) -> Saved {
    let (place, medium, shop) = (Place::new(), Medium::default(), store("shop"));
    let adapter = RedbAdapter::open_with(place.path(), on(&medium)).await.unwrap();
    let epoch = adapter.claim(&shop).await.unwrap();
    let first = vec![full_of("users", 1, &["a", "b", "c"]), put("users2", 1, 1, "x"), clock("c", 1)];
    let second = vec![by_request("users", 2, 4), messages("c", &[1, 2, 3], &[]), hint("c", 2, "hint")];
    for saves in [first, second] {
        commit(&adapter, &shop, epoch, saves).await.unwrap();
    }
    while fold(&adapter).await.unwrap() {}
    let third = vec![by_request("users", 3, 5), put("users2", 2, 2, &"y".repeat(500)), messages("c", &[4], &[1])];
    let last = vec![put("users", 4, 1, "newest"), clock("c", 5), put("other", 1, 1, "z")];
    commit(&adapter, &shop, epoch, third).await.unwrap();
    let before = medium.now();
    commit(&adapter, &shop, epoch, last).await.unwrap();
    let good = medium.now();
    close(adapter).await;
    Saved { image: if closed { medium.now() } else { good.clone() }, good, before }
}

async fn loaded(image: Vec<u8>) -> Contents {
    let place = Place::new();
    let adapter = opened(&place, on(&Medium::of(image))).await.unwrap();
    let contents = everything(&adapter).await.unwrap();
    close(adapter).await;
    contents
}

// ---- cases

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Cut(usize),
    Flip(usize, usize),
}

impl Case {
    fn read(line: &str) -> Self {
        let numbers: Vec<usize> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        match numbers[..] {
            [length] => Self::Cut(length),
            [at, bit] => Self::Flip(at, bit),
            _ => panic!("{line}"),
        }
    }

    fn of(self, image: &[u8]) -> Vec<u8> {
        match self {
            Self::Cut(length) => image[..length].to_vec(),
            Self::Flip(at, bit) => {
                let mut bytes = image.to_vec();
                bytes[at] ^= 1 << bit;
                bytes
            }
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(length) => write!(f, "{length}"),
            Self::Flip(at, bit) => write!(f, "{at} {bit}"),
        }
    }
}

/// Where the rows are, those included that are not in use any more.
fn rows_in(image: &[u8]) -> Vec<Range<usize>> {
    let place = Place::new();
    std::fs::write(place.path(), image).unwrap();
    let db = redb::Database::open(place.path()).unwrap();
    let txn = db.begin_read().unwrap();
    let mut rows: BTreeSet<Vec<u8>> = BTreeSet::new();
    for table in txn.list_tables().unwrap() {
        let table = txn.open_table(Definition::new(table.name())).unwrap();
        rows.extend(table.iter().unwrap().map(|row| row.unwrap().1.value().to_vec()));
    }
    let mut ranges = Vec::new();
    for (page, bytes) in image.chunks(PAGE).enumerate().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)) {
        for row in &rows {
            let found = bytes.windows(row.len()).enumerate().filter(|(_, window)| window == row);
            ranges.extend(found.map(|(at, _)| page * PAGE + at..page * PAGE + at + row.len()));
        }
    }
    ranges
}

/// Whether something is at a place, or so near that what looks empty may be the rest of a number.
fn is_used(image: &[u8], at: usize) -> bool {
    let around = &image[at.saturating_sub(8)..(at + 9).min(image.len())];
    around.iter().any(|byte| *byte != around[0])
}

/// What the damage is to.
fn class(image: &[u8], rows: &[Range<usize>], case: Case) -> &'static str {
    match case {
        Case::Cut(_) => "cut short",
        Case::Flip(at, _) if rows.iter().any(|row| row.contains(&at)) => "rows",
        Case::Flip(at, _) if at < HEADER => "redb's header",
        Case::Flip(at, _) if !is_used(image, at) => "unused room",
        Case::Flip(at, _) => match image[at / PAGE * PAGE] {
            1 => "redb's leaf pages",
            2 => "redb's inner pages",
            _ => "redb's other pages",
        },
    }
}

/// The file cut at every page; a bit of every byte in use, or of each `stride`-th, and of some that are not.
fn cases(image: &[u8], stride: usize, dice: &mut Dice) -> Vec<Case> {
    let mut cases: Vec<Case> = (1..image.len() / PAGE).map(|page| Case::Cut(page * PAGE)).collect();
    let (mut flips, mut unused) = (Vec::new(), Vec::new());
    for at in 0..image.len() {
        if at < HEADER || is_used(image, at) {
            flips.push(at)
        } else {
            unused.push(at)
        };
    }
    let mut pick = |places: &[usize], stride: usize| {
        let places = places.iter().skip(roll(dice, stride)).step_by(stride);
        cases.extend(places.map(|at| Case::Flip(*at, roll(dice, 8))));
    };
    pick(&flips, stride);
    pick(&unused, 64 * stride);
    cases
}

// ---- the process that tries them

fn kind(error: &Error) -> &'static str {
    if !matches!(error, Error::Corrupt { .. }) {
        println!("\n@because {error:?}");
    }
    match error {
        Error::Corrupt { .. } => "corrupt",
        Error::UnknownFormat { .. } => "unknown format",
        Error::Transient { .. } => "transient",
        Error::Unknown { .. } => "unknown outcome",
        Error::Permanent { .. } => "permanent",
        _ => "WRONG error",
    }
}

/// What the adapter makes of an image: errors, or which of the states it was.
async fn judge(place: &Place, image: Vec<u8>, states: &[Contents; 2]) -> String {
    let mut told = BTreeSet::new();
    let adapter = match opened(place, on(&Medium::of(image))).await {
        Ok(adapter) => adapter,
        Err(error) => return kind(&error).to_owned(),
    };
    let mut of = vec![0, 1];
    for (number, name) in BUCKETS.iter().enumerate() {
        match adapter.load_bucket(&bucket(name)).await {
            Ok(found) => {
                let found = plain(found);
                of.retain(|state| states[*state].0[number] == found);
            }
            Err(error) => drop(told.insert(kind(&error))),
        }
    }
    for (number, name) in CHANNELS.iter().enumerate() {
        match adapter.load_channel(&channel(name)).await {
            Ok(found) => {
                let found = sorted(found);
                of.retain(|state| states[*state].1[number] == found);
            }
            Err(error) => drop(told.insert(kind(&error))),
        }
    }
    match adapter.claim(&store("shop")).await {
        Ok(epoch) if epoch != Epoch(2) => drop(told.insert("WRONG epoch")),
        Ok(epoch) => match commit(&adapter, &store("shop"), epoch, vec![put("users", 9, 9, "after")]).await {
            Ok(()) => match adapter.load_bucket(&bucket("users")).await {
                Ok(found) => {
                    let mut found = plain(found).unwrap();
                    let after = found.1.remove(&Key::from(9));
                    let records = |state: &usize| states[*state].0[0].as_ref().map(|users| &users.1);
                    of.retain(|state| after.is_some() && records(state) == Some(&found.1));
                }
                Err(error) => drop(told.insert(kind(&error))),
            },
            Err(error) => drop(told.insert(kind(&error))),
        },
        Err(error) => drop(told.insert(kind(&error))),
    }
    close(adapter).await;
    let of = match of.first() {
        None => "WRONG contents",
        Some(0) => "same",
        Some(_) => "the state before",
    };
    if told.is_empty() || of != "same" {
        told.insert(of);
    }
    told.into_iter().collect::<Vec<_>>().join(", ")
}

/// Tries cases for another process and prints what came out; does nothing without the environment variable.
#[tokio::test]
async fn tries_damage_for_another_process() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let (directory, from) = order.rsplit_once(':').unwrap();
    let read = |name: &str| std::fs::read(Path::new(directory).join(name)).unwrap();
    let states = [loaded(read("good")).await, loaded(read("before")).await];
    let (image, list) = (read("image"), String::from_utf8(read("cases")).unwrap());
    // Those that redb is caught at are many.
    std::panic::set_hook(Box::new(|_| {}));
    let place = Place::new();
    for (number, line) in list.lines().enumerate().skip(from.parse().unwrap()) {
        println!("\n@begun {number}");
        let judged = judge(&place, Case::read(line).of(&image), &states);
        match tokio::time::timeout(Duration::from_secs(60), judged).await {
            Ok(outcome) => println!("\n@ended {outcome}"),
            Err(_) => {
                println!("\n@ended hung");
                std::process::exit(1);
            }
        }
    }
}

/// Of each case, what came out.
fn tried(directory: &Path, cases: &[Case]) -> Vec<String> {
    let list: Vec<String> = cases.iter().map(Case::to_string).collect();
    std::fs::write(directory.join("cases"), list.join("\n")).unwrap();
    let mut outcomes: Vec<String> = Vec::new();
    while outcomes.len() < cases.len() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "adapters::redb::tests::every_byte::tries_damage_for_another_process"])
            .env(ORDER, format!("{}:{}", directory.display(), outcomes.len()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut begun = outcomes.len();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(number) = line.strip_prefix("@begun ") {
                begun = number.parse().unwrap();
            } else if let Some(outcome) = line.strip_prefix("@ended ") {
                outcomes.push(outcome.to_owned());
            } else if let Some(error) = line.strip_prefix("@because ") {
                println!("{}: {error}", cases[begun]);
            }
        }
        let status = child.wait().unwrap();
        if outcomes.len() == begun && outcomes.len() < cases.len() {
            // A panic that got out of the adapter fails the test in there; one in a panic ends it with a signal.
            let ended = if status.code().is_none() { "process ended" } else { "WRONG panic" };
            outcomes.push(ended.to_owned());
        }
    }
    outcomes
}

async fn whatever_is_damaged(closed: bool) {
    let saved = saved(closed).await;
    let image = &saved.image;
    let rows = rows_in(image);
    let (seed, stride) = (seed(), 16_usize.div_ceil(factor()));
    let mut dice = Dice(seed);
    let cases = cases(image, stride, &mut dice);
    let used = (0..image.len()).filter(|at| is_used(image, *at)).count();
    println!(
        "seed {seed}; {} bytes of which {used} are in use, {} of them of rows; {} cases, of each {stride}th byte in use",
        image.len(),
        rows.iter().map(ExactSizeIterator::len).sum::<usize>(),
        cases.len()
    );
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let working: Vec<_> = cases
            .chunks(cases.len().div_ceil(workers))
            .map(|cases| {
                let saved = &saved;
                scope.spawn(move || {
                    let directory = tempfile::tempdir().unwrap();
                    for (name, bytes) in [("image", &saved.image), ("good", &saved.good), ("before", &saved.before)] {
                        std::fs::write(directory.path().join(name), bytes).unwrap();
                    }
                    tried(directory.path(), cases)
                })
            })
            .collect();
        working.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut table: BTreeMap<(&str, &str), Vec<Case>> = BTreeMap::new();
    for (case, outcome) in cases.iter().zip(&outcomes) {
        table.entry((class(image, &rows, *case), outcome)).or_default().push(*case);
    }
    for ((class, outcome), cases) in &table {
        println!("{class}: {outcome}: {} (such as {})", cases.len(), cases[0]);
    }
    for ((class, outcome), cases) in &table {
        let allowed = match *outcome {
            "same" | "corrupt" => true,
            "unknown format" => *class != "cut short",
            // redb takes damage to what a killed process wrote last for a write that the power was cut in.
            "the state before" => !closed,
            // It panics when it commits, or twice, or does not come to an end.
            "unknown outcome" | "process ended" | "hung" => class.starts_with("redb's"),
            _ => false,
        };
        assert!(allowed, "{class}: {outcome}: {cases:?}");
    }
    for (class, outcome) in
        [("rows", "corrupt"), ("rows", "same"), ("cut short", "corrupt"), ("redb's header", "corrupt")]
    {
        assert!(table.contains_key(&(class, outcome)), "never {outcome} for {class}");
    }
}

#[tokio::test]
async fn a_file_that_was_closed_gives_back_everything_or_is_reported_whatever_is_damaged() {
    whatever_is_damaged(true).await;
}

#[tokio::test]
async fn a_file_that_was_killed_gives_back_everything_or_is_reported_whatever_is_damaged() {
    whatever_is_damaged(false).await;
}

#[tokio::test]
async fn a_claim_whose_row_or_table_cannot_be_found_any_more_is_told_and_not_counted_from_the_beginning() {
    let saved = saved(true).await;
    // In the row's key, and in the table's name.
    let mut told = 0;
    for at in find(&saved.image, b"shop").into_iter().chain(find(&saved.image, b"epochs")) {
        let mut image = saved.image.clone();
        image[at + 1] ^= 1;
        let place = Place::new();
        let Ok(adapter) = opened(&place, on(&Medium::of(image))).await else { continue };
        match adapter.claim(&store("shop")).await {
            Ok(epoch) => assert_eq!(epoch, Epoch(2), "byte {at}"),
            Err(Error::Corrupt { at, .. }) => told += usize::from(at.container == rows::EPOCHS),
            Err(error) => panic!("byte {at}: {error:?}"),
        }
        close(adapter).await;
    }
    assert!(told >= 2, "{told}");
}

fn find(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle).map(|(at, _)| at).collect()
}
