//! A disk in memory under redb that writes down what is asked of it, and gives from that what a power cut could have left.
//! What the parts of a write are, and which of them come to last, is told by `PowerCutDisk`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::{io, slice};

use redb::StorageBackend;

use crate::base::disk::power_cut::image::{Change, Dice, fill, selections, write};

/// The disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Medium(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What it held at first, all of it synced.
    first: Vec<u8>,
    now: Vec<u8>,
    log: Vec<Entry>,
    /// The next free number of a part.
    parts: u64,
    /// The name that it is to get.
    name: Option<PathBuf>,
}

/// Something that was asked for.
#[derive(Clone, Debug)]
enum Entry {
    Changed(u64, Change),
    /// Whether the file had its name by then.
    Synced(bool),
}

impl Inner {
    fn named(&self) -> bool {
        self.name.as_ref().is_none_or(|name| name.exists())
    }
}

impl Medium {
    /// One that holds this, durably.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner { first: bytes.clone(), now: bytes, ..Inner::default() })))
    }

    /// An empty one that notes from when on there is something of this name.
    pub(super) fn to_be(name: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Inner { name: Some(name), ..Inner::default() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// What a killed process leaves.
    pub(super) fn now(&self) -> Vec<u8> {
        self.inner().now.clone()
    }

    /// How much was asked of it so far.
    pub(super) fn position(&self) -> usize {
        self.inner().log.len()
    }

    /// How many syncs have ended.
    pub(super) fn syncs(&self) -> usize {
        self.inner().log.iter().filter(|entry| matches!(entry, Entry::Synced(_))).count()
    }

    /// The moments at which the power could have been cut: just before each sync ended, and now. What could be left by a
    /// cut between two of them could be left by one at the later.
    pub(super) fn moments(&self) -> Vec<Moment> {
        let inner = self.inner();
        let (mut moments, mut synced, mut pending) = (Vec::new(), inner.first.clone(), Vec::new());
        for (at, entry) in inner.log.iter().enumerate() {
            match entry {
                Entry::Changed(part, change) => pending.push((*part, change.clone())),
                Entry::Synced(named) => {
                    let moment = Moment::new(at, *named, synced.clone(), std::mem::take(&mut pending));
                    synced = moment.everything();
                    moments.push(moment);
                }
            }
        }
        moments.push(Moment::new(inner.log.len(), inner.named(), synced, pending));
        moments
    }

    pub(in crate::adapters::redb) fn backend(&self, file: File) -> Backend {
        Backend { medium: self.clone(), file }
    }
}

/// A moment at which the power could be cut.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// What was asked for behind this was not asked for yet.
    pub(super) at: usize,
    /// Whether the file had its name.
    pub(super) named: bool,
    synced: Vec<u8>,
    /// By part, counted from 0.
    pending: Vec<(usize, Change)>,
    parts: usize,
}

impl Moment {
    fn new(at: usize, named: bool, synced: Vec<u8>, pending: Vec<(u64, Change)>) -> Self {
        let mut numbers = BTreeMap::new();
        let mut now = vec![synced.clone()];
        let mut kept = Vec::new();
        for (part, change) in pending {
            // A sector that is what it was, however much of the rest is lost, only makes images that there are already.
            let idle = match &change {
                Change::Bytes { at, bytes, .. } => {
                    let there = |content: &[u8]| content.get(*at..*at + bytes.len()) == Some(bytes.as_slice());
                    there(&now[0]) && there(&synced)
                }
                _ => false,
            };
            if !idle {
                fill(&mut now, &change);
                let next = numbers.len();
                kept.push((*numbers.entry(part).or_insert(next), change));
            }
        }
        Self { at, named, synced, pending: kept, parts: numbers.len() }
    }

    fn everything(&self) -> Vec<u8> {
        self.image(&vec![true; self.parts])
    }

    /// What is left if of what was not synced these parts have come to last.
    pub(super) fn image(&self, kept: &[bool]) -> Vec<u8> {
        let mut content = self.synced.clone();
        for (_, change) in self.pending.iter().filter(|(part, _)| kept[*part]) {
            fill(slice::from_mut(&mut content), change);
        }
        content
    }

    /// Which parts may have come to last: every beginning of what was asked for, all that lack one part or have one alone
    /// (a write's first sector, its last, what is between), and some that are drawn. If these are more than `most`, the dice
    /// say which; nothing and everything always are among them.
    pub(super) fn selections(&self, most: usize, dice: &mut Dice) -> Vec<Vec<bool>> {
        let count = self.parts;
        let mut all: BTreeSet<Vec<bool>> = selections(count, 1).into_iter().collect();
        all.extend((0..=count).map(|length| (0..count).map(|part| part < length).collect::<Vec<_>>()));
        all.extend((0..count.min(most)).map(|_| self.draw(dice)));
        let ends = [vec![false; count], vec![true; count]];
        all.retain(|kept| !ends.contains(kept));
        let mut all: Vec<_> = all.into_iter().collect();
        while all.len() + ends.len() > most.max(ends.len()) {
            all.swap_remove(roll(dice, all.len()));
        }
        // With nothing pending, both are the same.
        all.extend(ends.into_iter().skip(usize::from(count == 0)));
        all
    }

    /// Which parts have come to last, by chance.
    pub(super) fn draw(&self, dice: &mut Dice) -> Vec<bool> {
        let odds = [1, 4, 7][roll(dice, 3)];
        (0..self.parts).map(|_| dice.roll(8) < odds).collect()
    }
}

pub(super) fn roll(dice: &mut Dice, sides: usize) -> usize {
    usize::try_from(dice.roll(sides as u64)).unwrap()
}

/// What redb writes to. The file that the adapter has opened only gets the length, because that is looked at.
#[derive(Debug)]
pub(in crate::adapters::redb) struct Backend {
    medium: Medium,
    file: File,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.medium.inner().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.medium.inner();
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = at.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(inner.now.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut inner = self.medium.inner();
        let (change, part) = (Change::Length { file: 0, length }, inner.parts);
        fill(slice::from_mut(&mut inner.now), &change);
        inner.log.push(Entry::Changed(part, change));
        inner.parts += 4;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.medium.inner();
        let named = inner.named();
        inner.log.push(Entry::Synced(named));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut inner = self.medium.inner();
        let first = inner.parts;
        inner.parts += 4;
        let changes = write(0, &mut inner.now, at, data);
        inner.log.extend(changes.into_iter().map(|(part, change)| Entry::Changed(first + part, change)));
        Ok(())
    }
}
