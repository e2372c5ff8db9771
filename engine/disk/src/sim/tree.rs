//! The folders and files of a simulated disk.
//!
//! Invariants: a name is durable only after a sync of its folder. A rename
//! within one folder is one change; between two folders each half waits for
//! the sync of its own. A removed file lives while it is open, or while a
//! crash could bring its name back.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::file::FileState;
use super::random::Random;
use super::{Crash, Gone};

/// The folder at the top.
const ROOT: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Folder(u64),
    File(u64),
}

/// Names that change together.
#[derive(Clone)]
struct NameChange {
    sequence: u64,
    names: Vec<(String, Option<Entry>)>,
}

#[derive(Clone, Default)]
struct Folder {
    names: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    pending: Vec<NameChange>,
    /// Called clean by a sync that failed. No sync makes them durable.
    orphaned: Vec<NameChange>,
}

fn apply(names: &mut BTreeMap<String, Entry>, change: &NameChange) {
    for (name, entry) in &change.names {
        match entry {
            Some(entry) => names.insert(name.clone(), *entry),
            None => names.remove(name),
        };
    }
}

impl Folder {
    fn change(&mut self, sequence: u64, names: Vec<(String, Option<Entry>)>) {
        let change = NameChange { sequence, names };
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    fn settled(names: BTreeMap<String, Entry>) -> Folder {
        Folder {
            durable: names.clone(),
            names,
            ..Folder::default()
        }
    }

    /// Every entry that is there, or could be there after a crash.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let changes = self.pending.iter().chain(&self.orphaned);
        let changed =
            changes.flat_map(|change| change.names.iter().filter_map(|(_, entry)| *entry));
        self.names
            .values()
            .chain(self.durable.values())
            .copied()
            .chain(changed)
    }
}

#[derive(Clone)]
pub(super) struct Tree {
    folders: BTreeMap<u64, Folder>,
    files: BTreeMap<u64, FileState>,
    next: u64,
    sequence: u64,
    /// Syncs that settled something.
    settled: u64,
}

/// A folder and a name in it.
pub(super) struct Place {
    folder: u64,
    name: String,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let folders = BTreeMap::from([(ROOT, Folder::default())]);
        Tree {
            folders,
            files: BTreeMap::new(),
            next: ROOT + 1,
            sequence: 0,
            settled: 0,
        }
    }

    /// A number that orders a change among all others.
    pub(super) fn tick(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Tells what the disk holds now, and what of it is durable, from any
    /// earlier such state.
    pub(super) fn version(&self) -> u64 {
        self.sequence + self.settled
    }

    /// Notes that a sync settled something.
    pub(super) fn settle(&mut self) {
        self.settled += 1;
    }

    /// Every named file, in the order of the names.
    pub(super) fn named(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, folder)) = todo.pop() {
            let names = self.folders.get(&folder).map(|folder| &folder.names);
            for (name, entry) in names.into_iter().flatten() {
                match entry {
                    Entry::File(id) => found.push((path.join(name), *id)),
                    Entry::Folder(id) => todo.push((path.join(name), *id)),
                }
            }
        }
        found.sort();
        found
    }

    pub(super) fn file(&mut self, id: u64) -> Result<&mut FileState, Gone> {
        self.files.get_mut(&id).ok_or(Gone::NotFound)
    }

    /// Room that all files take, in pages.
    pub(super) fn pages(&self) -> u64 {
        self.files
            .values()
            .map(|file| file.written.content.pages())
            .sum()
    }

    /// The entry of a path.
    pub(super) fn find(&self, path: &Path) -> Result<Entry, Gone> {
        let mut entry = Entry::Folder(ROOT);
        for name in names(path) {
            let Entry::Folder(id) = entry else {
                return Err(Gone::NotAFolder);
            };
            let folder = self.folders.get(&id).ok_or(Gone::NotFound)?;
            entry = *folder.names.get(name?).ok_or(Gone::NotFound)?;
        }
        Ok(entry)
    }

    pub(super) fn find_file(&self, path: &Path) -> Result<u64, Gone> {
        match self.find(path)? {
            Entry::File(id) => Ok(id),
            Entry::Folder(_) => Err(Gone::AFolder),
        }
    }

    fn find_folder(&self, path: &Path) -> Result<u64, Gone> {
        match self.find(path)? {
            Entry::Folder(id) => Ok(id),
            Entry::File(_) => Err(Gone::NotAFolder),
        }
    }

    /// Where the last name of a path stands or would stand.
    pub(super) fn place(&self, path: &Path) -> Result<Place, Gone> {
        let name = names(path).last().ok_or(Gone::AFolder)??.to_owned();
        let folder = self.find_folder(path.parent().unwrap_or(Path::new("")))?;
        Ok(Place { folder, name })
    }

    fn entry(&self, place: &Place) -> Option<Entry> {
        self.folders
            .get(&place.folder)?
            .names
            .get(&place.name)
            .copied()
    }

    fn set(&mut self, sequence: u64, place: Place, entry: Option<Entry>) {
        if let Some(folder) = self.folders.get_mut(&place.folder) {
            folder.change(sequence, vec![(place.name, entry)]);
        }
    }

    fn fresh(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    pub(super) fn create_file(&mut self, place: Place) -> u64 {
        let (id, sequence) = (self.fresh(), self.tick());
        self.files.insert(id, FileState::default());
        self.set(sequence, place, Some(Entry::File(id)));
        id
    }

    pub(super) fn create_folder(&mut self, path: &Path) -> Result<(), Gone> {
        match self.find(path) {
            Ok(Entry::Folder(_)) => return Ok(()),
            Ok(Entry::File(_)) => return Err(Gone::Exists),
            Err(Gone::NotFound) => {}
            Err(other) => return Err(other),
        }
        let place = self.place(path)?;
        let (id, sequence) = (self.fresh(), self.tick());
        self.folders.insert(id, Folder::default());
        self.set(sequence, place, Some(Entry::Folder(id)));
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<String>, Gone> {
        let id = self.find_folder(path)?;
        let folder = self.folders.get(&id).ok_or(Gone::NotFound)?;
        Ok(folder.names.keys().cloned().collect())
    }

    fn is_empty(&self, id: u64) -> bool {
        self.folders
            .get(&id)
            .is_none_or(|folder| folder.names.is_empty())
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), Gone> {
        let place = self.place(path)?;
        match self.entry(&place).ok_or(Gone::NotFound)? {
            Entry::Folder(id) if !self.is_empty(id) => return Err(Gone::NotEmpty),
            Entry::Folder(_) | Entry::File(_) => {}
        }
        let sequence = self.tick();
        self.set(sequence, place, None);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Gone> {
        let (source, target) = (self.place(from)?, self.place(to)?);
        let moved = self.entry(&source).ok_or(Gone::NotFound)?;
        match (moved, self.entry(&target)) {
            (_, Some(same)) if same == moved => return Ok(()),
            (Entry::Folder(_), _) if to.starts_with(from) => return Err(Gone::Invalid),
            (Entry::Folder(_), Some(Entry::Folder(id))) if !self.is_empty(id) => {
                return Err(Gone::NotEmpty);
            }
            (Entry::Folder(_), Some(Entry::File(_))) => return Err(Gone::NotAFolder),
            (Entry::File(_), Some(Entry::Folder(_))) => return Err(Gone::AFolder),
            _ => {}
        }
        let sequence = self.tick();
        if source.folder == target.folder {
            if let Some(folder) = self.folders.get_mut(&source.folder) {
                folder.change(
                    sequence,
                    vec![(source.name, None), (target.name, Some(moved))],
                );
            }
        } else {
            self.set(sequence, target, Some(moved));
            let sequence = self.tick();
            self.set(sequence, source, None);
        }
        Ok(())
    }

    pub(super) fn sync_folder(&mut self, path: &Path) -> Result<(), Gone> {
        let id = self.find_folder(path)?;
        if let Some(folder) = self.folders.get_mut(&id) {
            self.settled += u64::from(!folder.pending.is_empty());
            for change in std::mem::take(&mut folder.pending) {
                apply(&mut folder.durable, &change);
            }
        }
        self.sweep();
        Ok(())
    }

    pub(super) fn sync_folder_failed(&mut self, path: &Path) -> Result<(), Gone> {
        let id = self.find_folder(path)?;
        if let Some(folder) = self.folders.get_mut(&id) {
            self.settled += u64::from(!folder.pending.is_empty());
            let mut pending = std::mem::take(&mut folder.pending);
            folder.orphaned.append(&mut pending);
        }
        Ok(())
    }

    /// Forgets files and folders that nothing can reach any more.
    pub(super) fn sweep(&mut self) {
        let mut live = BTreeSet::from([ROOT]);
        let mut files = BTreeSet::new();
        let mut todo = vec![ROOT];
        while let Some(folder) = todo.pop().and_then(|id| self.folders.get(&id)) {
            for entry in folder.entries() {
                match entry {
                    Entry::File(id) => drop(files.insert(id)),
                    Entry::Folder(id) if live.insert(id) => todo.push(id),
                    Entry::Folder(_) => {}
                }
            }
        }
        self.folders.retain(|id, _| live.contains(id));
        self.files
            .retain(|id, file| file.open > 0 || files.contains(id));
    }

    /// The disk as the next start finds it.
    pub(super) fn after(&self, crash: Crash) -> Tree {
        let mut tree = match crash {
            Crash::Killed => self.clone(),
            Crash::Lost => self.map(FileState::durable, |folder| folder.durable.clone()),
            Crash::Kept => self.map(FileState::kept, |folder| {
                let mut names = folder.durable.clone();
                folder
                    .pending
                    .iter()
                    .for_each(|change| apply(&mut names, change));
                names
            }),
            Crash::Parts(parts) => self.map(
                |file| file.parts(parts),
                |folder| {
                    let mut names = folder.durable.clone();
                    let pending = folder.pending.iter().filter(|_| parts.names);
                    pending.for_each(|change| apply(&mut names, change));
                    names
                },
            ),
            Crash::Prefix(seed) => self.prefix(&mut Random::new(seed)),
            Crash::Torn(seed) => self.torn(&mut Random::new(seed)),
        };
        for file in tree.files.values_mut() {
            file.open = 0;
        }
        tree.sweep();
        tree
    }

    fn prefix(&self, random: &mut Random) -> Tree {
        let names = self.folders.values().flat_map(|folder| &folder.pending);
        let names = names.map(|change| change.sequence);
        let mut waiting: Vec<u64> = self
            .files
            .values()
            .flat_map(FileState::waiting)
            .chain(names)
            .collect();
        waiting.sort_unstable();
        // One past the end keeps everything.
        let place = usize::try_from(random.below(waiting.len() as u64 + 1)).unwrap_or(0);
        let cut = waiting.get(place).copied().unwrap_or(u64::MAX);
        self.map(
            |file| file.prefix(cut, random),
            |folder| {
                let mut names = folder.durable.clone();
                let before = folder
                    .pending
                    .iter()
                    .take_while(|change| change.sequence < cut);
                before.for_each(|change| apply(&mut names, change));
                names
            },
        )
    }

    fn torn(&self, random: &mut Random) -> Tree {
        let mut coins = Random::new(random.next());
        self.map(
            |file| file.torn(random),
            |folder| {
                let mut names = folder.durable.clone();
                let mut changes: Vec<_> = folder.orphaned.iter().chain(&folder.pending).collect();
                changes.sort_by_key(|change| change.sequence);
                for change in changes {
                    if coins.chance(50) {
                        apply(&mut names, change);
                    }
                }
                names
            },
        )
    }

    fn map(
        &self,
        mut file: impl FnMut(&FileState) -> FileState,
        mut names: impl FnMut(&Folder) -> BTreeMap<String, Entry>,
    ) -> Tree {
        Tree {
            folders: self
                .folders
                .iter()
                .map(|(id, f)| (*id, Folder::settled(names(f))))
                .collect(),
            files: self.files.iter().map(|(id, f)| (*id, file(f))).collect(),
            next: self.next,
            sequence: self.sequence,
            settled: self.settled,
        }
    }
}

/// The names of a path from the top. Absolute and relative paths are the same.
fn names(path: &Path) -> impl Iterator<Item = Result<&str, Gone>> {
    path.components().filter_map(|component| match component {
        Component::RootDir | Component::CurDir => None,
        Component::Normal(name) => Some(OsStr::to_str(name).ok_or(Gone::Invalid)),
        Component::Prefix(_) | Component::ParentDir => Some(Err(Gone::Invalid)),
    })
}
