//! Files and folders as they are, as they would be after a power cut, and what
//! happened in between.
//!
//! Invariants: a sync of a file makes its data and length durable and no name;
//! a sync of a folder makes its names durable and no data. What was not synced
//! may be there after a cut or not, each change apart from the others, but for
//! a rename within a folder, which is done whole or not at all. What a cut
//! left is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::SystemTime;

use orlop_tests::random::Random;

use super::content::{Content, PAGE};

/// The number of the root folder.
pub(super) const ROOT: u64 = 1;

/// One change of a file.
#[derive(Debug, Clone)]
enum Change {
    Write(u64, Arc<Vec<u8>>),
    Zero(u64, u64),
    Length(u64),
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    pub(super) now: Content,
    durable: Content,
    /// Changes since the last sync, by their number.
    since: Vec<(u64, Change)>,
    /// Pages that these have changed, unless they are too many to name.
    dirty: BTreeSet<u64>,
    all_dirty: bool,
}

/// One change of a folder: names that go, then names that come.
#[derive(Debug, Clone)]
struct Names {
    gone: Vec<OsString>,
    set: Vec<(OsString, u64)>,
}

impl Names {
    fn apply(&self, to: &mut BTreeMap<OsString, u64>) {
        for name in &self.gone {
            to.remove(name);
        }
        to.extend(self.set.iter().cloned());
    }
}

/// A folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    pub(super) now: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    since: Vec<(u64, Names)>,
}

/// What a number stands for.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    File(Data),
    Folder(Folder),
    Socket,
}

/// A file, a folder or a socket.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) changed: SystemTime,
}

/// What becomes of changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All are lost.
    All,
    /// All are kept.
    Nothing,
    /// What came before some moment is kept.
    After,
    /// So many of a hundred are kept, whichever.
    Some(u64),
    /// The same for each block of so many bytes of a write.
    Torn(u64, u64),
}

impl Loss {
    /// One of them.
    pub(crate) fn any(random: &mut Random) -> Loss {
        let percent = [5, 50, 95][random.index(3)];
        match random.below(6) {
            0 | 1 => Loss::All,
            2 => Loss::Nothing,
            3 => Loss::After,
            4 => Loss::Some(percent),
            _ => Loss::Torn(percent, if random.percent(50) { 512 } else { 4096 }),
        }
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(super) nodes: BTreeMap<u64, Node>,
    next: u64,
    /// The number of the last change.
    pub(super) changes: u64,
}

impl State {
    /// An empty file system.
    pub(crate) fn empty() -> State {
        let root = Node {
            kind: Kind::Folder(Folder::default()),
            mode: 0o755,
            owner: (0, 0),
            changed: SystemTime::UNIX_EPOCH,
        };
        State {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            changes: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    pub(super) fn data(&self, node: u64) -> Option<&Data> {
        match &self.nodes.get(&node)?.kind {
            Kind::File(data) => Some(data),
            _ => None,
        }
    }

    pub(super) fn folder(&self, node: u64) -> Option<&Folder> {
        match &self.nodes.get(&node)?.kind {
            Kind::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    fn change(&mut self, node: u64, change: Change) -> Option<()> {
        let number = self.number();
        let node = self.nodes.get_mut(&node)?;
        node.changed = SystemTime::now();
        let Kind::File(data) = &mut node.kind else {
            return None;
        };
        apply(&mut data.now, &change);
        match &change {
            Change::Write(at, bytes) => {
                let end = at + bytes.len() as u64;
                data.dirty.extend(at / PAGE..end.div_ceil(PAGE));
            }
            Change::Zero(..) | Change::Length(_) => data.all_dirty = true,
        }
        data.since.push((number, change));
        Some(())
    }

    pub(super) fn write(&mut self, node: u64, at: u64, bytes: &[u8]) -> Option<()> {
        let change = if bytes.iter().all(|byte| *byte == 0) {
            let end = at + bytes.len() as u64;
            if self.data(node)?.now.len < end {
                self.change(node, Change::Length(end))?;
            }
            Change::Zero(at, bytes.len() as u64)
        } else {
            Change::Write(at, Arc::new(bytes.to_vec()))
        };
        self.change(node, change)
    }

    pub(super) fn zero(&mut self, node: u64, at: u64, len: u64) -> Option<()> {
        self.change(node, Change::Zero(at, len))
    }

    pub(super) fn set_len(&mut self, node: u64, len: u64) -> Option<()> {
        self.change(node, Change::Length(len))
    }

    /// Makes a node without a name.
    pub(super) fn make(&mut self, kind: Kind, mode: u32, owner: (u32, u32)) -> u64 {
        let number = self.next;
        self.next += 1;
        let changed = SystemTime::now();
        let node = Node {
            kind,
            mode,
            owner,
            changed,
        };
        self.nodes.insert(number, node);
        number
    }

    /// Changes names of one folder, whole or not at all.
    pub(super) fn names(
        &mut self,
        folder: u64,
        gone: Vec<OsString>,
        set: Vec<(OsString, u64)>,
    ) -> Option<()> {
        let number = self.number();
        let node = self.nodes.get_mut(&folder)?;
        node.changed = SystemTime::now();
        let Kind::Folder(folder) = &mut node.kind else {
            return None;
        };
        let names = Names { gone, set };
        names.apply(&mut folder.now);
        folder.since.push((number, names));
        Some(())
    }

    /// Makes a file's data, or a folder's names, durable.
    pub(super) fn sync(&mut self, node: u64) {
        match self.nodes.get_mut(&node).map(|node| &mut node.kind) {
            Some(Kind::File(data)) => {
                if data.all_dirty {
                    data.durable = data.now.clone();
                } else {
                    let dirty = std::mem::take(&mut data.dirty);
                    data.durable.take(&data.now, dirty.into_iter());
                }
                data.dirty.clear();
                data.all_dirty = false;
                data.since.clear();
            }
            Some(Kind::Folder(folder)) => {
                folder.durable = folder.now.clone();
                folder.since.clear();
            }
            Some(Kind::Socket) | None => {}
        }
    }

    /// What is there after a power cut. Says how many changes were not synced.
    pub(crate) fn cut(mut self, loss: Loss, random: &mut Random) -> (State, u64) {
        let first = self.unsynced().min().unwrap_or(self.changes);
        let moment = first + random.below(self.changes - first + 1);
        let unsynced = self.unsynced().count() as u64;
        for node in self.nodes.values_mut() {
            match &mut node.kind {
                Kind::File(data) => {
                    let mut left = std::mem::take(&mut data.durable);
                    for (number, change) in &data.since {
                        keep(&mut left, change, *number <= moment, loss, random);
                    }
                    *data = Data {
                        now: left.clone(),
                        durable: left,
                        ..Data::default()
                    };
                }
                Kind::Folder(folder) => {
                    let mut left = std::mem::take(&mut folder.durable);
                    for (number, names) in &folder.since {
                        if is_kept(*number <= moment, loss, random) {
                            names.apply(&mut left);
                        }
                    }
                    *folder = Folder {
                        now: left.clone(),
                        durable: left,
                        since: Vec::new(),
                    };
                }
                Kind::Socket => {}
            }
        }
        self.sweep();
        (self, unsynced)
    }

    /// Numbers of the changes that were not synced.
    fn unsynced(&self) -> impl Iterator<Item = u64> {
        self.nodes.values().flat_map(|node| {
            let numbers: Vec<u64> = match &node.kind {
                Kind::File(data) => data.since.iter().map(|(number, _)| *number).collect(),
                Kind::Folder(folder) => folder.since.iter().map(|(number, _)| *number).collect(),
                Kind::Socket => Vec::new(),
            };
            numbers
        })
    }

    /// Forgets what has no name.
    fn sweep(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        while let Some(node) = next.pop() {
            for child in self.folder(node).into_iter().flat_map(|f| f.now.values()) {
                if reached.insert(*child) {
                    next.push(*child);
                }
            }
        }
        self.nodes.retain(|node, _| reached.contains(node));
    }
}

fn apply(to: &mut Content, change: &Change) {
    match change {
        Change::Write(at, bytes) => to.write(*at, bytes),
        Change::Zero(at, len) => to.zero(*at, *len),
        Change::Length(len) => to.set_len(*len),
    }
}

fn is_kept(is_before: bool, loss: Loss, random: &mut Random) -> bool {
    match loss {
        Loss::All => false,
        Loss::Nothing => true,
        Loss::After => is_before,
        Loss::Some(percent) | Loss::Torn(percent, _) => random.percent(percent),
    }
}

/// Applies a change, or a part of it.
fn keep(to: &mut Content, change: &Change, is_before: bool, loss: Loss, random: &mut Random) {
    if let (Loss::Torn(percent, block), Change::Write(at, bytes)) = (loss, change) {
        let mut at = *at;
        for part in bytes.chunks(super::content::size(block)) {
            if random.percent(percent) {
                to.write(at, part);
            }
            at += part.len() as u64;
        }
        // The length got there, and the data did not.
        if to.len < at && random.percent(50) {
            to.set_len(at);
        }
    } else if is_kept(is_before, loss, random) {
        apply(to, change);
    } else if let Change::Write(at, bytes) = change
        && matches!(loss, Loss::Some(_))
        && random.percent(25)
    {
        to.set_len(to.len.max(at + bytes.len() as u64));
    }
}

#[test]
fn a_cut_keeps_what_was_synced_and_may_lose_the_rest() {
    let mut state = State::empty();
    let file = state.make(Kind::File(Data::default()), 0o600, (0, 0));
    let name = || OsString::from("a");
    state.names(ROOT, Vec::new(), vec![(name(), file)]).unwrap();
    state.write(file, 0, b"durable").unwrap();
    state.sync(file);
    state.write(file, 3, b"LOST, AND LONGER").unwrap();
    let random = &mut Random::new(1);
    let (left, unsynced) = state.clone().cut(Loss::All, random);
    assert!(
        left.folder(ROOT).unwrap().now.is_empty(),
        "its name was not synced"
    );
    assert_eq!((left.nodes.len(), unsynced), (1, 2));
    state.sync(ROOT);
    state
        .names(ROOT, vec![name()], vec![("b".into(), file)])
        .unwrap();
    let (left, _) = state.clone().cut(Loss::All, random);
    assert_eq!(left.data(file).unwrap().now.read(0, 99), b"durable");
    assert!(left.folder(ROOT).unwrap().now.contains_key(&name()));
    let (left, _) = state.clone().cut(Loss::Nothing, random);
    assert_eq!(
        left.data(file).unwrap().now.read(0, 99),
        b"durLOST, AND LONGER"
    );
    assert!(!left.folder(ROOT).unwrap().now.contains_key(&name()));
    // Every other outcome is one of a few.
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let (left, _) = state.clone().cut(Loss::Some(50), random);
        let bytes = left.data(file).unwrap().now.read(0, 99);
        let kept = left.folder(ROOT).unwrap().now.contains_key(&name());
        assert!(bytes.starts_with(b"dur"), "{bytes:?}");
        seen.insert((bytes, kept));
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}
