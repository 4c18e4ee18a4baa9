//! What the two processes say to each other.

use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The variable in which a child finds its [`Order`].
pub(crate) const ORDER: &str = "RACTOR_PERSISTENCE_CRASH_ORDER";

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) directory: PathBuf,
    pub(crate) task: Task,
    pub(crate) seed: u64,
    /// Numbers that a child writes are higher than those of all rounds before.
    pub(crate) round: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Change records at all levels of durability, as fast as possible.
    Load,
    /// The same at `Ram` alone: nothing but the window makes the store save.
    RamLoad,
    /// Insert records, save them, clear the bucket, insert this many, and then wait.
    Clear { then: u64 },
    /// Have the store open, and wait.
    Hold,
    /// Let records expire, be evicted and be numbered, until all of that is saved, and then wait.
    Upkeep,
    /// Transactions over two buckets.
    Pairs,
}

/// One line of a child. Their order is the order in which things came about: a change before the commit that holds it,
/// a commit's end before the events and answers that tell of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// The store is about to be opened.
    Opening,
    /// It is open, and the bucket stands at this revision.
    Ready { revision: u64 },
    /// A change of the bucket, told in the bucket's own turn.
    Changed { revision: u64, change: Changed },
    /// A write at more than `Ram` was answered: of this key, or a clear.
    Acknowledged { key: Option<String> },
    /// A commit was handed to the adapter, with the bucket up to this revision in it, if at all.
    Begun { revision: Option<u64> },
    /// It has succeeded.
    Ended,
    /// It has not. Nothing but the kill goes wrong here, so this should not be.
    Failed { error: String },
    /// The event `persistence.<bucket>.saved`.
    Saved { revision: u64 },
    /// Another window is over, by the clock that the store's own timer goes by.
    Tick,
    /// No change comes any more.
    Done,
    /// Whatever a task has to say.
    Note(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Changed {
    Inserted { key: String, number: i64, place: i64 },
    Updated { key: String, number: i64 },
    Deleted { key: String },
    Cleared,
}

/// Marks a line as one of ours: the test harness writes lines of its own.
const MARK: char = '#';

impl Told {
    /// Tells it in one piece: a write of less than 4 KiB to a pipe is never torn, and what is in the pipe outlives us.
    pub(crate) fn tell(&self) {
        let line = format!("\n{MARK}{}\n", serde_json::to_string(self).unwrap());
        assert!(line.len() < 4_096);
        let mut out = std::io::stdout().lock();
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            // Nobody listens any more: the test has ended without killing us.
            std::process::exit(1);
        }
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let told = serde_json::from_str(line.strip_prefix(MARK)?);
        Some(told.unwrap_or_else(|error| panic!("{error} in {line:?}")))
    }
}
