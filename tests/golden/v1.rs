//! The golden store of format 1: what it says, and how its bytes are made.
//!
//! Owns: a short history of a store, fixed to the last salt and id, that holds
//! every kind of record the store writes, blobs in every form and state, a
//! journal that was recycled, torn and gone on with. Uses `orlop-format` only.
//! Once released, neither this file nor the folder `v1` changes: a new format
//! gets files of its own.

use std::path::{Path, PathBuf};

use orlop_format::BLOCK;
use orlop_format::digest::{Algorithm, Digest, Hasher};
use orlop_format::journal::FileHeader;
use orlop_format::location::{Class, Extent, Home, Place, SegmentId};
use orlop_format::record::{Checkpoint, Commit, HashState, Moved, Record, Relocation, UploadId};
use orlop_format::superblock::{FILES, Superblock};

#[path = "files.rs"]
mod files;

pub(crate) use files::{Log, Raw};

/// The store's id.
pub(crate) const STORE: [u8; 16] = *b"golden store v1!";
/// The id of the catalog it belongs to.
pub(crate) const CATALOG: [u8; 16] = *b"golden catalog 1";
/// The upload that is still open at the end, its owner and its length.
pub(crate) const OPEN: (UploadId, &str, usize) = (UploadId([0xa1; 16]), "team/app", 5_100);
/// LSN up to which the journal was recycled.
pub(crate) const RECYCLED: u64 = 8;

const RAW: SegmentId = segment_id(Class::Raw, 1);
const SMALL: SegmentId = segment_id(Class::Small, 2);
const META: SegmentId = segment_id(Class::Meta, 3);
const RAW_OPEN: SegmentId = segment_id(Class::Raw, 4);

const fn segment_id(class: Class, id: u64) -> SegmentId {
    SegmentId {
        volume: 0,
        class,
        generation: 0,
        id,
    }
}

/// How a blob of the store must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// With its bytes.
    Live,
    /// As damaged.
    Quarantined,
    /// As absent.
    Absent,
}

/// A blob, by the name it was pushed under.
pub(crate) struct Blob {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Further algorithms under which it is known.
    pub(crate) aliases: Vec<Algorithm>,
    /// How it answers.
    pub(crate) state: State,
}

/// The whole store.
pub(crate) struct Store {
    /// The four slots, oldest first.
    pub(crate) slots: Vec<Superblock>,
    /// Journal files and small and meta segments.
    pub(crate) logs: Vec<Log>,
    /// Raw segments.
    pub(crate) raws: Vec<Raw>,
    /// Its blobs.
    pub(crate) blobs: Vec<Blob>,
}

/// Bytes that depend on `seed` and never repeat.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Digest::of(Algorithm::Sha256, bytes)
        .bytes()
        .try_into()
        .unwrap()
}

/// A commit of `bytes`, inline as far as the caller adds no extents.
fn commit(ordinal: u64, bytes: &[u8]) -> Commit {
    Commit {
        sha256: sha256(bytes),
        aliases: Vec::new(),
        ordinal,
        size: bytes.len() as u64,
        internal: false,
        upload: None,
        extents: Vec::new(),
        note: Vec::new(),
    }
}

fn hashes(bytes: &[u8]) -> Vec<HashState> {
    [Algorithm::Sha256, Algorithm::Sha512]
        .map(|algorithm| {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(bytes);
            HashState {
                algorithm: algorithm.code(),
                version: 1,
                state: hasher.save().unwrap(),
            }
        })
        .to_vec()
}

fn mark(lsn: u64, clean: bool) -> (u64, Record, Vec<u8>) {
    (lsn, Record::Mark { clean }, Vec::new())
}

fn bare(lsn: u64, record: Record) -> (u64, Record, Vec<u8>) {
    (lsn, record, Vec::new())
}

/// What the history is about, in the order in which it was pushed.
struct Contents {
    manifest: Vec<u8>,
    layer: Vec<u8>,
    revived: Vec<u8>,
    copy: Vec<u8>,
    damaged: Vec<u8>,
    before_cut: Vec<u8>,
    torn: Vec<u8>,
    second: Vec<u8>,
    open: Vec<u8>,
}

/// Where the first extent of the layer ends, and that of the open upload.
const LAYER_CUT: usize = 66_000;
const OPEN_CUT: usize = 5_000;

/// Makes the store.
pub(crate) fn store() -> Store {
    let contents = Contents {
        manifest: content(1, 1_000),
        layer: content(2, LAYER_CUT + 1_001),
        revived: content(3, 100),
        copy: content(4, 3_000),
        damaged: content(5, 2_000),
        before_cut: content(6, 700),
        second: content(7, 12_345),
        torn: content(8, 5_000),
        open: content(9, OPEN.2),
    };
    let (mut raw, mut raw_open) = (Raw::new(RAW, 0x1001), Raw::new(RAW_OPEN, 0x1004));
    let open_extent = raw_open.push(OPEN.0, 0, &contents.open[..OPEN_CUT]);
    let (mut small, copies) = small(&contents, open_extent);
    let mut meta = meta(&contents, &mut raw);
    let seals = [raw.seal(), small.seal(), meta.seal()];
    let (two, end) = second_file(&contents, seals, &copies);
    let three = third_file(&contents, &mut raw_open, two.chain, end);
    let slots = (1..=4)
        .map(|sequence| Superblock {
            sequence,
            store: STORE,
            catalog: if sequence < 3 { [0; 16] } else { CATALOG },
            catalog_sequence: if sequence < 3 { 0 } else { 41 },
            epoch: sequence,
            recycled: if sequence < 2 { 0 } else { RECYCLED },
            journal: if sequence < 2 { 1 } else { 2 },
            features: 0,
        })
        .collect();
    Store {
        slots,
        logs: vec![small, meta, two, three],
        raws: vec![raw, raw_open],
        blobs: blobs(contents),
    }
}

fn blobs(contents: Contents) -> Vec<Blob> {
    let blob = |bytes: Vec<u8>, state| Blob {
        bytes,
        aliases: Vec::new(),
        state,
    };
    vec![
        blob(contents.manifest, State::Live),
        Blob {
            bytes: contents.layer,
            aliases: vec![Algorithm::Sha512, Algorithm::Blake3],
            state: State::Live,
        },
        blob(contents.revived, State::Live),
        blob(Vec::new(), State::Live),
        blob(contents.copy, State::Live),
        blob(contents.damaged, State::Quarantined),
        blob(contents.before_cut, State::Live),
        blob(contents.second, State::Live),
        blob(contents.torn, State::Absent),
        blob(contents.open, State::Absent),
    ]
}

/// Records with payload that left journal file 1, which is gone.
fn small(contents: &Contents, extent: Extent) -> (Log, Vec<Place>) {
    let mut small = Log::segment(SMALL, 0x1002, 2);
    let manifest = Commit {
        note: b"a note".to_vec(),
        ..commit(1, &contents.manifest)
    };
    let checkpoint = Checkpoint {
        upload: OPEN.0,
        offset: OPEN.2 as u64,
        extents_before: 0,
        extents: vec![extent],
        hashes: hashes(&contents.open),
    };
    let revived = commit(3, &contents.revived);
    let places = small.push(
        1,
        vec![
            (2, Record::Commit(manifest), contents.manifest.clone()),
            (
                5,
                Record::Checkpoint(checkpoint),
                contents.open[OPEN_CUT..].to_vec(),
            ),
            (7, Record::Commit(revived), contents.revived.clone()),
        ],
    );
    (small, places)
}

/// Records without payload that left journal file 1.
fn meta(contents: &Contents, raw: &mut Raw) -> Log {
    let layer = &contents.layer;
    let upload = UploadId([0xa2; 16]);
    let extents = vec![
        raw.push(upload, 0, &layer[..LAYER_CUT]),
        raw.push(upload, LAYER_CUT as u64, &layer[LAYER_CUT..]),
    ];
    let aliases = vec![Digest::of(Algorithm::Sha512, layer)];
    let layer_commit = Commit {
        aliases,
        extents,
        ..commit(2, layer)
    };
    let open = Record::Open {
        upload: OPEN.0,
        owner: OPEN.1.as_bytes().to_vec(),
        also: Algorithm::Sha512.code(),
    };
    let alias = Record::Alias {
        sha256: sha256(layer),
        alias: Digest::of(Algorithm::Blake3, layer),
    };
    let mut meta = Log::segment(META, 0x1003, 3);
    meta.push(
        1,
        vec![bare(3, Record::Commit(layer_commit)), bare(4, open)],
    );
    meta.push(
        2,
        vec![
            bare(6, alias),
            bare(8, Record::Note(b"a note of its own".to_vec())),
        ],
    );
    meta
}

/// Journal file 2, whose last group is torn; also returns where it was cut.
fn second_file(contents: &Contents, seals: [Record; 3], copies: &[Place]) -> (Log, u32) {
    let mut file = Log::journal(&FileHeader {
        store: STORE,
        sequence: 2,
        salt: 0x2002,
        first_lsn: 9,
        first_group: 5,
        previous: 1,
        previous_end: 65_536,
        chain: 0x1234_5678,
    });
    file.push(5, vec![mark(9, false)]);
    let mut records: Vec<_> = (10..)
        .zip(seals)
        .map(|(lsn, seal)| bare(lsn, seal))
        .collect();
    records.push(bare(13, Record::Move(moves(contents, copies))));
    file.push(6, records);
    file.push(7, abandoned(contents));
    file.push(8, copy_and_damage(contents));
    let (kept, torn) = (&contents.before_cut, &contents.torn);
    let places = file.push(
        9,
        vec![
            (23, Record::Commit(commit(7, kept)), kept.clone()),
            (24, Record::Commit(commit(8, torn)), torn.clone()),
        ],
    );
    // The group's last block never reached the disk, and recovery cut there.
    let end = file.bytes.len();
    file.bytes[end - BLOCK..].fill(0);
    file.groups.last_mut().unwrap().1.truncate(1);
    // What follows chains to the last record that was kept.
    let kept = places[0].offset as usize + 60;
    file.chain = u32::from_le_bytes(file.bytes[kept..kept + 4].try_into().unwrap());
    (file, places[1].offset)
}

/// What moved out of journal file 1.
fn moves(contents: &Contents, copies: &[Place]) -> Vec<Relocation> {
    let whats = [
        Moved::Blob(sha256(&contents.manifest), 2),
        Moved::Upload(OPEN.0),
        Moved::Blob(sha256(&contents.revived), 7),
    ];
    whats
        .into_iter()
        .zip([4_256, 8_272, 12_368])
        .zip(copies)
        .map(|((what, offset), to)| Relocation {
            what,
            from: Place {
                home: Home::Journal(1),
                offset,
                ..*to
            },
            to: *to,
        })
        .collect()
}

/// An upload that came to nothing, and the end of a blob's first life.
fn abandoned(contents: &Contents) -> files::Records {
    let upload = UploadId([0xa3; 16]);
    let open = Record::Open {
        upload,
        owner: b"team/gone".to_vec(),
        also: 0,
    };
    let checkpoint = Checkpoint {
        upload,
        offset: 10,
        extents_before: 0,
        extents: Vec::new(),
        hashes: Vec::new(),
    };
    let tombstone = Record::Tombstone {
        sha256: sha256(&contents.revived),
        birth: 7,
    };
    vec![
        bare(14, open),
        (15, Record::Checkpoint(checkpoint), b"ten bytes.".to_vec()),
        bare(16, Record::Abandon { upload }),
        bare(17, tombstone),
    ]
}

/// The empty blob, a copy of the catalog, a blob in quarantine.
fn copy_and_damage(contents: &Contents) -> files::Records {
    let (copy, damaged) = (&contents.copy, &contents.damaged);
    let internal = Commit {
        internal: true,
        ..commit(5, copy)
    };
    let names = Record::Copy {
        sha256: sha256(copy),
        catalog: CATALOG,
        sequence: 41,
    };
    let quarantine = Record::Quarantine {
        sha256: sha256(damaged),
        birth: 21,
    };
    vec![
        bare(18, Record::Commit(commit(4, b""))),
        (19, Record::Commit(internal), copy.clone()),
        bare(20, names),
        (21, Record::Commit(commit(6, damaged)), damaged.clone()),
        bare(22, quarantine),
    ]
}

/// Journal file 3, which goes on behind the cut and ends in order.
fn third_file(contents: &Contents, raw: &mut Raw, chain: u32, previous_end: u32) -> Log {
    let mut file = Log::journal(&FileHeader {
        store: STORE,
        sequence: 3,
        salt: 0x2003,
        first_lsn: 24,
        first_group: 10,
        previous: 2,
        previous_end,
        chain,
    });
    let (second, revived) = (&contents.second, &contents.revived);
    let upload = UploadId([0xa4; 16]);
    let extent = raw.push(upload, 0, second);
    let open = Record::Open {
        upload,
        owner: b"team/app".to_vec(),
        also: 0,
    };
    let checkpoint = Checkpoint {
        upload,
        offset: second.len() as u64,
        extents_before: 0,
        extents: vec![extent],
        hashes: hashes(second),
    };
    let second_commit = Commit {
        upload: Some(upload),
        extents: vec![extent],
        ..commit(8, second)
    };
    file.push(10, vec![mark(24, false)]);
    file.push(
        11,
        vec![
            bare(25, open),
            bare(26, Record::Checkpoint(checkpoint)),
            bare(27, Record::Commit(second_commit)),
            (28, Record::Commit(commit(9, revived)), revived.clone()),
        ],
    );
    file.push(12, vec![mark(29, true)]);
    file
}

impl Store {
    /// Every file of the store, by its path below the data folder.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut superblocks = vec![vec![0u8; 2 * BLOCK]; FILES.len()];
        for slot in &self.slots {
            let (file, offset) = Superblock::slot(slot.sequence);
            let offset = usize::try_from(offset).unwrap();
            superblocks[file][offset..offset + BLOCK].copy_from_slice(&slot.encode());
        }
        let mut files: Vec<_> = FILES.iter().map(PathBuf::from).zip(superblocks).collect();
        files.extend(
            self.logs
                .iter()
                .map(|log| (log.path.clone(), log.bytes.clone())),
        );
        files.extend(
            self.raws
                .iter()
                .map(|raw| (raw.path.clone(), raw.bytes.clone())),
        );
        files
    }
}

/// Where the golden files lie.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|above| above.join("tests/golden/v1"))
        .find(|folder| folder.is_dir())
        .expect("tests/golden/v1 lies in the repository")
}
