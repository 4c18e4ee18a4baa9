//! What a user says about a bucket.

use std::fmt::Display;

use crate::base::value::Object;
use crate::records::field::Field;
use crate::records::migrate::Step;
use crate::records::ttl::Ttl;

/// Most fields that a bucket can declare.
pub const MAX_FIELDS: usize = 1_024;
/// Most indexes of a bucket, the unique fields' included.
pub const MAX_INDEXES: usize = 64;
/// Most paths of one index.
pub const MAX_INDEX_PATHS: usize = 8;
/// How many request ids a bucket remembers by default.
pub const DEFAULT_REQUEST_WINDOW: usize = 1_024;
/// Most request ids that a bucket can remember.
pub const MAX_REQUEST_WINDOW: usize = 65_536;

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
    pub(super) steps: Vec<Step>,
    pub(super) ttl: Option<Ttl>,
    pub(super) max_size: Option<usize>,
    pub(super) request_window: usize,
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
            steps: Vec::new(),
            ttl: None,
            max_size: None,
            request_window: DEFAULT_REQUEST_WINDOW,
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

    /// The version of this definition; default 1, at least 1. Stored records of a later one are refused, those of an
    /// earlier one go through the steps of [`migrate`](Self::migrate).
    pub fn schema_version(mut self, version: u32) -> Self {
        self.schema_version = version;
        self
    }

    /// A step that turns a stored record of schema version `from` into one of `from + 1`; at most one for each version
    /// from 1 to below [`schema_version`](Self::schema_version), and a missing one changes nothing.
    ///
    /// It is given the record's fields, its key under the name of the key field, and its metadata, and answers the
    /// fields of the next version or why it cannot. What it leaves under the name of the key field is the record's key;
    /// metadata and the place in the bucket are kept, whatever it answers of them. It should depend on nothing but the
    /// record: a load that fails is repeated from the start. An error or panic of it fails the load with
    /// [`Error::Migration`](crate::base::error::Error::Migration).
    ///
    /// ```
    /// use ractor_persistence::base::value::Object;
    /// use ractor_persistence::records::{BucketDefinition, Field};
    /// let users = BucketDefinition::new("users")
    ///     .key("id")
    ///     .field("id", Field::int())
    ///     .field("name", Field::string().required())
    ///     .schema_version(2)
    ///     .migrate(1, |mut user: Object| {
    ///         let name = user.remove("nick").ok_or("has no nick")?;
    ///         user.insert("name", name);
    ///         Ok::<_, &str>(user)
    ///     });
    /// ```
    pub fn migrate<F, E>(mut self, from: u32, step: F) -> Self
    where
        F: Fn(Object) -> Result<Object, E> + Send + Sync + 'static,
        E: Display,
    {
        self.steps.push(Step::new(from, step));
        self
    }

    /// How long a record lives unless it says so itself in `_expires_at`: a [`Duration`](std::time::Duration), or a text
    /// such as `"10m"`, see [`Ttl`]. At least 1 ms; default: for ever.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// Most records that the bucket holds, at least 1; beyond that the oldest go. Default: no bound.
    pub fn max_size(mut self, records: usize) -> Self {
        self.max_size = Some(records);
        self
    }

    /// How many request ids of successful writes the bucket remembers; default 1,024, at most 65,536, 0 turns it off.
    pub fn request_window(mut self, ids: usize) -> Self {
        self.request_window = ids;
        self
    }
}
