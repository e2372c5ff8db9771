//! A repair beside files of segments that are lost: what needs the log as a
//! whole is left alone while a part of it is missing, no new segment gets the
//! name of a lost one, and nothing is put in place before all of it is written.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use orlop_format::digest::Digest;
use orlop_format::location::{Class, SegmentId};
use orlop_format::record::Record;
use orlop_format::row::{self, Segment};
use orlop_fsck::Code;
use orlop_fsck::repair::{self, Step};

use crate::engine::{during, fill, push, recycled, tried};
use crate::interrupted::{copy_tree, layout};
use crate::named::{self, CATALOG, checked, options, repaired, sha256};
use crate::recipes_index::with_rows;
use crate::repair::{records, says};
use crate::support::{Folder, RAW};
use crate::v1::{self, content};

/// The journal file that repair adds to the golden store.
const ADDED: &str = "journal/J-0000000000000004";

/// A store that was recycled, with names in its log and no catalog.
fn grown() -> tempfile::TempDir {
    static GROWN: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        during(folder.path(), async |store| {
            store.catalog_seen(CATALOG, 7).await.unwrap();
            let digest = sha256(b"{}").encode();
            let size = 2u64.to_le_bytes();
            push(store, b"{}", sha256(b"{}")).await;
            let note = named::note(2, &[b"team/app", &digest], &size);
            store.note(note).unwrap();
            fill(store, 0..450).await;
            recycled(store, 1).await;
        });
        folder
    });
    let copy = tempfile::tempdir().unwrap();
    copy_tree(GROWN.path(), copy.path());
    copy
}

/// The names below a folder.
fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// All files of a folder but repair's pages and the lock.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in names(folder) {
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.file_name().unwrap() != "LOCK" {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    all
}

fn starts(folder: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match tried(folder).await {
            Ok(store) => {
                store.close().await.unwrap();
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    })
}

/// The index is the last that knows what lay in the file, and a start makes
/// none without it: a repair that moved it away left a store that never opens.
#[test]
fn repair_changes_nothing_while_a_small_or_meta_file_is_missing() {
    let source = grown();
    repaired(source.path(), &[]);
    let source = source.path().to_str().unwrap().to_owned();
    let with: &[&str] = &[&source];
    for (class, all) in [("small", [&[], with]), ("meta", [with, &[]])] {
        for sources in all.into_iter().take(orlop_figures::choose(1, 2, 2)) {
            let folder = grown();
            let path = folder.path();
            let lost = names(&path.join("data").join(class)).remove(0);
            let away = std::fs::read(&lost).unwrap();
            std::fs::remove_file(&lost).unwrap();
            let before = files(path);

            let plan = repair::plan(path, options(sources)).unwrap();
            assert!(plan.is_empty(), "{class}: {plan}");
            let name = lost.file_name().unwrap().to_str().unwrap();
            let said = plan.to_string();
            assert!(
                said.contains(&format!("not repaired: data/{class}/{name} is missing")),
                "{said}"
            );
            let outcome = repair::apply(&plan, &mut |_| Ok(())).unwrap();
            assert!(outcome.done.is_empty(), "{class}: {outcome:#?}");
            assert!(!outcome.after.clean());
            assert!(files(path) == before, "{class}: something was changed");
            drop(plan);

            // The file comes back: the store is as it was.
            std::fs::write(&lost, away).unwrap();
            let outcome = repaired(path, &[]);
            assert!(outcome.after.clean(), "{class}: {outcome:#?}");
            starts(path).unwrap();
        }
    }
}

/// Also without any finding about an index.
#[test]
fn no_catalog_is_made_from_a_log_of_which_a_part_is_missing() {
    let folder = grown();
    let path = folder.path();
    std::fs::remove_dir_all(path.join("index")).unwrap();
    let lost = names(&path.join("data/meta")).remove(0);
    let away = std::fs::read(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    let outcome = repaired(path, &[]);
    assert!(outcome.done.is_empty(), "{outcome:#?}");
    assert!(!path.join("catalog.db").exists());
    std::fs::write(&lost, away).unwrap();
    let outcome = repaired(path, &[]);
    assert!(says(&outcome.done, "catalog was made"), "{outcome:#?}");
    assert!(outcome.after.clean(), "{outcome:#?}");
}

async fn read(store: &orlop_engine::Store, digest: &Digest) -> Option<Vec<u8>> {
    let blob = store.read(digest).unwrap();
    let bytes = blob.bytes(1 << 20).await.ok()?;
    Some(bytes.to_vec())
}

/// Of two blobs in a lost file the source has one: the other stays as it is,
/// and has its bytes again as soon as the file is put back.
#[test]
fn the_name_of_a_lost_raw_file_is_not_given_out_again() {
    let (has, lacks) = (content(71, 100_000), content(72, 120_000));
    for with_index in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        during(path, async |store| {
            push(store, &has, sha256(&has)).await;
            push(store, &lacks, sha256(&lacks)).await;
        });
        let lost = names(&path.join("data/raw"));
        assert_eq!(lost.len(), 1, "{lost:?}");
        let away = std::fs::read(&lost[0]).unwrap();
        std::fs::remove_file(&lost[0]).unwrap();
        if !with_index {
            std::fs::remove_dir_all(path.join("index")).unwrap();
        }

        let source = layout(&[&has]);
        let outcome = repaired(path, &[source.path().to_str().unwrap()]);
        assert!(says(&outcome.done, "was restored"), "{outcome:#?}");
        assert!(!says(&outcome.done, "quarantine"), "{outcome:#?}");
        assert!(
            says(&outcome.left, &sha256(&lacks).to_string()),
            "{outcome:#?}"
        );
        assert!(!lost[0].exists(), "the lost file's name was given out");
        let findings = outcome.after.findings();
        assert!(
            findings.iter().all(|f| f.code == Code::SegmentMissing),
            "{outcome:#?}"
        );
        assert_eq!(outcome.after.counts.quarantined, 0, "{outcome:#?}");
        during(path, async |store| {
            assert_eq!(read(store, &sha256(&has)).await, Some(has.clone()));
            assert_eq!(read(store, &sha256(&lacks)).await, None);
        });

        std::fs::write(&lost[0], away).unwrap();
        let report = checked(path);
        assert!(report.clean(), "{report}");
        assert_eq!(report.counts.quarantined, 0, "{report}");
        during(path, async |store| {
            assert_eq!(read(store, &sha256(&has)).await, Some(has.clone()));
            assert_eq!(read(store, &sha256(&lacks)).await, Some(lacks.clone()));
        });
    }
}

/// When all blobs of a lost file are back, and newer copies of the catalog have
/// replaced one that lay in it, nothing is wrong any more.
#[test]
fn a_store_is_clean_again_after_all_of_a_lost_file_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let session = |blobs: &[Vec<u8>], sequence: u64| {
        let _ = std::fs::remove_file(path.join("catalog.db"));
        named::empty_catalog(&path.join("catalog.db"), CATALOG, sequence);
        during(path, async |store| {
            store.catalog_seen(CATALOG, sequence).await.unwrap();
            let catalog = path.join("catalog.db");
            store
                .catalog_copy(&catalog, CATALOG, sequence)
                .await
                .unwrap();
            for blob in blobs {
                push(store, blob, sha256(blob)).await;
            }
        });
    };
    // As many as fill the first segment, so that it is sealed.
    let has: Vec<Vec<u8>> = (200..212).map(|seed| content(seed, 1_500_000)).collect();
    session(&has, 7);
    let lost = names(&path.join("data/raw"));
    assert_eq!(lost.len(), 2, "{lost:?}");
    session(&[content(74, 100_000)], 8);
    std::fs::remove_file(&lost[0]).unwrap();

    // One of the two newest copies: it is not given up.
    let source = layout(&has.iter().collect::<Vec<_>>());
    let sources = [source.path().to_str().unwrap()];
    let plan = repair::plan(path, options(&sources)).unwrap();
    let mut actions = plan.actions().iter();
    assert!(
        actions.all(|action| action.code == "blob.restore"),
        "{plan}"
    );
    assert!(
        plan.to_string().contains("after the server has made two"),
        "{plan}"
    );
    let outcome = repair::apply(&plan, &mut |_| Ok(())).unwrap();
    drop(plan);
    assert!(outcome.left.is_empty(), "{outcome:#?}");
    assert!(!outcome.after.clean(), "{outcome:#?}");

    session(&[content(75, 100_000)], 9);
    let outcome = repaired(path, &[]);
    assert_eq!(outcome.done.len(), 1, "{outcome:#?}");
    assert!(says(&outcome.done, "quarantine"), "{outcome:#?}");
    assert!(outcome.after.clean(), "{outcome:#?}");
    starts(path).unwrap();
    assert!(checked(path).clean());
}

/// What only the index still knows is not given out again either: the segment
/// of an upload that came to nothing, the numbers of blobs that ended.
#[test]
fn ids_and_numbers_that_only_the_index_knows_are_not_given_out_again() {
    let layer = &v1::store().blobs[1].bytes;
    let folder = Folder::golden();
    let id = SegmentId {
        volume: 0,
        class: Class::Raw,
        generation: 0,
        id: 77,
    };
    let rows = [
        (
            "segment",
            Segment::key(id.class, id.id),
            Segment::new(id).encode(),
        ),
        (
            "meta",
            row::NEXT_ORDINAL.to_vec(),
            500u64.to_le_bytes().to_vec(),
        ),
    ];
    with_rows(&folder, 29, &rows);
    folder.edit(RAW, |bytes| bytes[4096 + 4096 + 10] ^= 1);
    let source = layout(&[layer]);
    let outcome = repaired(folder.root(), &[source.path().to_str().unwrap()]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    let made = folder.path("data/raw/S-000000000000004e.00000000");
    assert!(made.exists(), "{:?}", names(&folder.path("data/raw")));
    let ordinals: Vec<u64> = records(&folder.path(ADDED))
        .into_iter()
        .filter_map(|record| match record {
            Record::Commit(commit) => Some(commit.ordinal),
            _ => None,
        })
        .collect();
    assert_eq!(ordinals, [500]);
}

/// A full disk shows while the files are made: then none of them is there
/// under its name, and what was made gives its room back.
#[test]
fn a_repair_that_ran_out_of_space_leaves_no_file_behind() {
    let layer = &v1::store().blobs[1].bytes;
    let source = layout(&[layer]);
    let sources = [source.path().to_str().unwrap()];
    let damaged = || {
        let folder = Folder::golden();
        folder.edit(RAW, |bytes| bytes[4096 + 4096 + 10] ^= 1);
        folder
    };
    let mut writes = 0;
    let plan_of = |folder: &Folder| repair::plan(folder.root(), options(&sources)).unwrap();
    let folder = damaged();
    repair::apply(&plan_of(&folder), &mut |step| {
        writes += usize::from(matches!(step, Step::Write(_)));
        Ok(())
    })
    .unwrap();
    assert!(writes >= 3, "a blob, a segment and a journal file");
    for full in 0..writes {
        let folder = damaged();
        let before = files(folder.root());
        let mut at = 0;
        let plan = plan_of(&folder);
        let outcome = repair::apply(&plan, &mut |step| {
            if matches!(step, Step::Write(_)) {
                at += 1;
                if at > full {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            Ok(())
        });
        drop(plan);
        assert!(outcome.is_err(), "write {full}");
        assert!(files(folder.root()) == before, "write {full}");
        assert!(!folder.path("repair.tmp").exists(), "write {full}");
        let outcome = repaired(folder.root(), &sources);
        assert!(outcome.after.clean(), "write {full}: {outcome:#?}");
    }
}

/// A journal folder that nothing can be put into: the segments do not stay, or
/// each try would leave more of them.
#[test]
fn a_journal_that_takes_no_file_leaves_no_segment_behind() {
    let folder = Folder::golden();
    folder.edit(RAW, |bytes| bytes[4096 + 4096 + 10] ^= 1);
    let source = layout(&[&v1::store().blobs[1].bytes]);
    let sources = [source.path().to_str().unwrap()];
    let before = files(folder.root());
    let plan = repair::plan(folder.root(), options(&sources)).unwrap();
    let mut placed = false;
    let outcome = repair::apply(&plan, &mut |step| match step {
        Step::Rename(_, to) if *to == folder.path(ADDED) => {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
        Step::Rename(_, to) => {
            placed |= to.parent() == Some(&folder.path("data/raw"));
            Ok(())
        }
        _ => Ok(()),
    });
    drop(plan);
    assert!(outcome.is_err() && placed);
    assert!(files(folder.root()) == before);
    let outcome = repaired(folder.root(), &sources);
    assert!(outcome.after.clean(), "{outcome:#?}");
}

/// A source that is none, that is the store itself, or that has other bytes.
#[test]
fn a_wrong_source_changes_nothing() {
    let layer = &v1::store().blobs[1].bytes;
    let lost = || {
        let folder = Folder::golden();
        folder.remove(RAW);
        std::fs::remove_file(folder.path("superblock.1")).unwrap();
        folder
    };
    let folder = lost();
    let before = files(folder.root());
    let empty = tempfile::tempdir().unwrap();
    for source in [empty.path(), folder.root(), Path::new("/nowhere/at all")] {
        let plan = repair::plan(folder.root(), options(&[source.to_str().unwrap()])).unwrap();
        assert!(!plan.is_empty());
        let outcome = repair::apply(&plan, &mut |_| Ok(()));
        assert!(outcome.is_err(), "{}", source.display());
        drop(plan);
        assert!(files(folder.root()) == before, "{}", source.display());
    }
    let other = content(99, layer.len());
    let longer = [layer.as_slice(), b"more"].concat();
    for bytes in [&layer[..layer.len() - 1], &[], &other, &longer] {
        let source = layout(&[]);
        let name = sha256(layer).hex();
        std::fs::write(source.path().join("blobs/sha256").join(name), bytes).unwrap();
        let folder = Folder::golden();
        folder.remove(RAW);
        let before = files(folder.root());
        let outcome = repaired(folder.root(), &[source.path().to_str().unwrap()]);
        assert!(
            says(&outcome.left, &sha256(layer).to_string()),
            "{outcome:#?}"
        );
        assert!(outcome.done.is_empty(), "{outcome:#?}");
        assert!(files(folder.root()) == before);
    }
}

/// An index that has seen more than the log has must be gone before the log
/// grows: else the new records would get numbers that it takes for its own.
#[test]
fn an_index_that_is_ahead_goes_before_the_log_grows() {
    let folder = Folder::golden();
    with_rows(&folder, 31, &[]);
    folder.edit(RAW, |bytes| bytes[4096 + 4096 + 10] ^= 1);
    let source = layout(&[&v1::store().blobs[1].bytes]);
    let sources = [source.path().to_str().unwrap()];
    let plan = repair::plan(folder.root(), options(&sources)).unwrap();
    let mut grew = false;
    let outcome = repair::apply(&plan, &mut |step| {
        if let Step::Rename(_, to) = step
            && *to == folder.path(ADDED)
        {
            grew = true;
            assert!(!folder.path("index").exists(), "the index is still there");
        }
        Ok(())
    })
    .unwrap();
    assert!(grew);
    assert!(outcome.after.clean(), "{outcome:#?}");
}

#[test]
fn a_repair_that_is_run_twice_has_nothing_to_do_the_second_time() {
    let folder = Folder::golden();
    folder.edit(RAW, |bytes| bytes[4096 + 4096 + 10] ^= 1);
    let source = layout(&[&v1::store().blobs[1].bytes, &v1::store().blobs[5].bytes]);
    let sources = [source.path().to_str().unwrap()];
    let outcome = repaired(folder.root(), &sources);
    assert!(outcome.after.clean(), "{outcome:#?}");
    let before = files(folder.root());
    let plan = repair::plan(folder.root(), options(&sources)).unwrap();
    assert!(plan.is_empty(), "{plan}");
    repair::apply(&plan, &mut |_| Ok(())).unwrap();
    assert!(files(folder.root()) == before);
}
