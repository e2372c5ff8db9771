//! What is done while the disk fails: each workload with the disk it begins
//! on. A workload goes on after an error, as clients do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use orlop_disk::sim::{Crash, Plan, Sim};
use orlop_engine::{Algorithm, Digest, Error, MemoryIndex, Store, Trailer};
use orlop_index::Index as _;
use orlop_index::mem::Memory;

use crate::oracle::{OWNER, Oracle, Upload};
use crate::support::clock::simulate;
use crate::support::contents::{self, Content, fresh};
use crate::support::world::{LEASE, World, push};

/// A disk to begin on, what it holds, and how it was opened.
pub struct Base {
    pub sim: Arc<Sim>,
    index: Memory,
    pub oracle: Oracle,
    pub segment: u64,
}

impl Base {
    /// The index that the start finds.
    pub fn left(&self) -> MemoryIndex {
        MemoryIndex::new(self.index.crash())
    }
}

/// A workload under way.
pub struct Run {
    pub world: World,
    pub oracle: Oracle,
    pub store: Option<Store>,
    plan: Option<Plan>,
}

impl Run {
    pub fn new(world: World, oracle: Oracle, plan: Plan) -> Run {
        Run {
            world,
            oracle,
            store: None,
            plan: Some(plan),
        }
    }

    /// From here on the fault may strike.
    fn arm(&mut self) {
        if let Some(plan) = self.plan.take() {
            self.world.sim.plan(plan);
        }
    }

    async fn open(&mut self) -> bool {
        let opened = self.world.open().await;
        self.store = self.oracle.answered("open", opened);
        self.store.is_some()
    }

    /// Opens a store that is well, then arms.
    async fn open_then_arm(&mut self) -> bool {
        let open = self.open().await;
        // Maintenance has its first look.
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.arm();
        open
    }

    fn store(&self) -> Store {
        self.store.clone().unwrap()
    }

    fn writes(&mut self) {
        self.oracle.writes_after += u64::from(self.world.sim.struck() > 0);
    }

    async fn put(&mut self, content: &Content) {
        self.writes();
        let put = self
            .store()
            .put(content.bytes.clone(), content.sha256, None)
            .await;
        self.oracle.pushed("put", content, put);
    }

    async fn put_as(&mut self, content: &Content, algorithm: Algorithm) {
        let digest = content.digest(algorithm);
        let note = Some(b"note".to_vec());
        let put = self.store().put(content.bytes.clone(), digest, note).await;
        if self.oracle.pushed("put", content, put) {
            let stat = self.store().stat(&digest);
            self.oracle.answered("stat", stat);
        }
    }

    async fn push(&mut self, content: &Content) {
        self.writes();
        let pushed = push(&self.store(), &content.bytes, content.sha256).await;
        self.oracle.pushed("push", content, pushed);
    }

    /// Sends an upload up to `end` and makes that durable.
    async fn send(&mut self, at: usize, end: u64) {
        let store = self.store();
        let upload = self.oracle.uploads[at].clone();
        let sent = async {
            let mut taken = store.upload_resume(upload.id, OWNER).await?;
            assert!(
                upload.offsets.contains(&taken.offset()),
                "it goes on at {}, not at {:?}",
                taken.offset(),
                upload.offsets
            );
            let range = taken.offset() as usize..end as usize;
            let bytes = upload.content.bytes.slice(range);
            for piece in bytes.chunks(100_000) {
                taken.append(bytes.slice_ref(piece)).await?;
            }
            taken.checkpoint().await
        };
        let sent = sent.await;
        self.writes();
        match self.oracle.answered("send", sent) {
            Some(offset) => self.oracle.uploads[at].offsets = vec![offset],
            None => self.oracle.uploads[at].offsets.push(end),
        }
    }

    fn begin(&mut self, content: &Content) -> Option<usize> {
        let opened = self.store().upload_open(OWNER, None);
        let id = self.oracle.answered("open an upload", opened)?;
        self.oracle.uploads.push(Upload {
            id,
            content: content.clone(),
            offsets: vec![0],
            maybe_gone: false,
        });
        Some(self.oracle.uploads.len() - 1)
    }

    /// Ends an upload, by its blob or without.
    async fn end(&mut self, at: usize, cancel: bool) {
        let store = self.store();
        let upload = self.oracle.uploads[at].clone();
        let ended = async {
            let mut taken = store.upload_resume(upload.id, OWNER).await?;
            if cancel {
                return taken.cancel().await;
            }
            let rest = upload.content.bytes.slice(taken.offset() as usize..);
            taken.append(rest).await?;
            let done = taken.commit(upload.content.sha256, None).await?;
            assert_eq!(done.size, upload.content.len());
            Ok(())
        };
        let ended = ended.await;
        self.writes();
        self.oracle.uploads[at].maybe_gone = true;
        if ended.is_ok() {
            let status = store.upload_status(upload.id, OWNER);
            assert!(
                matches!(status, Err(Error::NotFound { .. })),
                "it has ended: {status:?}"
            );
            self.oracle.uploads[at].offsets.clear();
        }
        if cancel {
            self.oracle.answered("cancel", ended);
        } else {
            self.oracle.pushed("finish", &upload.content, ended);
        }
    }

    async fn read_all(&mut self) {
        let store = self.store();
        self.oracle.read_all(&store).await;
    }

    async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    async fn close(&mut self) {
        if let Some(store) = self.store.take() {
            let closed = store.close().await;
            self.oracle.answered("close", closed);
        }
    }
}

type Work = for<'a> fn(&'a mut Run) -> BoxFuture<'a, ()>;

/// A workload, and what makes the disk it begins on.
pub struct Workload {
    pub name: &'static str,
    prepare: Work,
    /// Whether the store that prepared is closed, or its machine stopped.
    closed: bool,
    /// Whether the index is there.
    index: bool,
    segment: u64,
    pub work: Work,
}

const fn workload(name: &'static str, prepare: Work, work: Work) -> Workload {
    Workload {
        name,
        prepare,
        closed: true,
        index: true,
        segment: 4 << 20,
        work,
    }
}

/// All of them.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        closed: false,
        ..workload(
            "a first start",
            |_| Box::pin(async {}),
            |run| Box::pin(first(run)),
        )
    },
    workload(
        "pushes",
        |run| Box::pin(some(run)),
        |run| Box::pin(pushes(run)),
    ),
    workload(
        "uploads",
        |run| Box::pin(some(run)),
        |run| Box::pin(uploads(run)),
    ),
    Workload {
        closed: false,
        ..workload(
            "a start after a crash",
            |run| Box::pin(some(run)),
            |run| Box::pin(start(run)),
        )
    },
    workload(
        "a full journal file",
        |run| Box::pin(nearly_full(run)),
        |run| Box::pin(rotate(run)),
    ),
    workload(
        "recycling",
        |run| Box::pin(five_files(run)),
        |run| Box::pin(recycle(run)),
    ),
    Workload {
        index: false,
        ..workload(
            "a start without an index",
            |run| Box::pin(recycled(run)),
            |run| Box::pin(start(run)),
        )
    },
    workload(
        "a start after recycling",
        |run| Box::pin(recycled(run)),
        |run| Box::pin(start(run)),
    ),
    Workload {
        segment: 1 << 20,
        ..workload(
            "full segments and the catalog",
            |run| Box::pin(some(run)),
            |run| Box::pin(catalog(run)),
        )
    },
    workload(
        "reads",
        |run| Box::pin(recycled(run)),
        |run| Box::pin(reads(run)),
    ),
    Workload {
        segment: 1 << 20,
        ..workload(
            "room that comes back",
            |run| Box::pin(dead(run)),
            |run| Box::pin(reclaim(run)),
        )
    },
    Workload {
        segment: 1 << 20,
        ..workload(
            "room that comes back without holes",
            |run| {
                run.world.sim.without_holes();
                Box::pin(dead(run))
            },
            |run| Box::pin(reclaim(run)),
        )
    },
];

impl Workload {
    /// Makes the disk that it begins on.
    pub fn base(&self) -> Base {
        simulate(async {
            let world = World {
                segment: self.segment,
                ..World::new(7)
            };
            let mut run = Run::new(
                world,
                Oracle::default(),
                Plan::new(orlop_disk::sim::Fault::PowerOff),
            );
            run.plan = None;
            (self.prepare)(&mut run).await;
            if self.closed {
                run.close().await;
            }
            assert!(run.oracle.errors.is_empty(), "{:?}", run.oracle.errors);
            let index = run.world.index.current();
            if self.closed {
                index.flush().unwrap();
            }
            Base {
                sim: run.world.sim.crash(Crash::Torn(5)),
                index: if self.index {
                    index.crash()
                } else {
                    Memory::new()
                },
                oracle: run.oracle.clone(),
                segment: self.segment,
            }
        })
    }
}

fn content(at: usize) -> &'static Content {
    &contents::all()[at]
}

/// Some blobs of every form, and an upload with a tail.
async fn some(run: &mut Run) {
    run.open().await;
    for at in [3, 9, 20, 27] {
        run.push(content(at)).await;
    }
    run.put_as(content(12), Algorithm::Sha512).await;
    let at = run.begin(content(32)).unwrap();
    run.send(at, 120_000).await;
    run.send(at, 140_000).await;
}

async fn first(run: &mut Run) {
    run.arm();
    if run.open().await {
        run.put(content(5)).await;
        run.push(content(25)).await;
        run.read_all().await;
        run.close().await;
    }
}

async fn pushes(run: &mut Run) {
    if run.open_then_arm().await {
        run.put(content(6)).await;
        run.push(content(30)).await;
        run.push(content(33)).await;
        run.push(content(30)).await;
        run.put_as(content(14), Algorithm::Blake3).await;
        run.put(content(0)).await;
        run.read_all().await;
        run.put(content(7)).await;
        run.close().await;
    }
}

async fn uploads(run: &mut Run) {
    if !run.open_then_arm().await {
        return;
    }
    run.send(0, 300_000).await;
    if let Some(at) = run.begin(content(31)) {
        run.send(at, 1_000).await;
        run.send(at, 90_000).await;
        run.send(at, 200_000).await;
        run.end(at, true).await;
    }
    if let Some(at) = run.begin(content(29)) {
        run.send(at, 150_000).await;
        run.send(at, 190_000).await;
        run.end(at, false).await;
    }
    run.end(0, false).await;
    let expired = run.store().upload_expire(Duration::from_secs(9_000)).await;
    run.oracle.answered("expire", expired);
    run.read_all().await;
    run.put(content(8)).await;
    run.close().await;
}

async fn start(run: &mut Run) {
    run.arm();
    if run.open().await {
        run.read_all().await;
        run.put(content(16)).await;
        run.push(content(26)).await;
        run.wait(20).await;
        run.put(content(17)).await;
        run.close().await;
    }
}

/// Notes and small blobs up to the end of the first journal file.
async fn nearly_full(run: &mut Run) {
    some(run).await;
    fill(run, 64).await;
}

async fn fill(run: &mut Run, notes: u64) {
    for number in 0..notes {
        let posted = run.store().note(vec![9; 60_000]);
        run.oracle.answered("note", posted);
        if number % 16 == 0 {
            let content = fresh(500 + number, 3_000 + 500 * number as usize);
            run.put(&content).await;
        }
    }
    run.put(&fresh(499 + notes, 900)).await;
}

async fn rotate(run: &mut Run) {
    if !run.open_then_arm().await {
        return;
    }
    for number in 0..3 {
        run.put(&fresh(900 + number, 62_000)).await;
        // Smaller ones may still fit where that did not.
        run.put(&fresh(950 + number, 700)).await;
    }
    run.wait(12).await;
    for number in 0..3 {
        run.put(&fresh(920 + number, 61_000)).await;
        run.put(&fresh(970 + number, 300)).await;
    }
    run.read_all().await;
    run.close().await;
}

/// Five journal files, which the next start recycles down to three.
async fn five_files(run: &mut Run) {
    some(run).await;
    // Without a look of maintenance between: it sleeps until then.
    for _ in 0..4 {
        run.put(&fresh(run.world.sim.operations(), 5_000)).await;
        run.put_as(content(15), Algorithm::Sha512).await;
        fill(run, 66).await;
    }
}

async fn recycle(run: &mut Run) {
    run.arm();
    if !run.open().await {
        return;
    }
    run.wait(7).await;
    run.put(content(18)).await;
    run.read_all().await;
    fill_quietly(run).await;
    run.wait(30).await;
    run.put(content(19)).await;
    run.read_all().await;
    run.send(0, 150_000).await;
    run.close().await;
}

/// Two more files, whatever becomes of the notes.
async fn fill_quietly(run: &mut Run) {
    for number in 0..8 {
        for _ in 0..17 {
            let _ = run.store().note(vec![4; 60_000]);
        }
        run.put(&fresh(700 + number, 2_000)).await;
    }
}

/// A store whose first files were recycled.
async fn recycled(run: &mut Run) {
    five_files(run).await;
    run.wait(20).await;
    let health = run.store().health().await;
    assert!(health.counts.recycled > 0, "nothing was recycled");
    run.put(content(21)).await;
}

async fn catalog(run: &mut Run) {
    if !run.open_then_arm().await {
        return;
    }
    for number in 0..4 {
        run.push(&fresh(800 + number, 400_000)).await;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content(28).bytes).unwrap();
    for sequence in 1..4 {
        let store = run.store();
        let copied = store.catalog_copy(file.path(), [4; 16], sequence).await;
        run.oracle.pushed("copy", content(28), copied);
        let seen = run.store().catalog_seen([4; 16], sequence).await;
        run.oracle.answered("seen", seen);
    }
    let adopted = run.store().catalog_adopt([5; 16], 9).await;
    run.oracle.answered("adopt", adopted);
    run.wait(20).await;
    run.push(&fresh(810, 300_000)).await;
    run.read_all().await;
    run.close().await;
}

async fn reads(run: &mut Run) {
    if !run.open_then_arm().await {
        return;
    }
    run.read_all().await;
    let digest: Digest = content(33).sha256;
    let absent = run.store().stat(&digest);
    assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
    run.send(0, 160_000).await;
    run.read_all().await;
    run.put(content(22)).await;
    run.close().await;
}

/// Raw segments of which nothing or a part lives, and small ones.
async fn dead(run: &mut Run) {
    run.open().await;
    for number in 0..9u64 {
        // Nobody remembers those that die.
        let content = fresh(400 + number, 90_000 + 40_000 * number as usize);
        let pushed = push(&run.store(), &content.bytes, content.sha256).await;
        run.oracle.answered("push", pushed);
        if number > 4 && number % 3 == 2 {
            run.push(&fresh(430 + number, 120_000)).await;
        }
    }
    recycled(run).await;
    let store = run.store();
    store.catalog_seen([4; 16], 1).await.unwrap();
    run.wait(2 * LEASE.as_secs()).await;
    let live: Vec<Digest> = run.oracle.everything().iter().map(|c| c.sha256).collect();
    for _ in 0..2 {
        let mut cycle = store.collect().await.unwrap();
        cycle.mark(&live).unwrap();
        let trailer = Trailer {
            digests: live.len() as u64,
            catalog: [4; 16],
            sequence: 1,
        };
        let mut sweep = cycle.whole(trailer, false).unwrap();
        while let Some(garbage) = sweep.step().unwrap() {
            sweep.end(&garbage, true).await.unwrap();
        }
        sweep.finish().unwrap();
    }
    assert!(store.health().await.counts.collected >= 9);
}

async fn reclaim(run: &mut Run) {
    if !run.open_then_arm().await {
        return;
    }
    let store = run.store();
    let pass = async {
        let mut pass = store.reclaim().await?;
        while pass.step().await?.is_some() {}
        Ok(pass.total())
    };
    let pass = pass.await;
    run.writes();
    if let Some(total) = run.oracle.answered("reclaim", pass) {
        assert!(
            run.world.sim.struck() > 0 || total.segments > 0,
            "{total:?}"
        );
    }
    run.put(content(23)).await;
    run.push(content(24)).await;
    run.read_all().await;
    run.close().await;
}
