//! A disk over the operating system's files, whoever carries the transfers.
//!
//! Owns: the choice of lane, and what becomes of a request whose thread ended.
//! Invariant: [`Lane::Inline`] calls the system at the first poll, and the
//! shared lane never does.
//! Refuses to know: whether the carrier is a ring or a pool of threads.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use crate::request::{Envelope, Request, Verb};
use crate::system::{self, Handle};
use crate::{
    Access, Backend, BoxFuture, Buffer, Counters, Disk, DiskError, File, Lane, Moved, OpenOptions,
    Result, Space,
};

/// Carries requests on threads of its own.
pub(crate) trait Carrier: Send + Sync + 'static {
    /// Hands a request over, waiting while the queue is full. Gives it back
    /// when the threads are gone.
    fn submit(
        &self,
        envelope: Envelope,
    ) -> impl Future<Output = std::result::Result<(), Envelope>> + Send;
    fn backend(&self) -> Backend;
    fn counters(&self) -> Counters;
}

/// The files of the operating system, with a carrier for the shared lane.
pub(crate) struct RealDisk<C> {
    carrier: Arc<C>,
    /// The best access to try for files opened direct.
    best: Access,
}

impl<C: Carrier> RealDisk<C> {
    pub(crate) fn over(carrier: C, best: Access) -> Arc<dyn Disk> {
        Arc::new(RealDisk {
            carrier: Arc::new(carrier),
            best,
        })
    }
}

impl<C: Carrier> Disk for RealDisk<C> {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        let handle = Arc::new(system::open(path, options, self.best)?);
        let carrier = Arc::clone(&self.carrier);
        Ok(Arc::new(RealFile {
            handle,
            carrier,
            lane: options.lane,
        }))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        system::create_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        system::list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        system::rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        system::remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        system::sync_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        system::exists(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        system::space(path)
    }

    fn backend(&self) -> Backend {
        self.carrier.backend()
    }

    fn counters(&self) -> Counters {
        self.carrier.counters()
    }
}

struct RealFile<C> {
    handle: Arc<Handle>,
    carrier: Arc<C>,
    lane: Lane,
}

impl<C: Carrier> RealFile<C> {
    fn carry(self: Arc<Self>, verb: Verb, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        async move {
            let request = Request {
                verb,
                handle: Arc::clone(&self.handle),
                offset,
                buf,
            };
            if self.lane == Lane::Inline {
                return request.run().into_moved();
            }
            let (reply, answer) = oneshot::channel();
            let lost = |buf| {
                let error = io::Error::other("the disk thread has ended; restart the process");
                (
                    Err(DiskError::new(verb.name(), &self.handle.path, error)),
                    buf,
                )
            };
            if let Err(returned) = self.carrier.submit(Envelope { request, reply }).await {
                return lost(returned.request.buf);
            }
            match answer.await {
                Ok(done) => done.into_moved(),
                Err(_) => lost(Buffer::empty()),
            }
        }
        .boxed()
    }
}

impl<C: Carrier> File for RealFile<C> {
    fn read_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        self.carry(Verb::Read, offset, buf)
    }

    fn write_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        self.carry(Verb::Write, offset, buf)
    }

    fn sync_data(self: Arc<Self>) -> BoxFuture<'static, Result<()>> {
        self.carry(Verb::Sync, 0, Buffer::empty())
            .map(|(result, _)| result)
            .boxed()
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.handle.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.handle.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.handle.set_len(len)
    }

    fn len(&self) -> Result<u64> {
        self.handle.len()
    }

    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn access(&self) -> Access {
        self.handle.access
    }
}
