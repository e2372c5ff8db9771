//! Uploads that nobody goes on with: found, and ended.
//!
//! The log keeps no times, so that time counts from the last request for an
//! upload in this process, at least from the store's opening: a restart, or a
//! session that made room for others, only ever makes an upload live longer.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use orlop_format::record::{Record, UploadId};
use orlop_format::row;
use orlop_index::Table;

use crate::core::Core;
use crate::error::{Error, Result};

/// Uploads that are looked at between two waits.
const PAGE: usize = 256;

/// Ends the uploads that nobody asked for in `idle`. Returns how many.
pub(crate) async fn expire(core: &Core, idle: Duration) -> Result<u64> {
    core.poison.check()?;
    let mut expired = core.sessions.drop_idle(core.runtime.now(), idle);
    let mut from = Some(Vec::new());
    while let Some(start) = from {
        let (page, next) = durable(core, &start)?;
        for (id, owner) in page {
            if core.sessions.is_idle(&id, core.runtime.now(), idle) && end(core, id, &owner).await?
            {
                expired = expired.saturating_add(1);
            }
        }
        from = next;
    }
    // Without a row the log does not know them, or a record of theirs failed or
    // was answered to nobody: the last word behind all that was queued.
    for (id, owner) in core.sessions.doubtful(core.runtime.now(), idle) {
        if core.upload_row(&id)?.is_none() && end(core, id, &owner).await? {
            expired = expired.saturating_add(1);
        }
    }
    Ok(expired)
}

/// A page of the uploads that the log knows, and where the next begins.
type Page = (Vec<(UploadId, String)>, Option<Vec<u8>>);

fn durable(core: &Core, from: &[u8]) -> Result<Page> {
    let (mut page, mut next) = (Vec::new(), None);
    core.index.scan(Table::Upload, from, &mut |key, value| {
        if page.len() == PAGE {
            next = Some(key.to_vec());
            return ControlFlow::Break(());
        }
        match (<[u8; 16]>::try_from(key), row::Upload::decode(value)) {
            (Ok(id), Ok(row)) => {
                let owner = String::from_utf8_lossy(&row.owner).into_owned();
                page.push((UploadId(id), owner));
            }
            // It holds up no other; a rebuild of the index makes it again.
            _ => tracing::warn!(?key, "a row of an upload cannot be read"),
        }
        ControlFlow::Continue(())
    })?;
    Ok((page, next))
}

/// Ends one upload, unless somebody has come for it since.
async fn end(core: &Core, id: UploadId, owner: &str) -> Result<bool> {
    let (_session, mut state) = match core.sessions.hold(core, id, owner) {
        Ok(held) => held,
        Err(Error::NotFound { .. } | Error::Busy { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    // May be written even if this fails, or is not waited for: then the next
    // request asks the log.
    state.queued = true;
    state.cool();
    let record = Record::Abandon { upload: id };
    core.queue
        .append(vec![(record, Bytes::new())], Vec::new())
        .await?;
    state.ended = true;
    core.sessions.forget(&id);
    Ok(true)
}
