//! Copying everything that a snapshot holds into a file of its own.

use std::path::Path;

use redb::{MultimapTableHandle, ReadTransaction, TableHandle, WriteTransaction};

use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::file;
use crate::adapters::redb::load;
use crate::adapters::redb::rows::Definition;
use crate::base::error::{Error, Place};

/// A transaction ends behind so many bytes, because redb keeps what is not committed in memory.
const TRANSACTION: usize = 32 << 20;

/// Copies to `target`, which must be free; answers how many bytes the new file has.
pub(super) fn copy(snapshot: &ReadTransaction, target: &Path) -> Result<u64, Fault> {
    // A failure of the copy's own file says nothing of the one that is copied.
    let of_copy = |fault: Fault| Fault::Own(fault.into_read_error("copying the database", target));
    file::create_copy(target, |db| {
        let mut multimaps = snapshot.list_multimap_tables()?;
        if let Some(unknown) = multimaps.next() {
            return Err(Error::corrupt(Place::new(unknown.name()), "no table of ours is of that type").into());
        }
        let begin = || db.begin_write().map_err(|error| of_copy(error.into()));
        let commit = |txn: WriteTransaction| txn.commit().map_err(|error| of_copy(error.into()));
        let mut txn = begin()?;
        let mut pending = 0;
        for table in snapshot.list_tables()? {
            let name = table.name();
            // Also where there are no rows: a table that is there says something.
            open(&txn, name).map_err(of_copy)?;
            let Some(from) = load::open(snapshot, name)? else { continue };
            let mut rows = from.range::<&[u8]>(..)?;
            let mut more = true;
            while more {
                (more, pending) = fill(&txn, name, &mut rows, pending, of_copy)?;
                if more {
                    commit(txn)?;
                    txn = begin()?;
                    pending = 0;
                }
            }
        }
        file::rename_self(&txn).map_err(of_copy)?;
        commit(txn)
    })
}

fn open<'txn>(txn: &'txn WriteTransaction, name: &str) -> Result<crate::adapters::redb::rows::Table<'txn>, Fault> {
    Ok(txn.open_table(Definition::new(name))?)
}

/// Copies rows until the transaction has grown large, and answers whether there may be more, and how large it is.
fn fill(
    txn: &WriteTransaction,
    name: &str,
    rows: &mut redb::Range<'_, &'static [u8], &'static [u8]>,
    pending: usize,
    of_copy: impl Fn(Fault) -> Fault,
) -> Result<(bool, usize), Fault> {
    let mut table = open(txn, name).map_err(&of_copy)?;
    let mut pending = pending;
    for entry in rows {
        let (key, row) = entry?;
        table.insert(key.value(), row.value()).map_err(|error| of_copy(error.into()))?;
        pending += key.value().len() + row.value().len();
        if pending >= TRANSACTION {
            return Ok((true, pending));
        }
    }
    Ok((false, pending))
}
