//! Two versions of a definition: the second one splits a field, adds others and renames the keys, and what the first one
//! stored is migrated when it is loaded, as a whole or not at all.
//!
//! ```text
//! cargo run --example schema_evolution
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::path::Path;

use ractor_persistence::adapters::json_file::JsonFileAdapter;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::value::{Object, Value};
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field, Filter, Format};
use ractor_persistence::store::Store;

fn version_1() -> BucketDefinition {
    BucketDefinition::new("people")
        .key("id")
        .field("id", Field::string())
        .field("name", Field::string().required())
        .field("mail", Field::string())
}

fn version_2(step: fn(Object) -> std::result::Result<Object, String>) -> BucketDefinition {
    BucketDefinition::new("people")
        .key("id")
        .field("id", Field::string().pattern("^person/"))
        .field("first", Field::string().required())
        .field("last", Field::string().required())
        .field("email", Field::string().format(Format::Email).unique())
        .field("status", Field::string().one_of(["active", "retired"]).default("active"))
        .index(["last"])
        .schema_version(2)
        .migrate(1, step)
}

fn text(person: &Object, field: &str) -> Option<String> {
    person.get(field).and_then(Value::as_str).map(str::to_owned)
}

/// From version 1 to version 2.
fn split_names(mut person: Object) -> std::result::Result<Object, String> {
    let name = text(&person, "name").ok_or("no name")?;
    let (first, last) = name.split_once(' ').ok_or_else(|| "a name has two parts".to_owned())?;
    let id = text(&person, "id").ok_or("no id")?;
    person.insert("first", first);
    person.insert("last", last);
    person.insert("id", format!("person/{id}"));
    person.remove("name");
    if let Some(mail) = person.remove("mail") {
        person.insert("email", mail);
    }
    Ok(person)
}

/// As above; a single name is a last name.
fn split_all_names(mut person: Object) -> std::result::Result<Object, String> {
    if text(&person, "name").is_some_and(|name| !name.contains(' ')) {
        let name = text(&person, "name").unwrap_or_default();
        person.insert("name", format!("? {name}"));
    }
    split_names(person)
}

async fn start(directory: &Path) -> Result<Store> {
    Store::builder("registry").adapter(JsonFileAdapter::open(directory).await?).start().await
}

/// Every file of a folder, with its contents.
fn files(directory: &Path) -> std::io::Result<Vec<(std::path::PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension != "lock") {
            let contents = std::fs::read(&path)?;
            found.push((path, contents));
        }
    }
    found.sort();
    Ok(found)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = start(directory.path()).await?;
    let people = store.define_bucket(version_1()).await?;
    people.insert(record! { "id": "1", "name": "Ada Lovelace", "mail": "ada@example.com" }).await?;
    people.insert(record! { "id": "2", "name": "Alan Turing", "mail": "alan@example.com" }).await?;
    people.insert(record! { "id": "3", "name": "Plato" }).await?;
    assert!(store.stop().await?.unsaved.is_empty());
    println!("Three people are stored as version 1 has them.");

    let store = start(directory.path()).await?;
    let before = files(directory.path())?;
    let refused = store.define_bucket(version_2(split_names)).await;
    let Err(Error::Migration { from: 1, to: 2, records, total: 1, .. }) = refused else {
        return Err("a philosopher got through".into());
    };
    println!("refused, and nothing is changed: record {:?}: {}", records[0].key, records[0].reason);
    assert_eq!(files(directory.path())?, before, "the stored bytes are as they were");

    // The step is corrected, the name of the bucket is free: it is defined again.
    let people = store.define_bucket(version_2(split_all_names)).await?;
    let ada = people.get("person/1").await?.ok_or("no Ada")?;
    assert_eq!((ada.get("first"), ada.get("last")), (Some(&"Ada".into()), Some(&"Lovelace".into())));
    assert_eq!(ada.get("status"), Some(&"active".into()), "a new field has its default");
    assert_eq!(ada.version(), 1, "a migration is no update");
    assert_eq!(people.find(Filter::prefix("last", "Tur")).await?.len(), 1);
    assert!(people.get("1").await?.is_none());
    let twin = record! { "id": "person/4", "first": "A.", "last": "L.", "email": "ada@example.com" };
    assert!(matches!(people.insert(twin).await, Err(Error::UniqueViolation { .. })));
    assert!(store.stop().await?.unsaved.is_empty());
    println!("Migrated: keys, names, e-mail addresses; version 2 is what is stored now.");

    let store = start(directory.path()).await?;
    let older = store.define_bucket(version_1()).await;
    assert!(matches!(older, Err(Error::SchemaTooNew { stored: 2, defined: 1, .. })), "{older:?}");
    println!(
        "An older release refuses what it does not know: {}",
        older.err().map(|e| e.to_string()).unwrap_or_default()
    );
    let people = store.define_bucket(version_2(split_all_names)).await?;
    assert_eq!(people.all().await?.len(), 3);
    assert!(store.stop().await?.unsaved.is_empty());
    Ok(())
}
