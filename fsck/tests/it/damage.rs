//! One kind of damage each: the finding that names it, and no other.

use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{Builder, Entries, Head};
use orlop_format::location::Home;
use orlop_format::record::Record;

use crate::support::{Folder, META, ONE, RAW, SMALL, TWO};
use crate::v1;

fn digest(blob: usize) -> Digest {
    Digest::of(Algorithm::Sha256, &v1::store().blobs[blob].bytes)
}

/// Offset of `needle` in a golden file.
fn position(file: &str, needle: &[u8]) -> usize {
    let bytes = std::fs::read(v1::folder().join(file)).unwrap();
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap()
}

#[test]
fn a_flipped_byte_in_an_extent_names_blob_and_offset() {
    let folder = Folder::golden();
    let layer = &v1::store().blobs[1].bytes;
    // In the second span of the first extent: 64 KiB behind its payload's start.
    let at = position(RAW, &layer[65_600..65_640]);
    folder.edit(RAW, |bytes| bytes[at] ^= 1);
    let said = folder.check();
    let end = format!("{RAW} at {}", 8192 + 65_536);
    said.finds_one(
        &format!("damage extent.payload blob {} in ", digest(1)),
        &end,
    );
}

#[test]
fn a_flipped_byte_in_an_extents_header_names_blob_and_offset() {
    let folder = Folder::golden();
    folder.edit(RAW, |bytes| bytes[4096 + 70] ^= 1);
    folder.check().finds_one(
        &format!("damage extent.header blob {} in ", digest(1)),
        &format!("{RAW} at 4096"),
    );
}

#[test]
fn a_flipped_byte_in_a_small_blob_names_it() {
    for (file, blob) in [(SMALL, 0), (ONE, 6), (TWO, 2)] {
        let folder = Folder::golden();
        let bytes = &v1::store().blobs[blob].bytes;
        let at = position(file, &bytes[40..80]);
        folder.edit(file, |bytes| bytes[at] ^= 1);
        folder.check().finds_one(
            &format!("damage record.payload blob {} in ", digest(blob)),
            "",
        );
    }
}

#[test]
fn a_last_journal_file_without_header_is_unused_only_without_a_group() {
    let folder = Folder::golden();
    folder.edit(TWO, |bytes| bytes[..4096].fill(0));
    folder.check().finds_one("error journal.header", TWO);
    let folder = Folder::golden();
    folder.edit(TWO, |bytes| bytes.truncate(0));
    assert_eq!(folder.check().status, 1);
}

/// What is made from a log that is not whole gives away what it lacks.
#[test]
fn repair_makes_nothing_from_a_log_that_lost_a_header() {
    let at = group_offset(META, 1);
    let damages: [&dyn Fn(&Folder); 4] = [
        &|folder| folder.edit(TWO, |bytes| bytes[..4096].fill(0)),
        &|folder| folder.edit(TWO, |bytes| bytes.truncate(0)),
        &|folder| folder.edit(META, |bytes| bytes[at + 20] ^= 1),
        &|folder| folder.edit(SMALL, |bytes| bytes[..4096].fill(0)),
    ];
    for damage in damages {
        let folder = Folder::golden();
        // Something that repair would see to.
        folder.edit(RAW, |bytes| bytes[4096 + 70] ^= 1);
        damage(&folder);
        let plan = orlop_fsck::repair::plan(folder.root(), crate::named::options(&[])).unwrap();
        assert!(plan.actions().is_empty(), "{:#?}", plan.actions());
    }
}

#[test]
fn repair_does_not_condemn_what_may_come_back_with_its_file() {
    let folder = Folder::golden();
    folder.remove(RAW);
    assert_eq!(folder.check().status, 1);
    let plan = orlop_fsck::repair::plan(folder.root(), crate::named::options(&[])).unwrap();
    let condemned = |action: &orlop_fsck::repair::Action| action.code == "blob.quarantine";
    assert!(
        !plan.actions().iter().any(condemned),
        "{:#?}",
        plan.actions()
    );
}

#[test]
fn a_segment_without_a_seal_has_a_footer_that_holds() {
    let folder = Folder::golden();
    crate::recipes::left(&folder);
    assert_eq!(folder.check().status, 0);
    let names = std::fs::read_dir(folder.path("data/meta")).unwrap();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    let mut names = names.map(|name| format!("data/meta/{name}"));
    let new = names.find(|name| name != META).unwrap();
    folder.edit(&new, |bytes| *bytes.last_mut().unwrap() ^= 1);
    folder.edit(&new, |bytes| bytes.truncate(8192));
    folder
        .check()
        .finds_one("error segment.group", &format!("{new} at 8192"));
}

#[test]
fn a_journal_file_with_a_later_files_header_is_found() {
    let folder = Folder::golden();
    let later = orlop_format::journal::FileHeader {
        sequence: 9,
        ..orlop_format::journal::FileHeader::decode(&folder.read(TWO)).unwrap()
    };
    folder.edit(TWO, |bytes| {
        let header = later.encode();
        bytes[..header.len()].copy_from_slice(&header);
    });
    folder.check().finds_one("error journal.header", TWO);
}

#[test]
fn a_flipped_group_header_in_the_middle_is_corruption() {
    for (file, group) in [(ONE, 1), (ONE, 3), (TWO, 1)] {
        let folder = Folder::golden();
        let at = group_offset(file, group);
        folder.edit(file, |bytes| bytes[at + 20] ^= 1);
        let said = folder.check();
        let findings = said.findings();
        let wanted = format!("{file} at {at}");
        assert!(
            findings
                .iter()
                .any(|f| f.starts_with("error journal.group") && f.ends_with(&wanted)),
            "{findings:#?}"
        );
        assert_eq!(said.status, 1);
    }
}

#[test]
fn a_flipped_record_header_in_the_middle_is_corruption() {
    let folder = Folder::golden();
    let at = group_offset(ONE, 1) + 80;
    folder.edit(ONE, |bytes| bytes[at + 20] ^= 1);
    let said = folder.check();
    let findings = said.findings();
    assert!(
        findings
            .iter()
            .any(|f| f.starts_with("error journal.record") && f.ends_with(&format!("at {at}")))
    );
}

/// Offset of a golden journal file's group, counted from 0.
fn group_offset(file: &str, group: usize) -> usize {
    let store = v1::store();
    let log = store
        .logs
        .iter()
        .find(|log| log.path.to_str() == Some(file))
        .unwrap();
    let mut at = 4096;
    for _ in 0..group {
        at += orlop_format::group::Head::decode(&log.volume, &log.bytes[at..])
            .unwrap()
            .bytes as usize;
    }
    at
}

#[test]
fn a_missing_segment_is_found_with_what_it_held() {
    let folder = Folder::golden();
    folder.remove(RAW);
    let findings = folder.check().findings();
    assert!(
        findings.contains(&format!("error segment.missing {RAW}")),
        "{findings:#?}"
    );
    assert!(
        findings.contains(&format!(
            "error segment.missing blob {} in {RAW}",
            digest(1)
        )),
        "{findings:#?}"
    );
    let folder = Folder::golden();
    folder.remove(META);
    let findings = folder.check().findings();
    assert!(
        findings.contains(&format!("error segment.missing {META}")),
        "{findings:#?}"
    );
}

#[test]
fn a_missing_journal_file_is_found() {
    let folder = Folder::golden();
    folder.remove(ONE);
    let findings = folder.check().findings();
    assert!(
        findings
            .iter()
            .any(|f| f.starts_with("error journal.missing journal")),
        "{findings:#?}"
    );

    let folder = Folder::golden();
    folder.remove(ONE);
    folder.remove(TWO);
    folder
        .check()
        .finds_one("error journal.missing journal", "");
}

#[test]
fn a_flipped_journal_header_is_found() {
    let folder = Folder::golden();
    folder.edit(TWO, |bytes| bytes[33] ^= 1);
    folder
        .check()
        .finds_one(&format!("error journal.header {TWO}"), "");
}

#[test]
fn a_file_of_another_store_is_found() {
    for (file, at, covered) in [(TWO, 8, 72), (RAW, 8, 56)] {
        let folder = Folder::golden();
        folder.edit(file, |bytes| {
            bytes[at] ^= 1;
            let crc = orlop_format::checksum::crc(&bytes[..covered]);
            bytes[covered..covered + 4].copy_from_slice(&crc.to_le_bytes());
        });
        let findings = folder.check().findings();
        assert!(
            findings
                .iter()
                .any(|f| f.contains(".header ") && f.ends_with(file)),
            "{findings:#?}"
        );
    }
}

#[test]
fn a_journal_file_that_ends_elsewhere_is_found() {
    let folder = Folder::golden();
    folder.edit(TWO, |bytes| {
        bytes[68] ^= 1; // the chain to the file before
        let crc = orlop_format::checksum::crc(&bytes[..72]);
        bytes[72..76].copy_from_slice(&crc.to_le_bytes());
    });
    let findings = folder.check().findings();
    assert!(
        findings
            .iter()
            .any(|f| f.starts_with("error journal.chain") && f.ends_with(ONE)),
        "{findings:#?}"
    );
}

#[test]
fn a_flipped_byte_in_a_small_segments_group_is_found() {
    let folder = Folder::golden();
    folder.edit(META, |bytes| bytes[8192 + 20] ^= 1);
    let findings = folder.check().findings();
    assert!(
        findings.contains(&format!("error segment.group {META} at 8192")),
        "{findings:#?}"
    );
}

#[test]
fn a_flipped_footer_is_a_warning() {
    for file in [RAW, SMALL] {
        let folder = Folder::golden();
        let at = folder.read(file).len() - 4096;
        folder.edit(file, |bytes| bytes[at + 70] ^= 1);
        folder
            .check()
            .finds_one(&format!("warning segment.footer {file} at {at}"), "");
    }
}

#[test]
fn an_old_superblock_slot_and_a_missing_file_are_found() {
    let folder = Folder::golden();
    folder.edit("superblock.0", |bytes| bytes[4096 + 50] ^= 1); // sequence 2
    folder
        .check()
        .finds_one("warning superblock.slot superblock.0 at 4096", "");
    let folder = Folder::golden();
    folder.remove("superblock.1");
    folder
        .check()
        .finds_one("error superblock.file superblock.1", "");
    let folder = Folder::golden();
    for file in ["superblock.0", "superblock.1"] {
        folder.edit(file, |bytes| {
            bytes[9] ^= 1;
            bytes[4096 + 9] ^= 1;
        });
    }
    folder.check().finds_one("error superblock.none", "");
    // Zeros where there is a log are a loss, no new store.
    let folder = Folder::golden();
    for file in ["superblock.0", "superblock.1"] {
        folder.edit(file, |bytes| bytes.fill(0));
    }
    folder.check().finds_one("error superblock.none", "");
}

#[test]
fn a_further_digest_of_other_bytes_is_found() {
    let folder = Folder::golden();
    let store = v1::store();
    let log = store
        .logs
        .iter()
        .find(|log| log.path.to_str() == Some(META))
        .unwrap();
    let (first, at) = (Head::decode(&log.volume, &log.bytes[4096..]).unwrap(), 8192);
    let mut before = Entries::new(log.volume, &first, 4096, &log.bytes[4096..8192]);
    assert!(before.by_ref().all(|entry| entry.is_ok()));
    let (number, records) = &log.groups[1];
    let mut builder = Builder::new(log.volume, at, *number, before.last_crc());
    for (lsn, record, payload) in records {
        let mut record = record.clone();
        if let Record::Alias { alias, .. } = &mut record {
            *alias = Digest::of(alias.algorithm(), b"other bytes");
        }
        builder.push(*lsn, &record, payload);
    }
    folder.edit(META, |bytes| {
        bytes[at as usize..][..4096].copy_from_slice(&builder.finish().0)
    });
    let findings = folder.check().findings();
    assert!(
        findings.contains(&format!("damage blob.alias blob {}", digest(1))),
        "{findings:#?}"
    );
}

#[test]
fn bytes_under_a_good_checksum_and_a_wrong_digest_are_found() {
    // A record whose checksums were made for other bytes than its digest.
    let folder = Folder::golden();
    let store = v1::store();
    let log = store
        .logs
        .iter()
        .find(|log| log.volume.home == Home::Journal(3))
        .unwrap();
    let blob = &store.blobs[2].bytes;
    let at = position(TWO, blob);
    // The commit's body has no extents and no note, so the payload follows
    // its 64 + 75 bytes; the header's payload checksum lies at 52.
    let header = at - 64 - 75;
    assert_eq!(&log.bytes[header..header + 4], b"ORLR");
    folder.edit(TWO, |bytes| {
        bytes[at] ^= 1;
        let crc = orlop_format::checksum::crc(&bytes[at..at + blob.len()]);
        bytes[header + 52..header + 56].copy_from_slice(&crc.to_le_bytes());
        let crc = orlop_format::checksum::salted(log.volume.salt, &bytes[header..header + 60]);
        bytes[header + 60..header + 64].copy_from_slice(&crc.to_le_bytes());
    });
    folder
        .check()
        .finds_one(&format!("damage blob.digest blob {}", digest(2)), "");
}

#[test]
fn a_store_without_a_valid_slot_is_found_by_a_superblock_file() {
    let folder = Folder::golden();
    for file in ["superblock.0", "superblock.1"] {
        folder.edit(file, |bytes| bytes.fill(0));
    }
    folder
        .check()
        .finds_one("error superblock.none", "superblock.0");
}

#[test]
fn a_store_that_lost_journal_and_index_is_not_a_new_one() {
    let store = crate::named::Named::whole();
    std::fs::remove_file(store.path(crate::named::RAW)).unwrap();
    std::fs::remove_dir_all(store.path("journal")).unwrap();
    let report = store.check();
    let mut codes = report.findings().iter().map(|finding| finding.code);
    assert!(
        codes.any(|code| code == orlop_fsck::Code::JournalMissing),
        "{report}"
    );
}
