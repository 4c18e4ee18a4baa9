//! Keeps the dependency graph of a Cargo workspace, and writes only what differs from the last time.
//!
//! ```text
//! cargo metadata --format-version 1 | cargo run --release --example ingest -- DIR
//! ```
//!
//! Packages and dependency edges go into two buckets in `DIR/graph.redb`. Run it again: everything is there, nothing is
//! written. Run it again after `cargo update`: what changed is written, what is gone is deleted.
//!
//! A receipt beside the file tells the next run what it has to find, so that a run which found less would fail.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::value::MAX_KEY_BYTES;
use ractor_persistence::bucket::{Bucket, TypedBucket};
use ractor_persistence::records::{BucketDefinition, Field, Filter};
use ractor_persistence::store::Store;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

// ---- what Cargo says, as far as it is kept

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
struct DependencyKind {
    kind: Option<String>,
    target: Option<String>,
}

// ---- what is kept

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Package {
    /// From the id; Cargo does not say it.
    #[serde(default)]
    key: String,
    id: String,
    name: String,
    version: String,
    source: Option<String>,
    license: Option<String>,
    description: Option<String>,
    edition: String,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Edge {
    key: String,
    from: String,
    to: String,
    /// By this name `from` knows `to`.
    name: String,
    kinds: Vec<DependencyKind>,
}

/// Fields that are not declared are kept as well; declared are those that others rely on.
fn packages() -> BucketDefinition {
    BucketDefinition::new("packages")
        .key("key")
        .field("key", Field::string())
        .field("id", Field::string().required().unique())
        .field("name", Field::string().required())
        .index(["name"])
}

fn edges() -> BucketDefinition {
    BucketDefinition::new("edges")
        .key("key")
        .field("key", Field::string())
        .field("from", Field::string().required())
        .field("to", Field::string().required())
        .index(["from"])
        .index(["to"])
}

/// Keys are texts of at most 1,024 bytes: a longer one is cut, and a hash stands for what was cut off.
fn key_of(text: &str) -> String {
    if text.len() <= MAX_KEY_BYTES {
        return text.to_owned();
    }
    let hash = format!("#{:016x}", farmhash::fingerprint64(text.as_bytes()));
    let cut = (0..=MAX_KEY_BYTES - hash.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{hash}", &text[..cut])
}

trait Keyed {
    fn key(&self) -> &str;
}

impl Keyed for Package {
    fn key(&self) -> &str {
        &self.key
    }
}

impl Keyed for Edge {
    fn key(&self) -> &str {
        &self.key
    }
}

fn read(metadata: &str) -> Outcome<(Vec<Package>, Vec<Edge>)> {
    let Metadata { mut packages, resolve } = serde_json::from_str(metadata)?;
    for package in &mut packages {
        package.key = key_of(&package.id);
    }
    let mut edges = Vec::new();
    for Node { id: from, deps } in resolve.nodes {
        for Dependency { name, pkg: to, dep_kinds: kinds } in deps {
            // Cargo lists an edge once, however many kinds it has; a renamed dependency makes a second one.
            let key = key_of(&format!("{from} -> {to} as {name}"));
            edges.push(Edge { key, from: from.clone(), to, name, kinds });
        }
    }
    Ok((packages, edges))
}

// ---- writing differences

#[derive(Debug, Default)]
struct Differences {
    inserted: usize,
    updated: usize,
    deleted: usize,
}

impl Differences {
    fn written(&self) -> usize {
        self.inserted + self.updated + self.deleted
    }
}

/// Makes a bucket hold exactly these records.
async fn write<T>(bucket: &Bucket, wanted: &[T]) -> Outcome<Differences>
where
    T: Keyed + Serialize + DeserializeOwned + PartialEq,
{
    let kept: TypedBucket<T> = bucket.typed();
    let mut vanished: HashMap<String, T> =
        kept.all().await?.into_iter().map(|record| (record.key().to_owned(), record)).collect();
    let mut differences = Differences::default();
    for record in wanted {
        match vanished.remove(record.key()) {
            None => {
                kept.insert(record).await?;
                differences.inserted += 1;
            }
            Some(same) if same == *record => {}
            Some(_) => {
                kept.update(record.key(), record).await?;
                differences.updated += 1;
            }
        }
    }
    for key in vanished.into_keys() {
        kept.delete(key).await?;
        differences.deleted += 1;
    }
    Ok(differences)
}

/// Every record is there, equal in every field, and nothing else is.
async fn compare<T>(bucket: &Bucket, wanted: &[T]) -> Outcome
where
    T: Keyed + Serialize + DeserializeOwned + PartialEq + Debug,
{
    assert_eq!(bucket.count(Filter::all()).await?, wanted.len());
    let kept: TypedBucket<T> = bucket.typed();
    for record in wanted {
        assert_eq!(kept.get(record.key()).await?.as_ref(), Some(record));
    }
    Ok(())
}

fn rate(count: usize, took: Duration) -> String {
    // Rounded for people to read; a count that an f64 cannot hold exactly does not fit into memory.
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / took.as_secs_f64();
    format!("{count} in {:.1} ms, {rate:.0} per second", took.as_secs_f64() * 1e3)
}

async fn ingest(directory: &Path, metadata: &str) -> Outcome {
    let (wanted_packages, wanted_edges) = read(metadata)?;
    fs::create_dir_all(directory)?;

    let begun = Instant::now();
    let adapter = RedbAdapter::open(directory.join("graph.redb")).await?;
    let store = Store::builder("graph").adapter(adapter).start().await?;
    let packages = store.define_bucket(packages()).await?;
    let edges = store.define_bucket(edges()).await?;
    let restored = (packages.count(Filter::all()).await?, edges.count(Filter::all()).await?);
    println!("restored: {} packages and {} edges", restored.0, restored.1);
    println!("          {}", rate(restored.0 + restored.1, begun.elapsed()));

    // The receipt says what the run before has left. It goes before anything is written, and comes back at the end: a
    // run that was interrupted leaves none.
    let receipt = directory.join("receipt.json");
    let earlier: Option<(usize, usize, u64)> = match fs::read_to_string(&receipt) {
        Ok(text) => Some(serde_json::from_str(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let fingerprint = farmhash::fingerprint64(serde_json::to_string(&(&wanted_packages, &wanted_edges))?.as_bytes());
    if let Some((packages, edges, _)) = earlier {
        assert_eq!(restored, (packages, edges), "everything that the run before has left is there");
        fs::remove_file(&receipt)?;
    }

    let begun = Instant::now();
    let of_packages = write(&packages, &wanted_packages).await?;
    let of_edges = write(&edges, &wanted_edges).await?;
    store.flush().await?;
    let took = begun.elapsed();
    let written = of_packages.written() + of_edges.written();
    println!("packages: {of_packages:?}");
    println!("edges:    {of_edges:?}");
    println!("written:  {}", rate(written, took));

    let saved = store.stats().await.persistence;
    println!("saved:    {} bytes in {} commits", saved.bytes, saved.commits);
    if earlier.is_some_and(|(.., same)| same == fingerprint) {
        assert_eq!(written, 0, "nothing is written when nothing has changed");
    }
    assert_eq!(written == 0, saved.commits == 0, "commits happen if, and only if, something was written");
    assert_eq!(written == 0, saved.bytes == 0);
    assert!(saved.unsaved.is_empty());

    compare(&packages, &wanted_packages).await?;
    compare(&edges, &wanted_edges).await?;

    // The index on `to` answers who needs a package; the graph as Cargo gave it says the same.
    let mut dependents: HashMap<&str, usize> = HashMap::new();
    for edge in &wanted_edges {
        *dependents.entry(&edge.to).or_default() += 1;
    }
    for package in &wanted_packages {
        let expected = dependents.get(package.id.as_str()).copied().unwrap_or(0);
        assert_eq!(edges.count(Filter::eq("to", package.id.as_str())).await?, expected);
    }
    if let Some((id, count)) = dependents.iter().max_by_key(|(id, count)| (**count, **id)) {
        println!("most needed, by {count}: {id}");
    }

    let report = store.stop().await?;
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    fs::write(&receipt, serde_json::to_string(&(wanted_packages.len(), wanted_edges.len(), fingerprint))?)?;
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let directory = env::args_os().nth(1);
    let mut metadata = String::new();
    if !io::stdin().is_terminal() {
        io::stdin().read_to_string(&mut metadata)?;
    }
    match directory {
        Some(directory) if !metadata.trim().is_empty() => ingest(directory.as_ref(), &metadata).await,
        _ => {
            eprintln!("usage: cargo metadata --format-version 1 | cargo run --release --example ingest -- DIR");
            std::process::exit(2);
        }
    }
}
