//! Upload sessions: started, filled, asked about, finished or given up.
//!
//! A session belongs to its repository. Bytes go from the network straight
//! into the store, so that a slow disk slows the client and nothing piles up.
//! What arrived when a body breaks off is made durable, so that the client
//! can go on from there.

use futures_util::StreamExt;
use orlop_oci::{Algorithm, Digest, RepositoryName};

use super::access::{self, Subject, Verb};
use super::seam::{Body, Fault, Upload, UploadId};
use super::{Error, Registry};

/// The place of a chunk within its upload, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of its first byte.
    pub start: u64,
    /// Its length.
    pub len: u64,
}

impl Registry {
    /// Starts a session. `also` is a digest algorithm the client announced,
    /// if it is not the usual one.
    pub fn upload_start(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        also: Option<Algorithm>,
    ) -> Result<UploadId, Error> {
        self.may_push(subject, repository)?;
        let also = also.filter(|algorithm| *algorithm != Algorithm::Sha256);
        Ok(self.blobs.upload_open(repository.as_str(), also)?)
    }

    /// Durable bytes of a session.
    pub fn upload_status(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<u64, Error> {
        access::allow(subject, Verb::Push, repository)?;
        self.blobs
            .upload_status(id, repository.as_str())
            .map_err(upload_error)
    }

    /// Adds bytes to a session and says how many it has, all durable.
    /// With a span they are a chunk, which must be the next one.
    pub async fn upload_append(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        id: UploadId,
        span: Option<Span>,
        body: Body,
    ) -> Result<u64, Error> {
        self.may_push(subject, repository)?;
        let mut upload = self.resume(subject, repository, id).await?;
        self.to_the_end(async move {
            receive(upload.as_mut(), span, body).await?;
            Ok(upload.checkpoint().await?)
        })
        .await
    }

    /// Adds the last bytes, if there are any, and makes the upload a blob of
    /// the repository.
    pub async fn upload_finish(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        id: UploadId,
        span: Option<Span>,
        body: Body,
        expected: Digest,
    ) -> Result<(), Error> {
        self.may_push(subject, repository)?;
        let mut upload = self.resume(subject, repository, id).await?;
        let (registry, repository) = (self.clone(), repository.clone());
        self.to_the_end(async move {
            receive(upload.as_mut(), span, body).await?;
            registry.commit(&repository, upload, expected).await
        })
        .await
    }

    /// A whole upload in one request. Nothing is left of it if it fails.
    pub async fn upload_whole(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        body: Body,
        expected: Digest,
    ) -> Result<(), Error> {
        let id = self.upload_start(subject, repository, Some(expected.algorithm()))?;
        let mut upload = self.resume(subject, repository, id).await?;
        let (registry, repository) = (self.clone(), repository.clone());
        self.to_the_end(async move {
            if let Err(error) = fill(upload.as_mut(), None, body).await {
                upload.cancel().await?;
                return Err(error);
            }
            let stored = registry.commit(&repository, upload, expected).await;
            if stored.is_err() {
                registry.forget(&repository, id).await;
            }
            stored
        })
        .await
    }

    /// Gives a session up.
    pub async fn upload_cancel(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<(), Error> {
        self.may_write()?;
        let upload = self.resume(subject, repository, id).await?;
        self.to_the_end(async move { Ok(upload.cancel().await?) })
            .await
    }

    async fn resume(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<Box<dyn Upload>, Error> {
        access::allow(subject, Verb::Push, repository)?;
        self.blobs
            .upload_resume(id, repository.as_str())
            .await
            .map_err(upload_error)
    }

    /// Cancels a session that a failed commit left, if it did. The failure is
    /// what the client hears of.
    async fn forget(&self, repository: &RepositoryName, id: UploadId) {
        let cancelled = match self.blobs.upload_resume(id, repository.as_str()).await {
            Ok(upload) => upload.cancel().await,
            Err(Fault::NotFound) => Ok(()),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = cancelled {
            tracing::debug!(upload = %id, %fault, "a failed upload was not cancelled; it expires");
        }
    }

    async fn commit(
        &self,
        repository: &RepositoryName,
        upload: Box<dyn Upload>,
        expected: Digest,
    ) -> Result<(), Error> {
        // The finished upload holds a lease, so the blob outlives the moment
        // until it is linked.
        let life = upload.commit(expected).await.map_err(upload_error)?;
        self.link(repository, &expected, life).await?;
        self.verbs.blob_pushes.add(1);
        self.verbs.blob_push_bytes.add(life.size);
        Ok(())
    }
}

/// Fills a session from a body. If the body breaks off, keeps what came.
async fn receive(upload: &mut dyn Upload, span: Option<Span>, body: Body) -> Result<(), Error> {
    if let Some(span) = span
        && span.start != upload.offset()
    {
        return Err(Error::OutOfOrder {
            offset: upload.offset(),
        });
    }
    let filled = fill(upload, span, body).await;
    if let Err(Error::Body(_)) = &filled {
        upload.checkpoint().await?;
    }
    filled
}

async fn fill(upload: &mut dyn Upload, span: Option<Span>, mut body: Body) -> Result<(), Error> {
    let mut received = 0u64;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(Error::Body)?;
        received = received.saturating_add(piece.len() as u64);
        check_len(span, received, |declared| received > declared)?;
        upload.append(piece).await?;
    }
    check_len(span, received, |declared| received != declared)
}

fn check_len(
    span: Option<Span>,
    received: u64,
    is_wrong: impl Fn(u64) -> bool,
) -> Result<(), Error> {
    match span {
        Some(Span { len: declared, .. }) if is_wrong(declared) => {
            Err(Error::ChunkSize { declared, received })
        }
        _ => Ok(()),
    }
}

fn upload_error(fault: Fault) -> Error {
    match fault {
        Fault::NotFound => Error::UploadUnknown,
        Fault::Busy(_) => Error::UploadBusy,
        Fault::Mismatch(mismatch) => Error::DigestMismatch(mismatch),
        other => Error::Storage(other),
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
