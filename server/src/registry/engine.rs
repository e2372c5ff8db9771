//! The blob store of the registry: the engine behind [`Blobs`].

use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use orlop_engine::{self as engine, Invalid, Store};
use orlop_oci::{Algorithm, Digest};

use super::seam::{
    Blobs, Content, ContentStream, Fault, Health, Life, Mismatch, Pinned, Upload, UploadId,
};

impl From<engine::Error> for Fault {
    fn from(error: engine::Error) -> Fault {
        use engine::Error;
        let text = error.to_string();
        match error {
            Error::NotFound { .. } => Fault::NotFound,
            Error::Invalid(Invalid::DigestMismatch { expected, actual }) => {
                Fault::Mismatch(Box::new(Mismatch {
                    expected: *expected,
                    actual: *actual,
                }))
            }
            Error::Invalid(_) => Fault::Invalid(text),
            Error::Full { .. } => Fault::Full(text),
            Error::Busy { .. } => Fault::Busy(text),
            Error::Corrupt { .. } => Fault::Corrupt(text),
            Error::Io { .. } | Error::Cancelled => Fault::Io(text),
            Error::Poisoned { .. } => Fault::Poisoned(text),
        }
    }
}

impl From<engine::Stat> for Life {
    fn from(stat: engine::Stat) -> Life {
        Life {
            size: stat.size,
            birth: stat.birth,
        }
    }
}

impl Blobs for Store {
    fn upload_open(&self, owner: &str, also: Option<Algorithm>) -> Result<UploadId, Fault> {
        Ok(Store::upload_open(self, owner, also)?)
    }

    fn upload_status(&self, id: UploadId, owner: &str) -> Result<u64, Fault> {
        Ok(Store::upload_status(self, id, owner)?)
    }

    fn upload_resume<'a>(
        &'a self,
        id: UploadId,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>, Fault>> {
        async move {
            let upload = Store::upload_resume(self, id, owner).await?;
            Ok(Box::new(upload) as Box<dyn Upload>)
        }
        .boxed()
    }

    fn put(
        &self,
        bytes: Bytes,
        expected: Digest,
        note: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            Store::put(self, bytes, expected, Some(note)).await?;
            Ok(())
        }
        .boxed()
    }

    fn stat(&self, digest: &Digest) -> Result<Life, Fault> {
        Ok(Store::stat(self, digest)?.into())
    }

    fn read(&self, digest: &Digest) -> Result<Box<dyn Content>, Fault> {
        Ok(Box::new(Store::read(self, digest)?))
    }

    fn pin(&self, digests: &[Digest]) -> Result<Pinned, Fault> {
        let (pin, found) = Store::pin(self, digests)?;
        Ok(Pinned {
            found: found.into_iter().map(|of| of.map(Life::from)).collect(),
            guard: Box::new(pin),
        })
    }

    fn note(&self, note: Vec<u8>) -> Result<(), Fault> {
        Ok(Store::note(self, note)?)
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        async move {
            let health = Store::health(self).await;
            Health {
                poisoned: health.poisoned,
                full: health.full,
                writing: health.writing,
                ..Health::default()
            }
        }
        .boxed()
    }
}

impl Upload for engine::Upload {
    fn offset(&self) -> u64 {
        engine::Upload::offset(self)
    }

    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        async move { Ok(engine::Upload::append(self, bytes).await?) }.boxed()
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, Result<u64, Fault>> {
        async move { Ok(engine::Upload::checkpoint(self).await?) }.boxed()
    }

    fn commit(self: Box<Self>, expected: Digest) -> BoxFuture<'static, Result<Life, Fault>> {
        async move {
            let committed = engine::Upload::commit(*self, expected, None).await?;
            let engine::Committed { size, birth, .. } = committed;
            Ok(Life { size, birth })
        }
        .boxed()
    }

    fn cancel(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        async move { Ok(engine::Upload::cancel(*self).await?) }.boxed()
    }
}

impl Content for engine::Blob {
    fn size(&self) -> u64 {
        engine::Blob::size(self)
    }

    fn stream(&self, range: Range<u64>) -> ContentStream {
        engine::Blob::stream(self, range)
            .map(|piece| piece.map_err(Fault::from))
            .boxed()
    }

    fn bytes(&self, limit: usize) -> BoxFuture<'_, Result<Bytes, Fault>> {
        async move { Ok(engine::Blob::bytes(self, limit).await?) }.boxed()
    }
}
