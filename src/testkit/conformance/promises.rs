//! The list of promises, and the macro that makes a test of each.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::persistence::Capabilities;
use crate::testkit::{Broken, Factory, Verdict};

type Examining<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// One promise of the list.
#[derive(Clone, Copy)]
pub struct Promise {
    /// Its name: that of its function, and of the test that [`conformance!`](crate::conformance) makes of it.
    pub name: &'static str,
    run: for<'a> fn(&'a dyn Factory, Capabilities) -> Examining<'a>,
}

impl Promise {
    /// Examines an adapter, on a place of its own. One that hangs has broken the promise after ten minutes.
    ///
    /// # Errors
    /// `Broken` says what was found instead of what was promised.
    pub async fn examine(&self, factory: &dyn Factory, declared: Capabilities) -> Verdict {
        examine((self.run)(factory, declared)).await
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Promise").field(&self.name).finish()
    }
}

/// Waits for a promise's verdict; one that hangs is broken after ten minutes.
///
/// # Errors
/// `Broken` says what was found instead of what was promised.
pub async fn examine(promise: impl Future<Output = Verdict>) -> Verdict {
    const PATIENCE: Duration = Duration::from_secs(600);
    match tokio::time::timeout(PATIENCE, promise).await {
        Ok(verdict) => verdict,
        Err(_) => Err(Broken::new("the adapter hangs")),
    }
}

/// Makes one `#[tokio::test]` of each promise that an adapter gives, so that a report names what is missing.
///
/// `factory` is evaluated once per test and must make a new place each time, see [`Factory`](crate::testkit::Factory);
/// `capabilities` are those that the adapter is to declare. What it does not declare is not examined, except that
/// channels which are not declared must be refused. With a name in front, the tests stand in a module of that name.
///
/// ```no_run
/// # struct MyAdapter;
/// # use ractor_persistence::{adapters::memory::MemoryAdapter, base::error::Result};
/// # impl MyAdapter { async fn open(_: std::path::PathBuf) -> Result<MemoryAdapter> { Ok(MemoryAdapter::default()) } }
/// use ractor_persistence::persistence::{Atomicity, Capabilities};
///
/// ractor_persistence::conformance!(
///     my_adapter,
///     factory = {
///         let directory = tempfile::tempdir().expect("a temporary directory");
///         move || MyAdapter::open(directory.path().to_owned())
///     },
///     capabilities = Capabilities::default().with_atomicity(Atomicity::PerSubject),
/// );
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    (factory = $factory:expr, capabilities = $capabilities:expr $(,)?) => {
        $crate::__promises! { list tests { $factory, $capabilities } }
    };
    ($name:ident, factory = $factory:expr, capabilities = $capabilities:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::__promises! { list tests { $factory, $capabilities } }
        }
    };
}

/// The list of promises, told once: as tests, and as a table.
#[doc(hidden)]
#[macro_export]
macro_rules! __promises {
    (list $what:ident $arguments:tt) => {
        $crate::__promises! { $what $arguments
            capabilities_are_as_expected
            every_kind_of_value_comes_back
            the_deepest_nesting_comes_back
            every_key_is_its_own
            metadata_and_standing_come_back
            large_values_come_back
            many_records_come_back
            nothing_is_loaded_of_what_was_never_saved
            an_empty_bucket_is_kept
            a_whole_bucket_replaces_the_old_one
            a_change_touches_what_it_names
            a_change_onto_nothing_makes_the_bucket
            a_clear_goes_before_its_upserts
            changes_add_up_over_reopenings
            changes_are_taken_or_refused
            a_dropped_bucket_is_gone
            saves_are_applied_in_order
            request_ids_come_back_in_order
            changes_without_request_ids_leave_them
            request_ids_are_kept_up_to_their_window
            a_whole_bucket_replaces_its_request_ids
            a_clear_keeps_request_ids
            a_dropped_bucket_takes_its_request_ids_along
            bucket_names_never_collide
            store_names_never_collide
            channel_names_never_collide
            channels_are_kept_or_refused
            a_channels_state_comes_back
            a_history_is_in_order
            message_ids_may_be_any_bytes
            evictions_remove_what_they_name
            a_repeated_message_is_there_once
            state_and_history_are_kept_side_by_side
            hints_go_with_their_messages
            a_dropped_channel_is_gone
            empty_commits_are_fine
            every_declared_durability_is_taken
            a_repeated_commit_counts_once
            a_commit_that_fails_is_undone_as_declared
            concurrent_commits_are_all_there
            concurrent_loads_see_whole_commits
            a_dropped_commit_is_done_or_not
            a_dropped_load_harms_nobody
            any_commits_leave_what_plain_maps_would
            every_claim_is_higher
            an_older_epoch_is_fenced
            an_epoch_that_was_never_given_out_is_fenced
            stores_are_fenced_apart
            a_second_owner_is_locked_out_or_fences
            closing_twice_is_fine
            a_closed_store_can_be_claimed_again
            closing_one_store_leaves_the_others
            data_survives_a_restart_if_declared
            quarantine_takes_what_it_was_told
            a_backup_opens_with_what_was_committed
            a_backup_beside_commits_is_of_one_moment
            compacting_keeps_everything
        }
    };
    (tests { $factory:expr, $capabilities:expr } $($promise:ident)*) => {
        $(
            #[::tokio::test]
            async fn $promise() {
                let factory = $factory;
                let promise = $crate::testkit::conformance::$promise(&factory, $capabilities);
                if let Err(broken) = $crate::testkit::conformance::examine(promise).await {
                    panic!("{broken}");
                }
            }
        )*
    };
    (table {} $($promise:ident)*) => {
        &[$(Promise {
            name: stringify!($promise),
            run: |factory, declared| Box::pin($crate::testkit::conformance::$promise(factory, declared)),
        }),*]
    };
}

/// All promises, in reading order, to be examined without tests of their own.
pub const PROMISES: &[Promise] = crate::__promises! { list table {} };
