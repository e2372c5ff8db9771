//! Blobs and uploads: what was told is there, what was not is whole or absent,
//! and every byte is the one that was pushed.

use orlop_engine::{Digest, Error, Store, UploadId};

use super::{Checked, Checker, Seen};
use crate::client::CATALOG;
use crate::model::{Blob, Facts, Upload};

/// Bytes of the largest blob there is.
const LARGEST: usize = 64 << 20;

pub(super) async fn check(store: &Store, facts: &Facts) -> Checked<Seen> {
    let mut seen = Seen::default();
    for (digest, blob) in &facts.blobs {
        if self::blob(store, digest, blob).await? {
            seen.blobs.insert(*digest, blob.bytes.len());
        }
    }
    for (id, upload) in &facts.uploads {
        if let Some(offset) = self::upload(store, *id, upload)? {
            seen.uploads.insert(*id, offset);
        }
    }
    catalog(store, facts).await?;
    Ok(seen)
}

/// Whether a blob is there.
async fn blob(store: &Store, digest: &Digest, blob: &Blob) -> Checked<bool> {
    let size = match store.stat(digest) {
        Ok(stat) => Some(stat.size),
        Err(Error::NotFound { .. }) => None,
        Err(error) => return Err(Checker::Acknowledged.finds(format_args!("{digest}: {error}"))),
    };
    let found = match store.read(digest) {
        Ok(found) => found.bytes(LARGEST).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(bytes) if bytes != blob.bytes => Err(Checker::Bytes.finds(format_args!(
            "{digest}: {} bytes were served that are not the {} that were pushed",
            bytes.len(),
            blob.bytes.len()
        ))),
        Ok(_) if blob.dead => {
            Err(Checker::Acknowledged.finds(format_args!("{digest} has died, and is back")))
        }
        Ok(_) if size == Some(blob.bytes.len() as u64) => Ok(true),
        Ok(_) => Err(Checker::Bytes.finds(format_args!("{digest}: its size is given as {size:?}"))),
        Err(error) if blob.told => {
            Err(Checker::Acknowledged.finds(format_args!("{digest} is lost: {error}")))
        }
        Err(Error::NotFound { .. }) if size.is_none() => Ok(false),
        Err(error) => Err(Checker::Whole.finds(format_args!("{digest} is there in part: {error}"))),
    }
}

/// The durable bytes of an upload, if it is there.
fn upload(store: &Store, id: UploadId, upload: &Upload) -> Checked<Option<u64>> {
    let status = store.upload_status(id, &upload.owner);
    match status {
        Ok(offset) if upload.ended => {
            Err(Checker::Whole.finds(format_args!("upload {id} ended, and is back at {offset}")))
        }
        Ok(offset) if offset < upload.durable => Err(Checker::Acknowledged.finds(format_args!(
            "upload {id} has {offset} bytes, and was told to have {}",
            upload.durable
        ))),
        Ok(offset) if offset > upload.sent => Err(Checker::Whole.finds(format_args!(
            "upload {id} has {offset} bytes, more than the {} that were sent",
            upload.sent
        ))),
        Ok(offset) => Ok(Some(offset)),
        Err(Error::NotFound { .. }) if upload.durable == 0 || upload.ending => Ok(None),
        Err(error) => {
            Err(Checker::Acknowledged.finds(format_args!("upload {id} is lost: {error}")))
        }
    }
}

/// What the store says of the catalog.
async fn catalog(store: &Store, facts: &Facts) -> Checked<()> {
    let names = store.names().await;
    let names =
        names.map_err(|error| Checker::Acknowledged.finds(format_args!("names: {error}")))?;
    if names.sequence < facts.seen || (facts.seen > 0 && names.catalog != Some(CATALOG)) {
        return Err(Checker::Acknowledged.finds(format_args!(
            "the catalog was seen at {}, and the store says {} of {:?}",
            facts.seen, names.sequence, names.catalog
        )));
    }
    let told = facts.copies.iter().filter(|(_, (_, told))| *told);
    if let Some((digest, (sequence, _))) = told.max_by_key(|(_, (sequence, _))| *sequence)
        && !names
            .copies
            .iter()
            .any(|(kept, at)| kept == digest || at > sequence)
    {
        return Err(Checker::Acknowledged.finds(format_args!(
            "the newest copy of the catalog, {digest}, is not among {:?}",
            names.copies
        )));
    }
    for (digest, _) in &names.copies {
        if store.stat(digest).is_err() {
            return Err(
                Checker::Names.finds(format_args!("the catalog's copy {digest} is not there"))
            );
        }
    }
    if facts.noted && !names.any {
        return Err(Checker::Acknowledged.finds("the notes are forgotten"));
    }
    Ok(())
}
