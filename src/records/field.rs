//! What a user says about a field.

use std::fmt;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::value::Value;
use crate::records::check::is_too_deep;
use crate::records::format::Format;
use crate::records::user_code::guarded;

/// What a declared field may hold.
#[derive(Clone)]
#[must_use]
pub struct Field {
    pub(super) kind: Kind,
    pub(super) required: bool,
    pub(super) unique: bool,
    pub(super) default: Option<DefaultRule>,
    pub(super) generated: Option<Generated>,
    pub(super) one_of: Option<Vec<Value>>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
    pub(super) pattern: Option<String>,
    pub(super) format: Option<Format>,
    pub(super) min: Option<Value>,
    pub(super) max: Option<Value>,
}

/// What an absent field becomes.
#[derive(Clone)]
pub(super) enum DefaultRule {
    Value(Value),
    With(Arc<dyn Fn() -> Value + Send + Sync>),
}

impl DefaultRule {
    /// The default for one record.
    ///
    /// # Errors
    /// `UserCode`, if the user's function panics; `InvalidValue`, if its answer is nested too deeply.
    pub(super) fn make(&self, name: &str) -> Result<Value> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::With(make) => {
                let value = guarded("default_with", || make())?;
                if is_too_deep(&value, 1) {
                    let reason = "the default is nested more than 64 levels deep".to_owned();
                    return Err(Error::InvalidValue { path: name.to_owned(), reason });
                }
                Ok(value)
            }
        }
    }
}

/// The kinds of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Int,
    Float,
    Number,
    Bool,
    Bytes,
    Date,
    Object,
    Array,
    Any,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Bytes => "bytes",
            Self::Date => "date",
            Self::Object => "object",
            Self::Array => "array",
            Self::Any => "any",
        }
    }
}

/// Who fills a field that an insert leaves absent or Null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Generated {
    /// A random UUID (version 4, RFC 9562), for strings.
    Uuid,
    /// `c`, the store's clock in milliseconds as 12 hexadecimal digits, and 20 random ones, for strings: sorts by time.
    Cuid,
    /// The store's clock in milliseconds since the Unix epoch, for ints, numbers and dates.
    Timestamp,
    /// The bucket's counter plus 1, the same in all such fields of a record, for ints and numbers.
    Autoincrement,
}

impl Field {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            required: false,
            unique: false,
            default: None,
            generated: None,
            one_of: None,
            min_length: None,
            max_length: None,
            pattern: None,
            format: None,
            min: None,
            max: None,
        }
    }

    /// Unicode text.
    pub fn string() -> Self {
        Self::of(Kind::String)
    }

    /// A whole number; takes a float without a fraction, and stores an Int.
    pub fn int() -> Self {
        Self::of(Kind::Int)
    }

    /// A float; takes an integer that a float can hold exactly, and stores a Float.
    pub fn float() -> Self {
        Self::of(Kind::Float)
    }

    /// An Int or a Float, kept as it is.
    pub fn number() -> Self {
        Self::of(Kind::Number)
    }

    /// True or false.
    pub fn bool() -> Self {
        Self::of(Kind::Bool)
    }

    /// Bytes; takes padded base64 text and lists of numbers from 0 to 255 too.
    pub fn bytes() -> Self {
        Self::of(Kind::Bytes)
    }

    /// Milliseconds since the Unix epoch, or ISO 8601 text such as `2024-01-15T23:30:00-05:00`, kept as it is.
    pub fn date() -> Self {
        Self::of(Kind::Date)
    }

    /// An object; what is in it is not checked.
    pub fn object() -> Self {
        Self::of(Kind::Object)
    }

    /// A list; what is in it is not checked.
    pub fn array() -> Self {
        Self::of(Kind::Array)
    }

    /// Anything.
    pub fn any() -> Self {
        Self::of(Kind::Any)
    }

    /// Neither absent nor Null. `""`, 0 and false are fine.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Only one record may hold a value of it; Nulls never collide.
    pub fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// What an absent field becomes, at an insert, a load or an unset; an explicit Null stays Null. Takes the place of
    /// an earlier default.
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(DefaultRule::Value(value.into()));
        self
    }

    /// As [`default`](Self::default), worked out once for each record that needs it and then checked like any value. A
    /// panic in it refuses the write with [`Error::UserCode`](crate::base::error::Error::UserCode).
    ///
    /// ```
    /// use std::sync::atomic::{AtomicI64, Ordering};
    /// use ractor_persistence::records::Field;
    /// let next = AtomicI64::new(0);
    /// let number = Field::int().default_with(move || next.fetch_add(1, Ordering::Relaxed));
    /// ```
    pub fn default_with<V: Into<Value>>(mut self, make: impl Fn() -> V + Send + Sync + 'static) -> Self {
        self.default = Some(DefaultRule::With(Arc::new(move || make().into())));
        self
    }

    /// Equal to one of these, at least one. Numbers are equal by exact value, whatever their kind.
    pub fn one_of<V: Into<Value>>(mut self, members: impl IntoIterator<Item = V>) -> Self {
        self.one_of = Some(members.into_iter().map(Into::into).collect());
        self
    }

    /// At least so many Unicode scalar values of a string, octets of bytes, items of an array.
    pub fn min_length(mut self, length: usize) -> Self {
        self.min_length = Some(length);
        self
    }

    /// At most so many Unicode scalar values of a string, octets of bytes, items of an array.
    pub fn max_length(mut self, length: usize) -> Self {
        self.max_length = Some(length);
        self
    }

    /// A regular expression, in the syntax of the crate `regex`, that is found somewhere in the string; `^` and `$` tie
    /// it to the ends. Compiled it takes at most 4 MiB.
    pub fn pattern(mut self, regex: impl Into<String>) -> Self {
        self.pattern = Some(regex.into());
        self
    }

    /// A format that the string has.
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// The least value of an `int`, `float`, `number` or `date`, itself allowed. Dates are compared as moments, to the
    /// nanosecond and in UTC where they have no offset; bounds of dates are milliseconds or ISO 8601 text.
    pub fn min(mut self, least: impl Into<Value>) -> Self {
        self.min = Some(least.into());
        self
    }

    /// The greatest value of an `int`, `float`, `number` or `date`, itself allowed; see [`min`](Self::min).
    pub fn max(mut self, greatest: impl Into<Value>) -> Self {
        self.max = Some(greatest.into());
        self
    }

    /// Who fills the field when it is absent or Null; beats a default, and updates leave it alone.
    pub fn generated(mut self, generated: Generated) -> Self {
        self.generated = Some(generated);
        self
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Defaults, members and bounds are contents, and contents do not belong into logs.
        f.debug_struct("Field")
            .field("kind", &self.kind.name())
            .field("required", &self.required)
            .field("unique", &self.unique)
            .field("default", &self.default.is_some())
            .field("generated", &self.generated)
            .field("one_of", &self.one_of.as_ref().map(Vec::len))
            .field("min_length", &self.min_length)
            .field("max_length", &self.max_length)
            .field("pattern", &self.pattern)
            .field("format", &self.format)
            .field("min", &self.min.is_some())
            .field("max", &self.max.is_some())
            .finish()
    }
}
