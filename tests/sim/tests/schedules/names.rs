//! Names that are given and taken at once: what the log notes of them must
//! lead, read in its order, to the rows that stand in the end.
//!
//! The locks are the registry's own; the rows are a map.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex as Lock};

use bytes::Bytes;
use orlop_disk::Disk as _;
use orlop_engine::Store;
use orlop_format::BLOCK;
use orlop_format::group::{Entries, Head, Volume};
use orlop_format::journal::FileHeader;
use orlop_format::location::Home;
use orlop_format::record::Record;
use orlop_oci::RepositoryName;
use shuttle_tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::explore::{Times, explore, must_fail};
use crate::step::{folder, point};
use crate::world::{
    Acknowledged, Image, World, assert_holds, content, put, sha256, small, spawn, with_store,
};

#[expect(dead_code, reason = "no schedule is about two repositories at once")]
#[path = "../../../../server/src/registry/order.rs"]
mod order;

use order::Order;

/// What happened to a name, as it is noted: kind, place, value.
type Note = (u8, u8, u8);

const SET: u8 = 1;
const LINK: u8 = 2;
const UNLINK: u8 = 3;
const DELETE: u8 = 4;

/// The rows: tags with the number of their manifest, and links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    tags: BTreeMap<u8, u8>,
    links: BTreeSet<u8>,
}

impl Rows {
    fn apply(&mut self, (kind, place, value): Note) {
        match kind {
            SET => drop(self.tags.insert(place, value)),
            LINK => drop(self.links.insert(place)),
            UNLINK => drop(self.links.remove(&place)),
            // A manifest goes with its tags.
            _ => self.tags.retain(|_, manifest| *manifest != value),
        }
    }
}

/// A registry's way of writing: a note, then its row, under a lock.
#[derive(Clone)]
struct Names {
    store: Store,
    order: Arc<Order>,
    rows: Arc<Lock<Rows>>,
    /// Whether tags are locked, as they must be.
    locks_tags: bool,
}

impl Names {
    fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            order: Arc::default(),
            rows: Arc::default(),
            locks_tags: true,
        }
    }

    /// As the catalog's writer has it: later, and whole.
    fn row(&self, note: Note) {
        point();
        self.rows.lock().unwrap().apply(note);
        point();
    }

    async fn push_manifest(&self, tag: u8, value: u8, bytes: &Bytes) {
        let note = (SET, tag, value);
        let tags: Vec<_> = self
            .locks_tags
            .then(|| tag.to_string())
            .into_iter()
            .collect();
        let _order = self.order.give(&repository(), &tags).await;
        let noted = Some(encode(note));
        let stored = self.store.put(bytes.clone(), sha256(bytes), noted);
        stored.await.unwrap();
        self.row(note);
    }

    async fn link(&self, repository_number: u8) {
        let note = (LINK, repository_number, 0);
        let _order = self.order.give(&repository(), &[]).await;
        self.store.note(encode(note)).unwrap();
        self.row(note);
    }

    async fn take(&self, note: Note) {
        let _order = self.order.take(&repository()).await;
        self.store.note(encode(note)).unwrap();
        self.row(note);
    }

    fn rows(&self) -> Rows {
        self.rows.lock().unwrap().clone()
    }
}

/// All names are of one repository, so that they share its lock.
fn repository() -> RepositoryName {
    RepositoryName::parse("a/b").unwrap()
}

fn encode((kind, place, value): Note) -> Vec<u8> {
    vec![kind, place, value]
}

/// The notes in the journal, in its order.
fn notes(world: &World) -> Vec<Note> {
    let mut notes = Vec::new();
    let journal = folder().join("journal");
    for name in world.sim.list(&journal).unwrap() {
        notes.extend(notes_of(world, &journal.join(name)));
    }
    notes.sort_by_key(|(lsn, _)| *lsn);
    notes.into_iter().map(|(_, note)| note).collect()
}

fn notes_of(world: &World, path: &Path) -> Vec<(u64, Note)> {
    let bytes = world.sim.peek(path).unwrap();
    let Ok(header) = FileHeader::decode(&bytes[..BLOCK]) else {
        return Vec::new(); // a spare
    };
    let volume = Volume {
        home: Home::Journal(header.sequence),
        salt: header.salt,
    };
    let mut notes = Vec::new();
    let mut at = BLOCK;
    while let Ok(head) = Head::decode(&volume, &bytes[at..]) {
        let end = at + head.bytes as usize;
        let base = u32::try_from(at).unwrap();
        for entry in Entries::new(volume, &head, base, &bytes[at..end]) {
            let entry = entry.unwrap();
            let note = match entry.record().unwrap() {
                Record::Note(note) => note,
                Record::Commit(commit) => commit.note,
                _ => continue,
            };
            if let [kind, place, value] = note[..] {
                notes.push((entry.lsn, (kind, place, value)));
            }
        }
        at = end;
        if at >= bytes.len() {
            break;
        }
    }
    notes
}

/// The rows as the log gives them back.
fn replayed(world: &World) -> Rows {
    let mut rows = Rows::default();
    notes(world).into_iter().for_each(|note| rows.apply(note));
    rows
}

#[test]
fn two_pushes_of_one_tag_are_noted_in_the_order_of_their_rows() {
    static FIRST: Times = Times::new("the first manifest was tagged last");
    static SECOND: Times = Times::new("the second manifest was tagged last");
    let name = "two_pushes_of_one_tag_are_noted_in_the_order_of_their_rows";
    explore(name, &[&FIRST, &SECOND], || {
        let last = two_pushes_of_one_tag(true);
        [&FIRST, &SECOND][usize::from(last) - 1].add(1);
    });
}

#[test]
fn pushes_of_one_tag_without_its_lock_are_found_out_of_order() {
    must_fail(|| assert_ne!(two_pushes_of_one_tag(false), 0));
}

/// Which of two manifests has the tag in the end.
fn two_pushes_of_one_tag(locks_tags: bool) -> u8 {
    let last = Arc::new(Lock::new(0));
    let out = Arc::clone(&last);
    with_store(Image::fresh(), |world, store, acknowledged| async move {
        let names = Names {
            locks_tags,
            ..Names::new(&store)
        };
        let pushes = [1, 2].map(|value| {
            let (names, acknowledged) = (names.clone(), acknowledged.clone());
            spawn(async move {
                let bytes = content(u64::from(value), 300);
                names.push_manifest(0, value, &bytes).await;
                acknowledged.blob(sha256(&bytes), &bytes);
            })
        });
        for push in pushes {
            push.await.unwrap();
        }
        store.close().await.unwrap();
        let rows = names.rows();
        assert_eq!(replayed(&world), rows, "{:?}", notes(&world));
        *out.lock().unwrap() = rows.tags[&0];
    });
    *last.lock().unwrap()
}

#[test]
fn a_push_meets_the_deletion_of_its_manifest() {
    static GONE: Times = Times::new("the deletion came last");
    static THERE: Times = Times::new("the push came last");
    let name = "a_push_meets_the_deletion_of_its_manifest";
    explore(name, &[&GONE, &THERE], || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            let names = Names::new(&store);
            let bytes = content(100, 300);
            names.push_manifest(0, 1, &bytes).await;
            let pushes = [0, 1].map(|tag| {
                let (names, bytes) = (names.clone(), bytes.clone());
                let acknowledged = acknowledged.clone();
                spawn(async move {
                    names.push_manifest(tag, 1, &bytes).await;
                    acknowledged.blob(sha256(&bytes), &bytes);
                })
            });
            names.take((DELETE, 0, 1)).await;
            for push in pushes {
                push.await.unwrap();
            }
            store.close().await.unwrap();
            let rows = names.rows();
            assert_eq!(replayed(&world), rows, "{:?}", notes(&world));
            let event = if rows.tags.is_empty() { &GONE } else { &THERE };
            event.add(1);
        });
    });
}

/// A mount: the blob is leased, then the link looked at, then given on.
async fn mount(names: &Names, from: u8, to: u8, acknowledged: &Acknowledged) -> bool {
    let (bytes, digest) = (small(), sha256(&small()));
    if names.store.stat(&digest).is_err() {
        return false;
    }
    point();
    if !names.rows().links.contains(&from) {
        return false;
    }
    names.link(to).await;
    acknowledged.blob(digest, &bytes);
    assert!(names.store.held(&digest).unwrap(), "it is promised to stay");
    true
}

#[test]
fn a_mount_meets_the_deletion_of_its_source() {
    static MOUNTED: Times = Times::new("the mount came first");
    static REFUSED: Times = Times::new("the deletion came first");
    let name = "a_mount_meets_the_deletion_of_its_source";
    explore(name, &[&MOUNTED, &REFUSED], || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            let names = Names::new(&store);
            names.link(1).await;
            let (taker, mounter) = (names.clone(), names.clone());
            let taker = spawn(async move {
                taker.take((UNLINK, 1, 0)).await;
                taker.take((UNLINK, 2, 0)).await;
                taker.link(3).await;
            });
            let mounted = spawn({
                let acknowledged = acknowledged.clone();
                async move { mount(&mounter, 1, 2, &acknowledged).await }
            });
            taker.await.unwrap();
            let event = if mounted.await.unwrap() {
                &MOUNTED
            } else {
                &REFUSED
            };
            event.add(1);
            store.close().await.unwrap();
            assert_eq!(replayed(&world), names.rows(), "{:?}", notes(&world));
            // Of the names, not of the bytes: those are another's.
            let again = world.cut().open().await;
            assert_holds(&again, &sha256(&small()), &small()).await;
            again.close().await.unwrap();
        });
    });
}

#[test]
fn pushes_of_crossing_tags_wait_for_no_circle() {
    explore("pushes_of_crossing_tags_wait_for_no_circle", &[], || {
        with_store(Image::fresh(), |world, store, _| async move {
            let names = Names::new(&store);
            let pushes = [["x", "y"], ["y", "x"], ["y", "z"]].map(|tags| {
                let names = names.clone();
                spawn(async move {
                    let tags = tags.map(str::to_owned);
                    let _order = names.order.give(&repository(), &tags).await;
                    point();
                    put(&names.store, &content(101, 50)).await.unwrap();
                })
            });
            names.take((UNLINK, 1, 0)).await;
            for push in pushes {
                push.await.unwrap();
            }
            store.close().await.unwrap();
            assert_eq!(notes(&world).len(), 1);
        });
    });
}
