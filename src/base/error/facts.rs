//! The plain facts that errors carry, and what is told of a failure that nobody waited for.

use std::fmt;

use crate::base::error::{Error, Plain};
use crate::base::name::Subject;
use crate::base::value::Key;

/// One fault of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issue {
    /// The path of the field.
    pub field: String,
    /// What kind of fault.
    pub code: IssueCode,
    /// The fault in words, without the field's contents.
    pub message: String,
}

impl Issue {
    /// Puts a fault together.
    pub fn new(field: impl Into<String>, code: IssueCode, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, message: message.into() }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", Plain(&self.field), Plain(&self.message), self.code)
    }
}

/// The kinds of faults that a field can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IssueCode {
    /// A required field is absent or Null.
    Required,
    /// The value is of another kind than declared, or none that can be stored.
    Type,
    /// None of the values that are allowed.
    Enum,
    /// Too short.
    MinLength,
    /// Too long.
    MaxLength,
    /// The regular expression is not found in it.
    Pattern,
    /// Not in the format that is asked for.
    Format,
    /// Below the least that is allowed.
    Min,
    /// Above the most that is allowed, or that a number can be.
    Max,
}

impl fmt::Display for IssueCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Type => "type",
            Self::Enum => "enum",
            Self::MinLength => "minLength",
            Self::MaxLength => "maxLength",
            Self::Pattern => "pattern",
            Self::Format => "format",
            Self::Min => "min",
            Self::Max => "max",
        })
    }
}

/// A stored record that does not fit a definition.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misfit {
    /// The record's key, which neither `Display` nor `Debug` shows.
    #[debug(skip)]
    pub key: Key,
    /// Why it does not fit, without what it holds.
    pub reason: String,
}

impl Misfit {
    /// Puts a misfit together.
    pub fn new(key: Key, reason: impl Into<String>) -> Self {
        Self { key, reason: reason.into() }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Plain(&self.reason))
    }
}

/// What is known about the effect of a call that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It never reached the actor.
    NotApplied,
    /// Applied, or not, or yet to be: a plain repeat may apply it twice.
    Unknown,
}

impl Outcome {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NotApplied => "; it was not applied",
            Self::Unknown => "; it may have been applied",
        }
    }
}

/// A place in stored data: a file or table, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The file or table.
    pub container: String,
    /// The line, byte offset or key in it, where that is known.
    pub position: Option<String>,
}

impl Place {
    /// Somewhere in a file or table.
    pub fn new(container: impl Into<String>) -> Self {
        Self { container: container.into(), position: None }
    }

    /// Narrows the place down, to `"line 3"` or `"byte 512"`.
    #[must_use]
    pub fn at(mut self, position: impl Into<String>) -> Self {
        self.position = Some(position.into());
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Plain(&self.container))?;
        match &self.position {
            Some(position) => write!(f, ", {}", Plain(position)),
            None => Ok(()),
        }
    }
}

/// Something failed for a subject while nobody was waiting for it: what `on_error` is told.
///
/// Shown, it is one line that ends with what stands behind the error ([`Error::report`]).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The bucket or channel, or none where the store as a whole is meant.
    pub subject: Option<Subject>,
    /// What was being done: `"save"`, `"load"`, `"drop"`, `"close"`, `"restart"`, `"upkeep"` where an adapter has found
    /// damage without being asked to look for it, `"subscriber"` where a subscriber's code panicked or has not kept up, or
    /// `"bridge"` where a bridge dropped an event.
    pub operation: &'static str,
    /// What went wrong.
    pub error: Error,
    /// How often it has been tried in a row, from 1.
    pub attempt: u32,
}

impl Failure {
    /// Puts a failure together.
    pub fn new(subject: Option<Subject>, operation: &'static str, error: Error, attempt: u32) -> Self {
        Self { subject, operation, error, attempt }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if let Some(subject) = &self.subject {
            write!(f, " of {subject}")?;
        }
        write!(f, " failed (attempt {}): {}", self.attempt, self.error.report())
    }
}
