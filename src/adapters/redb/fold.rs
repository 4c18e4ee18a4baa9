//! Folding: what the journal holds becomes rows, in the transaction that takes it out of the journal.
//!
//! Each owner's sections are folded in their order, from the oldest on; a step may end behind any of them, because
//! whatever is left is folded before the owner is loaded.

use std::cell::RefCell;
use std::collections::HashMap;

use redb::{ReadableTable, WriteTransaction};

use crate::adapters::redb::apply;
use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::journal::{self, Code, Head, Operation, Operations, Stand};
use crate::adapters::redb::keys::{self, BucketPlaces, ChannelPlaces, JournalKeys, Owner};
use crate::adapters::redb::rows::{
    self, BucketHeader, ChannelHeader, Definition, Encoded, Shelf, Table, Tallied, Tally,
};
use crate::base::codec;
use crate::base::error::{Error, Place, Result};

/// A section that only has to be taken away costs a step so much less than its bytes.
const SKIPPED: u64 = 64;

/// What a section costs a step besides its bytes.
const EACH: u64 = 256;

/// What one step does at most, and of whom.
pub(super) struct Plan<'a> {
    /// So many bytes of sections, but at least one section.
    pub(super) bytes: u64,
    /// Of this one only.
    pub(super) only: Option<&'a JournalKeys>,
    /// Those that could not be folded, and are left alone.
    pub(super) stuck: &'a HashMap<JournalKeys, Error>,
    /// Set to whoever is being folded.
    pub(super) at: &'a RefCell<Option<JournalKeys>>,
}

/// What a step has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// So many bytes of sections are gone.
    pub(super) folded: u64,
    /// There may be more to fold of whom was asked for.
    pub(super) more: bool,
}

/// One step.
pub(super) fn step(txn: &WriteTransaction, plan: &Plan<'_>) -> Result<Step, Fault> {
    let mut journal = journal::open(txn)?;
    let mut step = Step::default();
    let (mut from, mut cost) = (plan.only.map_or_else(Vec::new, |only| only.section(0)), 0);
    while let Some(of) = next_owner(&journal, &from)? {
        if plan.only.is_some_and(|only| *only != of) {
            return Ok(step);
        }
        from = journal::after(&of.head());
        if plan.only.is_none() && plan.stuck.contains_key(&of) {
            continue;
        }
        if cost >= plan.bytes {
            step.more = true;
            return Ok(step);
        }
        plan.at.replace(Some(of.clone()));
        let taken = take(&mut journal, &of, plan.bytes.saturating_sub(cost))?;
        cost += taken.cost;
        step.folded += taken.bytes;
        match of.owner() {
            Some(Owner::Bucket { store, name }) => bucket(txn, &BucketPlaces::named(store, name), &taken)?,
            Some(Owner::Channel { store, name }) => channel(txn, &ChannelPlaces::named(store, name), &taken)?,
            None => {}
        }
        plan.at.replace(None);
        if taken.more {
            step.more = true;
            return Ok(step);
        }
    }
    Ok(step)
}

/// The first owner at or behind a key. What is no key of the journal at all is nobody's.
fn next_owner(journal: &Table<'_>, from: &[u8]) -> Result<Option<JournalKeys>, Fault> {
    for entry in journal.range(from..)? {
        if let Some((of, _)) = JournalKeys::parse(entry?.0.value()) {
            return Ok(Some(of));
        }
    }
    Ok(None)
}

/// Sections that were taken out of the journal, intact.
struct Taken {
    sections: Vec<Section>,
    bytes: u64,
    cost: u64,
    more: bool,
}

struct Section {
    key: Vec<u8>,
    row: Vec<u8>,
    /// What it says of records was cleared later.
    cleared: bool,
}

impl Section {
    fn body(&self) -> &[u8] {
        self.row.get(codec::HEADER..).unwrap_or_default()
    }

    fn malformed(&self) -> Fault {
        let place = Place::new(rows::JOURNAL).at(keys::show_journal_key(&self.key));
        Error::corrupt(place, "what is in it is no list of operations").into()
    }
}

/// Takes the oldest sections of an owner out of the journal, and the head with the last of them.
fn take(journal: &mut Table<'_>, of: &JournalKeys, bytes: u64) -> Result<Taken, Fault> {
    let head_place = || Place::new(rows::JOURNAL).at(keys::show_journal_key(&of.head()));
    let Some(mut head) = journal::head(journal, of)? else {
        return Err(Error::corrupt(head_place(), "the row is missing, but there are sections").into());
    };
    let mut shelf = Shelf::new(&rows::SECTION, rows::JOURNAL);
    let mut taken = Taken { sections: Vec::new(), bytes: 0, cost: 0, more: false };
    while head.first < head.next && (taken.sections.is_empty() || taken.cost < bytes) {
        let key = of.section(head.first);
        let Some(row) = journal.remove(key.as_slice())?.map(|row| row.value().to_vec()) else {
            return Err(Error::corrupt(shelf.place(&key), "the section is missing").into());
        };
        shelf.open(&key, &row)?;
        let (length, cleared) = (row.len() as u64, head.first < head.cleared);
        head.sum = head.sum.wrapping_sub(rows::share(&row));
        head.bytes = head.bytes.saturating_sub(length);
        head.first += 1;
        taken.bytes += length;
        taken.cost += EACH + if cleared { length / SKIPPED } else { length };
        taken.sections.push(Section { key, row, cleared });
    }
    taken.more = head.first < head.next;
    if taken.more {
        journal::set_head(journal, of, &head)?;
    } else {
        if head != (Head { bytes: 0, sum: 0, ..head }) {
            let reason = "the sections do not add up: at least one of them is an older state of itself";
            return Err(Error::corrupt(head_place(), reason).into());
        }
        journal.remove(of.head().as_slice())?;
        if journal::has_in(journal, of)? {
            return Err(Error::corrupt(head_place(), "there are sections that it does not know of").into());
        }
    }
    Ok(taken)
}

// ---- buckets

fn bucket(txn: &WriteTransaction, places: &BucketPlaces, taken: &Taken) -> Result<(), Fault> {
    let mut headers = apply::open(txn, rows::BUCKETS)?;
    let mut header = BucketHeader::read(&headers, &places.pair)?.unwrap_or_default();
    let mut changes: Vec<Operation<'_>> = Vec::new();
    let mut replaced = false;
    for section in &taken.sections {
        let (stand, operations) = Stand::split(section.body()).ok_or_else(|| section.malformed())?;
        if stand.cleared {
            changes.clear();
            replaced = true;
        }
        let mut requests = Vec::new();
        for operation in operations {
            let operation = operation.ok_or_else(|| section.malformed())?;
            match operation.code {
                Code::Put | Code::PutNew | Code::Delete if section.cleared => {}
                Code::Put | Code::PutNew | Code::Delete => changes.push(operation),
                Code::Request => requests.push(operation),
                _ => return Err(section.malformed()),
            }
        }
        header.schema_version = stand.schema_version;
        header.revision = stand.revision;
        header.counter = stand.counter;
        header.requests = put_requests(txn, places, header.requests, &requests, stand.window)?;
    }
    // The newest of each key, in the order of the rows. The sort keeps the order of those with the same key.
    changes.sort_by(|left, right| left.key.cmp(right.key));
    changes.dedup_by(|later, kept| {
        let same = later.key == kept.key;
        if same {
            *kept = *later;
        }
        same
    });
    let mut shelf = Shelf::new(&rows::RECORD, &places.rows);
    if replaced {
        txn.delete_table(shelf.definition())?;
        header.rows = Tally::default();
    }
    let mut table = Tallied::open(txn, &mut shelf, header.rows)?;
    let (deletes, puts): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.code == Code::Delete);
    if !header.rows.is_empty() {
        for delete in deletes {
            table.remove(delete.key)?;
        }
    }
    let new = |put: &Operation<'_>| put.code == Code::PutNew;
    let puts: Vec<_> = puts.iter().map(|put| Encoded { key: put.key, row: put.row, new: new(put) }).collect();
    table.store(&puts)?;
    header.rows = table.finish()?;
    header.write(&mut headers, &places.pair)
}

/// Stores the requests of one change over those that add up to `tally`, of which the newest `window` are kept; answers
/// what they add up to then. Without new ones, nothing is looked at.
fn put_requests(
    txn: &WriteTransaction,
    places: &BucketPlaces,
    tally: Tally,
    requests: &[Operation<'_>],
    window: u64,
) -> Result<Tally, Fault> {
    if requests.is_empty() {
        return Ok(tally);
    }
    let mut shelf = Shelf::new(&rows::REQUEST, &places.requests);
    let mut table = Tallied::open(txn, &mut shelf, tally)?;
    for request in requests {
        table.insert(request.key, request.row)?;
    }
    table.keep_last(window)?;
    let tally = table.finish()?;
    if tally.is_empty() {
        txn.delete_table(Definition::new(&places.requests))?;
    }
    Ok(tally)
}

// ---- channels

fn channel(txn: &WriteTransaction, places: &ChannelPlaces, taken: &Taken) -> Result<(), Fault> {
    let mut headers = apply::open(txn, rows::CHANNELS)?;
    let mut header_shelf = Shelf::new(&rows::CHANNEL_HEADER, rows::CHANNELS);
    let old: Option<ChannelHeader> = header_shelf.get(&headers, &places.pair)?;
    let mut header = old.unwrap_or_default();
    let mut operations: Vec<Operation<'_>> = Vec::new();
    for section in &taken.sections {
        for operation in Operations(section.body()) {
            let operation = operation.ok_or_else(|| section.malformed())?;
            match operation.code {
                Code::Put | Code::PutNew | Code::Delete | Code::Request => return Err(section.malformed()),
                _ => operations.push(operation),
            }
        }
    }
    // Of the states the newest counts.
    if let Some(meta) = operations.iter().rev().find(|operation| operation.code == Code::Meta) {
        header.meta = codec::stored_checksum(meta.row);
        apply::open(txn, rows::CHANNEL_META)?.insert(places.pair.as_slice(), meta.row)?;
    }
    let listed = |operation: &&Operation<'_>| matches!(operation.code, Code::Append | Code::Evict);
    if operations.iter().any(|operation| listed(&operation)) {
        header.history = put_history(txn, places, header.history, operations.iter().filter(listed))?;
    }
    let hinted = |operation: &Operation<'_>| matches!(operation.code, Code::Hint | Code::NoHint);
    // Those of messages that were never stored go too: an append and its eviction may have cancelled out before a save.
    let evicted = |operation: &Operation<'_>| operation.code == Code::Evict;
    if operations.iter().any(|operation| hinted(operation) || evicted(operation) && !header.hints.is_empty()) {
        let mut shelf = Shelf::new(&rows::HINT, &places.hints);
        let mut hints = Tallied::open(txn, &mut shelf, header.hints)?;
        for operation in &operations {
            match operation.code {
                Code::Hint => hints.insert(operation.key, operation.row)?,
                Code::NoHint | Code::Evict => {
                    hints.remove(operation.key)?;
                }
                _ => {}
            }
        }
        header.hints = hints.finish()?;
    }
    if old != Some(header) {
        header_shelf.put(&mut headers, &places.pair, &header)?;
    }
    Ok(())
}

/// Appends and evicts messages, over those that add up to `tally`; answers what they add up to then.
fn put_history<'a>(
    txn: &WriteTransaction,
    places: &ChannelPlaces,
    tally: Tally,
    operations: impl Iterator<Item = &'a Operation<'a>>,
) -> Result<Tally, Fault> {
    let mut ids = apply::open(txn, &places.ids)?;
    let mut id_shelf = Shelf::new(&rows::MESSAGE_PLACE, &places.ids);
    let mut shelf = Shelf::new(&rows::MESSAGE, &places.history);
    let mut history = Tallied::open(txn, &mut shelf, tally)?;
    let remove = |history: &mut Tallied<'_, '_, '_>, lamport: i64, id: &[u8]| -> Result<(), Fault> {
        let place = keys::history_key(lamport, id);
        if history.remove(&place)? {
            return Ok(());
        }
        let reason = "the message that the index names is missing";
        Err(Error::corrupt(history.shelf.place(&place), reason).into())
    };
    for operation in operations {
        if operation.code == Code::Evict {
            let Some(lamport) = id_shelf.get::<i64>(&ids, operation.key)? else { continue };
            remove(&mut history, lamport, operation.key)?;
            ids.remove(operation.key)?;
            continue;
        }
        let (lamport, id) = keys::history_parts(operation.key).unwrap_or_default();
        let old: Option<i64> = id_shelf.get(&ids, id)?;
        if old != Some(lamport) {
            if let Some(old) = old {
                remove(&mut history, old, id)?;
            }
            id_shelf.put(&mut ids, id, &lamport)?;
        }
        history.insert(operation.key, operation.row)?;
    }
    history.finish()
}
