//! Does an actor find its value again after a kill, a stop and a change of its type?

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call};
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::{Durable, Error, Store, Value, record};
use serde::{Deserialize, Serialize};

use crate::world::*;

/// An actor of a user's that counts.
struct Counting;

enum Message {
    Add(i64, RpcReplyPort<i64>),
    /// Changes the value and dies in the middle of its work.
    AddAndPanic(i64),
}

#[cfg(feature = "cluster")]
impl ractor::Message for Message {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Counting {
    type Msg = Message;
    type State = Durable<Counter>;
    type Arguments = (Store, &'static str);

    async fn pre_start(
        &self,
        _myself: ActorRef<Message>,
        (store, name): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(store.durable(name, DurableOptions::default()).await?)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        counter: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let add = |counter: &mut Counter, number: i64| {
            counter.count += number;
            counter.by.push(number.to_string());
            counter.count
        };
        match message {
            Message::Add(number, reply) => reply.send(counter.update(|value| add(value, number))?)?,
            Message::AddAndPanic(number) => {
                counter.update(|value| add(value, number))?;
                panic!("a mistake of the user's");
            }
        }
        Ok(())
    }
}

async fn spawn(store: &Store, name: &'static str) -> ActorRef<Message> {
    Actor::spawn(None, Counting, (store.clone(), name)).await.unwrap().0
}

async fn count(store: &Store, name: &str) -> i64 {
    open::<Counter>(store, name).await.unwrap().get().count
}

/// What `Counter` has become.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tally {
    total: i64,
    entries: u32,
}

/// The steps that led there, and how often each has run.
fn tally(runs: &Arc<AtomicU32>) -> DurableOptions<Tally> {
    let runs = Arc::clone(runs);
    DurableOptions::starting_with(|| Tally { total: 0, entries: 0 })
        .schema_version(3)
        .migrate(1, move |counter| {
            runs.fetch_add(1, Ordering::SeqCst);
            let total = counter.at("count").cloned().ok_or("no count")?;
            Ok::<_, &str>(Value::from(record! { "total": total, "by": counter.at("by").cloned() }))
        })
        .migrate(2, |value| {
            let entries = value.at("by").and_then(Value::as_array).ok_or("no entries")?.len();
            let total = value.at("total").cloned();
            Ok::<_, &str>(Value::from(record! { "total": total, "entries": u32::try_from(entries).unwrap() }))
        })
}

async fn a_durable_value_survives_kill_and_restart_and_is_migrated(place: Place) {
    let store = place.open().await;
    let first = spawn(&store, "counter-1").await;
    let other = spawn(&store, "counter-2").await;
    assert_eq!(call!(first, Message::Add, 5).unwrap(), 5);
    assert_eq!(call!(other, Message::Add, 100).unwrap(), 100);
    assert_eq!(call!(first, Message::Add, 2).unwrap(), 7);

    // Killed, and gone down with a panic: what it had acknowledged is there, saved or not.
    first.get_cell().kill_and_wait(None).await.unwrap();
    let second = spawn(&store, "counter-1").await;
    assert_eq!(call!(second, Message::Add, 1).unwrap(), 8);
    second.cast(Message::AddAndPanic(30)).unwrap();
    second.get_cell().wait(None).await.unwrap();
    let third = spawn(&store, "counter-1").await;
    assert_eq!(call!(third, Message::Add, 0).unwrap(), 38);
    stop(store).await;

    // Another process, as far as the store can tell.
    let store = place.open().await;
    assert_eq!(count(&store, "counter-1").await, 38);
    let actor = spawn(&store, "counter-2").await;
    assert_eq!(call!(actor, Message::Add, 11).unwrap(), 111);
    stop(store).await;

    // Its type has changed, twice; the other value's has not.
    let runs = Arc::default();
    let store = place.open().await;
    let migrated: Durable<Tally> = store.durable("counter-1", tally(&runs)).await.unwrap();
    assert_eq!(migrated.get(), Tally { total: 38, entries: 5 });
    stop(store).await;

    // It is migrated on disk, too, so that the steps have done their work.
    let store = place.open().await;
    let migrated: Durable<Tally> = store.durable("counter-1", tally(&runs)).await.unwrap();
    assert_eq!(migrated.get(), Tally { total: 38, entries: 5 });
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let earlier = open::<Counter>(&store, "counter-1").await;
    assert!(matches!(earlier, Err(Error::SchemaTooNew { stored: 3, defined: 1, .. })), "{earlier:?}");
    migrated.update(|tally| tally.entries = 0).unwrap();
    assert_eq!(count(&store, "counter-2").await, 111);
    stop(store).await;

    // What was changed since is of the new version, too.
    let store = place.open().await;
    let migrated: Durable<Tally> = store.durable("counter-1", tally(&runs)).await.unwrap();
    assert_eq!((migrated.get(), runs.load(Ordering::SeqCst)), (Tally { total: 38, entries: 0 }, 1));
    stop(store).await;
}

#[tokio::test]
async fn ps_37_a_durable_value_survives_kill_and_restart_and_is_migrated_on_memory() {
    a_durable_value_survives_kill_and_restart_and_is_migrated(Place::memory()).await;
}

#[tokio::test]
async fn ps_37_a_durable_value_survives_kill_and_restart_and_is_migrated_on_json_file() {
    a_durable_value_survives_kill_and_restart_and_is_migrated(Place::json_file()).await;
}

#[tokio::test]
async fn ps_37_a_durable_value_survives_kill_and_restart_and_is_migrated_on_redb() {
    a_durable_value_survives_kill_and_restart_and_is_migrated(Place::redb()).await;
}

#[tokio::test]
async fn a_migration_that_fails_leaves_what_is_stored_and_who_has_it() {
    let store = Place::memory().open().await;
    let counter: Durable<Counter> = open(&store, "c").await.unwrap();
    counter.update(|counter| counter.count = 3).unwrap();
    let second = || DurableOptions::<Tally>::starting_with(|| panic!("it is stored")).schema_version(2);

    let refusing = second().migrate(1, |_| Err::<Value, _>("not today"));
    let error = store.durable("c", refusing).await.unwrap_err();
    let Error::Migration { from: 1, to: 2, records, total: 1, .. } = &error else { panic!("{error:?}") };
    assert_eq!(records[0].reason, "the step from version 1: not today");
    assert_eq!(error.to_string().matches('\u{1}').count(), 0);
    let panicking = second().migrate(1, |_| -> Result<Value, String> { panic!("a mistake") });
    let error = store.durable("c", panicking).await.unwrap_err();
    assert!(matches!(error, Error::Migration { .. }), "{error:?}");
    // A step that leads to something else than the type.
    let error = store.durable("c", second().migrate(1, Ok::<_, String>)).await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");

    counter.update(|counter| counter.count += 1).unwrap();
    assert_eq!(open::<Counter>(&store, "c").await.unwrap().get().count, 4);
}

#[tokio::test]
async fn faults_of_the_options_are_listed() {
    let store = Place::memory().open().await;
    let bad =
        DurableOptions::<u32>::default().schema_version(2).migrate(2, Ok::<_, String>).migrate(1, Ok::<_, String>);
    let error = store.durable("c", bad.migrate(1, Ok::<_, String>)).await.unwrap_err();
    let Error::InvalidOptions { problems } = error else { panic!("{error:?}") };
    assert_eq!(problems, ["there are two steps from version 1", "there is no step from version 2 to 2"]);
    let error = store.durable("c", DurableOptions::<u32>::default().schema_version(0)).await.unwrap_err();
    assert!(matches!(error, Error::InvalidOptions { .. }), "{error:?}");
    for name in ["", "a\nb", "\u{1}x", &"x".repeat(129)] {
        let error = open::<u32>(&store, name).await.unwrap_err();
        assert!(matches!(error, Error::InvalidName { kind: "durable value", .. }), "{error:?}");
    }
    let panicking = DurableOptions::<u32>::starting_with(|| panic!("a mistake of the user's"));
    assert!(matches!(store.durable("c", panicking).await, Err(Error::UserCode { .. })));
    assert_eq!(open::<u32>(&store, "c").await.unwrap().get(), 0, "nothing was left behind");
}
