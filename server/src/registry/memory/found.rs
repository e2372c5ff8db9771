//! A blob in memory that was found.

use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use crate::registry::seam::{Content, ContentStream, Fault};

/// Bytes, of which some fail in the middle of being read.
pub(super) struct Found {
    pub(super) bytes: Bytes,
    pub(super) damaged: bool,
}

impl Content for Found {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn stream(&self, range: Range<u64>) -> ContentStream {
        let part = self.bytes.slice(range.start as usize..range.end as usize);
        if self.damaged {
            // Of a single byte, nothing comes before the damage.
            let half = part.slice(..part.len() / 2);
            let half = Some(half).filter(|half| !half.is_empty());
            let fault = Fault::Corrupt("checksum".into());
            let pieces = half.map(Ok).into_iter().chain([Err(fault)]);
            return stream::iter(pieces.collect::<Vec<_>>()).boxed();
        }
        stream::iter([Ok(part)]).boxed()
    }

    fn bytes(&self, limit: usize) -> BoxFuture<'_, Result<Bytes, Fault>> {
        async move {
            if self.damaged {
                return Err(Fault::Corrupt("checksum".into()));
            }
            if self.bytes.len() > limit {
                return Err(Fault::Invalid("larger than the limit".into()));
            }
            Ok(self.bytes.clone())
        }
        .boxed()
    }
}
