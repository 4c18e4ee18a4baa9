//! Stores in a [PostgreSQL](https://www.postgresql.org) database: for more than one machine.
//!
//! Promise: a commit that was answered `Ok` is in the database, whole; what is loaded is what was committed, or `Corrupt`
//! with table and key, never something else. A store belongs to the process that claimed it last.
//!
//! Invariants
//! - One transaction per commit. It compares and locks the store's epoch before it writes anything, so that a process
//!   that was replaced writes nothing, and one that replaces it waits for what is under way.
//! - A commit takes two round trips: one that begins it and looks at the epoch, and one that carries all its statements,
//!   the `COMMIT` included. That is sound because a statement that fails aborts the transaction, and the `COMMIT` of an
//!   aborted transaction is a rollback.
//! - A commit runs to its end once it was begun, whoever goes on waiting for it. What is asked of the same store
//!   afterwards waits for that end.
//! - A connection goes back to the pool only after a transaction that ended well; any other one is thrown away.
//! - Whatever is loaded carries version and checksum, bound to its table and key. The other columns are copies for
//!   people's queries, which nothing reads.
//! - What the server says of an error is cut down to what can hold neither a record's contents nor a password.
//!
//! The tables are described in `docs/format.md`.
//!
//! | file | question |
//! |---|---|
//! | `adapter` | what does a store hold? |
//! | `options`, `target` | which server, how is it reached, how long is it waited for? |
//! | `tls` | how is a connection encrypted, and whom does it trust? |
//! | `pool` | who has which connection, and what becomes of it? |
//! | `schema` | which tables are there, and since which version? |
//! | `statement` | what is asked of the server, in SQL? |
//! | `transaction` | in which order is it sent, and what do the answers mean? |
//! | `apply` | what does a save write? |
//! | `load` | what is read, and how is damage noticed? |
//! | `rows` | what do rows and keys look like? |
//! | `document` | what do people's queries see of a record? |
//! | `quarantine` | where does unreadable data go? |
//! | `fault` | who has to hear what the server says? |

mod adapter;
mod apply;
mod document;
mod fault;
mod load;
mod options;
mod pool;
mod quarantine;
mod rows;
mod schema;
mod statement;
mod target;
mod tls;
mod transaction;

/// A server and how to reach it, for [`PostgresAdapter::connect_config`].
pub use tokio_postgres::Config;

pub use adapter::PostgresAdapter;
pub use options::PostgresOptions;
