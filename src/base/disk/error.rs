//! What went wrong on disk.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Outcome, Plain};

/// A failed call of the file system: what was done to which file, and whether it may have happened nonetheless.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", Plain(path.display()))]
pub struct DiskError {
    verb: &'static str,
    path: PathBuf,
    outcome: Outcome,
    source: io::Error,
}

/// The file is not used any more after the failure of an earlier write or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an earlier write or sync of this file failed; it must be opened again")]
struct Latched;

impl DiskError {
    /// A failure that changed nothing that counts.
    pub fn new(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self { verb, path: path.to_path_buf(), outcome: Outcome::NotApplied, source }
    }

    pub(super) fn latched(verb: &'static str, path: &Path) -> Self {
        Self::new(verb, path, io::Error::other(Latched))
    }

    /// The same failure, of something that may have happened nonetheless.
    #[must_use]
    pub fn maybe_applied(mut self) -> Self {
        self.outcome = Outcome::Unknown;
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the file refused because an earlier write or sync of it had failed.
    pub fn is_latched(&self) -> bool {
        self.source.get_ref().is_some_and(|inner| inner.is::<Latched>())
    }

    /// The failure as the crate's error, of an operation that needed this call: `Unknown` if it may have happened
    /// nonetheless, `Permanent` for what does not pass by itself, else `Transient`.
    pub fn into_error(self, operation: impl Into<String>) -> Error {
        use io::ErrorKind as Kind;
        if self.outcome == Outcome::Unknown {
            return Error::unknown(operation, self);
        }
        match self.source.kind() {
            Kind::PermissionDenied
            | Kind::ReadOnlyFilesystem
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::InvalidFilename
            | Kind::InvalidInput
            | Kind::FileTooLarge
            | Kind::Unsupported => Error::permanent(operation, self),
            _ => Error::transient(operation, self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_becomes_what_the_caller_can_do_about_it() {
        let failed = |kind: io::ErrorKind| DiskError::new("write", Path::new("/a"), kind.into());
        assert!(matches!(failed(io::ErrorKind::StorageFull).into_error("saving"), Error::Transient { .. }));
        assert!(matches!(failed(io::ErrorKind::PermissionDenied).into_error("saving"), Error::Permanent { .. }));
        let unknown = failed(io::ErrorKind::PermissionDenied).maybe_applied().into_error("saving");
        assert!(matches!(unknown, Error::Unknown { .. }));
        assert_eq!(failed(io::ErrorKind::Other).to_string(), "cannot write /a");
        assert!(DiskError::latched("write", Path::new("/a")).is_latched());
    }
}
