//! Blobs, pushed in all the ways there are.

use std::time::Duration;

use futures_util::future::try_join_all;
use orlop_engine::Algorithm;

use crate::client::{Client, Result};
use crate::random::content;
use crate::world::World;

/// Time after which the store writes a durable mark, and a little more.
const IDLE: Duration = Duration::from_millis(60);

/// Small blobs, one after the other, with pauses.
pub(super) async fn inline(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for number in 0..8 {
        let len = world.draw(|random| match number {
            0 => 0,
            1 => 65_536,
            _ => random.len(1, 65_536),
        });
        client
            .push(&content(world.draw(|r| r.number()), len))
            .await?;
        if world.draw(|random| random.chance(30)) {
            world.machine.runtime().pause(IDLE).await;
        }
    }
    store.close().await
}

/// Blobs of one and of several extents.
pub(super) async fn extents(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for most in [70_000, 400_000, 1_200_000, 2_500_000, 300_000] {
        let bytes = world.draw(|random| content(random.number(), random.len(65_537, most)));
        client.push(&bytes).await?;
    }
    store.close().await
}

/// Many small pushes at once, which share groups of the journal.
pub(super) async fn group(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for _ in 0..6 {
        let count = world.draw(|random| random.len(2, 12));
        let blobs: Vec<_> = (0..count)
            .map(|_| world.draw(|random| content(random.number(), random.len(1, 30_000))))
            .collect();
        try_join_all(blobs.iter().map(|bytes| client.push(bytes))).await?;
    }
    store.close().await
}

/// The same blobs again, after and beside each other.
pub(super) async fn twice(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for most in [40_000, 300_000, 900_000] {
        let bytes = world.draw(|random| content(random.number(), random.len(1, most)));
        try_join_all((0..3).map(|_| client.push(&bytes))).await?;
        client.push(&bytes).await?;
        client.push_as(&bytes, Algorithm::Sha512).await?;
    }
    store.close().await
}

/// Blobs under other digests, and digests that a blob gets later.
pub(super) async fn aliases(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for (number, algorithm) in [Algorithm::Sha512, Algorithm::Blake3]
        .into_iter()
        .cycle()
        .take(6)
        .enumerate()
    {
        let most = if number < 4 { 60_000 } else { 500_000 };
        let bytes = world.draw(|random| content(random.number(), random.len(1, most)));
        if number % 3 == 1 {
            client.push(&bytes).await?;
        }
        client.push_as(&bytes, algorithm).await?;
        client.push_as(&bytes, Algorithm::Sha512).await?;
    }
    store.close().await
}

/// Segments that fill up and are sealed.
pub(super) async fn sealing(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for _ in 0..10 {
        let bytes = world.draw(|random| content(random.number(), random.len(600_000, 1_400_000)));
        client.push(&bytes).await?;
        if world.draw(|random| random.chance(40)) {
            world.machine.runtime().pause(IDLE).await;
        }
    }
    store.close().await
}
