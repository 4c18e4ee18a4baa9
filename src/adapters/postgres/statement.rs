//! What is asked of the server, in SQL.

/// A statement that is prepared once per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sql {
    LockEpoch,
    Claim,
    SaveHeader,
    SaveRecords,
    DeleteRecords,
    ClearRecords,
    SaveRequests,
    TrimRequests,
    ClearRequests,
    DropHeader,
    SaveMeta,
    DropMeta,
    SaveMessages,
    EvictMessages,
    EvictHints,
    ClearHistory,
    SaveHint,
    ClearHints,
    LoadHeader,
    LoadRecords,
    LoadRequests,
    LoadMeta,
    LoadHistory,
    LoadHints,
}

/// A name as it stands in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Sql {
    /// Its text; `schema` is quoted already.
    pub(super) fn text(self, schema: &str) -> String {
        self.template().replace("$schema", schema)
    }

    fn template(self) -> &'static str {
        match self {
            // Shared, so that only a claim waits for it, and a commit for a claim.
            Self::LockEpoch => "SELECT epoch FROM $schema.epochs WHERE store = $1 FOR SHARE",
            Self::Claim => {
                "INSERT INTO $schema.epochs AS old (store, epoch) VALUES ($1, 1)
                 ON CONFLICT (store) DO UPDATE SET epoch = old.epoch + 1, claimed_at = now() RETURNING epoch"
            }
            Self::SaveHeader => {
                "INSERT INTO $schema.buckets (store, bucket, revision, schema_version, counter, data)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (store, bucket) DO UPDATE SET
                 revision = excluded.revision, schema_version = excluded.schema_version, counter = excluded.counter,
                 data = excluded.data, saved_at = now()"
            }
            Self::SaveRecords => {
                "INSERT INTO $schema.records (store, bucket, key, place, data, doc)
                 SELECT $1, $2, new.* FROM unnest($3::bytea[], $4::bigint[], $5::bytea[], $6::jsonb[]) AS new
                 ON CONFLICT (store, bucket, key) DO UPDATE SET
                 place = excluded.place, data = excluded.data, doc = excluded.doc"
            }
            Self::DeleteRecords => {
                "DELETE FROM $schema.records WHERE store = $1 AND bucket = $2 AND key = ANY ($3::bytea[])"
            }
            Self::ClearRecords => "DELETE FROM $schema.records WHERE store = $1 AND bucket = $2",
            Self::SaveRequests => {
                "INSERT INTO $schema.requests (store, bucket, revision, data)
                 SELECT $1, $2, new.* FROM unnest($3::bytea[], $4::bytea[]) AS new
                 ON CONFLICT (store, bucket, revision) DO UPDATE SET data = excluded.data"
            }
            Self::TrimRequests => {
                "DELETE FROM $schema.requests WHERE store = $1 AND bucket = $2 AND revision <=
                 (SELECT revision FROM $schema.requests WHERE store = $1 AND bucket = $2
                  ORDER BY revision DESC OFFSET $3 LIMIT 1)"
            }
            Self::ClearRequests => "DELETE FROM $schema.requests WHERE store = $1 AND bucket = $2",
            Self::DropHeader => "DELETE FROM $schema.buckets WHERE store = $1 AND bucket = $2",
            Self::SaveMeta => {
                "INSERT INTO $schema.channels (store, channel, data) VALUES ($1, $2, $3)
                 ON CONFLICT (store, channel) DO UPDATE SET data = excluded.data, saved_at = now()"
            }
            Self::DropMeta => "DELETE FROM $schema.channels WHERE store = $1 AND channel = $2",
            Self::SaveMessages => {
                "INSERT INTO $schema.history (store, channel, message, lamport, data)
                 SELECT $1, $2, new.* FROM unnest($3::bytea[], $4::bigint[], $5::bytea[]) AS new
                 ON CONFLICT (store, channel, message) DO UPDATE SET lamport = excluded.lamport, data = excluded.data"
            }
            Self::EvictMessages => {
                "DELETE FROM $schema.history WHERE store = $1 AND channel = $2 AND message = ANY ($3::bytea[])"
            }
            Self::EvictHints => {
                "DELETE FROM $schema.hints WHERE store = $1 AND channel = $2 AND message = ANY ($3::bytea[])"
            }
            Self::ClearHistory => "DELETE FROM $schema.history WHERE store = $1 AND channel = $2",
            Self::SaveHint => {
                "INSERT INTO $schema.hints (store, channel, message, data) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (store, channel, message) DO UPDATE SET data = excluded.data"
            }
            Self::ClearHints => "DELETE FROM $schema.hints WHERE store = $1 AND channel = $2",
            Self::LoadHeader => "SELECT data FROM $schema.buckets WHERE store = $1 AND bucket = $2",
            Self::LoadRecords => "SELECT key, data FROM $schema.records WHERE store = $1 AND bucket = $2",
            Self::LoadRequests => {
                "SELECT revision, data FROM $schema.requests WHERE store = $1 AND bucket = $2 ORDER BY revision"
            }
            Self::LoadMeta => "SELECT data FROM $schema.channels WHERE store = $1 AND channel = $2",
            Self::LoadHistory => {
                "SELECT message, lamport, data FROM $schema.history WHERE store = $1 AND channel = $2
                 ORDER BY lamport, message"
            }
            Self::LoadHints => {
                "SELECT message, data FROM $schema.hints WHERE store = $1 AND channel = $2 ORDER BY message"
            }
        }
    }
}
