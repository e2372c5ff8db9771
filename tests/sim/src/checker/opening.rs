//! Opening: bounded by what is on the disk, not by what ever happened.

use std::sync::Arc;

use orlop_disk::sim::Verb;
use orlop_engine::Runtime as _;

use super::{Checked, Checker, Image};
use crate::runtime::Virtual;
use crate::world::{FILE, folder};

/// Operations of an empty store's start, and a good margin.
const BASE: u64 = 120;
/// Operations for each file.
const EACH: u64 = 12;
/// How often a byte of the journal or of a segment may be read.
const TIMES: u64 = 3;

/// What was there before.
pub(super) struct Before {
    files: u64,
    bytes: u64,
    operations: u64,
    destroyed: u64,
    /// Whether the index lacks nothing but what a crash may take.
    whole: bool,
}

/// Notes what there is to read.
pub(super) fn before(image: &Image) -> Before {
    let files = image.sim.files(&folder());
    Before {
        files: files.len() as u64,
        bytes: files.iter().map(|(_, len)| len).sum(),
        operations: image.sim.operations(),
        destroyed: image.index.destroyed(),
        whole: image.index.is_whole(),
    }
}

pub(super) fn check(image: &Image, before: &Before, runtime: &Arc<Virtual>) -> Checked<()> {
    let log = image.sim.log();
    let log: Vec<_> = log
        .iter()
        .filter(|record| record.number >= before.operations)
        .collect();
    let most = BASE + EACH * before.files + 3 * before.bytes / (1 << 20);
    if log.len() as u64 > most {
        return Err(Checker::Bounded.finds(format_args!(
            "{} operations to open {} files, more than {most}",
            log.len(),
            before.files
        )));
    }
    let read = log.iter().filter(|record| record.verb == Verb::Read);
    let read: u64 = read.map(|record| record.len).sum();
    let most = TIMES * before.bytes + FILE;
    if read > most {
        return Err(
            Checker::Bounded.finds(format_args!("{read} bytes were read of {}", before.bytes))
        );
    }
    if runtime.now() > std::time::Duration::ZERO {
        return Err(Checker::Bounded.finds(format_args!("it waited for {:?}", runtime.now())));
    }
    if before.whole && image.index.destroyed() > before.destroyed {
        return Err(Checker::Bounded
            .finds("the index lacked no more than a crash may take, and was made again"));
    }
    Ok(())
}
