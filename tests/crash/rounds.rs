//! Rounds of start, kill, look.

use std::path::Path;
use std::time::{Duration, Instant};

use ractor_persistence::base::error::Error;

use crate::data::{State, define, open};
use crate::random::Random;
use crate::told::{Order, Task};
use crate::victim::Victim;
use crate::{Backend, Ground};

/// PS-19. All rounds kill the same store, whose file thus comes back from one kill after the other.
pub(crate) async fn killed_under_load(backend: Backend) {
    let directory = Ground::of(backend);
    let seconds = std::env::var("RACTOR_PERSISTENCE_CRASH_SECONDS").ok();
    let seconds = seconds.map_or(10, |seconds| seconds.parse().expect("a number of seconds"));
    let begun = Instant::now();
    let mut random = Random::of_this_run();
    let mut state = State::default();
    let (mut round, mut opening, mut changes, mut acknowledgements, mut lost) = (0, 0, 0, 0, 0);
    // However slow the machine is, some rounds there are.
    while begun.elapsed() < Duration::from_secs(seconds) || round < 9 {
        round += 1;
        let (task, most, from_ready) = match round % 3 {
            0 => (Task::RamLoad, 1_500, true),
            1 => (Task::Load, 600, true),
            // While the file is being opened, or shortly after.
            _ => (Task::Load, 60, false),
        };
        let seed = random.next();
        let after = Duration::from_micros(random.below(most * 1_000));
        let since = if from_ready { "it is open" } else { "it is being opened" };
        println!("round {round}: {task:?} by seed {seed}, killed {after:?} after {since}");
        let order = Order { directory: directory.path().to_owned(), task, seed, round };
        let mut victim = Victim::start(backend, &order, state.clone());
        victim.until(|account| if from_ready { account.ready } else { account.opening }).await;
        victim.during(after).await;
        let account = victim.kill().await;

        let found = State::reopen(backend, directory.path()).await;
        let gone = account.settle(&found);
        println!(
            "  {} changes, {} commits, {} acknowledged, {gone} lost; {} records at revision {}",
            account.newest() - state.revision,
            account.commits,
            account.acknowledgements,
            found.records.len(),
            found.revision
        );
        opening += usize::from(!account.ready);
        changes += account.newest() - state.revision;
        acknowledgements += account.acknowledgements;
        lost += gone;
        state = found;
    }
    println!("{round} rounds, {opening} of them killed before the store was open");
    println!("{changes} changes, {acknowledgements} acknowledged at more than `Ram`, {lost} lost");
    // A test that never comes to the point would pass.
    assert!(changes > 0 && acknowledgements > 0 && state.revision > 0);
}

/// PS-16.
pub(crate) async fn saved_clears(backend: Backend) {
    let directory = Ground::of(backend);
    let mut state = State::default();
    for (round, then) in (1..).zip([0, 3, 0]) {
        let order = Order { directory: directory.path().to_owned(), task: Task::Clear { then }, seed: 0, round };
        let mut victim = Victim::start(backend, &order, state);
        victim.until(|account| account.done && account.all_saved()).await;
        let account = victim.kill().await;

        let found = State::reopen(backend, directory.path()).await;
        assert_eq!(account.settle(&found), 0);
        assert_eq!(found.records.len() as u64, then, "only what came after the clear is there: {found:?}");
        state = found;
    }
    assert_eq!(state.counter, 3 * 50 + 3, "a clear leaves the counter alone");
}

/// PS-23.
pub(crate) async fn locked_out(backend: Backend) {
    let directory = Ground::of(backend);
    let order = Order { directory: directory.path().to_owned(), task: Task::Hold, seed: 0, round: 1 };
    let mut victim = Victim::start(backend, &order, State::default());
    victim.until(|account| account.ready).await;
    let pid = victim.pid();
    assert_locked(backend, directory.path(), pid).await;
    // Being refused does not open the door.
    assert_locked(backend, directory.path(), pid).await;
    victim.kill().await;

    // The lock has gone with its holder, whatever the holder has left behind.
    let store = open(backend, directory.path()).await.expect("a killed holder holds nothing");
    define(&store).await.unwrap();
    assert_locked(backend, directory.path(), std::process::id()).await;
    assert!(store.stop().await.unwrap().error.is_none());

    let store = open(backend, directory.path()).await.expect("a stopped store holds nothing");
    assert!(store.stop().await.unwrap().error.is_none());
}

async fn assert_locked(backend: Backend, directory: &Path, pid: u32) {
    match open(backend, directory).await {
        Err(Error::Locked { path, holder: Some(holder) }) => {
            assert!(path.starts_with(directory), "{path:?}");
            let told = holder.split(|character: char| !character.is_ascii_digit());
            assert!(told.into_iter().any(|number| number == pid.to_string()), "process {pid} holds it: {holder:?}");
        }
        other => panic!("a second store was not refused: {other:?}"),
    }
}
