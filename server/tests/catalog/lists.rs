//! Lists: order, pages, filters, and how long they take.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use orlop_oci::Digest;
use proptest::collection::btree_set;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::cases::{Dice, digest, manifest, seed, tag};
use crate::place::Place;

/// Names of the characters that orders disagree about.
fn tag_names() -> impl Strategy<Value = BTreeSet<String>> {
    btree_set("[0aA_][-._0aA]{0,5}", 0..200)
}

pub(crate) async fn lists_tags_in_byte_order(place: &Place) {
    let catalog = place.open().await;
    let seed = seed();
    eprintln!("lists_tags_in_byte_order: ORLOP_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(
        Default::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
    );
    for case in 0..12 {
        let tags = tag_names().new_tree(&mut runner).unwrap().current();
        let repository = format!("r{case}");
        let list: Vec<&str> = tags.iter().map(String::as_str).collect();
        catalog
            .put_manifest(manifest(&repository, "m", &list))
            .await
            .unwrap();
        for n in [1, 2, 3, 7, 50, 1000] {
            let mut seen: Vec<String> = Vec::new();
            loop {
                let last = seen.last().cloned();
                let page = catalog
                    .tags(&repository, last.as_deref(), n)
                    .await
                    .unwrap()
                    .unwrap();
                assert!(page.len() <= n);
                let is_last = page.len() < n;
                seen.extend(page);
                if is_last {
                    break;
                }
            }
            assert!(
                seen.iter().eq(tags.iter()),
                "pages of {n}: {seen:?} of {tags:?}"
            );
        }
        // From a name that is not there, and none at all.
        let after: Vec<&String> = tags.iter().filter(|tag| tag.as_str() > "a").collect();
        let page = catalog
            .tags(&repository, Some("a"), 1000)
            .await
            .unwrap()
            .unwrap();
        assert!(page.iter().eq(after));
        assert!(
            catalog
                .tags(&repository, None, 0)
                .await
                .unwrap()
                .unwrap()
                .is_empty()
        );
    }
    catalog.close().await;
}

pub(crate) async fn lists_repositories_in_byte_order(place: &Place) {
    let catalog = place.open().await;
    let names = [
        "a", "a-b", "a.b", "a/b", "a/b-c", "a/b/c", "a0", "a_b", "aa", "b",
    ];
    for name in names.iter().rev() {
        catalog
            .put_manifest(manifest(name, "m", &[]))
            .await
            .unwrap();
    }
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(catalog.repositories(None, 100).await.unwrap(), sorted);
    assert_eq!(
        catalog.repositories(Some("a/b"), 3).await.unwrap(),
        sorted[4..7]
    );
    assert!(catalog.repositories(Some("b"), 3).await.unwrap().is_empty());
    assert!(catalog.repositories(None, 0).await.unwrap().is_empty());
    catalog.close().await;
}

pub(crate) async fn lists_referrers(place: &Place) {
    let catalog = place.open().await;
    let subject = digest("subject");
    let mut expected = Vec::new();
    for number in 0..25 {
        let name = format!("signature {number}");
        let mut put = manifest("r", &name, &[]);
        put.subject = Some(subject);
        put.artifact_type = Some(if number % 5 == 0 { "sbom" } else { "signature" }.to_owned());
        put.annotations = Some(format!("{{\"n\":\"{number}\"}}"));
        expected.push((
            put.digest,
            put.artifact_type.clone(),
            put.annotations.clone(),
        ));
        catalog.put_manifest(put).await.unwrap();
    }
    // One without a type, one of another subject, one elsewhere.
    let mut plain = manifest("r", "plain", &[]);
    plain.subject = Some(subject);
    expected.push((plain.digest, None, None));
    catalog.put_manifest(plain).await.unwrap();
    let mut other = manifest("r", "other", &[]);
    other.subject = Some(digest("other subject"));
    catalog.put_manifest(other).await.unwrap();
    let mut elsewhere = manifest("s", "elsewhere", &[]);
    elsewhere.subject = Some(subject);
    catalog.put_manifest(elsewhere).await.unwrap();

    expected.sort_unstable();
    for (kind, n, bytes) in [
        (None, 4, u64::MAX),
        (None, 100, u64::MAX),
        (None, 100, 1500),
        (None, 100, 0),
        (Some("sbom"), 2, u64::MAX),
        (Some("signature"), 7, u64::MAX),
        (Some("signature"), 7, 1999),
    ] {
        let (mut seen, mut last) = (Vec::new(), None);
        loop {
            let (page, more) = catalog
                .referrers("r", &subject, kind, last.as_ref(), (n, bytes))
                .await
                .unwrap();
            assert!(page.len() <= n);
            // Each has 500 bytes.
            assert!(page.len() as u64 <= (bytes / 500).max(1));
            assert!(more.is_none() || more == page.last().map(|row| row.digest));
            seen.extend(
                page.into_iter()
                    .map(|row| (row.digest, row.artifact_type, row.annotations)),
            );
            last = more;
            if last.is_none() {
                break;
            }
        }
        let wanted = |row: &&(Digest, Option<String>, Option<String>)| {
            kind.is_none() || row.1.as_deref() == kind
        };
        assert!(
            seen.iter().eq(expected.iter().filter(wanted)),
            "{kind:?} by {n}"
        );
    }
    assert!(catalog.delete_manifest("r", &expected[0].0).await.unwrap());
    let left = catalog
        .referrers("r", &subject, None, None, (100, u64::MAX))
        .await
        .unwrap();
    assert_eq!((left.0.len(), left.1), (25, None));
    let none = catalog
        .referrers("absent", &subject, None, None, (9, u64::MAX))
        .await
        .unwrap();
    assert_eq!(none, (Vec::new(), None));
    catalog.close().await;
}

/// Prints how long lists and lookups take; only gross slowness fails.
pub(crate) async fn measures_lists_and_lookups(place: &Place) {
    let catalog = place.open().await;
    catalog
        .put_manifest(manifest("big", "m", &["latest"]))
        .await
        .unwrap();
    place
        .raw(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
         INSERT INTO tag (repository, name, manifest, updated_at) \
         SELECT t.repository, 'v' || i, t.manifest, 0 FROM n, tag t WHERE t.name = 'latest'",
        )
        .await;
    // What the database does by itself after a while.
    place.raw("ANALYZE").await;
    let mut dice = Dice(1);
    let mut times = Vec::new();
    for _ in 0..400 {
        let last = format!("v{}", dice.below(100_000));
        let start = Instant::now();
        let page = catalog
            .tags("big", Some(&last), 100)
            .await
            .unwrap()
            .unwrap();
        times.push(start.elapsed());
        assert!(page.len() <= 100 && page.iter().all(|tag| *tag > last));
    }
    times.sort_unstable();
    let (p50, p99) = (times[200], times[396]);
    let rounds = 200_000;
    let reference = tag("latest");
    assert!(catalog.manifest("big", &reference).await.unwrap().is_some());
    let start = Instant::now();
    for _ in 0..rounds {
        assert!(catalog.manifest("big", &reference).await.unwrap().is_some());
    }
    let each = start.elapsed() / rounds;
    eprintln!("100 of 100,001 tags: p50 {p50:?}, p99 {p99:?}; a remembered lookup: {each:?}");
    assert!(each < Duration::from_micros(100), "{each:?}");
    catalog.close().await;
}

/// A referrer that was there before a list was asked for is in it, whatever is
/// pushed meanwhile.
pub(crate) async fn referrers_that_were_there_are_listed_while_others_are_pushed(place: &Place) {
    let catalog = place.open().await;
    let subject = digest("subject");
    let put = |number: usize| {
        let mut put = manifest("r", &format!("referrer {number}"), &[]);
        put.subject = Some(subject);
        put.edges.clear();
        put
    };
    let pushed = std::sync::atomic::AtomicUsize::new(0);
    let push = async {
        for number in 0..800 {
            catalog.put_manifest(put(number)).await.unwrap();
            pushed.store(number + 1, std::sync::atomic::Ordering::Release);
        }
    };
    let list = async {
        let mut before = 0;
        while before < 800 {
            before = pushed.load(std::sync::atomic::Ordering::Acquire);
            let bounds = (1000, u64::MAX);
            let page = catalog.referrers("r", &subject, None, None, bounds).await;
            let (rows, more) = page.unwrap();
            let rows: BTreeSet<_> = rows.into_iter().map(|row| row.digest).collect();
            assert_eq!(more, None);
            let lost = (0..before)
                .filter(|number| !rows.contains(&digest(&format!("referrer {number}"))))
                .count();
            assert_eq!(
                lost,
                0,
                "of {before} that were there, {} are listed",
                rows.len()
            );
        }
    };
    tokio::join!(push, list);
    catalog.close().await;
}
