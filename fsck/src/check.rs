//! The questions, in order: superblock, segments, journal, replay, seals,
//! content. Each part reports what it finds; only what cannot be read at all
//! ends the check.

use std::path::Path;

use crate::finding::{Report, Result, Trouble};
use crate::{catalog, content, file, journal, lock, replay, segment, superblock};

/// Checks the store in `folder`, which nobody may have open meanwhile.
///
/// # Errors
/// When it could not look.
pub fn store(folder: &Path) -> Result<Report> {
    if !folder.is_dir() {
        return Err(Trouble::NotAStore(folder.to_owned()));
    }
    let _lock = lock::take(folder)?;
    held(folder)
}

/// As [`store`], by who holds the store's lock.
pub(crate) fn held(folder: &Path) -> Result<Report> {
    let mut report = Report::new(folder);
    let Some(slot) = superblock::check(folder, &mut report)? else {
        return Ok(report);
    };
    let mut segments = segment::load(folder, &slot, &mut report)?;
    let young = slot.recycled == 0
        && segments.files.is_empty()
        && file::names(&folder.join("index"))?.is_empty();
    let mut journal = journal::load(folder, &slot, young, &mut report)?;
    let items = (
        std::mem::take(&mut segments.items),
        std::mem::take(&mut journal.items),
    );
    let state = replay::replay(items.0, items.1, slot.recycled);
    segments.check(&state.seals, &mut report)?;
    content::check(&state, &journal, &segments, &mut report)?;
    catalog::check(folder, &std::env::temp_dir(), &slot, &state, &mut report)?;
    Ok(report)
}
