//! A disk that can lose its power: a FUSE file system in this process, below
//! the real server's data folder.
//!
//! Reading order: `content` is the bytes of a file; `state` what is written
//! and what is durable; `fs` the calls. This file mounts it, and is how a test
//! speaks to it.

mod content;
mod fs;
mod state;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use orlop_tests::{place, tools};
use tempfile::TempDir;

use fs::{Calls, Disk, lock};
pub(crate) use state::{Loss, State};

/// Threads that answer the kernel.
const THREADS: usize = 4;

/// The mounted disk. Unmounted when it is dropped.
pub(crate) struct Volatile {
    session: Option<BackgroundSession>,
    disk: Arc<Mutex<Disk>>,
    folder: TempDir,
}

impl Volatile {
    /// An empty one; nothing, and the reason is said, where FUSE cannot be
    /// used. In CI as root that is a failure.
    pub(crate) fn empty() -> Option<Volatile> {
        match Volatile::mount(State::empty(), place::dir()) {
            Ok(disk) => Some(disk),
            Err(why) => {
                let why = format!("no FUSE file system can be mounted: {why}");
                assert!(!crate::must_run(), "{why}");
                tools::skipped(&why);
                None
            }
        }
    }

    fn mount(state: State, folder: TempDir) -> Result<Volatile, String> {
        if !Path::new("/dev/fuse").exists() {
            return Err("/dev/fuse is not there".to_owned());
        }
        if !tools::is_root() {
            return Err("mounting needs root".to_owned());
        }
        let at = folder.path().join("at");
        std::fs::create_dir_all(&at).map_err(|e| e.to_string())?;
        let disk = Arc::new(Mutex::new(Disk::new(state)));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("orlop-volatile".to_owned()),
            MountOption::DefaultPermissions,
        ];
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(Calls(Arc::clone(&disk)), &at, &config)
            .map_err(|error| error.to_string())?;
        Ok(Volatile {
            session: Some(session),
            disk,
            folder,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("at")
    }

    /// The power goes: no call succeeds any more.
    pub(crate) fn cut(&self) {
        lock(&self.disk).control.is_cut = true;
    }

    /// The power goes so many changes from now.
    pub(crate) fn cut_after(&self, changes: u64) {
        let mut disk = lock(&self.disk);
        disk.control.cut_at = Some(disk.state.changes + changes);
    }

    /// Whether it has gone.
    pub(crate) fn is_cut(&self) -> bool {
        lock(&self.disk).control.is_cut
    }

    /// From now on syncs are answered and not done.
    pub(crate) fn lie(&self) {
        lock(&self.disk).control.lies = true;
    }

    /// From now on every call takes so long.
    pub(crate) fn slow_down(&self, delay: Duration) {
        lock(&self.disk).control.delay = delay;
    }

    /// Syncs of the next moments are not done before that time is over.
    pub(crate) fn stall_syncs(&self, time: Duration) {
        lock(&self.disk).control.stalled_until = Some(Instant::now() + time);
    }

    /// Takes the disk out, changes what is on it, and mounts it anew. Nobody
    /// may use it.
    pub(crate) fn remount(self, change: impl FnOnce(State) -> State) -> Volatile {
        let mut this = self;
        this.unmount();
        let state = std::mem::replace(&mut lock(&this.disk).state, State::empty());
        let folder = std::mem::replace(&mut this.folder, place::dir());
        Volatile::mount(change(state), folder).unwrap_or_else(|why| panic!("mount again: {why}"))
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        // Whoever was killed may need a moment to let go of its files.
        let began = Instant::now();
        while tools::is_root() {
            let ran = Command::new("umount").arg(self.path()).output();
            if ran.is_ok_and(|ran| ran.status.success()) {
                break;
            }
            if began.elapsed() > Duration::from_secs(5) {
                let _ = Command::new("umount")
                    .arg("--lazy")
                    .arg(self.path())
                    .output();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = session.umount_and_join();
    }
}

impl Drop for Volatile {
    fn drop(&mut self) {
        self.cut();
        self.unmount();
    }
}
