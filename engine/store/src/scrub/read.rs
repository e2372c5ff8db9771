//! Reading for a scrub: from the disk past every cache, within the background
//! budget, with patience for errors that pass.
//!
//! Invariant: a block counts as lost only after [`TRIES`] reads of it failed
//! as a medium fails. Any other failure ends the scrub: it says nothing about
//! the bytes.

use std::sync::Arc;
use std::time::Duration;

use orlop_disk::{File, Kind, Pool};
use orlop_format::BLOCK;

use crate::core::Core;
use crate::error::Result;

/// Bytes of one read.
pub(super) const WINDOW: usize = 1024 * 1024;
/// Reads of a place that fails before it counts as lost.
const TRIES: u32 = 3;
/// Time before the second read; twice that before the third.
const PAUSE: Duration = Duration::from_millis(100);

/// What the disk gave.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Zeros stand for blocks that are lost.
    pub(super) bytes: Vec<u8>,
    /// Offsets of blocks that could not be read.
    pub(super) lost: Vec<u64>,
    /// An error that passed.
    pub(super) passed: Option<String>,
}

/// Reads `len` bytes, whole blocks, in pieces of [`WINDOW`].
pub(super) async fn read(
    core: &Core,
    pool: &Pool,
    file: &Arc<dyn File>,
    offset: u64,
    len: usize,
) -> Result<Reading> {
    let mut reading = Reading::default();
    while reading.bytes.len() < len {
        let at = offset.saturating_add(reading.bytes.len() as u64);
        let want = len.saturating_sub(reading.bytes.len()).min(WINDOW);
        core.budget.take(want as u64).await;
        core.metrics.scrub_read(want as u64);
        piece(core, pool, file, at, want, &mut reading).await?;
    }
    Ok(reading)
}

/// Reads one piece; what cannot be read of it, block by block.
async fn piece(
    core: &Core,
    pool: &Pool,
    file: &Arc<dyn File>,
    offset: u64,
    len: usize,
    reading: &mut Reading,
) -> Result<()> {
    let failed = match patiently(core, pool, file, offset, len, TRIES).await? {
        Ok((bytes, passed)) => {
            reading.bytes.extend_from_slice(&bytes);
            reading.passed = reading.passed.take().or(passed);
            return Ok(());
        }
        Err(failed) => failed,
    };
    tracing::warn!(file = %file.path().display(), offset, len, error = failed, "cannot be read; trying it block by block");
    for at in (offset..offset.saturating_add(len as u64)).step_by(BLOCK) {
        match patiently(core, pool, file, at, BLOCK, 1).await? {
            Ok((block, _)) => reading.bytes.extend_from_slice(&block),
            Err(_) => {
                reading.lost.push(at);
                let end = reading.bytes.len().saturating_add(BLOCK);
                reading.bytes.resize(end, 0);
            }
        }
    }
    if reading.lost.is_empty() {
        reading.passed.get_or_insert(failed);
    }
    Ok(())
}

/// Bytes, and the error before them; or the last error of a medium.
type Tried = std::result::Result<(Vec<u8>, Option<String>), String>;

async fn patiently(
    core: &Core,
    pool: &Pool,
    file: &Arc<dyn File>,
    offset: u64,
    len: usize,
    tries: u32,
) -> Result<Tried> {
    let mut failed = None;
    for tried in 0..tries {
        if tried > 0 {
            core.runtime.sleep(PAUSE.saturating_mul(tried)).await;
        }
        let mut buf = pool.take_now(len);
        buf.set_len(len);
        let (done, buf) = Arc::clone(file).read_at(offset, buf).await;
        core.metrics.scrub_answered();
        match done {
            Ok(()) => return Ok(Ok((buf.as_slice().to_vec(), failed))),
            Err(error) if error.kind == Kind::Io => failed = Some(error.source.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Err(failed.unwrap_or_default()))
}

/// What was read last of a file, so that small frames cost no read each. Holds
/// no more than the largest frame and one read.
pub(super) struct Window {
    pub(super) file: Arc<dyn File>,
    /// Where the file counts no more.
    end: u64,
    at: u64,
    bytes: Vec<u8>,
    lost: Vec<u64>,
    /// An error that passed, until somebody takes it.
    passed: Option<(u64, String)>,
}

impl Window {
    pub(super) fn new(file: Arc<dyn File>, end: u64) -> Self {
        Self {
            file,
            end,
            at: 0,
            bytes: Vec::new(),
            lost: Vec::new(),
            passed: None,
        }
    }

    /// Reads everything again from the disk.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
        self.lost.clear();
    }

    /// The bytes at `offset`, as many as wanted unless the file ends.
    pub(super) async fn at(
        &mut self,
        core: &Core,
        pool: &Pool,
        offset: u64,
        want: usize,
    ) -> Result<&[u8]> {
        let have = self.at.saturating_add(self.bytes.len() as u64);
        if offset < self.at || offset > have {
            self.forget();
        }
        let skip = usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let end = offset.saturating_add(want as u64).min(self.end);
        if self.bytes.is_empty() || end > have {
            self.bytes.drain(..skip.min(self.bytes.len()));
            self.lost.retain(|at| *at >= offset);
            self.at = offset;
            let from = offset.saturating_add(self.bytes.len() as u64);
            let left = usize::try_from(self.end.saturating_sub(from)).unwrap_or(usize::MAX);
            let need = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
            let take = need.max(WINDOW).min(left).next_multiple_of(BLOCK);
            let reading = read(core, pool, &self.file, from, take).await?;
            self.bytes.extend_from_slice(&reading.bytes);
            self.lost.extend(reading.lost);
            if let Some(error) = reading.passed {
                self.passed.get_or_insert((from, error));
            }
        }
        let skip = usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let rest = self.bytes.get(skip..).unwrap_or_default();
        Ok(rest.get(..want).unwrap_or(rest))
    }

    /// Whether a block in this range could not be read.
    pub(super) fn is_lost(&self, from: u64, to: u64) -> bool {
        self.lost.iter().any(|at| (from..to).contains(at))
    }

    /// An error that passed, with where it was.
    pub(super) fn take_passed(&mut self) -> Option<(u64, String)> {
        self.passed.take()
    }
}
