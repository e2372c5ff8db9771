//! Does the superblock hold, in all the slots that must?

use std::path::Path;

use orlop_format::superblock::{FILES, SLOTS, Superblock};
use orlop_format::{BLOCK, Malformed};

use crate::catalog::database::FILE as CATALOG;
use crate::file::{Source, blank, names};
use crate::finding::{Code, Object};
use crate::report::Report;
use crate::trouble::{Result, Trouble};
use crate::{index, journal};

/// Checks every slot; returns the one that holds, if any does.
pub(crate) fn check(folder: &Path, report: &mut Report) -> Result<Option<Superblock>> {
    let mut valid: Vec<Superblock> = Vec::new();
    let mut invalid = Vec::new();
    let mut missing = Vec::new();
    let mut blanks = Vec::new();
    for (file, name) in FILES.iter().enumerate() {
        let Some(source) = Source::open(folder, name)? else {
            missing.push(*name);
            continue;
        };
        for slot in 0..SLOTS {
            let offset = slot.saturating_mul(BLOCK as u64);
            let block = source.block(offset)?;
            if blank(&block) {
                blanks.push((file, offset));
                continue;
            }
            match Superblock::decode(&block) {
                Ok(slot) if Superblock::slot(slot.sequence) == (file, offset) => valid.push(slot),
                Err(Malformed::Newer(what)) => {
                    return Err(Trouble::Newer(format!(
                        "the {what} in {}",
                        source.path().display()
                    )));
                }
                Ok(slot) => {
                    invalid.push((
                        file,
                        offset,
                        format!("sequence {}, which has another slot", slot.sequence),
                    ));
                }
                Err(error) => invalid.push((file, offset, error.to_string())),
            }
        }
    }
    if missing.len() == FILES.len() {
        return Err(Trouble::NotAStore(folder.to_owned()));
    }
    if valid.is_empty() && invalid.is_empty() && is_untouched(folder)? {
        report.note(
            Code::SuperblockYoung,
            Object::file(FILES[0]),
            "no slot was written yet, and there is no log",
        );
        return Ok(None);
    }
    for name in missing {
        report.find(
            Code::SuperblockFile,
            Object::file(name),
            "a file of two slots",
            "no file",
        );
    }
    let Some(newest) = valid.iter().max_by_key(|slot| slot.sequence).copied() else {
        report.find(
            Code::SuperblockNone,
            Object::file(FILES[0]),
            "a valid slot, in it or in the other superblock file",
            "none",
        );
        return Ok(None);
    };
    let next = Superblock::slot(newest.sequence.saturating_add(1));
    // Four writes in a row leave no slot as it was made.
    let written = |place| {
        (0..4).any(|back| {
            let sequence = newest.sequence.saturating_sub(back);
            sequence > 0 && Superblock::slot(sequence) == place
        })
    };
    let erased = blanks.into_iter().filter(|place| written(*place));
    invalid.extend(erased.map(|(file, offset)| (file, offset, "zeros".to_owned())));
    for (file, offset, found) in invalid {
        let object = Object::file(FILES.get(file).copied().unwrap_or_default())
            .at(offset)
            .len(BLOCK as u64);
        if (file, offset) == next {
            let found = format!(
                "torn: the write after sequence {} did not end",
                newest.sequence
            );
            report.note(Code::SuperblockTorn, object, found);
        } else {
            report.find(Code::SuperblockSlot, object, "a valid slot", found);
        }
    }
    for slot in valid.iter().filter(|slot| slot.store != newest.store) {
        let (file, offset) = Superblock::slot(slot.sequence);
        let object = Object::file(FILES.get(file).copied().unwrap_or_default()).at(offset);
        report.find(
            Code::SuperblockSlot,
            object,
            "the id of this store",
            "another store's",
        );
    }
    Ok(Some(newest))
}

/// Whether the folder has nothing that only a store with a superblock has. The
/// first start names the superblock's files before it writes a slot, and makes
/// all else after that.
fn is_untouched(folder: &Path) -> Result<bool> {
    for below in [
        "journal",
        "data/raw",
        "data/small",
        "data/meta",
        index::FOLDER,
    ] {
        let names = names(&folder.join(below))?;
        if names.iter().any(|name| !journal::is_spare(name)) {
            return Ok(false);
        }
    }
    Ok(!names(folder)?.iter().any(|name| name == CATALOG))
}
