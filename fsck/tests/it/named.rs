//! A small store with names in its log, made by `orlop-format` alone, and the
//! catalog that belongs to it, made by repair.

use std::path::{Path, PathBuf};

use orlop_format::BLOCK;
use orlop_format::checksum;
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{Builder, Entries, Head, Volume};
use orlop_format::journal::{FileHeader, file_name};
use orlop_format::location::{Class, Extent, Home, SegmentId};
use orlop_format::record::{Commit, Record, UploadId};
use orlop_format::segment::{self, ExtentHeader};
use orlop_format::superblock::{FILES, Superblock};
use orlop_fsck::{Report, repair};
use serde_json::json;

const STORE: [u8; 16] = *b"a store of names";
pub(crate) const CATALOG: [u8; 16] = *b"a catalog by id.";
pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The journal's only file, of a few blocks.
pub(crate) const JOURNAL: &str = "journal/J-0000000000000001";
/// The segment that the large layer lies in.
pub(crate) const RAW: &str = "data/raw/S-0000000000000001.00000000";

/// What the store holds.
pub(crate) struct Contents {
    pub(crate) config: Vec<u8>,
    /// Inline in the journal.
    pub(crate) small: Vec<u8>,
    /// In a segment.
    pub(crate) large: Vec<u8>,
    pub(crate) image: Vec<u8>,
    /// An artifact about the image.
    pub(crate) report: Vec<u8>,
}

/// A data folder that goes away.
pub(crate) struct Named(tempfile::TempDir);

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": sha256(bytes).to_string(), "size": bytes.len()})
}

pub(crate) fn contents() -> Contents {
    let config = b"{\"architecture\":\"amd64\",\"os\":\"linux\"}".to_vec();
    let small = crate::v1::content(31, 500);
    let large = crate::v1::content(32, 70_000);
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let image = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor(layer, &small), descriptor(layer, &large)],
    })
    .to_string()
    .into_bytes();
    let report = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/vnd.example.report",
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [],
        "subject": descriptor(IMAGE, &image),
        "annotations": {"made-by": "a test"},
    })
    .to_string()
    .into_bytes();
    Contents {
        config,
        small,
        large,
        image,
        report,
    }
}

/// A note, as the registry writes it.
pub(crate) fn note(kind: u8, fields: &[&[u8]], rest: &[u8]) -> Vec<u8> {
    let mut out = vec![1, kind];
    for field in fields {
        out.extend(u16::try_from(field.len()).unwrap().to_le_bytes());
        out.extend_from_slice(field);
    }
    out.extend_from_slice(rest);
    out
}

fn tags(tags: &[&str]) -> Vec<u8> {
    let mut out = u16::try_from(tags.len()).unwrap().to_le_bytes().to_vec();
    for tag in tags {
        out.extend(u16::try_from(tag.len()).unwrap().to_le_bytes());
        out.extend_from_slice(tag.as_bytes());
    }
    out
}

pub(crate) fn link(repository: &str, bytes: &[u8]) -> Record {
    let size = (bytes.len() as u64).to_le_bytes();
    let digest = sha256(bytes).encode();
    Record::Note(note(2, &[repository.as_bytes(), &digest], &size))
}

fn manifest(repository: &str, bytes: &[u8], names: &[&str]) -> Vec<u8> {
    manifest_of(IMAGE, repository, bytes, names)
}

/// A note of a push of a manifest of this type.
pub(crate) fn manifest_of(
    media_type: &str,
    repository: &str,
    bytes: &[u8],
    names: &[&str],
) -> Vec<u8> {
    let digest = sha256(bytes).encode();
    let fields: [&[u8]; 3] = [repository.as_bytes(), &digest, media_type.as_bytes()];
    note(1, &fields, &tags(names))
}

/// The commit of a small blob, with its payload.
pub(crate) fn inline(ordinal: u64, bytes: &[u8], note: Vec<u8>) -> (Record, Vec<u8>) {
    let commit = Commit {
        sha256: sha256(bytes).bytes().try_into().unwrap(),
        aliases: Vec::new(),
        ordinal,
        size: bytes.len() as u64,
        internal: false,
        upload: None,
        extents: Vec::new(),
        note,
    };
    (Record::Commit(commit), bytes.to_vec())
}

/// The end of a blob, as a collection writes it.
pub(crate) fn ended(bytes: &[u8]) -> Record {
    let sha256 = sha256(bytes).bytes().try_into().unwrap();
    Record::Tombstone { sha256, birth: 100 }
}

impl Named {
    /// Puts the store, with its catalog, in the place of another one.
    pub(crate) fn instead_of(folder: &Path) {
        let named = Named::whole();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
            }
        }
        crate::interrupted::copy_tree(named.folder(), folder);
    }

    /// The store with its catalog, whole.
    pub(crate) fn whole() -> Named {
        let named = Named::without_catalog();
        named.repair(&[]);
        let report = named.check();
        assert!(report.clean(), "{report}");
        named
    }

    /// The store as it is when its catalog was lost.
    pub(crate) fn without_catalog() -> Named {
        let named = Named(tempfile::tempdir().unwrap());
        for folder in [
            "journal",
            "data/raw",
            "data/small",
            "data/meta",
            "quarantine",
        ] {
            std::fs::create_dir_all(named.path(folder)).unwrap();
        }
        named.write("LOCK", b"");
        let contents = contents();
        let extent = named.segment(1, &contents.large);
        named.journal(&contents, extent);
        let mut superblocks = vec![vec![0u8; 2 * BLOCK]; FILES.len()];
        for sequence in 1..=4 {
            let slot = Superblock {
                sequence,
                store: STORE,
                catalog: CATALOG,
                catalog_sequence: 7,
                epoch: sequence,
                recycled: 0,
                journal: 1,
                features: 0,
            };
            let (file, offset) = Superblock::slot(sequence);
            let offset = usize::try_from(offset).unwrap();
            superblocks[file][offset..offset + BLOCK].copy_from_slice(&slot.encode());
        }
        for (name, bytes) in FILES.iter().zip(superblocks) {
            named.write(name, &bytes);
        }
        named
    }

    /// Puts bytes into a raw segment of their own.
    pub(crate) fn segment(&self, id: u64, payload: &[u8]) -> Extent {
        let segment = SegmentId {
            volume: 0,
            class: Class::Raw,
            generation: 0,
            id,
        };
        let header = segment::FileHeader {
            store: STORE,
            segment,
            salt: 0x3001,
            opened: 0,
        };
        let extent = ExtentHeader {
            upload: UploadId([7; 16]),
            offset: 0,
            len: u32::try_from(payload.len()).unwrap(),
            table: checksum::table(payload),
        };
        let mut bytes = header.encode();
        let (block, body) = extent.encode(&header, 0);
        bytes.extend(block);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let name = segment::file_name(&segment);
        self.write(&format!("data/raw/{name}"), &bytes);
        Extent {
            segment,
            offset: BLOCK as u32,
            len: extent.len,
            body,
        }
    }

    fn journal(&self, contents: &Contents, extent: Extent) {
        let header = FileHeader {
            store: STORE,
            sequence: 1,
            salt: 0x4001,
            first_lsn: 1,
            first_group: 1,
            previous: 0,
            previous_end: 0,
            chain: 0,
        };
        let volume = Volume {
            home: Home::Journal(1),
            salt: header.salt,
        };
        let commit = |ordinal, bytes: &[u8], extents, note| {
            Record::Commit(Commit {
                sha256: sha256(bytes).bytes().try_into().unwrap(),
                aliases: Vec::new(),
                ordinal,
                size: bytes.len() as u64,
                internal: false,
                upload: None,
                extents,
                note,
            })
        };
        let inline = |ordinal, bytes: &Vec<u8>, note| {
            (commit(ordinal, bytes, Vec::new(), note), bytes.clone())
        };
        let bare = |record| (record, Vec::new());
        let (app, gone) = ("team/app", "team/gone");
        let image = sha256(&contents.image).encode();
        let groups = vec![
            vec![
                bare(Record::Mark { clean: false }),
                inline(1, &contents.config, Vec::new()),
                bare(link(app, &contents.config)),
                inline(2, &contents.small, Vec::new()),
                bare(link(app, &contents.small)),
                bare(commit(3, &contents.large, vec![extent], Vec::new())),
                bare(link(app, &contents.large)),
                inline(4, &b"{}".to_vec(), Vec::new()),
                bare(link(app, b"{}")),
            ],
            vec![
                inline(
                    5,
                    &contents.image,
                    manifest(app, &contents.image, &["v1", "old"]),
                ),
                inline(6, &contents.report, manifest(app, &contents.report, &[])),
                bare(Record::Note(note(3, &[app.as_bytes(), b"old"], &[]))),
                bare(Record::Note(manifest(gone, &contents.image, &["v1"]))),
                bare(link(gone, &contents.small)),
            ],
            vec![
                bare(Record::Note(note(4, &[gone.as_bytes(), &image], &[]))),
                bare(Record::Note(note(
                    5,
                    &[gone.as_bytes(), &sha256(&contents.small).encode()],
                    &[],
                ))),
                bare(Record::Mark { clean: true }),
            ],
        ];
        let mut bytes = header.encode();
        let (mut lsn, mut chain) = (1, 0);
        for (number, records) in (1..).zip(groups) {
            let offset = u32::try_from(bytes.len()).unwrap();
            let mut builder = Builder::new(volume, offset, number, chain);
            for (record, payload) in records {
                builder.push(lsn, &record, &payload);
                lsn += 1;
            }
            let (group, crc) = builder.finish();
            bytes.extend(group);
            chain = crc;
        }
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        self.write(&format!("journal/{}", file_name(1)), &bytes);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        std::fs::write(self.path(file), bytes).unwrap();
    }

    /// Flips a bit where these bytes lie in a file.
    pub(crate) fn rot(&self, file: &str, needle: &[u8]) {
        let mut bytes = std::fs::read(self.path(file)).unwrap();
        let at = bytes
            .windows(needle.len())
            .position(|window| window == needle)
            .unwrap();
        bytes[at + needle.len() / 2] ^= 1;
        self.write(file, &bytes);
    }

    /// Repairs the store.
    pub(crate) fn repair(&self, sources: &[&str]) -> repair::Outcome {
        repaired(self.folder(), sources)
    }

    /// Checks the folder.
    pub(crate) fn check(&self) -> Report {
        checked(self.folder())
    }
}

/// Checks a folder, its catalog too.
pub(crate) fn checked(folder: &Path) -> Report {
    orlop_fsck::check_with(folder, &orlop_fsck::Options::default()).unwrap()
}

/// Plans and applies a repair.
pub(crate) fn repaired(folder: &Path, sources: &[&str]) -> repair::Outcome {
    let plan = repair::plan(folder, options(sources)).unwrap();
    repair::apply(&plan, &mut |_| Ok(())).unwrap()
}

pub(crate) fn options(sources: &[&str]) -> repair::Options {
    repair::Options {
        sources: sources.iter().map(ToString::to_string).collect(),
        check: orlop_fsck::Options::default(),
    }
}

/// Changes rows of a catalog; what they need is not asked.
pub(crate) fn sql(folder: &Path, text: &str) {
    let sql = rusqlite::Connection::open(folder.join("catalog.db")).unwrap();
    sql.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    sql.execute_batch(text).unwrap();
}

/// Writes a catalog without names.
pub(crate) fn empty_catalog(path: &Path, id: [u8; 16], sequence: u64) {
    let tables = concat!(
        include_str!("../../../server/src/catalog/migrations/0001_names.sql"),
        include_str!("../../../server/src/catalog/migrations/0002_pulls.sql"),
        include_str!("../../../server/src/catalog/migrations/0003_lists.sql"),
        include_str!("../../../server/src/catalog/migrations/0004_jobs.sql"),
        include_str!("../../../server/src/catalog/migrations/0005_collection.sql"),
        include_str!("../../../server/src/catalog/migrations/0006_operators.sql"),
    );
    let words = [
        ("{id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        ("{ordinal}", "INTEGER PRIMARY KEY"),
        ("{blob}", "BLOB"),
        ("{text}", "TEXT"),
        ("{clustered}", "WITHOUT ROWID"),
    ];
    let tables = words
        .iter()
        .fold(tables.to_owned(), |text, (word, meaning)| {
            text.replace(word, meaning)
        });
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA application_id = {}; {tables}",
        0x4f52_4c50
    ))
    .unwrap();
    sql.execute(
        "INSERT INTO catalog (one, id, sequence, schema, needs) VALUES (1, ?1, ?2, 6, 1)",
        (id.as_slice(), i64::try_from(sequence).unwrap()),
    )
    .unwrap();
}

/// Leaves a journal that says nothing.
pub(crate) fn no_records(folder: &Path) {
    std::fs::remove_file(folder.join(RAW)).unwrap();
    let path = folder.join(JOURNAL);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(BLOCK);
    std::fs::write(path, bytes).unwrap();
    append(folder, vec![Record::Mark { clean: true }]);
}

/// Appends a group of records to the store's only journal file.
pub(crate) fn append(folder: &Path, records: Vec<Record>) {
    let bare = records.into_iter().map(|record| (record, Vec::new()));
    append_all(folder, bare.collect());
}

/// Appends a group of records with their payloads.
pub(crate) fn append_all(folder: &Path, records: Vec<(Record, Vec<u8>)>) {
    let path = folder.join(JOURNAL);
    let mut bytes = std::fs::read(&path).unwrap();
    let header = FileHeader::decode(&bytes).unwrap();
    let volume = Volume {
        home: Home::Journal(header.sequence),
        salt: header.salt,
    };
    let (mut at, mut number, mut lsn, mut chain) = (BLOCK, 1, 1, header.chain);
    while at < bytes.len()
        && let Ok(head) = Head::decode(&volume, &bytes[at..])
    {
        let offset = u32::try_from(at).unwrap();
        let mut entries = Entries::new(volume, &head, offset, &bytes[at..]);
        lsn = entries
            .by_ref()
            .map(|entry| entry.unwrap().lsn)
            .max()
            .unwrap()
            + 1;
        (number, chain) = (head.number + 1, entries.last_crc());
        at += head.bytes as usize;
    }
    let mut builder = Builder::new(volume, u32::try_from(at).unwrap(), number, chain);
    for (record, payload) in records {
        builder.push(lsn, &record, &payload);
        lsn += 1;
    }
    bytes.truncate(at);
    bytes.extend(builder.finish().0);
    std::fs::write(path, bytes).unwrap();
}
