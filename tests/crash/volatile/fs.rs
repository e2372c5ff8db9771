//! The file system's calls, as the kernel hands them on.
//!
//! Writes come here at once (the kernel keeps no dirty pages but those of
//! memory maps), syncs too. Locks are the kernel's. After the cut every call
//! fails.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::state::{Data, Folder, Kind, State};

/// The kernel need not ask again: nobody else changes anything.
const KEPT: Duration = Duration::from_secs(3600);
/// Bytes of one write.
const MAX_WRITE: u32 = 1 << 20;
/// Blocks of 4 KiB of the file system.
const BLOCKS: u64 = 16 << 20;

const PUNCH_HOLE: i32 = 2;
const ZERO_RANGE: i32 = 16;
const KEEP_SIZE: i32 = 1;
const SOCKET: u32 = 0o140_000;
const FORMAT: u32 = 0o170_000;

/// What the test says of the disk.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// No call succeeds any more.
    pub(super) is_cut: bool,
    /// Cut before the change with this number.
    pub(super) cut_at: Option<u64>,
    /// Syncs are answered and not done.
    pub(super) lies: bool,
    /// What each call takes.
    pub(super) delay: Duration,
    /// Syncs are not done before.
    pub(super) stalled_until: Option<Instant>,
}

/// Everything, behind one lock.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) state: State,
    pub(super) control: Control,
    lists: HashMap<u64, Vec<(u64, FileType, OsString)>>,
    next_list: u64,
}

impl Disk {
    pub(super) fn new(state: State) -> Disk {
        Disk {
            state,
            control: Control::default(),
            lists: HashMap::new(),
            next_list: 1,
        }
    }

    /// Refuses after the cut, and makes it when its moment has come.
    fn powered(&mut self) -> Result<(), Errno> {
        let due = self.control.cut_at;
        if due.is_some_and(|due| self.state.changes >= due) {
            self.control.is_cut = true;
        }
        if self.control.is_cut {
            return Err(Errno::EIO);
        }
        Ok(())
    }

    fn attr(&self, number: u64) -> Result<FileAttr, Errno> {
        let node = self.state.nodes.get(&number).ok_or(Errno::ENOENT)?;
        let (kind, size) = match &node.kind {
            Kind::File(data) => (FileType::RegularFile, data.now.len),
            Kind::Folder(_) => (FileType::Directory, 4096),
            Kind::Socket => (FileType::Socket, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: node.changed,
            mtime: node.changed,
            ctime: node.changed,
            crtime: node.changed,
            kind,
            perm: u16::try_from(node.mode & 0o7777).unwrap_or(0o700),
            nlink: 1,
            uid: node.owner.0,
            gid: node.owner.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn child(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        let folder = self.state.folder(parent).ok_or(Errno::ENOTDIR)?;
        folder.now.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Makes a node under a name that is free.
    fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        kind: Kind,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<FileAttr, Errno> {
        self.powered()?;
        if self.child(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let node = self.state.make(kind, mode, owner);
        let set = vec![(name.to_owned(), node)];
        self.state
            .names(parent, Vec::new(), set)
            .ok_or(Errno::ENOTDIR)?;
        self.attr(node)
    }

    fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.powered()?;
        let node = self.child(parent, name)?;
        if self.state.folder(node).is_some_and(|f| !f.now.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        let gone = vec![name.to_owned()];
        self.state
            .names(parent, gone, Vec::new())
            .ok_or(Errno::ENOTDIR)
    }

    fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        self.powered()?;
        let node = self.child(from.0, from.1)?;
        let (gone, set) = (vec![from.1.to_owned()], vec![(to.1.to_owned(), node)]);
        if from.0 == to.0 {
            return self.state.names(to.0, gone, set).ok_or(Errno::ENOTDIR);
        }
        self.state
            .names(to.0, Vec::new(), set)
            .ok_or(Errno::ENOTDIR)?;
        self.state
            .names(from.0, gone, Vec::new())
            .ok_or(Errno::ENOTDIR)
    }

    fn sync(&mut self, node: u64) -> Result<(), Errno> {
        self.powered()?;
        if !self.control.lies {
            self.state.sync(node);
        }
        Ok(())
    }

    fn allocate(&mut self, node: u64, at: u64, len: u64, mode: i32) -> Result<(), Errno> {
        self.powered()?;
        let size = self.state.data(node).ok_or(Errno::EBADF)?.now.len;
        if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
            let within = size.saturating_sub(at).min(len);
            self.state.zero(node, at, within).ok_or(Errno::EBADF)?;
        } else if mode & !KEEP_SIZE != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if mode & KEEP_SIZE == 0 && size < at + len {
            self.state.set_len(node, at + len).ok_or(Errno::EBADF)?;
        }
        Ok(())
    }

    fn list(&mut self, node: u64) -> Result<u64, Errno> {
        self.powered()?;
        let folder = self.state.folder(node).ok_or(Errno::ENOTDIR)?;
        let mut list = vec![
            (node, FileType::Directory, ".".into()),
            (node, FileType::Directory, "..".into()),
        ];
        for (name, child) in &folder.now {
            list.push((*child, self.attr(*child)?.kind, name.clone()));
        }
        self.next_list += 1;
        self.lists.insert(self.next_list, list);
        Ok(self.next_list)
    }
}

/// What fuser calls.
#[derive(Debug)]
pub(super) struct Calls(pub(super) Arc<Mutex<Disk>>);

impl Calls {
    /// The disk, after the time that a call takes.
    fn disk(&self) -> MutexGuard<'_, Disk> {
        let disk = lock(&self.0);
        let delay = disk.control.delay;
        if delay.is_zero() || disk.control.is_cut {
            return disk;
        }
        drop(disk);
        thread::sleep(delay);
        lock(&self.0)
    }

    /// Syncs, at once or after a stall; a stalled one holds up no other call.
    fn sync(&self, node: u64, reply: ReplyEmpty) {
        let until = lock(&self.0).control.stalled_until;
        let Some(until) = until.filter(|until| *until > Instant::now()) else {
            return answer(self.disk().sync(node), reply);
        };
        let disk = Arc::clone(&self.0);
        thread::spawn(move || {
            while Instant::now() < until && !lock(&disk).control.is_cut {
                thread::sleep(Duration::from_millis(5));
            }
            answer(lock(&disk).sync(node), reply);
        });
    }
}

pub(super) fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(made: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match made {
        Ok(attr) => reply.entry(&KEPT, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Calls {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.set_max_write(MAX_WRITE);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut disk = self.disk();
        let found = disk
            .powered()
            .and_then(|()| disk.attr(disk.child(parent.0, name)?));
        entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().attr(ino.0) {
            Ok(attr) => reply.attr(&KEPT, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let done = disk.powered().and_then(|()| {
            if let Some(size) = size {
                disk.state.set_len(ino.0, size).ok_or(Errno::EISDIR)?;
            }
            let node = disk.state.nodes.get_mut(&ino.0).ok_or(Errno::ENOENT)?;
            node.mode = mode.unwrap_or(node.mode);
            node.owner = (uid.unwrap_or(node.owner.0), gid.unwrap_or(node.owner.1));
            disk.attr(ino.0)
        });
        match done {
            Ok(attr) => reply.attr(&KEPT, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let kind = if mode & FORMAT == SOCKET {
            Kind::Socket
        } else {
            Kind::File(Data::default())
        };
        let owner = (request.uid(), request.gid());
        let made = self.disk().make(parent.0, name, kind, mode & !umask, owner);
        entry(made, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let kind = Kind::Folder(Folder::default());
        let owner = (request.uid(), request.gid());
        let made = self.disk().make(parent.0, name, kind, mode & !umask, owner);
        entry(made, reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let kind = Kind::File(Data::default());
        let owner = (request.uid(), request.gid());
        let made = self.disk().make(parent.0, name, kind, mode & !umask, owner);
        match made {
            Ok(attr) => {
                let (handle, flags) = (FileHandle(0), FopenFlags::empty());
                reply.created(&KEPT, &attr, Generation(0), handle, flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.disk().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.disk().remove(parent.0, name), reply);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let done = self.disk().rename((parent.0, name), (newparent.0, newname));
        answer(done, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk().powered() {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut disk = self.disk();
        let read = disk.powered().and_then(|()| {
            let data = disk.state.data(ino.0).ok_or(Errno::EBADF)?;
            Ok(data.now.read(offset, u64::from(size)))
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = self.disk();
        let done = disk.powered().and_then(|()| {
            let written = disk.state.write(ino.0, offset, data);
            written.ok_or(Errno::EBADF)
        });
        match done {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(0)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino.0, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino.0, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk().list(ino.0) {
            Ok(list) => reply.opened(FileHandle(list), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let disk = self.disk();
        let list = disk.lists.get(&fh.0).map(Vec::as_slice).unwrap_or_default();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (node, kind, name)) in list.iter().enumerate().skip(skip) {
            if reply.add(INodeNo(*node), place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.disk().lists.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let files = 1 << 20;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, files, files, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.disk().allocate(ino.0, offset, length, mode);
        answer(done, reply);
    }
}
