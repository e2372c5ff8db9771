//! Records that repair adds to the log: one more journal file, written whole.
//!
//! Invariant: nothing that is there is written to. The file appears under its
//! name only when all of it is durable; its header says where the one before
//! ends, so that it cuts a torn tail as a start would
//! (docs/adr/0015-repair.md).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use orlop_format::BLOCK;
use orlop_format::group::{Builder, MAX_GROUP, Volume, footprint};
use orlop_format::journal::{FileHeader, file_name};
use orlop_format::location::Home;
use orlop_format::record::Record;
use orlop_format::superblock::Superblock;

use super::Site;
use super::hands::Hands;
use super::heal::Healed;
use super::log::End;
use crate::file::trouble;
use crate::trouble::{Result, Trouble};

/// Zeros that are written at once.
const ZEROS: usize = 1024 * 1024;

/// Writes `records` with their payloads as the journal's next file, and then puts
/// the segments that they name in place, and that file. Writing comes first: a
/// disk that is full leaves the store as it was.
pub(super) fn append(
    hands: &mut Hands<'_>,
    Site { folder, own }: Site<'_>,
    slot: &Superblock,
    end: &End,
    mut healed: Healed,
) -> Result<()> {
    let header = FileHeader {
        store: slot.store,
        sequence: end.sequence.saturating_add(1),
        salt: random()?,
        first_lsn: end.next_lsn,
        first_group: end.next_group,
        previous: end.sequence,
        previous_end: end.offset,
        chain: end.chain,
    };
    let name = file_name(header.sequence);
    let made = own.join(&name);
    let segments = std::mem::take(&mut healed.segments);
    hands.write(&made, |file| {
        Pen::new(file, &made, &header)?.write(healed.records(), end.len)
    })?;
    let place = folder.join("journal").join(name);
    let mut placed = Vec::new();
    for (segment, to) in segments {
        match hands.rename(&segment, &to) {
            Ok(()) => placed.push((segment, to)),
            Err(trouble) => return Err(take_back(hands, placed, trouble)),
        }
    }
    match hands.rename(&made, &place) {
        // Without its name nothing refers to the segments. If only the sync of
        // the folder failed, it has it.
        Err(trouble) if place.symlink_metadata().is_err() => Err(take_back(hands, placed, trouble)),
        done => done,
    }
}

/// Takes segments out of their places again, so that a repair that cannot be
/// done, however often, fills no disk.
fn take_back(hands: &mut Hands<'_>, placed: Vec<(PathBuf, PathBuf)>, trouble: Trouble) -> Trouble {
    for (segment, to) in placed {
        // One that stays is an orphan, which the check notes.
        let _ = hands.rename(&to, &segment);
    }
    trouble
}

/// A random salt.
pub(super) fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Trouble::Refused(format!("no random number can be had: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}

struct Pen<'a> {
    file: &'a mut File,
    path: &'a Path,
    volume: Volume,
    offset: u64,
    lsn: u64,
    group: u64,
    chain: u32,
}

impl<'a> Pen<'a> {
    fn new(file: &'a mut File, path: &'a Path, header: &FileHeader) -> Result<Self> {
        file.write_all(&header.encode())
            .map_err(trouble("write", path))?;
        Ok(Self {
            file,
            path,
            volume: Volume {
                home: Home::Journal(header.sequence),
                salt: header.salt,
            },
            offset: BLOCK as u64,
            lsn: header.first_lsn,
            group: header.first_group,
            chain: header.chain,
        })
    }

    /// Writes all records, a mark, and zeros up to `len`: the server goes on in
    /// this file.
    fn write(
        mut self,
        records: impl Iterator<Item = Result<(Record, Vec<u8>)>>,
        len: u64,
    ) -> Result<()> {
        let mut builder = self.builder();
        for record in records {
            let (record, payload) = record?;
            let body = record.encode();
            let more = footprint(body.len(), payload.len());
            if builder.len().saturating_add(more) > MAX_GROUP / 2 && !builder.is_empty() {
                self.flush(builder)?;
                builder = self.builder();
            }
            builder.push_encoded(self.lsn, record.kind(), body, payload);
            self.lsn = self.lsn.saturating_add(1);
        }
        builder.push(self.lsn, &Record::Mark { clean: true }, &[]);
        self.flush(builder)?;
        while self.offset < len {
            let left = usize::try_from(len.saturating_sub(self.offset)).unwrap_or(ZEROS);
            self.put(&vec![0; left.min(ZEROS)])?;
        }
        Ok(())
    }

    fn builder(&self) -> Builder {
        let offset = u32::try_from(self.offset).unwrap_or(u32::MAX);
        Builder::new(self.volume, offset, self.group, self.chain)
    }

    fn flush(&mut self, builder: Builder) -> Result<()> {
        let (bytes, chain) = builder.finish();
        self.put(&bytes)?;
        self.chain = chain;
        self.group = self.group.saturating_add(1);
        if self.offset > u64::from(u32::MAX) {
            return Err(Trouble::Refused(
                "too much for one journal file; repair fewer blobs at once".to_owned(),
            ));
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(trouble("write", self.path))?;
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        Ok(())
    }
}
