//! Uploads that take several requests.

use std::time::Duration;

use futures_util::future::try_join_all;

use crate::client::{Client, Result, sha256};
use crate::model::Event;
use crate::random::content;
use crate::world::World;

/// Large uploads whose extents lie between each other.
pub(super) async fn interleaved(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    let uploads: Vec<_> = (0..4)
        .map(|_| world.draw(|random| content(random.number(), random.len(300_000, 1_300_000))))
        .collect();
    let run = |bytes| {
        let bytes: &bytes::Bytes = bytes;
        async move {
            let id = client.open("many", bytes)?;
            for part in 1..4 {
                client
                    .send(id, "many", bytes, bytes.len() * part / 4)
                    .await?;
            }
            client.finish(id, "many", bytes, sha256(bytes)).await
        }
    };
    try_join_all(uploads.iter().map(run)).await?;
    store.close().await
}

/// Uploads in chunks, each of its own request, some by a restarted server.
pub(super) async fn resume(world: &World) -> Result<()> {
    let mut store = world.open().await?;
    for (round, most) in [3_000, 50_000, 200_000, 900_000].into_iter().enumerate() {
        let bytes = world.draw(|random| content(random.number(), random.len(1_000, most)));
        let id = Client::new(world, &store).open("one", &bytes)?;
        for part in 1..=4 {
            let client = Client::new(world, &store);
            client
                .send(id, "one", &bytes, bytes.len() * part / 5)
                .await?;
            if part == 2 && round % 2 == 1 {
                store.close().await?;
                drop(store);
                store = world.open().await?;
            }
        }
        Client::new(world, &store)
            .finish(id, "one", &bytes, sha256(&bytes))
            .await?;
    }
    store.close().await
}

/// Uploads that are given up, that expire, and that just stay.
pub(super) async fn cancel(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    let mut left = Vec::new();
    for number in 0..9 {
        let most = if number % 2 == 0 { 40_000 } else { 300_000 };
        let bytes = world.draw(|random| content(random.number(), random.len(100, most)));
        let id = client.open("who", &bytes)?;
        client.send(id, "who", &bytes, bytes.len() / 2).await?;
        match number % 3 {
            0 => client.cancel(id, "who").await?,
            1 => {
                client.finish(id, "who", &bytes, sha256(&bytes)).await?;
            }
            _ => left.push(id),
        }
    }
    world
        .machine
        .runtime()
        .pause(Duration::from_secs(3_600))
        .await;
    let bytes = world.draw(|random| content(random.number(), random.len(100, 100_000)));
    let young = client.open("who", &bytes)?;
    client.send(young, "who", &bytes, bytes.len() / 3).await?;
    left.iter()
        .for_each(|id| world.ledger.note(Event::Ending(*id)));
    store.upload_expire(Duration::from_secs(1_800)).await?;
    left.iter()
        .for_each(|id| world.ledger.note(Event::Ended(*id)));
    store.close().await
}
