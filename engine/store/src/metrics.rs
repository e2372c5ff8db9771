//! Counters of the store, for whoever publishes them.

use std::time::Duration;

use crate::scrub::FindingCode;
use crate::sync::counters::{AtomicU64, Ordering};

/// Counters since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    groups: AtomicU64,
    journal_bytes: AtomicU64,
    extent_bytes: AtomicU64,
    page_reads: AtomicU64,
    page_hits: AtomicU64,
    recycled: AtomicU64,
    quarantined: AtomicU64,
    collected: AtomicU64,
    collected_bytes: AtomicU64,
    removed_segments: AtomicU64,
    released_bytes: AtomicU64,
    moved_bytes: AtomicU64,
    records: AtomicU64,
    sync_nanos: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    duplicates: AtomicU64,
    duplicate_bytes: AtomicU64,
    /// When the journal's writer began with what it writes now, in nanoseconds
    /// and one more; 0 when it writes nothing.
    writing: AtomicU64,
    scrub_bytes: AtomicU64,
    scrub_reads: AtomicU64,
    scrub_frames: AtomicU64,
    scrub_findings: [AtomicU64; FindingCode::ALL.len()],
}

/// [`Metrics`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Groups written to the journal; each cost one sync.
    pub groups: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes written to raw segments.
    pub extent_bytes: u64,
    /// Pages read from the disk.
    pub page_reads: u64,
    /// Pages asked for, whether cached or read.
    pub page_hits: u64,
    /// Journal files recycled.
    pub recycled: u64,
    /// Blobs quarantined.
    pub quarantined: u64,
    /// Blobs that collections ended.
    pub collected: u64,
    /// Bytes of them.
    pub collected_bytes: u64,
    /// Segment files that were removed.
    pub removed_segments: u64,
    /// Bytes given back to the file system, in holes and removed files.
    pub released_bytes: u64,
    /// Bytes that passes copied to other segments to join them.
    pub moved_bytes: u64,
    /// Records written to the journal.
    pub records: u64,
    /// Time that syncs of the journal took.
    pub sync_time: Duration,
    /// Pages and records found in the cache.
    pub cache_hits: u64,
    /// Pages and records that were not in it.
    pub cache_misses: u64,
    /// Commits of blobs that were there already.
    pub duplicates: u64,
    /// Bytes of them, which were not stored again.
    pub duplicate_bytes: u64,
    /// Bytes that scrubs read.
    pub scrub_bytes: u64,
    /// Extents and groups that scrubs verified.
    pub scrub_frames: u64,
    /// What scrubs found, in the order of [`FindingCode::ALL`].
    pub scrub_findings: [u64; FindingCode::ALL.len()],
}

/// Says that the journal's writer waits for the disk, until it is dropped.
pub(crate) struct Writing<'a>(&'a Metrics);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writing.store(0, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

impl Metrics {
    pub(crate) fn group(&self, bytes: usize, sync: Duration) {
        add(&self.groups, 1);
        add(&self.journal_bytes, bytes as u64);
        add(&self.sync_nanos, nanos(sync));
    }

    pub(crate) fn writing(&self, now: Duration) -> Writing<'_> {
        let since = nanos(now).saturating_add(1);
        self.writing.store(since, Ordering::Relaxed);
        Writing(self)
    }

    /// How long it has been waiting; zero when it does not.
    pub(crate) fn writing_for(&self, now: Duration) -> Duration {
        match self.writing.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_nanos(nanos(now).saturating_sub(since.saturating_sub(1))),
        }
    }

    pub(crate) fn records(&self, count: u64) {
        add(&self.records, count);
    }

    pub(crate) fn looked_up(&self, is_cached: bool) {
        add(
            if is_cached {
                &self.cache_hits
            } else {
                &self.cache_misses
            },
            1,
        );
    }

    pub(crate) fn duplicate(&self, bytes: u64) {
        add(&self.duplicates, 1);
        add(&self.duplicate_bytes, bytes);
    }

    pub(crate) fn extent(&self, bytes: u64) {
        add(&self.extent_bytes, bytes);
    }

    pub(crate) fn page_read(&self) {
        add(&self.page_reads, 1);
    }

    pub(crate) fn page(&self) {
        add(&self.page_hits, 1);
    }

    pub(crate) fn recycled(&self) {
        add(&self.recycled, 1);
    }

    pub(crate) fn quarantined(&self) {
        add(&self.quarantined, 1);
    }

    pub(crate) fn collected(&self, bytes: u64) {
        add(&self.collected, 1);
        add(&self.collected_bytes, bytes);
    }

    pub(crate) fn removed_segment(&self) {
        add(&self.removed_segments, 1);
    }

    pub(crate) fn released(&self, bytes: u64) {
        add(&self.released_bytes, bytes);
    }

    pub(crate) fn moved(&self, bytes: u64) {
        add(&self.moved_bytes, bytes);
    }

    pub(crate) fn scrub_read(&self, bytes: u64) {
        add(&self.scrub_bytes, bytes);
    }

    pub(crate) fn scrub_answered(&self) {
        add(&self.scrub_reads, 1);
    }

    pub(crate) fn scrub_reads(&self) -> u64 {
        self.scrub_reads.load(Ordering::Relaxed)
    }

    pub(crate) fn scrub_frames(&self, frames: u64) {
        add(&self.scrub_frames, frames);
    }

    pub(crate) fn scrub_found(&self, code: FindingCode) {
        if let Some(counter) = self.scrub_findings.get(code as usize) {
            add(counter, 1);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            groups: get(&self.groups),
            journal_bytes: get(&self.journal_bytes),
            extent_bytes: get(&self.extent_bytes),
            page_reads: get(&self.page_reads),
            page_hits: get(&self.page_hits),
            recycled: get(&self.recycled),
            quarantined: get(&self.quarantined),
            collected: get(&self.collected),
            collected_bytes: get(&self.collected_bytes),
            removed_segments: get(&self.removed_segments),
            released_bytes: get(&self.released_bytes),
            moved_bytes: get(&self.moved_bytes),
            records: get(&self.records),
            sync_time: Duration::from_nanos(get(&self.sync_nanos)),
            cache_hits: get(&self.cache_hits),
            cache_misses: get(&self.cache_misses),
            duplicates: get(&self.duplicates),
            duplicate_bytes: get(&self.duplicate_bytes),
            scrub_bytes: get(&self.scrub_bytes),
            scrub_frames: get(&self.scrub_frames),
            scrub_findings: self.scrub_findings.each_ref().map(get),
        }
    }
}
