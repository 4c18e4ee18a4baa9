//! Any order of inputs, against a plain model.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{ms, permanent, policy, subject, transient};
use crate::base::durability::Durability;
use crate::base::error::Error;
use crate::base::name::Subject;
use crate::persistence::dirty::{DirtySet, Next, Verdict};

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
