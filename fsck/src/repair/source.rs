//! Where the bytes of a lost blob may come from: another store's folder, an
//! OCI layout, a registry.
//!
//! A source hands bytes on; whether they are the blob's is decided by who asks.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use orlop_format::digest::Digest;

use super::log::Log;
use crate::catalog::blobs::{Blobs, Life, Reader};
use crate::file::trouble;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::trouble::{Result, Trouble};
use crate::{lock, superblock};

/// Bytes handed on at once.
const PIECE: usize = 256 * 1024;

/// Has blobs, perhaps.
pub(super) trait Source {
    /// How it is named in a report.
    fn name(&self) -> &str;

    /// Hands a blob's bytes on. False: it does not have it.
    fn fetch(&mut self, digest: &Digest, sink: &mut dyn FnMut(&[u8]) -> Result<()>)
    -> Result<bool>;
}

/// Opens what a person named: a URL, a store's folder or an OCI layout.
pub(super) fn open(text: &str, scratch: &Scratch) -> Result<Box<dyn Source>> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return registry(text);
    }
    let folder = PathBuf::from(text);
    if folder.join("oci-layout").is_file() {
        return Ok(Box::new(Layout {
            name: text.to_owned(),
            blobs: folder.join("blobs"),
        }));
    }
    Ok(Box::new(Store::open(text, &folder, scratch)?))
}

#[cfg(feature = "registry")]
fn registry(text: &str) -> Result<Box<dyn Source>> {
    Ok(Box::new(super::registry::Registry::open(text)?))
}

#[cfg(not(feature = "registry"))]
fn registry(_: &str) -> Result<Box<dyn Source>> {
    Err(Trouble::Refused(
        "this orlop-fsck was built without registries as a source; name a folder".to_owned(),
    ))
}

/// An OCI image layout: a folder with `oci-layout` and `blobs/`.
struct Layout {
    name: String,
    blobs: PathBuf,
}

impl Source for Layout {
    fn name(&self) -> &str {
        &self.name
    }

    fn fetch(
        &mut self,
        digest: &Digest,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let path = self
            .blobs
            .join(digest.algorithm().name())
            .join(digest.hex());
        let mut file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(trouble("open", &path)(error)),
        };
        pour(&mut file, sink, |error| trouble("read", &path)(error))?;
        Ok(true)
    }
}

/// Hands on all that a reader has.
pub(super) fn pour(
    from: &mut dyn std::io::Read,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    failed: impl Fn(std::io::Error) -> Trouble,
) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(len) => sink(piece.get(..len).unwrap_or_default())?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Another store, stopped.
struct Store {
    name: String,
    log: Log,
    reader: Reader,
    _lock: Option<std::fs::File>,
}

impl Store {
    fn open(name: &str, folder: &Path, scratch: &Scratch) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Trouble::NotAStore(folder.to_owned()));
        }
        let lock = lock::take(folder)?;
        let mut report = Report::new(folder);
        let Some(slot) = superblock::check(folder, &mut report)? else {
            return Err(Trouble::NotAStore(folder.to_owned()));
        };
        Ok(Self {
            name: name.to_owned(),
            log: Log::read(folder, scratch, &slot)?,
            reader: Reader::new(folder),
            _lock: lock,
        })
    }
}

impl Source for Store {
    fn name(&self) -> &str {
        &self.name
    }

    fn fetch(
        &mut self,
        digest: &Digest,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        match self.log.find(digest)? {
            Some(blob) if blob.life == Life::Live => self.reader.read(&blob, sink),
            _ => Ok(false),
        }
    }
}
