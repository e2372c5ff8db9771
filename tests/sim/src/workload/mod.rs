//! What clients do to a store: the scripts that are crashed at each operation.
//!
//! Each draws its sizes and counts from the seed. A workload does not check
//! anything but that the store takes what it is given: the checkers are apart.

mod blobs;
mod collection;
mod lives;
mod names;
mod uploads;

use futures_util::future::BoxFuture;

use crate::client::Result;
use crate::world::World;

/// A script.
pub struct Workload {
    /// Its name, by which a case is run again.
    pub name: &'static str,
    run: for<'a> fn(&'a World) -> BoxFuture<'a, Result<()>>,
}

impl Workload {
    /// Runs it to its end.
    ///
    /// # Errors
    /// The store's: on a disk without faults there must be none.
    pub fn run<'a>(&self, world: &'a World) -> BoxFuture<'a, Result<()>> {
        (self.run)(world)
    }
}

macro_rules! workload {
    ($module:ident :: $name:ident) => {
        Workload {
            name: stringify!($name),
            run: |world| Box::pin($module::$name(world)),
        }
    };
}

/// All of them.
pub const WORKLOADS: &[Workload] = &[
    workload!(blobs::inline),
    workload!(blobs::extents),
    workload!(blobs::group),
    workload!(blobs::twice),
    workload!(blobs::aliases),
    workload!(blobs::sealing),
    workload!(uploads::interleaved),
    workload!(uploads::resume),
    workload!(uploads::cancel),
    workload!(names::manifests),
    workload!(names::deletions),
    workload!(names::copies),
    workload!(collection::cycles),
    workload!(collection::graves),
    workload!(collection::room),
    workload!(collection::moves),
    workload!(lives::rotation),
    workload!(lives::rebuild),
    workload!(lives::reopen),
    workload!(lives::kills),
];

/// The workload of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}
