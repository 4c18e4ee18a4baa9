//! The file beside the database that says who has it open.
//!
//! The holder keeps its file locked for as long as it has the database open, and locks it only after it has been written.
//! So whoever finds it locked reads what the living holder wrote, and never what a killed one left behind.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::base::clock::{Clock, SystemClock};
use crate::base::utc::Utc;

/// More bytes than any holder writes.
const MAX_BYTES: u64 = 256;

fn beside(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(".holder");
    PathBuf::from(name)
}

/// The holder file of a database that this process has open.
#[derive(Debug)]
pub(super) struct Holder {
    path: PathBuf,
    /// Locked until it is dropped.
    _file: File,
}

impl Holder {
    /// Notes that this process holds `database`, whose lock it must have.
    pub(super) fn take(database: &Path) -> io::Result<Self> {
        let path = beside(database);
        let mut file = options().create(true).write(true).truncate(true).open(&path)?;
        let since = Utc(SystemClock.now_ms());
        file.write_all(format!("pid {}\nsince {since}\n", std::process::id()).as_bytes())?;
        // A reader that is just finding out whether a holder lives has it for a moment.
        file.lock()?;
        Ok(Self { path, _file: file })
    }

    /// Removes the file. Must come before the database's lock goes: after that, the file may be the next holder's.
    pub(super) fn release(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

fn options() -> OpenOptions {
    #[allow(unused_mut, reason = "only Unix has modes")]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Who holds `database`, which must have been found locked; none if that cannot be told.
pub(super) fn holder_of(database: &Path) -> Option<String> {
    let file = File::open(beside(database)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let (pid, since) = text.strip_suffix('\n')?.split_once('\n')?;
    let pid: u32 = pid.strip_prefix("pid ")?.parse().ok()?;
    let since = since.strip_prefix("since ").filter(|since| since.len() < 40 && !since.contains(char::is_control))?;
    Some(format!("process {pid} since {since}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_holder_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("a.redb");
        assert_eq!(holder_of(&database), None);
        fs::write(beside(&database), "pid 1\nsince 2026-01-02T03:04:05.678Z\n").unwrap();
        assert_eq!(holder_of(&database), None, "a killed holder's file is not locked");

        let holder = Holder::take(&database).unwrap();
        let told = holder_of(&database).unwrap();
        assert!(told.starts_with(&format!("process {} since 2", std::process::id())), "{told}");
        holder.release().unwrap();
        assert_eq!(holder_of(&database), None);
        assert!(!beside(&database).exists());
    }

    #[test]
    fn what_no_holder_wrote_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("a.redb");
        let holder = Holder::take(&database).unwrap();
        for text in ["", "pid 1", "pid x\nsince now\n", "pid 1\nsince \u{1b}[31m\n", &"pid 1\nsince 2\n".repeat(50)] {
            fs::write(beside(&database), text).unwrap();
            assert_eq!(holder_of(&database), None, "{text:?}");
        }
        holder.release().unwrap();
    }
}
