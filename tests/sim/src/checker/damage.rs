//! A disk that lied or rotted: nothing wrong is served, whatever was lost is
//! named, and the rest goes on.

use orlop_engine::{Error, Store};

use super::{Checked, Checker, Image};
use crate::model::Facts;
use crate::random::mix;
use crate::runtime::Machine;
use crate::world;

/// Bytes of the largest blob there is.
const LARGEST: usize = 64 << 20;

/// What the damage came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Harm {
    /// The store does not open, and says why.
    pub refused: u64,
    /// Blobs that are called damaged.
    pub named: u64,
    /// Blobs that a client was told of and that are called absent.
    pub absent: u64,
    /// Blobs that were served whole.
    pub served: u64,
}

impl Harm {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Harm) -> Harm {
        Harm {
            refused: self.refused + other.refused,
            named: self.named + other.named,
            absent: self.absent + other.absent,
            served: self.served + other.served,
        }
    }
}

/// Opens an image of a disk that may have lied, and reads everything.
///
/// # Errors
/// When a byte is wrong, or the store that opens takes nothing any more.
pub fn check(image: &Image, facts: &Facts) -> Checked<Harm> {
    let machine = Machine::new(mix(&[image.seed, 60]));
    let runtime = machine.runtime();
    machine.run(async {
        match world::open(&image.sim, &image.index, &runtime).await {
            Ok(store) => read(&store, facts).await,
            Err(Error::Corrupt { .. } | Error::Io { .. }) => Ok(Harm {
                refused: 1,
                ..Harm::default()
            }),
            Err(error) => Err(Checker::Opens.finds(format_args!("unlike damage: {error}"))),
        }
    })
}

/// Reads everything from a store that opened.
///
/// # Errors
/// When a byte is wrong.
pub async fn read(store: &Store, facts: &Facts) -> Checked<Harm> {
    let mut harm = Harm::default();
    for (digest, blob) in &facts.blobs {
        let found = match store.read(digest) {
            Ok(found) => found.bytes(LARGEST).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) if bytes == blob.bytes => harm.served += 1,
            Ok(bytes) => {
                return Err(Checker::Bytes.finds(format_args!(
                    "{digest}: {} bytes were served that are not the {} that were pushed",
                    bytes.len(),
                    blob.bytes.len()
                )));
            }
            Err(Error::NotFound { .. }) => harm.absent += u64::from(blob.told),
            Err(Error::Corrupt { .. } | Error::Io { .. }) => harm.named += 1,
            Err(error) => {
                return Err(Checker::Bytes.finds(format_args!("{digest}: unlike damage: {error}")));
            }
        }
    }
    Ok(harm)
}
