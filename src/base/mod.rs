//! Primitives that everything else is made of. Rank 0: uses no other room.
//!
//! Each of these exists once in the crate: [`error`] the one error type and the plain facts that it carries, [`name`]
//! names and ids, [`value`] what records hold, [`durability`] when a write counts as safe, [`clock`] the time of day,
//! [`codec`] the MessagePack envelope, [`frame`] one checksummed record, [`disk`] the seam to the file system,
//! [`blocking`] the one way onto the blocking pool, `slot` where handles find an actor, `patience`
//! timeouts for many calls, `jitter` what spreads attempts, `utc` dates in names.

pub mod blocking;
pub mod clock;
pub mod codec;
pub mod disk;
pub mod durability;
pub mod error;
pub mod frame;
pub(crate) mod jitter;
pub mod name;
pub(crate) mod patience;
pub(crate) mod slot;
pub(crate) mod utc;
pub mod value;
