//! What a promise says when it has been examined.

use std::fmt;
use std::panic::Location;

use crate::base::error::Error;

/// `Ok` if a promise holds.
pub type Verdict<T = ()> = Result<T, Broken>;

/// What was found instead of what was promised, and which line of the kit noticed.
#[derive(Clone, Debug)]
pub struct Broken {
    message: String,
    at: &'static Location<'static>,
}

impl Broken {
    /// Says what was found instead.
    #[track_caller]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: Location::caller() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.message, self.at.file(), self.at.line())
    }
}

impl std::error::Error for Broken {}

/// Turns an adapter's error into a broken promise.
pub(super) trait Doing<T> {
    /// `what` was being done, and had to succeed.
    fn doing(self, what: impl fmt::Display) -> Verdict<T>;
}

impl<T> Doing<T> for Result<T, Error> {
    #[track_caller]
    fn doing(self, what: impl fmt::Display) -> Verdict<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(Broken::new(format!("{what} failed: {}", with_causes(&error)))),
        }
    }
}

/// The error's text and its causes'.
pub(super) fn with_causes(error: &Error) -> String {
    error.report().to_string()
}

/// Leaves a promise as broken unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::testkit::Broken::new(format!($($message)+)));
        }
    };
}
pub(super) use ensure;
