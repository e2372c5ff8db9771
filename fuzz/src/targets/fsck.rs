//! fsck and the start of the engine over a damaged store.
//!
//! The input is a list of changes to the golden store: bits, sectors, files,
//! and fields behind checksums that are made to hold again. fsck never panics,
//! changes nothing, says the same twice, and says of each finding what was
//! expected, found and to do. The engine never panics either, and what it
//! serves has the digest that was asked for. After one change, a store that
//! fsck calls clean opens, and has as many blobs as fsck counted; after several,
//! the record that would prove one of them may be gone too.

use std::path::Path;

use arbitrary::{Result, Unstructured};
use orlop_disk::blocking::Blocking;
use orlop_engine::{Algorithm, Config, Digest, Error, MemoryIndex, Progress, Store, System};
use orlop_format::{BLOCK, checksum};

use crate::golden::{self, File};

/// Most changes of one input.
const CHANGES: usize = 4;
/// Most blocks by which a file grows.
const GROWTH: usize = 8;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut files = golden::files().to_vec();
    let (mut forged, mut changes) = (false, 0);
    let mut u = Unstructured::new(data);
    for _ in 0..CHANGES {
        if u.is_empty() || files.is_empty() {
            break;
        }
        forged |= change(&mut u, &mut files).unwrap_or(false);
        changes += 1;
    }
    let folder = tempfile::tempdir_in(crate::corpus::scratch()).unwrap();
    golden::write(folder.path(), &files);
    let report = orlop_fsck::check(folder.path());
    let again = orlop_fsck::check(folder.path());
    match (&report, &again) {
        (Ok(report), Ok(again)) => {
            assert_eq!(report.findings(), again.findings());
            assert_eq!(report.counts, again.counts);
            assert_eq!(report.clean(), report.findings().is_empty());
            for finding in report.findings() {
                assert!(!finding.object.to_string().is_empty() && !finding.remedy.is_empty());
                assert!(!finding.expected.is_empty() && !finding.found.is_empty());
            }
            assert!(!report.to_string().is_empty());
            assert!(serde_json::to_string(report).is_ok());
        }
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        _ => panic!("fsck says one thing and then another"),
    }
    for (path, bytes) in &files {
        let now = std::fs::read(folder.path().join(path)).unwrap();
        assert!(now == *bytes, "fsck changed {}", path.display());
    }
    if data.is_empty() {
        assert!(report.as_ref().is_ok_and(orlop_fsck::Report::clean));
    }
    let clean = report.ok().filter(orlop_fsck::Report::clean);
    let served = engine(folder.path(), forged);
    if let Some(report) = clean.filter(|_| changes <= 1) {
        match served {
            Ok(served) => assert!(
                forged || served == report.counts.blobs,
                "{served} blobs are served, fsck counted {}",
                report.counts.blobs
            ),
            Err(error) => panic!("fsck calls it clean, and it does not open: {error}"),
        }
    }
}

/// Opens the store and reads every blob; how many there are.
fn engine(folder: &Path, forged: bool) -> std::result::Result<u64, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = Config::new(folder.to_owned());
        config.journal_file = 4 << 20;
        config.segment = 16 << 20;
        config.reserve = Some(0);
        let index = MemoryIndex::default();
        let disk = Blocking::new(1).unwrap();
        let store =
            Store::open(config, System::start(), disk, &index, &Progress::default()).await?;
        let mut served = 0;
        for bytes in golden::blobs() {
            let digest = Digest::of(Algorithm::Sha256, bytes);
            let Ok(blob) = store.read(&digest) else {
                continue;
            };
            served += 1;
            if let Ok(found) = blob.bytes(1 << 20).await {
                assert!(forged || found == *bytes, "{digest} has other bytes");
            }
        }
        let _ = store.close().await;
        Ok(served)
    })
}

/// Makes one change; whether it made checksums hold again.
fn change(u: &mut Unstructured<'_>, files: &mut Vec<File>) -> Result<bool> {
    let which = u.choose_index(files.len())?;
    let verb = u.int_in_range(0..=11u8)?;
    let (_, bytes) = &mut files[which];
    let at = u.choose_index(bytes.len().max(1))?;
    let block = at / BLOCK * BLOCK;
    let end = |len: usize| (at / len * len + len).min(bytes.len());
    match verb {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << u.int_in_range(0..=7)?,
        1 if !bytes.is_empty() => bytes[at] = u.arbitrary()?,
        2 => {
            let end = end(512);
            bytes[at / 512 * 512..end].fill(0);
        }
        3 => {
            let end = end(BLOCK);
            bytes[block..end].fill(0);
        }
        4 => bytes.truncate(at),
        5 => {
            let more = u.int_in_range(1..=GROWTH)? * BLOCK;
            bytes.resize(bytes.len() + more, 0);
        }
        6 => {
            files.remove(which);
        }
        7 => {
            let (_, other) = &files[u.choose_index(files.len())?];
            let from = u.choose_index((other.len() / BLOCK).max(1))? * BLOCK;
            let copy: Vec<u8> = other.iter().skip(from).take(BLOCK).copied().collect();
            let bytes = &mut files[which].1;
            let end = (block + copy.len()).min(bytes.len());
            if block < end {
                bytes[block..end].copy_from_slice(&copy[..end - block]);
            }
        }
        8 => {
            let (path, bytes) = files[which].clone();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let other = u.int_in_range(1..=5u8)?;
            let name = name.replacen(
                |c: char| c.is_ascii_digit() && c != '0',
                &other.to_string(),
                1,
            );
            let path = path.with_file_name(name);
            if u.arbitrary()? {
                files.remove(which);
            }
            files.retain(|(other, _)| *other != path);
            files.push((path, bytes));
        }
        9 | 10 => {
            record(u, bytes)?;
            return Ok(true);
        }
        _ => {
            first(u, bytes)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Changes fields of a file's first block, or a slot, and its checksum.
fn first(u: &mut Unstructured<'_>, bytes: &mut [u8]) -> Result<()> {
    let slot = u.int_in_range(0..=1)? * BLOCK;
    let (start, covered) = match bytes.get(..4) {
        Some(b"ORLS") => (0, 56),
        Some(b"ORLJ") => (0, 72),
        _ => (slot, 104),
    };
    let Some(block) = bytes.get_mut(start..start + covered + 4) else {
        return Ok(());
    };
    for _ in 0..u.int_in_range(1..=3)? {
        block[u.choose_index(covered)?] = u.arbitrary()?;
    }
    let crc = checksum::crc(&block[..covered]);
    block[covered..].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Changes fields of a record, and the checksums and chain from there on.
fn record(u: &mut Unstructured<'_>, bytes: &mut [u8]) -> Result<()> {
    let salt = match bytes.get(..4) {
        Some(b"ORLS") => 40,
        Some(b"ORLJ") => 32,
        _ => return Ok(()),
    };
    let Some(salt) = bytes.get(salt..salt + 8) else {
        return Ok(());
    };
    let salt = u64::from_le_bytes(salt.try_into().unwrap());
    let records: Vec<usize> = (BLOCK..bytes.len().saturating_sub(64))
        .step_by(8)
        .filter(|at| bytes[*at..].starts_with(b"ORLR"))
        .collect();
    if records.is_empty() {
        return Ok(());
    }
    let chosen = u.choose_index(records.len())?;
    let raw = bytes[records[chosen] + 5] >= 32;
    let mut chain = None;
    for at in &records[chosen..] {
        let rest = &mut bytes[*at..];
        let old = u32::from_le_bytes(rest[60..64].try_into().unwrap());
        let body =
            (u32::from_le_bytes(rest[40..44].try_into().unwrap()) as usize).min(rest.len() - 64);
        if *at == records[chosen] {
            let in_body = body > 0 && u.ratio(3, 4)?;
            for _ in 0..u.int_in_range(1..=3)? {
                let place = if in_body {
                    64 + u.choose_index(body)?
                } else {
                    5 + u.choose_index(51)?
                };
                rest[place] = u.arbitrary()?;
            }
        } else if let Some((before, now)) = chain {
            if rest[36..40] != u32::to_le_bytes(before) {
                break;
            }
            rest[36..40].copy_from_slice(&u32::to_le_bytes(now));
        }
        let body =
            (u32::from_le_bytes(rest[40..44].try_into().unwrap()) as usize).min(rest.len() - 64);
        let crc = checksum::crc(&rest[64..64 + body]);
        rest[48..52].copy_from_slice(&crc.to_le_bytes());
        let crc = checksum::salted(salt, &rest[..60]);
        rest[60..64].copy_from_slice(&crc.to_le_bytes());
        chain = Some((old, crc));
        if raw {
            break;
        }
    }
    Ok(())
}
