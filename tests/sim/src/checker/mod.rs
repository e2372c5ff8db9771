//! What must hold of a store that comes back from a crash.
//!
//! The checkers know the model and the store's public answers, the index's rows
//! and the files; they know nothing of the workload. Each has a name, and says
//! what it found.

mod contents;
pub mod damage;
mod names;
mod onward;
mod opening;
mod space;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use orlop_disk::sim::{Crash, Sim};
use orlop_engine::{Digest, Store, UploadId};

use crate::catalog::Rows;
use crate::index::Indexes;
use crate::model::Facts;
use crate::random::mix;
use crate::runtime::{Machine, Virtual};
use crate::world;

/// A checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checker {
    /// A workload on a disk without faults gets no errors.
    Workload,
    /// The store opens.
    Opens,
    /// It opens within bounds of operations, bytes and time, and makes no index
    /// again that was there.
    Bounded,
    /// What was acknowledged is there.
    Acknowledged,
    /// What was not acknowledged is there whole, or not at all.
    Whole,
    /// No byte is served that was not pushed.
    Bytes,
    /// No name points to a blob that is not there.
    Names,
    /// The space accounts say what the rows add up to.
    Space,
    /// The store takes what comes next.
    Onward,
    /// The next start finds the same.
    Again,
}

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which one.
    pub checker: Checker,
    /// What.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.checker, self.what)
    }
}

impl Checker {
    /// A finding of this checker.
    pub fn finds(self, what: impl fmt::Display) -> Finding {
        Finding {
            checker: self,
            what: what.to_string(),
        }
    }
}

/// The result of a check.
pub type Checked<T> = Result<T, Finding>;

/// A machine after a crash.
pub struct Image {
    /// Decides what the checks leave open.
    pub seed: u64,
    /// What is on the disk.
    pub sim: Arc<Sim>,
    /// What is left of the index.
    pub index: Arc<Indexes>,
    /// What is left of the names.
    pub names: Rows,
}

/// What a start shows.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Blobs that are there, by each of their digests.
    pub blobs: BTreeMap<Digest, usize>,
    /// Uploads that are there, with their durable bytes.
    pub uploads: BTreeMap<UploadId, u64>,
}

/// Opens an image and looks at everything.
///
/// # Errors
/// The first finding.
pub fn check(image: &Image, facts: &Facts) -> Checked<()> {
    let machine = Machine::new(mix(&[image.seed, 10]));
    let mut facts = facts.clone();
    let is_cut = mix(&[image.seed, 11]).is_multiple_of(2);
    machine.run(first_life(image, &machine.runtime(), &mut facts, is_cut))?;
    drop(machine);
    let again = again(image, is_cut);
    let machine = Machine::new(mix(&[image.seed, 12]));
    let runtime = machine.runtime();
    machine
        .run(second_life(&again, &runtime, &facts))
        .map_err(|finding| Finding {
            what: format!("{finding}, at the start after"),
            checker: match finding.checker {
                Checker::Opens | Checker::Acknowledged => Checker::Again,
                other => other,
            },
        })
}

/// The first start, and what goes on after it. What it showed must stay.
async fn first_life(
    image: &Image,
    runtime: &Arc<Virtual>,
    facts: &mut Facts,
    is_cut: bool,
) -> Checked<()> {
    let store = open(image, runtime).await?;
    let seen = look(image, &store, facts).await?;
    stays(facts, &seen);
    onward::check(image, &store, facts).await?;
    if !is_cut {
        let closed = store.close().await;
        closed
            .map_err(|error| Checker::Onward.finds(format_args!("it does not close: {error}")))?;
    }
    Ok(())
}

/// The next start shows what the first showed and what came after it, and
/// nothing else.
async fn second_life(image: &Image, runtime: &Arc<Virtual>, facts: &Facts) -> Checked<()> {
    let store = open(image, runtime).await?;
    let seen = look(image, &store, facts).await?;
    let untold = |digest: &&Digest| facts.blobs.get(digest).is_some_and(|blob| !blob.told);
    match seen.blobs.keys().find(untold) {
        Some(digest) => Err(Checker::Again.finds(format_args!("{digest} was absent, and is back"))),
        None => Ok(()),
    }
}

/// The machine at the next start: after an orderly stop, or after another power
/// cut, which takes all that is not durable.
fn again(image: &Image, is_cut: bool) -> Image {
    let index = image.index.current();
    let (crash, index) = if is_cut {
        (Crash::Lost, index.crash_at(mix(&[image.seed, 13])))
    } else {
        (Crash::Killed, index.crash())
    };
    Image {
        seed: mix(&[image.seed, 14]),
        sim: image.sim.crash(crash),
        index: Arc::new(Indexes::new(index, image.index.is_whole())),
        names: image.names.clone(),
    }
}

async fn open(image: &Image, runtime: &Arc<Virtual>) -> Checked<Store> {
    let before = opening::before(image);
    let opened = world::open(&image.sim, &image.index, runtime).await;
    let store =
        opened.map_err(|error| Checker::Opens.finds(format_args!("it does not open: {error}")))?;
    opening::check(image, &before, runtime)?;
    Ok(store)
}

async fn look(image: &Image, store: &Store, facts: &Facts) -> Checked<Seen> {
    let seen = contents::check(store, facts).await?;
    names::check(store, &image.names, facts, &seen).await?;
    space::check(image)?;
    Ok(seen)
}

/// What a client could see is as good as told from now on, and what it could not
/// see is not there.
fn stays(facts: &mut Facts, seen: &Seen) {
    for digest in seen.blobs.keys() {
        if let Some(blob) = facts.blobs.get_mut(digest) {
            blob.told = true;
        }
    }
    for (id, upload) in &mut facts.uploads {
        let there = seen.uploads.get(id);
        (upload.ending, upload.ended) = (there.is_none(), there.is_none());
        if let Some(offset) = there {
            (upload.durable, upload.sent) = (*offset, *offset);
        }
    }
}
