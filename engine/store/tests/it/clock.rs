//! A clock that stands still until everybody waits, and that a test may set;
//! and what a jump of it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use orlop_disk::Disk;
use orlop_disk::sim::{Crash, Sim};
use orlop_engine::{Config, Error, MemoryIndex, Progress, Runtime, Store, System};
use tokio::time::Instant;

use crate::support::{config, content, disk, pull, push, sha256};
use crate::upkeep::{fill, until};

/// The clock of tokio, and by how much it was set. Only for tests that stop
/// that clock.
pub(crate) struct Clock {
    system: Arc<dyn Runtime>,
    start: Instant,
    /// Milliseconds.
    ahead: AtomicU64,
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Hours of a year.
const YEAR: i64 = 365 * 24;

impl Clock {
    /// A clock that starts now, and may be set back by years.
    pub(crate) fn start() -> Arc<Clock> {
        Arc::new(Clock {
            system: System::start(),
            start: Instant::now(),
            ahead: AtomicU64::new(10 * YEAR as u64 * HOUR.as_millis() as u64),
        })
    }

    /// Sets it ahead by so many hours, or back.
    fn jump(&self, hours: i64) {
        let by = hours * HOUR.as_millis() as i64;
        let set = |ahead: u64| ahead.checked_add_signed(by);
        let ordering = Ordering::Relaxed;
        self.ahead.fetch_update(ordering, ordering, set).unwrap();
    }

    /// Opens a store that goes by this clock.
    pub(crate) async fn open(
        self: &Arc<Self>,
        config: Config,
        sim: &Arc<Sim>,
        index: &MemoryIndex,
    ) -> Store {
        let runtime: Arc<dyn Runtime> = Arc::new(Handle(Arc::clone(self)));
        let disk: Arc<dyn Disk> = Arc::clone(sim) as Arc<dyn Disk>;
        let progress = Progress::default();
        let opened = Store::open(config, runtime, disk, index, &progress);
        opened.await.unwrap()
    }
}

struct Handle(Arc<Clock>);

impl Runtime for Handle {
    fn now(&self) -> Duration {
        let ahead = self.0.ahead.load(Ordering::Relaxed);
        self.0.start.elapsed() + Duration::from_millis(ahead)
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.0.system.fill_random(bytes);
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> std::io::Result<()> {
        tokio::spawn(task);
        Ok(())
    }

    fn task(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// The engine's clock is one that is never set; it holds even so.
#[tokio::test(start_paused = true)]
async fn g12_a_clock_that_jumps_loses_nothing_acknowledged_and_holds_nothing_up() {
    let jumps = [-1, 1, -24, YEAR, -YEAR, YEAR];
    let (mut sim, clock) = (disk(60), Clock::start());
    let mut index = MemoryIndex::default();
    let mut store = clock.open(config(), &sim, &index).await;
    let mut kept = Vec::new();
    for (round, hours) in (0u64..).zip(jumps) {
        let jump = format!("a jump by {hours} h");
        let begun = Instant::now();
        let bytes = content(7_000 + round, 400_000);
        let (id, idle) = (
            store.upload_open("a", None).unwrap(),
            store.upload_open("a", None).unwrap(),
        );
        let mut upload = store.upload_resume(idle, "a").await.unwrap();
        upload.append(bytes.slice(..200_000)).await.unwrap();
        upload.checkpoint().await.unwrap();
        drop(upload);
        let mut upload = store.upload_resume(id, "a").await.unwrap();
        upload.append(bytes.slice(..200_000)).await.unwrap();
        upload.checkpoint().await.unwrap();

        clock.jump(hours);
        // What a request holds is in use, whatever the time is.
        let expired = store.upload_expire(DAY).await.unwrap();
        let is_late = hours == YEAR;
        assert_eq!(expired, u64::from(is_late), "{jump}");
        let status = store.upload_status(idle, "a");
        if is_late {
            assert!(matches!(status, Err(Error::NotFound { .. })), "{jump}");
        } else {
            assert_eq!(status.unwrap(), 200_000, "{jump}");
            let upload = store.upload_resume(idle, "a").await.unwrap();
            upload.cancel().await.unwrap();
        }
        upload.append(bytes.slice(200_000..)).await.unwrap();
        let done = upload.commit(sha256(&bytes), None).await.unwrap();
        assert!(done.new, "{jump}");
        kept.push(bytes);
        let recycled = store.health().await.counts.recycled;
        kept.extend(fill(&store, round * 100..round * 100 + 100).await);
        if round >= 3 {
            until(&jump, async || {
                store.health().await.counts.recycled > recycled
            })
            .await;
        }
        for bytes in &kept {
            assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
            let again = push(&store, bytes, sha256(bytes)).await.unwrap();
            assert!(!again, "{jump}");
        }
        assert!(begun.elapsed() < HOUR, "{jump}: something slept through it");
        // And the next start comes at another time than the last one knew.
        if round % 2 == 1 {
            drop(store);
            sim = sim.crash(Crash::Lost);
            index = MemoryIndex::new(index.current().crash());
            store = clock.open(config(), &sim, &index).await;
        }
    }
}
