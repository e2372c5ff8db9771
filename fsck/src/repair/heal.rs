//! Blobs whose bytes come back from a second source: fetched, compared with
//! their digest, written as new extents or payloads, and named in the log.
//!
//! Invariant: bytes count only when the digest that was asked for is theirs.
//! A blob's damaged life is put into quarantine by the record in front of its
//! new commit, as the server does when a damaged blob is pushed again. A blob
//! is committed once, however many of its digests are asked for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use orlop_format::BLOCK;
use orlop_format::checksum;
use orlop_format::digest::{Algorithm, Digest, Hasher};
use orlop_format::location::{Class, Extent, SegmentId};
use orlop_format::record::{Commit, INLINE_LIMIT, MAX_EXTENTS, Record, UploadId};
use orlop_format::segment::{self, ExtentHeader, Footer, MAX_EXTENT, MAX_FRAMES};
use orlop_format::superblock::Superblock;

use super::Site;
use super::append::random;
use super::hands::Hands;
use super::links::Links;
use super::log::Log;
use super::source::Source;
use crate::catalog::blobs::{Blobs, Life};
use crate::catalog::note;
use crate::file::trouble;
use crate::trouble::{Result, Trouble};

/// Bytes of a segment, as the server fills them.
const SEGMENT: u64 = 256 * 1024 * 1024;

/// Bytes of a blob whose size is not known, at most: as many as a commit can
/// name.
const LARGEST: u64 = MAX_EXTENTS as u64 * MAX_EXTENT as u64;

/// A blob that a source had.
struct Fetched {
    sha256: [u8; 32],
    /// Further digests that were asked for.
    aliases: Vec<Digest>,
    size: u64,
    /// Its bytes, in repair's own folder.
    file: PathBuf,
    extents: Vec<Extent>,
}

/// What is to be written to the log, and what was found where.
#[derive(Default)]
pub(super) struct Healed {
    records: Vec<Record>,
    commits: Vec<(Commit, Option<PathBuf>)>,
    /// Segments, written whole in repair's own folder, and where they belong.
    pub(super) segments: Vec<(PathBuf, PathBuf)>,
    pub(super) done: Vec<String>,
    pub(super) left: Vec<String>,
}

impl Healed {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.commits.is_empty()
    }

    /// How many records there are.
    pub(super) fn len(&self) -> u64 {
        (self.records.len() as u64).saturating_add(self.commits.len() as u64)
    }

    /// Names a blob's present life as damaged, if it has one.
    fn quarantine(&mut self, log: &Log, digest: &Digest) -> Result<bool> {
        let known = log.find(digest)?.filter(|blob| blob.life != Life::Dead);
        let record = known.map(|blob| Record::Quarantine {
            sha256: blob.sha256,
            birth: blob.birth,
        });
        self.records.extend(record.clone());
        Ok(record.is_some())
    }

    /// The records, with their payloads.
    pub(super) fn records(self) -> impl Iterator<Item = Result<(Record, Vec<u8>)>> {
        let first = self
            .records
            .into_iter()
            .map(|record| Ok((record, Vec::new())));
        let commits = self.commits.into_iter().map(|(commit, file)| {
            let payload = match file {
                Some(file) => std::fs::read(&file).map_err(trouble("read", &file))?,
                None => Vec::new(),
            };
            Ok((Record::Commit(commit), payload))
        });
        first.chain(commits)
    }
}

/// What is to be done about blobs.
#[derive(Debug, Default, Clone)]
pub(super) struct Orders {
    /// Blobs whose bytes are damaged, whatever the log says of them.
    pub(super) damaged: BTreeSet<Digest>,
    /// Blobs whose file is missing: damaged as soon as a source has given them.
    pub(super) gone: BTreeSet<Digest>,
    /// Blobs that a source is asked for.
    pub(super) wanted: Vec<Digest>,
    /// Further digests that the log does not know and the bytes prove, with the
    /// SHA-256 they mean.
    pub(super) further: Vec<(Digest, Digest)>,
    /// Links that repositories should have, if the blobs are here.
    pub(super) links: Links,
}

impl Orders {
    pub(super) fn is_empty(&self) -> bool {
        self.damaged.is_empty() && self.wanted.is_empty() && self.further.is_empty()
    }
}

/// Fetches what the sources have and writes it to new segments, which are not in
/// their place yet.
pub(super) fn heal(
    hands: &mut Hands<'_>,
    site: Site<'_>,
    slot: &Superblock,
    log: &Log,
    orders: &Orders,
    sources: &mut [Box<dyn Source>],
) -> Result<Healed> {
    let mut healed = Healed::default();
    for digest in &orders.damaged {
        if healed.quarantine(log, digest)? {
            healed
                .done
                .push(format!("blob {digest} was put into quarantine"));
        }
    }
    for (alias, blob) in &orders.further {
        let record = Record::Alias {
            sha256: blob.bytes().try_into().unwrap_or_default(),
            alias: *alias,
        };
        healed.records.push(record);
        healed.done.push(format!(
            "digest {alias} was written to the log as one of blob {blob}"
        ));
    }
    let mut fetched = bring(hands, site, log, orders, sources, &mut healed)?;
    let (seals, made) = segments(hands, site, slot, log.next_segment, &mut fetched)?;
    healed.records.extend(seals);
    healed.segments = made;
    for blob in &fetched {
        let main = sha256(&blob.sha256)?;
        let is_its = |digest: &Digest| *digest == main || blob.aliases.contains(digest);
        let links = orders.links.iter().filter(|(_, digest)| is_its(digest));
        let notes = links.map(|(name, digest)| Record::Note(note::link(name, digest, blob.size)));
        healed.records.extend(notes);
    }
    for (number, blob) in fetched.into_iter().enumerate() {
        let inline = blob.extents.is_empty();
        let commit = Commit {
            sha256: blob.sha256,
            aliases: blob.aliases,
            ordinal: log.next_ordinal.saturating_add(number as u64),
            size: blob.size,
            internal: false,
            upload: None,
            extents: blob.extents,
            note: Vec::new(),
        };
        healed.commits.push((commit, inline.then_some(blob.file)));
    }
    Ok(healed)
}

/// Fetches what is wanted and not in the store: each blob once, with those of its
/// digests that were asked for.
fn bring(
    hands: &mut Hands<'_>,
    site: Site<'_>,
    log: &Log,
    orders: &Orders,
    sources: &mut [Box<dyn Source>],
    healed: &mut Healed,
) -> Result<Vec<Fetched>> {
    let mut fetched: Vec<Fetched> = Vec::new();
    for (number, digest) in orders.wanted.iter().enumerate() {
        let file = site.own.join(format!("blob-{number}"));
        let known = log.find(digest)?.filter(|blob| blob.life != Life::Dead);
        let same = |sha256: &[u8; 32]| fetched.iter().position(|blob| blob.sha256 == *sha256);
        if known
            .as_ref()
            .is_some_and(|known| same(&known.sha256).is_some())
        {
            continue;
        }
        let most = known.map_or(LARGEST, |blob| blob.size);
        let (mut blob, from) = match fetch(hands, (digest, most), &file, sources)? {
            Ok(got) => got,
            Err(reason) => {
                healed.left.push(format!("blob {digest}: {reason}"));
                continue;
            }
        };
        healed
            .done
            .push(format!("blob {digest} was restored from {from}"));
        let first = same(&blob.sha256).and_then(|at| fetched.get_mut(at));
        match first {
            Some(first) => first.aliases.append(&mut blob.aliases),
            None if whole(log, orders, &blob.sha256)? => {
                let records = blob.aliases.into_iter().map(|alias| Record::Alias {
                    sha256: blob.sha256,
                    alias,
                });
                healed.records.extend(records);
            }
            None => {
                let main = sha256(&blob.sha256)?;
                if orders.gone.contains(&main) {
                    healed.quarantine(log, &main)?;
                }
                fetched.push(blob);
            }
        }
    }
    Ok(fetched)
}

/// Whether the store has the bytes: a digest that it did not know is theirs.
fn whole(log: &Log, orders: &Orders, main: &[u8; 32]) -> Result<bool> {
    let digest = sha256(main)?;
    let is_live = log
        .find(&digest)?
        .is_some_and(|blob| blob.life == Life::Live);
    Ok(is_live && !orders.damaged.contains(&digest) && !orders.gone.contains(&digest))
}

fn sha256(bytes: &[u8; 32]) -> Result<Digest> {
    Digest::new(Algorithm::Sha256, bytes).map_err(|error| Trouble::Refused(error.to_string()))
}

type Got = std::result::Result<(Fetched, String), String>;

/// Asks the sources in turn; the text says why none of them served.
fn fetch(
    hands: &mut Hands<'_>,
    (digest, most): (&Digest, u64),
    to: &Path,
    sources: &mut [Box<dyn Source>],
) -> Result<Got> {
    let mut reasons = Vec::new();
    for source in sources {
        let mut given = None;
        hands.write(to, |file| {
            let mut sha256 = Hasher::new(Algorithm::Sha256);
            let mut asked = Hasher::new(digest.algorithm());
            let mut size = 0u64;
            let answer = source.fetch(digest, &mut |bytes| {
                sha256.update(bytes);
                asked.update(bytes);
                size = size.saturating_add(bytes.len() as u64);
                if size > most {
                    return Err(Trouble::Refused(format!("more than its {most} bytes")));
                }
                file.write_all(bytes).map_err(trouble("write", to))
            });
            given = Some(match answer {
                Ok(true) if asked.finish() == *digest => Ok((sha256.finish(), size)),
                Ok(true) => Err("other bytes under this digest".to_owned()),
                Ok(false) => Err("it does not have it".to_owned()),
                Err(Trouble::Io { op, path, source }) if path == to => {
                    return Err(Trouble::Io { op, path, source });
                }
                Err(error) => Err(error.to_string()),
            });
            Ok(())
        })?;
        match given {
            Some(Ok((sha256, size))) => {
                let sha256 = sha256.bytes().try_into().unwrap_or_default();
                let other = digest.algorithm() != Algorithm::Sha256;
                let blob = Fetched {
                    sha256,
                    aliases: other.then_some(*digest).into_iter().collect(),
                    size,
                    file: to.to_owned(),
                    extents: Vec::new(),
                };
                return Ok(Ok((blob, source.name().to_owned())));
            }
            Some(Err(reason)) => reasons.push(format!("{}: {reason}", source.name())),
            None => {}
        }
    }
    Ok(Err(reasons.join("; ")))
}

/// Seals, and files with the places where they belong.
type Made = (Vec<Record>, Vec<(PathBuf, PathBuf)>);

/// Writes the bytes of large blobs to new raw segments, which take no more.
fn segments(
    hands: &mut Hands<'_>,
    Site { folder, own }: Site<'_>,
    slot: &Superblock,
    first: u64,
    blobs: &mut [Fetched],
) -> Result<Made> {
    let mut work: Vec<&mut Fetched> = blobs
        .iter_mut()
        .filter(|blob| blob.size > INLINE_LIMIT as u64)
        .collect();
    let mut seals = Vec::new();
    let (mut at, mut done) = (0usize, 0u64);
    let mut id = first;
    let mut made = Vec::new();
    while at < work.len() {
        let header = segment::FileHeader {
            store: slot.store,
            segment: SegmentId {
                volume: 0,
                class: Class::Raw,
                generation: 0,
                id,
            },
            salt: random()?,
            opened: 0,
        };
        let name = segment::file_name(&header.segment);
        let path = own.join(&name);
        hands.write(&path, |file| {
            let mut pen = Pen::new(file, &path, header)?;
            while let Some(blob) = work.get_mut(at) {
                let left = blob.size.saturating_sub(done);
                let len = left.min(MAX_EXTENT as u64);
                if !pen.fits(len) {
                    break;
                }
                let extent = pen.extent(blob, done, len)?;
                blob.extents.push(extent);
                done = done.saturating_add(len);
                if done >= blob.size {
                    (at, done) = (at.saturating_add(1), 0);
                }
            }
            seals.push(pen.seal()?);
            Ok(())
        })?;
        made.push((path, folder.join("data").join("raw").join(name)));
        id = id.saturating_add(1);
    }
    Ok((seals, made))
}

struct Pen<'a> {
    file: &'a mut File,
    path: &'a Path,
    header: segment::FileHeader,
    offset: u64,
    frames: Vec<(u32, u32)>,
}

impl<'a> Pen<'a> {
    fn new(file: &'a mut File, path: &'a Path, header: segment::FileHeader) -> Result<Self> {
        let mut pen = Self {
            file,
            path,
            header,
            offset: 0,
            frames: Vec::new(),
        };
        pen.put(&header.encode())?;
        Ok(pen)
    }

    fn fits(&self, len: u64) -> bool {
        let end = self
            .offset
            .saturating_add(BLOCK as u64)
            .saturating_add(len.next_multiple_of(BLOCK as u64));
        end <= SEGMENT && self.frames.len() < MAX_FRAMES
    }

    fn extent(&mut self, blob: &Fetched, from: u64, len: u64) -> Result<Extent> {
        let mut source = File::open(&blob.file).map_err(trouble("open", &blob.file))?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(MAX_EXTENT)];
        source
            .seek(SeekFrom::Start(from))
            .and_then(|_| source.read_exact(&mut bytes))
            .map_err(trouble("read", &blob.file))?;
        let mut upload = [0; 16];
        upload.copy_from_slice(blob.sha256.get(..16).unwrap_or(&[0; 16]));
        let header = ExtentHeader {
            upload: UploadId(upload),
            offset: from,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            table: checksum::table(&bytes),
        };
        let offset = u32::try_from(self.offset).unwrap_or(u32::MAX);
        let (block, body) = header.encode(&self.header, 0);
        self.put(&block)?;
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        self.put(&bytes)?;
        self.frames.push((offset, body));
        Ok(Extent {
            segment: self.header.segment,
            offset,
            len: header.len,
            body,
        })
    }

    fn seal(mut self) -> Result<Record> {
        let used = u32::try_from(self.offset).unwrap_or(u32::MAX);
        let footer = Footer {
            frames: std::mem::take(&mut self.frames),
        };
        let bytes = footer.encode(&self.header, 0);
        self.put(&bytes)?;
        Ok(Record::Seal {
            segment: self.header.segment,
            used,
            hash: footer.hash(),
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(trouble("write", self.path))?;
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        Ok(())
    }
}
