//! What goes wrong with a subject's files, before it becomes the crate's error at the door.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::base::disk::DiskError;
use crate::base::error::{Error, Place};

/// A failure, of whatever was being done with the files.
#[derive(Debug)]
pub(super) enum Fault {
    Disk(DiskError),
    /// Bytes that are not what was written; `line` counts from 1.
    Corrupt {
        path: PathBuf,
        line: Option<u64>,
        reason: String,
    },
    /// Bytes of a version that is not known.
    Version {
        path: PathBuf,
        format: String,
        found: u64,
        /// The highest one that is known.
        known: u64,
    },
    /// Something that JSON cannot hold was to be saved; nothing was written.
    Refused(Refused),
    /// What was written without a sync is not there any more.
    Lost(Lost),
}

/// Why something cannot be saved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the number at {0:?} is not finite")]
    NotFinite(String),
    #[error("it cannot be written as JSON")]
    Json,
    #[error("it is larger than a file can be")]
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes that were written without a sync are not in the journal any more")]
pub(super) struct Lost;

/// The directory was left when the last claim was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotOpen {
    #[error("the adapter is closed until a store is claimed")]
    Closed,
    #[error("the store is not claimed")]
    NotClaimed,
}

/// Why nothing can be copied to a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadTarget {
    #[error("a backup needs a path that ends with a name, not {}", .0.display())]
    NoName(PathBuf),
    #[error("something is at {} already", .0.display())]
    Taken(PathBuf),
    #[error("{} is inside of the directory that is to be copied", .0.display())]
    Inside(PathBuf),
}

impl From<DiskError> for Fault {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Fault {
    pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), line: None, reason: reason.into() }
    }

    pub(super) fn corrupt_line(path: &Path, line: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), line: Some(line), reason: reason.into() }
    }

    /// The crate's error for a failed operation.
    pub(super) fn into_error(self, operation: &str) -> Error {
        match self {
            Self::Disk(error) => error.into_error(operation),
            Self::Corrupt { path, line, reason } => {
                let place = Place::new(path.display().to_string());
                let place = if let Some(line) = line { place.at(format!("line {line}")) } else { place };
                Error::corrupt(place, reason)
            }
            Self::Version { path, format, found, known } => {
                Error::UnknownFormat { format, at: Place::new(path.display().to_string()), found, known }
            }
            Self::Refused(refused) => Error::permanent(operation, refused),
            Self::Lost(lost) => Error::unknown(operation, lost),
        }
    }
}

/// Deepest nesting of a text: a wrapped value of the deepest kind, and what stands around it in a line.
const MAX_NESTING: usize = 160;

/// Reads JSON whose seal is intact. The reason of a failure says where, never what.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    if nesting(text) > MAX_NESTING {
        return Err("it is nested too deeply".to_owned());
    }
    // serde_json's own limit of 128 is below what wrapped values need; the one above stands in for it.
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    deserializer.disable_recursion_limit();
    let read = T::deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    read.map_err(|error| format!("it is not as expected at line {}, column {}", error.line(), error.column()))
}

fn nesting(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_outside_of_texts() {
        assert_eq!(nesting(br#"{"a":[1,{"b\"[{":"[[["}]}"#), 3);
        let deep = "[".repeat(100_000);
        assert!(parse::<serde::de::IgnoredAny>(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_failure_to_read_does_not_repeat_what_was_read() {
        let reason = parse::<Vec<u8>>(br#"["secret"]"#).unwrap_err();
        assert!(!reason.contains("secret"), "{reason}");
    }
}
