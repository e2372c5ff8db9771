//! The oracle of garbage collection: random steps on a whole storage, and a
//! model of its own that says what has to live and what has to go.
//!
//! `ORLOP_SEED=<number>` repeats the choices of a run; seeds are printed. What
//! runs at once with a collection is not repeated exactly.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

#[path = "oracle/actor.rs"]
mod actor;
#[path = "oracle/check.rs"]
mod check;
#[path = "oracle/model.rs"]
mod model;
#[path = "oracle/pool.rs"]
mod pool;
#[expect(unreachable_pub, reason = "a file of the crate of end-to-end tests")]
#[path = "../../tests/src/random.rs"]
mod random;
#[path = "oracle/server.rs"]
mod server;
#[path = "oracle/single.rs"]
mod single;
#[path = "oracle/storm.rs"]
mod storm;
#[path = "oracle/world.rs"]
mod world;

use std::time::Duration;

use orlop_figures as figures;
use random::Random;
use server::Rules;
use world::{LONG, Told, World};

/// The figure of both tests together.
const FIGURE: &str = "steps of the collection oracle";
const LEASE: Duration = Duration::from_millis(10);
/// Leases while clients and collections run at once.
const STORM_LEASE: Duration = Duration::from_millis(100);
/// A store is begun anew after so many steps.
const STEPS: u64 = 1500;
/// Stores at once.
const WORLDS: u64 = 4;

/// The seed of this run.
fn seed(test: &str) -> u64 {
    let given = std::env::var("ORLOP_SEED").ok();
    let seed = given.map_or_else(
        || u64::try_from(server::now()).unwrap() % 1_000_000,
        |seed| seed.parse().unwrap(),
    );
    println!(
        "seed {seed}; the same choices again: ORLOP_SEED={seed} ./x cargo test -p orlop --test oracle {test}"
    );
    seed
}

/// What differs from store to store.
fn rules(random: &mut Random, lease: Duration) -> Rules {
    let windows = [Duration::ZERO, Duration::from_millis(150), LONG];
    let untagged = [
        None,
        None,
        None,
        Some(lease),
        Some(Duration::from_millis(200)),
    ];
    Rules {
        lease,
        window: windows[random.index(windows.len())],
        untagged: untagged[random.index(untagged.len())],
    }
}

/// `steps` in all, in stores that run at once.
async fn worlds(seed: u64, steps: u64) -> Vec<Told> {
    let mut told = Vec::new();
    let stores = steps.div_ceil(STEPS).max(WORLDS);
    let each = steps.div_ceil(stores);
    let numbers: Vec<u64> = (0..stores).collect();
    for some in numbers.chunks(WORLDS.try_into().unwrap()) {
        let run = |number: u64| async move {
            let mut random = Random::part(seed, number);
            let rules = rules(&mut random, LEASE);
            println!("store {number}: {rules:?}");
            let mut world = World::new(rules, random, &["a", "b/c", "d"]).await;
            for _ in 0..each {
                world = world.step().await;
            }
            let told = world.end().await;
            println!("store {number}: {told:?}");
            told
        };
        let running: Vec<_> = some
            .iter()
            .map(|number| tokio::spawn(run(*number)))
            .collect();
        for world in running {
            match world.await {
                Ok(of) => told.push(of),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn g13_i04_i05_i06_i20_i23_what_lives_stays_and_all_else_goes() {
    let seed = seed("g13_i04");
    let steps = figures::choose(400, 7_000, 8_000_000);
    let told = worlds(seed, steps).await;
    let sum = |of: fn(&Told) -> u64| told.iter().map(of).sum::<u64>();
    assert!(sum(|told| told.dead) > 0 && sum(|told| told.purged) > 0);
    figures::record(FIGURE, steps, &seed.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn g13_i05_i06_i20_clients_beside_collections_lose_nothing() {
    let seed = seed("g13_i05");
    let names = ["a", "b", "c/d", "e"];
    let steps = figures::choose(200, 3_000, 2_000_000);
    let mut random = Random::new(seed);
    let mut told = Told::default();
    let mut done = 0;
    while done < steps {
        let rules = rules(&mut random, STORM_LEASE);
        println!("store after {done} steps: {rules:?}");
        let part = Random::part(seed, done);
        let mut world = World::new(rules, part, &names).await;
        let until = steps.min(done + STEPS);
        while done < until {
            let each = 25.min((until - done).div_ceil(names.len() as u64));
            world = world.storm(each).await;
            done += each * names.len() as u64;
            if random.percent(20) {
                world = world.save().await;
            }
            if random.percent(20) {
                world = world.restore().await;
            }
        }
        let of = world.end().await;
        println!("{of:?}");
        told.dead += of.dead;
        told.collections += of.collections;
    }
    assert!(told.dead > 0 && told.collections > 0);
    figures::record(FIGURE, done, &seed.to_string());
}
