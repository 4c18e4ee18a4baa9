//! Code of the user's that rules call.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::error::{Error, Result};

/// Calls code that is not ours; its panic becomes `UserCode`.
///
/// What such code leaves behind when it unwinds is its own affair: nothing of ours is lent to it mutably.
pub(crate) fn guarded<T>(place: &'static str, code: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        // A payload may panic in its own drop. The payload of that panic is given up, so that this ends.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        Error::UserCode { place }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_whatever_it_carries() {
        struct Vicious;
        impl Drop for Vicious {
            fn drop(&mut self) {
                panic!("once more");
            }
        }
        let refused = guarded("here", || std::panic::panic_any(Vicious));
        assert!(matches!(refused, Err(Error::UserCode { place: "here" })));
        assert!(matches!(guarded("here", || 7), Ok(7)));
    }
}
