//! What only an index on disk can go through: damage, foreign folders, failed
//! writes, full devices.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use orlop_index::rocks::{FORMAT, Options, Rocks};
use orlop_index::{Batch, Index, IndexError, Table};
use support::{copy, open, options, rows};
use tempfile::TempDir;

type State = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A closed index in some files, and its contents by watermark.
fn sample(folder: &Path) -> BTreeMap<u64, State> {
    let index = open(folder);
    let mut state = State::new();
    let mut states = BTreeMap::from([(0, state.clone())]);
    for number in 1..=4_u64 {
        let mut batch = Batch::new();
        for table in [Table::Meta, Table::Blob, Table::Segment] {
            for row in 0..60_u64 {
                let key = (row * number).to_be_bytes().to_vec();
                let value = vec![number as u8; 90];
                state.insert((table, key.clone()), value.clone());
                batch.put(table, key, value);
            }
        }
        batch.set_watermark(number);
        index.apply(batch).unwrap();
        assert_eq!(index.flush().unwrap(), number);
        states.insert(number, state.clone());
    }
    states
}

/// Reads everything. The first error, if there is one; else the contents.
fn read_all(index: &Rocks) -> Result<State, IndexError> {
    let mut state = State::new();
    for table in Table::ALL {
        index.scan(table, &[], &mut |key, value| {
            state.insert((table, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })?;
        let keys: Vec<Vec<u8>> = state
            .keys()
            .filter(|(of, _)| *of == table)
            .map(|(_, key)| key.clone())
            .collect();
        for (key, value) in keys.iter().zip(index.multi_get(table, &keys)?) {
            assert_eq!(value.as_ref(), state.get(&(table, key.clone())));
            assert_eq!(index.get(table, key)?, value);
        }
    }
    Ok(state)
}

/// Opens a folder that something was done to. It is damaged, or all it says is
/// true at its watermark. True when it is damaged.
fn damaged_or_true(folder: &Path, states: &BTreeMap<u64, State>, what: &str) -> bool {
    let found = Rocks::open(folder, &options(folder)).and_then(|index| {
        let watermark = index.watermark()?;
        Ok((watermark, read_all(&index)?))
    });
    match found {
        Err(IndexError::Damaged { .. }) => true,
        Err(error) => panic!("{what}: not damaged but {error:?}"),
        Ok((watermark, state)) => {
            assert!(states.get(&watermark) == Some(&state), "{what}: wrong rows");
            false
        }
    }
}

fn files(folder: &Path, part: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(part))
        .collect();
    files.sort();
    files
}

/// A small generator, so that a failing position can be met again.
struct Steps(u64);

impl Steps {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn damage_is_found_or_harmless() {
    let folder = TempDir::new().unwrap();
    let whole = folder.path().join("whole");
    let states = sample(&whole);
    let seed = std::env::var("ORLOP_SEED").map_or(0x9e37_79b9, |text| text.parse().unwrap());
    eprintln!("damage_is_found_or_harmless: ORLOP_SEED={seed}");
    let mut steps = Steps(seed);
    let mut damaged = BTreeMap::<&str, (u32, u32)>::new();
    let mut attempt = |name: &'static str, file: &Path, bytes: &[u8], what: &str| {
        let copied = folder.path().join("copy");
        copy(&whole, &copied);
        std::fs::write(copied.join(file.file_name().unwrap()), bytes).unwrap();
        let hit = damaged_or_true(&copied, &states, what);
        std::fs::remove_dir_all(&copied).unwrap();
        let (hits, all) = damaged.entry(name).or_default();
        *hits += u32::from(hit);
        *all += 1;
    };
    for (name, part, flips) in [
        ("table", ".sst", 12),
        ("manifest", "MANIFEST", 60),
        ("current", "CURRENT", 16),
    ] {
        for file in files(&whole, part) {
            let bytes = std::fs::read(&file).unwrap();
            for _ in 0..flips {
                let (at, bit) = (steps.below(bytes.len()), steps.below(8));
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                attempt(
                    name,
                    &file,
                    &bytes,
                    &format!("bit {bit} of byte {at} of {}", file.display()),
                );
            }
            for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                attempt(
                    name,
                    &file,
                    &bytes[..len],
                    &format!("{} cut to {len}", file.display()),
                );
            }
        }
    }
    eprintln!("damaged of all: {damaged:?}");
    // Every cut table is found, and so are most flips.
    for (name, (hits, all)) in damaged {
        assert!(hits * 4 >= all * 3, "{name}: only {hits} of {all} found");
    }
}

/// RocksDB never comes back from a manifest changed like this.
#[test]
fn a_manifest_record_of_another_type_is_damage() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("index");
    sample(&path);
    let manifest = files(&path, "MANIFEST").pop().unwrap();
    let whole = std::fs::read(&manifest).unwrap();
    let (mut at, mut records) = (0, 0);
    while at < whole.len() {
        let mut bytes = whole.clone();
        assert_eq!(bytes[at + 6], 1, "not a whole record");
        for kind in [0, 2, 5, 9, 11, 130, 255] {
            bytes[at + 6] = kind;
            std::fs::write(&manifest, &bytes).unwrap();
            let error = Rocks::open(&path, &options(&path)).unwrap_err();
            assert!(matches!(error, IndexError::Damaged { .. }), "{error:?}");
        }
        at += 7 + usize::from(u16::from_le_bytes([whole[at + 4], whole[at + 5]]));
        records += 1;
    }
    assert!(records > 4, "only {records} records");
    std::fs::write(&manifest, &whole).unwrap();
    assert_eq!(open(&path).watermark().unwrap(), 4);
}

#[test]
fn missing_files_are_damage() {
    let folder = TempDir::new().unwrap();
    let whole = folder.path().join("whole");
    let states = sample(&whole);
    for part in ["CURRENT", "MANIFEST", ".sst"] {
        for file in files(&whole, part) {
            let copied = folder.path().join("copy");
            copy(&whole, &copied);
            std::fs::remove_file(copied.join(file.file_name().unwrap())).unwrap();
            let what = format!("without {}", file.display());
            assert!(damaged_or_true(&copied, &states, &what), "{what}");
            Rocks::destroy(&copied).unwrap();
            assert!(!copied.exists());
            assert_eq!(read_all(&open(&copied)).unwrap(), State::new());
            Rocks::destroy(&copied).unwrap();
        }
    }
}

/// Damage that opening does not see is met by a read, and then remembered.
#[test]
fn damage_found_by_a_read_is_remembered() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("index");
    {
        let index = open(&path);
        let mut batch = Batch::new();
        for row in 0..2000_u32 {
            batch.put(Table::Blob, row.to_be_bytes(), vec![row as u8; 50]);
        }
        index.apply(batch).unwrap();
        index.flush().unwrap();
    }
    let largest = files(&path, ".sst")
        .into_iter()
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    {
        let index = open(&path);
        let error = index.get(Table::Blob, &0_u32.to_be_bytes()).unwrap_err();
        assert!(matches!(error, IndexError::Damaged { .. }), "{error:?}");
        // Other blocks, other tables and writes go on.
        let last = index.get(Table::Blob, &1999_u32.to_be_bytes()).unwrap();
        assert_eq!(last.unwrap(), vec![1999_u32 as u8; 50]);
        let mut batch = Batch::new();
        batch.put(Table::Meta, "a", "b");
        index.apply(batch).unwrap();
        let scanned = index.scan(Table::Blob, &[], &mut |_, _| ControlFlow::Continue(()));
        assert!(
            matches!(scanned, Err(IndexError::Damaged { .. })),
            "{scanned:?}"
        );
    }
    let error = Rocks::open(&path, &options(&path)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("found while reading: Corruption"),
        "{error}"
    );
    Rocks::destroy(&path).unwrap();
    assert!(rows(&open(&path), Table::Blob).is_empty());
}

#[test]
fn an_index_whose_making_was_cut_short_is_damaged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("index");
    let whole = folder.path().join("whole");
    drop(open(&whole));
    std::fs::create_dir(&path).unwrap();
    let identity = whole.join("IDENTITY");
    std::fs::copy(identity, path.join("IDENTITY")).unwrap();
    let error = Rocks::open(&path, &options(&path)).unwrap_err();
    assert!(matches!(error, IndexError::Damaged { .. }), "{error:?}");
    // A database without our rows.
    Rocks::destroy(&path).unwrap();
    let mut set = rocksdb::Options::default();
    set.create_if_missing(true);
    set.create_missing_column_families(true);
    let names = [
        "meta.1",
        "blob.1",
        "alias.1",
        "upload.1",
        "segment.1",
        "chunk.1",
        "ordinal.1",
        "scratch.1",
    ];
    drop(rocksdb::DB::open_cf(&set, &path, names).unwrap());
    let error = Rocks::open(&path, &options(&path)).unwrap_err();
    assert!(error.to_string().contains("no format number"), "{error}");
}

#[test]
fn a_newer_index_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("index");
    sample(&path);
    let set = rocksdb::Options::default();
    let names = rocksdb::DB::list_cf(&set, &path).unwrap();
    {
        let db = rocksdb::DB::open_cf(&set, &path, &names).unwrap();
        db.put("format", (FORMAT + 1).to_le_bytes()).unwrap();
        db.flush().unwrap();
    }
    let error = Rocks::open(&path, &options(&path)).unwrap_err();
    assert!(
        matches!(&error, IndexError::Newer { found, supported: FORMAT, .. } if found == "format 2"),
        "{error:?}"
    );
    {
        let mut db = rocksdb::DB::open_cf(&set, &path, &names).unwrap();
        db.put("format", FORMAT.to_le_bytes()).unwrap();
        db.create_cf("blob.2", &set).unwrap();
    }
    let error = Rocks::open(&path, &options(&path)).unwrap_err();
    assert!(
        matches!(&error, IndexError::Newer { found, .. } if found == "a table blob.2"),
        "{error:?}"
    );
    {
        let mut db = rocksdb::DB::open_cf(
            &set,
            &path,
            names.iter().map(String::as_str).chain(["blob.2"]),
        )
        .unwrap();
        db.drop_cf("blob.2").unwrap();
    }
    assert_eq!(open(&path).watermark().unwrap(), 4);
}

#[test]
fn a_second_opening_is_an_error_and_not_damage() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("index");
    let index = open(&path);
    let error = Rocks::open(&path, &options(&path)).unwrap_err();
    assert!(matches!(error, IndexError::Io { .. }), "{error:?}");
    drop(index);
    open(&path);
}

#[test]
fn destroy_leaves_a_foreign_folder_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("index");
    sample(&path);
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    let error = Rocks::destroy(&path).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(open(&path).watermark().unwrap(), 4);
    std::fs::remove_file(path.join("notes.txt")).unwrap();
    Rocks::destroy(&path).unwrap();
    Rocks::destroy(&path).unwrap();
}

fn numbered(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Blob, number.to_be_bytes(), vec![1; 4096]);
    batch.set_watermark(number);
    batch
}

/// The folder goes away below an open index: a flush in the background fails,
/// and from then on nothing more is applied.
#[test]
fn a_failed_background_flush_poisons_writes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("index");
    let index = open(&path);
    index.apply(numbered(1)).unwrap();
    index.flush().unwrap();
    std::fs::rename(&path, folder.path().join("away")).unwrap();
    let error = (2..20_000)
        .find_map(|number| {
            std::thread::sleep(std::time::Duration::from_micros(200));
            index.apply(numbered(number)).err()
        })
        .expect("no write was ever refused");
    assert!(matches!(error, IndexError::Io { .. }), "{error:?}");
    // The folder is back, the refusal stays: rows were not written in order.
    std::fs::rename(folder.path().join("away"), &path).unwrap();
    assert_eq!(index.apply(numbered(30_000)).unwrap_err(), error);
    assert_eq!(index.flush().unwrap_err(), error);
    assert_eq!(index.clear(Table::Blob).unwrap_err(), error);
    assert!(
        index
            .get(Table::Blob, &1_u64.to_be_bytes())
            .unwrap()
            .is_some()
    );
    drop(index);
    let watermark = open(&path).watermark().unwrap();
    assert!((1..30_000).contains(&watermark), "{watermark}");
}

/// A device of 6 MiB: `Full` until something is deleted, then on as before.
#[test]
fn a_full_device_refuses_and_recovers() {
    let folder = TempDir::new().unwrap();
    let device = folder.path().join("device");
    std::fs::create_dir(&device).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
        .arg(&device)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("a_full_device_refuses_and_recovers: skipped, cannot mount a tmpfs here");
        return;
    }
    let result = std::panic::catch_unwind(|| fill_and_recover(&device));
    let unmounted = std::process::Command::new("umount")
        .arg("-l")
        .arg(&device)
        .status();
    assert!(unmounted.unwrap().success());
    result.unwrap();
}

fn fill_and_recover(device: &Path) {
    let path = device.join("index");
    let ballast = device.join("ballast");
    let index = Rocks::open(
        &path,
        &Options {
            direct: false,
            ..options(&path)
        },
    )
    .unwrap();
    std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let mut next = 1;
    let error = loop {
        assert!(next < 20_000, "the device never filled");
        // Bytes that do not repeat, so that the device fills.
        let mut steps = Steps(next);
        let mut batch = numbered(next);
        batch.put(
            Table::Chunk,
            next.to_be_bytes(),
            (0..1024)
                .map(|_| steps.below(256) as u8)
                .collect::<Vec<_>>(),
        );
        match index.apply(batch).and_then(|()| {
            if next % 64 == 0 {
                index.flush().map(|_| ())
            } else {
                Ok(())
            }
        }) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, IndexError::Full { .. }), "{error:?}");
    assert!(
        index
            .get(Table::Blob, &1_u64.to_be_bytes())
            .unwrap()
            .is_some()
    );
    std::fs::remove_file(&ballast).unwrap();
    let start = std::time::Instant::now();
    loop {
        match index.apply(numbered(next + 1)).and_then(|()| index.flush()) {
            Ok(watermark) => {
                assert_eq!(watermark, next + 1);
                break;
            }
            Err(IndexError::Full { .. }) if start.elapsed().as_secs() < 60 => {
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            Err(error) => panic!("{:?} after there was room: {error:?}", start.elapsed()),
        }
    }
    drop(index);
    let index = Rocks::open(
        &path,
        &Options {
            direct: false,
            ..options(&path)
        },
    )
    .unwrap();
    assert_eq!(index.watermark().unwrap(), next + 1);
    assert!(
        index
            .get(Table::Blob, &(next - 1).to_be_bytes())
            .unwrap()
            .is_some()
    );
}

#[test]
fn an_idle_index_holds_little_memory() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("index");
    let full = Options {
        direct: options(&path).direct,
        ..Options::default()
    };
    let before = resident();
    let index = Rocks::open(&path, &full).unwrap();
    for number in 0..1000 {
        let mut batch = Batch::new();
        batch.put(Table::Blob, u64::to_be_bytes(number), vec![1; 40]);
        batch.set_watermark(number);
        index.apply(batch).unwrap();
    }
    index.flush().unwrap();
    let held = index.memory();
    eprintln!(
        "idle index: {held} bytes by its own count, process grew {} KiB",
        (resident() - before) / 1024
    );
    assert!(held < 4 << 20, "{held} bytes");
}

/// Resident memory of this process, in bytes. Other tests run beside.
fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}
