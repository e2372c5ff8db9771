//! What holds on either database.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use orlop::catalog::{Catalog, CatalogError, ChangeKind, Edge, EdgeKind, PutManifest};
use orlop_oci::{Algorithm, Digest, Reference};

use crate::place::Place;

pub(crate) fn digest(of: &str) -> Digest {
    Digest::of(Algorithm::Sha256, of.as_bytes())
}

pub(crate) fn tag(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A manifest named after its contents, with a config and a layer.
pub(crate) fn manifest(repository: &str, name: &str, tags: &[&str]) -> PutManifest {
    let edge = |kind, of: String, size| Edge {
        digest: digest(&of),
        kind,
        size,
        media_type: "application/octet-stream".to_owned(),
    };
    PutManifest {
        repository: repository.to_owned(),
        digest: digest(name),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        artifact_type: None,
        size: 500,
        subject: None,
        edges: vec![
            edge(EdgeKind::Config, format!("config of {name}"), 100),
            edge(EdgeKind::Layer, format!("layer of {name}"), 1 << 40),
        ],
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        annotations: None,
        links: Vec::new(),
        children: Vec::new(),
    }
}

/// The digest a reference leads to.
pub(crate) async fn lookup(catalog: &Catalog, repository: &str, reference: &str) -> Option<Digest> {
    let found = catalog.manifest(repository, &tag(reference)).await.unwrap();
    found.map(|row| row.digest)
}

pub(crate) fn seed() -> u64 {
    std::env::var("ORLOP_SEED").ok().map_or_else(
        || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |text| text.parse().unwrap(),
    )
}

/// A small generator, good enough to choose with.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % end
    }
}

pub(crate) async fn finds_what_was_put(place: &Place) {
    let catalog = place.open().await;
    assert_eq!(catalog.sequence(), 0);
    assert_eq!(lookup(&catalog, "a/b", "latest").await, None);
    assert_eq!(catalog.tags("a/b", None, 10).await.unwrap(), None);
    let mut put = manifest("a/b", "one", &["latest", "v1"]);
    put.annotations = Some("{\"k\":\"ä\"}".to_owned());
    catalog.put_manifest(put.clone()).await.unwrap();
    for reference in ["latest", "v1", &digest("one").to_string()] {
        // Once from the database, once from memory.
        for _ in 0..2 {
            let row = catalog
                .manifest("a/b", &tag(reference))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(row.digest, digest("one"));
            assert_eq!(row.media_type, put.media_type);
            assert_eq!(row.size, 500);
        }
    }
    assert_eq!(catalog.counters().hits, 3);
    assert_eq!(lookup(&catalog, "a/b", "v2").await, None);
    assert_eq!(lookup(&catalog, "a", "latest").await, None);
    assert_eq!(lookup(&catalog, "a/b/c", "latest").await, None);
    // A digest that looks like a tag's target but was never pushed.
    assert_eq!(
        lookup(&catalog, "a/b", &digest("two").to_string()).await,
        None
    );
    // Pushed again under another type: that one counts.
    put.media_type = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
    catalog.put_manifest(put.clone()).await.unwrap();
    let row = catalog.manifest("a/b", &tag("v1")).await.unwrap().unwrap();
    assert_eq!(row.media_type, put.media_type);

    let blob = digest("blob");
    assert!(!catalog.blob_linked("a/b", &blob).await.unwrap());
    catalog.link_blob("a/b", &blob, (7, 1)).await.unwrap();
    let sequence = catalog.sequence();
    catalog.link_blob("a/b", &blob, (7, 1)).await.unwrap();
    assert_eq!(catalog.sequence(), sequence, "nothing changed");
    for _ in 0..2 {
        assert!(catalog.blob_linked("a/b", &blob).await.unwrap());
        assert!(!catalog.blob_linked("a", &blob).await.unwrap());
        assert!(!catalog.blob_linked("a/b", &digest("one")).await.unwrap());
    }
    let error = catalog
        .link_blob("a/b", &blob, (u64::MAX, 1))
        .await
        .unwrap_err();
    assert!(matches!(error, CatalogError::Refused(_)), "{error:?}");
    // SHA-512 beside SHA-256.
    let long = Digest::of(Algorithm::Sha512, b"long");
    catalog.link_blob("a/b", &long, (0, 1)).await.unwrap();
    assert!(catalog.blob_linked("a/b", &long).await.unwrap());
    catalog.close().await;
}

pub(crate) async fn moves_hides_and_brings_back_tags(place: &Place) {
    let catalog = place.open().await;
    for name in ["one", "two", "three"] {
        catalog
            .put_manifest(manifest("r", name, &["latest", name]))
            .await
            .unwrap();
        assert_eq!(lookup(&catalog, "r", "latest").await, Some(digest(name)));
    }
    for name in ["one", "two", "three"] {
        assert_eq!(lookup(&catalog, "r", name).await, Some(digest(name)));
    }
    assert!(catalog.delete_tag("r", "latest").await.unwrap());
    assert_eq!(lookup(&catalog, "r", "latest").await, None);
    assert_eq!(lookup(&catalog, "r", "three").await, Some(digest("three")));
    assert!(!catalog.delete_tag("r", "latest").await.unwrap());
    assert!(!catalog.delete_tag("absent", "latest").await.unwrap());
    let tags = catalog.tags("r", None, 10).await.unwrap().unwrap();
    assert_eq!(tags, ["one", "three", "two"]);
    catalog
        .put_manifest(manifest("r", "two", &["latest"]))
        .await
        .unwrap();
    assert_eq!(lookup(&catalog, "r", "latest").await, Some(digest("two")));
    catalog.close().await;
}

pub(crate) async fn refuses_one_change_and_keeps_the_others(place: &Place) {
    let catalog = place.open().await;
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let catalog = catalog.clone();
            let name = format!("m{number}");
            let mut put = manifest("r", &name, &[&name]);
            if number % 8 == 3 {
                // The same edge twice breaks the table's key.
                put.edges.push(put.edges[0].clone());
            }
            tokio::spawn(async move { (number, catalog.put_manifest(put).await) })
        })
        .collect();
    for task in tasks {
        let (number, result) = task.await.unwrap();
        let name = format!("m{number}");
        if number % 8 == 3 {
            assert!(
                matches!(result, Err(CatalogError::Refused(_))),
                "{result:?}"
            );
            assert_eq!(lookup(&catalog, "r", &name).await, None);
        } else {
            result.unwrap();
            assert_eq!(lookup(&catalog, "r", &name).await, Some(digest(&name)));
        }
    }
    assert_eq!(
        catalog.tags("r", None, 100).await.unwrap().unwrap().len(),
        35
    );
    let (kept, counted) = catalog.totals("r").await.unwrap().unwrap();
    assert_eq!(kept, counted);
    assert_eq!((kept.manifests, kept.edges), (35, 70));
    // Numbers have no gaps: what was refused took none.
    let changes = catalog.changes(0, 1000).await.unwrap();
    assert_eq!(changes.len() as u64, catalog.sequence());
    catalog.close().await;
}

pub(crate) async fn commits_many_writers_at_once(place: &Place) {
    let catalog = place.open().await;
    let start = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|writer| {
            let catalog = catalog.clone();
            tokio::spawn(async move {
                for number in 0..10 {
                    let name = format!("w{writer}.{number}");
                    let repository = format!("r{}", writer % 5);
                    catalog
                        .put_manifest(manifest(&repository, &name, &[&name, "latest"]))
                        .await
                        .unwrap();
                    assert_eq!(
                        lookup(&catalog, &repository, &name).await,
                        Some(digest(&name))
                    );
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counters = catalog.counters();
    eprintln!(
        "640 manifests by 64 writers: {} commits, {:?}",
        counters.commits,
        start.elapsed()
    );
    assert_eq!(counters.verbs, 640);
    if place.is_sqlite() {
        assert!(counters.commits < 320, "{} commits", counters.commits);
    }
    for repository in 0..5 {
        let name = format!("r{repository}");
        let (kept, counted) = catalog.totals(&name).await.unwrap().unwrap();
        assert_eq!(kept, counted);
    }
    let total = place.number("SELECT count(*) FROM manifest").await;
    assert_eq!(total, 640);
    catalog.close().await;
}

pub(crate) async fn keeps_every_edge_of_large_manifests(place: &Place) {
    let catalog = place.open().await;
    // Around the number that goes in with one statement, and the most there are.
    for count in [0, 1, 63, 64, 65, 128, 130, 4096] {
        let repository = format!("r{count}");
        let mut put = manifest(&repository, "large", &[]);
        let edges = (0..count).map(|number| Edge {
            digest: digest(&format!("{count} {number}")),
            kind: EdgeKind::Layer,
            size: number,
            media_type: format!("application/{number}"),
        });
        put.edges = edges.collect();
        catalog.put_manifest(put).await.unwrap();
        let (kept, counted) = catalog.totals(&repository).await.unwrap().unwrap();
        assert_eq!((kept.edges, kept), (count as i64, counted));
        let same = format!(
            "SELECT count(*) FROM edge JOIN repository ON repository.id = edge.repository \
             WHERE repository.name = '{repository}' \
             AND edge.media_type = 'application/' || CAST(edge.size AS TEXT)"
        );
        assert_eq!(place.number(&same).await, count as i64);
    }
}

pub(crate) async fn keeps_totals_of_all_rows(place: &Place) {
    let catalog = place.open().await;
    let seed = seed();
    eprintln!("keeps_totals_of_all_rows: ORLOP_SEED={seed}");
    let mut dice = Dice(seed);
    let mut names = BTreeSet::new();
    for _ in 0..150 {
        let name = format!("m{}", dice.below(40));
        match dice.below(6) {
            0 => {
                catalog.delete_manifest("r", &digest(&name)).await.unwrap();
            }
            1 => {
                catalog.delete_tag("r", "latest").await.unwrap();
            }
            _ => {
                let mut put = manifest("r", &name, &["latest"]);
                let edge = put.edges[1].clone();
                for extra in 0..digest(&name).bytes()[0] % 7 {
                    let digest = digest(&format!("extra {extra} of {name}"));
                    put.edges.push(Edge {
                        digest,
                        ..edge.clone()
                    });
                }
                catalog.put_manifest(put).await.unwrap();
                names.insert(name);
            }
        }
    }
    let (kept, counted) = catalog.totals("r").await.unwrap().unwrap();
    assert_eq!(kept, counted);
    assert_eq!(kept.manifests, names.len() as i64, "hidden rows count");
    assert_eq!(
        kept.manifests,
        place.number("SELECT count(*) FROM manifest").await
    );
    assert_eq!(kept.edges, place.number("SELECT count(*) FROM edge").await);
    assert_ne!((kept.manifest_sum, kept.edge_sum), (0, 0));
    // A digest that rotted, a row that went.
    let other = digest("other").encode();
    let hex: String = other.iter().map(|byte| format!("{byte:02x}")).collect();
    let literal = if place.is_sqlite() {
        format!("x'{hex}'")
    } else {
        format!("'\\x{hex}'::bytea")
    };
    let one = "(SELECT max(pushed_at) FROM manifest)";
    place
        .raw(&format!(
            "UPDATE edge SET digest = {literal} WHERE kind = 1 AND manifest = \
         (SELECT digest FROM manifest WHERE pushed_at = {one} LIMIT 1)"
        ))
        .await;
    let (kept, counted) = catalog.totals("r").await.unwrap().unwrap();
    assert_eq!(
        (kept.edges, kept.manifest_sum),
        (counted.edges, counted.manifest_sum)
    );
    assert_ne!(kept.edge_sum, counted.edge_sum);
    place.raw("DELETE FROM edge WHERE kind = 1").await;
    let (kept, counted) = catalog.totals("r").await.unwrap().unwrap();
    assert!(counted.edges < kept.edges);
    assert_eq!(catalog.totals("absent").await.unwrap(), None);
    catalog.close().await;
}

pub(crate) async fn numbers_changes_and_forgets_old_ones(place: &Place) {
    use ChangeKind::{BlobLinked, ManifestPut, RepositoryCreated, TagDeleted, TagSet};
    let catalog = place.open().await;
    catalog
        .link_blob("r", &digest("blob"), (3, 1))
        .await
        .unwrap();
    catalog
        .put_manifest(manifest("r", "m", &["x", "y"]))
        .await
        .unwrap();
    catalog.delete_tag("r", "x").await.unwrap();
    let changes = catalog.changes(0, 100).await.unwrap();
    let seen: Vec<_> = changes
        .iter()
        .map(|change| (change.kind, change.object.as_str()))
        .collect();
    let (blob, m) = (digest("blob").to_string(), digest("m").to_string());
    let expected = [
        (RepositoryCreated, "r"),
        (BlobLinked, &blob),
        (ManifestPut, &m),
        (TagSet, "x"),
        (TagSet, "y"),
        (TagDeleted, "x"),
    ];
    assert_eq!(seen, expected);
    let numbers: Vec<u64> = changes.iter().map(|change| change.sequence).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(catalog.sequence(), 6);
    assert_eq!(catalog.changes(4, 1).await.unwrap(), changes[4..5]);
    // Many changes later the old ones go.
    place.raw("UPDATE catalog SET sequence = 100350").await;
    catalog
        .put_manifest(manifest("r", "m", &["x", "y"]))
        .await
        .unwrap();
    let left = catalog.changes(0, 100).await.unwrap();
    let numbers: Vec<u64> = left.iter().map(|change| change.sequence).collect();
    assert_eq!(numbers, [100_351, 100_352, 100_353]);
    assert_eq!(catalog.sequence(), 100_353);
    catalog.close().await;
}

/// Tags move on while others look: nobody sees an older one than was answered
/// before he asked, nor goes back.
pub(crate) async fn readers_never_go_back(place: &Place) {
    let catalog = place.open().await;
    let rounds = if place.is_sqlite() { 400 } else { 100 };
    let number = |digest: Digest, digests: &[Digest]| {
        digests.iter().position(|of| *of == digest).unwrap() as u64
    };
    let digests: Arc<Vec<Digest>> = Arc::new(
        (0..=rounds)
            .map(|round| digest(&format!("m{round}")))
            .collect(),
    );
    catalog
        .put_manifest(manifest("r", "m0", &["latest"]))
        .await
        .unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (catalog, answered, digests) =
                (catalog.clone(), Arc::clone(&answered), Arc::clone(&digests));
            tokio::spawn(async move {
                let (mut last, mut reads) = (0, 0_u64);
                while last < rounds {
                    let before = answered.load(Ordering::SeqCst);
                    let found = lookup(&catalog, "r", "latest").await.unwrap();
                    let found = number(found, &digests);
                    assert!(found >= before, "{found} after {before} was answered");
                    assert!(found >= last, "{found} after {last} was seen");
                    last = found;
                    reads += 1;
                    tokio::task::yield_now().await;
                }
                reads
            })
        })
        .collect();
    for round in 1..=rounds {
        catalog
            .put_manifest(manifest("r", &format!("m{round}"), &["latest"]))
            .await
            .unwrap();
        answered.store(round, Ordering::SeqCst);
        // Now and then a pause, in which what was read is kept.
        if round % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    let counters = catalog.counters();
    eprintln!("{reads} reads, {} from memory", counters.hits);
    assert!(
        counters.hits > 0 && counters.misses > rounds / 20,
        "{counters:?}"
    );
    catalog.close().await;
}

pub(crate) async fn comes_back_as_it_was(place: &Place) {
    let catalog = place.open().await;
    let id = catalog.id();
    assert_ne!(id, [0; 16]);
    catalog
        .put_manifest(manifest("r", "m", &["latest"]))
        .await
        .unwrap();
    let sequence = catalog.sequence();
    catalog.close().await;
    let error = catalog
        .put_manifest(manifest("r", "m2", &[]))
        .await
        .unwrap_err();
    assert!(matches!(error, CatalogError::Unavailable(_)), "{error:?}");
    for create in [true, false] {
        let catalog = place.try_open(create).await.unwrap();
        assert_eq!((catalog.id(), catalog.sequence()), (id, sequence));
        assert_eq!(lookup(&catalog, "r", "latest").await, Some(digest("m")));
        assert_eq!(catalog.poisoned(), None);
        catalog.close().await;
    }
}

pub(crate) async fn refuses_newer_and_missing(place: &Place) {
    let error = place.try_open(false).await.unwrap_err();
    assert!(matches!(error, CatalogError::Missing { .. }), "{error:?}");
    let catalog = place.open().await;
    catalog
        .put_manifest(manifest("r", "m", &["latest"]))
        .await
        .unwrap();
    catalog.close().await;
    // A later release that only added something: this one goes on.
    place.raw("UPDATE catalog SET schema = 9").await;
    let catalog = place.try_open(false).await.unwrap();
    assert_eq!(lookup(&catalog, "r", "latest").await, Some(digest("m")));
    catalog.close().await;
    assert_eq!(place.number("SELECT schema FROM catalog").await, 9);
    place.raw("UPDATE catalog SET needs = 9").await;
    for create in [true, false] {
        let error = place.try_open(create).await.unwrap_err();
        assert!(
            matches!(error, CatalogError::Newer { found: 9, .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("start a newer release"),
            "{error}"
        );
    }
    place.raw("UPDATE catalog SET needs = 1").await;
    place.try_open(false).await.unwrap().close().await;
}
