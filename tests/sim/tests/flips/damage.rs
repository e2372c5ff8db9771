//! One piece of damage, done to a simulated disk for the engine and to plain
//! files for fsck.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use orlop_disk::sim::Crash;
use orlop_engine::{Error, Store};

use crate::map::{Spot, What};
use crate::store::{Base, OWNER};
use crate::support::clock::simulate;
use crate::support::contents::Content;
use crate::support::random::{Random, mix};
use crate::support::world::{World, folder, pull};

/// Bytes that come in the place of others.
#[derive(Debug, Clone)]
pub struct Edit {
    pub file: usize,
    pub at: usize,
    pub bytes: Vec<u8>,
}

/// A piece of damage.
#[derive(Debug, Clone)]
pub struct Change {
    /// What it is, for messages.
    pub name: String,
    /// The sweep it belongs to.
    pub sweep: &'static str,
    pub edits: Vec<Edit>,
    /// A file that ends sooner.
    pub cut: Option<(usize, usize)>,
    /// The recorded bytes that it changes, and the first of them.
    pub hits: Vec<(Spot, usize)>,
}

impl Change {
    pub fn flip(sweep: &'static str, spot: &Spot, at: usize, mask: u8) -> Change {
        let old = crate::store::base().files[spot.file].1[at];
        Change {
            name: format!("a flip of {:?}, mask {mask:#04x}", spot.what),
            sweep,
            edits: vec![Edit {
                file: spot.file,
                at,
                bytes: vec![old ^ mask],
            }],
            cut: None,
            hits: vec![(spot.clone(), at)],
        }
    }
}

/// A copy of the store in plain files.
pub struct Place {
    base: &'static Base,
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new(base: &'static Base) -> Place {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let place = Place {
            base,
            folder: made.unwrap(),
        };
        for below in ["journal", "data/raw", "data/small", "data/meta"] {
            std::fs::create_dir_all(place.folder().join(below)).unwrap();
        }
        for (name, bytes) in &base.files {
            let file = std::fs::File::create(place.folder().join(name)).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            for (number, block) in bytes.chunks(4096).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, number as u64 * 4096).unwrap();
                }
            }
        }
        place
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Does the damage, asks fsck and the engine, and mends it.
    pub fn check(&self, change: &Change, number: u64) {
        let what = self.describe(change, number);
        self.write(change, false);
        let report = orlop_fsck::check(self.folder());
        self.write(change, true);
        let report = report.unwrap_or_else(|trouble| panic!("{what}: fsck: {trouble}"));
        self.judge(change, report.clean(), &report.to_string(), &what);
        simulate(self.engine(change, number, &what));
    }

    fn describe(&self, change: &Change, number: u64) -> String {
        let places: Vec<_> = change
            .hits
            .iter()
            .map(|(spot, at)| {
                format!(
                    "{:?} in {} at {at}",
                    spot.what, self.base.files[spot.file].0
                )
            })
            .collect();
        let seed = crate::seed();
        let test = match change.sweep {
            "metadata" => "g5_every",
            "payload" => "g5_flipped",
            _ => "g5_zeroed",
        };
        format!(
            "{} ({}); run it again with: cd tests/sim && ORLOP_SIZE={} ORLOP_SEED={seed} ORLOP_FLIP={number} cargo test --test flips {test}",
            change.name,
            places.join(", "),
            orlop_figures::choose("quick", "commit", "release")
        )
    }

    fn write(&self, change: &Change, back: bool) {
        let open = |file: usize| {
            let path = self.folder().join(&self.base.files[file].0);
            OpenOptions::new().write(true).open(path).unwrap()
        };
        for edit in &change.edits {
            let old = &self.base.files[edit.file].1[edit.at..edit.at + edit.bytes.len()];
            let bytes = if back { old } else { &edit.bytes };
            open(edit.file).write_all_at(bytes, edit.at as u64).unwrap();
        }
        if let Some((file, len)) = change.cut {
            let handle = open(file);
            if back {
                let whole = &self.base.files[file].1;
                handle.write_all_at(&whole[len..], len as u64).unwrap();
            } else {
                handle.set_len(len as u64).unwrap();
            }
        }
    }

    /// Fsck finds it and names the file, the offset, and whose bytes they are.
    fn judge(&self, change: &Change, clean: bool, text: &str, what: &str) {
        let name = |spot: &Spot| self.base.files[spot.file].0.as_str();
        let provable = change
            .hits
            .iter()
            .any(|(spot, _)| spot.what != What::OpenSlot);
        assert!(!clean || !provable, "{what}: fsck passed it over:\n{text}");
        let single = change.edits.len() == 1 && change.cut.is_none() && change.hits.len() == 1;
        if !single {
            let named = change
                .hits
                .iter()
                .any(|(spot, _)| text.contains(name(spot)));
            assert!(named, "{what}: fsck does not name the file:\n{text}");
            return;
        }
        let (spot, byte) = &change.hits[0];
        assert!(
            text.contains(name(spot)),
            "{what}: fsck does not name the file:\n{text}"
        );
        let offset = spot.named(*byte).to_string();
        let header = matches!(spot.what, What::JournalHeader | What::SegmentHeader);
        assert!(
            header || text.contains(&offset),
            "{what}: fsck does not name the offset {offset}:\n{text}"
        );
        if let Some(owner) = &spot.owner {
            assert!(
                text.contains(owner),
                "{what}: fsck does not name {owner}:\n{text}"
            );
        }
    }

    async fn engine(&self, change: &Change, number: u64, what: &str) {
        let base = self.base;
        let sim = base.sim.crash(Crash::Killed);
        for edit in &change.edits {
            let path = folder().join(&base.files[edit.file].0);
            assert!(sim.poke(&path, edit.at as u64, &edit.bytes), "{what}");
        }
        if let Some((file, len)) = change.cut {
            cut(&sim, &folder().join(&base.files[file].0), len as u64);
        }
        let world = World::on(sim, base.index(number.is_multiple_of(2)), number);
        match world.open().await {
            Ok(store) => self.read(&store, change, number, what).await,
            Err(Error::Corrupt {
                what: place,
                reason,
            }) => {
                let text = format!("{place} {reason}");
                assert!(
                    self.names_place(change, &text),
                    "{what}: the start does not name the place: {text}"
                );
                // Damage to payload never stops the store.
                let payload = change.hits.iter().all(|(spot, _)| spot.what.is_payload());
                assert!(!payload, "{what}: the start is refused: {text}");
            }
            Err(error) => panic!("{what}: open: {error}"),
        }
        let panics = world.clock.panics();
        assert!(panics.is_empty(), "{what}: {panics:?}");
    }

    /// Whether a refusal says where it is.
    fn names_place(&self, change: &Change, text: &str) -> bool {
        change.hits.iter().any(|(spot, _)| {
            let name = &self.base.files[spot.file].0;
            let number = name.rsplit("J-").next().unwrap_or_default();
            let sequence = u64::from_str_radix(number, 16).unwrap_or(0);
            text.contains(name.as_str())
                || text.contains(&format!("file {sequence} "))
                || text.contains(&format!("file {sequence}:"))
                || (name.starts_with("superblock") && text.contains("the journal"))
        })
    }

    /// No wrong byte, and every blob that was not hit is there.
    async fn read(&self, store: &Store, change: &Change, number: u64, what: &str) {
        let mut random = Random::new(mix(number, 77));
        let owners: Vec<_> = change
            .hits
            .iter()
            .filter_map(|(spot, _)| spot.owner.clone())
            .collect();
        let is_hit = |content: &Content| owners.contains(&content.sha256.to_string());
        for content in &self.base.blobs {
            let hit = is_hit(content);
            if !hit && content.len() > 5_000 && !random.chance(25) {
                continue;
            }
            let digest = content.sha256;
            match pull(store, &digest).await {
                Ok(found) => {
                    assert!(found == content.bytes, "{what}: wrong bytes of {digest}");
                    let payload = change
                        .hits
                        .iter()
                        .any(|(spot, _)| spot.what.is_payload() && change.edits.len() == 1);
                    assert!(!(hit && payload), "{what}: served as if it were whole");
                }
                Err(Error::Corrupt { .. }) if hit || self.shared(change, &digest) => {
                    let stat = store.stat(&digest);
                    assert!(
                        matches!(stat, Err(Error::NotFound { .. })),
                        "{what}: HEAD must say absent, so that a push heals it: {stat:?}"
                    );
                }
                Err(error) => panic!("{what}: {digest}: {error}"),
            }
        }
        let upload = owners.iter().any(|owner| owner.starts_with("upload"));
        if !upload {
            let status = store.upload_status(self.base.upload, OWNER);
            let right = matches!(status, Ok(offset) if offset == self.base.durable);
            assert!(right, "{what}: the upload's offset: {status:?}");
        }
    }

    /// Whether the damage lies in something that several blobs need: the
    /// header of their segment, or their own record's header.
    fn shared(&self, change: &Change, digest: &orlop_engine::Digest) -> bool {
        let name = digest.to_string();
        self.base.spots.iter().any(|spot| {
            spot.owner.as_deref() == Some(&name)
                && change.hits.iter().any(|(hit, _)| {
                    hit.file == spot.file
                        && (hit.what == What::SegmentHeader
                            || (hit.what == What::Record && hit.at == spot.at)
                            || change.cut.is_some())
                })
        })
    }
}

/// Ends a simulated file sooner.
fn cut(sim: &std::sync::Arc<orlop_disk::sim::Sim>, path: &Path, len: u64) {
    use orlop_disk::{Create, Disk as _, Lane, OpenOptions};
    let options = OpenOptions {
        create: Create::Never,
        lane: Lane::Inline,
        direct: true,
        write: true,
    };
    sim.open(path, options).unwrap().set_len(len).unwrap();
}
