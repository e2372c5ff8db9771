//! What the tests of the disks share: the disks, and short ways to use them.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use orlop_disk::blocking::Blocking;
use orlop_disk::sim::Sim;
use orlop_disk::uring::Uring;
use orlop_disk::{
    Access, BLOCK, Buffer, Create, Disk, DiskError, File, Lane, OpenOptions, Pool, probe,
};

pub(crate) const B: u64 = BLOCK as u64;

/// Opened for writing, made when missing, direct, on the shared lane.
pub(crate) const SHARED: OpenOptions = OpenOptions {
    create: Create::IfMissing,
    lane: Lane::Shared,
    direct: true,
    write: true,
};
/// The same on the polling thread.
pub(crate) const INLINE: OpenOptions = OpenOptions {
    lane: Lane::Inline,
    ..SHARED
};

/// One disk under test, with a folder of its own.
pub(crate) struct Bench {
    pub(crate) name: String,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) pool: Pool,
    _folder: Option<tempfile::TempDir>,
}

impl Bench {
    pub(crate) fn new(name: String, disk: Arc<dyn Disk>) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_owned();
        Bench {
            name,
            disk,
            dir,
            pool: Pool::new(64 << 20),
            _folder: Some(folder),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn open(&self, name: &str, options: OpenOptions) -> Arc<dyn File> {
        self.disk.open(&self.path(name), options).unwrap()
    }

    pub(crate) fn fill(&self, len: usize, byte: u8) -> Buffer {
        filled(&self.pool, len, byte)
    }
}

/// Every disk there is, the ring where the machine has one.
pub(crate) fn benches() -> Vec<Bench> {
    let mut benches = real_benches();
    for (name, percent) in [("sim", 0), ("sim with delays", 60)] {
        let sim = Sim::new(42);
        sim.delay(percent);
        sim.create_dir(Path::new("/data")).unwrap();
        benches.push(Bench {
            name: name.to_owned(),
            disk: sim,
            dir: "/data".into(),
            pool: Pool::new(64 << 20),
            _folder: None,
        });
    }
    benches
}

/// Those over the operating system's files.
pub(crate) fn real_benches() -> Vec<Bench> {
    let mut benches = Vec::new();
    for best in [Access::Direct, Access::DontCache, Access::Buffered] {
        let disk = Blocking::with_access(4, best).unwrap();
        benches.push(Bench::new(format!("pool, {best:?}"), disk));
        match probe::ring() {
            Ok(()) => {
                let disk = Uring::with_access(2, best).unwrap();
                benches.push(Bench::new(format!("ring, {best:?}"), disk));
            }
            Err(why) => println!("skipped: the ring: {why}"),
        }
    }
    benches
}

pub(crate) fn filled(pool: &Pool, len: usize, byte: u8) -> Buffer {
    let mut buf = pool.take_now(len);
    buf.set_len(len);
    buf.as_mut_slice().fill(byte);
    buf
}

pub(crate) async fn write(file: &Arc<dyn File>, offset: u64, buf: Buffer) -> Result<(), DiskError> {
    Arc::clone(file).write_at(offset, buf).await.0
}

/// Reads into memory that held something else.
pub(crate) async fn read(
    file: &Arc<dyn File>,
    pool: &Pool,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, DiskError> {
    let (result, buf) = Arc::clone(file)
        .read_at(offset, filled(pool, len, 0xEE))
        .await;
    result.map(|()| buf.as_slice().to_vec())
}

/// The result of something that is ready at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("ready at the first poll")
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}
