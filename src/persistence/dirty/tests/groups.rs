//! Subjects whose changes belong together.

use super::{Set, answers, commit, ms, permanent, policy, subject};
use crate::base::durability::Durability;
use crate::base::name::Subject;
use crate::persistence::dirty::Next;

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

#[test]
fn who_joined_one_that_fails_and_is_saved_by_the_commit_of_another_one_is_in_no_trouble() {
    let mut set = Set::new(policy(Durability::Wal));
    set.changed(&subject(1), 1, 1, || ms(0));
    set.changed(&subject(2), 1, 1, || ms(0));
    assert_eq!(set.next(ms(100)), commit(&[1, 2], Durability::Wal));
    capture(&mut set, &[(1, 1), (2, 1)]);
    set.failed(&permanent(), ms(100), 1.0);
    assert_eq!(set.next(ms(100)), commit(&[1], Durability::Wal));
    capture(&mut set, &[(1, 1)]);
    set.failed(&permanent(), ms(100), 1.0);
    assert_eq!(set.next(ms(100)), commit(&[2], Durability::Wal));
    capture(&mut set, &[(2, 1)]);
    set.saved(ms(100));
    // That they belong together is told late: what the second has of it was handed over, and is not synced.
    join(&mut set, &[(1, 2), (2, 1)], 100);
    set.changed(&subject(3), 1, 1, || ms(101));
    set.await_saved(&subject(3), 1, Durability::Fsync, "w");
    let Next::Commit { subjects, sync: true, .. } = set.next(ms(101)) else { panic!("it syncs") };
    assert_eq!(subjects, [subject(3)]);
    capture(&mut set, &[(3, 1)]);
    assert_eq!(set.saved(ms(101)).saved, [subject(2), subject(3)]);
    assert!(set.trouble().is_some(), "the first one still fails");
    let Next::WaitUntil(at) = set.next(ms(101)) else { panic!("it is not tried again") };
    assert!(matches!(set.next(at), Next::Commit { .. }));
    capture(&mut set, &[(1, 2)]);
    set.saved(at);
    assert!(set.trouble().is_none());
}
