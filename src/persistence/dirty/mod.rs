//! What is unsaved, when it is saved, and who is told: the persister's rules, as a state machine without I/O, time or
//! randomness of its own.
//!
//! The shell around it feeds inputs and asks [`DirtySet::next`] what to do. Times are measured from the shell's start.
//!
//! ```text
//!            changed            window over, too much unsaved, somebody waits
//!   clean ───────────▶ dirty ────────────────────────────────────────────────▶ in flight ──saved──▶ clean
//!                        ▲                                                          │
//!                        └───── Transient, Unknown: all wait for the backoff ◀──────┤
//!                        └───── Permanent, Corrupt: each subject alone next ◀───────┤
//!                               Fenced: nothing is saved any more ◀─────────────────┘
//! ```
//!
//! `set` has the set, what comes into it and what is asked of it; `subject` what is known of one subject, `groups` which
//! of them belong together, `next` what is to be done, `outcome` what follows from what was done, `retry` what follows from
//! its failure, `waiters` who waits for what.

mod groups;
mod next;
mod outcome;
mod retry;
mod set;
mod subject;
#[cfg(test)]
mod tests;
mod waiters;

pub(crate) use set::{DirtySet, Next, Policy, Verdict};
