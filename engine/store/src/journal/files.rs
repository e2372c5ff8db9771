//! The files of the journal: names, headers, spares.
//!
//! Owns: which files there are and their open handles. Every file is
//! pre-written to its full length before it is used, so that a group costs one
//! write and one sync and never needs room. Knows nothing of groups.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use orlop_disk::{Create, Disk, DiskError, File, Kind, Lane, OpenOptions, Pool};
use orlop_format::BLOCK;
use orlop_format::group::Volume;
use orlop_format::journal::{FileHeader, file_name, parse_name};
use orlop_format::location::Home;

use crate::config::JOURNAL_SPARES;
use crate::error::{Error, Invalid, Result};
use crate::layout::Layout;
use crate::sync::Mutex;

/// What the name of a whole, unused file begins with.
const SPARE: &str = "spare-";
/// What the name of one that is being written begins with.
const MAKING: &str = "making-";
/// Bytes written at once when a file is pre-written.
const CHUNK: usize = 1024 * 1024;

/// One journal file.
#[derive(Clone)]
pub(crate) struct JournalFile {
    pub(crate) header: FileHeader,
    /// For readers of inline blobs.
    pub(crate) shared: Arc<dyn File>,
    /// For the writer's own thread.
    pub(crate) inline: Arc<dyn File>,
}

impl JournalFile {
    pub(crate) fn volume(&self) -> Volume {
        Volume {
            home: Home::Journal(self.header.sequence),
            salt: self.header.salt,
        }
    }
}

/// All journal files of a store.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    layout: Layout,
    pool: Pool,
    len: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, JournalFile>,
    spares: Vec<String>,
    next_spare: u64,
    /// Files that hold nothing, by sequence.
    unused: Vec<u64>,
}

impl Files {
    /// Opens what is in the journal's folder. Files below `first` are of no
    /// more use and become spares; a name that is not ours is reported and
    /// left alone.
    pub(crate) async fn open(
        disk: Arc<dyn Disk>,
        layout: Layout,
        pool: Pool,
        len: u64,
        store: [u8; 16],
        first: u64,
    ) -> Result<Self> {
        let files = Self {
            disk,
            layout,
            pool,
            len,
            state: Mutex::default(),
        };
        for name in files.disk.list(&files.layout.journal())? {
            let path = files.layout.journal().join(&name);
            if name.starts_with(MAKING) {
                files.disk.remove(&path)?;
            } else if let Some(number) = name.strip_prefix(SPARE) {
                files.keep_spare(&name, number, &path)?;
            } else if let Some(sequence) = parse_name(&name) {
                files.adopt(sequence, store, first).await?;
            } else {
                tracing::warn!(%name, "a file in the journal's folder is not the store's; it is left alone");
            }
        }
        Ok(files)
    }

    /// Takes a spare in that an earlier process made, if it is whole.
    fn keep_spare(&self, name: &str, number: &str, path: &Path) -> Result<()> {
        let options = OpenOptions {
            create: Create::Never,
            lane: Lane::Inline,
            direct: true,
            write: false,
        };
        let len = self.disk.open(path, options)?.len()?;
        let mut state = self.state.lock();
        state.next_spare = state.next_spare.max(number.parse().unwrap_or(0));
        if len == self.len && state.spares.len() < JOURNAL_SPARES {
            state.spares.push(name.to_owned());
            return Ok(());
        }
        drop(state);
        Ok(self.disk.remove(path)?)
    }

    /// Takes one existing file in.
    async fn adopt(&self, sequence: u64, store: [u8; 16], first: u64) -> Result<()> {
        let path = self.layout.journal_file(sequence);
        if sequence < first {
            self.state.lock().unused.push(sequence);
            return Ok(());
        }
        let inline = self.handle(sequence, Lane::Inline)?;
        let block = self.block(&inline, 0).await?;
        match FileHeader::decode(&block) {
            Ok(header) if header.sequence == sequence && header.store == store => {
                let shared = self.handle(sequence, Lane::Shared)?;
                self.state.lock().files.insert(
                    sequence,
                    JournalFile {
                        header,
                        shared,
                        inline,
                    },
                );
                Ok(())
            }
            Ok(header) if header.store != store => Err(Error::corrupt(
                path.display(),
                "it belongs to another store; move it away",
            )),
            Err(orlop_format::Malformed::Newer(what)) => Err(Invalid::Newer {
                what: format!("the {what} of {}", path.display()),
            }
            .into()),
            // Renamed for its next life, but the header of that never came: the
            // file holds nothing. Should one follow it, the scan sees it.
            Ok(header) if header.sequence < sequence => self.never_used(sequence),
            Err(_) if block.iter().all(|byte| *byte == 0) && self.untouched(&inline).await? => {
                self.never_used(sequence)
            }
            Ok(header) => Err(Error::corrupt(
                path.display(),
                format_args!("its header is that of file {}", header.sequence),
            )),
            Err(error) => Err(Error::corrupt(
                path.display(),
                format_args!("its header block: {error}"),
            )),
        }
    }

    /// Whether the first group of a file was never written.
    async fn untouched(&self, file: &Arc<dyn File>) -> Result<bool> {
        let block = self.block(file, BLOCK as u64).await?;
        Ok(block.iter().all(|byte| *byte == 0))
    }

    /// One of a file's first blocks. No file gets its name before it has its
    /// full length, so that one without them is damaged.
    async fn block(&self, file: &Arc<dyn File>, offset: u64) -> Result<Vec<u8>> {
        read_disk(&self.pool, file, offset, BLOCK)
            .await
            .map_err(|error| match error.source.kind() {
                std::io::ErrorKind::UnexpectedEof => Error::corrupt(
                    file.path().display(),
                    format_args!("it is cut off: it has no whole block at {offset}"),
                ),
                _ => error.into(),
            })
    }

    fn never_used(&self, sequence: u64) -> Result<()> {
        tracing::warn!(
            sequence,
            "a journal file was never used; it becomes a spare"
        );
        self.state.lock().unused.push(sequence);
        Ok(())
    }

    /// Lets go of files that hold nothing, once the scan has shown that
    /// nothing is missing.
    pub(crate) fn settle(&self) -> Result<()> {
        let unused = std::mem::take(&mut self.state.lock().unused);
        for sequence in unused {
            self.retire_path(&self.layout.journal_file(sequence))?;
        }
        Ok(())
    }

    fn handle(&self, sequence: u64, lane: Lane) -> Result<Arc<dyn File>> {
        let options = OpenOptions {
            create: Create::Never,
            lane,
            direct: true,
            write: matches!(lane, Lane::Inline),
        };
        Ok(self
            .disk
            .open(&self.layout.journal_file(sequence), options)?)
    }

    /// The files, in order.
    pub(crate) fn all(&self) -> Vec<JournalFile> {
        self.state.lock().files.values().cloned().collect()
    }

    /// The file with this sequence, if it was not recycled.
    pub(crate) fn get(&self, sequence: u64) -> Option<JournalFile> {
        self.state.lock().files.get(&sequence).cloned()
    }

    /// Makes the names of the files durable: the process that gave them may have
    /// died before it did.
    pub(crate) fn sync_names(&self) -> Result<()> {
        Ok(self.disk.sync_dir(&self.layout.journal())?)
    }

    /// Bytes of one file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Makes a spare ready if there is none. Blocks: pre-writes a whole file.
    pub(crate) async fn prepare(&self) -> Result<()> {
        let name = {
            let mut state = self.state.lock();
            if !state.spares.is_empty() {
                return Ok(());
            }
            state.next_spare = state.next_spare.saturating_add(1);
            format!("{SPARE}{}", state.next_spare)
        };
        let path = self.layout.journal().join(format!("{MAKING}{name}"));
        let options = OpenOptions {
            create: Create::IfMissing,
            lane: Lane::Inline,
            direct: true,
            write: true,
        };
        let file = self.disk.open(&path, options)?;
        if let Err(error) = self.fill(&file).await {
            drop(file);
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        drop(file);
        self.disk
            .rename(&path, &self.layout.journal().join(&name))?;
        self.state.lock().spares.push(name);
        Ok(())
    }

    /// Writes zeros over a whole file.
    async fn fill(&self, file: &Arc<dyn File>) -> Result<()> {
        file.allocate(0, self.len)?;
        let mut offset = 0u64;
        let chunk = usize::try_from(self.len).map_or(CHUNK, |len| len.min(CHUNK));
        let mut buf = self.pool.take_now(chunk);
        buf.as_mut_slice().fill(0);
        while offset < self.len {
            let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(chunk);
            buf.set_len(left.min(chunk));
            let written = buf.len() as u64;
            let (result, back) = Arc::clone(file).write_at(offset, buf).await;
            result?;
            buf = back;
            offset = offset.saturating_add(written);
        }
        Arc::clone(file).sync_data().await?;
        Ok(())
    }

    /// Brings a spare to life under `header` and makes its name and header
    /// durable.
    ///
    /// # Errors
    /// [`Error::Full`] only while nothing was done yet. After any other error
    /// the new file may be there and say where the one before it ends, so that
    /// nobody may go on in that one.
    pub(crate) async fn start(&self, header: FileHeader) -> Result<JournalFile> {
        self.prepare().await?;
        self.bring_up(header).await.map_err(|error| match error {
            Error::Full { reason } => Error::Io {
                what: "a new journal file".to_owned(),
                reason,
            },
            other => other,
        })
    }

    async fn bring_up(&self, header: FileHeader) -> Result<JournalFile> {
        let Some(spare) = self.state.lock().spares.pop() else {
            return Err(Error::Busy {
                what: "the journal".to_owned(),
            });
        };
        let path = self.layout.journal_file(header.sequence);
        self.disk
            .rename(&self.layout.journal().join(spare), &path)?;
        let inline = self.handle(header.sequence, Lane::Inline)?;
        let mut buf = self.pool.take_now(BLOCK);
        buf.clear();
        buf.extend(&header.encode());
        Arc::clone(&inline).write_at(0, buf).await.0?;
        Arc::clone(&inline).sync_data().await?;
        self.disk.sync_dir(&self.layout.journal())?;
        let shared = self.handle(header.sequence, Lane::Shared)?;
        let file = JournalFile {
            header,
            shared,
            inline,
        };
        self.state
            .lock()
            .files
            .insert(header.sequence, file.clone());
        Ok(file)
    }

    /// Lets go of a file whose records are all elsewhere: it becomes a spare,
    /// or is removed when there are enough.
    pub(crate) fn retire(&self, sequence: u64) -> Result<()> {
        self.state.lock().files.remove(&sequence);
        self.retire_path(&self.layout.journal().join(file_name(sequence)))
    }

    fn retire_path(&self, path: &Path) -> Result<()> {
        let name = {
            let mut state = self.state.lock();
            if state.spares.len() >= JOURNAL_SPARES {
                None
            } else {
                state.next_spare = state.next_spare.saturating_add(1);
                Some(format!("{SPARE}{}", state.next_spare))
            }
        };
        let full = {
            let options = OpenOptions {
                create: Create::Never,
                lane: Lane::Inline,
                direct: true,
                write: false,
            };
            self.disk.open(path, options)?.len()? == self.len
        };
        match name {
            Some(name) if full => {
                self.disk.rename(path, &self.layout.journal().join(&name))?;
                self.state.lock().spares.push(name);
            }
            _ => self.disk.remove(path)?,
        }
        Ok(())
    }
}

/// Reads `len` bytes, a multiple of the block, at a block's offset.
pub(crate) async fn read(
    pool: &Pool,
    file: &Arc<dyn File>,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>> {
    Ok(read_disk(pool, file, offset, len).await?)
}

async fn read_disk(
    pool: &Pool,
    file: &Arc<dyn File>,
    offset: u64,
    len: usize,
) -> std::result::Result<Vec<u8>, DiskError> {
    let mut buf = pool.take_now(len);
    buf.set_len(len);
    let (result, buf) = Arc::clone(file).read_at(offset, buf).await;
    result?;
    Ok(buf.as_slice().to_vec())
}

/// Reads as [`read`] does, but what the disk cannot read comes back as zeros,
/// so that a lost sector costs the payload it lies in and holds nothing else
/// up. Also gives the offsets of the blocks that could not be read.
///
/// # Errors
/// When something else than the medium refused, such as a process without free
/// handles: that says nothing about what is there.
pub(crate) async fn read_lenient(
    pool: &Pool,
    file: &Arc<dyn File>,
    offset: u64,
    len: usize,
) -> Result<(Vec<u8>, Vec<u64>)> {
    match read_disk(pool, file, offset, len).await {
        Ok(bytes) => return Ok((bytes, Vec::new())),
        Err(error) if error.kind != Kind::Io => return Err(error.into()),
        Err(_) => {}
    }
    let mut bytes = Vec::with_capacity(len);
    let mut lost = Vec::new();
    while bytes.len() < len {
        let at = offset.saturating_add(bytes.len() as u64);
        match read_disk(pool, file, at, BLOCK).await {
            Ok(block) => bytes.extend_from_slice(&block),
            Err(error) if error.kind != Kind::Io => return Err(error.into()),
            Err(error) => {
                tracing::error!(%error, at, "a block cannot be read");
                bytes.resize(bytes.len().saturating_add(BLOCK), 0);
                lost.push(at);
            }
        }
    }
    Ok((bytes, lost))
}
