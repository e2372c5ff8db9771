//! A server that is killed at any step of a collection: before and after each
//! commit of the catalog, and before each operation that changes the disk of the
//! store. It is a process of its own, which ends itself there.
//!
//! After each, fsck has no finding, the next start pulls all that lives, and the
//! next collection ends the rest.

use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;

use orlop_disk::{
    Access, Backend, BoxFuture, Buffer, Counters, Disk, File, Moved, OpenOptions, Space,
};
use orlop_figures as figures;
use orlop_format::digest::Algorithm;

use super::*;

/// Where the process that ends itself works, and at which step.
const FOLDER: &str = "ORLOP_TEST_DIE_IN";
const STEP: &str = "ORLOP_TEST_DIE_AT";
/// More steps than a collection here has.
const STEPS_MAX: u64 = 600;
const CHILD: &str = "storage::tests::gc::kills::a_collection_that_ends_its_process";

/// Counts steps once it is told to, and ends the process at one.
struct Steps {
    counts: AtomicBool,
    done: AtomicU64,
    last: u64,
}

impl Steps {
    fn step(&self) {
        if self.counts.load(Ordering::SeqCst)
            && self.done.fetch_add(1, Ordering::SeqCst) == self.last
        {
            std::process::abort();
        }
    }
}

struct Dying(Arc<dyn Disk>, Arc<Steps>);

type Result<T> = orlop_disk::Result<T>;

impl Disk for Dying {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        let file = self.0.open(path, options)?;
        Ok(Arc::new(DyingFile(file, Arc::clone(&self.1))))
    }
    fn create_dir(&self, path: &Path) -> Result<()> {
        self.1.step();
        self.0.create_dir(path)
    }
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.0.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.1.step();
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.1.step();
        self.0.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.0.sync_dir(path)
    }
    fn exists(&self, path: &Path) -> Result<bool> {
        self.0.exists(path)
    }
    fn space(&self, path: &Path) -> Result<Space> {
        self.0.space(path)
    }
    fn backend(&self) -> Backend {
        self.0.backend()
    }
    fn counters(&self) -> Counters {
        self.0.counters()
    }
}

struct DyingFile(Arc<dyn File>, Arc<Steps>);

impl File for DyingFile {
    fn read_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        Arc::clone(&self.0).read_at(offset, buf)
    }
    fn write_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        self.1.step();
        Arc::clone(&self.0).write_at(offset, buf)
    }
    fn sync_data(self: Arc<Self>) -> BoxFuture<'static, Result<()>> {
        Arc::clone(&self.0).sync_data()
    }
    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.1.step();
        self.0.allocate(offset, len)
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.1.step();
        self.0.punch(offset, len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.1.step();
        self.0.set_len(len)
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn access(&self) -> Access {
        self.0.access()
    }
}

fn large(of: &str) -> String {
    let mut text = of.repeat(40_000);
    text.truncate(150_000);
    text
}

/// What lives, what was deleted, and all contents of the latter.
struct World {
    kept: [&'static str; 4],
    gone: Vec<Digest>,
}

/// A store in which there is something of everything that a collection does.
async fn world(folder: &Path) -> World {
    let running = Running::start(folder, |_| {}).await;
    let shared = running.image("a", "v1", "shared").await;
    running.image("b", "large", &large("kept")).await;
    let child = running.image("a", "", "child").await;
    running.index("a", "index", &[child]).await;
    running.image("a", "moved", "before").await;
    running.image("a", "moved", "after").await;
    let mut gone = vec![layer("of a push that failed"), layer(&large("gone"))];
    running.blob("a", "of a push that failed").await;
    for content in [&large("gone"), "gone", "also gone"] {
        let image = running.image("a", "", content).await;
        running.delete("a", &image).await;
        gone.extend([
            image,
            layer(content),
            layer(&format!("config of {content}")),
        ]);
    }
    let own = running.image_of("b", "", ("shared", "of its own")).await;
    running.delete("b", &own).await;
    gone.extend([own, layer("of its own")]);
    let index = running.index("a", "other", &[child, shared]).await;
    running.delete("a", &index).await;
    running.untag("a", "moved").await;
    running.image("a", "moved", "after").await;
    gone.push(index);
    let name = RepositoryName::parse("a").unwrap();
    let content = Bytes::from_static(b"by another digest");
    gone.push(digest(&content));
    let other = Digest::of(Algorithm::Sha512, &content);
    let body = stream::iter([Ok(content)]).boxed();
    let stored = running.registry.upload_whole(WHO, &name, body, other);
    stored.await.unwrap();
    running.stop().await;
    World {
        kept: ["v1", "index", "moved", "large"],
        gone,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of its own, started by i20_i23_a_server_that_is_killed"]
async fn a_collection_that_ends_its_process() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let (folder, last) = (PathBuf::from(folder), std::env::var(STEP).unwrap());
    let steps = Arc::new(Steps {
        counts: AtomicBool::new(false),
        done: AtomicU64::new(0),
        last: last.parse().unwrap(),
    });
    let settings = Settings {
        gc_lease: LEASE,
        undelete_window: Duration::ZERO,
        ..settings(&folder)
    };
    let disk = Dying(Blocking::new(2).unwrap(), Arc::clone(&steps));
    let (lock, progress) = (lock(&folder).unwrap(), Progress::default());
    let storage = Storage::open(&settings, lock, Arc::new(disk), &progress).await;
    let storage = storage.unwrap();
    let told = Arc::clone(&steps);
    storage.catalog.tell(Arc::new(move |place| {
        if place != "read" {
            told.step();
        }
        true
    }));
    let running = Running::of(storage);
    tokio::time::sleep(LEASE * 3).await;
    steps.counts.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let outcome = running.collect("{}").await;
        assert!(outcome.skipped == 0, "{outcome:?}");
    }
    steps.counts.store(false, Ordering::SeqCst);
    running.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Nothing here depends on what is durable.
fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        return tempfile::tempdir_in(memory).unwrap();
    }
    tempfile::tempdir().unwrap()
}

/// Whether the process died at that step, and not at its end.
fn dies(folder: &Path, step: u64) -> bool {
    let ended = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--ignored"])
        .env(FOLDER, folder)
        .env(STEP, step.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    let by_itself = ended.status.success();
    let is_run = !by_itself || text.contains("1 passed");
    assert!(is_run, "{text}");
    assert!(
        by_itself || ended.status.code().is_none(),
        "step {step}: {}: {text}{}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr)
    );
    !by_itself
}

#[tokio::test(flavor = "multi_thread")]
async fn i20_i23_a_server_that_is_killed_at_any_step_of_a_collection_leaves_pulls_right() {
    let base = place();
    let world = world(base.path()).await;
    let stride = figures::choose(16, 3, 1);
    let first = std::env::var("ORLOP_STEP")
        .ok()
        .map(|of| of.parse().unwrap());
    let mut step = first.unwrap_or(u64::from(std::process::id()) % stride);
    let mut died = 0;
    while step < STEPS_MAX {
        let folder = place();
        copy(base.path(), folder.path());
        let again = format!(
            "step {step}; again: ORLOP_STEP={step} ./x cargo test -p orlop --lib i20_i23_a_server_that_is_killed"
        );
        let is_dead = dies(folder.path(), step);
        let report = orlop_fsck::check_with(folder.path(), &orlop_fsck::Options::default());
        let report = report.unwrap();
        assert!(report.clean(), "{again}: {report}");
        let running = Running::start(folder.path(), |_| {}).await;
        for tag in world.kept {
            let repository = if tag == "large" { "b" } else { "a" };
            assert!(running.pulls(repository, tag).await, "{again}: {tag}");
        }
        for digest in &world.gone {
            let pulled = running.pulls("a", &digest.to_string()).await;
            assert!(!pulled, "{again}: {digest}");
        }
        // A job that was killed goes on by itself.
        until(async || {
            running
                .storage
                .jobs()
                .unwrap()
                .list(Some(GC))
                .await
                .unwrap()
                .iter()
                .all(|job| job.ended_at.is_some())
        })
        .await;
        for _ in 0..2 {
            running.collect("{}").await;
        }
        for digest in &world.gone {
            assert!(!running.has(digest), "{again}: {digest} is kept");
        }
        for tag in world.kept {
            let repository = if tag == "large" { "b" } else { "a" };
            assert!(running.pulls(repository, tag).await, "{again}: {tag}");
        }
        running.ends_clean(folder.path()).await;
        if !is_dead {
            println!("killed {died} times; a collection has {step} steps at most");
            assert!(died > 0);
            return;
        }
        died += 1;
        step += stride;
        if first.is_some() {
            return;
        }
    }
    panic!("a collection has more than {STEPS_MAX} steps");
}
