//! Whatever was committed and folded, and wherever the power was cut meanwhile, again and again: what is loaded is what
//! memory holds, with or without the commit in flight, as a whole.

use proptest::prelude::*;

use super::journal::{Part, fold, parts, save_of};
use super::medium::{Medium, roll};
use super::power_cut::{Contents, everything, factor, opened, slow};
use super::*;
use crate::adapters::memory::MemoryAdapter;
use crate::base::disk::power_cut::image::Dice;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Part>),
    Fold,
    Load,
    Reopen,
    /// A commit, without parts a step of folding, during which the power is cut; how, the dice say.
    Cut(Vec<Part>, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => proptest::collection::vec(parts(), 1..4).prop_map(Step::Commit),
        2 => Just(Step::Fold),
        1 => Just(Step::Load),
        1 => Just(Step::Reopen),
        4 => (proptest::collection::vec(parts(), 0..4), any::<u64>()).prop_map(|(parts, dice)| Step::Cut(parts, dice)),
    ];
    proptest::collection::vec(step, 1..20)
}

/// What was committed, and what that comes to.
async fn model(commits: &[Vec<Save>]) -> Contents {
    let (model, shop) = (MemoryAdapter::default(), store("shop"));
    let epoch = model.claim(&shop).await.unwrap();
    for saves in commits {
        model.commit(&Commit::new(shop.clone(), epoch, Durability::Fsync, saves.clone())).await.unwrap();
    }
    everything(&model).await.unwrap()
}

struct Running {
    place: Place,
    medium: Medium,
    adapter: RedbAdapter,
    epoch: Epoch,
}

impl Running {
    async fn on(medium: Medium) -> Self {
        let place = Place::new();
        let adapter = opened(&place, slow(&medium)).await.unwrap();
        let epoch = adapter.claim(&store("shop")).await.unwrap();
        Self { place, medium, adapter, epoch }
    }

    async fn run(&self, saves: Vec<Save>) {
        if saves.is_empty() {
            fold(&self.adapter).await.unwrap();
        } else {
            commit(&self.adapter, &store("shop"), self.epoch, saves).await.unwrap();
        }
    }

    async fn end(self) -> Medium {
        close(self.adapter).await;
        assert!(self.place.path().exists());
        self.medium
    }
}

async fn new_born() -> Medium {
    let (place, medium) = (Place::new(), Medium::default());
    close(RedbAdapter::open_with(place.path(), slow(&medium)).await.unwrap()).await;
    Medium::of(medium.now())
}

async fn live(steps: Vec<Step>) {
    let mut commits: Vec<Vec<Save>> = Vec::new();
    let mut running = Running::on(new_born().await).await;
    for (revision, step) in (1_u64..).zip(steps) {
        let saves = |parts: Vec<Part>| -> Vec<Save> { parts.into_iter().map(|part| save_of(part, revision)).collect() };
        match step {
            Step::Commit(parts) => {
                let saves = saves(parts);
                running.run(saves.clone()).await;
                commits.push(saves);
            }
            Step::Fold => running.run(Vec::new()).await,
            Step::Load => assert_eq!(everything(&running.adapter).await.unwrap(), model(&commits).await),
            Step::Reopen => running = Running::on(Medium::of(running.end().await.now())).await,
            Step::Cut(parts, dice) => {
                let mut dice = Dice(dice);
                let (before, saves, begun) = (model(&commits).await, saves(parts), running.medium.position());
                running.run(saves.clone()).await;
                let ended = running.medium.position();
                let mut moments = running.medium.moments();
                moments.retain(|moment| moment.at >= begun);
                let moment = moments.swap_remove(roll(&mut dice, moments.len()));
                let image = moment.image(&moment.draw(&mut dice));
                running.end().await;
                running = Running::on(Medium::of(image)).await;
                if !saves.is_empty() {
                    commits.push(saves);
                }
                let (found, after) = (everything(&running.adapter).await.unwrap(), model(&commits).await);
                if found != after {
                    assert!(moment.at < ended, "an acknowledged commit is gone");
                    assert_eq!(found, before);
                    commits.pop();
                }
            }
        }
    }
    assert_eq!(everything(&running.adapter).await.unwrap(), model(&commits).await);
    running.end().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24 * u32::try_from(factor()).unwrap(), ..ProptestConfig::default() })]

    #[test]
    fn however_often_the_power_is_cut_the_store_goes_on_with_what_memory_holds(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(live(steps));
    }
}
