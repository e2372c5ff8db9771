//! What fails while a collection deletes is passed over and said; it holds up
//! nothing else. (What fails while it marks ends it: `i19_…` of the store.)

use std::sync::atomic::{AtomicU64, AtomicUsize};

use orlop_disk::sim::Fault;
use orlop_index::{IndexError, Table};

use super::watched::{Read, unreadable};
use super::*;

/// Faults while blobs die, by chance. The same choices for the same seed, as far
/// as reads come in the same order.
struct Faults {
    state: AtomicU64,
    /// Of a thousand reads of the index.
    reads: AtomicU64,
    /// Of a thousand reads of the catalog.
    names: AtomicU64,
    /// Of a thousand commits of the catalog, which tries each twice.
    commits: AtomicU64,
    /// Whether a collection is at its sweep.
    sweeping: AtomicBool,
    struck: AtomicUsize,
    /// A blob whose row cannot be read at all.
    bad: std::sync::Mutex<Option<Vec<u8>>>,
}

impl Faults {
    fn new(seed: u64) -> Arc<Faults> {
        Arc::new(Faults {
            state: AtomicU64::new(seed),
            reads: AtomicU64::new(0),
            names: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            sweeping: AtomicBool::new(false),
            struck: AtomicUsize::new(0),
            bad: std::sync::Mutex::default(),
        })
    }

    fn strikes(&self, of: &AtomicU64) -> bool {
        if !self.sweeping.load(Ordering::SeqCst) {
            return false;
        }
        let state = self
            .state
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let strikes = (mixed ^ (mixed >> 31)) % 1000 < of.load(Ordering::SeqCst);
        self.struck
            .fetch_add(usize::from(strikes), Ordering::SeqCst);
        strikes
    }

    fn index(&self, read: Read<'_>) -> Result<(), IndexError> {
        let is_bad = match read {
            Read::Watermark => {
                self.sweeping.store(false, Ordering::SeqCst);
                return Ok(());
            }
            Read::Scan(table) => {
                match table {
                    Table::Ordinal => self.sweeping.store(true, Ordering::SeqCst),
                    // It gives room back.
                    Table::Upload | Table::Segment => self.sweeping.store(false, Ordering::SeqCst),
                    _ => {}
                }
                false
            }
            Read::Rows(Table::Blob, keys) if self.sweeping.load(Ordering::SeqCst) => {
                let bad = self.bad.lock().unwrap();
                bad.as_ref()
                    .is_some_and(|bad| keys.contains(&bad.as_slice()))
            }
            Read::Rows(..) => false,
        };
        if is_bad || self.strikes(&self.reads) {
            return Err(unreadable());
        }
        Ok(())
    }

    /// Whether the catalog can be used there.
    fn catalog(&self, place: &str) -> bool {
        // Who watches from outside is told all.
        if tokio::task::try_id().is_none() {
            return true;
        }
        !match place {
            "read" => self.strikes(&self.names),
            "commit" => self.strikes(&self.commits),
            _ => false,
        }
    }
}

/// A storage on a simulated disk with these faults, whose jobs run.
async fn flaky(folder: &Path, faults: &Arc<Faults>) -> (Arc<Sim>, Running) {
    let seen = Arc::clone(faults);
    let (sim, running) = Running::watched(folder, Arc::new(move |read| seen.index(read))).await;
    let told = Arc::clone(faults);
    let catalog = &running.storage.catalog;
    catalog.tell(Arc::new(move |place| told.catalog(place)));
    (sim, running)
}

impl Running {
    async fn log(&self, id: i64) -> Vec<String> {
        let jobs = self.storage.jobs().unwrap();
        let lines = jobs.log(id).await.unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }
}

/// One read of the index in a hundred fails, one read of the catalog, and one
/// change of it, while blobs die.
#[tokio::test(flavor = "multi_thread")]
async fn i25_one_fault_in_a_hundred_of_the_delete_phase_ends_no_collection() {
    let seed = std::env::var("ORLOP_SEED").map_or(25, |seed| seed.parse().unwrap());
    println!("seed {seed}; again: ORLOP_SEED={seed} ./x cargo test -p orlop --lib i25_one_fault");
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::new(seed);
    let (_, running) = flaky(folder.path(), &faults).await;
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    let (mut skipped, mut said, mut failed) = (0, 0, 0);
    for round in 0..10 {
        let images = running.images(&format!("round {round}"), 16).await;
        for image in &images[4..] {
            running.delete("a", image).await;
        }
        kept.extend_from_slice(&images[..4]);
        gone.extend_from_slice(&images[4..]);
        tokio::time::sleep(LEASE * 3).await;
        faults.sweeping.store(false, Ordering::SeqCst);
        faults.reads.store(10, Ordering::SeqCst);
        faults.commits.store(100, Ordering::SeqCst);
        // There are few of them: in some rounds the catalog is busy half the time.
        let names = if round % 2 == 0 { 10 } else { 500 };
        faults.names.store(names, Ordering::SeqCst);
        let id = running.start_job("{}").await;
        let job = running.ended(id).await;
        faults.reads.store(0, Ordering::SeqCst);
        faults.names.store(0, Ordering::SeqCst);
        faults.commits.store(0, Ordering::SeqCst);
        if job.state.name() != "done" {
            // In what it does before and behind that, as giving room back.
            println!("round {round}: {}", job.outcome);
            failed += 1;
            continue;
        }
        let outcome: Outcome = serde_json::from_str(&job.outcome).unwrap();
        skipped += outcome.skipped;
        let lines = running.log(id).await;
        let lines = lines
            .iter()
            .filter(|line| line.starts_with("skipped for now: sha256:"));
        said += lines.count();
        assert_eq!(outcome.bounded, 0, "{outcome:?}");
    }
    let struck = faults.struck.load(Ordering::SeqCst);
    println!("{struck} faults, {skipped} blobs skipped, {said} lines");
    assert!(struck > 10 && skipped > 0 && said > 0);
    assert!(failed <= 2, "{failed} of 10 collections failed");
    // What was skipped goes next time.
    running.collect("{}").await;
    for image in &gone {
        assert!(!running.has(image), "{image}");
    }
    for image in &kept {
        assert!(running.pulls("a", &image.to_string()).await);
    }
    running.stop().await;
}

/// A blob whose row cannot be read stays, is named, and holds up no other.
#[tokio::test(flavor = "multi_thread")]
async fn i25_a_blob_that_cannot_be_ended_is_named_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::new(0);
    let (_, running) = flaky(folder.path(), &faults).await;
    let images = running.images("image", 12).await;
    for image in &images[1..] {
        running.delete("a", image).await;
    }
    let bad = images[7];
    *faults.bad.lock().unwrap() = Some(bad.bytes().to_vec());
    tokio::time::sleep(LEASE * 3).await;
    let id = running.start_job("{}").await;
    let job = running.ended(id).await;
    assert_eq!(job.state.name(), "done", "{}", job.outcome);
    let outcome: Outcome = serde_json::from_str(&job.outcome).unwrap();
    assert_eq!(outcome.dead, 3 * 11 - 1, "{outcome:?}");
    assert!(outcome.skipped > 0, "{outcome:?}");
    let line = format!("skipped for now: {bad}: ");
    let lines = running.log(id).await;
    assert!(lines.iter().any(|of| of.starts_with(&line)), "{lines:?}");
    *faults.bad.lock().unwrap() = None;
    assert!(running.has(&bad));
    assert_eq!(running.collect("{}").await.dead, 1);
    assert!(!running.has(&bad) && running.pulls("a", &images[0].to_string()).await);
    running.stop().await;
}

/// Nothing is written any more: the job has failed, and what lives is pulled.
#[tokio::test(flavor = "multi_thread")]
async fn i25_a_store_that_takes_no_writes_ends_the_collection() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::new(0);
    let (sim, running) = flaky(folder.path(), &faults).await;
    let images = running.images("image", 6).await;
    for image in &images[1..] {
        running.delete("a", image).await;
    }
    tokio::time::sleep(LEASE * 3).await;
    let fault = Plan::new(Fault::Fail(orlop_disk::Kind::Io))
        .on(Verb::Sync)
        .under("/store/journal");
    sim.plan(fault.sticky());
    let id = running.start_job("{}").await;
    let job = running.ended(id).await;
    assert_eq!(job.state.name(), "failed", "{}", job.outcome);
    assert!(running.pulls("a", &images[0].to_string()).await);
    drop(running);
}
