//! An adapter of one's own: each bucket whole, in a file of its own, written anew whenever it has changed.
//!
//! It is about as small as an adapter can be that keeps its promises: it takes no deltas, keeps no channels and refuses
//! no older claims, and says so in its capabilities. The conformance kit proves the rest: `prove` below, when the feature
//! `testkit` is on; in an application of yours it is a test, as in `tests/conformance.rs`.

use std::{fs, io, io::Write, path::Path, path::PathBuf, sync::Arc};

use ractor_persistence::base::codec::{Format, decode, encode};
use ractor_persistence::base::error::{Error, Place, Result};
use ractor_persistence::base::name::{BucketKey, StoreName};
use ractor_persistence::persistence::{Atomicity, Capabilities, StorageAdapter};
use ractor_persistence::record;
use ractor_persistence::records::{BucketChange, BucketDefinition, BucketSnapshot, Field};
use ractor_persistence::store::Store;

const FORMAT: Format = Format { name: "bucket file", version: 1 };

/// Keeps buckets below a directory. The lock stays with the work on a file, also when nobody waits for that any more.
pub(crate) struct FileAdapter(pub(crate) Arc<tokio::sync::Mutex<PathBuf>>);

impl FileAdapter {
    /// Works on a bucket's file, off the async workers. Names are in hexadecimal, 64 bytes to a part of the path: none
    /// is too long, leaves the directory, or is that of another bucket's file.
    async fn with_file<T: Send + 'static>(
        &self,
        bucket: &BucketKey,
        work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let part = |(at, byte): (usize, u8)| format!("{}{byte:02x}", if at == 64 { "/" } else { "" });
        let hex = |name: &str| name.bytes().enumerate().map(part).collect::<String>();
        let path = format!("{}.store/{}.bucket", hex(bucket.store.as_str()), hex(bucket.bucket.as_str()));
        let directory = Arc::clone(&self.0).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || work(directory.join(path))).await;
        done.map_err(|error| Error::unknown("file access", error))?
            .map_err(|error| Error::transient("file access", error))
    }
}

#[async_trait::async_trait]
impl StorageAdapter for FileAdapter {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_atomicity(Atomicity::PerSubject)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        let BucketChange::Full(snapshot) = change else { return Err(Error::unsupported("saving a delta")) };
        let bytes = encode(FORMAT, b"", snapshot).map_err(|error| Error::permanent("encoding", error))?;
        let write = move |path: PathBuf| {
            fs::create_dir_all(path.with_file_name(""))?;
            let mut file = fs::File::create(path.with_extension("tmp"))?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(path.with_extension("tmp"), path)
        };
        self.with_file(bucket, write).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        let read = |path| fs::read(path).map(Some).or_else(|error| unless_missing(error, None));
        let Some(bytes) = self.with_file(bucket, read).await? else { return Ok(None) };
        let damaged = |error| Error::corrupt(Place::new(FORMAT.name).at(bucket.bucket.as_str()), format!("{error}"));
        decode(FORMAT, b"", &bytes).map(Some).map_err(damaged)
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.with_file(bucket, |path| fs::remove_file(path).or_else(|error| unless_missing(error, ()))).await
    }

    async fn close(&self, _store: &StoreName) -> Result<()> {
        drop(self.0.lock().await);
        Ok(())
    }
}

fn unless_missing<T>(error: io::Error, answer: T) -> io::Result<T> {
    if error.kind() == io::ErrorKind::NotFound { Ok(answer) } else { Err(error) }
}

/// One life of a store on the adapter: answers the names that it found, and adds another one.
async fn run(directory: &Path, name: &str) -> Result<Vec<String>> {
    let adapter = FileAdapter(Arc::new(directory.to_owned().into()));
    let store = Store::builder("shop").adapter(adapter).start().await?;
    let users = BucketDefinition::new("users").key("name").field("name", Field::string());
    let users = store.define_bucket(users).await?;
    let found = users.all().await?.iter().map(|user| user.to_json()["name"].to_string()).collect();
    users.insert(record! { "name": name }).await?;
    let report = store.stop().await?;
    assert!(report.unsaved.is_empty(), "{report:?}");
    Ok(found)
}

/// Everything that a store trusts the adapter with, promise by promise, each in a directory of its own.
#[cfg(feature = "testkit")]
async fn prove(directory: &Path) -> Result<()> {
    use ractor_persistence::testkit::conformance::PROMISES;
    for promise in PROMISES {
        let place = directory.join(promise.name);
        let factory = || std::future::ready(Ok(FileAdapter(Arc::new(place.clone().into()))));
        let declared = Capabilities::default().with_atomicity(Atomicity::PerSubject);
        let verdict = promise.examine(&factory, declared).await;
        verdict.map_err(|broken| Error::permanent(promise.name, broken))?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("custom-adapter-{}", std::process::id()));
    #[cfg(feature = "testkit")]
    prove(&directory.join("proof")).await?;
    assert!(run(&directory, "Ada").await?.is_empty());
    assert_eq!(run(&directory, "Bob").await?, [r#""Ada""#]);
    assert_eq!(run(&directory, "Eve").await?, [r#""Ada""#, r#""Bob""#]);
    fs::remove_dir_all(&directory).map_err(|error| Error::transient("removing the directory", error))
}
