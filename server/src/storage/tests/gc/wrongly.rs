//! What a collection took wrongly, by a live set that lacked it: fsck names it,
//! and a repair brings it back. And a catalog that a repair made is one to
//! serve and to collect by.

use std::path::PathBuf;

use orlop_engine::Trailer;
use orlop_fsck::repair;

use super::*;
use crate::catalog::Dead;

impl Running {
    /// A cycle by a live set that lacks a blob.
    async fn cycle_without(&self, lacking: &Digest) {
        tokio::time::sleep(LEASE * 3).await;
        let catalog = &self.storage.catalog;
        let mut collector = self.storage.store.collect().await.unwrap();
        let mut live = catalog.live_set(None);
        let mut taken = 0;
        while let Some(mut digests) = live.next().await.unwrap() {
            digests.retain(|digest| digest != lacking);
            taken += digests.len() as u64;
            collector.mark(&digests).unwrap();
        }
        let trailer = Trailer {
            digests: taken,
            catalog: catalog.id(),
            sequence: live.end().await.unwrap(),
        };
        let mut sweep = collector.whole(trailer, true).unwrap();
        while let Some(garbage) = sweep.step().unwrap() {
            let dead = sweep.end(&garbage, true).await.unwrap();
            let dead = dead.iter().map(|blob| Dead {
                digest: blob.digest,
                birth: blob.birth,
            });
            catalog.forget_dead(dead.collect()).await.unwrap();
        }
        sweep.finish().unwrap();
    }
}

/// Repairs a stopped store.
fn repaired(folder: &Path, source: Option<PathBuf>) -> repair::Outcome {
    let sources = source.map(|folder| folder.display().to_string());
    let options = repair::Options {
        sources: sources.into_iter().collect(),
        ..repair::Options::default()
    };
    let plan = repair::plan(folder, options).unwrap();
    repair::apply(&plan, &mut |_| Ok(())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_collected_wrongly_is_found_and_comes_back_with_its_link() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    running.image("a", "v1", "content").await;
    running.image("a", "v2", "other").await;
    let lost = layer("content");
    for _ in 0..2 {
        running.cycle_without(&lost).await;
    }
    assert!(!running.has(&lost));
    assert!(running.pulls("a", "v2").await);
    running.stop().await;

    let options = orlop_fsck::Options::default();
    let report = orlop_fsck::check_with(folder.path(), &options).unwrap();
    let [found] = report.findings() else {
        panic!("{report}");
    };
    assert_eq!(found.code, orlop_fsck::Code::ReferenceBlob);
    assert_eq!(found.object.blob, Some(lost.to_string()));
    assert_eq!(found.object.affected[0].tags, ["v1"]);

    let source = tempfile::tempdir().unwrap();
    let blobs = source.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(source.path().join("oci-layout"), "{}").unwrap();
    std::fs::write(blobs.join(lost.hex()), "content").unwrap();
    let outcome = repaired(folder.path(), Some(source.path().to_owned()));
    assert!(outcome.after.clean(), "{outcome:#?}");

    let running = Running::start(folder.path(), |_| {}).await;
    assert!(running.pulls("a", "v1").await);
    assert_eq!(running.collect("{}").await.dead, 0);
    assert!(running.pulls("a", "v1").await);
    running.ends_clean(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_repair_made_is_served_and_collected_by() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let first = running.image("a", "v1", "content").await;
    let second = running.image("a", "v1", "other").await;
    running.stop().await;
    // Of no copy, so that the tables are repair's own.
    remove_catalog(folder.path());
    let outcome = repaired(folder.path(), None);
    assert!(outcome.after.clean(), "{outcome:#?}");

    let running = Running::start(folder.path(), |_| {}).await;
    assert!(running.pulls("a", "v1").await);
    assert!(running.pulls("a", &first.to_string()).await);
    let moved = running.storage.catalog.unreached("a", &first).await;
    assert!(moved.unwrap().is_some());
    running.delete("a", &first).await;
    assert_eq!(running.collect("{}").await.dead, 3);
    assert!(running.pulls("a", &second.to_string()).await);
    running.ends_clean(folder.path()).await;
}
