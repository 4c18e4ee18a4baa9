//! The file: its birth, opening, closing, and the row that says that it is ours.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, WriteTransaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::adapters::redb::fault::{Fault, guarded};
use crate::adapters::redb::holder::{Holder, holder_of};
use crate::adapters::redb::journal;
use crate::adapters::redb::load;
use crate::adapters::redb::options::RedbOptions;
use crate::adapters::redb::rows::{self, Definition, Shelf};
use crate::base::clock::{Clock, SystemClock};
use crate::base::error::{Error, Place, Result};

/// The layout of tables and keys of a file that never had a journal.
const BEFORE_JOURNAL: u32 = 1;
/// That of one which may have one, and the highest that this crate reads.
const FILE_FORMAT: u32 = 2;
const FILE_FORMAT_NAME: &str = "redb file";
const META_KEY: &[u8] = b"store";

#[derive(Serialize, Deserialize)]
struct MetaRow {
    id: String,
    format: u32,
    created_at: i64,
}

/// An open file.
pub(super) struct OpenFile {
    pub(super) db: Database,
    /// The id that the file was born with.
    pub(super) id: Uuid,
    /// Whether its meta row says that it may have a journal.
    pub(super) journalled: bool,
    /// About how many bytes its journal had when it was opened.
    pub(super) unfolded: u64,
    holder: Option<Holder>,
}

impl OpenFile {
    /// Closes the file; its lock is free afterwards. What could not be tidied up is reported as an event.
    pub(super) fn close(self, path: &Path) {
        if let Some(Err(error)) = self.holder.map(Holder::release) {
            tracing::warn!(path = %path.display(), %error, "the holder file could not be removed");
        }
        if let Err(panic) = guarded(|| drop(self.db)) {
            tracing::warn!(path = %path.display(), %panic, "closing the database failed; it is repaired when opened");
        }
    }
}

/// Opens the file, making it if it is not there.
pub(super) fn open_or_create(path: &Path, options: &RedbOptions) -> Result<OpenFile> {
    match fs::symlink_metadata(path) {
        Ok(_) => open(path, options),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, options),
        Err(error) => Err(io_error("looking for", path, error)),
    }
}

/// Opens a file that must be there.
pub(super) fn open(path: &Path, options: &RedbOptions) -> Result<OpenFile> {
    let file =
        OpenOptions::new().read(true).write(true).open(path).map_err(|error| io_error("opening", path, error))?;
    let length = file.metadata().map_err(|error| io_error("looking at", path, error))?.len();
    // redb would make a new database of an empty file, and nobody would learn that the old one is gone.
    if length == 0 {
        return Err(damaged(path, "the file is empty"));
    }
    let db = database(path, file, options)?;
    let (id, format) = identify(path, &db)?;
    let journalled = format == FILE_FORMAT;
    let unfolded = if journalled { unfolded(path, &db) } else { 0 };
    Ok(OpenFile { journalled, unfolded, ..hold(path, db, id) })
}

fn hold(path: &Path, db: Database, id: Uuid) -> OpenFile {
    let holder = Holder::take(path).map_err(|error| {
        tracing::warn!(path = %path.display(), %error, "the holder file could not be written");
    });
    OpenFile { db, id, journalled: false, unfolded: 0, holder: holder.ok() }
}

/// About how many bytes are in the journal. Where that cannot be told there is something: whoever needs it is told why.
fn unfolded(path: &Path, db: &Database) -> u64 {
    let bytes = guarded(|| -> Result<u64, Fault> {
        let txn = db.begin_read()?;
        load::open(&txn, rows::JOURNAL)?.map_or(Ok(0), |table| journal::bytes(&table))
    });
    match bytes {
        Ok(Ok(bytes)) => bytes,
        unreadable => {
            tracing::warn!(path = %path.display(), ?unreadable, "the journal cannot be looked through");
            1
        }
    }
}

/// Makes the file under another name and gives it its own once it is complete, so that no incomplete file ever has it.
fn create(path: &Path, options: &RedbOptions) -> Result<OpenFile> {
    let sync = |path: &Path| sync_directory(path).map_err(|error| io_error("creating", path, error));
    let born =
        bear(path, options, sync, found).map_err(|fault| fault.into_read_error("creating the database", path))?;
    match born {
        Some((db, id)) => Ok(hold(path, db, id)),
        // Somebody else was first.
        None => open(path, options),
    }
}

/// Makes a file at `path` of what `fill` puts into it, synced and complete or not at all; answers its length.
pub(super) fn create_copy(path: &Path, fill: impl FnOnce(&Database) -> Result<(), Fault>) -> Result<u64, Fault> {
    copy_synced_by(path, sync_directory, fill)
}

/// The same with another way to sync the directory of a path.
pub(super) fn copy_synced_by(
    path: &Path,
    sync: impl FnOnce(&Path) -> io::Result<()>,
    fill: impl FnOnce(&Database) -> Result<(), Fault>,
) -> Result<u64, Fault> {
    let taken = || Error::InvalidArgument { reason: format!("there is something at {} already", path.display()) };
    match fs::symlink_metadata(path) {
        Ok(_) => return Err(taken().into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("looking for", path, error).into()),
    }
    // Nobody else knows of the copy yet, so one whose name may not last can still be taken back.
    let sync = |path: &Path| sync(path).map_err(|error| withdraw(path, error));
    let Some((db, ())) = bear(path, &RedbOptions::default(), sync, fill)? else { return Err(taken().into()) };
    // What closing it could not tidy up is put right when it is opened.
    if let Err(panic) = guarded(|| drop(db)) {
        tracing::warn!(path = %path.display(), %panic, "closing the copy failed; it is repaired when opened");
    }
    Ok(fs::metadata(path).map_err(|error| io_error("measuring", path, error))?.len())
}

/// Removes a copy whose directory could not be synced, and answers what its caller is told of that.
fn withdraw(path: &Path, error: io::Error) -> Error {
    match fs::remove_file(path) {
        Ok(()) => io_error("syncing the directory of", path, error),
        Err(left) => {
            tracing::warn!(path = %path.display(), error = %left, "a copy whose directory was not synced stays behind");
            Error::unknown(format!("copying to {}", path.display()), error)
        }
    }
}

/// A file that has not got its name yet. Dropped before that, also by a panic, it is removed.
struct Unborn(PathBuf);

impl Drop for Unborn {
    fn drop(&mut self) {
        // One that was born has another name by now.
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "an unfinished database could not be removed");
        }
    }
}

/// A new database that `fill` has filled, at `path`; none if that name is taken by then. It is left there if only `sync`,
/// which makes the name last, fails. Otherwise nothing is left behind.
fn bear<T>(
    path: &Path,
    options: &RedbOptions,
    sync: impl FnOnce(&Path) -> Result<()>,
    fill: impl FnOnce(&Database) -> Result<T, Fault>,
) -> Result<Option<(Database, T)>, Fault> {
    let mut name = OsString::from(path);
    name.push(format!(".new-{}", Uuid::new_v4()));
    let unborn = Unborn(PathBuf::from(name));
    let mut new = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut new, 0o600);
    let file = new.read(true).write(true).create_new(true).open(&unborn.0);
    let db = database(&unborn.0, file.map_err(|error| io_error("creating", path, error))?, options)?;
    let filled = fill(&db)?;
    if !publish(&unborn.0, path).map_err(|error| io_error("creating", path, error))? {
        return Ok(None);
    }
    sync(path)?;
    Ok(Some((db, filled)))
}

/// Writes the tables and the row that every file of ours has.
fn found(db: &Database) -> Result<Uuid, Fault> {
    let id = Uuid::new_v4();
    let txn = db.begin_write()?;
    for table in rows::BORN_WITH {
        txn.open_table(Definition::new(table))?;
    }
    {
        let mut table = txn.open_table(Definition::new(rows::META))?;
        let row = MetaRow { id: id.to_string(), format: BEFORE_JOURNAL, created_at: SystemClock.now_ms() };
        Shelf::new(&rows::META_ROW, rows::META).put(&mut table, META_KEY, &row)?;
    }
    txn.commit()?;
    Ok(id)
}

/// Says in the meta row that there may be a journal, so that nothing that does not know of it opens the file.
pub(super) fn begin_journal(txn: &WriteTransaction) -> Result<(), Fault> {
    change_meta(txn, |row| row.format = FILE_FORMAT)
}

/// Makes the file another one than that whose rows it has.
pub(super) fn rename_self(txn: &WriteTransaction) -> Result<(), Fault> {
    change_meta(txn, |row| row.id = Uuid::new_v4().to_string())
}

fn change_meta(txn: &WriteTransaction, change: impl FnOnce(&mut MetaRow)) -> Result<(), Fault> {
    let mut table = txn.open_table(Definition::new(rows::META))?;
    let mut shelf = Shelf::new(&rows::META_ROW, rows::META);
    let row: Option<MetaRow> = shelf.get(&table, META_KEY)?;
    let Some(mut row) = row else {
        return Err(Error::corrupt(shelf.place(META_KEY), "the row is missing").into());
    };
    change(&mut row);
    shelf.put(&mut table, META_KEY, &row)
}

/// Gives a complete file its name, and answers whether that was free.
fn publish(unborn: &Path, path: &Path) -> io::Result<bool> {
    // A link never replaces anything, unlike a rename: two processes may be here at once.
    match fs::hard_link(unborn, path) {
        // The other name. If it stays, whoever made it tries again, and tells.
        Ok(()) => drop(fs::remove_file(unborn)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        // Not every file system has links.
        Err(_) if fs::symlink_metadata(path).is_ok() => return Ok(false),
        Err(_) => fs::rename(unborn, path)?,
    }
    Ok(true)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Directories cannot be synced here; the file system keeps its entries itself.
#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

fn database(path: &Path, file: File, options: &RedbOptions) -> Result<Database> {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes);
    let opened = guarded(|| {
        #[cfg(test)]
        if let Some(faults) = &options.faults {
            return builder.create_with_backend(faults.backend(file)?);
        }
        #[cfg(test)]
        if let Some(medium) = &options.medium {
            return builder.create_with_backend(medium.backend(file));
        }
        builder.create_file(file)
    });
    match opened {
        Err(panic) => Err(damaged(path, panic.to_string())),
        Ok(Ok(db)) => Ok(db),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
            Err(Error::Locked { path: path.to_owned(), holder: holder_of(path) })
        }
        Ok(Err(DatabaseError::UpgradeRequired(found))) => Err(Error::UnknownFormat {
            format: "redb".to_owned(),
            at: Place::new(path.display().to_string()),
            found: found.into(),
            known: 3,
        }),
        Ok(Err(DatabaseError::Storage(StorageError::Corrupted(reason)))) => Err(damaged(path, reason)),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) => Err(io_error("opening", path, error)),
        Ok(Err(error)) => Err(Error::permanent(format!("opening {}", path.display()), error)),
    }
}

/// Reads the row that every file of ours has.
fn identify(path: &Path, db: &Database) -> Result<(Uuid, u32)> {
    let row = guarded(|| -> Result<Option<MetaRow>, Fault> {
        let txn = db.begin_read()?;
        let Some(table) = load::open(&txn, rows::META)? else { return Ok(None) };
        Shelf::new(&rows::META_ROW, rows::META).get(&table, META_KEY)
    });
    let row = row.map_err(|panic| damaged(path, panic.to_string()))?;
    let row = row.map_err(|fault| fault.into_read_error(&format!("opening {}", path.display()), path))?;
    let Some(MetaRow { id, format, .. }) = row else {
        return Err(damaged(path, "the row that every store's file has is missing"));
    };
    if !(BEFORE_JOURNAL..=FILE_FORMAT).contains(&format) {
        return Err(Error::UnknownFormat {
            format: FILE_FORMAT_NAME.to_owned(),
            at: Place::new(path.display().to_string()),
            found: format.into(),
            known: FILE_FORMAT.into(),
        });
    }
    let id = Uuid::parse_str(&id).map_err(|error| damaged(path, error.to_string()))?;
    Ok((id, format))
}

fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::corrupt(Place::new(path.display().to_string()), reason)
}

fn io_error(verb: &str, path: &Path, error: io::Error) -> Error {
    let operation = format!("{verb} {}", path.display());
    match error.kind() {
        // What redb and the file system say of files that end too early or are no databases at all.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(path, error.to_string()),
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename => Error::permanent(operation, error),
        _ => Error::transient(operation, error),
    }
}
