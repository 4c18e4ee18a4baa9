//! Subscribers that run in the publisher's turn, and the isolation of all code that is not ours.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::bus::event::Event;

/// Code that runs in the publisher's turn.
///
/// [`event`](Self::event) must be O(1) and must neither block, wait nor publish: whoever publishes pays for it. The
/// events of one publisher reach it one after the other; different publishers may call it at the same time. A panic in
/// it is caught, counted and reported; the sink stays subscribed and hears the next event.
///
/// Every `Fn(&Event)` is a sink.
pub trait Sink: Send + Sync + 'static {
    /// Takes note of an event.
    fn event(&self, event: &Event);

    /// Whether [`event`](Self::event) reads payloads; default: it does. Where nobody does, publishers may leave the
    /// payload out, and what it costs to make.
    fn reads_payload(&self) -> bool {
        true
    }
}

impl<F: Fn(&Event) + Send + Sync + 'static> Sink for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// A subscriber's code has panicked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked;

/// Runs code that is not ours and keeps its panic away from the publisher.
///
/// What such code leaves behind when it unwinds is its own affair: nothing of ours is lent to it mutably.
pub(super) fn isolated<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        // A payload may panic in its own drop. The payload of that panic is given up, so that this ends.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        Panicked
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained_too() {
        struct Vicious;
        impl Drop for Vicious {
            fn drop(&mut self) {
                panic!("once more");
            }
        }
        assert_eq!(isolated(|| std::panic::panic_any(Vicious)), Err(Panicked));
        assert_eq!(isolated(|| 7), Ok(7));
    }
}
