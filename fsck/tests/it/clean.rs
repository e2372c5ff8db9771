//! Nothing to find; what a crash or a normal run leaves is noted at most.

use crate::support::{Folder, ONE, TWO};
use crate::v1;

#[test]
fn the_golden_store_is_clean() {
    let said = Folder::golden().check();
    assert_eq!(said.findings(), [""; 0]);
    assert_eq!(
        (said.status, said.report["clean"].as_bool()),
        (0, Some(true)),
        "{}",
        said.error
    );
    let counts = &said.report["counts"];
    let store = v1::store();
    let live = store
        .blobs
        .iter()
        .filter(|blob| blob.state == v1::State::Live);
    assert_eq!(counts["blobs"], live.clone().count());
    assert_eq!(
        counts["digests"],
        live.clone()
            .map(|blob| 1 + blob.aliases.len())
            .sum::<usize>()
    );
    assert_eq!(
        counts["bytes"],
        live.map(|blob| blob.bytes.len()).sum::<usize>() + v1::OPEN.2
    );
    assert_eq!(
        (&counts["quarantined"], &counts["uploads"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        (&counts["journal_files"], &counts["segments"]),
        (&2.into(), &4.into())
    );
    let notes = said.notes();
    assert_eq!(notes.len(), 3, "{notes:#?}");
    assert!(
        notes
            .iter()
            .any(|note| note.contains(ONE) && note.contains("torn tail was cut")),
        "{notes:#?}"
    );
    assert!(
        notes.iter().any(|note| note.contains("quarantine")),
        "{notes:#?}"
    );
}

#[test]
fn a_torn_tail_is_a_note() {
    let folder = Folder::golden();
    folder.edit(TWO, |bytes| {
        let len = bytes.len();
        bytes[len - 4096 + 90] ^= 1; // in the mark that ends the journal
        bytes.resize(len + 8192, 0); // pre-written
    });
    let said = folder.check();
    assert_eq!(said.findings(), [""; 0]);
    assert_eq!(said.status, 0);
    assert!(
        said.notes()
            .iter()
            .any(|note| note.contains("torn tail; nothing in it")),
        "{:#?}",
        said.notes()
    );
    assert!(
        said.notes()
            .iter()
            .any(|note| note.starts_with("journal.unclean")),
        "{:#?}",
        said.notes()
    );
}

#[test]
fn a_torn_superblock_slot_is_a_note() {
    let folder = Folder::golden();
    // Sequence 4 is the newest; 5 goes to the slot of 1: file 1, slot 0.
    folder.edit("superblock.1", |bytes| bytes[50] ^= 1);
    let said = folder.check();
    assert_eq!((said.status, said.findings()), (0, Vec::new()));
    assert!(
        said.notes()
            .iter()
            .any(|note| note.starts_with("superblock.torn superblock.1 at 0: ")),
        "{:#?}",
        said.notes()
    );
}

#[test]
fn files_that_never_came_to_life_are_notes() {
    let folder = Folder::golden();
    folder.write("journal/J-0000000000000004", &[0; 8192]);
    folder.write("journal/spare-1", &[0; 100]);
    folder.write("data/raw/S-0000000000000009.00000000", &[0; 8192]);
    folder.write("data/raw/notes.txt", b"mine");
    let said = folder.check();
    assert_eq!((said.status, said.findings()), (0, Vec::new()));
    assert_eq!(said.notes().len(), 6, "{:#?}", said.notes());
}

#[test]
fn bytes_that_nothing_refers_to_are_no_finding() {
    let folder = Folder::golden();
    // The record that was cut, and the file's rest behind it.
    folder.edit(ONE, |bytes| {
        let len = bytes.len();
        bytes[len - 10..].fill(0x55);
    });
    let said = folder.check();
    assert_eq!((said.status, said.findings()), (0, Vec::new()));
}
