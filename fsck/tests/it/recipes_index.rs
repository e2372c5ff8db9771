//! A golden store's index, written row by row from what is known of the store,
//! and how it is damaged, one way for each code.

use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{Entries, Head};
use orlop_format::location::{Extent, Home, Place, SegmentId};
use orlop_format::record::{Checkpoint, Record};
use orlop_format::row::{self, Blob, Copy, Form, Names, Segment, State, Upload};
use orlop_fsck::Code;
use rocksdb::{DB, Options};

use crate::golden::{Case, case};
use crate::support::{Folder, ONE, SMALL, TWO};
use crate::v1;

pub(crate) const CASES: &[Case] = &[
    case(Code::IndexMissing, |_| {}),
    case(Code::IndexMissingRow, |f| {
        Index::golden().without("blob", &sha256(7)).write(f);
    }),
    case(Code::IndexExtraRow, |f| {
        let ordinal = 77u64.to_be_bytes().to_vec();
        Index::golden().with("ordinal", ordinal, sha256(7)).write(f);
    }),
    case(Code::IndexDiffers, |f| {
        let mut row = blob(0);
        row.size += 1;
        Index::golden()
            .with("blob", sha256(0), row.encode())
            .write(f);
    }),
    case(Code::IndexSpace, |f| {
        let mut row = segment(0);
        row.live -= 4096;
        let key = Segment::key(row.segment.class, row.segment.id);
        Index::golden().with("segment", key, row.encode()).write(f);
    }),
    case(Code::IndexAhead, |f| {
        Index::golden().at(40).write(f);
    }),
    case(Code::IndexUnreadable, |f| {
        Index::golden().write(f);
        f.write("index/CURRENT", b"nothing\n");
    }),
    case(Code::IndexBehind, |f| {
        Index::golden().at(v1::RECYCLED - 1).write(f);
    }),
    case(Code::IndexLag, |f| earlier().write(f)),
    Case {
        code: Code::IndexSkipped,
        damage: |f| Index::golden().write(f),
        args: &["--no-index"],
    },
];

#[test]
fn an_index_that_says_what_the_log_says_is_clean() {
    let folder = Folder::golden();
    Index::golden().write(&folder);
    let before = listing(&folder);
    let said = folder.check();
    assert_eq!(
        (said.status, said.findings()),
        (0, vec![]),
        "{}",
        said.error
    );
    assert_eq!(said.report["index"]["compared"], true);
    assert_eq!(said.report["index"]["watermark"], 29);
    assert_eq!(said.report["counts"]["index_rows"], 8 + 2 + 1 + 8 + 4 + 2);
    assert_eq!(said.notes().len(), 2, "{:#?}", said.notes());
    assert_eq!(listing(&folder), before, "nothing is written in the store");
}

#[test]
fn every_row_that_is_lost_or_changed_is_found() {
    for (table, key, value) in Index::golden().rows {
        let folder = Folder::golden();
        Index::golden().without(table, &key).write(&folder);
        let said = folder.check();
        let findings = said.findings();
        assert_eq!(findings.len(), 1, "{table}: {findings:#?}");
        assert!(
            findings[0].starts_with("warning index.missing-row"),
            "{findings:#?}"
        );
        // The last byte of each value means something.
        let mut changed = value.clone();
        *changed.last_mut().unwrap() ^= 0x80;
        let folder = Folder::golden();
        Index::golden().with(table, key, changed).write(&folder);
        let said = folder.check();
        // A higher next number is what recycling may leave.
        let higher = table == "meta" && value.len() == 8;
        assert_eq!(
            said.status,
            i32::from(!higher),
            "{table}: {:#?}",
            said.findings()
        );
    }
}

/// An index that is made again would not have it, and a name would be gone.
#[test]
fn a_further_digest_that_only_the_index_knows_is_found() {
    let bytes = &v1::store().blobs[0].bytes;
    let folder = Folder::golden();
    let alias = Digest::of(Algorithm::Sha512, bytes).encode();
    Index::golden()
        .with("alias", alias, sha256(0))
        .write(&folder);
    let end = format!(
        "of index/alias in blob {}",
        Digest::of(Algorithm::Sha256, bytes)
    );
    folder
        .check()
        .finds_one("warning index.extra-row row sha512:", &end);
}

#[test]
fn a_table_that_cannot_be_read_is_found_and_nothing_is_said_to_be_missing() {
    let folder = Folder::golden();
    Index::golden().write(&folder);
    let mut tables = Vec::new();
    for (name, bytes) in listing(&folder) {
        if name.ends_with(".sst") {
            tables.push((name, bytes));
        }
    }
    assert!(tables.len() > 5);
    for (name, bytes) in tables {
        for at in [0, bytes.len() / 2, bytes.len() - 60] {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            folder.write(&format!("index/{name}"), &bad);
            let said = folder.check();
            for finding in said.findings() {
                assert!(
                    finding.contains(" index.unreadable "),
                    "{name} at {at}: {finding}"
                );
            }
        }
        folder.remove(&format!("index/{name}"));
        let said = folder.check();
        let findings = said.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(findings[0].contains("index.unreadable"), "{findings:#?}");
        folder.write(&format!("index/{name}"), &bytes);
    }
    assert_eq!(folder.check().status, 0);
}

fn listing(folder: &Folder) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder.path("index")).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), bytes)
        })
        .collect();
    files.sort();
    files
}

/// Gives the golden store its index, with these rows more and up to an LSN.
pub(crate) fn with_rows(
    folder: &Folder,
    watermark: u64,
    rows: &[(&'static str, Vec<u8>, Vec<u8>)],
) {
    let index = Index::golden().at(watermark);
    let add =
        |index: Index, (table, key, value): &(&'static str, _, _)| index.with(table, key, value);
    rows.iter().fold(index, add).write(folder);
}

/// Rows of an index.
struct Index {
    rows: Vec<(&'static str, Vec<u8>, Vec<u8>)>,
    watermark: u64,
}

impl Index {
    /// What the index of the golden store has after it was closed.
    fn golden() -> Self {
        let mut index = Index {
            rows: Vec::new(),
            watermark: 29,
        };
        for blob in [0, 1, 2, 3, 4, 5, 6, 7] {
            let row = self::blob(blob);
            index = index
                .with("ordinal", row.ordinal.to_be_bytes(), sha256(blob))
                .with("blob", sha256(blob), row.encode());
        }
        let layer = &v1::store().blobs[1];
        for algorithm in &layer.aliases {
            let alias = Digest::of(*algorithm, &layer.bytes).encode();
            index = index.with("alias", alias, sha256(1));
        }
        let upload = upload();
        index = index.with("upload", upload.checkpoint.upload.0, upload.encode());
        for number in 0..4 {
            let row = segment(number);
            let key = Segment::key(row.segment.class, row.segment.id);
            index = index.with("segment", key, row.encode());
        }
        let copy = Copy {
            sha256: sha256(4).try_into().unwrap(),
            catalog: v1::CATALOG,
            sequence: 41,
            lsn: 20,
        };
        let names = Names {
            notes: 8,
            copies: vec![copy],
        };
        index.with("meta", Names::KEY, names.encode()).with(
            "meta",
            row::NEXT_ORDINAL,
            10u64.to_le_bytes(),
        )
    }

    fn with(mut self, table: &'static str, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self = self.without(table, key.as_ref());
        self.rows
            .push((table, key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    fn without(mut self, table: &str, key: &[u8]) -> Self {
        self.rows
            .retain(|(t, k, _)| (*t, k.as_slice()) != (table, key));
        self
    }

    fn at(self, watermark: u64) -> Self {
        Index { watermark, ..self }
    }

    /// Makes it an index on disk.
    fn write(self, folder: &Folder) {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let tables = [
            "meta", "blob", "alias", "upload", "segment", "chunk", "ordinal", "scratch",
        ];
        let families = tables.map(|table| format!("{table}.1"));
        let path = folder.path("index");
        let db = DB::open_cf(&options, path, &families).unwrap();
        db.put(b"format", 1u32.to_le_bytes()).unwrap();
        db.put(b"watermark", self.watermark.to_le_bytes()).unwrap();
        for (table, key, value) in &self.rows {
            let family = db.cf_handle(&format!("{table}.1")).unwrap();
            db.put_cf(family, key, value).unwrap();
        }
        for family in &families {
            db.flush_cf(db.cf_handle(family).unwrap()).unwrap();
        }
        db.flush().unwrap();
    }
}

fn sha256(blob: usize) -> Vec<u8> {
    let bytes = &v1::store().blobs[blob].bytes;
    Digest::of(Algorithm::Sha256, bytes).bytes().to_vec()
}

/// Where the record with an LSN lies in a golden file.
fn place(file: &str, lsn: u64) -> Place {
    let store = v1::store();
    let mut logs = store.logs.iter();
    let log = logs.find(|log| log.path.to_str() == Some(file)).unwrap();
    let mut at = 4096;
    loop {
        let head = Head::decode(&log.volume, &log.bytes[at..]).unwrap();
        for entry in Entries::new(log.volume, &head, at as u32, &log.bytes[at..]).flatten() {
            if entry.lsn == lsn {
                return entry.place;
            }
        }
        at += head.bytes as usize;
    }
}

/// The row of a golden blob.
fn blob(number: usize) -> Blob {
    let store = v1::store();
    let inline = |file, lsn| Form::Inline(place(file, lsn));
    let extents = |raw: usize, blob: usize| {
        let content = &store.blobs[blob].bytes;
        let extents = store.raws[raw].extents.iter();
        let mine = extents.filter(|(_, _, payload)| {
            content
                .windows(payload.len())
                .any(|window| window == payload)
        });
        Form::Extents(mine.map(|(extent, _, _)| *extent).collect())
    };
    let (ordinal, birth, form) = match number {
        0 => (1, 2, inline(SMALL, 2)),
        1 => (2, 3, extents(0, 1)),
        2 => (9, 28, inline(TWO, 28)),
        3 => (4, 18, inline(ONE, 18)),
        4 => (5, 19, inline(ONE, 19)),
        5 => (6, 21, inline(ONE, 21)),
        6 => (7, 23, inline(ONE, 23)),
        _ => (8, 27, extents(1, 7)),
    };
    Blob {
        state: if number == 5 {
            State::Quarantined
        } else {
            State::Live
        },
        internal: number == 4,
        ordinal,
        size: store.blobs[number].bytes.len() as u64,
        birth,
        form,
    }
}

/// The row of the open upload.
fn upload() -> Upload {
    let store = v1::store();
    let extent = store.raws[1].extents[0].0;
    let hashes = store.logs[0].groups[0]
        .1
        .iter()
        .find_map(|(_, record, _)| match record {
            Record::Checkpoint(checkpoint) => Some(checkpoint.hashes.clone()),
            _ => None,
        });
    Upload {
        owner: v1::OPEN.1.as_bytes().to_vec(),
        also: Algorithm::Sha512.code(),
        tail: Some(place(SMALL, 5)),
        checkpoint: Checkpoint {
            upload: v1::OPEN.0,
            offset: v1::OPEN.2 as u64,
            extents_before: 0,
            extents: vec![extent],
            hashes: hashes.unwrap(),
        },
    }
}

/// The rows of raw segment 1, small 2, meta 3 and raw 4.
fn segment(number: usize) -> Segment {
    let store = v1::store();
    let id = |home: Home| match home {
        Home::Segment(id) => id,
        Home::Journal(_) => panic!("a segment"),
    };
    let live = |extents: &[(Extent, orlop_format::segment::ExtentHeader, Vec<u8>)]| {
        extents
            .iter()
            .map(|(extent, _, _)| extent.footprint())
            .sum::<u64>()
    };
    // The seals tell size and hash.
    let sealed = |wanted: SegmentId, live: u64| {
        let records = store
            .logs
            .iter()
            .flat_map(|log| &log.groups)
            .flat_map(|(_, r)| r);
        let (used, hash) = records
            .filter_map(|(_, record, _)| match record {
                Record::Seal {
                    segment,
                    used,
                    hash,
                } if *segment == wanted => Some((u64::from(*used), *hash)),
                _ => None,
            })
            .next()
            .unwrap();
        Segment {
            segment: wanted,
            sealed: true,
            used,
            live,
            hash,
            ..Segment::new(wanted)
        }
    };
    match number {
        0 => sealed(store.raws[0].header.segment, live(&store.raws[0].extents)),
        1 => sealed(
            id(store.logs[0].volume.home),
            place(SMALL, 2).len() + place(SMALL, 5).len(),
        ),
        2 => sealed(id(store.logs[1].volume.home), 0),
        _ => {
            let raw = &store.raws[1];
            Segment {
                used: raw.bytes.len() as u64,
                live: live(&raw.extents),
                ..Segment::new(raw.header.segment)
            }
        }
    }
}

/// The index as it was before the last blob came back to life.
fn earlier() -> Index {
    let dead = Blob {
        state: State::Dead,
        internal: false,
        ordinal: 0,
        size: 0,
        birth: 17,
        form: Form::Extents(vec![]),
    };
    Index::golden()
        .with("blob", sha256(2), dead.encode())
        .without("ordinal", &9u64.to_be_bytes())
        .with("meta", row::NEXT_ORDINAL, 9u64.to_le_bytes())
        .at(27)
}
