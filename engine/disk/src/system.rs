//! The system calls, once, for every disk that is real.
//!
//! Owns: opening with the fall-back of [`Access`], the rules of short and
//! interrupted transfers ([`Transfer`]), and the calls on folders.
//! Invariants: a transfer is continued until all of it has moved; a call that
//! moved nothing is tried again at most [`PATIENCE`] times in one transfer; a
//! sync is called once.
//! Refuses to know: which thread it runs on.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::{Access, BLOCK, Buffer, Create, DiskError, OpenOptions, Result, Space};

/// How often one transfer goes on after a call that moved nothing.
pub(crate) const PATIENCE: u32 = 16;

/// `RWF_DONTCACHE`: the page cache drops the pages when the transfer is over.
pub(crate) const DONTCACHE: u32 = 0x80;

/// An open file of the operating system.
pub(crate) struct Handle {
    pub(crate) file: fs::File,
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
    /// Transfers must be aligned, whether the file system needs it or not.
    pub(crate) aligned: bool,
}

/// Opens `path` with the best access up to `best` that the options ask for and
/// the file system offers.
pub(crate) fn open(path: &Path, options: OpenOptions, best: Access) -> Result<Handle> {
    let fail = |errno| DiskError::errno("open", path, errno);
    let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY;
    flags |= if options.write {
        OFlags::RDWR
    } else {
        OFlags::RDONLY
    };
    match options.create {
        Create::Never => {}
        _ if !options.write => {
            return Err(DiskError::invalid(
                "open",
                path,
                "creating a file needs write",
            ));
        }
        Create::New => flags |= OFlags::CREATE | OFlags::EXCL,
        Create::IfMissing => flags |= OFlags::CREATE,
    }
    let mode = Mode::RUSR | Mode::WUSR;
    let file = fs::File::from(rustix::fs::open(path, flags, mode).map_err(fail)?);
    if !file
        .metadata()
        .map_err(|error| DiskError::new("open", path, error))?
        .is_file()
    {
        return Err(DiskError::invalid("open", path, "it is not a regular file"));
    }
    let access = if options.direct {
        negotiate(&file, best).map_err(fail)?
    } else {
        Access::Buffered
    };
    Ok(Handle {
        file,
        path: path.to_owned(),
        access,
        aligned: options.direct,
    })
}

/// Switches the file to the first access that works. `O_DIRECT` is set after
/// the open: given to `open`, a file system that refuses it has created the
/// file before it says so.
fn negotiate(file: &fs::File, best: Access) -> std::result::Result<Access, Errno> {
    if best >= Access::Direct && direct_alignment_fits(file) {
        let flags = rustix::fs::fcntl_getfl(file)?;
        match rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT) {
            Ok(()) => return Ok(Access::Direct),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    if best >= Access::DontCache {
        match try_dontcache(file) {
            Ok(()) => return Ok(Access::DontCache),
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(Access::Buffered)
}

/// Reads one byte with the flag: a read of none would not look at it.
fn try_dontcache(file: &fs::File) -> std::result::Result<(), Errno> {
    let flags = ReadWriteFlags::from_bits_retain(DONTCACHE);
    let mut patience = PATIENCE;
    loop {
        let mut byte = [0];
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], 0, flags) {
            Err(Errno::INTR | Errno::AGAIN) if patience > 0 => patience -= 1,
            result => return result.map(|_| ()),
        }
    }
}

/// Whether direct I/O in units of [`BLOCK`] is offered, as far as the kernel
/// tells: it answers since 6.1, and not for every file system.
fn direct_alignment_fits(file: &fs::File) -> bool {
    let mask = StatxFlags::DIOALIGN;
    match rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, mask) {
        Ok(stat) if stat.stx_mask & mask.bits() != 0 => {
            let fits = |align: u32| align > 0 && (BLOCK as u64).is_multiple_of(u64::from(align));
            fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align)
        }
        _ => true,
    }
}

/// Which way bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Read,
    Write,
}

/// How far one read or write has come.
pub(crate) struct Transfer {
    way: Way,
    /// Where in the file it began.
    offset: u64,
    len: usize,
    done: usize,
    /// It may only go on at a multiple of [`BLOCK`].
    stepped: bool,
    patience: u32,
    /// The last call moved less than a block of a direct transfer.
    stalled: bool,
}

impl Transfer {
    /// Checks the request. `None` when there is nothing to move.
    pub(crate) fn new(
        way: Way,
        handle: &Handle,
        offset: u64,
        len: usize,
    ) -> io::Result<Option<Transfer>> {
        let block = BLOCK as u64;
        if handle.aligned && !(offset.is_multiple_of(block) && len.is_multiple_of(BLOCK)) {
            let why = "offset and length must be multiples of 4096 on a file opened direct";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            let why = "the transfer ends past the largest offset";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let stepped = handle.access == Access::Direct;
        Ok(Transfer::over(way, offset, len, stepped))
    }

    /// A transfer that was checked. `None` when there is nothing to move.
    pub(crate) fn over(way: Way, offset: u64, len: usize, stepped: bool) -> Option<Transfer> {
        let transfer = Transfer {
            way,
            offset,
            len,
            done: 0,
            stepped,
            patience: PATIENCE,
            stalled: false,
        };
        (len > 0).then_some(transfer)
    }

    /// Bytes that have moved; the next call starts there.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Bytes of the buffer that are wanted in all.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where in the file the next call starts.
    pub(crate) fn position(&self) -> u64 {
        self.offset.saturating_add(self.done as u64)
    }

    /// Takes in what a call did. `Ok(true)` when everything has moved,
    /// `Ok(false)` when another call is due.
    pub(crate) fn advance(&mut self, call: io::Result<usize>) -> io::Result<bool> {
        let moved = match call {
            Ok(0) => return Err(self.ended()),
            Ok(moved) => moved.min(self.len - self.done),
            Err(error) => {
                let again = [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock];
                if !again.contains(&error.kind()) || self.patience == 0 {
                    return Err(error);
                }
                self.patience -= 1;
                return Ok(false);
            }
        };
        let whole = self.done + moved == self.len;
        let counted = if whole || !self.stepped {
            moved
        } else {
            moved - moved % BLOCK
        };
        self.done += counted;
        // Less than a block twice: the end of a file whose length is no multiple
        // of it, as a rule.
        if counted == 0 && self.stalled {
            return Err(self.ended());
        }
        self.stalled = counted == 0;
        Ok(whole)
    }

    fn ended(&self) -> io::Error {
        let (kind, what) = match self.way {
            Way::Read => (io::ErrorKind::UnexpectedEof, "the file ends before"),
            Way::Write => (io::ErrorKind::WriteZero, "the kernel took no more before"),
        };
        let (done, len) = (self.done, self.len);
        io::Error::new(
            kind,
            format!("{what} byte {len} of the transfer; {done} moved"),
        )
    }
}

/// Fills `buf` up to its length.
pub(crate) fn read(handle: &Handle, offset: u64, buf: &mut Buffer) -> io::Result<()> {
    let Some(mut transfer) = Transfer::new(Way::Read, handle, offset, buf.len())? else {
        return Ok(());
    };
    loop {
        let to = buf
            .as_mut_slice()
            .get_mut(transfer.done()..transfer.len())
            .unwrap_or_default();
        let at = transfer.position();
        let call = match handle.access {
            Access::DontCache => {
                let flags = ReadWriteFlags::from_bits_retain(DONTCACHE);
                rustix::io::preadv2(&handle.file, &mut [IoSliceMut::new(to)], at, flags)
            }
            Access::Direct | Access::Buffered => rustix::io::pread(&handle.file, to, at),
        };
        if transfer.advance(call.map_err(io::Error::from))? {
            return Ok(());
        }
    }
}

/// Writes all of `buf`.
pub(crate) fn write(handle: &Handle, offset: u64, buf: &Buffer) -> io::Result<()> {
    let Some(mut transfer) = Transfer::new(Way::Write, handle, offset, buf.len())? else {
        return Ok(());
    };
    loop {
        let from = buf.as_slice().get(transfer.done()..).unwrap_or_default();
        let at = transfer.position();
        let call = match handle.access {
            Access::DontCache => {
                let flags = ReadWriteFlags::from_bits_retain(DONTCACHE);
                rustix::io::pwritev2(&handle.file, &[IoSlice::new(from)], at, flags)
            }
            Access::Direct | Access::Buffered => rustix::io::pwrite(&handle.file, from, at),
        };
        if transfer.advance(call.map_err(io::Error::from))? {
            return Ok(());
        }
    }
}

/// Makes data and length durable. Called once, whatever it says.
pub(crate) fn sync_data(handle: &Handle) -> io::Result<()> {
    Ok(rustix::fs::fdatasync(&handle.file)?)
}

impl Handle {
    pub(crate) fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, len)
            .map_err(|errno| DiskError::errno("allocate", &self.path, errno))
    }

    pub(crate) fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, mode, offset, len)
            .map_err(|errno| DiskError::errno("punch a hole into", &self.path, errno))
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        let result = self.file.set_len(len);
        result.map_err(|error| DiskError::new("set the length of", &self.path, error))
    }

    pub(crate) fn len(&self) -> Result<u64> {
        let result = self.file.metadata().map(|metadata| metadata.len());
        result.map_err(|error| DiskError::new("read the length of", &self.path, error))
    }
}

/// Creates one folder that only its owner may enter.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if path.is_dir() => Ok(()),
        Err(errno) => Err(DiskError::errno("create the folder", path, errno)),
    }
}

pub(crate) fn list(path: &Path) -> Result<Vec<String>> {
    let fail = |error| DiskError::new("list", path, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        names.push(
            entry
                .map_err(fail)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::rename(from, to).map_err(|errno| DiskError::errno("rename", from, errno))
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = match rustix::fs::unlink(path) {
        Err(Errno::ISDIR) => rustix::fs::rmdir(path),
        other => other,
    };
    result.map_err(|errno| DiskError::errno("remove", path, errno))
}

pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| DiskError::errno("open the folder", path, errno))?;
    rustix::fs::fsync(folder).map_err(|errno| DiskError::errno("sync the folder", path, errno))
}

pub(crate) fn exists(path: &Path) -> Result<bool> {
    path.try_exists()
        .map_err(|error| DiskError::new("look up", path, error))
}

pub(crate) fn space(path: &Path) -> Result<Space> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|errno| DiskError::errno("ask for the free space of", path, errno))?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(way: Way, len: usize, stepped: bool) -> Transfer {
        Transfer {
            way,
            offset: 0,
            len,
            done: 0,
            stepped,
            patience: PATIENCE,
            stalled: false,
        }
    }

    #[test]
    fn a_short_transfer_goes_on_where_it_stopped() {
        let mut buffered = transfer(Way::Write, 10_000, false);
        assert!(!buffered.advance(Ok(1)).unwrap());
        assert_eq!(buffered.position(), 1);
        assert!(buffered.advance(Ok(9_999)).unwrap());
        let mut direct = transfer(Way::Write, 3 * BLOCK, true);
        assert!(!direct.advance(Ok(BLOCK + 512)).unwrap());
        assert_eq!(
            direct.position(),
            BLOCK as u64,
            "a direct transfer goes on at a block"
        );
        assert!(direct.advance(Ok(2 * BLOCK)).unwrap());
    }

    #[test]
    fn interruptions_are_bounded() {
        let mut all = transfer(Way::Read, BLOCK, true);
        for _ in 0..PATIENCE {
            assert!(!all.advance(Err(Errno::INTR.into())).unwrap());
        }
        let error = all.advance(Err(Errno::AGAIN.into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut stuck = transfer(Way::Read, BLOCK, true);
        assert!(!stuck.advance(Ok(100)).unwrap());
        assert_eq!(
            stuck.advance(Ok(100)).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn other_errors_and_the_end_stop_at_once() {
        let mut read = transfer(Way::Read, BLOCK, false);
        assert_eq!(
            read.advance(Ok(0)).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        let mut write = transfer(Way::Write, BLOCK, false);
        assert_eq!(
            write.advance(Ok(0)).unwrap_err().kind(),
            io::ErrorKind::WriteZero
        );
        let error = write.advance(Err(Errno::IO.into())).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
    }
}
