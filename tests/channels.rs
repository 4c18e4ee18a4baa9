//! A channel and its persistence together: what was delivered, sent or parked is there again after a stop, a kill or a
//! failed save, each event is told once and in order, and above `Ram` nothing is told before it is saved.
//!
//! The rules of channels and of saving are each tested by themselves; were the actor between them wrong, messages would
//! be lost or handed on twice just when a process ends, which is when nobody looks.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by unwrapping it")]

#[path = "channels/durability.rs"]
mod durability;
#[path = "channels/failures.rs"]
mod failures;
#[path = "channels/life.rs"]
mod life;
#[path = "channels/limits.rs"]
mod limits;
#[path = "channels/moving.rs"]
mod moving;
#[cfg(feature = "redb")]
#[path = "channels/on_disk.rs"]
mod on_disk;
#[path = "channels/restarts.rs"]
mod restarts;
#[path = "channels/routing.rs"]
mod routing;
#[path = "channels/saving.rs"]
mod saving;
#[path = "channels/soup.rs"]
mod soup;
#[cfg(feature = "redb")]
#[path = "channels/story.rs"]
mod story;
#[path = "channels/support.rs"]
mod support;
#[path = "channels/timers.rs"]
mod timers;
#[path = "channels/unshown.rs"]
mod unshown;
