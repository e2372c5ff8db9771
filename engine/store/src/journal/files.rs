//! The files of the journal: names, headers, spares.
//!
//! Owns: which files there are and their open handles. Every file is
//! pre-written to its full length before it is used, so that a group costs one
//! write and one sync and never needs room. Knows nothing of groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use orlop_disk::{Create, Disk, File, Lane, OpenOptions, Pool};
use orlop_format::BLOCK;
use orlop_format::group::Volume;
use orlop_format::journal::{FileHeader, file_name, parse_name};
use orlop_format::location::Home;

use crate::config::JOURNAL_SPARES;
use crate::error::{Error, Invalid, Result};
use crate::layout::Layout;
use crate::sync::Mutex;

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
        let (spares, names): (Vec<_>, Vec<_>) = files
            .disk
            .list(&files.layout.journal())?
            .into_iter()
            .partition(|name| name.starts_with("spare-"));
        for name in spares {
            // Perhaps half written: made anew when one is needed.
            files.disk.remove(&files.layout.journal().join(&name))?;
        }
        for name in names {
            let Some(sequence) = parse_name(&name) else {
                tracing::warn!(%name, "a file in the journal's folder is not the store's; it is left alone");
                continue;
            };
            files.adopt(sequence, store, first).await?;
        }
        Ok(files)
    }

    /// Takes one existing file in.
    async fn adopt(&self, sequence: u64, store: [u8; 16], first: u64) -> Result<()> {
        let path = self.layout.journal_file(sequence);
        if sequence < first {
            return self.retire_path(&path);
        }
        let inline = self.handle(sequence, Lane::Inline)?;
        let block = read(&self.pool, &inline, 0, BLOCK).await?;
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
            // Renamed for its next life, but the header of that never came:
            // the file holds nothing. Should one follow it, the scan sees it.
            Ok(_) => self.never_used(&path),
            Err(_) if block.iter().all(|byte| *byte == 0) => self.never_used(&path),
            Err(error) => Err(Error::corrupt(
                path.display(),
                format_args!("its header block: {error}"),
            )),
        }
    }

    fn never_used(&self, path: &std::path::Path) -> Result<()> {
        tracing::warn!(path = %path.display(), "a journal file was never used; it becomes a spare");
        self.retire_path(path)
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
            format!("spare-{}", state.next_spare)
        };
        let path = self.layout.journal().join(&name);
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
        self.state.lock().spares.push(name);
        Ok(())
    }

    /// Writes zeros over a whole file.
    async fn fill(&self, file: &Arc<dyn File>) -> Result<()> {
        file.allocate(0, self.len)?;
        let mut offset = 0u64;
        let mut buf = self.pool.take_now(CHUNK);
        buf.as_mut_slice().fill(0);
        while offset < self.len {
            let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(CHUNK);
            buf.set_len(left.min(CHUNK));
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
    pub(crate) async fn start(&self, header: FileHeader) -> Result<JournalFile> {
        self.prepare().await?;
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

    fn retire_path(&self, path: &std::path::Path) -> Result<()> {
        let name = {
            let mut state = self.state.lock();
            if state.spares.len() >= JOURNAL_SPARES {
                None
            } else {
                state.next_spare = state.next_spare.saturating_add(1);
                Some(format!("spare-{}", state.next_spare))
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
    let mut buf = pool.take_now(len);
    buf.set_len(len);
    let (result, buf) = Arc::clone(file).read_at(offset, buf).await;
    result?;
    Ok(buf.as_slice().to_vec())
}
