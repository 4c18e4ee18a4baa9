//! What the two files of a bucket or channel go through.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapters::json_file::error::{Fault, Lost};
use crate::adapters::json_file::journal::{self, Header, Patch, Pen, Torn};
use crate::adapters::json_file::names::{self, Ids};
use crate::adapters::json_file::options::JsonFileOptions;
use crate::adapters::json_file::plan::Work;
use crate::adapters::json_file::seal::VERSION;
use crate::adapters::json_file::state::State;
use crate::adapters::json_file::{checkpoint, journal::Lines};
use crate::base::clock::Clock;
use crate::base::disk::{Disk, DiskError, FailStopFile, read, remove, replace};
use crate::base::error::Place;
use crate::base::utc::Utc;
use crate::persistence::Repair;

/// Where everything is, and how it is treated.
#[derive(Debug)]
pub(super) struct Env {
    pub(super) root: PathBuf,
    pub(super) options: JsonFileOptions,
}

impl Env {
    pub(super) fn disk(&self) -> &dyn Disk {
        self.options.disk.as_ref()
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        self.options.clock.as_ref()
    }
}

/// The files of one bucket or channel. Whoever holds it is the only one who touches them.
#[derive(Debug)]
pub(super) struct SubjectFiles {
    env: Arc<Env>,
    pub(super) ids: Ids,
    checkpoint: PathBuf,
    journal: PathBuf,
    known: Known,
    /// After a compaction that failed, the next is tried when the journal has as many bytes.
    patience: u64,
    /// What the last load had to cut, until somebody asks.
    cut: Option<Torn>,
}

/// What is known of the files without reading them.
#[derive(Debug)]
enum Known {
    /// Nothing: they were not read yet, or a write or sync failed since.
    Unknown,
    /// Nothing is stored. Of an interrupted drop or first save there may be remains.
    Nothing { remains: bool },
    /// This is stored.
    Stored(Stored),
}

#[derive(Debug)]
struct Stored {
    generation: u64,
    checkpoint_length: u64,
    pen: Pen,
    /// From here on, lines are written once more before the next one is.
    unattested: Option<u64>,
    /// Nothing may be written behind what is there: the next commit writes a checkpoint.
    closed: bool,
    /// The journal, while it is open.
    file: Option<FailStopFile>,
}

/// What a commit's work left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// There was nothing to do.
    Nothing,
    /// Everything of the subject is durable.
    Durable,
    /// A line was written, which is not synced yet.
    Line(Unsynced),
}

/// The last line that was written and not synced: of which generation, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsynced {
    generation: u64,
    line: u64,
}

impl SubjectFiles {
    pub(super) fn new(env: Arc<Env>, ids: Ids) -> Self {
        let checkpoint = names::checkpoint_file(&env.root, &ids);
        let journal = names::journal_file(&env.root, &ids);
        Self { env, ids, checkpoint, journal, known: Known::Unknown, patience: 0, cut: None }
    }

    /// Forgets what is known, so that the files are read before they are written again.
    pub(super) fn forget(&mut self) {
        self.known = Known::Unknown;
    }

    /// Whether the journal is open.
    pub(super) fn is_open(&self) -> bool {
        matches!(&self.known, Known::Stored(Stored { file: Some(_), .. }))
    }

    /// Whether it is known that there are no files.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.known, Known::Nothing { remains: false })
    }

    /// Reads what is stored; none if nothing is.
    pub(super) fn load<S: State>(&mut self) -> Result<Option<S>, Fault> {
        self.known = Known::Unknown;
        let (state, known, cut) = self.read()?;
        (self.known, self.cut) = (known, cut);
        Ok(state)
    }

    /// The same, for somebody who builds on it: what a killed process wrote without a sync is durable before it is answered.
    pub(super) fn load_durably<S: State>(&mut self) -> Result<Option<S>, Fault> {
        let state = self.load()?;
        if let Known::Stored(stored) = &mut self.known
            && stored.unattested.is_some()
        {
            let synced = sync_lines(self.env.disk(), &self.journal, stored);
            // Nobody counts this file among the open ones.
            stored.file = None;
            if let Err(fault) = synced {
                self.forget();
                return Err(fault);
            }
        }
        Ok(state)
    }

    /// What the last load has repaired; told once.
    pub(super) fn repairs(&mut self) -> Vec<Repair> {
        let repair = |Torn { line, from, to }| {
            let at = Place::new(self.journal.display().to_string()).at(format!("line {line}"));
            Repair::new(
                at,
                format!("torn by an interrupted write, never acknowledged as synced: bytes {from} to {to} are cut"),
            )
        };
        self.cut.take().map(repair).into_iter().collect()
    }

    fn read<S: State>(&self) -> Result<(Option<S>, Known, Option<Torn>), Fault> {
        let disk = self.env.disk();
        let (checkpoint, journal) = (read(disk, &self.checkpoint)?, read(disk, &self.journal)?);
        let Some(journal_text) = journal else {
            return match checkpoint {
                None => Ok((None, Known::Nothing { remains: false }, None)),
                Some(_) => Err(Fault::corrupt(&self.journal, "the journal is missing, its checkpoint is there")),
            };
        };
        let (header, pen) = journal::header(&self.journal, &self.ids, &journal_text)?;
        if header.dropped {
            // Cut short, it would be no whole file, and so no drop that was ever made.
            journal::lines::<S::Stored>(&self.journal, &journal_text, pen)?;
            return Ok((None, Known::Nothing { remains: true }, None));
        }
        let Some(text) = checkpoint else {
            if header.generation > 0 {
                return Err(Fault::corrupt(&self.checkpoint, "the checkpoint is missing, its journal is there"));
            }
            let lines = journal::lines::<S::Stored>(&self.journal, &journal_text, pen)?;
            if lines.saves.is_empty() {
                return Ok((None, Known::Nothing { remains: true }, None));
            }
            return Ok(self.restored(S::default(), 0, 0, lines));
        };
        let (checksum, found) = checkpoint::read::<S>(&self.checkpoint, &self.ids, &text)?;
        let length = text.len() as u64;
        drop(text);
        if header.generation < found.generation {
            // The checkpoint holds all of it; only its replacement was interrupted.
            let stored = Stored {
                generation: found.generation,
                checkpoint_length: length,
                pen,
                unattested: None,
                closed: true,
                file: None,
            };
            return Ok((Some(found.state), Known::Stored(stored), None));
        }
        if header.generation > found.generation || header.follows != Some(checksum) {
            let reason =
                format!("it continues another checkpoint: generation {}, not {}", header.generation, found.generation);
            return Err(Fault::corrupt_line(&self.journal, 1, reason));
        }
        let lines = journal::lines::<S::Stored>(&self.journal, &journal_text, pen)?;
        Ok(self.restored(found.state, found.generation, length, lines))
    }

    fn restored<S: State>(
        &self,
        mut state: S,
        generation: u64,
        checkpoint_length: u64,
        lines: Lines<S::Stored>,
    ) -> (Option<S>, Known, Option<Torn>) {
        lines.saves.iter().for_each(|save| state.apply(S::line(save)));
        if let Some(torn) = lines.torn {
            tracing::debug!(
                file = %self.journal.display(), line = torn.line, from = torn.from, to = torn.to,
                "the end of a journal was torn by an interrupted write that was never acknowledged as synced; it is cut"
            );
        }
        let closed = lines.torn.is_some() || generation == 0;
        let (pen, unattested) = (lines.pen, lines.unattested);
        let stored = Stored { generation, checkpoint_length, pen, unattested, closed, file: None };
        (Some(state), Known::Stored(stored), lines.torn)
    }

    /// Does one commit's work on this subject, as a whole or not at all.
    pub(super) fn save<S: State>(&mut self, work: Work<'_, S>) -> Result<Saved, Fault> {
        let answer = self.try_save(work);
        match &answer {
            // Nothing was written, and what is known is still so.
            Ok(_) | Err(Fault::Refused(_)) => {}
            Err(_) => self.forget(),
        }
        answer
    }

    fn try_save<S: State>(&mut self, work: Work<'_, S>) -> Result<Saved, Fault> {
        let lines = match work {
            Work::Drop => return self.remove().map(|()| Saved::Durable),
            Work::Append(lines) if lines.is_empty() => return Ok(Saved::Nothing),
            Work::Append(lines) => lines,
            Work::Replace(state) => {
                if matches!(self.known, Known::Unknown) {
                    self.load::<S>()?;
                }
                return self.write_checkpoint(&state).map(|()| Saved::Durable);
            }
        };
        let version = lines.iter().map(|line| S::version_of(*line)).max().unwrap_or(VERSION);
        let takes_lines = |stored: &Stored| !stored.closed && stored.pen.version >= version;
        let state: Option<S> = match &self.known {
            Known::Nothing { .. } => None,
            Known::Stored(stored) if takes_lines(stored) => None,
            Known::Stored(_) | Known::Unknown => self.load()?,
        };
        if let Known::Stored(stored) = &mut self.known
            && takes_lines(stored)
        {
            return append(self.env.disk(), &self.journal, stored, &lines).map(Saved::Line);
        }
        let mut state = state.unwrap_or_default();
        lines.into_iter().for_each(|line| state.apply(line));
        self.write_checkpoint(&state).map(|()| Saved::Durable)
    }

    /// Makes a checkpoint what is stored, and begins its journal.
    fn write_checkpoint<S: State>(&mut self, state: &S) -> Result<(), Fault> {
        // Some systems replace no file that is open.
        self.close_file();
        let disk = self.env.disk();
        let generation = match &self.known {
            Known::Stored(stored) => stored.generation + 1,
            Known::Unknown | Known::Nothing { remains: false } => 1,
            Known::Nothing { remains: true } => {
                // Otherwise the old checkpoint would be there again as soon as the journal says something else.
                remove(disk, &self.checkpoint)?;
                1
            }
        };
        if !matches!(self.known, Known::Stored(_)) {
            // From now on a checkpoint without a journal is one whose journal was lost.
            self.begin_journal(&Header { version: VERSION, generation: 0, follows: None, dropped: false })?;
        }
        let saved_at = Utc(self.env.clock().now_ms()).to_string();
        let written = checkpoint::write(disk, &self.checkpoint, &self.ids, generation, &saved_at, state)?;
        // What was to be saved is saved. If the journal cannot begin, the old one is ignored and the next commit writes a
        // checkpoint again.
        let header = Header { version: state.version(), generation, follows: Some(written.checksum), dropped: false };
        self.known = match self.begin_journal(&header) {
            Ok(pen) => Known::Stored(Stored {
                generation,
                checkpoint_length: written.length,
                pen,
                unattested: None,
                closed: false,
                file: None,
            }),
            Err(fault) => {
                let error = fault.into_error("beginning a journal");
                tracing::warn!(file = %self.journal.display(), error = &error as &dyn std::error::Error, "saved, but");
                Known::Unknown
            }
        };
        Ok(())
    }

    fn begin_journal(&self, header: &Header) -> Result<Pen, Fault> {
        let (text, pen) = journal::fresh(&self.ids, header)?;
        replace(self.env.disk(), &self.journal, &text)?;
        Ok(pen)
    }

    /// Removes everything that is stored, readable or not.
    fn remove(&mut self) -> Result<(), Fault> {
        let disk = self.env.disk();
        if matches!(self.known, Known::Nothing { remains: false }) {
            return Ok(());
        }
        self.known = Known::Unknown;
        if exists(disk, &self.checkpoint)? || exists(disk, &self.journal)? {
            // With this the subject is gone, whatever happens to the files that are still there.
            self.begin_journal(&Header { version: VERSION, generation: 0, follows: None, dropped: true })?;
        }
        // The journal may only go once the checkpoint is gone for good.
        let removed = remove(disk, &self.checkpoint).and_then(|_| remove(disk, &self.journal));
        if let Err(error) = &removed {
            let error: &dyn std::error::Error = error;
            tracing::warn!(file = %self.checkpoint.display(), error, "a subject was dropped, but its files are still there");
        }
        self.known = Known::Nothing { remains: removed.is_err() };
        Ok(())
    }

    /// Makes all lines durable. `expected` is the last one that was written without a sync.
    pub(super) fn sync<S: State>(&mut self, expected: Unsynced) -> Result<(), Fault> {
        let answer = self.try_sync::<S>(expected);
        if answer.is_err() {
            self.forget();
        }
        answer
    }

    fn try_sync<S: State>(&mut self, expected: Unsynced) -> Result<(), Fault> {
        let mut state = None;
        if matches!(self.known, Known::Unknown) {
            state = self.load::<S>()?;
        }
        let Known::Stored(stored) = &mut self.known else { return Ok(()) };
        // A later checkpoint holds the line, and was synced.
        if stored.generation != expected.generation {
            return Ok(());
        }
        if stored.pen.next <= expected.line {
            return Err(Fault::Lost(Lost));
        }
        if stored.closed {
            let state = match state {
                Some(state) => state,
                None => self.load::<S>()?.unwrap_or_default(),
            };
            return self.write_checkpoint(&state);
        }
        sync_lines(self.env.disk(), &self.journal, stored)
    }

    /// Writes a checkpoint if the journal has outgrown the last one. What was saved is saved whether or not this succeeds.
    pub(super) fn compact<S: State>(&mut self) {
        let Known::Stored(stored) = &self.known else { return };
        let JsonFileOptions { journal_factor, journal_floor, .. } = self.env.options;
        let limit = stored.checkpoint_length.saturating_mul(journal_factor).max(journal_floor).max(self.patience);
        let bytes = stored.pen.at;
        if bytes <= limit {
            return;
        }
        self.patience = 0;
        let compacted = self.load::<S>().and_then(|state| self.write_checkpoint(&state.unwrap_or_default()));
        if let Err(fault) = compacted {
            self.forget();
            self.patience = bytes.saturating_add(journal_floor);
            let error = fault.into_error("compacting");
            tracing::warn!(
                file = %self.checkpoint.display(), error = &error as &dyn std::error::Error,
                "a checkpoint cannot be written anew; its journal goes on growing"
            );
        }
    }

    /// Writes a checkpoint in place of all lines, and removes what is left of a drop. Answers the bytes of both
    /// files before and after.
    pub(super) fn squeeze<S: State>(&mut self) -> Result<(u64, u64), Fault> {
        let answer = self.try_squeeze::<S>();
        if answer.is_err() {
            self.forget();
        }
        answer
    }

    fn try_squeeze<S: State>(&mut self) -> Result<(u64, u64), Fault> {
        let before = self.length()?;
        let state = self.load::<S>()?;
        match (&self.known, state) {
            (Known::Stored(stored), Some(state)) if stored.closed || !stored.pen.is_fresh() => {
                self.write_checkpoint(&state)?;
            }
            (Known::Nothing { remains: true }, _) => self.remove()?,
            _ => return Ok((before, before)),
        }
        self.patience = 0;
        Ok((before, self.length()?))
    }

    /// The bytes of both files.
    fn length(&self) -> Result<u64, Fault> {
        let mut length = 0;
        for path in [&self.checkpoint, &self.journal] {
            match FailStopFile::open(self.env.disk(), path) {
                Ok(file) => length += file.len()?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(length)
    }

    /// Closes the journal, until it is needed again. Its lines must be synced.
    pub(super) fn close_file(&mut self) {
        if let Known::Stored(stored) = &mut self.known {
            stored.file = None;
        }
    }

    /// Moves both files out of the way and answers where they are.
    pub(super) fn quarantine(&mut self) -> Result<String, Fault> {
        self.known = Known::Unknown;
        let disk = self.env.disk();
        let stamp = Utc(self.env.clock().now_ms()).in_file_name();
        let moved = |path: &Path, suffix: &str| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.with_file_name(format!("{name}.quarantine-{stamp}{suffix}"))
        };
        let mut suffix = String::new();
        let mut count = 1_u64;
        while exists(disk, &moved(&self.checkpoint, &suffix))? || exists(disk, &moved(&self.journal, &suffix))? {
            count += 1;
            suffix = format!("-{count}");
        }
        let mut places = Vec::new();
        for path in [&self.checkpoint, &self.journal] {
            if exists(disk, path)? {
                let to = moved(path, &suffix);
                disk.rename(path, &to).map_err(|error| DiskError::new("move", path, error))?;
                places.push(to.display().to_string());
            }
        }
        if let Some(directory) = self.journal.parent().filter(|_| !places.is_empty()) {
            let synced = disk.sync_dir(directory);
            synced.map_err(|error| DiskError::new("sync", directory, error).maybe_applied())?;
        }
        Ok(places.join(" and "))
    }
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, DiskError> {
    match disk.open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiskError::new("open", path, error)),
    }
}

/// The journal, opened for writing.
fn open<'a>(disk: &dyn Disk, path: &Path, stored: &'a mut Stored) -> Result<&'a FailStopFile, Fault> {
    let file = match stored.file.take() {
        Some(file) => file,
        None => {
            let file = FailStopFile::open(disk, path)?;
            // Room that was added by a write that failed, and was never used.
            if file.len()? > stored.pen.end {
                file.truncate(stored.pen.end)?;
            }
            file
        }
    };
    Ok(stored.file.insert(file))
}

/// The lines that nothing attests, as they stand, to be written once more: a failed sync may have left them in memory only,
/// where the system no longer knows that they have to be written.
fn unattested(file: &FailStopFile, pen: &Pen, from: Option<u64>) -> Result<Option<Patch>, Fault> {
    let Some(at) = from else { return Ok(None) };
    let length = usize::try_from(pen.at.saturating_sub(at)).unwrap_or(usize::MAX);
    Ok(Some(Patch { at, text: file.read(at, length)? }))
}

fn append<C: serde::Serialize>(
    disk: &dyn Disk,
    path: &Path,
    stored: &mut Stored,
    saves: &[C],
) -> Result<Unsynced, Fault> {
    let entry = stored.pen.entry(saves)?;
    let (mut after, from, pen) = (entry.after, stored.unattested, stored.pen.clone());
    let file = open(disk, path, stored)?;
    let again = unattested(file, &pen, from)?;
    if let Some(room) = &entry.room {
        file.write(room.at, &room.text)?;
        file.sync()?;
        if again.is_none() {
            after.synced = after.next - 2;
        }
    }
    let patch = match again {
        Some(mut again) => {
            again.text.extend_from_slice(&entry.line.text);
            again
        }
        None => entry.line,
    };
    file.write(patch.at, &patch.text).map_err(DiskError::maybe_applied)?;
    (stored.pen, stored.unattested) = (after, None);
    Ok(Unsynced { generation: stored.generation, line: stored.pen.next - 1 })
}

fn sync_lines(disk: &dyn Disk, path: &Path, stored: &mut Stored) -> Result<(), Fault> {
    let (from, pen) = (stored.unattested, stored.pen.clone());
    let file = open(disk, path, stored)?;
    if let Some(again) = unattested(file, &pen, from)? {
        file.write(again.at, &again.text).map_err(DiskError::maybe_applied)?;
    }
    file.sync().map_err(DiskError::maybe_applied)?;
    stored.unattested = None;
    stored.pen.synced = stored.pen.next - 1;
    Ok(())
}
