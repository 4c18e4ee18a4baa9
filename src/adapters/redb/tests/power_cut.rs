//! Wherever the power is cut, what was acknowledged is there, each commit wholly or not at all, and nothing else.
//!
//! A script that does everything once runs through the adapter on a disk that writes down what redb asks of it. Of each
//! moment before a sync ended, the images that a cut could have left are opened by the adapter and compared with the states
//! that the script went through. Were this broken, a commit that was answered would be gone after a power cut at just the
//! wrong moment, or half of it there.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::journal::{fold, upserting};
use super::medium::{Medium, roll};
use super::*;
use crate::adapters::memory::MemoryAdapter;
use crate::base::disk::power_cut::image::Dice;
use crate::base::error::Error;
use crate::base::name::{MessageId, Subject};
use crate::records::{Request, Write};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate, SdsMessage};

pub(super) const BUCKETS: [&str; 3] = ["users", "users2", "other"];
pub(super) const CHANNELS: [&str; 2] = ["c", "d"];

/// Multiplies how much is tried.
pub(super) fn factor() -> usize {
    std::env::var("RACTOR_PERSISTENCE_CUT_FACTOR").map_or(1, |factor| factor.parse().expect("a number"))
}

/// Says what is drawn, in this run.
pub(super) fn seed() -> u64 {
    std::env::var("RACTOR_PERSISTENCE_CUT_SEED").map_or(0x5eed, |seed| seed.parse().expect("a number"))
}

pub(super) type Contents = (Vec<Option<(BucketSnapshot, BTreeMap<Key, Arc<Record>>)>>, Vec<ChannelData>);

/// Everything that the store holds.
pub(super) async fn everything<A: StorageAdapter>(adapter: &A) -> Result<Contents> {
    let (mut buckets, mut channels) = (Vec::new(), Vec::new());
    for name in BUCKETS {
        buckets.push(plain(adapter.load_bucket(&bucket(name)).await?));
    }
    for name in CHANNELS {
        channels.push(sorted(adapter.load_channel(&channel(name)).await?));
    }
    Ok((buckets, channels))
}

pub(super) fn plain(loaded: Option<BucketSnapshot>) -> Option<(BucketSnapshot, BTreeMap<Key, Arc<Record>>)> {
    loaded.map(|mut snapshot| {
        let records = std::mem::take(&mut snapshot.records);
        (snapshot, records.into_iter().map(|record| (record.key().clone(), record)).collect())
    })
}

pub(super) fn sorted(mut data: ChannelData) -> ChannelData {
    data.message_history.sort_by_key(|message| (message.lamport_timestamp, message.message_id.clone()));
    data.hints.sort();
    data
}

/// One that folds only when it is told to, or before it has to.
pub(super) fn on(medium: &Medium) -> RedbOptions {
    let quiet = Duration::from_secs(3_600);
    RedbOptions { medium: Some(medium.clone()), quiet, pause: quiet, ..RedbOptions::default() }
}

/// One that folds a section at a time.
pub(super) fn slow(medium: &Medium) -> RedbOptions {
    RedbOptions { step_bytes: 1, ..on(medium) }
}

/// Opens what a medium holds.
pub(super) async fn opened(place: &Place, options: RedbOptions) -> Result<RedbAdapter> {
    if !place.path().exists() {
        std::fs::write(place.path(), "stands for the medium").unwrap();
    }
    RedbAdapter::open_with(place.path(), options).await
}

/// Everything that a store is.
#[derive(Clone, PartialEq)]
struct State {
    contents: Contents,
    /// The newest claim's.
    epoch: u64,
    quarantined: usize,
}

/// From an entry of the log on, the states that the store may be in.
struct Mark {
    at: usize,
    states: RangeInclusive<usize>,
}

/// What happened on one medium.
struct Chapter {
    medium: Medium,
    /// The file had its name from then on.
    from: usize,
    marks: Vec<Mark>,
}

struct Life {
    place: Place,
    adapter: RedbAdapter,
    model: MemoryAdapter,
    model_epoch: Epoch,
    states: Vec<State>,
    chapters: Vec<Chapter>,
}

impl Life {
    async fn new() -> Self {
        let (place, medium, model) = (Place::new(), Medium::default(), MemoryAdapter::default());
        let adapter = RedbAdapter::open_with(place.path(), slow(&medium)).await.unwrap();
        let model_epoch = model.claim(&store("shop")).await.unwrap();
        let states = vec![State { contents: everything(&model).await.unwrap(), epoch: 0, quarantined: 0 }];
        let chapter = Chapter { from: medium.position(), medium, marks: Vec::new() };
        let mut life = Self { place, adapter, model, model_epoch, states, chapters: vec![chapter] };
        life.mark(1);
        life
    }

    fn chapter(&mut self) -> &mut Chapter {
        self.chapters.last_mut().unwrap()
    }

    /// From now on the store is in one of the newest states.
    fn mark(&mut self, states: usize) {
        let newest = self.states.len() - 1;
        let chapter = self.chapter();
        chapter.marks.push(Mark { at: chapter.medium.position(), states: newest + 1 - states..=newest });
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.states.last().unwrap().epoch)
    }

    fn asked(&self, saves: Vec<Save>) -> Commit {
        Commit::new(store("shop"), self.epoch(), Durability::Fsync, saves)
    }

    /// The model does what the store is asked for next.
    async fn expect(&mut self, saves: Vec<Save>) {
        let same = Commit::new(store("shop"), self.model_epoch, Durability::Fsync, saves);
        self.model.commit(&same).await.unwrap();
        let contents = everything(&self.model).await.unwrap();
        self.states.push(State { contents, ..self.states.last().unwrap().clone() });
    }

    async fn commit(&mut self, saves: Vec<Save>) {
        let commit = self.asked(saves.clone());
        self.expect(saves).await;
        self.mark(2);
        self.adapter.commit(&commit).await.unwrap();
        self.mark(1);
    }

    /// Commits that are asked for at once, in this order, and one of a fenced owner among them.
    async fn together(&mut self, all: [Vec<Save>; 3]) {
        let [first, second, third] = all.clone().map(|saves| self.asked(saves));
        let stale = Commit::new(store("shop"), Epoch(0), Durability::Fsync, vec![full_of("users", 66, &["stale"])]);
        for saves in all {
            self.expect(saves).await;
        }
        self.mark(4);
        let adapter = &self.adapter;
        let answers = tokio::join!(
            adapter.commit(&first),
            adapter.commit(&second),
            adapter.commit(&stale),
            adapter.commit(&third)
        );
        assert!(matches!(answers, (Ok(()), Ok(()), Err(Error::Fenced { .. }), Ok(()))), "{answers:?}");
        self.mark(1);
    }

    async fn fold(&mut self) {
        while fold(&self.adapter).await.unwrap() {}
    }

    async fn claim(&mut self) {
        let state = self.states.last().unwrap().clone();
        self.states.push(State { epoch: state.epoch + 1, ..state });
        self.mark(2);
        assert_eq!(self.adapter.claim(&store("shop")).await.unwrap(), self.epoch());
        self.mark(1);
    }

    async fn quarantine(&mut self, name: &str) {
        self.expect(vec![Save::DropBucket(bucket(name).bucket)]).await;
        self.states.last_mut().unwrap().quarantined += 1;
        self.mark(2);
        self.adapter.quarantine(&store("shop"), &Subject::Bucket(bucket(name).bucket)).await.unwrap();
        self.mark(1);
    }

    /// Goes on with what a kill leaves, or a close, which folds.
    async fn reopen(&mut self, killed: bool, options: fn(&Medium) -> RedbOptions) {
        let left = self.chapter().medium.now();
        close(self.adapter.clone()).await;
        let medium = Medium::of(if killed { left } else { self.chapter().medium.now() });
        self.adapter = opened(&self.place, options(&medium)).await.unwrap();
        self.chapters.push(Chapter { medium, from: 0, marks: Vec::new() });
        let newest = self.states.len() - 1;
        self.chapter().marks.push(Mark { at: 0, states: newest..=newest });
    }
}

pub(super) fn full_of(name: &str, revision: u64, texts: &[&str]) -> Save {
    let records = texts.iter().zip(1_u8..).map(|(text, key)| with_text(i64::from(key), key.into(), text));
    save(&bucket(name), BucketChange::Full(BucketSnapshot::new(1, revision, 3, records.collect())))
}

pub(super) fn put(name: &str, revision: u64, key: i64, text: &str) -> Save {
    save(&bucket(name), upserting(revision, vec![with_text(key, revision, text)]))
}

pub(super) fn messages(name: &str, append: &[i64], evict: &[i64]) -> Save {
    let id = |at: i64| MessageId::from(format!("m{at}").as_bytes());
    let append = append.iter().map(|at| SdsMessage {
        message_id: id(*at),
        lamport_timestamp: *at,
        content: format!("message {at}").into_bytes().into(),
        channel_id: name.to_owned().into(),
        ..SdsMessage::default()
    });
    let update = HistoryUpdate::new(append.collect(), evict.iter().map(|at| id(*at)).collect());
    Save::History(channel(name).channel, Arc::new(update))
}

pub(super) fn clock(name: &str, lamport_timestamp: i64) -> Save {
    let meta = ChannelMeta { lamport_timestamp, ..ChannelMeta::default() };
    Save::ChannelMeta(channel(name).channel, Arc::new(meta))
}

pub(super) fn hint(name: &str, at: i64, hint: &'static str) -> Save {
    Save::Hint(channel(name).channel, MessageId::from(format!("m{at}").as_bytes()), hint.into())
}

pub(super) fn by_request(name: &str, revision: u64, key: i64) -> Save {
    let mut change = BucketDelta { upserts: vec![with_text(key, revision, "asked for")], ..delta(revision) };
    let request = Request::new(format!("request {revision}"), &Write::Clear).unwrap();
    (change.requests, change.request_window) = (vec![Request { revision, ..request }], 2);
    save(&bucket(name), BucketChange::Delta(change))
}

/// Everything once.
async fn script() -> Life {
    let mut life = Life::new().await;
    let large = "large ".repeat(4_000);
    life.claim().await;
    // First saves: rows at once, and a journal.
    life.commit(vec![full_of("users", 1, &["a", "b", "c"]), clock("c", 1)]).await;
    life.commit(vec![put("users", 2, 2, "b2"), put("users2", 1, 1, "x"), messages("c", &[1, 2, 3], &[])]).await;
    life.commit(vec![by_request("users", 3, 4), hint("c", 2, "hint"), messages("c", &[4], &[1])]).await;
    life.together([
        vec![put("users2", 2, 2, "y"), put("other", 1, 1, "z")],
        vec![messages("d", &[5], &[]), clock("d", 5), by_request("users", 4, 5)],
        vec![put("users2", 3, 1, "x3"), clock("c", 6)],
    ])
    .await;
    life.fold().await;
    // Several sections, over rows and a clear; other commits come between the steps.
    let mut cleared = BucketDelta { cleared: true, ..delta(5) };
    cleared.upserts = (1_u8..=4).map(|key| with_text(i64::from(key), key.into(), &large)).collect();
    life.commit(vec![save(&bucket("users"), BucketChange::Delta(cleared)), put("users2", 4, 9, "between")]).await;
    life.commit(vec![by_request("users", 6, 7)]).await;
    fold(&life.adapter).await.unwrap();
    let mut fewer = BucketDelta { deletes: vec![Key::from(3), Key::from(9)], ..delta(7) };
    fewer.upserts = vec![with_text(8, 8, "late")];
    life.commit(vec![save(&bucket("users"), BucketChange::Delta(fewer)), messages("c", &[7], &[2])]).await;
    // A kill with a journal, which the next owner folds to load.
    life.reopen(true, slow).await;
    life.claim().await;
    life.adapter.load_bucket(&bucket("users")).await.unwrap();
    life.commit(vec![put("users", 8, 1, &large), full_of("users2", 5, &["over", "the", "journal"])]).await;
    life.fold().await;
    life.commit(vec![put("other", 2, 2, "to be dropped"), messages("d", &[8], &[5])]).await;
    life.commit(vec![Save::DropBucket(bucket("other").bucket), Save::DropChannel(channel("d").channel)]).await;
    life.commit(vec![put("users2", 6, 4, "to be moved"), put("other", 1, 1, "again")]).await;
    life.quarantine("users2").await;
    life.commit(vec![put("users2", 1, 1, "anew"), put("users", 9, 9, "i")]).await;
    life.reopen(false, on).await;
    life.claim().await;
    life.commit(vec![put("users", 10, 10, "j"), clock("d", 9)]).await;
    life.adapter.compact().await.unwrap();
    life.commit(vec![put("users", 11, 1, "small again"), messages("c", &[9], &[3])]).await;
    // The free pages are recorded in a pause.
    life.reopen(true, |medium| RedbOptions { pause: Duration::ZERO, worth_recording: 0, ..on(medium) }).await;
    life.claim().await;
    life.commit(vec![put("users", 12, 12, "k")]).await;
    let syncs = life.chapter().medium.syncs();
    life.fold().await;
    while life.chapter().medium.syncs() < syncs + 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    close(life.adapter.clone()).await;
    life
}

/// Opens an image and compares it with the states that it may be of, and writes on. Answers which it is of, what opening it
/// and loading everything did to the medium, and how far that went.
async fn check(
    states: &[State],
    allowed: &RangeInclusive<usize>,
    image: Vec<u8>,
    slowly: bool,
    what: &str,
) -> (Vec<usize>, Medium, usize) {
    let (place, medium) = (Place::new(), Medium::of(image));
    let options = if slowly { slow(&medium) } else { on(&medium) };
    let adapter = opened(&place, options).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let contents = everything(&adapter).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let kept = adapter.quarantined().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(kept.iter().all(|kept| kept.subject == "bucket users2" && kept.rows.len() >= 4), "{what}");
    let recovered = medium.position();
    let epoch = adapter.claim(&store("shop")).await.unwrap();
    let found = State { contents, epoch: epoch.0 - 1, quarantined: kept.len() };
    let same: Vec<usize> = (0..states.len()).filter(|state| states[*state] == found).collect();
    assert!(
        same.iter().any(|state| allowed.contains(state)),
        "{what}: may be of states {allowed:?}, is of {same:?}, with revisions {:?}, epoch {}, {} in quarantine",
        found.contents.0.iter().flatten().map(|(snapshot, _)| snapshot.revision).collect::<Vec<_>>(),
        found.epoch,
        found.quarantined,
    );
    let after = vec![put("users", 99, 99, "after"), clock("c", 99)];
    commit(&adapter, &store("shop"), epoch, after).await.unwrap();
    let users = adapter.load_bucket(&bucket("users")).await.unwrap().unwrap();
    let before = found.contents.0[0].as_ref().map_or(0, |(_, records)| records.len());
    assert_eq!((users.revision, users.records.len()), (99, before + 1), "{what}");
    close(adapter).await;
    (same, medium, recovered)
}

#[tokio::test]
async fn every_image_that_a_power_cut_can_leave_has_what_was_acknowledged_and_no_half_of_a_commit() {
    let (seed, most) = (seed(), 6 * factor());
    println!("seed {seed}, at most {most} images of a moment");
    let mut dice = Dice(seed);
    let life = script().await;
    let (mut moments, mut images, mut of_older, mut of_newer, mut again) = (0, 0, 0, 0, 0);
    for (number, chapter) in life.chapters.iter().enumerate() {
        for moment in chapter.medium.moments().into_iter().filter(|moment| moment.at >= chapter.from) {
            moments += 1;
            let mark = chapter.marks.iter().rev().find(|mark| mark.at <= moment.at).unwrap();
            for (drawn, kept) in moment.selections(most, &mut dice).into_iter().enumerate() {
                images += 1;
                let what = format!("seed {seed}, chapter {number}, entry {}, {kept:?}", moment.at);
                let image = moment.image(&kept);
                let (same, recovery, end) = check(&life.states, &mark.states, image, drawn % 2 == 0, &what).await;
                if mark.states.clone().count() > 1 {
                    of_older += usize::from(same.contains(mark.states.start()));
                    of_newer += usize::from(same.contains(mark.states.end()));
                }
                if images % 20 > 0 {
                    continue;
                }
                // And the power is cut once more, while what was left is repaired and folded.
                for moment in recovery.moments().into_iter().filter(|moment| moment.at < end) {
                    again += 1;
                    let kept = moment.draw(&mut dice);
                    let what = format!("{what}, and then entry {}, {kept:?}", moment.at);
                    let of = same[0]..=*same.last().unwrap();
                    check(&life.states, &of, moment.image(&kept), roll(&mut dice, 2) == 0, &what).await;
                }
            }
        }
    }
    println!(
        "{moments} moments, {images} images, {of_older} without the commit in flight, {of_newer} with it; {again} cut again"
    );
    assert!(moments > 40 && images > 300 && of_older > 50 && of_newer > 10 && again > 10);
}

#[tokio::test]
async fn a_file_that_is_born_has_its_name_only_when_all_of_it_is_on_disk() {
    let place = Place::new();
    let medium = Medium::to_be(place.path());
    close(RedbAdapter::open_with(place.path(), on(&medium)).await.unwrap()).await;
    let mut dice = Dice(seed());
    let (unnamed, named): (Vec<_>, Vec<_>) = medium.moments().into_iter().partition(|moment| !moment.named);
    assert!(!unnamed.is_empty() && !named.is_empty(), "{} {}", unnamed.len(), named.len());
    // Without its name, whatever is left is read by nobody; with it, everything is there.
    let model = MemoryAdapter::default();
    let nothing = State { contents: everything(&model).await.unwrap(), epoch: 0, quarantined: 0 };
    for moment in named {
        for kept in moment.selections(usize::MAX, &mut dice) {
            let what = format!("entry {}, {kept:?}", moment.at);
            check(slice_of(&nothing), &(0..=0), moment.image(&kept), false, &what).await;
        }
    }
}

fn slice_of(state: &State) -> &[State] {
    std::slice::from_ref(state)
}
