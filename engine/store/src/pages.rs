//! Verified bytes, from memory or from the disk.
//!
//! Owns: the cache. What is in it was checked against its checksum when it
//! came from the disk and never changes: a page is named by segment,
//! generation and offset, a record by its place. One fetch serves all who
//! wait for the same page, and depends on none of them. What a second read
//! cannot mend either, a failed checksum or a sector that cannot be read, is
//! damage; any other failure says nothing about the bytes. Knows no digests
//! and no blobs: whoever asks must know where the bytes are, and what to do
//! when they are damaged.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::FutureExt;
use moka::future::Cache;
use orlop_disk::{Buffer, File, Kind, Pool};
use orlop_format::BLOCK;
use orlop_format::checksum::{SPAN, crc};
use orlop_format::group;
use orlop_format::location::{Extent, Home, Place, SegmentId};
use orlop_format::segment::ExtentHeader;

use crate::config::{MAX_TABLES, PAGE};
use crate::error::{Error, Result};
use crate::flight::Flights;
use crate::journal::files::Files;
use crate::metrics::Metrics;
use crate::planted::{self, Planted};
use crate::runtime::Runtime;
use crate::segment::{SegmentFile, Segments};
use crate::sync::point;

/// What the cost of one cached entry is beside its bytes.
const ENTRY: u32 = 256;

/// Names immutable bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// A page of an extent: segment, offset of the extent, offset in it.
    Page(SegmentId, u32, u32),
    /// The payload of a record.
    Record(Place),
}

/// Something to fetch.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// A page of an extent, and where in it.
    Page(Extent, u32),
    Record(Place),
}

impl Wanted {
    fn key(&self) -> Key {
        match self {
            Wanted::Page(extent, at) => Key::Page(extent.segment, extent.offset, *at),
            Wanted::Record(place) => Key::Record(*place),
        }
    }
}

/// Reads and caches.
pub(crate) struct Pages(Arc<Inner>);

struct Inner {
    segments: Arc<Segments>,
    files: Arc<Files>,
    pool: Pool,
    cache: Cache<Key, Bytes>,
    tables: Cache<(SegmentId, u32), Arc<[u32]>>,
    metrics: Arc<Metrics>,
    fetches: Flights<Key, Result<Bytes>>,
    /// Apart from the pages, which wait for them.
    table_fetches: Flights<(SegmentId, u32), Result<Arc<[u32]>>>,
}

impl Pages {
    pub(crate) fn new(
        segments: Arc<Segments>,
        files: Arc<Files>,
        budget: u64,
        metrics: Arc<Metrics>,
        runtime: &Arc<dyn Runtime>,
    ) -> Self {
        let cache = Cache::builder()
            .max_capacity(budget)
            .weigher(|_, bytes: &Bytes| {
                u32::try_from(bytes.len())
                    .unwrap_or(u32::MAX)
                    .saturating_add(ENTRY)
            })
            .build();
        // Pages live as long as the cache and its readers hold them, beyond
        // any limit of a pool; the pool only reuses their memory.
        Self(Arc::new(Inner {
            segments,
            files,
            pool: Pool::new(BLOCK),
            cache,
            tables: Cache::new(MAX_TABLES),
            metrics,
            fetches: Flights::new(Arc::clone(runtime)),
            table_fetches: Flights::new(Arc::clone(runtime)),
        }))
    }

    /// The page of an extent's payload that starts at `at`, a multiple of
    /// [`PAGE`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it cannot be read or a checksum does not hold.
    pub(crate) async fn page(&self, extent: &Extent, at: u32) -> Result<Bytes> {
        self.0.metrics.page();
        self.0.get(Wanted::Page(*extent, at)).await
    }

    /// The payload of a record.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is not there or damaged.
    pub(crate) async fn record(&self, place: &Place) -> Result<Bytes> {
        self.0.metrics.page();
        self.0.get(Wanted::Record(*place)).await
    }

    /// Some bytes of an extent without filling the cache: for short ranges.
    /// `from..to` lies in the extent's payload and in one page.
    pub(crate) async fn part(&self, extent: &Extent, from: u32, to: u32) -> Result<Bytes> {
        let page = from / PAGE as u32 * PAGE as u32;
        let slice = |bytes: Bytes, start: u32| {
            let range = from.saturating_sub(start) as usize..to.saturating_sub(start) as usize;
            if range.end <= bytes.len() {
                Ok(bytes.slice(range))
            } else if planted::is(Planted::ChecksumWithoutLength) {
                Ok(bytes)
            } else {
                Err(damaged(extent, "it is short"))
            }
        };
        let key = Wanted::Page(*extent, page).key();
        if let Some(bytes) = self.0.cache.get(&key).await {
            self.0.metrics.page();
            self.0.metrics.looked_up(true);
            return slice(bytes, page);
        }
        let whole = from == page && to == page.saturating_add(PAGE as u32).min(extent.len);
        if whole || to.saturating_sub(from) as usize > SPAN {
            return slice(self.page(extent, page).await?, page);
        }
        self.0.metrics.looked_up(false);
        let start = from / SPAN as u32 * SPAN as u32;
        let end = to.next_multiple_of(SPAN as u32).min(extent.len);
        let bytes = twice(|| self.0.range(extent, start, end)).await?;
        slice(bytes, start)
    }

    /// Gives unused memory back to the system.
    pub(crate) fn trim(&self) {
        self.0.pool.trim();
    }

    /// Bytes in the cache.
    pub(crate) fn cached(&self) -> u64 {
        self.0.cache.weighted_size()
    }
}

impl Inner {
    /// From the cache, or by a fetch that all who want it share.
    async fn get(self: &Arc<Self>, wanted: Wanted) -> Result<Bytes> {
        let key = wanted.key();
        point();
        let cached = self.cache.get(&key).await;
        self.metrics.looked_up(cached.is_some());
        if let Some(bytes) = cached {
            return Ok(bytes);
        }
        let this = Arc::clone(self);
        let landed = self.fetches.join(key, || this.fetch(wanted).boxed()).await;
        match landed {
            Some(result) => result,
            None => Arc::clone(self).fetch(wanted).await,
        }
    }

    async fn fetch(self: Arc<Self>, wanted: Wanted) -> Result<Bytes> {
        let key = wanted.key();
        // Somebody else's fetch may have ended just before this one began.
        if let Some(bytes) = self.cache.get(&key).await {
            return Ok(bytes);
        }
        let bytes = match wanted {
            Wanted::Page(extent, at) => twice(|| self.read_page(extent, at)).await?,
            Wanted::Record(place) => twice(|| self.read_record(place)).await?,
        };
        point();
        self.cache.insert(key, bytes.clone()).await;
        Ok(bytes)
    }

    /// The checksums of an extent's payload, from its header block.
    async fn table(
        self: &Arc<Self>,
        segment: &Arc<SegmentFile>,
        extent: &Extent,
    ) -> Result<Arc<[u32]>> {
        let key = (extent.segment, extent.offset);
        if let Some(table) = self.tables.get(&key).await {
            return Ok(table);
        }
        let (this, of, extent) = (Arc::clone(self), Arc::clone(segment), *extent);
        let landed = self
            .table_fetches
            .join(key, || {
                async move { this.fetch_table(&of, extent).await }.boxed()
            })
            .await;
        match landed {
            Some(result) => result,
            None => self.fetch_table(segment, extent).await,
        }
    }

    async fn fetch_table(&self, segment: &Arc<SegmentFile>, extent: Extent) -> Result<Arc<[u32]>> {
        let table = twice(|| async {
            let buf = self
                .read(&segment.file, u64::from(extent.offset), BLOCK)
                .await?;
            decode(segment, &extent, buf.as_slice())
        })
        .await?;
        let key = (extent.segment, extent.offset);
        self.tables.insert(key, Arc::clone(&table)).await;
        Ok(table)
    }

    /// A handle of a segment, asked for twice if its header cannot be read.
    async fn segment(&self, id: &SegmentId) -> Result<Arc<SegmentFile>> {
        match self.segments.get(id).await {
            Err(Error::Corrupt { .. } | Error::Io { .. }) => self.segments.get(id).await,
            done => done,
        }
    }

    /// Verified bytes `from..to` of an extent, in whole spans.
    async fn range(self: &Arc<Self>, extent: &Extent, from: u32, to: u32) -> Result<Bytes> {
        let segment = self.segment(&extent.segment).await?;
        let table = self.table(&segment, extent).await?;
        self.spans(&segment, extent, &table, from, to).await
    }

    async fn read(&self, file: &Arc<dyn File>, offset: u64, len: usize) -> Result<Buffer> {
        let mut buf = self.pool.take_now(len);
        buf.set_len(len);
        let (result, buf) = Arc::clone(file).read_at(offset, buf).await;
        self.metrics.page_read();
        result.map(|()| buf).map_err(|error| match error.kind {
            Kind::Io if error.source.kind() == std::io::ErrorKind::UnexpectedEof => Error::corrupt(
                file.path().display(),
                "the file is shorter than what it must hold",
            ),
            // The medium gives the bytes no more: they are as good as damaged.
            Kind::Io => Error::corrupt(
                file.path().display(),
                format_args!("{len} bytes at {offset} cannot be read: {}", error.source),
            ),
            _ => error.into(),
        })
    }

    async fn read_page(self: &Arc<Self>, extent: Extent, at: u32) -> Result<Bytes> {
        let end = at.saturating_add(PAGE as u32).min(extent.len);
        if at > 0 {
            return self.range(&extent, at, end).await;
        }
        let segment = self.segment(&extent.segment).await?;
        // The header block lies right before the first page: one read for both.
        let len = (end as usize).next_multiple_of(BLOCK).saturating_add(BLOCK);
        let buf = self
            .read(&segment.file, u64::from(extent.offset), len)
            .await?;
        let table = decode(&segment, &extent, buf.as_slice())?;
        self.tables
            .insert((extent.segment, extent.offset), Arc::clone(&table))
            .await;
        let payload = buf
            .as_slice()
            .get(BLOCK..BLOCK.saturating_add(end as usize))
            .unwrap_or_default();
        verify(&extent, payload, &table, 0)?;
        Ok(buf
            .freeze()
            .slice(BLOCK..BLOCK.saturating_add(end as usize)))
    }

    /// Reads and verifies `from..to`; `from` is a multiple of [`SPAN`], `to`
    /// too or the end.
    async fn spans(
        &self,
        segment: &Arc<SegmentFile>,
        extent: &Extent,
        table: &[u32],
        from: u32,
        to: u32,
    ) -> Result<Bytes> {
        let len = to.saturating_sub(from) as usize;
        let offset = u64::from(extent.offset)
            .saturating_add(BLOCK as u64)
            .saturating_add(u64::from(from));
        let read = self.read(&segment.file, offset, len.next_multiple_of(BLOCK));
        let buf = match read.await {
            Err(_) if planted::is(Planted::ChecksumWithoutLength) => return Ok(Bytes::new()),
            read => read?,
        };
        verify(
            extent,
            buf.as_slice().get(..len).unwrap_or_default(),
            table,
            from,
        )?;
        Ok(buf.freeze().slice(..len))
    }

    async fn read_record(&self, place: Place) -> Result<Bytes> {
        let (volume, file) = match &place.home {
            Home::Journal(sequence) => {
                let file = self.files.get(*sequence).ok_or_else(|| {
                    Error::corrupt(format!("journal file {sequence}"), "it is not there")
                })?;
                (file.volume(), file.shared)
            }
            Home::Segment(id) => {
                let segment = self.segment(id).await?;
                (segment.volume(), Arc::clone(&segment.file))
            }
        };
        let skip = place.offset as usize % BLOCK;
        let start = u64::from(place.offset).saturating_sub(skip as u64);
        let len = usize::try_from(place.len())
            .unwrap_or(usize::MAX)
            .saturating_add(skip);
        let buf = self.read(&file, start, len.next_multiple_of(BLOCK)).await?;
        let bytes = buf.as_slice().get(skip..).unwrap_or_default();
        let range = group::check(&volume, &place, bytes).map_err(|error| {
            Error::corrupt(
                format!(
                    "the record at {} of {}",
                    place.offset,
                    file.path().display()
                ),
                error,
            )
        })?;
        // Most records are far smaller than the blocks around them.
        Ok(Bytes::copy_from_slice(bytes.get(range).unwrap_or_default()))
    }
}

/// Reads again what looked damaged: only what both reads say is believed.
async fn twice<T, F>(read: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    match read().await {
        Err(Error::Corrupt { .. }) => read().await,
        done => done,
    }
}

fn damaged(extent: &Extent, reason: impl std::fmt::Display) -> Error {
    Error::corrupt(
        format!(
            "the extent at {} of segment {}",
            extent.offset, extent.segment.id
        ),
        reason,
    )
}

fn decode(segment: &SegmentFile, extent: &Extent, block: &[u8]) -> Result<Arc<[u32]>> {
    let block = block.get(..BLOCK).unwrap_or_default();
    let header = ExtentHeader::decode(&segment.header, block, Some(extent.body))
        .map_err(|error| damaged(extent, format_args!("its header: {error}")))?;
    if header.len == extent.len {
        Ok(header.table.into())
    } else {
        Err(damaged(extent, "its header gives another length"))
    }
}

/// Checks the payload that starts at `from` against the table.
fn verify(extent: &Extent, payload: &[u8], table: &[u32], from: u32) -> Result<()> {
    let first = from as usize / SPAN;
    for (span, bytes) in payload.chunks(SPAN).enumerate() {
        let index = first.saturating_add(span);
        if table.get(index) != Some(&crc(bytes)) {
            let at = index.saturating_mul(SPAN);
            return Err(damaged(
                extent,
                format_args!("the checksum of its 64 KiB at {at} does not hold"),
            ));
        }
    }
    if payload.is_empty() && extent.len > from {
        return Err(damaged(extent, "it is short"));
    }
    Ok(())
}
