//! Reading a blob: its bytes in order, verified, fetched ahead.
//!
//! A reader fetches up to [`READ_AHEAD`] pages ahead, and all readers together
//! no more than [`READ_AHEAD_ALL`]: what a slow client has not taken is bounded
//! by one page each beyond that. What a reader has not taken holds up no other
//! reader. Damage, an unreadable sector included, ends the stream with an error
//! and puts the blob into quarantine; a short body is never finished as if
//! whole. What a reader names stays where it is until it is done, also when the
//! blob dies meanwhile.

use std::ops::Range;
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, Stream, StreamExt};
use orlop_format::digest::Digest;
use orlop_format::location::Extent;
use orlop_format::row::{self, Form};

use crate::config::{PAGE, READ_AHEAD};
use crate::core::Core;
use crate::error::{Error, Invalid, Result};
use crate::holds::Reading;
use crate::sync::OwnedSemaphorePermit;

/// A blob that can be read.
#[derive(Clone)]
pub struct Blob {
    core: Arc<Core>,
    digest: Digest,
    sha256: [u8; 32],
    row: Arc<row::Blob>,
    /// Keeps its bytes where they are.
    _reading: Arc<Reading>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob")
            .field("digest", &self.digest)
            .field("size", &self.row.size)
            .finish()
    }
}

impl Blob {
    /// `reading` was entered before the row was read.
    pub(crate) fn new(
        core: Arc<Core>,
        digest: Digest,
        sha256: [u8; 32],
        row: row::Blob,
        mut reading: Reading,
    ) -> Self {
        reading.name(&row.form);
        Self {
            core,
            digest,
            sha256,
            row: Arc::new(row),
            _reading: Arc::new(reading),
        }
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.row.size
    }

    /// All of it at once.
    ///
    /// # Errors
    /// [`Invalid::TooLarge`] when it is larger than `limit`.
    pub async fn bytes(&self, limit: usize) -> Result<Bytes> {
        if self.row.size > limit as u64 {
            return Err(Invalid::TooLarge {
                what: "a blob to be read at once",
                limit: limit as u64,
            }
            .into());
        }
        if let Form::Inline(_) = &self.row.form {
            return self.inline().await;
        }
        let mut all = Vec::with_capacity(usize::try_from(self.row.size).unwrap_or(0));
        let mut stream = self.stream(0..self.row.size);
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all.into())
    }

    /// The bytes of `range`, clamped to the blob.
    pub fn stream(&self, range: Range<u64>) -> BlobStream {
        let end = range.end.min(self.row.size);
        BlobStream {
            blob: self.clone(),
            next: range.start.min(end),
            end,
            cursor: 0,
            cursor_start: 0,
            ahead: FuturesOrdered::new(),
            failed: false,
        }
    }

    /// The payload of an inline blob, as long as the blob.
    async fn inline(&self) -> Result<Bytes> {
        let bytes = self.payload().await?;
        if bytes.len() as u64 == self.row.size {
            return Ok(bytes);
        }
        let found = bytes.len();
        Err(self.quarantine(Error::corrupt(
            "its record",
            format_args!("it holds {found} bytes, not {}", self.row.size),
        )))
    }

    /// What its record holds. That may have moved since the row was read: then
    /// it is looked up once more.
    async fn payload(&self) -> Result<Bytes> {
        let Form::Inline(place) = &self.row.form else {
            return Ok(Bytes::new());
        };
        let first = match self.core.pages.record(place).await {
            Err(error @ Error::Corrupt { .. }) => error,
            done => return done,
        };
        let _reading = self.core.segments.holds.enter();
        match self.form_now()? {
            Some(Form::Inline(moved)) if moved != *place => {
                match self.core.pages.record(&moved).await {
                    Err(error @ Error::Corrupt { .. }) => Err(self.quarantine(error)),
                    done => done,
                }
            }
            _ => Err(self.quarantine(first)),
        }
    }

    /// A part of one of its extents, by number. That may have moved since the row
    /// was read: then it is looked up once more, and what is wrong with the bytes
    /// that it left says nothing about the blob.
    async fn part(&self, number: usize, extent: Extent, from: u32, to: u32) -> Result<Bytes> {
        let first = match self.core.pages.part(&extent, from, to).await {
            Err(error @ Error::Corrupt { .. }) => error,
            done => return done,
        };
        let _reading = self.core.segments.holds.enter();
        let now = match self.form_now()? {
            Some(Form::Extents(extents)) => extents.get(number).copied(),
            _ => None,
        };
        match now.filter(|now| *now != extent) {
            Some(moved) => match self.core.pages.part(&moved, from, to).await {
                Err(error @ Error::Corrupt { .. }) => Err(self.quarantine(error)),
                done => done,
            },
            None => Err(self.quarantine(first)),
        }
    }

    /// Where this life of it is by now. Whoever reads that has entered before.
    fn form_now(&self) -> Result<Option<Form>> {
        let row = self.core.blob_row(&self.sha256)?;
        let row = row.filter(|row| row.birth == self.row.birth);
        Ok(row.map(|row| row.form))
    }

    /// Records that the blob is damaged.
    fn quarantine(&self, error: Error) -> Error {
        self.core.damaged(&self.sha256, self.row.birth, &error);
        Error::corrupt(format!("blob {}", self.digest), error)
    }
}

type Fetch = (Result<Bytes>, Option<OwnedSemaphorePermit>);

/// Bytes of a blob, in order.
pub struct BlobStream {
    blob: Blob,
    /// Offset of the first byte that no fetch was started for.
    next: u64,
    end: u64,
    /// The extent that holds `next`, and the offset at which it starts.
    cursor: usize,
    cursor_start: u64,
    ahead: FuturesOrdered<BoxFuture<'static, Fetch>>,
    failed: bool,
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream")
            .field("next", &self.next)
            .field("end", &self.end)
            .finish()
    }
}

impl BlobStream {
    /// The extent, its number and the range in it of the next fetch.
    fn step(&mut self) -> Option<(usize, Extent, u32, u32)> {
        let Form::Extents(extents) = &self.blob.row.form else {
            return None;
        };
        loop {
            let extent = extents.get(self.cursor)?;
            let end = self.cursor_start.saturating_add(u64::from(extent.len));
            if self.next >= end {
                self.cursor = self.cursor.saturating_add(1);
                self.cursor_start = end;
                continue;
            }
            let from = u32::try_from(self.next.saturating_sub(self.cursor_start)).ok()?;
            let page_end = (from / PAGE as u32)
                .saturating_add(1)
                .saturating_mul(PAGE as u32);
            let wanted = self.end.saturating_sub(self.cursor_start);
            let to = page_end
                .min(extent.len)
                .min(u32::try_from(wanted).unwrap_or(u32::MAX));
            self.next = self.cursor_start.saturating_add(u64::from(to));
            return Some((self.cursor, *extent, from, to));
        }
    }

    /// Starts the next fetch; false when there is nothing left.
    fn fetch(&mut self, permit: Option<OwnedSemaphorePermit>) -> bool {
        let blob = self.blob.clone();
        if let Form::Inline(_) = &blob.row.form {
            let range = self.next as usize..self.end as usize;
            self.next = self.end;
            self.ahead.push_back(Box::pin(async move {
                let bytes = blob.inline().await;
                (bytes.and_then(|bytes| cut(bytes, range)), permit)
            }));
            return true;
        }
        let Some((number, extent, from, to)) = self.step() else {
            return false;
        };
        self.ahead.push_back(Box::pin(async move {
            (blob.part(number, extent, from, to).await, permit)
        }));
        true
    }
}

fn cut(bytes: Bytes, range: Range<usize>) -> Result<Bytes> {
    if range.end <= bytes.len() && range.start <= range.end {
        Ok(bytes.slice(range))
    } else {
        Err(Error::corrupt("a record", "it is shorter than its blob"))
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes>;

    fn poll_next(
        mut self: StdPin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.failed && this.next < this.end && this.ahead.len() < READ_AHEAD {
            let permit = match (this.ahead.is_empty(), this.blob.core.permit()) {
                (false, None) => break,
                (_, permit) => permit,
            };
            if !this.fetch(permit) {
                this.failed = true;
                let short = Error::corrupt("its extents", "they are short");
                return Poll::Ready(Some(Err(this.blob.quarantine(short))));
            }
        }
        match this.ahead.poll_next_unpin(context) {
            Poll::Ready(Some((result, _permit))) => {
                if result.is_err() {
                    this.failed = true;
                    this.ahead = FuturesOrdered::new();
                }
                Poll::Ready(Some(result))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
