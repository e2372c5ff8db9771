//! Journals that go round, and stores that are opened again.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use orlop_engine::UploadId;

use crate::client::{Client, Result, sha256};
use crate::random::content;
use crate::world::{FILE, World};

/// Bytes that a record can carry.
const RECORD: usize = 65_536;
/// Uploads that fill the journal together.
const FILLERS: usize = 8;

/// Fills the journal: uploads whose tails are made durable over and over,
/// several at once, so that it costs few operations.
pub(super) async fn fill(client: &Client<'_>, bytes: u64) -> Result<()> {
    let world = client.world;
    let steps = usize::try_from(bytes / (RECORD * FILLERS) as u64).unwrap_or(0);
    let fillers: Vec<(UploadId, Bytes)> = (0..FILLERS)
        .map(|_| {
            let tail = world.draw(|random| content(random.number(), RECORD));
            client.open("filler", &tail).map(|id| (id, tail))
        })
        .collect::<Result<_>>()?;
    for step in 1..=steps {
        let to = RECORD - steps + step;
        let sends = fillers
            .iter()
            .map(|(id, tail)| client.send(*id, "filler", tail, to));
        try_join_all(sends).await?;
    }
    for (id, _) in fillers {
        client.cancel(id, "filler").await?;
    }
    Ok(())
}

/// Several blobs and an upload of which something is left behind.
async fn mixture(client: &Client<'_>) -> Result<()> {
    let world = client.world;
    for most in [2_000, 60_000, 150_000] {
        let bytes = world.draw(|random| content(random.number(), random.len(1, most)));
        client.push_blob("team/app", &bytes).await?;
    }
    let bytes = world.draw(|random| content(random.number(), random.len(10_000, 200_000)));
    let id = client.open("stays", &bytes)?;
    client.send(id, "stays", &bytes, bytes.len() / 2).await
}

/// The journal goes through more files than are kept, so that what matters
/// moves to segments and files are used again.
pub(super) async fn rotation(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for _ in 0..7 {
        mixture(&client).await?;
        fill(&client, FILE - FILE / 8).await?;
        world
            .machine
            .runtime()
            .pause(Duration::from_millis(60))
            .await;
    }
    store.close().await
}

/// An index that is lost after files of the journal were used again: it is made
/// from segments and journal.
pub(super) async fn rebuild(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for _ in 0..5 {
        mixture(&client).await?;
        fill(&client, FILE).await?;
    }
    store.close().await?;
    drop(store);
    world.index.lose();
    let store = world.open().await?;
    mixture(&Client::new(world, &store)).await?;
    store.close().await
}

/// A store that is closed and opened again, a few times.
pub(super) async fn reopen(world: &World) -> Result<()> {
    for _ in 0..4 {
        let store = world.open().await?;
        mixture(&Client::new(world, &store)).await?;
        store.close().await?;
    }
    Ok(())
}

/// A process that is killed, again and again, in the middle of a push.
pub(super) async fn kills(world: &World) -> Result<()> {
    for round in 0..4 {
        let store = world.open().await?;
        let client = Client::new(world, &store);
        mixture(&client).await?;
        let bytes = world.draw(|random| content(random.number(), random.len(70_000, 500_000)));
        let id = client.open("cut", &bytes)?;
        client.send(id, "cut", &bytes, bytes.len() / 2).await?;
        let pause = world.draw(|random| Duration::from_micros(random.below(3)));
        {
            let push = std::pin::pin!(client.finish(id, "cut", &bytes, sha256(&bytes)));
            if round % 2 == 0 {
                let cut = world.machine.runtime().pause(pause);
                drop(futures_util::future::select(push, cut).await);
            } else {
                push.await?;
            }
        }
        drop(store);
        world.kill();
    }
    world.open().await?.close().await
}
