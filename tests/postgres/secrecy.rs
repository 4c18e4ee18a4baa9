//! Does anything that is meant for people contain a password, or what is in a record?

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor_persistence::adapters::postgres::PostgresAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::{Durability, Store, record};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::server::{Place, as_role};
use crate::world::*;

const SECRET: &str = "hunter2";

/// Writes down everything that is traced, whoever traces it.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<String>>);

impl Visit for Listener {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field} {value:?}").unwrap();
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn no_error_no_log_and_no_adapter_shows_a_password_or_what_is_in_a_record() {
    let listener = Listener::default();
    let _listening = tracing::subscriber::set_default(listener.clone());
    let place = Place::new();
    let client = place.client().await;
    let role = format!("ada_{}", uuid::Uuid::new_v4().simple());
    // An owner of the schema, with the secret for a password.
    client.batch_execute(&format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{SECRET}'")).await.unwrap();
    let right = as_role(place.url(), &role, SECRET);
    let mut said = String::new();

    // Connections that fail.
    let refused = [
        (as_role(place.url(), &role, "hunter2 but wrong").replace(' ', "%20"), "Permanent"),
        (as_role(place.url(), "nobody_of_this_name", SECRET), "Permanent"),
        (format!("{}_{SECRET}", right.clone().replace(SECRET, "wrong")), "Permanent"),
        (format!("postgres://ada:{SECRET}@127.0.0.1:1/db"), "Transient"),
        (format!("postgres://ada:{SECRET}@no-such-host.invalid/db"), "Transient"),
        (format!("postgres://ada:{SECRET}@127.0.0.1:{SECRET}/db"), "InvalidArgument"),
        (format!("postgres://ada:{SECRET}@127.0.0.1/db?sslmode={SECRET}"), "InvalidArgument"),
        (format!("postgres://ada:x@{SECRET}@[::1/db"), "InvalidArgument"),
        (format!("host=127.0.0.1 pasword={SECRET} {SECRET}=1"), "InvalidArgument"),
    ];
    for (number, (url, kind)) in refused.iter().enumerate() {
        let options = place.options().with_connect_timeout(Duration::from_secs(60));
        let error = PostgresAdapter::connect_with(url, options).await.unwrap_err();
        let is = match &error {
            Error::Permanent { .. } => "Permanent",
            Error::Transient { .. } => "Transient",
            Error::InvalidArgument { .. } => "InvalidArgument",
            _ => "something else",
        };
        assert_eq!(is, *kind, "connection {number}: {error:?}");
        // A database's name is no secret, so the one connection whose database is called so is told of as it is.
        if number != 2 {
            writeln!(said, "{}", told(&error)).unwrap();
        }
    }

    // One that succeeds, with everything that can be shown of it.
    let adapter = PostgresAdapter::connect_with(&right, place.options()).await.unwrap();
    writeln!(said, "{adapter:?} {:?}", place.options()).unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "harmless")])).await.unwrap();

    // Refusals of which the server quotes the row.
    let checks = [
        "ALTER TABLE $schema.records ADD CONSTRAINT mine CHECK (doc ->> 'text' <> 'hunter2')",
        "ALTER TABLE $schema.records DROP CONSTRAINT mine; CREATE UNIQUE INDEX one ON $schema.records ((doc ->> 'text'))",
        "CREATE INDEX two ON $schema.records (((doc ->> 'text')::int)) WHERE doc ->> 'text' = 'hunter2'",
    ];
    for check in checks {
        client.batch_execute(&place.sql(check)).await.unwrap();
        let error = adapter.commit(&storing(epoch, 2, &[(2, SECRET), (3, SECRET)])).await.unwrap_err();
        assert!(matches!(error, Error::Permanent { .. }), "{check}: {error:?}");
        assert!(told(&error).contains("SQLSTATE 2"), "{}", told(&error));
        writeln!(said, "{}", told(&error)).unwrap();
    }

    client.batch_execute(&place.sql("DROP INDEX $schema.one, $schema.two")).await.unwrap();

    // A store whose role is locked out while it runs.
    let failures: Arc<Mutex<String>> = Arc::default();
    let noting = Arc::clone(&failures);
    let store = Store::builder("another")
        .adapter(adapter.clone())
        .on_error(move |failure| writeln!(noting.lock().unwrap(), "{failure} {failure:?}").unwrap())
        .start()
        .await
        .unwrap();
    let bucket = store.define_bucket(items()).await.unwrap().with_durability(Durability::Fsync);
    client.batch_execute(&format!("ALTER ROLE {role} NOLOGIN")).await.unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
    client.query_one(end, &[&role]).await.unwrap();
    for id in 1..=3 {
        let error = bucket.insert(record! { "id": id, "text": SECRET }).await.unwrap_err();
        writeln!(said, "{}\n{:?}", told(&error), store.health()).unwrap();
    }
    writeln!(said, "{:?} {:?}", store.stats().await, store.flush().await).unwrap();
    client.batch_execute(&format!("ALTER ROLE {role} LOGIN")).await.unwrap();
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    adapter.close(&shop()).await.unwrap();
    client.batch_execute(&format!("REASSIGN OWNED BY {role} TO CURRENT_USER; DROP ROLE {role}")).await.unwrap();
    let failures = failures.lock().unwrap().clone();
    assert!(failures.contains("save of bucket items failed"), "{failures}");
    said.push_str(&failures);

    let logged = listener.0.lock().unwrap().clone();
    assert!(logged.contains("persistence failed"), "{logged}");
    for (what, text) in [("said", said), ("logged", logged)] {
        let lines: Vec<_> = text.lines().filter(|line| line.contains(SECRET)).collect();
        assert!(lines.is_empty(), "{what}: {lines:#?}");
    }
}

/// Keeps everything that is logged in this process.
struct Logged(Mutex<String>);

static LOGGED: Logged = Logged(Mutex::new(String::new()));

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(self.0.lock().unwrap(), "{} {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

#[tokio::test]
async fn what_the_driver_logs_shows_nothing_of_what_is_in_a_record() {
    const TEXT: &str = "swordfish";
    log::set_logger(&LOGGED).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, TEXT)])).await.unwrap();
    assert_eq!(stored(&adapter).await, expect([(1, TEXT)]));
    let logged = LOGGED.0.lock().unwrap().clone();
    assert!(logged.contains("executing statement"), "the driver logs: {logged}");
    let bytes = format!("{:?}", TEXT.as_bytes()).trim_matches(['[', ']']).to_owned();
    let lines: Vec<_> = logged.lines().filter(|line| line.contains(TEXT) || line.contains(&bytes)).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}
