//! The content of a blob against its digest: finds what was wrong before its
//! checksums were made.

use std::ops::ControlFlow;

use orlop_format::digest::{Algorithm, Hasher};
use orlop_format::location::Home;
use orlop_format::row::{Blob, Form, State};
use orlop_index::Table;

use super::FindingCode;
use super::inspect::{Inspector, Verdict};
use crate::error::Result;
use crate::view::unreadable;

/// Rows that are passed over in one step.
const ROWS: usize = 4096;

/// A blob whose content is being read.
pub(super) struct Hashing {
    pub(super) sha256: [u8; 32],
    row: Blob,
    hasher: Hasher,
    /// Extents that were read.
    at: usize,
    /// Whether this is the second reading: only what two say is believed.
    again: bool,
}

impl Hashing {
    /// The first live blob behind `after`, which moves on over others. The end
    /// is reached when that has only high bits.
    pub(super) fn next(
        inspector: &Inspector,
        after: &mut Option<[u8; 32]>,
    ) -> Result<Option<Self>> {
        let mut from = after.map(|key| key.to_vec()).unwrap_or_default();
        if after.is_some() {
            from.push(0);
        }
        let (mut rows, mut found, mut failed) = (0usize, None, Ok(()));
        let mut last = None;
        let index = &inspector.core.index;
        index.scan(Table::Blob, &from, &mut |key, value| {
            rows = rows.saturating_add(1);
            let Ok(sha256) = <[u8; 32]>::try_from(key) else {
                return ControlFlow::Continue(());
            };
            match Blob::decode(value) {
                Ok(row) if row.state == State::Live => found = Some((sha256, row)),
                Ok(_) => last = Some(sha256),
                Err(error) => failed = Err(unreadable(Table::Blob, error)),
            }
            if found.is_some() || failed.is_err() || rows >= ROWS {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        if let Some((sha256, row)) = found {
            return Ok(Some(Self {
                sha256,
                row,
                hasher: Hasher::new(Algorithm::Sha256),
                at: 0,
                again: false,
            }));
        }
        *after = match last {
            Some(key) if rows >= ROWS => Some(key),
            _ => Some([0xff; 32]),
        };
        Ok(None)
    }

    /// Bytes that the next step reads.
    pub(super) fn len(&self) -> u64 {
        match &self.row.form {
            Form::Inline(place) => u64::from(place.payload),
            Form::Extents(extents) => extents.get(self.at).map_or(0, |e| u64::from(e.len)),
        }
    }

    /// Goes back to the first byte, once.
    fn begin_again(&mut self) -> bool {
        self.hasher = Hasher::new(Algorithm::Sha256);
        self.at = 0;
        !std::mem::replace(&mut self.again, true)
    }

    /// Reads the next extent; false when the blob is done.
    pub(super) async fn step(&mut self, inspector: &mut Inspector) -> Result<bool> {
        let hasher = &mut self.hasher;
        let mut hash = |bytes: &[u8]| hasher.update(bytes);
        let (verdict, home, offset) = match &self.row.form {
            Form::Inline(place) => {
                let verdict = inspector.place(place, &mut hash).await?;
                (verdict, place.home, u64::from(place.offset))
            }
            Form::Extents(extents) => {
                let Some(extent) = extents.get(self.at) else {
                    return Ok(false);
                };
                let verdict = inspector.extent(extent, &mut hash).await?;
                let home = Home::Segment(extent.segment);
                (verdict, home, u64::from(extent.offset))
            }
        };
        let (sha256, row) = (self.sha256, self.row.clone());
        if verdict != Verdict::Good {
            if self.begin_again() {
                return Ok(true);
            }
            let code = FindingCode::Blob;
            inspector
                .condemn(code, &sha256, &row, (&home, offset), verdict)
                .await?;
            return Ok(false);
        }
        self.at = self.at.saturating_add(1);
        if let Form::Extents(extents) = &self.row.form
            && self.at < extents.len()
        {
            return Ok(true);
        }
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
        let digest = hasher.finish();
        if digest.bytes() != sha256.as_slice() {
            if self.begin_again() {
                return Ok(true);
            }
            let verdict = Verdict::Damaged(format!("its content has digest {digest}"));
            // A record that was moved while it was read is another place now.
            let code = FindingCode::Digest;
            inspector
                .condemn(code, &sha256, &row, (&home, offset), verdict)
                .await?;
        }
        Ok(false)
    }
}
