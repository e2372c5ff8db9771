//! Further digests of blobs that only the index knows, as stores have them
//! whose log an earlier build recycled: a repair writes those that the bytes
//! prove to the log, and gives the index up for none of them.

use std::path::Path;

use orlop_format::digest::{Algorithm, Digest};
use orlop_format::record::Record;
use orlop_fsck::repair::{self, Outcome};
use rocksdb::{DB, Options};

use crate::engine::{during, flip, push};
use crate::interrupted::layout;
use crate::named::{checked, options, repaired, sha256};
use crate::recipes_index::with_rows;
use crate::repair::{records, says};
use crate::support::Folder;
use crate::v1::{self, content};

/// The journal file that repair adds to the golden store.
const ADDED: &str = "journal/J-0000000000000004";

/// A row of the index that gives these bytes this digest.
fn row(digest: &Digest, bytes: &[u8]) -> (&'static str, Vec<u8>, Vec<u8>) {
    ("alias", digest.encode(), sha256(bytes).bytes().to_vec())
}

fn sha512(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, bytes)
}

/// The further digests that the added journal file names.
fn added(folder: &Folder) -> Vec<Digest> {
    if !folder.path(ADDED).exists() {
        return Vec::new();
    }
    records(&folder.path(ADDED))
        .into_iter()
        .filter_map(|record| match record {
            Record::Alias { alias, .. } => Some(alias),
            _ => None,
        })
        .collect()
}

fn actions(folder: &Path) -> (Vec<&'static str>, String) {
    let plan = repair::plan(folder, options(&[])).unwrap();
    let codes = plan.actions().iter().map(|action| action.code).collect();
    (codes, plan.to_string())
}

fn in_index(outcome: &Outcome) -> usize {
    let findings = outcome.after.findings().iter();
    findings
        .filter(|finding| finding.code.name().starts_with("index."))
        .count()
}

#[test]
fn a_further_digest_that_the_bytes_prove_is_written_to_the_log() {
    let blobs = v1::store().blobs;
    // A small one, in the journal, and a large one in extents.
    let (small, large) = (&blobs[0].bytes, &blobs[7].bytes);
    let blake = Digest::of(Algorithm::Blake3, large);
    let folder = Folder::golden();
    let rows = [row(&sha512(small), small), row(&blake, large)];
    with_rows(&folder, 29, &rows);
    let report = checked(folder.root());
    assert_eq!(report.findings().len(), 2, "{report}");

    let (codes, said) = actions(folder.root());
    assert_eq!(codes, ["digest.keep", "digest.keep"], "{said}");
    let outcome = repaired(folder.root(), &[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert!(folder.path("index/CURRENT").exists());
    let mut kept = added(&folder);
    kept.sort();
    let mut wanted = vec![sha512(small), blake];
    wanted.sort();
    assert_eq!(kept, wanted);
    // And once is enough.
    let (codes, said) = actions(folder.root());
    assert!(codes.is_empty(), "{said}");
}

#[test]
fn a_rebuild_that_must_be_keeps_the_digests_that_the_bytes_prove() {
    let blob = &v1::store().blobs[0].bytes;
    let other = &v1::store().blobs[3].bytes;
    let folder = Folder::golden();
    let wrong = sha512(b"other bytes");
    let ordinal = ("ordinal", 77u64.to_be_bytes().to_vec(), vec![7; 32]);
    let rows = [row(&sha512(blob), blob), row(&wrong, other), ordinal];
    with_rows(&folder, 29, &rows);
    let (codes, said) = actions(folder.root());
    assert_eq!(codes, ["digest.keep", "index.rebuild"], "{said}");
    // What goes with the index is told.
    assert!(said.contains(&format!("gives up: {wrong}")), "{said}");
    let outcome = repaired(folder.root(), &[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert_eq!(added(&folder), [sha512(blob)]);
    assert!(!folder.path("index").exists());
}

#[test]
fn a_digest_that_the_bytes_are_not_of_goes_with_the_index() {
    let blob = &v1::store().blobs[0].bytes;
    let wrong = sha512(b"other bytes");
    let folder = Folder::golden();
    with_rows(&folder, 29, &[row(&wrong, blob)]);
    let (codes, said) = actions(folder.root());
    assert_eq!(codes, ["index.rebuild"], "{said}");
    let outcome = repaired(folder.root(), &[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert!(added(&folder).is_empty());
}

/// A name that nothing proves now, and that the file proves when it is back.
#[test]
fn a_digest_of_a_blob_whose_bytes_are_lost_leaves_the_index_where_it_is() {
    let file = "data/raw/S-0000000000000004.00000000";
    let layer = &v1::store().blobs[7].bytes;
    let digest = sha512(layer);
    let folder = Folder::golden();
    with_rows(&folder, 29, &[row(&digest, layer)]);
    let away = folder.read(file);
    folder.remove(file);
    let (codes, said) = actions(folder.root());
    assert!(codes.is_empty(), "{said}");
    assert!(
        said.contains(&format!("not repaired: digest {digest}")),
        "{said}"
    );

    folder.write(file, &away);
    let outcome = repaired(folder.root(), &[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert_eq!(added(&folder), [digest]);

    // The same by a source, in two repairs.
    let folder = Folder::golden();
    with_rows(&folder, 29, &[row(&digest, layer)]);
    flip(&folder.path("data/raw"), &layer[100..200]);
    let source = layout(&[layer]);
    let outcome = repaired(folder.root(), &[source.path().to_str().unwrap()]);
    assert!(says(&outcome.done, "was restored"), "{outcome:#?}");
    assert_eq!(in_index(&outcome), 1, "{outcome:#?}");
    let outcome = repaired(folder.root(), &[]);
    assert!(says(&outcome.done, &digest.to_string()), "{outcome:#?}");
    assert_eq!(in_index(&outcome), 0, "{outcome:#?}");
}

/// With the engine's own index: the digest answers after a repair, and after
/// the index was made again.
#[test]
fn a_further_digest_that_an_earlier_build_let_go_answers_after_every_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (small, large) = (content(81, 30_000), content(82, 200_000));
    during(path, async |store| {
        push(store, &small, sha256(&small)).await;
        push(store, &large, sha256(&large)).await;
    });
    {
        let index = path.join("index");
        let families = DB::list_cf(&Options::default(), &index).unwrap();
        let db = DB::open_cf(&Options::default(), &index, &families).unwrap();
        let aliases = db.cf_handle("alias.1").unwrap();
        for bytes in [&small, &large] {
            let (_, key, value) = row(&sha512(bytes), bytes);
            db.put_cf(aliases, key, value).unwrap();
        }
        db.flush_cf(aliases).unwrap();
    }
    let answers = || {
        during(path, async |store| {
            for bytes in [&small, &large] {
                let blob = store.read(&sha512(bytes)).unwrap();
                assert_eq!(blob.bytes(1 << 20).await.unwrap(), bytes.as_slice());
            }
        });
    };
    answers();
    let outcome = repaired(path, &[]);
    assert_eq!(outcome.done.len(), 2, "{outcome:#?}");
    assert!(outcome.after.clean(), "{outcome:#?}");
    answers();
    std::fs::remove_dir_all(path.join("index")).unwrap();
    answers();
    let report = checked(path);
    assert!(report.clean(), "{report}");
}
