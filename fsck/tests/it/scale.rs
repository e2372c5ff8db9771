//! A log of very many blobs: the check stays within its memory and its time.
//!
//! A plain run writes a log of 20,000 small blobs. `ORLOP_FSCK_BLOBS=10000000`
//! and `ORLOP_FSCK_DIR` choose another size and folder, and print what it took;
//! docs/fsck.md has the figures.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{Builder, Volume};
use orlop_format::journal::{FileHeader, file_name};
use orlop_format::location::{Home, Place};
use orlop_format::record::{Commit, Record};
use orlop_format::row::{self, Blob, Form, Names, State};
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
            index.write_without_wal(&rows).unwrap();
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
    let slot = Superblock {
        sequence: 1,
        store: STORE,
        catalog: [0; 16],
        catalog_sequence: 0,
        epoch: 1,
        recycled: 0,
        journal: 1,
    };
    std::fs::write(folder.join("superblock.0"), [0; 8192]).unwrap();
    let slots = [slot.encode(), vec![0; 4096]].concat();
    std::fs::write(folder.join("superblock.1"), slots).unwrap();
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
fn check(folder: &Path) -> (serde_json::Value, u64) {
    let mut child = Command::new(
        std::env::var("ORLOP_FSCK").unwrap_or_else(|_| env!("CARGO_BIN_EXE_orlop-fsck").into()),
    )
    .arg(folder)
    .args(["--output", "json", "--scratch"])
    .arg(folder.parent().unwrap())
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
    let (report, peak) = check(&folder);
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
