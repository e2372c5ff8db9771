//! The disk and the index of a scenario: those of the simulator, with a switch
//! before each operation and after each transfer.
//!
//! Invariant: a transfer that is polled once takes effect, as everywhere; only
//! one that [`Stall`] holds up does so later.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use orlop_disk::sim::{Sim, Verb};
use orlop_disk::{
    Access, Backend, BoxFuture, Buffer, Counters, Disk, File, Moved, OpenOptions, Result, Space,
};
use orlop_index::mem::Memory;
use orlop_index::{Batch, Index, IndexError, Table, Visit};

/// Where the explorer may go on with another task.
pub(crate) fn point() {
    shuttle::thread::sleep(Duration::ZERO); // which only switches
}

/// Operations that are held up until they are let go.
#[derive(Default)]
pub(crate) struct Stall(Mutex<Stalled>);

#[derive(Default)]
struct Stalled {
    /// What is held up, and how many more of it.
    held: Vec<(Verb, &'static str, u64)>,
    waiting: Vec<Waker>,
    /// Operations that were held up.
    count: u64,
    /// How often everything was let go.
    released: u64,
}

impl Stall {
    /// Holds up the next so many operations on files below a folder of this
    /// name.
    pub(crate) fn hold(&self, verb: Verb, folder: &'static str, times: u64) {
        self.0.lock().unwrap().held.push((verb, folder, times));
    }

    /// Lets everything go on.
    pub(crate) fn release(&self) {
        let waiting = {
            let mut stalled = self.0.lock().unwrap();
            stalled.held.clear();
            stalled.released += 1;
            std::mem::take(&mut stalled.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until an operation is held up.
    pub(crate) async fn reached(&self) {
        while self.0.lock().unwrap().count == 0 {
            shuttle::future::yield_now().await;
        }
    }

    /// Waits if this is one of those.
    async fn pass(&self, verb: Verb, path: &Path) {
        let since = {
            let mut stalled = self.0.lock().unwrap();
            let held = stalled.held.iter_mut().find(|(held, folder, times)| {
                let is_below = path.components().any(|part| part.as_os_str() == *folder);
                *held == verb && *times > 0 && is_below
            });
            let Some((.., times)) = held else { return };
            *times -= 1;
            stalled.count += 1;
            stalled.released
        };
        std::future::poll_fn(|context| {
            let mut stalled = self.0.lock().unwrap();
            if stalled.released > since {
                return Poll::Ready(());
            }
            stalled.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A simulated disk that gives others a turn.
pub(crate) struct Stepped {
    pub(crate) sim: Arc<Sim>,
    pub(crate) stall: Arc<Stall>,
}

struct SteppedFile {
    file: Arc<dyn File>,
    stall: Arc<Stall>,
}

impl Disk for Stepped {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        point();
        Ok(Arc::new(SteppedFile {
            file: self.sim.open(path, options)?,
            stall: Arc::clone(&self.stall),
        }))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.sim.create_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.sim.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        point();
        self.sim.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        point();
        self.sim.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        point();
        self.sim.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.sim.exists(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        point();
        self.sim.space(path)
    }

    fn backend(&self) -> Backend {
        self.sim.backend()
    }

    fn counters(&self) -> Counters {
        self.sim.counters()
    }
}

impl SteppedFile {
    async fn transfer<T>(&self, verb: Verb, run: impl Future<Output = T>) -> T {
        point();
        self.stall.pass(verb, self.file.path()).await;
        let done = run.await;
        point();
        done
    }
}

impl File for SteppedFile {
    fn read_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        let run = Arc::clone(&self.file).read_at(offset, buf);
        Box::pin(async move { self.transfer(Verb::Read, run).await })
    }

    fn write_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        let run = Arc::clone(&self.file).write_at(offset, buf);
        Box::pin(async move { self.transfer(Verb::Write, run).await })
    }

    fn sync_data(self: Arc<Self>) -> BoxFuture<'static, Result<()>> {
        let run = Arc::clone(&self.file).sync_data();
        Box::pin(async move { self.transfer(Verb::Sync, run).await })
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        point();
        self.file.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        point();
        self.file.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        point();
        self.file.set_len(len)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn access(&self) -> Access {
        self.file.access()
    }
}

/// The index in memory, giving others a turn.
pub(crate) struct SteppedIndex(pub(crate) Arc<Memory>);

type Answer<T> = std::result::Result<T, IndexError>;

impl Index for SteppedIndex {
    fn get(&self, table: Table, key: &[u8]) -> Answer<Option<Vec<u8>>> {
        point();
        self.0.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[Vec<u8>]) -> Answer<Vec<Option<Vec<u8>>>> {
        point();
        self.0.multi_get(table, keys)
    }

    fn apply(&self, batch: Batch) -> Answer<()> {
        point();
        self.0.apply(batch)?;
        point();
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Answer<()> {
        point();
        self.0.scan(table, from, visit)
    }

    fn watermark(&self) -> Answer<u64> {
        self.0.watermark()
    }

    fn flush(&self) -> Answer<u64> {
        point();
        self.0.flush()
    }

    fn clear(&self, table: Table) -> Answer<()> {
        self.0.clear(table)
    }
}

/// The folder that every store of a scenario is in.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from("/store")
}
