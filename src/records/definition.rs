//! What a user says about a bucket.

use std::fmt;

use crate::base::value::Value;

/// Most fields that a bucket can declare.
pub const MAX_FIELDS: usize = 1_024;
/// Most indexes of a bucket, the unique fields' included.
pub const MAX_INDEXES: usize = 64;
/// Most paths of one index.
pub const MAX_INDEX_PATHS: usize = 8;

/// What a bucket is to be: its name, key, fields and indexes. Faults are found, all at once, when it is defined.
///
/// ```
/// use ractor_persistence::records::{BucketDefinition, Field, Generated};
/// let users = BucketDefinition::new("users")
///     .key("id")
///     .field("id", Field::string().generated(Generated::Uuid))
///     .field("email", Field::string().required().unique())
///     .field("role", Field::string().default("user"))
///     .index(["role"]);
/// assert_eq!(users.name(), "users");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct BucketDefinition {
    pub(super) name: String,
    pub(super) key: Option<String>,
    pub(super) fields: Vec<(String, Field)>,
    pub(super) indexes: Vec<IndexDefinition>,
    pub(super) persistent: bool,
    pub(super) ordered: bool,
    pub(super) schema_version: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexDefinition {
    pub(super) paths: Vec<String>,
    pub(super) unique: bool,
}

impl BucketDefinition {
    /// A bucket of this name: 1 to 128 bytes of Unicode without control characters, compared byte for byte.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key: None,
            fields: Vec::new(),
            indexes: Vec::new(),
            persistent: true,
            ordered: false,
            schema_version: 1,
        }
    }

    /// The name that was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The primary key: a declared `int` or `string` field, required without saying so. Must be given.
    pub fn key(mut self, field: impl Into<String>) -> Self {
        self.key = Some(field.into());
        self
    }

    /// Declares a field: a name of 1 to 128 bytes without `.`, none of the metadata names; at most 1,024 fields.
    pub fn field(mut self, name: impl Into<String>, field: Field) -> Self {
        self.fields.push((name.into(), field));
        self
    }

    /// A sorted index over 1 to 8 paths, whose first names are declared; at most 64 indexes.
    pub fn index<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.indexes.push(IndexDefinition { paths: paths.into_iter().map(Into::into).collect(), unique: false });
        self
    }

    /// An index whose values only one record may hold; Nulls never collide.
    pub fn unique_index<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.indexes.push(IndexDefinition { paths: paths.into_iter().map(Into::into).collect(), unique: true });
        self
    }

    /// The bucket's order is the order of its keys; by default it is that of insertion.
    pub fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    /// Whether the bucket is saved and loaded; default: yes, given an adapter. What an opted-out bucket's name has on
    /// disk stays untouched.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// The version of this definition; default 1, at least 1. Stored records of a later one are refused.
    pub fn schema_version(mut self, version: u32) -> Self {
        self.schema_version = version;
        self
    }
}

/// What a declared field may hold.
#[derive(Clone)]
#[must_use]
pub struct Field {
    pub(super) kind: Kind,
    pub(super) required: bool,
    pub(super) unique: bool,
    pub(super) default: Option<Value>,
    pub(super) generated: Option<Generated>,
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
    /// The store's clock in milliseconds since the Unix epoch, for ints, numbers and dates.
    Timestamp,
    /// The bucket's counter plus 1, the same in all such fields of a record, for ints and numbers.
    Autoincrement,
}

impl Field {
    fn of(kind: Kind) -> Self {
        Self { kind, required: false, unique: false, default: None, generated: None }
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

    /// What an absent field becomes; an explicit Null stays Null.
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
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
        // A default is contents, and contents do not belong into logs.
        f.debug_struct("Field")
            .field("kind", &self.kind.name())
            .field("required", &self.required)
            .field("unique", &self.unique)
            .field("default", &self.default.is_some())
            .field("generated", &self.generated)
            .finish()
    }
}
