//! How a database is used.

use std::time::Duration;

use crate::base::error::{Error, Result};

/// Most bytes of a schema's name: PostgreSQL cuts longer ones.
const MAX_SCHEMA: usize = 63;
const MAX_CONNECTIONS: usize = 1_000;
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// How a [`PostgresAdapter`](crate::adapters::postgres::PostgresAdapter) uses its database. Values out of bounds fail
/// when it connects.
///
/// ```
/// use std::time::Duration;
/// use ractor_persistence::adapters::postgres::PostgresOptions;
/// let options = PostgresOptions::default().with_schema("shop").with_statement_timeout(Duration::from_secs(10));
/// assert_eq!((options.schema.as_str(), options.connections), ("shop", 8));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// The schema that the tables are in, made if it is not there. Default `ractor_persistence`; 1 to 63 bytes without
    /// control characters, not beginning with `pg_`. Adapters with different schemas share nothing.
    pub schema: String,
    /// Most connections at once. A commit takes one, and so does each load; who finds none free waits. Default 8; 1 to
    /// 1,000. At most as many stay open while nothing happens, and none after the last claim was released. One that is
    /// thrown away, and what asks the server to stop working for it, may live beside them for up to two seconds.
    pub connections: usize,
    /// Longest that connecting may take, TLS and authentication included. Default 5 s; 10 ms to 1 day.
    pub connect_timeout: Duration,
    /// Longest that the server works on one statement of a commit, and that a transaction may wait for its next
    /// statement. Default 30 s; 10 ms to 1 day. Loads have the store's own `load_timeout`.
    pub statement_timeout: Duration,
    /// Longest that a statement waits for a lock that somebody else holds, which is another claim of the same store or
    /// somebody's own SQL. Default 10 s; 10 ms to 1 day.
    pub lock_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            schema: "ractor_persistence".to_owned(),
            connections: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
        }
    }
}

impl PostgresOptions {
    /// Sets [`schema`](Self::schema).
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets [`connections`](Self::connections).
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`statement_timeout`](Self::statement_timeout).
    #[must_use]
    pub fn with_statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets [`lock_timeout`](Self::lock_timeout).
    #[must_use]
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        let schema = &self.schema;
        if schema.is_empty() || schema.len() > MAX_SCHEMA || schema.chars().any(char::is_control) {
            problems.push(format!("schema has 1 to {MAX_SCHEMA} bytes without control characters"));
        } else if schema.starts_with("pg_") {
            problems.push("schema begins with pg_, which PostgreSQL keeps for itself".to_owned());
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            problems.push(format!("connections is {}, not 1 to {MAX_CONNECTIONS}", self.connections));
        }
        let timeouts = [
            ("connect_timeout", self.connect_timeout),
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
        ];
        for (name, timeout) in timeouts {
            if timeout < Duration::from_millis(10) || timeout > MAX_TIMEOUT {
                problems.push(format!("{name} is {timeout:?}, not 10 ms to 1 day"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::InvalidOptions { problems }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_out_of_bounds_is_named_at_once() {
        let options = PostgresOptions::default()
            .with_schema("x".repeat(64))
            .with_connections(0)
            .with_connect_timeout(Duration::ZERO)
            .with_statement_timeout(Duration::from_secs(90_000))
            .with_lock_timeout(Duration::from_millis(9));
        let Err(Error::InvalidOptions { problems }) = options.check() else { panic!("accepted") };
        let named = ["schema", "connections", "connect_timeout", "statement_timeout", "lock_timeout"];
        assert_eq!(problems.len(), named.len(), "{problems:?}");
        assert!(problems.iter().zip(named).all(|(problem, name)| problem.starts_with(name)), "{problems:?}");
        for bad in ["", "a\nb", "a\0b", "pg_mine"] {
            assert!(PostgresOptions::default().with_schema(bad).check().is_err(), "{bad:?}");
        }
        for good in ["ractor_persistence", "Shop \"1\".a'b\\ü"] {
            assert!(PostgresOptions::default().with_schema(good).check().is_ok(), "{good:?}");
        }
    }
}
