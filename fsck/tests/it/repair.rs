//! What a repair takes, what it leaves alone, and what it says of that.

use std::path::Path;

use orlop_engine::CatalogMatch;
use orlop_format::BLOCK;
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{Entries, Head, Volume};
use orlop_format::journal::FileHeader;
use orlop_format::location::Home;
use orlop_format::record::{Commit, Record};
use orlop_fsck::repair::Outcome;

use crate::engine::{during, fill, flip, recycled};
use crate::interrupted::layout;
use crate::named::{self, CATALOG, Named, RAW, contents, repaired, sha256};

/// The journal file that repair adds to a store of names.
const ADDED: &str = "journal/J-0000000000000002";

/// The records of that file.
fn added(store: &Named) -> Vec<Record> {
    records(&store.path(ADDED))
}

/// The records of a journal file.
pub(crate) fn records(path: &Path) -> Vec<Record> {
    let bytes = std::fs::read(path).unwrap();
    let header = FileHeader::decode(&bytes).unwrap();
    let volume = Volume {
        home: Home::Journal(header.sequence),
        salt: header.salt,
    };
    let (mut at, mut records) = (BLOCK, Vec::new());
    while let Some(Ok(head)) = bytes.get(at..).map(|rest| Head::decode(&volume, rest)) {
        let entries = Entries::new(volume, &head, at as u32, &bytes[at..]);
        records.extend(entries.map(|entry| entry.unwrap().record().unwrap()));
        at += head.bytes as usize;
    }
    records
}

/// A note that links bytes by a further digest.
fn link(digest: &Digest, bytes: &[u8]) -> Record {
    let size = (bytes.len() as u64).to_le_bytes();
    Record::Note(named::note(2, &[b"team/app", &digest.encode()], &size))
}

/// Adds bytes to a layout, by their SHA-512.
fn by_sha512(layout: &tempfile::TempDir, bytes: &[u8]) {
    let below = layout.path().join("blobs/sha512");
    std::fs::create_dir_all(&below).unwrap();
    let digest = Digest::of(Algorithm::Sha512, bytes);
    std::fs::write(below.join(digest.hex()), bytes).unwrap();
}

pub(crate) fn says(lines: &[String], word: &str) -> bool {
    lines.iter().any(|line| line.contains(word))
}

#[test]
fn a_blob_that_is_asked_for_by_two_digests_is_committed_once() {
    let lost = crate::v1::content(93, 900);
    let other = Digest::of(Algorithm::Sha512, &lost);
    let store = Named::without_catalog();
    let by_both = vec![named::link("team/app", &lost), link(&other, &lost)];
    named::append(store.folder(), by_both);
    store.repair(&[]);
    let report = store.check();
    assert_eq!(report.findings().len(), 2, "{report}");

    let source = layout(&[&lost]);
    by_sha512(&source, &lost);
    let outcome = store.repair(&[source.path().to_str().unwrap()]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    let commits: Vec<Commit> = added(&store)
        .into_iter()
        .filter_map(|record| match record {
            Record::Commit(commit) => Some(commit),
            _ => None,
        })
        .collect();
    assert_eq!(commits.len(), 1, "{commits:#?}");
    assert_eq!(commits[0].aliases, [other]);
}

/// A further digest that only a source can prove gives no second commit to
/// bytes that are in the store.
#[test]
fn a_digest_that_the_store_did_not_know_is_added_to_the_blob_it_has() {
    let contents = contents();
    let other = Digest::of(Algorithm::Sha512, &contents.small);
    let store = Named::without_catalog();
    named::append(store.folder(), vec![link(&other, &contents.small)]);
    store.repair(&[]);
    assert!(!store.check().clean());

    let source = layout(&[]);
    by_sha512(&source, &contents.small);
    let outcome = store.repair(&[source.path().to_str().unwrap()]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    let records = added(&store);
    assert!(
        matches!(records[0], Record::Alias { alias, .. } if alias == other),
        "{records:?}"
    );
    assert!(
        !records
            .iter()
            .any(|record| matches!(record, Record::Commit(_))),
        "{records:?}"
    );
}

#[test]
fn what_lies_in_a_missing_file_is_given_up_only_for_bytes_that_a_source_has() {
    let contents = contents();
    let store = Named::whole();
    let away = std::fs::read(store.path(RAW)).unwrap();
    std::fs::remove_file(store.path(RAW)).unwrap();
    let empty = layout(&[]);
    let outcome = store.repair(&[empty.path().to_str().unwrap()]);
    let large = sha256(&contents.large).to_string();
    assert!(says(&outcome.left, &large), "{outcome:#?}");
    assert!(!says(&outcome.done, "quarantine"), "{outcome:#?}");
    assert!(!store.path(ADDED).exists());
    // The file comes back: nothing was lost.
    store.write(RAW, &away);
    let report = store.check();
    assert!(report.clean(), "{report}");

    std::fs::remove_file(store.path(RAW)).unwrap();
    let source = layout(&[&contents.large]);
    let outcome = store.repair(&[source.path().to_str().unwrap()]);
    assert!(outcome.left.is_empty(), "{outcome:#?}");
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert!(matches!(added(&store)[0], Record::Quarantine { .. }));
}

/// A catalog without some names is told of before it is made.
#[test]
fn a_plan_says_which_names_a_catalog_that_is_made_again_would_lack() {
    let contents = contents();
    let store = Named::without_catalog();
    store.rot(named::JOURNAL, &contents.image[100..200]);
    let plan = orlop_fsck::repair::plan(store.folder(), named::options(&[])).unwrap();
    let wanted = format!("manifest team/app@{}", sha256(&contents.image));
    let gives_up = |plan: &orlop_fsck::repair::Plan| {
        let actions = plan.actions().iter();
        let mut catalogs = actions.filter(|action| action.code == "catalog.rebuild");
        catalogs.next().unwrap().gives_up.clone().unwrap()
    };
    assert!(gives_up(&plan).contains(&wanted), "{plan}");
    drop(plan);
    let outcome = store.repair(&[]);
    assert!(says(&outcome.left, &wanted), "{outcome:#?}");

    // As it says: with the bytes back and without that catalog it is whole.
    let source = layout(&[&contents.image]);
    let from = [source.path().to_str().unwrap()];
    store.repair(&from);
    std::fs::remove_file(store.path("catalog.db")).unwrap();
    let plan = orlop_fsck::repair::plan(store.folder(), named::options(&[])).unwrap();
    assert!(!gives_up(&plan).contains(&wanted), "{plan}");
    drop(plan);
    let outcome = store.repair(&[]);
    assert!(outcome.left.is_empty(), "{outcome:#?}");
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert_eq!(outcome.after.counts.tags, 1, "{outcome:#?}");
}

/// Makes the catalog of a store again that has two copies of it and let older
/// notes go. `damaged`: how many of the copies are damaged, the newest first.
fn from_copies(damaged: usize) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let catalogs = [7u64, 8].map(|sequence| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::remove_file(file.path()).unwrap();
        named::empty_catalog(file.path(), CATALOG, sequence);
        (sequence, std::fs::read(file.path()).unwrap(), file)
    });
    let digest = sha256(b"{}").encode();
    let named = |name: &str| named::note(2, &[name.as_bytes(), &digest], &2u64.to_le_bytes());
    during(path, async |store| {
        let seen = store.catalog_seen(CATALOG, 7).await.unwrap();
        assert_eq!(seen, CatalogMatch::Same);
        store.note(named("before/copies")).unwrap();
        for (sequence, _, file) in &catalogs {
            fill(store, sequence * 10..sequence * 10 + 5).await;
            store.note(named("between/copies")).unwrap();
            let copied = store.catalog_copy(file.path(), CATALOG, *sequence).await;
            copied.unwrap();
        }
        fill(store, 100..800).await;
        recycled(store, 2).await;
        store.note(named("after/copies")).unwrap();
    });
    for (_, bytes, _) in catalogs.iter().rev().take(damaged) {
        flip(&path.join("data/raw"), bytes);
    }
    repaired(path, &[])
}

#[test]
fn a_catalog_from_its_newest_copy_misses_nothing() {
    let outcome = from_copies(0);
    assert!(says(&outcome.done, "its copy at change 8"), "{outcome:#?}");
    assert!(outcome.left.is_empty(), "{outcome:#?}");
}

#[test]
fn a_catalog_from_an_older_copy_or_none_says_which_changes_may_be_missing() {
    let outcome = from_copies(1);
    assert!(says(&outcome.done, "its copy at change 7"), "{outcome:#?}");
    let which = "after its copy at change 7 and before LSN";
    assert!(says(&outcome.left, which), "{outcome:#?}");
    let outcome = from_copies(2);
    assert!(says(&outcome.done, "made again from"), "{outcome:#?}");
    let which = "since the store was made and before LSN";
    assert!(says(&outcome.left, which), "{outcome:#?}");
}

/// A manifest that lost a tag counts from then on, as in the server's catalog.
#[test]
fn a_catalog_made_again_says_which_manifests_lost_a_tag() {
    let store = Named::whole();
    let sql = rusqlite::Connection::open(store.path("catalog.db")).unwrap();
    let count = "SELECT count(*) FROM manifest WHERE digest = ?1 AND repository = 1 \
         AND untagged_at IS NOT NULL";
    let untagged = |bytes: &[u8]| -> i64 {
        let digest = sha256(bytes).encode();
        sql.query_row(count, (digest,), |row| row.get(0)).unwrap()
    };
    // The image lost `old`; the report about it never had one.
    let contents = contents();
    assert_eq!(
        (untagged(&contents.image), untagged(&contents.report)),
        (1, 0)
    );
}
