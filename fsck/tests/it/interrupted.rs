//! A repair that is interrupted anywhere, and run again: it ends as one that
//! was not.
//!
//! Owns: a model of what a crash leaves of the steps of a repair. A file's
//! bytes and a folder's names are durable when they were synced; of the rest
//! anything may be there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use orlop_figures::{choose, record};
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::record::Record;
use orlop_fsck::repair::{self, Step};

use crate::named::{JOURNAL, Named, RAW, contents, options, repaired};
use crate::recipes_catalog::collect;
use crate::recipes_index::with_rows;
use crate::support::Folder;

/// What is durable, by inode.
#[derive(Default, Clone)]
struct Durable {
    files: HashMap<u64, Vec<u8>>,
    folders: HashMap<u64, BTreeMap<String, u64>>,
}

fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

fn listing(folder: &Path) -> BTreeMap<String, PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), entry.path())
        })
        .collect()
}

impl Durable {
    /// All that is there.
    fn of(folder: &Path) -> Self {
        let mut durable = Self::default();
        durable.all(folder);
        durable
    }

    fn all(&mut self, path: &Path) {
        if path.is_dir() {
            self.names(path);
            for child in listing(path).values() {
                self.all(child);
            }
        } else {
            self.bytes(path);
        }
    }

    fn bytes(&mut self, path: &Path) {
        self.files.insert(inode(path), std::fs::read(path).unwrap());
    }

    fn names(&mut self, folder: &Path) {
        let names = listing(folder)
            .into_iter()
            .map(|(name, path)| (name, inode(&path)))
            .collect();
        self.folders.insert(inode(folder), names);
    }

    /// What a step that was done made durable.
    fn done(&mut self, step: &Step) {
        match step {
            Step::Sync(path) => self.bytes(path),
            Step::SyncFolder(path) => self.names(path),
            // A new file and a new folder may have an old one's inode.
            Step::Write(path) => {
                self.files.remove(&inode(path));
            }
            Step::MakeFolder(path) => {
                self.folders.remove(&inode(path));
            }
            Step::Rename(..) | Step::Link(..) | Step::Unlink(_) | Step::Clear(_) => {}
        }
    }

    /// Writes what is left of `live` to `to`.
    fn image(&self, live: &Path, to: &Path, model: Model, random: &mut u64) {
        std::fs::create_dir_all(to).unwrap();
        self.folder(live, inode(live), to, model, random);
    }

    fn folder(&self, live: &Path, id: u64, to: &Path, model: Model, random: &mut u64) {
        let paths = all_paths(live);
        let now: BTreeMap<String, u64> = match paths.get(&id) {
            Some(path) => listing(path)
                .into_iter()
                .map(|(name, path)| (name, inode(&path)))
                .collect(),
            None => BTreeMap::new(),
        };
        let synced = self.folders.get(&id).cloned().unwrap_or_default();
        let names = if model.live_names(random) {
            now
        } else {
            synced
        };
        for (name, child) in names {
            let path = paths.get(&child);
            let is_folder = path.map_or(self.folders.contains_key(&child), |path| path.is_dir());
            let place = to.join(&name);
            if is_folder {
                std::fs::create_dir_all(&place).unwrap();
                self.folder(live, child, &place, model, random);
                continue;
            }
            let synced = self.files.get(&child).cloned().unwrap_or_default();
            let bytes = match path {
                Some(path) if model.live_bytes(random) => std::fs::read(path).unwrap(),
                _ => synced,
            };
            std::fs::write(place, bytes).unwrap();
        }
    }
}

fn all_paths(folder: &Path) -> HashMap<u64, PathBuf> {
    let mut paths = HashMap::from([(inode(folder), folder.to_owned())]);
    for path in listing(folder).into_values() {
        if path.is_dir() {
            paths.extend(all_paths(&path));
        } else {
            paths.insert(inode(&path), path);
        }
    }
    paths
}

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    /// Everything, as when the process was killed.
    Killed,
    /// What was synced.
    Synced,
    /// All names, and of bytes what was synced.
    Names,
    /// Some of each.
    Mixed,
}

impl Model {
    fn live_names(self, random: &mut u64) -> bool {
        match self {
            Model::Killed | Model::Names => true,
            Model::Synced => false,
            Model::Mixed => flip(random),
        }
    }

    fn live_bytes(self, random: &mut u64) -> bool {
        match self {
            Model::Killed => true,
            Model::Synced | Model::Names => false,
            Model::Mixed => flip(random),
        }
    }
}

fn flip(random: &mut u64) -> bool {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random & 1 == 1
}

/// What can be said of a store: rows of its catalog without times, what a
/// check counts, and that nothing of what was there is gone.
#[derive(Debug, PartialEq, Eq)]
struct End {
    rows: Vec<String>,
    /// Further digests that are in the log, and whether there is an index.
    further: (BTreeSet<Digest>, bool),
    blobs: (u64, u64, u64),
    clean: bool,
}

const ROWS: &[&str] = &[
    "SELECT 'catalog', hex(id), '' FROM catalog",
    "SELECT 'repository', id, name || manifests || ' ' || manifest_sum || ' ' || edges || ' ' || edge_sum FROM repository ORDER BY id",
    "SELECT 'manifest', repository, hex(digest) || media_type || size || (deleted_at IS NULL) FROM manifest ORDER BY 2, 3",
    "SELECT 'edge', repository, hex(manifest) || kind || hex(digest) || size FROM edge ORDER BY 2, 3",
    "SELECT 'tag', repository, name || hex(manifest) || (deleted_at IS NULL) FROM tag ORDER BY 2, 3",
    "SELECT 'link', repository, hex(digest) || size FROM link ORDER BY 2, 3",
    "SELECT 'unlinked', repository, hex(digest) FROM unlinked ORDER BY 2, 3",
];

fn end(folder: &Path, outcome: &repair::Outcome) -> End {
    let mut rows = Vec::new();
    let sql = rusqlite::Connection::open(folder.join("catalog.db")).unwrap();
    for text in ROWS {
        let mut statement = sql.prepare(text).unwrap();
        let mut found = statement.query(()).unwrap();
        while let Some(row) = found.next().unwrap() {
            let columns: Vec<String> = (0..3)
                .map(|at| format!("{:?}", row.get_ref(at).unwrap()))
                .collect();
            rows.push(columns.join(" "));
        }
    }
    let counts = &outcome.after.counts;
    let journal = listing(&folder.join("journal"));
    let further = journal
        .values()
        .rev()
        .take(2)
        .flat_map(|path| crate::repair::records(path))
        .filter_map(|record| match record {
            Record::Alias { alias, .. } => Some(alias),
            _ => None,
        })
        .collect();
    End {
        rows,
        further: (further, folder.join("index").exists()),
        blobs: (counts.blobs, counts.quarantined, counts.manifests),
        clean: outcome.after.clean(),
    }
}

/// The bytes of every file but those that repair makes for itself, and those of
/// the index: a folder cannot have two names, and a loss of power may take both.
fn bytes(folder: &Path) -> BTreeSet<Vec<u8>> {
    let index = folder.join("index");
    all_paths(folder)
        .into_values()
        .filter(|path| !path.starts_with(&index))
        .filter(|path| path.is_file())
        .map(|path| std::fs::read(path).unwrap())
        .filter(|bytes| !bytes.is_empty())
        .collect()
}

/// A damage, and where lost blobs come from.
struct Case {
    name: &'static str,
    store: Store,
    source: Option<tempfile::TempDir>,
}

enum Store {
    Named(Named),
    Golden(Folder),
}

impl Store {
    fn folder(&self) -> &Path {
        match self {
            Store::Named(named) => named.folder(),
            Store::Golden(golden) => golden.root(),
        }
    }
}

pub(crate) fn layout(blobs: &[&Vec<u8>]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("blobs/sha256");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(folder.path().join("oci-layout"), "{}").unwrap();
    for bytes in blobs {
        std::fs::write(below.join(crate::named::sha256(bytes).hex()), bytes).unwrap();
    }
    folder
}

fn cases() -> Vec<Case> {
    let contents = contents();
    let mut cases = Vec::new();
    let mut add = |name, store: Named, source| {
        cases.push(Case {
            name,
            store: Store::Named(store),
            source,
        });
    };
    add("lost catalog", Named::without_catalog(), None);

    let store = Named::whole();
    store.write("catalog.db", &crate::v1::content(91, 40_960));
    store.write("catalog.db-wal", &crate::v1::content(92, 8_192));
    store.write("catalog.db-shm", &crate::v1::content(93, 4_096));
    add("rotten catalog", store, None);

    let store = Named::whole();
    store.rot(RAW, &contents.large[30_000..30_100]);
    store.rot(JOURNAL, &contents.small[100..200]);
    let source = layout(&[&contents.large, &contents.small]);
    add("damaged blobs", store, Some(source));

    let store = Named::whole();
    store.rot(JOURNAL, &contents.image[100..200]);
    std::fs::remove_file(store.path("superblock.1")).unwrap();
    std::fs::remove_file(store.path("catalog.db")).unwrap();
    let source = layout(&[&contents.image]);
    add("everything", store, Some(source));

    let store = Named::whole();
    std::fs::remove_file(store.path(RAW)).unwrap();
    let source = layout(&[&contents.large]);
    add("a lost raw file", store, Some(source));

    let store = Named::whole();
    collect(store.folder(), &contents.small);
    collect(store.folder(), &contents.large);
    let source = layout(&[&contents.large, &contents.small]);
    add("collected layers", store, Some(source));
    for (name, ahead) in [("an index that is wrong", 0), ("an index ahead", 20)] {
        cases.push(with_index(name, ahead));
    }
    cases
}

/// The golden store with a damaged blob, and an index that has to go and alone
/// knows a digest.
fn with_index(name: &'static str, ahead: u64) -> Case {
    let blobs = crate::v1::store().blobs;
    let golden = Folder::golden();
    let alias = Digest::of(Algorithm::Sha512, &blobs[0].bytes).encode();
    let sha256 = crate::named::sha256(&blobs[0].bytes).bytes().to_vec();
    let rows = [
        ("alias", alias, sha256.clone()),
        ("ordinal", 77u64.to_be_bytes().to_vec(), sha256),
    ];
    with_rows(&golden, 29 + ahead, &rows);
    crate::engine::flip(&golden.path("data/raw"), &blobs[1].bytes[200..300]);
    Case {
        name,
        store: Store::Golden(golden),
        source: Some(layout(&[&blobs[1].bytes, &blobs[5].bytes])),
    }
}

#[test]
fn a_repair_interrupted_at_any_step_ends_the_same_when_it_is_run_again() {
    const SEED: u64 = 0x5eed_0005;
    let seed = std::env::var("ORLOP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(SEED);
    println!("replay with: ORLOP_SEED={seed} cargo test -p orlop-fsck --test it interrupted");
    let every = choose(5, 1, 1);
    let mixed = choose(1, 1, 12);
    let mut models = vec![Model::Killed, Model::Synced, Model::Names];
    models.extend(vec![Model::Mixed; mixed]);
    let mut random = seed;
    let mut images = 0u64;
    for case in cases() {
        let source = case
            .source
            .as_ref()
            .map(|folder| folder.path().to_str().unwrap().to_owned());
        let sources: Vec<&str> = source.iter().map(String::as_str).collect();
        let before = bytes(case.store.folder());
        let wanted = {
            let copy = copied(case.store.folder());
            let outcome = repaired(copy.path(), &sources);
            assert!(outcome.after.clean(), "{}: {:#?}", case.name, outcome);
            assert!(outcome.left.is_empty(), "{}: {outcome:#?}", case.name);
            let kept = bytes(copy.path());
            assert!(
                kept.is_superset(&before),
                "{}: something is gone",
                case.name
            );
            end(copy.path(), &outcome)
        };
        for stop in (0usize..).step_by(every) {
            let copy = copied(case.store.folder());
            let (durable, stopped) = interrupted(copy.path(), &sources, stop);
            if !stopped {
                break;
            }
            for model in &models {
                let image = tempfile::tempdir().unwrap();
                let folder = image.path().join("image");
                durable.image(copy.path(), &folder, *model, &mut random);
                images += 1;
                let what = format!("{} at step {stop}, {model:?}, seed {seed}", case.name);
                let outcome = repaired(&folder, &sources);
                assert!(outcome.left.is_empty(), "{what}: {outcome:#?}");
                assert_eq!(end(&folder, &outcome), wanted, "{what}");
                let kept = bytes(&folder);
                assert!(kept.is_superset(&before), "{what}: something is gone");
            }
        }
    }
    record("crash images in repair", images, &seed.to_string());
    assert!(images >= choose(60, 100, 1_000), "{images} images only");
}

/// Repairs up to a step. Says what was durable then, and whether it came that
/// far.
fn interrupted(folder: &Path, sources: &[&str], stop: usize) -> (Durable, bool) {
    let mut durable = Durable::of(folder);
    let mut last: Option<Step> = None;
    let mut at = 0;
    let plan = repair::plan(folder, options(sources)).unwrap();
    let outcome = repair::apply(&plan, &mut |step| {
        if let Some(done) = last.take() {
            durable.done(&done);
        }
        if at == stop {
            return Err(std::io::Error::other("interrupted"));
        }
        at += 1;
        last = Some(step.clone());
        Ok(())
    });
    (durable, outcome.is_err())
}

fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(folder, copy.path());
    copy
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for (name, path) in listing(from) {
        if path.is_dir() {
            std::fs::create_dir_all(to.join(&name)).unwrap();
            copy_tree(&path, &to.join(&name));
        } else {
            std::fs::copy(&path, to.join(&name)).unwrap();
        }
    }
}
