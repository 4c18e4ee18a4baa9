//! The adapter under test, the stores that are open on it, and what each of them should hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, StoreName, Subject};
use crate::persistence::{Atomicity, Capabilities, Commit, Epoch, Save, StorageAdapter};
use crate::records::{BucketChange, BucketDelta, BucketSnapshot};
use crate::testkit::conformance::model::{Loaded, Model};
use crate::testkit::verdict::{Doing, ensure, with_causes};
use crate::testkit::{Broken, Factory, Verdict};

pub(super) struct Bench<'a> {
    factory: &'a dyn Factory,
    pub(super) declared: Capabilities,
    pub(super) adapter: Arc<dyn StorageAdapter>,
    /// The store that is meant where none is named.
    pub(super) store: StoreName,
    stores: BTreeMap<StoreName, Open>,
}

#[derive(Default)]
struct Open {
    epoch: Epoch,
    model: Model,
}

pub(super) fn store(name: &str) -> Verdict<StoreName> {
    StoreName::new(name).doing("naming a store")
}

pub(super) fn bucket(name: &str) -> Verdict<BucketName> {
    BucketName::new(name).doing("naming a bucket")
}

pub(super) fn channel(name: &str) -> Verdict<ChannelId> {
    ChannelId::new(name).doing("naming a channel")
}

pub(super) fn full(bucket: &BucketName, snapshot: BucketSnapshot) -> Save {
    Save::Bucket(bucket.clone(), Arc::new(BucketChange::Full(snapshot)))
}

pub(super) fn delta(bucket: &BucketName, delta: BucketDelta) -> Save {
    Save::Bucket(bucket.clone(), Arc::new(BucketChange::Delta(delta)))
}

impl<'a> Bench<'a> {
    /// Opens the place and claims one store on it.
    pub(super) async fn open(factory: &'a dyn Factory, declared: Capabilities) -> Verdict<Self> {
        let adapter = factory.open().await.doing("opening the adapter on a new place")?;
        let store = store("kit")?;
        let mut bench = Self { factory, declared, adapter, store: store.clone(), stores: BTreeMap::new() };
        bench.claim(&store).await?;
        Ok(bench)
    }

    /// Opens the place a second time, beside what is open.
    pub(super) async fn open_again(&self) -> Result<Arc<dyn StorageAdapter>> {
        self.factory.open().await
    }

    /// Where the adapter may make a backup, if that is examined.
    pub(super) fn backup_target(&self, number: u32) -> Option<PathBuf> {
        self.factory.backup_target(number)
    }

    /// Opens a backup, claims all stores on it, does something there in the place of the original, and closes it.
    pub(super) async fn on_backup(&mut self, target: &Path, what: &str, then: Vec<Save>) -> Verdict {
        let copy = self.factory.open_backup(target).await.doing(format_args!("opening {what}"))?;
        let epochs: Vec<(StoreName, Epoch)> =
            self.stores.iter().map(|(store, open)| (store.clone(), open.epoch)).collect();
        let (original, model) = (std::mem::replace(&mut self.adapter, copy), self.model());
        let verdict = self.try_backup(&epochs, what, then).await;
        for (store, epoch) in epochs {
            if let Err(error) = self.adapter.close(&store).await {
                return Err(Broken::new(format!("closing {what} failed: {}", with_causes(&error))));
            }
            self.stores.entry(store).or_default().epoch = epoch;
        }
        self.adapter = original;
        self.set_model(model);
        verdict
    }

    async fn try_backup(&mut self, stores: &[(StoreName, Epoch)], what: &str, then: Vec<Save>) -> Verdict {
        for (store, before) in stores {
            let epoch = self.claim(store).await?;
            let higher = epoch > *before || !self.declared.fencing;
            ensure!(higher, "{what} gave out epoch {epoch} of store {store:?}, which the original had given out");
        }
        self.check(what).await?;
        self.commit(then).await?;
        self.check(&format!("a commit on {what}")).await
    }

    pub(super) fn poison(&self) -> Option<Save> {
        self.factory.poison()
    }

    /// Claims a store; what it holds stays.
    pub(super) async fn claim(&mut self, store: &StoreName) -> Verdict<Epoch> {
        let epoch = self.adapter.claim(store).await.doing(format_args!("claiming store {store:?}"))?;
        self.stores.entry(store.clone()).or_default().epoch = epoch;
        Ok(epoch)
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.stores.get(&self.store).map_or_else(Epoch::default, |open| open.epoch)
    }

    pub(super) fn model(&self) -> Model {
        self.stores.get(&self.store).map(|open| open.model.clone()).unwrap_or_default()
    }

    /// Settles on one of several states that were allowed.
    pub(super) fn set_model(&mut self, model: Model) {
        self.stores.entry(self.store.clone()).or_default().model = model;
    }

    /// Closes all stores, then opens the place and claims them again: in a new adapter if the old one's data is to
    /// survive that.
    pub(super) async fn reopen(&mut self) -> Verdict {
        let stores: Vec<StoreName> = self.stores.keys().cloned().collect();
        for store in &stores {
            self.adapter.close(store).await.doing(format_args!("closing store {store:?}"))?;
        }
        if self.declared.survives_restart {
            // The old adapter is still there, closed: nothing of it may be in the way.
            self.adapter = self.factory.open().await.doing("opening the adapter again after everything was closed")?;
        }
        for store in &stores {
            self.claim(store).await?;
        }
        Ok(())
    }

    /// A commit of these saves as a store would make it, and what the store should hold after it.
    pub(super) fn prepare(&self, store: &StoreName, saves: Vec<Save>) -> (Commit, Model) {
        let nothing = Open::default();
        let open = self.stores.get(store).unwrap_or(&nothing);
        let mut model = open.model.clone();
        let saves = saves
            .into_iter()
            .map(|save| {
                model.apply(&save);
                match save {
                    Save::Bucket(name, change)
                        if !self.declared.incremental && matches!(*change, BucketChange::Delta(_)) =>
                    {
                        full(&name, model.snapshot(&name))
                    }
                    save => save,
                }
            })
            .collect();
        (Commit::new(store.clone(), open.epoch, self.declared.durability, saves), model)
    }

    /// Commits to a store; its model follows if that succeeds.
    pub(super) async fn attempt(&mut self, store: &StoreName, saves: Vec<Save>) -> Result<(), Error> {
        let (commit, model) = self.prepare(store, saves);
        self.adapter.commit(&commit).await?;
        self.stores.entry(store.clone()).or_default().model = model;
        Ok(())
    }

    /// Commits to a store, which must succeed.
    pub(super) async fn commit_to(&mut self, store: &StoreName, saves: Vec<Save>) -> Verdict {
        self.attempt(store, saves).await.doing(format_args!("a commit to store {store:?}"))
    }

    /// Commits, which must succeed.
    pub(super) async fn commit(&mut self, saves: Vec<Save>) -> Verdict {
        self.commit_to(&self.store.clone(), saves).await
    }

    /// Commits, and looks at everything at once and after a reopening.
    pub(super) async fn commit_and_check(&mut self, what: &str, saves: Vec<Save>) -> Verdict {
        self.commit(saves).await?;
        self.check(what).await?;
        self.reopen().await?;
        self.check(&format!("{what}, and reopening")).await
    }

    pub(super) async fn load_bucket(&self, name: &BucketName) -> Verdict<Option<BucketSnapshot>> {
        let key = BucketKey::new(self.store.clone(), name.clone());
        self.adapter.load_bucket(&key).await.doing(format_args!("loading bucket {name:?}"))
    }

    /// Loads everything that a store has seen.
    pub(super) async fn load(&self, store: &StoreName) -> Verdict<Loaded> {
        let mut loaded = Loaded::default();
        let Some(open) = self.stores.get(store) else { return Ok(loaded) };
        for subject in &open.model.seen {
            match subject {
                Subject::Bucket(name) => {
                    let found = self.adapter.load_bucket(&BucketKey::new(store.clone(), name.clone())).await;
                    let found = found.doing(format_args!("loading bucket {name:?} of store {store:?}"))?;
                    loaded.buckets.insert(name.clone(), found);
                }
                Subject::Channel(id) => {
                    let found = self.adapter.load_channel(&ChannelKey::new(store.clone(), id.clone())).await;
                    let found = found.doing(format_args!("loading channel {id:?} of store {store:?}"))?;
                    loaded.channels.insert(id.clone(), found);
                }
            }
        }
        Ok(loaded)
    }

    /// Whether every store holds what it should.
    pub(super) async fn check(&self, after: &str) -> Verdict {
        for (store, open) in &self.stores {
            let differences = open.model.differences(&self.load(store).await?);
            if let Some((subject, difference)) = differences.first_key_value() {
                let others = match differences.len() - 1 {
                    0 => String::new(),
                    others => format!(" (and {others} more subject(s) differ)"),
                };
                let message = format!("after {after}: store {store:?}, {subject}: {difference}{others}");
                return Err(Broken::new(message));
            }
        }
        Ok(())
    }

    /// Whether the store is as before or as after something, as far as the declared atomicity binds it. Answers true if
    /// it is one of the two as a whole, to which it is then held.
    pub(super) async fn check_either(&mut self, what: &str, before: &Model, after: &Model) -> Verdict<bool> {
        let loaded = self.load(&self.store.clone()).await?;
        let not_before = before.differences(&loaded);
        let not_after = after.differences(&loaded);
        if not_before.is_empty() || not_after.is_empty() {
            self.set_model(if not_after.is_empty() { after.clone() } else { before.clone() });
            return Ok(true);
        }
        let told = |differences: &BTreeMap<Subject, String>| {
            let told: Vec<String> = differences.iter().map(|(subject, text)| format!("{subject}: {text}")).collect();
            told.join("; ")
        };
        ensure!(
            self.declared.atomicity != Atomicity::Whole,
            "{what}: neither all nor nothing is stored. Not as before: {}. Not as after: {}",
            told(&not_before),
            told(&not_after)
        );
        for (subject, difference) in &not_before {
            // Without any atomicity, the parts of a channel may differ in age.
            let bound = self.declared.atomicity != Atomicity::None || matches!(subject, Subject::Bucket(_));
            if let (true, Some(other)) = (bound, not_after.get(subject)) {
                let message = format!("{what}: {subject} is half done. From before: {difference}. From after: {other}");
                return Err(Broken::new(message));
            }
        }
        Ok(false)
    }

    /// Whether an adapter that fences refused an epoch, and changed nothing.
    pub(super) async fn check_fenced(&self, what: &str, result: Result<(), Error>) -> Verdict {
        match result {
            Err(Error::Fenced { .. }) => self.check(what).await,
            Ok(()) => Err(Broken::new(format!("{what} was accepted, it must be Fenced"))),
            Err(other) => Err(Broken::new(format!("{what} must be Fenced, it was: {}", with_causes(&other)))),
        }
    }
}
