//! Upkeep when things go wrong: full disks, lost sectors, starts that fail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use orlop_disk::sim::{Crash, Fault, Plan, Sim, Verb};
use orlop_disk::{Disk, Kind};
use orlop_engine::{Error, IndexFactory, MemoryIndex, Progress, Store, System};
use orlop_index::{Batch, Index, IndexError, Table, Visit};

use crate::support::{config, content, disk, folder, open, pull, push, sha256};

pub(crate) fn journal(sequence: u64) -> PathBuf {
    folder().join(format!("journal/J-{sequence:016x}"))
}

/// Small blobs, enough for several journal files.
pub(crate) async fn fill(store: &Store, seeds: std::ops::Range<u64>) -> Vec<Bytes> {
    let mut blobs = Vec::new();
    for seed in seeds {
        let bytes = content(seed, 60_000);
        push(store, &bytes, sha256(&bytes)).await.unwrap();
        blobs.push(bytes);
    }
    blobs
}

pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not happen");
}

pub(crate) fn names(sim: &Sim, at: &str) -> Vec<String> {
    sim.list(&folder().join(at)).unwrap()
}

#[tokio::test]
async fn starts_that_fail_or_die_cost_no_journal_file_each() {
    let mut sim = disk(1);
    for _ in 0..20 {
        let _store = open(&sim, &MemoryIndex::default()).await.unwrap();
        sim = sim.crash(Crash::Killed);
    }
    let files = names(&sim, "journal");
    assert!(files.len() <= 3, "{files:?}");
}

#[tokio::test]
async fn a_store_on_a_full_disk_starts_and_serves_after_a_power_cut() {
    let sim = disk(2);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let blobs = fill(&store, 0..20).await;
    let room = sim.space(&folder()).unwrap();
    sim.set_capacity(room.total - room.available);
    for crash in [Crash::Killed, Crash::Lost, Crash::Torn(7)] {
        let sim = sim.crash(crash);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        for bytes in &blobs {
            assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
        }
        let more = content(99, 2_000_000);
        let error = push(&store, &more, sha256(&more)).await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error}");
        assert_eq!(store.health().await.poisoned, None);
    }
}

#[tokio::test]
async fn a_lost_sector_in_the_journal_costs_one_blob_and_holds_nothing_up() {
    let sim = disk(3);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let mut blobs = fill(&store, 0..10).await;
    let image = sim.peek(&journal(1)).unwrap();
    let at = image
        .windows(64)
        .position(|window| window == &blobs[4][30_000..30_064])
        .unwrap();
    assert!(sim.spoil(&journal(1), at as u64 / 4096 * 4096, 512));
    blobs.extend(fill(&store, 10..400).await);
    until("recycling", async || {
        store.health().await.counts.recycled >= 2
    })
    .await;
    assert!(
        matches!(store.stat(&sha256(&blobs[4])), Err(Error::NotFound { .. })),
        "a push heals it"
    );
    assert!(
        matches!(store.read(&sha256(&blobs[4])), Err(Error::Corrupt { .. })),
        "it is named"
    );
    assert!(push(&store, &blobs[4], sha256(&blobs[4])).await.unwrap());
    store.close().await.unwrap();
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

/// The only copy of what recycling condemns is given away.
#[tokio::test]
async fn a_read_that_is_wrong_once_while_recycling_condemns_no_blob() {
    let sim = disk(30);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    // A group's first block is read, then the group.
    let plan = Plan::new(Fault::Flip).on(Verb::Read).after(9);
    sim.plan(plan.under(folder().join("journal")));
    let blobs = fill(&store, 0..400).await;
    until("recycling", async || {
        store.health().await.counts.recycled >= 2
    })
    .await;
    assert_eq!(sim.struck(), 1);
    assert_eq!(store.health().await.counts.quarantined, 0);
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

/// What a start cuts is lost. The seed chooses the bit, of 4 MiB.
#[tokio::test]
async fn a_read_that_is_wrong_once_at_a_start_cuts_no_acknowledged_group() {
    for seed in 0..200 {
        let sim = disk(1000 + seed);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        let bytes = content(seed, 60_000);
        push(&store, &bytes, sha256(&bytes)).await.unwrap();
        drop(store);
        let sim = sim.crash(Crash::Lost);
        // The file's header is read, then all of the file.
        let plan = Plan::new(Fault::Flip).on(Verb::Read).after(1);
        sim.plan(plan.under(folder().join("journal")));
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        assert_eq!(sim.struck(), 1);
        let pulled = pull(&store, &sha256(&bytes)).await;
        assert_eq!(
            pulled.as_ref().ok(),
            Some(&bytes),
            "{pulled:?}, seed {seed}"
        );
    }
}

/// The first push named the blob in one repository, the push that healed it in
/// another: a catalog made from the log needs both.
#[tokio::test]
async fn the_note_of_a_life_that_ended_is_kept_when_its_file_is_recycled() {
    let sim = disk(9);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let bytes = content(9, 5_000);
    let note = |text: &str| Some(format!("{text:*<40}").into_bytes());
    let first = note("the first name");
    store
        .put(bytes.clone(), sha256(&bytes), first)
        .await
        .unwrap();
    fill(&store, 1000..1003).await;
    drop(store);
    let sim = sim.crash(Crash::Lost);
    let image = sim.peek(&journal(1)).unwrap();
    let at = image.windows(64).position(|w| w == &bytes[..64]).unwrap() as u64;
    assert!(sim.poke(&journal(1), at + 9, &[0xff, 0xfe]));
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let found = store.stat(&sha256(&bytes));
    assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");
    let second = note("the second name");
    store
        .put(bytes.clone(), sha256(&bytes), second)
        .await
        .unwrap();
    fill(&store, 0..400).await;
    until("recycling", async || {
        store.health().await.counts.recycled >= 2
    })
    .await;
    for text in ["the first name", "the second name"] {
        let kept = ["small", "meta"].iter().any(|class| {
            let below = format!("data/{class}");
            names(&sim, &below).iter().any(|name| {
                let file = sim.peek(&folder().join(&below).join(name)).unwrap();
                let note = note(text).unwrap();
                file.windows(note.len()).any(|window| window == note)
            })
        });
        assert!(kept, "{text}");
    }
    store.close().await.unwrap();
    drop(store);
    // An index made again takes the newer life.
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn recycling_that_finds_no_room_leaves_nothing_behind_and_poisons_nothing() {
    let sim = disk(4);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let small = folder().join("data/small");
    sim.plan(
        Plan::new(Fault::Fail(Kind::Full))
            .on(Verb::Allocate)
            .under(&small)
            .sticky(),
    );
    let blobs = fill(&store, 0..400).await;
    until("a pass without room", async || sim.struck() > 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.health().await.poisoned, None);
    assert_eq!(store.health().await.counts.recycled, 0);
    let left = names(&sim, "data/small");
    assert!(left.is_empty(), "{left:?}");
    sim.clear_plans();
    until("recycling", async || {
        store.health().await.counts.recycled >= 2
    })
    .await;
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_lost_header_of_the_last_journal_file_refuses_the_start_and_keeps_the_file() {
    for damage in [vec![0u8; 4096], vec![0x5a; 64]] {
        let sim = disk(5);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        let blobs = fill(&store, 0..3).await;
        let sim = sim.crash(Crash::Lost);
        let header = sim.peek(&journal(1)).unwrap()[..4096].to_vec();
        assert!(sim.poke(&journal(1), 0, &damage));
        for _ in 0..2 {
            let error = open(&sim, &MemoryIndex::default()).await.err().unwrap();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        }
        assert!(sim.poke(&journal(1), 0, &header));
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        for bytes in &blobs {
            assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
        }
    }
}

#[tokio::test]
async fn a_catalog_older_than_one_seen_stays_refused_until_it_is_adopted() {
    use orlop_engine::CatalogMatch;
    let sim = disk(6);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    store.catalog_seen([1; 16], 8).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            store.catalog_seen([1; 16], 4).await.unwrap(),
            CatalogMatch::Older { seen: 8 }
        );
        assert_eq!(
            store.catalog_seen([2; 16], 9).await.unwrap(),
            CatalogMatch::Other
        );
    }
    store.catalog_adopt([1; 16], 4).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(&sim, &index).await.unwrap();
    assert_eq!(
        store.catalog_seen([1; 16], 4).await.unwrap(),
        CatalogMatch::Same
    );
}

#[tokio::test]
async fn a_damaged_payload_before_a_cut_is_damage_and_not_a_torn_tail() {
    let sim = disk(7);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    // One group of two blobs, whose second one is torn.
    let (one, two) = (content(1, 5_000), content(2, 5_000));
    let (first, second) = (
        push(&store, &one, sha256(&one)),
        push(&store, &two, sha256(&two)),
    );
    let (first, second) = futures_util::future::join(first, second).await;
    assert!(first.unwrap() && second.unwrap());
    let sim: Arc<Sim> = sim.crash(Crash::Lost);
    let image = sim.peek(&journal(1)).unwrap();
    let find = |bytes: &Bytes| image.windows(64).position(|w| w == &bytes[..64]).unwrap() as u64;
    let (early, late) = (find(&one).min(find(&two)), find(&one).max(find(&two)));
    let end = image.len() as u64;
    assert!(sim.poke(&journal(1), late, &vec![0; (end - late) as usize]));
    // Recovery cuts the second blob; then the first one rots.
    let _store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let sim = sim.crash(Crash::Killed);
    assert!(sim.poke(&journal(1), early + 9, &[0xff, 0xfe]));
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let kept = if find(&one) < find(&two) { &one } else { &two };
    assert!(
        matches!(store.read(&sha256(kept)), Err(Error::Corrupt { .. })),
        "it stays named"
    );
}

#[tokio::test]
async fn a_lost_sector_in_the_journal_does_not_stop_the_start() {
    let sim = disk(8);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let blobs = fill(&store, 0..6).await;
    drop(store);
    let sim = sim.crash(Crash::Lost);
    let image = sim.peek(&journal(1)).unwrap();
    let find = |bytes: &Bytes| {
        let sample = &bytes[30_000..30_064];
        image
            .windows(64)
            .position(|window| window == sample)
            .unwrap() as u64
            / 4096
            * 4096
    };
    assert!(sim.spoil(&journal(1), find(&blobs[2]), 512));
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    for (number, bytes) in blobs.iter().enumerate() {
        match pull(&store, &sha256(bytes)).await {
            Ok(found) => assert_eq!((&found, number != 2), (bytes, true)),
            Err(error) => {
                assert!(
                    matches!(error, Error::Corrupt { .. }) && number == 2,
                    "{number}: {error}"
                );
            }
        }
    }
    drop(store);
    // At the journal's end a lost sector leaves open what was there.
    let last = sim.crash(Crash::Lost);
    let end = last.peek(&journal(1)).unwrap().len() as u64;
    assert!(last.spoil(&journal(1), end - 4096, 512));
    let error = open(&last, &MemoryIndex::default()).await.err().unwrap();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[tokio::test]
async fn an_opening_that_is_cancelled_changes_nothing() {
    let sim = disk(47);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let bytes = content(47, 100_000);
    push(&store, &bytes, sha256(&bytes)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let index = MemoryIndex::default();
    let progress = orlop_engine::Progress::default();
    progress.cancel();
    let opened = orlop_engine::Store::open(
        config(),
        orlop_engine::System::start(),
        Arc::clone(&sim) as Arc<dyn orlop_disk::Disk>,
        &index,
        &progress,
    );
    assert!(matches!(opened.await, Err(Error::Cancelled)));
    let store = open(&sim, &index).await.unwrap();
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn i18_how_long_a_sync_hangs_is_told_until_it_comes_back() {
    let sim = disk(18);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let bytes = content(1, 1000);
    push(&store, &bytes, sha256(&bytes)).await.unwrap();
    until("rest", async || store.health().await.writing.is_zero()).await;
    let (release, held) = tokio::sync::watch::channel(false);
    let hold = move || -> orlop_disk::BoxFuture<'static, ()> {
        let mut held = held.clone();
        Box::pin(async move {
            let _ = held.wait_for(|released| *released).await;
        })
    };
    let stalled = Plan::stall(hold).on(Verb::Sync);
    // All of them: the journal syncs the file that comes next, too.
    sim.plan(stalled.under(folder().join("journal")).sticky());
    let bytes = content(2, 1000);
    let pushed = {
        let (store, bytes) = (store.clone(), bytes.clone());
        tokio::spawn(async move { push(&store, &bytes, sha256(&bytes)).await })
    };
    until("a sync that hangs", async || {
        store.health().await.writing > Duration::from_millis(300)
    })
    .await;
    assert!(!pushed.is_finished());
    release.send(true).unwrap();
    pushed.await.unwrap().unwrap();
    until("rest", async || store.health().await.writing.is_zero()).await;
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
    store.close().await.unwrap();
}

/// An index with a bug, once it is told which.
#[derive(Clone)]
struct Buggy {
    sound: Arc<MemoryIndex>,
    index: Option<Arc<dyn Index>>,
    bug: Arc<AtomicU8>,
}

const FLUSH: u8 = 1;
const APPLY: u8 = 2;

impl Buggy {
    fn has(&self, bug: u8) {
        assert_ne!(self.bug.load(Ordering::SeqCst), bug, "a bug");
    }

    fn sound(&self) -> &Arc<dyn Index> {
        self.index.as_ref().unwrap()
    }
}

impl IndexFactory for Buggy {
    fn open(&self, folder: &std::path::Path) -> Result<Arc<dyn Index>, IndexError> {
        let index = Some(self.sound.open(folder)?);
        Ok(Arc::new(Buggy {
            index,
            ..self.clone()
        }))
    }

    fn destroy(&self, folder: &std::path::Path) -> Result<(), IndexError> {
        self.sound.destroy(folder)
    }
}

impl Index for Buggy {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.sound().get(table, key)
    }

    fn multi_get(
        &self,
        table: Table,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.sound().multi_get(table, keys)
    }

    fn apply(&self, batch: Batch) -> Result<(), IndexError> {
        self.has(APPLY);
        self.sound().apply(batch)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        self.sound().scan(table, from, visit)
    }

    fn watermark(&self) -> Result<u64, IndexError> {
        self.sound().watermark()
    }

    fn flush(&self) -> Result<u64, IndexError> {
        self.has(FLUSH);
        self.sound().flush()
    }

    fn clear(&self, table: Table) -> Result<(), IndexError> {
        self.sound().clear(table)
    }
}

#[tokio::test]
async fn i13_a_task_of_the_store_that_panics_ends_writes_and_says_so() {
    for (bug, name) in [(FLUSH, "maintenance"), (APPLY, "journal")] {
        let sim = disk(13);
        let buggy = Buggy {
            sound: Arc::default(),
            index: None,
            bug: Arc::default(),
        };
        let disk = Arc::clone(&sim) as Arc<dyn Disk>;
        let opened = Progress::default();
        let store = Store::open(config(), System::start(), disk, &buggy, &opened);
        let store = store.await.unwrap();
        // Enough for another journal file.
        let blobs = fill(&store, 0..40).await;
        buggy.bug.store(bug, Ordering::SeqCst);
        let mut pushed = Ok(true);
        for seed in 100..200 {
            let bytes = content(seed, 60_000);
            pushed = push(&store, &bytes, sha256(&bytes)).await;
            if pushed.is_err() {
                break;
            }
        }
        until("an end of writes", async || {
            store.health().await.poisoned.is_some()
        })
        .await;
        let reason = store.health().await.poisoned.unwrap();
        assert!(reason.contains(name), "{reason}");
        assert!(bug == FLUSH || pushed.is_err());
        let refused = push(&store, &content(300, 10), sha256(&content(300, 10))).await;
        assert!(
            matches!(refused, Err(Error::Poisoned { .. })),
            "{refused:?}"
        );
        for bytes in &blobs {
            assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
        }
        buggy.bug.store(0, Ordering::SeqCst);
        assert!(store.close().await.is_err());
        drop(store);
        // Nothing that was answered is lost.
        let sim = sim.crash(Crash::Lost);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        for bytes in &blobs {
            assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
        }
        store.close().await.unwrap();
    }
}
