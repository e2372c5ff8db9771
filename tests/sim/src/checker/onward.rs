//! Onward: the store takes blobs, goes on with uploads, and knows what it has.

use bytes::Bytes;
use orlop_engine::{Error, Store};

use super::{Checked, Checker, Finding, Image};
use crate::client::sha256;
use crate::model::{Blob, Event, Facts};
use crate::random::{Random, content, mix};

pub(super) async fn check(image: &Image, store: &Store, facts: &mut Facts) -> Checked<()> {
    let mut random = Random::new(mix(&[image.seed, 20]));
    for len in [random.len(1, 60_000), random.len(65_537, 200_000)] {
        let bytes = content(random.number(), len);
        if !push(store, &bytes).await.map_err(refused)? {
            return Err(Checker::Onward.finds("a blob that is new is called old"));
        }
        tell(facts, &bytes);
    }
    again(store, facts, &mut random).await?;
    resume(store, facts, &mut random).await?;
    // It costs more than all the rest.
    if random.index(RECLAIMED) == 0 {
        reclaim(store).await?;
    }
    Ok(())
}

/// In one image of so many, room is given back.
const RECLAIMED: usize = 8;

/// What is dead comes back; the next start shows whether anything else went.
async fn reclaim(store: &Store) -> Checked<()> {
    let mut pass = store.reclaim().await.map_err(refused)?;
    while pass.step().await.map_err(refused)?.is_some() {}
    let total = pass.total();
    if total.held > 0 || total.failed > 0 {
        return Err(Checker::Onward.finds(format_args!("room does not come back: {total:?}")));
    }
    Ok(())
}

fn refused(error: Error) -> Finding {
    Checker::Onward.finds(format_args!("it does not take what comes next: {error}"))
}

async fn push(store: &Store, bytes: &Bytes) -> Result<bool, Error> {
    let id = store.upload_open("later", None)?;
    let mut upload = store.upload_resume(id, "later").await?;
    upload.append(bytes.clone()).await?;
    Ok(upload.commit(sha256(bytes), None).await?.new)
}

fn tell(facts: &mut Facts, bytes: &Bytes) {
    facts.apply(&Event::Tried(sha256(bytes), bytes.clone()));
    facts.apply(&Event::Stored(sha256(bytes)));
}

/// A blob that is there is not stored again.
async fn again(store: &Store, facts: &Facts, random: &mut Random) -> Checked<()> {
    let told: Vec<&Blob> = facts.blobs.values().filter(|blob| blob.told).collect();
    let Some(blob) = told.get(random.index(told.len())) else {
        return Ok(());
    };
    if push(store, &blob.bytes).await.map_err(refused)? {
        return Err(Checker::Onward.finds("a blob that is there was stored again"));
    }
    Ok(())
}

/// Uploads go on from where they are, with the right bytes.
async fn resume(store: &Store, facts: &mut Facts, random: &mut Random) -> Checked<()> {
    let open = facts
        .uploads
        .iter()
        .filter(|(_, upload)| !upload.ended && upload.durable > 0);
    let open: Vec<_> = open.map(|(id, upload)| (*id, upload.clone())).collect();
    let Some((id, upload)) = open.get(random.index(open.len())) else {
        return Ok(());
    };
    // One whose end had begun may be gone.
    let held = match store.upload_resume(*id, &upload.owner).await {
        Ok(held) => held,
        Err(Error::NotFound { .. }) if upload.ending => return Ok(()),
        Err(error) => return Err(refused(error)),
    };
    let mut held = held;
    let from = usize::try_from(held.offset()).unwrap_or(usize::MAX);
    let rest = upload.bytes.slice(from.min(upload.bytes.len())..);
    held.append(rest).await.map_err(refused)?;
    held.commit(sha256(&upload.bytes), None)
        .await
        .map_err(refused)?;
    tell(facts, &upload.bytes);
    facts.apply(&Event::Ended(*id));
    Ok(())
}
