//! What the catalog's checks ask of the log: is there such a blob, and what
//! are its bytes?
//!
//! Owns the seam between the two. Reads a blob's bytes by the place the log
//! names, and gives them only if every checksum and the digest hold.

use std::path::{Path, PathBuf};

use orlop_format::BLOCK;
use orlop_format::checksum::{SPAN, crc};
use orlop_format::digest::{Algorithm, Digest, Hasher};
use orlop_format::group::{self, Volume};
use orlop_format::journal;
use orlop_format::location::{Extent, Home, Place, SegmentId};
use orlop_format::segment::{self, ExtentHeader};

use orlop_format::row::{self, State};
use rusqlite::{Connection, OptionalExtension as _};

use crate::file::Source;
use crate::options::path;
use crate::trouble::{Result, Trouble};

/// Whether a blob can be had, as the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    Quarantined,
    Dead,
}

/// Where a blob's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    Record(Place),
    Extents(Vec<Extent>),
}

/// What the log says of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) sha256: [u8; 32],
    pub(crate) life: Life,
    /// LSN of its commit, or of the tombstone that ended it.
    pub(crate) birth: u64,
    pub(crate) size: u64,
    /// Whether the store itself made it.
    pub(crate) internal: bool,
    pub(crate) at: At,
}

/// The blobs of the log, by any of their digests.
pub(crate) trait Blobs {
    /// What the log says of a blob; `None`: it never was.
    fn find(&self, digest: &Digest) -> Result<Option<Known>>;
}

/// Further digests and the SHA-256 they mean, in a database that SQLite keeps in
/// a nameless file as soon as it is large.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    sql: Option<Connection>,
}

impl Aliases {
    /// Adds one.
    pub(crate) fn push(&mut self, digest: &Digest, sha256: &[u8; 32]) -> Result<()> {
        let sql = match self.sql.take() {
            Some(sql) => sql,
            None => Self::open().map_err(unkept)?,
        };
        let pushed = sql
            .prepare_cached("INSERT OR REPLACE INTO alias VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute((digest.encode(), sha256)));
        self.sql = Some(sql);
        pushed.map(|_| ()).map_err(unkept)
    }

    fn open() -> rusqlite::Result<Connection> {
        let sql = Connection::open("")?;
        sql.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN; \
             CREATE TABLE alias (digest BLOB PRIMARY KEY, sha256 BLOB) WITHOUT ROWID",
        )?;
        Ok(sql)
    }

    fn get(&self, digest: &Digest) -> Result<Option<[u8; 32]>> {
        let Some(sql) = &self.sql else {
            return Ok(None);
        };
        sql.prepare_cached("SELECT sha256 FROM alias WHERE digest = ?1")
            .and_then(|mut select| {
                select
                    .query_row((digest.encode(),), |row| row.get(0))
                    .optional()
            })
            .map_err(unkept)
    }
}

fn unkept(error: rusqlite::Error) -> Trouble {
    Trouble::Refused(format!(
        "further digests cannot be kept in a scratch file: {error}"
    ))
}

/// The blobs of a log that was replayed.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// By SHA-256.
    pub(crate) blobs: crate::blobs::Blobs,
    /// By further digests.
    pub(crate) others: Aliases,
}

impl Blobs for Replayed {
    fn find(&self, digest: &Digest) -> Result<Option<Known>> {
        let sha256: Option<[u8; 32]> = match digest.algorithm() {
            Algorithm::Sha256 => digest.bytes().try_into().ok(),
            _ => self.others.get(digest)?,
        };
        let Some(sha256) = sha256 else {
            return Ok(None);
        };
        Ok(self.blobs.get(&sha256)?.map(|blob| Known {
            sha256,
            life: match blob.state {
                State::Live => Life::Live,
                State::Quarantined => Life::Quarantined,
                State::Dead => Life::Dead,
            },
            birth: blob.birth,
            size: blob.size,
            internal: blob.internal,
            at: match blob.form {
                row::Form::Inline(place) => At::Record(place),
                row::Form::Extents(extents) => At::Extents(extents),
            },
        }))
    }
}

/// Reads blobs of a data folder.
#[derive(Debug)]
pub(crate) struct Reader {
    folder: PathBuf,
}

impl Reader {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Hands a blob's bytes to `sink`, piece by piece. False when they are not
    /// what the log and the blob's SHA-256 say; what was handed on counts for
    /// nothing then.
    pub(crate) fn read(
        &self,
        blob: &Known,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut len = 0u64;
        let mut take = |bytes: &[u8]| {
            hasher.update(bytes);
            len = len.saturating_add(bytes.len() as u64);
            sink(bytes)
        };
        let whole = match &blob.at {
            At::Record(place) => self.record(place, &mut take)?,
            At::Extents(extents) => {
                let mut whole = true;
                for extent in extents {
                    whole = whole && self.extent(extent, &mut take)?;
                }
                whole
            }
        };
        Ok(whole && len == blob.size && hasher.finish().bytes() == blob.sha256)
    }

    /// A blob of at most `limit` bytes as a whole.
    pub(crate) fn bytes(&self, blob: &Known, limit: u64) -> Result<Option<Vec<u8>>> {
        if blob.size > limit {
            return Ok(None);
        }
        let mut all = Vec::new();
        let whole = self.read(blob, &mut |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(whole.then_some(all))
    }

    fn record(&self, place: &Place, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let Some((source, volume)) = self.volume(&place.home)? else {
            return Ok(false);
        };
        let bytes = source.read(u64::from(place.offset), place.len())?;
        match group::check(&volume, place, &bytes) {
            Ok(range) => {
                sink(bytes.get(range).unwrap_or_default())?;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    fn volume(&self, home: &Home) -> Result<Option<(Source, Volume)>> {
        let (source, salt) = match home {
            Home::Journal(sequence) => {
                let Some(source) = Source::open(&self.folder, &path(home))? else {
                    return Ok(None);
                };
                match journal::FileHeader::decode(&source.block(0)?) {
                    Ok(header) if header.sequence == *sequence => (source, header.salt),
                    _ => return Ok(None),
                }
            }
            Home::Segment(id) => match self.segment(id)? {
                Some((source, header)) => (source, header.salt),
                None => return Ok(None),
            },
        };
        Ok(Some((source, Volume { home: *home, salt })))
    }

    fn segment(&self, id: &SegmentId) -> Result<Option<(Source, segment::FileHeader)>> {
        let home = Home::Segment(*id);
        let Some(source) = Source::open(&self.folder, &path(&home))? else {
            return Ok(None);
        };
        match segment::FileHeader::decode(&source.block(0)?) {
            Ok(header) if header.segment == *id => Ok(Some((source, header))),
            _ => Ok(None),
        }
    }

    fn extent(&self, extent: &Extent, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let Some((source, file)) = self.segment(&extent.segment)? else {
            return Ok(false);
        };
        let start = u64::from(extent.offset);
        let header = match ExtentHeader::decode(&file, &source.block(start)?, Some(extent.body)) {
            Ok(header) if header.len == extent.len => header,
            _ => return Ok(false),
        };
        let bytes = source.read(start.saturating_add(BLOCK as u64), u64::from(extent.len))?;
        let whole = bytes.len() as u64 == u64::from(extent.len)
            && bytes
                .chunks(SPAN)
                .zip(&header.table)
                .all(|(span, wanted)| crc(span) == *wanted);
        if whole {
            sink(&bytes)?;
        }
        Ok(whole)
    }
}
