//! Collections: images whose names go, beside pushes of the same layers, and
//! graves that outlive the journal and the index.

use bytes::Bytes;
use futures_util::future::{join, try_join_all};
use orlop_engine::Store;

use super::lives::fill;
use crate::catalog::Change;
use crate::client::{Client, Result, sha256};
use crate::random::content;
use crate::world::{FILE, LEASE, World};

/// An image of a repository, and the bytes of its layers.
struct Image {
    repository: String,
    layers: Vec<Bytes>,
}

impl Image {
    fn new(world: &World, number: usize, base: &Bytes) -> Image {
        let own = [3_000, 120_000]
            .map(|most| world.draw(|random| content(random.number(), random.len(100, most))));
        Image {
            repository: format!("team/app-{number}"),
            layers: own.into_iter().chain([base.clone()]).collect(),
        }
    }

    async fn push(&self, client: &Client<'_>) -> Result<()> {
        let pushes = self
            .layers
            .iter()
            .map(|layer| client.push_blob(&self.repository, layer));
        let layers = try_join_all(pushes).await?;
        client
            .push_manifest(&self.repository, "v1", &layers)
            .await
            .map(drop)
    }

    /// Takes its names away.
    async fn forget(&self, client: &Client<'_>) -> Result<()> {
        let (acknowledged, _) = client.world.catalog.mark();
        let rows = client.world.catalog.rows(acknowledged);
        let manifests = rows
            .manifests
            .keys()
            .filter(|(of, _)| *of == self.repository);
        let links = rows.links.keys().filter(|(of, _)| *of == self.repository);
        let changes = manifests
            .map(|(repository, digest)| Change::Delete {
                repository: repository.clone(),
                digest: *digest,
            })
            .chain(links.map(|(repository, digest)| Change::Unlink {
                repository: repository.clone(),
                digest: *digest,
            }));
        for change in changes {
            client.delete(change).await?;
        }
        Ok(())
    }
}

/// Four images that share a layer.
async fn images(client: &Client<'_>) -> Result<Vec<Image>> {
    let world = client.world;
    client.see_catalog(1).await?;
    let base = world.draw(|random| content(random.number(), random.len(70_000, 150_000)));
    let images: Vec<Image> = (0..4)
        .map(|number| Image::new(world, number, &base))
        .collect();
    for image in &images {
        image.push(client).await?;
    }
    Ok(images)
}

/// Lets every lease end.
async fn leases_end(world: &World) {
    world.machine.runtime().pause(LEASE * 3).await;
}

/// Collections beside pushes of what they end.
pub(super) async fn cycles(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    let images = images(&client).await?;
    for round in 0..2 {
        for image in images.iter().skip(1) {
            image.forget(&client).await?;
        }
        leases_end(world).await;
        client.collect(1, true).await?;
        client.reclaim().await?;
        let (again, collected) = match images.get(1) {
            Some(image) if round == 0 => join(image.push(&client), client.collect(1, false)).await,
            _ => (Ok(()), client.collect(1, true).await),
        };
        again?;
        collected?;
        client.reclaim().await?;
    }
    for image in images.iter().skip(2) {
        image.push(&client).await?;
    }
    store.close().await
}

/// Layers that fill segments and uploads between them, most of which come to
/// nothing; room that comes back beside pushes, over a start and a lost index.
pub(super) async fn room(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    client.see_catalog(1).await?;
    let mut uploads = Vec::new();
    for number in 0..12 {
        let most = if number % 4 == 3 { 60_000 } else { 1_300_000 };
        let bytes = world.draw(|random| content(random.number(), random.len(most / 2, most)));
        match number % 6 {
            // Names keep these.
            0 => drop(client.push_blob("team/kept", &bytes).await?),
            1 => {
                let id = client.open("who", &bytes)?;
                client.send(id, "who", &bytes, bytes.len() / 2).await?;
                uploads.push((id, bytes));
            }
            _ => drop(client.push(&bytes).await?),
        }
    }
    if let Some((id, _)) = uploads.pop() {
        client.cancel(id, "who").await?;
    }
    die(world, &client).await?;
    client.reclaim().await?;
    let store = again(world, store).await?;
    let client = Client::new(world, &store);
    client.reclaim().await?;
    for (id, bytes) in uploads {
        client.finish(id, "who", &bytes, sha256(&bytes)).await?;
    }
    store.close().await
}

/// What nobody names dies, and its room comes back beside a push. Then the journal
/// goes round.
async fn die(world: &World, client: &Client<'_>) -> Result<()> {
    leases_end(world).await;
    client.collect(1, true).await?;
    client.collect(1, true).await?;
    let more = world.draw(|random| content(random.number(), random.len(70_000, 900_000)));
    let (reclaimed, pushed) = join(client.reclaim(), client.push_blob("team/kept", &more)).await;
    reclaimed?;
    pushed?;
    fill(client, FILE * 3).await
}

/// A restart; every other world has lost its index.
async fn again(world: &World, store: Store) -> Result<Store> {
    store.close().await?;
    drop(store);
    if world.seed.is_multiple_of(2) {
        world.index.lose();
    }
    world.open().await
}

/// Segments of which little lives, on a file system without holes: what lives in
/// them moves beside pushes, over a start and a lost index.
pub(super) async fn moves(world: &World) -> Result<()> {
    world.sim.without_holes();
    let store = world.open().await?;
    let client = Client::new(world, &store);
    client.see_catalog(1).await?;
    for number in 0..12 {
        let bytes = world.draw(|random| content(random.number(), random.len(600_000, 1_300_000)));
        if number % 4 == 1 {
            client.push_blob("team/kept", &bytes).await?;
        } else {
            client.push(&bytes).await?;
        }
    }
    die(world, &client).await?;
    let store = again(world, store).await?;
    let client = Client::new(world, &store);
    client.reclaim().await?;
    store.close().await
}

/// What died stays dead when the journal goes round and the index is lost.
pub(super) async fn graves(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    let images = images(&client).await?;
    for image in images.iter().skip(1) {
        image.forget(&client).await?;
    }
    leases_end(world).await;
    client.collect(1, true).await?;
    client.collect(1, true).await?;
    if let Some(image) = images.get(2) {
        image.push(&client).await?;
    }
    for _ in 0..4 {
        fill(&client, FILE).await?;
    }
    leases_end(world).await;
    client.collect(1, true).await?;
    client.collect(1, true).await?;
    client.reclaim().await?;
    store.close().await?;
    drop(store);
    world.index.lose();
    let store = world.open().await?;
    let client = Client::new(world, &store);
    if let Some(image) = images.get(1) {
        image.push(&client).await?;
    }
    store.close().await
}
