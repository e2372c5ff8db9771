//! Names: manifests, deletions, and copies of the catalog.

use futures_util::future::try_join_all;

use crate::catalog::Change;
use crate::client::{Client, Result};
use crate::random::content;
use crate::world::World;

/// Images of shared and own layers, pushed beside each other.
pub(super) async fn manifests(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    let base = world.draw(|random| content(random.number(), random.len(100_000, 200_000)));
    let push = |number: usize| {
        let repository = format!("team/app-{number}");
        let own = world.draw(|random| content(random.number(), random.len(500, 90_000)));
        let base = &base;
        async move {
            let layers = try_join_all([
                client.push_blob(&repository, base),
                client.push_blob(&repository, &own),
            ]);
            let layers = layers.await?;
            client.push_manifest(&repository, "latest", &layers).await
        }
    };
    try_join_all((0..3).map(push)).await?;
    push(3).await?;
    push(4).await?;
    store.close().await
}

/// Names that come and go.
pub(super) async fn deletions(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for number in 0..4 {
        let repository = format!("team/gone-{number}");
        let bytes = world.draw(|random| content(random.number(), random.len(100, 80_000)));
        let layer = client.push_blob(&repository, &bytes).await?;
        let manifest = client.push_manifest(&repository, "v1", &[layer]).await?;
        let tag = Change::Untag {
            repository: repository.clone(),
            tag: "v1".to_owned(),
        };
        client.delete(tag).await?;
        if number % 2 == 0 {
            let digest = manifest;
            client
                .delete(Change::Delete {
                    repository: repository.clone(),
                    digest,
                })
                .await?;
            let digest = layer;
            client
                .delete(Change::Unlink {
                    repository: repository.clone(),
                    digest,
                })
                .await?;
            client.push_blob(&repository, &bytes).await?;
        }
    }
    store.close().await
}

/// Copies of the catalog in the store, notes between them.
pub(super) async fn copies(world: &World) -> Result<()> {
    let store = world.open().await?;
    let client = Client::new(world, &store);
    for sequence in 1..=4u64 {
        client.see_catalog(sequence * 10).await?;
        let layer = world.draw(|random| content(random.number(), random.len(100, 5_000)));
        let layer = client.push_blob("team/app", &layer).await?;
        client
            .push_manifest("team/app", &format!("v{sequence}"), &[layer])
            .await?;
        let len = if sequence % 2 == 0 { 300_000 } else { 20_000 };
        let copy = world.draw(|random| content(random.number(), len));
        client.copy_catalog(&copy, sequence * 10 + 1).await?;
    }
    store.close().await
}
