//! A log of very many blobs: the check stays within its memory and its time.
//!
//! A plain run writes a log of 20,000 small blobs. `ORLOP_FSCK_BLOBS=10000000`
//! and `ORLOP_FSCK_DIR` choose another size and folder, and print what it took;
//! docs/fsck.md has the figures. `ORLOP_FSCK_MIB` sets the size of the store of
//! large blobs, and prints the rates of the check, of one thread that hashes,
//! and of one that only reads.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use orlop_format::checksum;
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{Builder, Volume};
use orlop_format::journal::{FileHeader, file_name};
use orlop_format::location::{Class, Extent, Home, Place, SegmentId};
use orlop_format::record::{Commit, Record, UploadId};
use orlop_format::row::{self, Blob, Form, Names, State};
use orlop_format::segment::{self, ExtentHeader};
use orlop_format::superblock::Superblock;
use rocksdb::{DB, Options, WriteBatch};

const STORE: [u8; 16] = *b"a store of many.";
/// Bytes of one journal file.
const FILE: usize = 64 << 20;
/// Records of one group.
const RECORDS: usize = 512;
/// Memory that a check may take beyond what the program itself is, MiB.
const LIMIT: u64 = 256;

/// Writes a store whose journal has so many small blobs, with its index.
fn write(folder: &Path, count: u64) {
    std::fs::create_dir_all(folder.join("journal")).unwrap();
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let index = index(folder);
    let (mut sequence, mut lsn, mut number, mut chain) = (0, 1, 1, 0);
    let mut previous_end = 0u32;
    let mut ordinal = 0;
    while ordinal < count {
        sequence += 1;
        let header = FileHeader {
            store: STORE,
            sequence,
            salt: 0x5a17 + sequence,
            first_lsn: lsn,
            first_group: number,
            previous: sequence - 1,
            previous_end,
            chain,
        };
        let path = folder.join("journal").join(file_name(sequence));
        let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
        file.write_all(&header.encode()).unwrap();
        let mut at = 4096;
        let volume = Volume {
            home: Home::Journal(sequence),
            salt: header.salt,
        };
        while at < FILE && ordinal < count {
            let mut builder = Builder::new(volume, at as u32, number, chain);
            let mut rows = WriteBatch::default();
            for _ in 0..RECORDS.min((count - ordinal) as usize) {
                ordinal += 1;
                let (sha256, place) = blob(&mut builder, lsn, ordinal);
                put(&index, &mut rows, ordinal, lsn, sha256, place);
                lsn += 1;
            }
            index.write_without_wal(rows).unwrap();
            let (bytes, crc) = builder.finish();
            file.write_all(&bytes).unwrap();
            (at, number, chain) = (at + bytes.len(), number + 1, crc);
        }
        let mut builder = Builder::new(volume, at as u32, number, chain);
        builder.push(lsn, &Record::Mark { clean: true }, b"");
        let (bytes, crc) = builder.finish();
        file.write_all(&bytes).unwrap();
        (lsn, number, chain) = (lsn + 1, number + 1, crc);
        previous_end = (at + bytes.len()) as u32;
    }
    superblock(folder);
    let meta = index.cf_handle("meta.1").unwrap();
    index
        .put_cf(meta, row::NEXT_ORDINAL, (count + 1).to_le_bytes())
        .unwrap();
    index
        .put_cf(meta, Names::KEY, Names::default().encode())
        .unwrap();
    index.put(b"format", 1u32.to_le_bytes()).unwrap();
    index.put(b"watermark", (lsn - 1u64).to_le_bytes()).unwrap();
    for family in ["default", "meta.1", "blob.1", "ordinal.1"] {
        index.flush_cf(index.cf_handle(family).unwrap()).unwrap();
    }
}

fn superblock(folder: &Path) {
    let slot = Superblock {
        sequence: 1,
        store: STORE,
        catalog: [0; 16],
        catalog_sequence: 0,
        epoch: 1,
        recycled: 0,
        journal: 1,
        features: 0,
    };
    std::fs::write(folder.join("superblock.0"), [0; 8192]).unwrap();
    let slots = [slot.encode(), vec![0; 4096]].concat();
    std::fs::write(folder.join("superblock.1"), slots).unwrap();
}

fn index(folder: &Path) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let tables = [
        "meta", "blob", "alias", "upload", "segment", "chunk", "ordinal", "scratch",
    ];
    let families = tables.map(|table| format!("{table}.1"));
    DB::open_cf(&options, folder.join("index"), families).unwrap()
}

fn blob(builder: &mut Builder, lsn: u64, ordinal: u64) -> ([u8; 32], Place) {
    let bytes = ordinal.to_le_bytes();
    let sha256 = Digest::of(Algorithm::Sha256, &bytes)
        .bytes()
        .try_into()
        .unwrap();
    let commit = Commit {
        sha256,
        aliases: vec![],
        ordinal,
        size: bytes.len() as u64,
        internal: false,
        upload: None,
        extents: vec![],
        note: vec![],
    };
    (sha256, builder.push(lsn, &Record::Commit(commit), &bytes))
}

fn put(db: &DB, rows: &mut WriteBatch, ordinal: u64, lsn: u64, sha256: [u8; 32], place: Place) {
    let blob = Blob {
        state: State::Live,
        internal: false,
        ordinal,
        size: 8,
        birth: lsn,
        form: Form::Inline(place),
    };
    rows.put_cf(db.cf_handle("blob.1").unwrap(), sha256, blob.encode());
    rows.put_cf(
        db.cf_handle("ordinal.1").unwrap(),
        ordinal.to_be_bytes(),
        sha256,
    );
}

/// Checks a folder; gives the report and the peak of memory, MiB.
fn check(folder: &Path, args: &[&str]) -> (serde_json::Value, u64) {
    let mut child = Command::new(
        std::env::var("ORLOP_FSCK").unwrap_or_else(|_| env!("CARGO_BIN_EXE_orlop-fsck").into()),
    )
    .arg(folder)
    .args(["--output", "json", "--scratch"])
    .arg(folder.parent().unwrap())
    .args(args)
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    // The peak is in the status for as long as the process lasts; read it
    // until it ends.
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) / 1024);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    (serde_json::from_slice(&output.stdout).unwrap(), peak)
}

#[test]
fn memory_does_not_grow_with_the_number_of_blobs() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = number("ORLOP_FSCK_BLOBS").unwrap_or(20_000);
    let own = tempfile::tempdir().unwrap();
    let below = std::env::var_os("ORLOP_FSCK_DIR").map_or(own.path().to_owned(), PathBuf::from);
    let folder = below.join("many");
    let start = Instant::now();
    write(&folder, count);
    println!("{count} blobs written in {:?}", start.elapsed());
    let start = Instant::now();
    let (report, peak) = check(&folder, &[]);
    println!(
        "checked in {:?}, peak of memory {peak} MiB",
        start.elapsed()
    );
    assert_eq!(report["clean"], true, "{:#?}", report["findings"][0]);
    assert_eq!(report["counts"]["blobs"], count);
    assert_eq!(report["coverage"]["complete"], true);
    assert_eq!(report["counts"]["index_rows"], 2 * count + 2);
    assert!(peak > 0 && peak <= LIMIT, "{peak} MiB");
}

/// Bytes of one large blob.
const BLOB: usize = 64 << 20;
/// Payload of one extent.
const EXTENT: usize = 8 << 20;

/// Writes a store of large blobs, one to a segment's quarter; the digests too.
fn write_large(folder: &Path, mib: u64) {
    std::fs::create_dir_all(folder.join("journal")).unwrap();
    std::fs::create_dir_all(folder.join("data/raw")).unwrap();
    superblock(folder);
    let header = FileHeader {
        store: STORE,
        sequence: 1,
        salt: 0x5a17,
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
    let mut builder = Builder::new(volume, 4096, 1, 0);
    let mut open: Option<(segment::FileHeader, std::fs::File, u32)> = None;
    let blobs = mib * (1 << 20) / BLOB as u64;
    for ordinal in 1..=blobs {
        if (ordinal - 1) % 4 == 0 {
            open = Some(raw(folder, ordinal));
        }
        let (segment, file, at) = open.as_mut().unwrap();
        let bytes = crate::v1::content(ordinal, BLOB);
        let mut extents = Vec::new();
        for (offset, payload) in (0u64..).step_by(EXTENT).zip(bytes.chunks(EXTENT)) {
            let header = ExtentHeader {
                upload: UploadId([7; 16]),
                offset,
                len: payload.len() as u32,
                table: checksum::table(payload),
            };
            let (block, body) = header.encode(segment, 0);
            file.write_all(&block).unwrap();
            file.write_all(payload).unwrap();
            let extent = Extent {
                segment: segment.segment,
                offset: *at,
                len: payload.len() as u32,
                body,
            };
            *at += extent.footprint() as u32;
            extents.push(extent);
        }
        let commit = Commit {
            sha256: Digest::of(Algorithm::Sha256, &bytes)
                .bytes()
                .try_into()
                .unwrap(),
            aliases: vec![],
            ordinal,
            size: bytes.len() as u64,
            internal: false,
            upload: None,
            extents,
            note: vec![],
        };
        builder.push(ordinal, &Record::Commit(commit), b"");
        if ordinal % 4 == 0 || ordinal == blobs {
            file.sync_all().unwrap();
        }
    }
    builder.push(blobs + 1, &Record::Mark { clean: true }, b"");
    let journal = [header.encode(), builder.finish().0].concat();
    std::fs::write(folder.join("journal").join(file_name(1)), journal).unwrap();
}

fn raw(folder: &Path, id: u64) -> (segment::FileHeader, std::fs::File, u32) {
    let header = segment::FileHeader {
        store: STORE,
        segment: SegmentId {
            volume: 0,
            class: Class::Raw,
            generation: 0,
            id,
        },
        salt: 0x5e6 + id,
        opened: 0,
    };
    let name = segment::file_name(&header.segment);
    let mut file = std::fs::File::create(folder.join("data/raw").join(name)).unwrap();
    file.write_all(&header.encode()).unwrap();
    (header, file, 4096)
}

/// Reads all segments once, as `dd` would; bytes.
fn read_all(folder: &Path) -> u64 {
    let mut buffer = vec![0; 8 << 20];
    let mut total = 0;
    for entry in std::fs::read_dir(folder.join("data/raw")).unwrap() {
        let mut file = std::fs::File::open(entry.unwrap().path()).unwrap();
        loop {
            match std::io::Read::read(&mut file, &mut buffer).unwrap() {
                0 => break,
                read => total += read as u64,
            }
        }
    }
    total
}

/// Has the system forget what it keeps of the segments.
fn forget(folder: &Path) {
    for entry in std::fs::read_dir(folder.join("data/raw")).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

#[test]
fn large_blobs_are_read_as_fast_as_the_disk_or_the_hash_allows() {
    let asked = std::env::var("ORLOP_FSCK_MIB")
        .ok()
        .map(|text| text.parse().unwrap());
    let mib: u64 = asked.unwrap_or(128);
    let own = tempfile::tempdir().unwrap();
    let below = std::env::var_os("ORLOP_FSCK_DIR").map_or(own.path().to_owned(), PathBuf::from);
    let folder = below.join("large");
    if !folder.exists() {
        write_large(&folder, mib);
    }
    let rate = |bytes: u64, start: Instant| bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
    let mut last = None;
    for round in 0..if asked.is_some() { 3 } else { 1 } {
        forget(&folder);
        let start = Instant::now();
        let disk = rate(read_all(&folder), start);
        let sample = crate::v1::content(1, 256 << 20 >> if asked.is_some() { 0 } else { 6 });
        let start = Instant::now();
        Digest::of(Algorithm::Sha256, &sample);
        let hash = rate(sample.len() as u64, start);
        for threads in ["1", "2"] {
            forget(&folder);
            let start = Instant::now();
            let (report, peak) = check(&folder, &["--threads", threads]);
            let bytes = report["coverage"]["bytes"].as_u64().unwrap();
            println!(
                "round {round}: read {disk:.0} MB/s, hash {hash:.0} MB/s on one thread, \
                 check {:.0} MB/s with {threads} threads, {peak} MiB",
                rate(bytes, start)
            );
            last = Some(report);
        }
    }
    let report = last.unwrap();
    assert_eq!(report["clean"], true, "{:#?}", report["findings"][0]);
    assert_eq!(report["coverage"]["bytes"], mib / 64 * BLOB as u64);
    assert_eq!(report["counts"]["extents"], mib / 64 * 8);
}
