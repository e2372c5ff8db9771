//! How the files of a golden store are damaged, one way for each code.

use orlop_format::checksum;
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{Builder, Entries, Head, Volume};
use orlop_format::location::{Class, Extent, Home, SegmentId};
use orlop_format::record::{Checkpoint, Commit, Hole, Kind, Record};
use orlop_format::segment::{FileHeader, file_name};
use orlop_format::superblock::Superblock;
use orlop_fsck::Code;

use crate::golden::{Case, case};
use crate::support::{Folder, META, ONE, RAW, TWO};
use crate::v1;

pub(crate) const CASES: &[Case] = &[
    case(Code::SuperblockFile, |f| f.remove("superblock.1")),
    case(Code::SuperblockSlot, |f| flip(f, "superblock.0", 4096 + 50)),
    case(Code::SuperblockNone, |f| {
        for file in ["superblock.0", "superblock.1"] {
            flip(f, file, 9);
            flip(f, file, 4096 + 9);
        }
    }),
    case(Code::SuperblockYoung, |f| {
        f.remove("catalog.db");
        for (path, _) in v1::store().files() {
            f.remove(path.to_str().unwrap());
        }
        for file in ["superblock.0", "superblock.1"] {
            f.write(file, &[0; 8192]);
        }
    }),
    case(Code::SuperblockTorn, |f| flip(f, "superblock.1", 50)),
    case(Code::JournalMissing, |f| f.remove(ONE)),
    case(Code::JournalHeader, |f| flip(f, TWO, 33)),
    case(Code::JournalGroup, |f| flip(f, ONE, group(ONE, 1) + 20)),
    case(Code::JournalRecord, |f| {
        flip(f, ONE, group(ONE, 1) + 80 + 20)
    }),
    case(Code::JournalChain, |f| resigned(f, TWO, 68, 72)),
    case(Code::JournalYoung, young),
    case(Code::JournalTorn, |f| {
        let at = f.read(TWO).len() - 4096 + 90;
        flip(f, TWO, at);
    }),
    case(Code::JournalCut, |_| {}),
    case(Code::JournalUnclean, |f| {
        f.edit(TWO, |bytes| bytes.truncate(bytes.len() - 4096));
    }),
    case(Code::JournalUnused, |f| {
        f.write("journal/J-0000000000000004", &[0; 8192]);
        f.write("journal/making-spare-7", &[0; 4096]);
    }),
    case(Code::JournalRecycled, |f| {
        f.write("journal/J-0000000000000001", &[0; 8192]);
    }),
    case(Code::SegmentMissing, |f| f.remove(META)),
    case(Code::SegmentHeader, |f| resigned(f, RAW, 8, 56)),
    case(Code::SegmentGroup, |f| flip(f, META, 8192 + 20)),
    case(Code::SegmentFooter, |f| {
        let at = f.read(RAW).len() - 4096 + 70;
        flip(f, RAW, at);
    }),
    case(Code::SegmentUnused, |f| {
        f.write("data/raw/S-0000000000000009.00000000", &[0; 8192]);
    }),
    case(Code::SegmentUnsealed, |f| {
        f.write("data/meta/unsealed-S-0000000000000009.00000000", &[0; 4096]);
    }),
    case(Code::SegmentLeft, left),
    case(Code::SegmentOrphan, |f| {
        let (path, header) = segment(Class::Raw);
        f.write(&path, &header.encode());
    }),
    case(Code::SegmentRemoved, |f| {
        let (path, header) = segment(Class::Raw);
        f.write(&path, &header.encode());
        let segment = header.segment;
        f.append(vec![(30, Record::Remove { segment }, vec![])]);
    }),
    case(Code::RecordBody, impossible),
    case(Code::RecordPayload, |f| {
        let at = position(ONE, &v1::store().blobs[6].bytes[40..80]);
        flip(f, ONE, at);
    }),
    case(Code::ExtentHeader, |f| flip(f, RAW, 4096 + 70)),
    case(Code::ExtentPayload, |f| {
        let at = position(RAW, &v1::store().blobs[1].bytes[65_600..65_640]);
        flip(f, RAW, at);
    }),
    case(Code::ExtentOverlap, |f| {
        let second = second();
        let stranger = commit(b"a stranger", vec![extent(&second)]);
        f.append(vec![(30, Record::Commit(stranger), vec![])]);
    }),
    case(Code::ExtentBeyond, |f| {
        let raw = &v1::store().raws[0];
        let far = Extent {
            offset: 86_016,
            ..raw.extents[0].0
        };
        f.append(vec![(
            30,
            Record::Commit(commit(b"far", vec![far])),
            vec![],
        )]);
    }),
    case(Code::ExtentHole, |f| {
        let second = extent(&second());
        let hole = Hole {
            offset: second.offset,
            len: 4096,
        };
        let punch = Record::Punch {
            segment: second.segment,
            holes: vec![hole],
        };
        f.append(vec![(30, punch, vec![])]);
    }),
    case(Code::BlobSize, |f| {
        let second = second();
        let mut longer = commit(&second, vec![extent(&second)]);
        longer.size += 1;
        f.append(vec![(30, Record::Commit(longer), vec![])]);
    }),
    case(Code::BlobDigest, |f| {
        let bytes = b"not what it says".to_vec();
        f.append(vec![(
            30,
            Record::Commit(commit(b"what it says", vec![])),
            bytes,
        )]);
    }),
    case(Code::BlobAlias, |f| {
        let alias = Digest::of(Algorithm::Sha512, b"other bytes");
        let sha256 = sha256(&second());
        f.append(vec![(30, Record::Alias { sha256, alias }, vec![])]);
    }),
    case(Code::BlobQuarantined, |_| {}),
    case(Code::UploadSize, |f| {
        let checkpoint = Checkpoint {
            upload: v1::OPEN.0,
            offset: 6_000,
            extents_before: 1,
            extents: vec![],
            hashes: vec![],
        };
        f.append(vec![(30, Record::Checkpoint(checkpoint), vec![7; 10])]);
    }),
    case(Code::CopyMissing, |f| {
        let sha256 = sha256(&v1::store().blobs[4].bytes);
        f.append(vec![(30, Record::Tombstone { sha256, birth: 19 }, vec![])]);
    }),
    case(Code::SpaceUnowned, |f| {
        let sha256 = sha256(&v1::store().blobs[1].bytes);
        f.append(vec![(30, Record::Tombstone { sha256, birth: 3 }, vec![])]);
    }),
    case(Code::FileForeign, |f| {
        f.write("data/raw/notes.txt", b"mine");
        f.write("backup.tar", b"mine, too");
    }),
    Case {
        code: Code::ContentPartial,
        damage: |_| {},
        args: &["--content", "sample=50", "--seed", "7"],
    },
];

fn flip(folder: &Folder, file: &str, at: usize) {
    folder.edit(file, |bytes| bytes[at] ^= 1);
}

/// Flips a bit under a first block's checksum, which is made to hold again.
fn resigned(folder: &Folder, file: &str, at: usize, covered: usize) {
    folder.edit(file, |bytes| {
        bytes[at] ^= 1;
        let crc = checksum::crc(&bytes[..covered]);
        bytes[covered..covered + 4].copy_from_slice(&crc.to_le_bytes());
    });
}

/// Offset of `needle` in a golden file.
fn position(file: &str, needle: &[u8]) -> usize {
    let bytes = std::fs::read(v1::folder().join(file)).unwrap();
    let mut windows = bytes.windows(needle.len());
    windows.position(|window| window == needle).unwrap()
}

/// Offset of a golden journal file's group, counted from 0.
fn group(file: &str, group: usize) -> usize {
    let store = v1::store();
    let mut logs = store.logs.iter();
    let log = logs.find(|log| log.path.to_str() == Some(file)).unwrap();
    let mut at = 4096;
    for _ in 0..group {
        at += Head::decode(&log.volume, &log.bytes[at..]).unwrap().bytes as usize;
    }
    at
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    digest.bytes().try_into().unwrap()
}

/// The blob whose extent lies in the open raw segment.
fn second() -> Vec<u8> {
    v1::store().blobs[7].bytes.clone()
}

fn extent(blob: &[u8]) -> Extent {
    let store = v1::store();
    let mut extents = store.raws[1].extents.iter();
    extents.find(|(_, _, payload)| payload == blob).unwrap().0
}

fn commit(bytes: &[u8], extents: Vec<Extent>) -> Commit {
    let len: u32 = extents.iter().map(|extent| extent.len).sum();
    Commit {
        sha256: sha256(bytes),
        aliases: vec![],
        ordinal: 30,
        size: if extents.is_empty() {
            16
        } else {
            u64::from(len)
        },
        internal: false,
        upload: None,
        extents,
        note: vec![],
    }
}

/// A segment that the store does not have.
fn segment(class: Class) -> (String, FileHeader) {
    let id = SegmentId {
        volume: 0,
        class,
        generation: 0,
        id: 9,
    };
    let header = FileHeader {
        store: v1::STORE,
        segment: id,
        salt: 0x1009,
        opened: 0,
    };
    (
        format!("data/{}/{}", class.folder(), file_name(&id)),
        header,
    )
}

/// A store whose first process died before it had a journal.
fn young(folder: &Folder) {
    let golden = v1::store();
    for (path, _) in golden.files() {
        folder.remove(path.to_str().unwrap());
    }
    let slot = Superblock {
        recycled: 0,
        journal: 0,
        ..golden.slots[0]
    };
    let mut bytes = vec![0; 4096 * 2];
    folder.write("superblock.0", &bytes);
    bytes[..4096].copy_from_slice(&slot.encode());
    folder.write("superblock.1", &bytes);
}

/// A meta segment that was written whole and never announced.
pub(crate) fn left(folder: &Folder) {
    let (path, header) = segment(Class::Meta);
    let volume = Volume {
        home: Home::Segment(header.segment),
        salt: header.salt,
    };
    let mut builder = Builder::new(volume, 4096, 1, 0);
    builder.push(8, &Record::Note(b"a note of its own".to_vec()), b"");
    let (group, crc) = builder.finish();
    let footer = orlop_format::segment::Footer {
        frames: vec![(4096, crc)],
    };
    let bytes = [header.encode(), group, footer.encode(&header, 0)].concat();
    folder.write(&path, &bytes);
}

/// The last record, a mark, gets a body that no mark has.
fn impossible(folder: &Folder) {
    let store = v1::store();
    let mut logs = store.logs.iter();
    let log = logs.find(|log| log.path.to_str() == Some(TWO)).unwrap();
    let (before, last) = (group(TWO, 1), group(TWO, 2));
    let head = Head::decode(&log.volume, &log.bytes[before..]).unwrap();
    let mut entries = Entries::new(log.volume, &head, before as u32, &log.bytes[before..]);
    assert!(entries.by_ref().all(|entry| entry.is_ok()));
    let chain = entries.last_crc();
    let mut builder = Builder::new(log.volume, last as u32, head.number + 1, chain);
    builder.push_encoded(29, Kind::Mark, vec![1, 2, 3], vec![]);
    let group = builder.finish().0;
    folder.edit(TWO, |bytes| {
        bytes.truncate(last);
        bytes.extend(group);
    });
}
