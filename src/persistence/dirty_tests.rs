//! The dirty set saves everything in the end, tells every waiter the truth exactly once, never has two commits in
//! flight, and is never late. Without these, acknowledged changes would be lost or waiters would hang.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::dirty::{DirtySet, Next, Policy, Verdict};
use super::options::Backoff;
use crate::base::durability::Durability;
use crate::base::error::Error;
use crate::base::name::{BucketName, Subject};

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

// ---- against a plain model

#[derive(Clone, Copy, Debug)]
enum Step {
    Change(u8),
    /// These change together.
    Join(u8, u8),
    Await(u8, bool),
    Flush,
    Drop(u8),
    Pass(u64),
    Overdue,
    End(Ending),
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Fine,
    Transient,
    /// Permanent for this subject; commits without it succeed.
    Poisoned(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..4).prop_map(Step::Change),
        3 => (0_u8..4, 1_u8..4).prop_map(|(number, other)| Step::Join(number, (number + other) % 4)),
        2 => (0_u8..4, any::<bool>()).prop_map(|(number, fsync)| Step::Await(number, fsync)),
        1 => Just(Step::Flush),
        1 => (0_u8..4).prop_map(Step::Drop),
        5 => (0_u64..120).prop_map(Step::Pass),
        1 => Just(Step::Overdue),
        5 => Just(Step::End(Ending::Fine)),
        2 => Just(Step::End(Ending::Transient)),
        2 => (0_u8..4).prop_map(|number| Step::End(Ending::Poisoned(number))),
    ];
    proptest::collection::vec(step, 1..80)
}

/// One subject: what its cell holds and what the disk has, by revision. 0 is nothing.
#[derive(Default, Debug)]
struct Plain {
    newest: u64,
    waiting: bool,
    captured: Option<u64>,
    handed: Option<u64>,
    written: u64,
    synced: u64,
}

/// Somebody who waits: for what, whether at the top level, whether by a flush.
struct Open {
    targets: Vec<(Subject, u64)>,
    top: bool,
    flush: bool,
    /// What it waits for was dropped unsaved.
    lost: bool,
}

#[derive(Default)]
struct World {
    now: Duration,
    subjects: BTreeMap<Subject, Plain>,
    /// What is in flight, and whether it is a drop.
    flight: Option<(Vec<Subject>, Durability, bool)>,
    waiters: BTreeMap<u32, Open>,
    drops: BTreeMap<u32, Subject>,
    tokens: u32,
    /// Changes that belong together, those apart whose subject was dropped since.
    together: Vec<Vec<(Subject, u64)>>,
}

impl World {
    /// A subject changes; answers its revision.
    fn change(&mut self, number: u8) -> u64 {
        let plain = self.subjects.entry(subject(number)).or_default();
        plain.newest += 1;
        plain.waiting = true;
        plain.newest
    }

    /// What belongs together is there, written or synced, or it is not.
    fn check_together(&self) {
        for changes in &self.together {
            let all = |reached: fn(&Plain) -> u64| {
                let there = |(subject, revision): &(Subject, u64)| reached(&self.subjects[subject]) >= *revision;
                let there: Vec<bool> = changes.iter().map(there).collect();
                assert!(there.iter().all(|one| *one == there[0]), "torn: {changes:?} {there:?} of {:?}", self.subjects);
            };
            all(|plain| plain.written);
            all(|plain| plain.synced);
        }
    }

    fn token(&mut self) -> u32 {
        self.tokens += 1;
        self.tokens
    }

    /// What the shell does: asks what is next, captures, starts.
    fn drive(&mut self, set: &mut DirtySet<u32>) -> Next {
        let next = set.next(self.now);
        match &next {
            Next::Commit { subjects, level, sync } => {
                assert!(self.flight.is_none(), "two commits in flight");
                assert!(*sync || !subjects.is_empty(), "a commit of nothing");
                for subject in subjects {
                    let plain = self.subjects.get_mut(subject).expect("only what changed is committed");
                    assert!(plain.captured.is_none(), "captured twice");
                    if std::mem::take(&mut plain.waiting) {
                        plain.captured = Some(plain.newest);
                    }
                    set.captured(subject, plain.newest);
                }
                self.flight = Some((subjects.clone(), *level, false));
            }
            Next::Drop(subject) => {
                assert!(self.flight.is_none(), "two commits in flight");
                self.flight = Some((vec![subject.clone()], Durability::Fsync, true));
            }
            Next::WaitUntil(at) => assert!(*at > self.now, "told to wait for what is past"),
            Next::Rest => {}
        }
        next
    }

    fn settle(&mut self, verdict: Verdict<u32>) {
        for subject in &verdict.saved {
            let plain = self.subjects.get_mut(subject).expect("known");
            for kept in [plain.captured.take(), plain.handed.take()].into_iter().flatten() {
                assert!(kept <= plain.synced, "forgotten before it was synced");
            }
        }
        for subject in &verdict.handed {
            let plain = self.subjects.get_mut(subject).expect("known");
            if let Some(captured) = plain.captured.take() {
                assert!(captured <= plain.written);
                plain.handed = Some(captured);
            }
        }
        for subject in &verdict.unsaved {
            let plain = self.subjects.get_mut(subject).expect("known");
            if plain.captured.take().is_some() | plain.handed.take().is_some() {
                plain.waiting = true;
            }
        }
        for (token, outcome) in verdict.answers {
            self.answered(token, &outcome);
        }
    }

    fn answered(&mut self, token: u32, outcome: &Result<(), Error>) {
        if self.drops.remove(&token).is_some() {
            return;
        }
        let Open { targets, top, lost, .. } = self.waiters.remove(&token).expect("answered once");
        if outcome.is_ok() {
            assert!(!lost, "told that a dropped change is saved");
            for (subject, revision) in targets {
                let plain = &self.subjects[&subject];
                let reached = if top { plain.synced } else { plain.written };
                assert!(reached >= revision, "told that {subject} {revision} is saved, which is at {reached}");
            }
        }
    }

    fn end(&mut self, set: &mut DirtySet<u32>, ending: Ending) {
        let Some((subjects, level, dropping)) = self.flight.take() else { return };
        let error = match ending {
            Ending::Fine => None,
            Ending::Transient => Some(transient()),
            Ending::Poisoned(number) => subjects.contains(&subject(number)).then(permanent),
        };
        if let Some(error) = error {
            let verdict = set.failed(&error, self.now, 0.5);
            return self.settle(verdict);
        }
        if dropping {
            let plain = self.subjects.remove(&subjects[0]).unwrap_or_default();
            for changes in &mut self.together {
                changes.retain(|(subject, _)| *subject != subjects[0]);
            }
            self.together.retain(|changes| changes.len() > 1);
            for open in self.waiters.values_mut() {
                let reached = if open.top { plain.synced } else { plain.written };
                let gone = open.targets.extract_if(.., |(subject, _)| *subject == subjects[0]);
                let unsaved = gone.filter(|(_, revision)| *revision > reached).count();
                open.lost |= unsaved > 0 && !open.flush;
            }
        }
        for subject in &subjects {
            if let Some(plain) = self.subjects.get_mut(subject) {
                plain.written = plain.written.max(plain.captured.unwrap_or(0));
            }
        }
        if level == Durability::Fsync && !dropping {
            self.subjects.values_mut().for_each(|plain| plain.synced = plain.written);
        }
        self.check_together();
        // Waiters of a dropped subject are told an error, so that it is not looked up.
        let verdict = set.saved(self.now);
        self.settle(verdict);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_dirty_set_saves_everything_and_tells_the_truth(steps in steps(), wal in any::<bool>()) {
        let mut set = DirtySet::<u32>::new(policy(if wal { Durability::Wal } else { Durability::Fsync }));
        let mut world = World::default();
        for step in steps {
            match step {
                Step::Change(number) => {
                    let newest = world.change(number);
                    set.changed(&subject(number), newest, 1, || world.now);
                }
                Step::Join(number, other) => {
                    let changes = [number, other].map(|number| (subject(number), world.change(number)));
                    set.join(&[(&changes[0].0, changes[0].1), (&changes[1].0, changes[1].1)], || world.now);
                    world.together.push(changes.to_vec());
                }
                Step::Await(number, top) => {
                    let Some(plain) = world.subjects.get(&subject(number)) else { continue };
                    let newest = plain.newest;
                    let token = world.token();
                    let targets = vec![(subject(number), newest)];
                    world.waiters.insert(token, Open { targets, top, flush: false, lost: false });
                    let level = if top { Durability::Fsync } else { Durability::Wal };
                    if let Some((token, outcome)) = set.await_saved(&subject(number), newest, level, token) {
                        world.answered(token, &outcome);
                    }
                }
                Step::Flush => {
                    let token = world.token();
                    let targets = world.subjects.iter().map(|(subject, plain)| (subject.clone(), plain.newest)).collect();
                    world.waiters.insert(token, Open { targets, top: true, flush: true, lost: false });
                    if let Some((token, outcome)) = set.flush(None, token) {
                        world.answered(token, &outcome);
                    }
                }
                Step::Drop(number) => {
                    let token = world.token();
                    world.drops.insert(token, subject(number));
                    prop_assert!(set.drop_subject(subject(number), token).is_none());
                }
                Step::Pass(milliseconds) => world.now += ms(milliseconds),
                Step::Overdue => {
                    let verdict = set.overdue(&Error::Unknown { operation: "slow".into(), source: None }, world.now);
                    world.settle(verdict);
                }
                Step::End(ending) => world.end(&mut set, ending),
            }
            world.drive(&mut set);
        }
        // From here on the adapter is well: everything is saved, everybody is told, and then there is rest.
        for _ in 0..200 {
            world.end(&mut set, Ending::Fine);
            match world.drive(&mut set) {
                Next::WaitUntil(at) => world.now = at,
                Next::Rest if world.flight.is_none() => break,
                _ => {}
            }
        }
        prop_assert_eq!(set.next(world.now), Next::Rest);
        prop_assert!(world.flight.is_none());
        prop_assert!(world.waiters.is_empty() && world.drops.is_empty());
        for (subject, plain) in &world.subjects {
            prop_assert!(!plain.waiting && plain.captured.is_none() && plain.handed.is_none(), "{} {:?}", subject, plain);
            prop_assert_eq!(plain.synced, plain.newest);
        }
        prop_assert!(set.unsaved().is_empty() && set.trouble().is_none());
        prop_assert_eq!(set.unsaved_bytes(), 0);
    }
}

fn join(set: &mut Set, changes: &[(u8, u64)], at: u64) -> bool {
    let subjects: Vec<(Subject, u64)> =
        changes.iter().map(|(number, revision)| (subject(*number), *revision)).collect();
    let changes: Vec<(&Subject, u64)> = subjects.iter().map(|(subject, revision)| (subject, *revision)).collect();
    set.join(&changes, || ms(at))
}

fn capture(set: &mut Set, revisions: &[(u8, u64)]) {
    revisions.iter().for_each(|(number, revision)| set.captured(&subject(*number), *revision));
}

#[test]
fn what_belongs_together_is_unsaved_at_once_and_committed_together() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    assert!(!join(&mut set, &[(1, 2), (2, 1)], 90), "the first change is due before it");
    assert_eq!(set.next(ms(100)), commit(&[1, 2], Durability::Fsync), "though nobody else has told of the second yet");
    capture(&mut set, &[(1, 2), (2, 1)]);
    assert!(!set.changed(&subject(2), 1, 50, || ms(101)), "what is told later is captured already");
    assert_eq!(set.saved(ms(102)).saved, [subject(1), subject(2)]);
    assert_eq!(set.next(ms(102)), Next::Rest);
    // Alone, it wakes as any change does.
    assert!(join(&mut set, &[(1, 3), (2, 2)], 200));
    assert_eq!(set.next(ms(200)), Next::WaitUntil(ms(300)));
}

#[test]
fn what_belongs_together_stays_together_while_one_of_the_two_fails() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(3), 1, 1, || ms(0));
    join(&mut set, &[(1, 1), (2, 1)], 0);
    assert_eq!(set.next(ms(100)), commit(&[1, 2, 3], Durability::Fsync));
    capture(&mut set, &[(1, 1), (2, 1), (3, 1)]);
    assert!(set.failed(&permanent(), ms(101), 1.0).failures.is_empty());
    assert_eq!(set.next(ms(101)), commit(&[1, 2], Durability::Fsync));
    capture(&mut set, &[(1, 1), (2, 1)]);
    assert_eq!(set.failed(&permanent(), ms(101), 1.0).failures.len(), 2);
    assert_eq!(set.next(ms(101)), commit(&[3], Durability::Fsync));
    capture(&mut set, &[(3, 1)]);
    set.saved(ms(101));
    // Again and again, whatever comes for one of them meanwhile.
    for attempt in 1..5 {
        set.changed(&subject(2), 1 + attempt, 1, || ms(102));
        let Next::WaitUntil(at) = set.next(ms(102)) else { panic!("it is not tried again") };
        assert_eq!(set.next(at), commit(&[1, 2], Durability::Fsync));
        capture(&mut set, &[(1, 1), (2, 1 + attempt)]);
        set.failed(&permanent(), ms(102), 1.0);
    }
    // Somebody who waits for one of them makes both be tried.
    set.await_saved(&subject(1), 1, Durability::Fsync, "w");
    assert_eq!(set.next(ms(103)), commit(&[1, 2], Durability::Fsync));
    capture(&mut set, &[(1, 1), (2, 5)]);
    let verdict = set.saved(ms(104));
    assert_eq!((answers(&verdict), verdict.recovered.len()), (vec![("w", true)], 2));
    assert!(set.trouble().is_none());
    assert_eq!(set.next(ms(104)), Next::Rest);
}

#[test]
fn who_joins_one_that_fails_alone_is_tried_with_it_from_then_on() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    assert_eq!(set.next(ms(100)), commit(&[1], Durability::Fsync));
    capture(&mut set, &[(1, 1)]);
    set.failed(&permanent(), ms(100), 1.0);
    join(&mut set, &[(1, 2), (2, 1)], 101);
    join(&mut set, &[(2, 2), (3, 1)], 102);
    set.changed(&subject(4), 1, 1, || ms(102));
    set.await_saved(&subject(4), 1, Durability::Fsync, "healthy");
    assert_eq!(set.next(ms(103)), commit(&[4], Durability::Fsync), "neither of them holds up the others");
    capture(&mut set, &[(4, 1)]);
    assert_eq!(answers(&set.saved(ms(104))), [("healthy", true)]);
    assert_eq!(set.next(ms(104)), Next::WaitUntil(ms(200)));
    assert_eq!(set.next(ms(200)), commit(&[1, 2, 3], Durability::Fsync));
    capture(&mut set, &[(1, 2), (2, 2), (3, 1)]);
    set.saved(ms(201));
    assert!(set.trouble().is_none());
    // Saved, they are strangers again.
    set.changed(&subject(1), 3, 1, || ms(201));
    assert_eq!(set.next(ms(301)), commit(&[1], Durability::Fsync));
    capture(&mut set, &[(1, 3)]);
    set.failed(&permanent(), ms(301), 1.0);
    set.changed(&subject(2), 3, 1, || ms(301));
    set.await_saved(&subject(2), 3, Durability::Fsync, "w");
    assert_eq!(set.next(ms(302)), commit(&[2], Durability::Fsync));
}

#[test]
fn who_joins_a_subject_that_is_about_to_be_tried_alone_is_in_that_commit() {
    let mut set = Set::new(policy(Durability::Fsync));
    set.changed(&subject(1), 1, 1, || ms(0));
    set.changed(&subject(2), 1, 1, || ms(0));
    assert_eq!(set.next(ms(100)), commit(&[1, 2], Durability::Fsync));
    capture(&mut set, &[(1, 1), (2, 1)]);
    set.failed(&permanent(), ms(100), 1.0);
    // Both wait for their try alone. What joins now is captured with whichever comes first.
    join(&mut set, &[(2, 2), (3, 1)], 100);
    assert_eq!(set.next(ms(101)), commit(&[1], Durability::Fsync));
    capture(&mut set, &[(1, 1)]);
    set.saved(ms(101));
    assert_eq!(set.next(ms(101)), commit(&[2, 3], Durability::Fsync));
    capture(&mut set, &[(2, 2), (3, 1)]);
    set.saved(ms(101));
    assert_eq!(set.next(ms(101)), Next::Rest);
    assert!(set.unsaved().is_empty());
}

#[test]
fn two_that_were_to_be_tried_apart_and_join_are_tried_once_and_together() {
    let mut set = Set::new(policy(Durability::Fsync));
    for number in 1..=3 {
        set.changed(&subject(number), 1, 1, || ms(0));
    }
    assert_eq!(set.next(ms(100)), commit(&[1, 2, 3], Durability::Fsync));
    capture(&mut set, &[(1, 1), (2, 1), (3, 1)]);
    set.failed(&permanent(), ms(100), 1.0);
    join(&mut set, &[(1, 2), (3, 2)], 100);
    assert_eq!(set.next(ms(100)), commit(&[1, 3], Durability::Fsync));
    capture(&mut set, &[(1, 2), (3, 2)]);
    set.saved(ms(100));
    assert_eq!(set.next(ms(100)), commit(&[2], Durability::Fsync));
    capture(&mut set, &[(2, 1)]);
    set.saved(ms(100));
    assert_eq!(set.next(ms(100)), Next::Rest);
}

#[test]
fn a_commit_in_flight_ends_without_parting_those_that_joined_meanwhile() {
    for fails in [false, true] {
        let mut set = Set::new(policy(Durability::Fsync));
        set.changed(&subject(1), 1, 1, || ms(0));
        assert_eq!(set.next(ms(100)), commit(&[1], Durability::Fsync));
        capture(&mut set, &[(1, 1)]);
        join(&mut set, &[(1, 2), (2, 1)], 110);
        if fails {
            // The one that fails takes along what has joined it, whoever is at fault.
            set.failed(&permanent(), ms(120), 1.0);
            assert_eq!(set.next(ms(220)), commit(&[1, 2], Durability::Fsync));
        } else {
            set.saved(ms(120));
            assert_eq!(set.next(ms(210)), commit(&[1, 2], Durability::Fsync));
        }
        capture(&mut set, &[(1, 2), (2, 1)]);
        assert_eq!(set.failed(&permanent(), ms(230), 1.0).failures.len(), 2);
        let Next::WaitUntil(at) = set.next(ms(230)) else { panic!("it is not tried again") };
        assert_eq!(set.next(at), commit(&[1, 2], Durability::Fsync));
    }
}

#[test]
fn what_was_only_handed_over_is_written_again_with_what_it_belongs_to() {
    let mut set = Set::new(policy(Durability::Wal));
    join(&mut set, &[(1, 1), (2, 1)], 0);
    assert_eq!(set.next(ms(100)), commit(&[1, 2], Durability::Wal));
    capture(&mut set, &[(1, 1), (2, 1)]);
    assert_eq!(set.saved(ms(101)).handed.len(), 2);
    // Nobody knows what is left of that when the sync fails for one of them.
    set.changed(&subject(1), 2, 1, || ms(102));
    set.changed(&subject(3), 1, 1, || ms(102));
    let Next::Commit { subjects, .. } = set.next(ms(202)) else { panic!("nothing is due") };
    assert_eq!(subjects, [subject(1), subject(3)]);
    capture(&mut set, &[(1, 2), (3, 1)]);
    assert_eq!(set.failed(&permanent(), ms(203), 1.0).unsaved, [subject(1), subject(2), subject(3)]);
    let Next::Commit { subjects, .. } = set.next(ms(203)) else { panic!("nothing is tried") };
    assert_eq!(subjects, [subject(1), subject(2)]);
}
