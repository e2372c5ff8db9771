//! What a collection costs, and what it holds up: nothing that grows faster than
//! what there is, no walk from node to node, no lock while it waits for a disk,
//! and no end of all collections when one panics.

use std::sync::atomic::AtomicU64;

use orlop_figures as figures;
use orlop_index::Table;
use tokio::time::timeout;

use super::watched::{Gate, Read};
use super::*;
use crate::catalog::work;

/// Every index of a level lists all of the level below: a walk from node to node
/// would take 3^24 steps.
#[tokio::test(flavor = "multi_thread")]
async fn i16_nested_indexes_without_end_for_a_walk_hold_up_neither_pushes_nor_collections() {
    let (depth, width) = (24, 3);
    let folder = tempfile::tempdir().unwrap();
    let running = Arc::new(Running::start(folder.path(), |_| {}).await);
    let mut below = running.images("leaf", width).await;
    let mut all = below.clone();
    for level in 0..depth {
        let mut these = Vec::new();
        for number in 0..width {
            // Each is another one, by the order of its children.
            let mut children = below.clone();
            children.rotate_left(number);
            let tag = format!("level-{level}-{number}");
            these.push(running.index("a", &tag, &children).await);
        }
        all.extend_from_slice(&these);
        below = these;
    }
    let over = Arc::new(AtomicBool::new(false));
    let (pushing, ended) = (Arc::clone(&running), Arc::clone(&over));
    let pushes = tokio::spawn(async move {
        let mut pushed = 0u32;
        while !ended.load(Ordering::SeqCst) {
            let content = format!("beside {pushed}");
            let push = pushing.image("b", "beside", &content);
            timeout(LONG, push).await.unwrap();
            pushed += 1;
        }
        pushed
    });
    let name = RepositoryName::parse("a").unwrap();
    let work = async {
        assert_eq!(running.collect("{}").await.dead, 0);
        let plan = running.collect(r#"{"plan":true}"#).await;
        assert_eq!((plan.dead, plan.condemned), (0, 0), "{plan:?}");
        // The whole of it is one unit, of which one manifest is deleted.
        let top = below[0];
        running.delete("a", &top).await;
        let reference = Reference::Digest(top);
        let back = running
            .registry
            .undelete(Subject::Operator, &name, &reference);
        assert_eq!(back.await.unwrap().digest, top);
        let why = running.storage.gc().why(&all[0]).await.unwrap();
        assert!(!why.kept_by.is_empty());
        // All of the upper levels go, one after another.
        for digest in all.iter().rev().take(width * (depth - 1)) {
            running.delete("a", digest).await;
        }
        let mut dead = 0;
        for _ in 0..3 {
            dead += running.collect("{}").await.dead;
        }
        assert_eq!(dead, (width * (depth - 1)) as u64);
    };
    timeout(LONG, work).await.unwrap();
    over.store(true, Ordering::SeqCst);
    assert!(pushes.await.unwrap() > 3);
    assert!(running.pulls("a", "level-0-0").await && running.pulls("b", "beside").await);
    let running = Arc::into_inner(running).unwrap();
    running.ends_clean(folder.path()).await;
}

/// What catalog and index are read and written for each deleted manifest is the
/// same whether there are few or many: counted, not timed.
#[tokio::test(flavor = "multi_thread")]
async fn i17_i36_what_a_collection_does_for_each_manifest_does_not_grow_with_their_number() {
    let few = figures::choose(60, 150, 500);
    let mut costs = Vec::new();
    for count in [few, 4 * few] {
        let folder = tempfile::tempdir().unwrap();
        let rows = Arc::new(AtomicU64::new(0));
        let instructions = work::watch(&folder.path().join("catalog.db"));
        let told = Arc::clone(&rows);
        let look = move |read: Read<'_>| {
            let more = match read {
                Read::Rows(_, keys) => keys.len() as u64,
                Read::Scan(_) | Read::Watermark => 1,
            };
            told.fetch_add(more, Ordering::SeqCst);
            Ok(())
        };
        let (_, running) = Running::watched(folder.path(), Arc::new(look)).await;
        let images = running.images("image", count).await;
        // Each is listed by an index, and some are listed by two.
        for (number, some) in images.chunks(5).enumerate() {
            running.index("a", &format!("i{number}"), some).await;
        }
        let gone = &running.images("gone", count).await;
        for image in gone {
            running.delete("a", image).await;
        }
        tokio::time::sleep(LEASE * 3).await;
        let before = [&instructions, &rows].map(|of| of.load(Ordering::SeqCst));
        let outcome = running.collect("{}").await;
        let after = [&instructions, &rows].map(|of| of.load(Ordering::SeqCst));
        assert_eq!(outcome.dead, 3 * count as u64, "{outcome:?}");
        let each = [0, 1].map(|of| (after[of] - before[of]) as f64 / count as f64);
        println!(
            "{count} manifests deleted: {each:.1?} instructions of SQLite and rows of the index for each"
        );
        costs.push(each);
        running.stop().await;
    }
    for of in [0, 1] {
        assert!(costs[0][of] > 0.0, "{costs:?}");
        assert!(costs[1][of] < costs[0][of] * 1.5, "{costs:?}");
    }
}

impl Running {
    /// Pushes, mounts, deletes and pulls go on.
    async fn serves(&self, of: &str) {
        let work = async {
            for number in 0..4 {
                let content = format!("{of} {number}");
                let image = self.image("beside", "tag", &content).await;
                assert!(self.pulls("beside", "tag").await);
                assert!(self.pulls("a", "kept").await);
                self.delete("beside", &image).await;
            }
            self.image("beside", "tag", &large(of)).await;
            assert!(self.pulls("beside", "tag").await);
        };
        timeout(LONG, work)
            .await
            .unwrap_or_else(|_| panic!("{of} hangs"));
    }
}

fn large(of: &str) -> String {
    of.repeat(200_000 / of.len())
}

/// A read of the index by a mark or a sweep that hangs holds up no push, no pull
/// and no delete; a sync of tombstones that hangs holds up no pull.
#[tokio::test(flavor = "multi_thread")]
async fn i18_a_collection_whose_disk_hangs_holds_up_no_push_and_no_pull() {
    const MANY: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let gates = [(); 2].map(|()| Arc::new(Gate::default()));
    let told = gates.clone();
    let look = move |read: Read<'_>| {
        match read {
            // No client asks for so many at once.
            Read::Rows(Table::Blob, keys) if keys.len() >= MANY => told[0].pass(),
            Read::Scan(Table::Ordinal) => told[1].pass(),
            _ => {}
        }
        Ok(())
    };
    let (sim, running) = Running::watched(folder.path(), Arc::new(look)).await;
    running.image("a", "kept", "kept").await;
    for image in running.images("image", MANY).await.iter().step_by(2) {
        running.delete("a", image).await;
    }
    let image = running.image("a", "large", &large("gone")).await;
    running.delete("a", &image).await;
    for (gate, of) in gates.iter().zip(["a mark", "a sweep"]) {
        tokio::time::sleep(LEASE * 3).await;
        gate.set(true);
        let id = running.start_job("{}").await;
        until(async || gate.waiting() > 0).await;
        running.serves(of).await;
        let job = running.storage.jobs().unwrap().show(id).await.unwrap();
        assert_eq!(job.ended_at, None, "{of}");
        gate.set(false);
        assert_eq!(running.ended(id).await.state.name(), "done", "{of}");
    }
    // The sync of its tombstones hangs: those who wait for the journal wait, and
    // no reader does.
    running
        .delete("a", &running.image("a", "", "one more").await)
        .await;
    tokio::time::sleep(LEASE * 3).await;
    let (permits, reached) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (gate, seen) = (Arc::clone(&permits), Arc::clone(&reached));
    let hold = move || -> orlop_disk::BoxFuture<'static, ()> {
        seen.store(true, Ordering::SeqCst);
        let gate = Arc::clone(&gate);
        Box::pin(async move { drop(gate.acquire_owned().await) })
    };
    gates[1].set(true);
    let id = running.start_job("{}").await;
    until(async || gates[1].waiting() > 0).await;
    sim.plan(Plan::stall(hold).on(Verb::Sync).under("/store/journal"));
    gates[1].set(false);
    until(async || reached.load(Ordering::SeqCst)).await;
    let pulled = timeout(LONG, running.pulls("a", "kept"));
    assert!(pulled.await.unwrap());
    permits.add_permits(1000);
    assert_eq!(running.ended(id).await.state.name(), "done");
    running.stop().await;
}

/// A collection that panics, wherever, fails alone: it is counted, the barrier is
/// down, and the next one does all the work.
#[tokio::test(flavor = "multi_thread")]
async fn i39_a_collection_that_panics_is_counted_and_the_next_one_runs() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum At {
        Begin,
        Mark,
        Sweep,
    }
    let folder = tempfile::tempdir().unwrap();
    let at = Arc::new(std::sync::Mutex::new(None));
    let told = Arc::clone(&at);
    let strike = move |of: At| {
        let mut at = told.lock().unwrap();
        if *at == Some(of) {
            *at = None;
            drop(at);
            panic!("a collection that panics at {of:?}");
        }
    };
    let look = move |read: Read<'_>| {
        match read {
            Read::Watermark => strike(At::Begin),
            Read::Rows(Table::Blob, keys) if keys.len() > 4 => strike(At::Mark),
            Read::Scan(Table::Ordinal) => strike(At::Sweep),
            _ => {}
        }
        Ok(())
    };
    let (_, running) = Running::watched(folder.path(), Arc::new(look)).await;
    running.image("a", "kept", "kept").await;
    running.images("more", 4).await;
    let mut failed = 0;
    for place in [At::Begin, At::Mark, At::Sweep] {
        let image = running.image("a", "", &format!("gone by {place:?}")).await;
        running.delete("a", &image).await;
        tokio::time::sleep(LEASE * 3).await;
        *at.lock().unwrap() = Some(place);
        let id = running.start_job("{}").await;
        let job = running.ended(id).await;
        assert_eq!(job.state.name(), "failed", "{place:?}: {}", job.outcome);
        assert!(
            job.outcome.contains("a collection that panics"),
            "{}",
            job.outcome
        );
        failed += 1;
        let observed = running.storage.observe().await.jobs.unwrap();
        let count = (GC.to_owned(), crate::catalog::JobState::Failed, failed);
        assert!(observed.counts.contains(&count), "{observed:?}");
        running.collect("{}").await;
        assert!(!running.has(&image), "{place:?}");
        assert!(running.pulls("a", "kept").await, "{place:?}");
    }
    running.stop().await;
}

/// However little time each has.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_whose_time_is_up_leaves_the_rest_to_the_next_and_each_gets_further() {
    let folder = tempfile::tempdir().unwrap();
    let no_time = |settings: &mut Settings| settings.gc_limit = Some(Duration::ZERO);
    let running = Running::start(folder.path(), no_time).await;
    running.image("a", "stays", "what stays").await;
    let images = running.images("goes", 100).await;
    for image in &images {
        running.delete("a", image).await;
    }
    let (mut purged, mut dead, mut jobs) = (0, 0, 0);
    while dead < 3 * images.len() as u64 {
        jobs += 1;
        assert!(jobs < 50, "{purged} purged, {dead} dead");
        let outcome = running.collect("{}").await;
        let [_, manifests, ..] = outcome.purged;
        purged += manifests;
        dead += outcome.dead;
        // The last one may have had time for all that was left.
        let is_last = dead == 3 * images.len() as u64;
        assert!(outcome.cut || is_last, "{outcome:?}");
        assert!(manifests <= 64 && outcome.cycles <= 1, "{outcome:?}");
        assert!(running.pulls("a", "stays").await);
    }
    assert_eq!((purged, dead), (100, 300));
    assert!(jobs >= 4, "{jobs}");
    running.ends_clean(folder.path()).await;
}

/// All manifests are looked at for it, and the first of them are tagged.
#[tokio::test(flavor = "multi_thread")]
async fn untagged_manifests_behind_many_go_however_little_time_each_collection_has() {
    let folder = tempfile::tempdir().unwrap();
    let rule = |settings: &mut Settings| {
        let mut untagged = crate::collection::Untagged::default();
        untagged.add("**", Some(LEASE)).unwrap();
        settings.untagged = untagged;
        settings.gc_limit = Some(Duration::ZERO);
    };
    let running = Running::start(folder.path(), rule).await;
    for number in 0..130 {
        let tag = format!("t{number}");
        running.image("a", &tag, &format!("tagged {number}")).await;
    }
    running.image("b", "", "untagged").await;
    let mut retired = 0;
    for _ in 0..4 {
        retired += running.collect("{}").await.retired;
    }
    assert_eq!(retired, 1);
    assert!(running.pulls("a", "t129").await);
    running.ends_clean(folder.path()).await;
}
