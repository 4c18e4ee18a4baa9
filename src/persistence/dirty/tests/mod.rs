//! The dirty set saves everything in the end, tells every waiter the truth exactly once, never has two commits in
//! flight, and is never late. Without these, acknowledged changes would be lost or waiters would hang.
//!
//! Here what is so of single subjects, in `groups` of those that belong together, in `model` of all at once at random.

mod groups;
mod model;

use std::time::Duration;

use super::{DirtySet, Next, Policy, Verdict};
use crate::base::durability::Durability;
use crate::base::error::Error;
use crate::base::name::{BucketName, Subject};
use crate::persistence::options::Backoff;

const WINDOW: Duration = Duration::from_millis(100);

fn policy(save_level: Durability) -> Policy {
    Policy { debounce: WINDOW, max_unsaved: 1_000, retry: Backoff::default(), save_level, top_level: Durability::Fsync }
}

fn subject(number: u8) -> Subject {
    Subject::Bucket(BucketName::new(format!("b{number}")).unwrap())
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn transient() -> Error {
    Error::Transient { operation: "test".into(), source: None }
}

fn permanent() -> Error {
    Error::Permanent { operation: "test".into(), source: None }
}

fn commit(numbers: &[u8], level: Durability) -> Next {
    Next::Commit { subjects: numbers.iter().map(|number| subject(*number)).collect(), level, sync: false }
}

type Set = DirtySet<&'static str>;

fn answers(verdict: &Verdict<&'static str>) -> Vec<(&'static str, bool)> {
    verdict.answers.iter().map(|(token, outcome)| (*token, outcome.is_ok())).collect()
}

#[test]
fn the_window_is_counted_from_the_first_change_and_never_extended() {
    let mut set = Set::new(policy(Durability::Fsync));
    assert_eq!(set.next(ms(0)), Next::Rest, "with nothing dirty there is no timer");
    assert!(set.changed(&subject(1), 1, 10, || ms(5)), "the first change wakes");
    assert_eq!(set.next(ms(5)), Next::WaitUntil(ms(105)));
    for at in 6..100 {
        assert!(!set.changed(&subject(1), at, 1, || ms(at)), "later ones do not");
    }
    assert_eq!(set.next(ms(104)), Next::WaitUntil(ms(105)));
    assert_eq!(set.next(ms(105)), commit(&[1], Durability::Fsync));
}

#[test]
fn changes_during_a_commit_wait_for_what_is_left_of_their_own_window() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 10, || ms(0));
    assert_eq!(set.next(ms(100)), commit(&[1], Durability::Fsync));
    set.captured(&subject(1), 1);
    assert!(!set.changed(&subject(1), 2, 10, || ms(130)));
    assert_eq!(set.next(ms(140)), Next::Rest, "one in flight");
    assert_eq!(set.saved(ms(150)).saved, [subject(1)]);
    assert_eq!(set.next(ms(150)), Next::WaitUntil(ms(230)));
}

#[test]
fn too_much_unsaved_starts_a_commit_early() {
    let mut set = Set::new(policy(Durability::Fsync));
    assert!(set.changed(&subject(1), 1, 999, || ms(0)));
    assert_eq!(set.next(ms(0)), Next::WaitUntil(ms(100)));
    assert!(set.changed(&subject(2), 1, 1, || ms(1)));
    assert_eq!(set.next(ms(1)), commit(&[1, 2], Durability::Fsync));
}

#[test]
fn an_awaited_change_is_committed_at_once_and_with_everything_else() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    set.changed(&subject(2), 1, 1, || ms(0));
    assert!(set.await_saved(&subject(2), 1, Durability::Wal, "w").is_none());
    assert_eq!(set.next(ms(1)), commit(&[1, 2], Durability::Wal), "at the highest level among its waiters");
    set.captured(&subject(1), 1);
    set.captured(&subject(2), 1);
    let verdict = set.saved(ms(2));
    assert_eq!(answers(&verdict), [("w", true)]);
    assert_eq!((verdict.saved.len(), verdict.handed.len()), (0, 2), "only a synced commit counts as saved");
    assert_eq!(set.next(ms(3)), Next::WaitUntil(ms(102)), "which follows within the window");
    let Next::Commit { subjects, level, sync } = set.next(ms(102)) else { panic!("no sync") };
    assert!(subjects.is_empty() && level == Durability::Fsync && sync);
    assert_eq!(set.saved(ms(103)).saved, [subject(1), subject(2)]);
    assert_eq!(set.next(ms(104)), Next::Rest);
}

#[test]
fn steady_waiters_below_the_top_level_cannot_postpone_the_sync_beyond_the_window() {
    let mut set = Set::new(policy(Durability::Fsync));
    let mut synced_at = None;
    for revision in 1..=30_u64 {
        let now = ms(10 * revision);
        set.changed(&subject(1), revision, 1, || now);
        assert!(set.await_saved(&subject(1), revision, Durability::Wal, "w").is_none());
        let Next::Commit { level, sync, .. } = set.next(now) else { panic!("it is awaited") };
        set.captured(&subject(1), revision);
        let verdict = set.saved(now + ms(5));
        assert_eq!(answers(&verdict), [("w", true)]);
        if level == Durability::Fsync {
            assert!(sync && verdict.saved == [subject(1)]);
            synced_at = synced_at.or(Some(revision));
        }
    }
    assert_eq!(synced_at, Some(12), "handed over at 15 ms, and a window later synced with whatever comes");
}

#[test]
fn a_transient_failure_tells_the_waiters_and_backs_off_whatever_changes() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    set.await_saved(&subject(1), 1, Durability::Fsync, "w");
    assert_eq!(set.next(ms(0)), commit(&[1], Durability::Fsync));
    set.captured(&subject(1), 1);
    set.changed(&subject(1), 2, 1, || ms(1));
    set.await_saved(&subject(1), 2, Durability::Fsync, "later");
    let verdict = set.failed(&transient(), ms(2), 1.0);
    assert_eq!(answers(&verdict), [("w", false)], "who came later has not had his try");
    assert_eq!(verdict.unsaved, [subject(1)]);
    assert_eq!(set.next(ms(2)), commit(&[1], Durability::Fsync), "a waiter tries at once");
    set.captured(&subject(1), 2);
    assert_eq!(answers(&set.failed(&transient(), ms(3), 1.0)), [("later", false)]);
    assert!(!set.changed(&subject(1), 3, 10_000, || ms(4)), "neither a change nor its size shortens the wait");
    assert_eq!(set.next(ms(4)), Next::WaitUntil(ms(203)), "the second wait is twice the first");
    assert!(set.trouble().is_some());
    assert_eq!(set.next(ms(203)), commit(&[1], Durability::Fsync));
    set.captured(&subject(1), 3);
    let verdict = set.saved(ms(204));
    assert_eq!(verdict.recovered, [subject(1)]);
    assert!(set.trouble().is_none());
    assert_eq!(set.next(ms(204)), Next::Rest);
}

#[test]
fn a_poisoned_subject_is_found_out_and_the_others_get_through() {
    let mut set = Set::new(policy(Durability::Fsync));
    for number in 1..=3 {
        set.changed(&subject(number), 1, 1, || ms(0));
    }
    set.await_saved(&subject(1), 1, Durability::Fsync, "one");
    set.await_saved(&subject(2), 1, Durability::Fsync, "two");
    set.flush(None, "all");
    assert_eq!(set.next(ms(0)), commit(&[1, 2, 3], Durability::Fsync));
    (1..=3).for_each(|number| set.captured(&subject(number), 1));
    let verdict = set.failed(&permanent(), ms(1), 1.0);
    assert!(verdict.answers.is_empty() && verdict.failures.is_empty(), "nobody is blamed yet");
    let mut told = Vec::new();
    for number in 1..=3 {
        assert_eq!(set.next(ms(1)), commit(&[number], Durability::Fsync));
        set.captured(&subject(number), 1);
        let verdict = if number == 2 { set.failed(&permanent(), ms(1), 1.0) } else { set.saved(ms(1)) };
        told.extend(answers(&verdict));
    }
    told.sort_unstable();
    assert_eq!(told, [("all", false), ("one", true), ("two", false)], "each its own subject's outcome");
    assert!(set.changed(&subject(1), 2, 1, || ms(2)), "the healthy go on");
    assert_eq!(set.next(ms(2)), Next::WaitUntil(ms(101)), "the poisoned one waits for its own time");
    assert_eq!(set.next(ms(101)), commit(&[2], Durability::Fsync), "and is tried alone");
    set.captured(&subject(2), 1);
    set.failed(&permanent(), ms(101), 1.0);
    assert_eq!(set.next(ms(102)), commit(&[1], Durability::Fsync), "the healthy one's window is not touched by it");
    set.captured(&subject(1), 2);
    set.saved(ms(102));
    assert_eq!(set.unsaved(), [subject(2)]);
    set.flush(None, "again");
    assert_eq!(set.next(ms(103)), commit(&[2], Durability::Fsync), "a flush tries at once");
    set.captured(&subject(2), 1);
    assert_eq!(answers(&set.saved(ms(103))), [("again", true)]);
    assert!(set.trouble().is_none());
}

#[test]
fn a_fenced_set_saves_nothing_any_more_and_says_so_to_everybody() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    set.flush(None, "flush");
    set.next(ms(0));
    set.captured(&subject(1), 1);
    let fenced = Error::Fenced { epoch: 1, current: 2 };
    assert_eq!(answers(&set.failed(&fenced, ms(1), 0.0)), [("flush", false)]);
    assert!(!set.changed(&subject(1), 2, 1, || ms(2)));
    assert_eq!(set.next(ms(9_999)), Next::Rest);
    assert!(matches!(set.flush(None, "late"), Some(("late", Err(Error::Fenced { .. })))));
    assert!(matches!(set.drop_subject(subject(1), "drop"), Some(("drop", Err(Error::Fenced { .. })))));
    assert_eq!(set.unsaved(), [subject(1)]);
}

#[test]
fn an_overdue_commit_is_told_as_unknown_and_still_waited_for() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    set.await_saved(&subject(1), 1, Durability::Fsync, "w");
    set.next(ms(0));
    set.captured(&subject(1), 1);
    let unknown = Error::Unknown { operation: "commit".into(), source: None };
    let verdict = set.overdue(&unknown, ms(30_000));
    assert_eq!((answers(&verdict), verdict.failures.len()), (vec![("w", false)], 1));
    assert!(set.overdue(&unknown, ms(30_001)).failures.is_empty(), "told once");
    set.changed(&subject(1), 2, 1, || ms(30_002));
    assert_eq!(set.next(ms(40_000)), Next::Rest, "the next one waits until it has ended");
    assert_eq!(set.saved(ms(40_001)).saved, [subject(1)]);
    assert_eq!(set.next(ms(40_001)), commit(&[1], Durability::Fsync));
}

#[test]
fn a_change_that_was_captured_before_it_was_told_is_not_unsaved_any_more() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 10, || ms(0));
    set.next(ms(100));
    // Told between the choice and the capture, which has the third already.
    set.changed(&subject(1), 2, 10, || ms(100));
    set.captured(&subject(1), 3);
    assert!(!set.changed(&subject(1), 3, 10, || ms(101)));
    set.saved(ms(102));
    assert!(set.unsaved().is_empty() && set.unsaved_bytes() == 0);
    assert!(!set.changed(&subject(1), 3, 10, || ms(103)));
    assert_eq!(set.next(ms(103)), Next::Rest);
    // What is to be replaced is, whatever revision it has.
    assert!(set.rewritten(&subject(1), 3, ms(104)));
    set.flush(None, "flush");
    assert_eq!(set.next(ms(104)), commit(&[1], Durability::Fsync));
    set.rewritten(&subject(1), 3, ms(104));
    set.captured(&subject(1), 3);
    set.saved(ms(105));
    assert_eq!(set.unsaved(), [subject(1)], "it may have come after the capture");
}

#[test]
fn a_patient_waiter_hurries_nothing_and_hears_only_of_success() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    set.follow(&subject(1), 1, Durability::Fsync, "patient");
    assert_eq!(set.next(ms(0)), Next::WaitUntil(ms(100)));
    assert_eq!(set.next(ms(100)), commit(&[1], Durability::Fsync));
    set.captured(&subject(1), 1);
    assert!(set.failed(&permanent(), ms(101), 1.0).answers.is_empty());
    assert_eq!(set.next(ms(101)), Next::WaitUntil(ms(201)));
    assert_eq!(set.next(ms(201)), commit(&[1], Durability::Fsync));
    set.captured(&subject(1), 1);
    assert_eq!(answers(&set.saved(ms(202))), [("patient", true)]);
}

#[test]
fn who_is_told_off_for_now_is_not_told_of_a_drop_that_is_under_way() {
    let mut set = Set::new(policy(Durability::Fsync));
    assert!(set.drop_subject(subject(1), "under way").is_none());
    assert_eq!(set.next(ms(0)), Next::Drop(subject(1)));
    set.changed(&subject(2), 1, 1, || ms(0));
    assert!(set.await_saved(&subject(2), 1, Durability::Fsync, "change").is_none());
    assert!(set.drop_subject(subject(3), "waiting").is_none());
    let told: Vec<&str> = set.strand(&Error::Stopping).into_iter().map(|(token, _)| token).collect();
    assert_eq!(told, ["change", "waiting"]);
    // Its outcome is its own, and not that of one that comes after it.
    assert!(set.drop_subject(subject(4), "later").is_none());
    assert_eq!(answers(&set.saved(ms(1))), [("under way", true)]);
    assert_eq!(set.next(ms(1)), Next::Drop(subject(4)));
}

#[test]
fn a_drop_waits_for_the_commit_in_flight_and_forgets_what_is_unsaved() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    set.next(ms(100));
    set.captured(&subject(1), 1);
    set.changed(&subject(1), 2, 1, || ms(101));
    set.await_saved(&subject(1), 2, Durability::Fsync, "w");
    set.drop_subject(subject(1), "drop");
    assert_eq!(set.next(ms(101)), Next::Rest);
    set.saved(ms(102));
    assert_eq!(set.next(ms(102)), Next::Drop(subject(1)));
    assert_eq!(answers(&set.saved(ms(103))), [("drop", true), ("w", false)]);
    assert_eq!(set.next(ms(103)), Next::Rest);
    assert!(set.unsaved().is_empty());
    set.changed(&subject(2), 1, 1, || ms(200));
    set.drop_subject(subject(2), "drop");
    assert_eq!(set.next(ms(200)), Next::Drop(subject(2)));
    assert_eq!(answers(&set.failed(&transient(), ms(201), 0.0)), [("drop", false)]);
    assert_eq!(set.next(ms(300)), commit(&[2], Durability::Fsync), "what was not dropped is saved as before");
}
