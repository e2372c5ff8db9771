//! Whether the segment files that something lies in are there, and long enough.
//!
//! A file that is missing says nothing about its bytes, so that what lies in it
//! is not damaged: it counts as absent, so that a push stores it anew, and is
//! here again as soon as the file is. Nothing of this is remembered. Invariant:
//! nobody is told that a blob is here, and nothing is committed, while a file of
//! it is not there.

use std::collections::BTreeMap;

use orlop_format::location::{Extent, Home, SegmentId};
use orlop_format::row::Form;

use crate::error::{Error, Result};
use crate::segment::Segments;

/// Segments that something lies in, and up to where it needs each of them.
#[derive(Debug, Default)]
pub(crate) struct Reach(BTreeMap<SegmentId, u64>);

impl Reach {
    pub(crate) fn of_extents(extents: &[Extent]) -> Self {
        let mut reach = Self::default();
        for extent in extents {
            reach.add(extent.segment, extent.offset, extent.footprint());
        }
        reach
    }

    /// The journal's files are none: without them there is no store.
    pub(crate) fn of_form(form: &Form) -> Self {
        match form {
            Form::Extents(extents) => Self::of_extents(extents),
            Form::Inline(place) => {
                let mut reach = Self::default();
                if let Home::Segment(id) = place.home {
                    reach.add(id, place.offset, place.len());
                }
                reach
            }
        }
    }

    fn add(&mut self, id: SegmentId, offset: u32, len: u64) {
        let end = u64::from(offset).saturating_add(len);
        let known = self.0.entry(id).or_default();
        *known = (*known).max(end);
    }

    /// Whether all files are there. Opens none, and blocks no longer than a
    /// look at a name does.
    pub(crate) fn is_there(&self, segments: &Segments) -> Result<bool> {
        for id in self.0.keys() {
            if !segments.exists(id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens every file, if it is not open.
    ///
    /// # Errors
    /// [`Error::Io`] when one is missing or cannot be opened, [`Error::Corrupt`]
    /// when one is not that segment or ends too early.
    pub(crate) async fn open(&self, segments: &Segments) -> Result<()> {
        for (id, end) in &self.0 {
            let segment = match segments.get(id).await {
                // Only what two reads say is believed.
                Err(Error::Corrupt { .. }) => segments.get(id).await?,
                done => done?,
            };
            let len = segment.file.len()?;
            if len < *end {
                return Err(Error::corrupt(
                    segments.path(id).display(),
                    format_args!("it has {len} bytes and must hold {end}"),
                ));
            }
        }
        Ok(())
    }
}
