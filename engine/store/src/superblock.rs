//! Reading and writing the superblock's four slots.
//!
//! Invariant: the newest valid slot is never overwritten. A failed write or
//! sync is an error to the caller, who poisons the store.

use std::io::ErrorKind;
use std::sync::Arc;

use orlop_disk::{Buffer, Create, Disk, DiskError, File, Kind, Lane, OpenOptions, Pool};
use orlop_format::superblock::{FILES, SLOTS, Superblock};
use orlop_format::{BLOCK, Malformed};

use crate::error::{Error, Invalid, Result};
use crate::layout::Layout;

/// The superblock of an open store.
pub(crate) struct Slots {
    files: Vec<Arc<dyn File>>,
    pool: Pool,
    /// As it was last written.
    current: Superblock,
    /// The sequence of the last write that was begun.
    last: u64,
}

/// What the slots said.
enum Found {
    Nothing,
    Valid(Superblock),
}

/// Reads a slot. One that cannot be read is tried once more: to pass over the
/// newest would bring back an older state.
async fn read(
    pool: &Pool,
    file: &Arc<dyn File>,
    slot: u64,
) -> std::result::Result<Buffer, DiskError> {
    let attempt = async || {
        let mut buf = pool.take_now(BLOCK);
        buf.set_len(BLOCK);
        let offset = slot.saturating_mul(BLOCK as u64);
        let (done, buf) = Arc::clone(file).read_at(offset, buf).await;
        done.map(|()| buf)
    };
    match attempt().await {
        Err(_) => attempt().await,
        done => done,
    }
}

impl Slots {
    /// Reads the superblock; `None` when there is none and never was.
    pub(crate) async fn load(
        disk: &dyn Disk,
        layout: &Layout,
        pool: &Pool,
    ) -> Result<Option<Self>> {
        let mut files = Vec::new();
        let mut best = Found::Nothing;
        let mut seen = false;
        let mut unreadable = None;
        for file in 0..FILES.len() {
            let path = layout.superblock(file);
            let options = OpenOptions {
                create: Create::Never,
                lane: Lane::Shared,
                direct: true,
                write: true,
            };
            let handle = match disk.open(&path, options) {
                Ok(handle) => handle,
                Err(error) if error.kind == Kind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            for slot in 0..SLOTS {
                let buf = match read(pool, &handle, slot).await {
                    Ok(buf) => buf,
                    // A new store's file that never got its length.
                    Err(error) if error.source.kind() == ErrorKind::UnexpectedEof => continue,
                    // A damaged slot is what the others are for.
                    Err(error) if error.kind == Kind::Io => {
                        unreadable = Some(error);
                        continue;
                    }
                    // The slot may be the newest, which must not be passed over.
                    Err(error) => return Err(error.into()),
                };
                if buf.as_slice().iter().any(|byte| *byte != 0) {
                    seen = true;
                }
                match Superblock::decode(buf.as_slice()) {
                    Ok(slot) => match best {
                        Found::Valid(old) if old.sequence >= slot.sequence => {}
                        _ => best = Found::Valid(slot),
                    },
                    Err(Malformed::Newer(what)) => {
                        let what = format!("the {what} of {}", layout.root().display());
                        return Err(Invalid::Newer { what }.into());
                    }
                    Err(_) => {}
                }
            }
            files.push(handle);
        }
        match best {
            Found::Valid(current) if files.len() == FILES.len() => Ok(Some(Self {
                files,
                pool: pool.clone(),
                current,
                last: current.sequence,
            })),
            Found::Valid(_) => Err(Error::corrupt(
                "the superblock",
                "one of its two files is missing; restore it",
            )),
            Found::Nothing => match unreadable {
                // Unsure is never "missing".
                Some(error) => Err(error.into()),
                None if seen => Err(Error::corrupt("the superblock", "no slot of it is valid")),
                None => Ok(None),
            },
        }
    }

    /// Writes the first superblock of a new store into both files.
    pub(crate) async fn create(
        disk: &dyn Disk,
        layout: &Layout,
        pool: &Pool,
        first: Superblock,
    ) -> Result<Self> {
        let options = OpenOptions {
            create: Create::IfMissing,
            lane: Lane::Shared,
            direct: true,
            write: true,
        };
        // By a second name, so that a name that an earlier start could not sync
        // is made anew and not only synced again.
        for file in 0..FILES.len() {
            let path = layout.superblock(file);
            let draft = path.with_extension(format!("{file}.new"));
            let handle = disk.open(&draft, options)?;
            let len = SLOTS.saturating_mul(BLOCK as u64);
            let mut buf = pool.take_now(BLOCK.saturating_mul(SLOTS as usize));
            let capacity = buf.capacity();
            buf.set_len(capacity);
            buf.as_mut_slice().fill(0);
            buf.set_len(usize::try_from(len).unwrap_or(BLOCK));
            Arc::clone(&handle).write_at(0, buf).await.0?;
            handle.sync_data().await?;
            disk.rename(&draft, &path)?;
        }
        disk.sync_dir(layout.root())?;
        let options = OpenOptions {
            create: Create::Never,
            ..options
        };
        let files = (0..FILES.len())
            .map(|file| disk.open(&layout.superblock(file), options))
            .collect::<std::result::Result<_, _>>()?;
        let mut slots = Self {
            files,
            pool: pool.clone(),
            current: first,
            last: first.sequence,
        };
        slots.write(|_| {}).await?;
        Ok(slots)
    }

    /// The superblock as it was last written.
    pub(crate) fn get(&self) -> Superblock {
        self.current
    }

    /// Changes the superblock and makes it durable.
    pub(crate) async fn write(&mut self, change: impl FnOnce(&mut Superblock)) -> Result<()> {
        let mut next = self.current;
        change(&mut next);
        // One that is dropped may reach the disk later. It must not meet the
        // next one in its slot.
        self.last = self.last.saturating_add(1);
        next.sequence = self.last;
        let (file, offset) = Superblock::slot(next.sequence);
        let handle = self
            .files
            .get(file)
            .ok_or_else(|| Error::corrupt("the superblock", "a file of it is not open"))?;
        let mut buf = self.pool.take_now(BLOCK);
        buf.clear();
        buf.extend(&next.encode());
        Arc::clone(handle).write_at(offset, buf).await.0?;
        Arc::clone(handle).sync_data().await?;
        self.current = next;
        Ok(())
    }
}
