//! Does the file system under a folder keep what the engine builds on.
//!
//! Invariant: every trial removes what it made, and a trial that could not be
//! made counts against the folder, never for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::lock::{Lock, LockError};
use crate::{
    Access, BLOCK, Backend, BoxFuture, Create, Disk, DiskError, File, Kind, Lane, OpenOptions,
    Pool, Result,
};

/// Whether a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Kept,
    /// It is not, and the engine works without.
    Missing,
    /// It is not, and the engine refuses the folder.
    Broken,
}

/// What was found out about a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderReport {
    /// The folder.
    pub path: PathBuf,
    /// The name of the file system, or its magic number.
    pub file_system: String,
    /// How bytes of a file opened direct travel.
    pub access: Access,
    /// Hole punching.
    pub punch: Fit,
    /// What an operator should know: one sentence each.
    pub notes: Vec<String>,
    /// Why the folder should be refused: one sentence each.
    pub refusals: Vec<String>,
}

/// Why a folder was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A trial failed for a reason that says nothing about promises.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file system does not keep the promises.
    #[error("{path} is on {file_system}, which cannot hold data: {why}",
        path = .0.path.display(), file_system = .0.file_system, why = .0.refusals.join(" "))]
    Refused(Box<FolderReport>),
}

/// File systems by magic number: name, and whether it is one of a network.
const FILE_SYSTEMS: [(u64, &str, bool); 23] = [
    (0xEF53, "ext4", false),
    (0x5846_5342, "xfs", false),
    (0x9123_683E, "btrfs", false),
    (0xF2F5_2010, "f2fs", false),
    (0x2FC1_2FC1, "zfs", false),
    (0xCA45_1A4E, "bcachefs", false),
    (TMPFS, "tmpfs", false),
    (RAMFS, "ramfs", false),
    (0x794C_7630, "overlayfs", false),
    (FUSE, "FUSE", false),
    (0x6969, "NFS", true),
    (0xFF53_4D42, "CIFS", true),
    (0xFE53_4D42, "SMB", true),
    (0x517B, "SMB", true),
    (0x00C3_6400, "Ceph", true),
    (0x0102_1997, "9P", true),
    (0x5346_414F, "AFS", true),
    (0x0BD0_0BD0, "Lustre", true),
    (0x4750_4653, "GPFS", true),
    (0x0116_1970, "GFS2", true),
    (0x7461_636F, "OCFS2", true),
    (0x1983_0326, "BeeGFS", true),
    (0x786F_4256, "a VirtualBox shared folder", true),
];
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58F6;
const FUSE: u64 = 0x6573_5546;

/// What a trial makes is in a folder of its own: this one for who holds the
/// folder's lock, and one with the process id behind it for who does not, so
/// that neither is in the way of the other.
const TRIAL: &str = ".orlop-probe";

/// Finds out about a folder, which must exist and whose lock the caller holds,
/// and refuses an unfit one. [`inspect`] is the same without the refusal, and
/// without the lock.
///
/// # Errors
/// [`Unfit::Refused`] with the report, [`Unfit::Disk`] when a trial could not
/// be made, such as on a full disk.
pub fn folder(disk: &dyn Disk, dir: &Path) -> std::result::Result<FolderReport, Unfit> {
    let report = try_in(disk, dir, &dir.join(TRIAL))?;
    if report.refusals.is_empty() {
        Ok(report)
    } else {
        Err(Unfit::Refused(Box::new(report)))
    }
}

/// Finds out about a folder, which must exist.
///
/// # Errors
/// When a trial could not be made: no permission, no room, a failing device.
pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<FolderReport> {
    let trial = format!("{TRIAL}-{}", std::process::id());
    try_in(disk, dir, &dir.join(trial))
}

fn try_in(disk: &dyn Disk, dir: &Path, trial: &Path) -> Result<FolderReport> {
    let mut report = FolderReport {
        path: dir.to_owned(),
        file_system: "a simulated file system".to_owned(),
        access: Access::Buffered,
        punch: Fit::Kept,
        notes: Vec::new(),
        refusals: Vec::new(),
    };
    let real = disk.backend() != Backend::Sim;
    if real {
        name_file_system(dir, &mut report)?;
    }
    clear(disk, trial)?;
    disk.create_dir(trial)?;
    let outcome = try_files(disk, trial, &mut report).and_then(|()| {
        if real {
            try_lock(trial, &mut report)
        } else {
            Ok(())
        }
    });
    let cleared = clear(disk, trial);
    outcome.and(cleared)?;
    Ok(report)
}

fn name_file_system(dir: &Path, report: &mut FolderReport) -> Result<()> {
    let stat = rustix::fs::statfs(dir)
        .map_err(|errno| DiskError::errno("ask for the file system of", dir, errno))?;
    // The field is signed on some machines; the number has 32 bits.
    #[expect(clippy::cast_sign_loss, reason = "only the low 32 bits are kept")]
    let magic = stat.f_type as u64 & 0xFFFF_FFFF;
    let known = FILE_SYSTEMS
        .into_iter()
        .find(|(number, ..)| *number == magic);
    report.file_system = known.map_or_else(|| format!("{magic:#010x}"), |(_, name, _)| name.into());
    if known.is_some_and(|(.., network)| network) {
        report.refusals.push(
            "It is a network file system: locks and syncs of another machine are not ours to \
             trust. Use a local disk."
                .to_owned(),
        );
    }
    match magic {
        TMPFS | RAMFS => report
            .notes
            .push("It is in memory: a restart loses everything.".into()),
        FUSE => report
            .notes
            .push("It is a FUSE file system: what it promises is not known.".into()),
        _ => {}
    }
    Ok(())
}

/// Writes past the cache, reads back, syncs, punches, renames over a file.
fn try_files(disk: &dyn Disk, trial: &Path, report: &mut FolderReport) -> Result<()> {
    let (old, new) = (trial.join("old"), trial.join("new"));
    let mut options = OpenOptions {
        create: Create::New,
        lane: Lane::Inline,
        direct: true,
        write: true,
    };
    let pool = Pool::new(4 * BLOCK);
    let mut file = disk.open(&old, options)?;
    report.access = file.access();
    if let Err(error) = write_and_read(&file, &pool) {
        if error.kind != Kind::Invalid || file.access() != Access::Direct {
            return Err(error);
        }
        // Some file systems take O_DIRECT and then refuse the transfer.
        report.access = Access::Buffered;
        options = OpenOptions {
            create: Create::Never,
            direct: false,
            ..options
        };
        file = disk.open(&old, options)?;
        write_and_read(&file, &pool)?;
    }
    match report.access {
        Access::Direct => {}
        Access::DontCache => report.notes.push(
            "It refuses direct I/O: data passes through the page cache, which drops it at once."
                .to_owned(),
        ),
        Access::Buffered => report.notes.push(
            "It refuses direct I/O: data passes through the page cache, which costs memory and \
             processor time."
                .to_owned(),
        ),
    }
    if let Err(error) = ready(Arc::clone(&file).sync_data(), &old)? {
        report
            .refusals
            .push(format!("It cannot make data durable ({error})."));
    }
    try_punch(&file, &pool, report)?;
    drop(disk.open(
        &new,
        OpenOptions {
            create: Create::New,
            ..options
        },
    )?);
    match disk.rename(&old, &new) {
        Ok(())
            if disk.exists(&old)?
                || disk
                    .open(
                        &new,
                        OpenOptions {
                            create: Create::Never,
                            ..options
                        },
                    )?
                    .len()?
                    == 0 =>
        {
            report
                .refusals
                .push("A rename over a file does not replace it.".to_owned());
        }
        Ok(()) => {}
        Err(error) => report
            .refusals
            .push(format!("It cannot rename over a file ({error}).")),
    }
    if let Err(error) = disk.sync_dir(trial) {
        report
            .refusals
            .push(format!("It cannot make names durable ({error})."));
    }
    Ok(())
}

/// Two blocks of a pattern, written and compared.
fn write_and_read(file: &Arc<dyn File>, pool: &Pool) -> Result<()> {
    let mut buf = pool.take_now(2 * BLOCK);
    buf.set_len(2 * BLOCK);
    buf.as_mut_slice().fill(0xA5);
    let (result, mut buf) = ready(Arc::clone(file).write_at(0, buf), file.path())?;
    result?;
    buf.as_mut_slice().fill(0);
    let (result, buf) = ready(Arc::clone(file).read_at(0, buf), file.path())?;
    result?;
    if buf.as_slice().iter().all(|&byte| byte == 0xA5) {
        return Ok(());
    }
    let error = std::io::Error::other("what was written is not what is read");
    Err(DiskError::new("read back", file.path(), error))
}

fn try_punch(file: &Arc<dyn File>, pool: &Pool, report: &mut FolderReport) -> Result<()> {
    match file.punch(0, BLOCK as u64) {
        Ok(()) => {}
        Err(error) if matches!(error.kind, Kind::Unsupported | Kind::Invalid) => {
            report.punch = Fit::Missing;
            report.notes.push(
                "It cannot punch holes: room of deleted data comes back by copying only.".into(),
            );
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let mut buf = pool.take_now(2 * BLOCK);
    buf.set_len(2 * BLOCK);
    let (result, buf) = ready(Arc::clone(file).read_at(0, buf), file.path())?;
    result?;
    let (hole, rest) = buf.as_slice().split_at(BLOCK);
    if !hole.iter().all(|&byte| byte == 0) || !rest.iter().all(|&byte| byte == 0xA5) {
        report.punch = Fit::Broken;
        report
            .refusals
            .push("A punched hole is not where it was asked for.".to_owned());
    }
    Ok(())
}

/// A second lock on a locked file must be refused.
fn try_lock(trial: &Path, report: &mut FolderReport) -> Result<()> {
    let path = trial.join("lock");
    let first = match Lock::acquire(&path) {
        Ok(lock) => lock,
        Err(LockError::Held { .. }) => {
            report
                .refusals
                .push("A fresh file is locked already.".to_owned());
            return Ok(());
        }
        Err(LockError::Disk(error)) => {
            report
                .refusals
                .push(format!("It cannot lock files ({error})."));
            return Ok(());
        }
    };
    match Lock::acquire(&path) {
        Err(LockError::Held { .. }) => {}
        Ok(_) => report
            .refusals
            .push("It gives the same lock twice.".to_owned()),
        Err(LockError::Disk(error)) => return Err(error),
    }
    drop(first);
    Ok(())
}

/// Removes what this or an earlier trial left.
fn clear(disk: &dyn Disk, trial: &Path) -> Result<()> {
    if !disk.exists(trial)? {
        return Ok(());
    }
    for name in disk.list(trial)? {
        disk.remove(&trial.join(name))?;
    }
    disk.remove(trial)
}

/// The answer of an inline operation, which is ready at its first poll.
fn ready<T>(operation: BoxFuture<'static, T>, path: &Path) -> Result<T> {
    operation.now_or_never().ok_or_else(|| {
        let error = std::io::Error::other("an inline operation did not finish at once");
        DiskError::new("use", path, error)
    })
}
