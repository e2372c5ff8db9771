//! A disk that lives in memory, fails on demand, and can lose its power.
//!
//! Owns: what was written and what of it is durable, apart: bytes by sectors
//! of 512, the length of a file, and the names in a folder. [`Sim::crash`]
//! makes the disk that the next start would find.
//! Invariants: equal seeds and equal calls give equal results; a name is not
//! durable before `sync_dir` of its folder, a byte or a length not before
//! `sync_data` of its file; after a sync that failed, neither becomes durable
//! by a later one.
//! Refuses to know: time. [`Sim::delay`] lets other tasks run between the
//! start of a transfer and its effect; whoever has a clock makes the disk slow,
//! or hang, by [`Plan::stall`].

mod attempt;
mod content;
mod fault;
mod file;
mod operation;
mod random;
mod snapshot;
mod tree;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use fault::{Errno, Fault, Plan, Record, Verb};
pub use snapshot::Snapshot;

use crate::{BLOCK, Backend, Counters, Create, Disk, DiskError, File, OpenOptions, Result, Space};
use attempt::power_is_off;
use fault::Faults;
use operation::SimFile;
use random::Random;
use tree::{Entry, Tree};

/// What reaches the disk whole or not at all, in bytes.
pub const SECTOR: u64 = 512;

/// Operations that the log keeps: the newest.
pub const LOG: usize = 65_536;

/// Bytes of a new disk.
const CAPACITY: u64 = 1 << 40;

/// What survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process ends and the machine lives: everything written is there,
    /// and what is durable stays as it was.
    Killed,
    /// The power fails: nothing that was not synced survives.
    Lost,
    /// The power fails: everything survives but what a failed sync had called
    /// clean.
    Kept,
    /// The power fails: changes survive in order up to a random one, of which
    /// some first sectors do. The number is a seed.
    Prefix(u64),
    /// The power fails: any sectors, lengths and names survive, in any mixture
    /// of older and newer ones. The number is a seed.
    Torn(u64),
    /// The power fails: of what was not synced, these kinds of changes survive
    /// and the others do not.
    Parts(Parts),
}

/// Kinds of changes that a file system keeps apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Names in folders.
    pub names: bool,
    /// Lengths of files.
    pub lengths: bool,
    /// Bytes of files, as far as these are long enough.
    pub bytes: bool,
}

/// Why a path cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    NotFound,
    Exists,
    NotEmpty,
    AFolder,
    NotAFolder,
    Invalid,
}

impl Gone {
    fn error(self) -> io::Error {
        use rustix::io::Errno;
        let errno = match self {
            Gone::NotFound => Errno::NOENT,
            Gone::Exists => Errno::EXIST,
            Gone::NotEmpty => Errno::NOTEMPTY,
            Gone::AFolder => Errno::ISDIR,
            Gone::NotAFolder => Errno::NOTDIR,
            Gone::Invalid => Errno::INVAL,
        };
        errno.into()
    }
}

/// The simulated disk.
pub struct Sim {
    state: Mutex<State>,
    /// Files hold the disk, so it must be able to hand out itself.
    this: Weak<Sim>,
}

struct State {
    seed: u64,
    random: Random,
    tree: Tree,
    capacity: u64,
    /// Whether its files can have no holes.
    is_holeless: bool,
    faults: Faults,
    off: bool,
    /// Percent of transfers that are put off.
    delayed: u64,
    operations: u64,
    log: VecDeque<Record>,
    counters: Counters,
    observer: Option<snapshot::Observer>,
}

impl Sim {
    /// An empty disk. Only faults and delays use the seed.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Sim> {
        Sim::with_tree(seed, Tree::new(), CAPACITY)
    }

    fn with_tree(seed: u64, tree: Tree, capacity: u64) -> Arc<Sim> {
        let state = State {
            seed,
            random: Random::new(seed),
            tree,
            capacity,
            is_holeless: false,
            faults: Faults::default(),
            off: false,
            delayed: 0,
            operations: 0,
            log: VecDeque::new(),
            counters: Counters::default(),
            observer: None,
        };
        Arc::new_cyclic(|this| Sim {
            state: Mutex::new(state),
            this: Weak::clone(this),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk that the next start would find. This one goes on as it was, so
    /// that many crashes can be taken from one moment. The new disk has no
    /// plans, no delays, and counts operations from 0.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> Arc<Sim> {
        self.snapshot().crash(crash)
    }

    /// Adds a plan.
    pub fn plan(&self, plan: Plan) {
        self.lock().faults.add(plan);
    }

    /// Drops all plans.
    pub fn clear_plans(&self) {
        self.lock().faults.clear();
    }

    /// Operations that a plan has struck: a test whose fault never struck has
    /// tested nothing.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.lock().faults.struck()
    }

    /// Operations so far, failed ones included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The newest [`LOG`] operations.
    #[must_use]
    pub fn log(&self) -> Vec<Record> {
        self.lock().log.iter().cloned().collect()
    }

    /// Puts off this percentage of transfers by one to three polls, so that
    /// other tasks run in between.
    pub fn delay(&self, percent: u64) {
        self.lock().delayed = percent;
    }

    /// Sets the size of the disk in bytes. What is there already stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// From now on, and after every crash, no part of a file can be given back:
    /// [`Verb::Punch`] is not supported.
    pub fn without_holes(&self) {
        self.lock().is_holeless = true;
    }

    /// The bytes of a file as a read would see them, without an operation.
    #[must_use]
    pub fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let id = state.tree.find_file(path).ok()?;
        let written = &state.tree.file(id).ok()?.written;
        let mut bytes = vec![0; usize::try_from(written.len).ok()?];
        written.content.read(0, &mut bytes);
        Some(bytes)
    }

    /// The length of a file, without an operation.
    #[must_use]
    pub fn len(&self, path: &Path) -> Option<u64> {
        let mut state = self.lock();
        let id = state.tree.find_file(path).ok()?;
        Some(state.tree.file(id).ok()?.written.len)
    }

    /// The files below a folder with their lengths, without an operation.
    #[must_use]
    pub fn files(&self, under: &Path) -> Vec<(std::path::PathBuf, u64)> {
        let mut state = self.lock();
        let mut files = state.tree.named();
        files.retain(|(path, _)| path.starts_with(under));
        for (_, id) in &mut files {
            *id = state.tree.file(*id).map_or(0, |file| file.written.len);
        }
        files
    }

    /// Cuts a file short behind everybody's back, durable at once. False when
    /// it is missing or shorter.
    pub fn cut(&self, path: &Path, len: u64) -> bool {
        self.damage(path, len, 0, |file| file.cut(len))
    }

    /// Overwrites bytes of a file behind everybody's back, durable at once.
    /// False when the file is missing or shorter.
    pub fn poke(&self, path: &Path, offset: u64, bytes: &[u8]) -> bool {
        self.damage(path, offset, bytes.len() as u64, |file| {
            file.poke(offset, bytes)
        })
    }

    /// Makes sectors unreadable until they are written again. False when the
    /// file is missing or shorter.
    pub fn spoil(&self, path: &Path, offset: u64, len: u64) -> bool {
        self.damage(path, offset, len, |file| file.spoil(offset, len))
    }

    /// Flips `bits` bits of durable bytes of the files below `under`, chosen by
    /// the seed among what is not all zeros, and says where they lie. Nobody
    /// is told until the bytes are read.
    pub fn decay(&self, under: &Path, bits: u64) -> Vec<(std::path::PathBuf, u64)> {
        let mut state = self.lock();
        let state = &mut *state;
        let mut pages = Vec::new();
        for (path, id) in state.tree.named() {
            if let Ok(file) = state.tree.file(id)
                && path.starts_with(under)
            {
                pages.extend(file.durable_pages().map(|page| (path.clone(), id, page)));
            }
        }
        let mut flipped = Vec::new();
        for _ in 0..bits {
            let place = usize::try_from(state.random.below(pages.len() as u64)).unwrap_or(0);
            let Some((path, id, page)) = pages.get(place) else {
                break;
            };
            let offset = page * BLOCK as u64 + state.random.below(BLOCK as u64);
            let mask = 1 << state.random.below(8);
            if let Ok(file) = state.tree.file(*id) {
                file.decay(offset, mask);
            }
            flipped.push((path.clone(), offset));
        }
        flipped
    }

    fn damage(
        &self,
        path: &Path,
        offset: u64,
        len: u64,
        harm: impl FnOnce(&mut file::FileState),
    ) -> bool {
        let mut state = self.lock();
        let Ok(id) = state.tree.find_file(path) else {
            return false;
        };
        let Ok(file) = state.tree.file(id) else {
            return false;
        };
        if offset.saturating_add(len) > file.written.len {
            return false;
        }
        harm(file);
        true
    }

    /// Runs an operation on names: counts it, lets faults strike, logs it.
    fn name<T>(
        &self,
        verb: Verb,
        path: &Path,
        run: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T> {
        let mut state = self.lock();
        let attempt = state.begin(verb, path, 0, 0);
        let result = state.settle(&attempt, run);
        state.end(attempt, result)
    }
}

impl Disk for Sim {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        let id = self.name(Verb::Open, path, |state| state.open(path, options))?;
        let sim = self.this.upgrade().ok_or_else(|| {
            DiskError::new(
                "open",
                path,
                io::Error::other("the simulated disk is being dropped"),
            )
        })?;
        Ok(Arc::new(SimFile::new(sim, id, path.to_owned(), options)))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        let run = |state: &mut State| state.tree.create_folder(path).map_err(Gone::error);
        self.name(Verb::CreateDir, path, run)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.name(Verb::List, path, |state| {
            state.tree.list(path).map_err(Gone::error)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.name(Verb::Rename, from, |state| {
            state.tree.rename(from, to).map_err(Gone::error)
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.name(Verb::Remove, path, |state| {
            state.tree.remove(path).map_err(Gone::error)
        })
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut state = self.lock();
        let attempt = state.begin(Verb::SyncDir, path, 0, 0);
        let result = match attempt.record.fault {
            _ if attempt.dead => Err(power_is_off()),
            Some(fault) if fault.failure().is_some() => {
                let result = state.tree.sync_folder_failed(path).map_err(Gone::error);
                result.and_then(|()| fault.failure().map_or(Ok(()), Err))
            }
            // Nothing becomes durable; only the first of them admits it.
            Some(Fault::PowerOff) => Err(power_is_off()),
            Some(Fault::Lose) => Ok(()),
            _ => state.settle(&attempt, |s| s.tree.sync_folder(path).map_err(Gone::error)),
        };
        state.end(attempt, result)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.name(Verb::Exists, path, |state| match state.tree.find(path) {
            Ok(_) => Ok(true),
            Err(Gone::NotFound) => Ok(false),
            Err(other) => Err(other.error()),
        })
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.name(Verb::Space, path, |state| {
            state.tree.find(path).map_err(Gone::error)?;
            let used = state.tree.pages().saturating_mul(BLOCK as u64);
            let total = state.capacity;
            Ok(Space {
                total,
                available: total.saturating_sub(used),
            })
        })
    }

    fn backend(&self) -> Backend {
        Backend::Sim
    }

    fn counters(&self) -> Counters {
        self.lock().counters
    }
}

impl State {
    fn open(&mut self, path: &Path, options: OpenOptions) -> io::Result<u64> {
        if options.create != Create::Never && !options.write {
            return Err(Gone::Invalid.error());
        }
        let id = match (self.tree.find(path), options.create) {
            (Ok(Entry::Folder(_)), _) => return Err(Gone::AFolder.error()),
            (Ok(Entry::File(_)), Create::New) => return Err(Gone::Exists.error()),
            (Ok(Entry::File(id)), _) => id,
            (Err(Gone::NotFound), Create::New | Create::IfMissing) => {
                let place = self.tree.place(path).map_err(Gone::error)?;
                self.tree.create_file(place)
            }
            (Err(gone), _) => return Err(gone.error()),
        };
        self.tree.file(id).map_err(Gone::error)?.open += 1;
        Ok(id)
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Sim")
            .field("seed", &state.seed)
            .field("operations", &state.operations)
            .finish_non_exhaustive()
    }
}
