//! Repair: plan, show, apply.
//!
//! Reading order: `plan` decides what is to be done from what the check
//! found; [`apply`] does it, in the order superblock, log, index, catalog,
//! through `hands`, the only way in which anything is changed; `log` reads
//! what repair makes things from, into `table`; `further` looks at digests that only
//! the index knows; `names` makes a catalog, by `fill`, `verbs`, `holder` and `doubt`; `heal`,
//! `source` and `registry` bring bytes back; `append` writes to the log;
//! `links` gives repositories the links that they lost; `aside` moves away what is
//! replaced.
//!
//! Invariants: nothing is deleted; a repair that was interrupted anywhere
//! leaves a store that the same repair brings to the same end; while names are
//! on their way, a start refuses, as it did before.

mod append;
mod args;
mod aside;
mod doubt;
mod fill;
mod further;
mod hands;
mod heal;
mod holder;
mod links;
mod log;
mod names;
mod plan;
#[cfg(feature = "registry")]
mod registry;
mod source;
mod table;
mod verbs;

use std::io::Write as _;
use std::path::Path;

use orlop_format::BLOCK;
use orlop_format::superblock::{FILES, SLOTS, Superblock};
use serde::Serialize;

pub(crate) use self::args::RepairArgs;
use self::aside::Moved;
use self::hands::Hands;
pub use self::hands::{Step, Watcher};
use self::log::Log;
pub use self::plan::{Action, Options, Plan};
use self::source::Source;
use crate::catalog::database::{FILE, SHM, WAL};
use crate::check;
use crate::file::trouble;
use crate::report::Report;
use crate::trouble::Result;

/// Repair's own folder within the data folder: what is being made. It goes
/// away at the end, and at the beginning of the next repair.
const OWN: &str = "repair.tmp";

/// What a repair did.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// What was done.
    pub done: Vec<String>,
    /// What could not be restored.
    pub left: Vec<String>,
    /// What a check says now.
    pub after: Report,
}

/// Where it is done.
#[derive(Clone, Copy)]
struct Site<'a> {
    /// The data folder.
    folder: &'a Path,
    /// Repair's own folder in it.
    own: &'a Path,
}

/// Looks what there is to repair in the store in `folder`, and keeps the
/// store locked until the plan is dropped.
///
/// # Errors
/// When it could not look.
pub fn plan(folder: &Path, options: Options) -> Result<Plan> {
    Plan::make(folder, options)
}

/// Does what a plan says, then checks the store again.
///
/// # Errors
/// When a step failed; the same repair may be planned and applied again.
pub fn apply(plan: &Plan, watcher: &mut Watcher<'_>) -> Result<Outcome> {
    let folder = plan.folder();
    let own = folder.join(OWN);
    let mut work = Work {
        hands: Hands::new(watcher),
        plan,
        site: Site { folder, own: &own },
        done: Vec::new(),
        left: Vec::new(),
    };
    if let Some(slot) = plan.slot.filter(|_| !plan.is_empty()) {
        work.hands.clear(&own)?;
        work.hands.make_folder(&own)?;
        let ran = work.run(&slot);
        // Also when a step failed: a disk that is full needs the room.
        let cleared = work.hands.clear(&own);
        ran.and(cleared)?;
    }
    let Work { done, left, .. } = work;
    let after = check::held(folder, plan.check(), std::time::Instant::now())?;
    Ok(Outcome { done, left, after })
}

/// A plan that is being carried out.
struct Work<'a> {
    hands: Hands<'a>,
    plan: &'a Plan,
    site: Site<'a>,
    done: Vec<String>,
    left: Vec<String>,
}

impl Work<'_> {
    fn run(&mut self, slot: &Superblock) -> Result<()> {
        let plan = self.plan;
        // One that is none ends the repair before it begins.
        let mut sources = plan.sources()?;
        if let Some(file) = plan.superblock {
            self.superblock(file, slot)?;
        }
        if plan.cut || !plan.orders.is_empty() {
            self.blobs(slot, &mut sources)?;
        }
        drop(sources);
        // Last of the two: it is all that knows some digests, until the log has
        // them.
        if plan.index {
            self.index()?;
        }
        if plan.catalog.is_some() {
            self.catalog(slot)
        } else if !plan.orders.links.is_empty() {
            self.links(slot)
        } else {
            Ok(())
        }
    }

    /// Moves the index away; the next start makes it again.
    fn index(&mut self) -> Result<()> {
        let thing = Moved {
            from: "index".to_owned(),
            why: "it is not what the log says; the next start makes it again".to_owned(),
        };
        if let Some(place) = aside::take(&mut self.hands, self.site, vec![thing])? {
            self.done.push(format!(
                "index/ was moved to {}; the next start makes it again from the log",
                place.display()
            ));
        }
        Ok(())
    }

    /// Makes a missing superblock file: the slot after the newest one that is
    /// known belongs there, and the one before that. Both say what the newest
    /// says.
    fn superblock(&mut self, file: usize, newest: &Superblock) -> Result<()> {
        let next = newest.sequence.saturating_add(1);
        let len = usize::try_from(SLOTS).unwrap_or(2).saturating_mul(BLOCK);
        let mut bytes = vec![0; len];
        // The slot beside it had been written two writes before.
        for sequence in [
            Some(next),
            next.checked_sub(2).filter(|&sequence| sequence > 0),
        ] {
            let Some(sequence) = sequence else { continue };
            let slot = Superblock {
                sequence,
                ..*newest
            };
            let (_, offset) = Superblock::slot(sequence);
            let at = usize::try_from(offset).unwrap_or_default();
            let encoded = slot.encode();
            if let Some(to) = bytes.get_mut(at..at.saturating_add(encoded.len())) {
                to.copy_from_slice(&encoded);
            }
        }
        let name = FILES.get(file).copied().unwrap_or_default();
        let made = self.site.own.join(name);
        self.hands.write(&made, |to| {
            to.write_all(&bytes).map_err(trouble("write", &made))
        })?;
        self.hands.rename(&made, &self.site.folder.join(name))?;
        self.done.push(format!("{name} was made again"));
        Ok(())
    }

    /// Puts damaged blobs into quarantine, brings back what sources have, and
    /// names digests that only the index knew.
    fn blobs(&mut self, slot: &Superblock, sources: &mut [Box<dyn Source>]) -> Result<()> {
        let plan = self.plan;
        let mut log = Log::read(self.site.folder, plan.scratch(), slot)?;
        let known = &plan.before().index;
        log.reserve(known.last_segment, known.next_ordinal);
        let Some(end) = log.end else { return Ok(()) };
        let hands = &mut self.hands;
        let mut healed = heal::heal(hands, self.site, slot, &log, &plan.orders, sources)?;
        let said = std::mem::take(&mut healed.done);
        self.left.append(&mut healed.left);
        if healed.is_empty() && !plan.cut {
            return Ok(());
        }
        // An index that has seen more than the log is refused by a start, until
        // the log has as many records: it would take the new ones for those that
        // it has seen. Then it goes first.
        let last = end.next_lsn.saturating_add(healed.len());
        if plan.index
            && known
                .watermark
                .is_some_and(|seen| plan.is_ahead() && seen <= last)
        {
            self.index()?;
        }
        let hands = &mut self.hands;
        let taken = format!(
            "journal/{}",
            orlop_format::journal::file_name(end.sequence.saturating_add(1))
        );
        let unused = Moved {
            from: taken,
            why: "it was never used, and repair needs its name".to_owned(),
        };
        aside::take(hands, self.site, vec![unused])?;
        append::append(hands, self.site, slot, &end, healed)?;
        if plan.cut {
            self.done.push(format!(
                "the journal goes on in a new file behind LSN {}",
                end.next_lsn.saturating_sub(1)
            ));
        }
        self.done.extend(said);
        Ok(())
    }

    /// Gives repositories links again, in a copy of the catalog that takes its
    /// place. A repair that ends in between finds none, and makes it from the
    /// log, which has these links.
    fn links(&mut self, slot: &Superblock) -> Result<()> {
        let log = Log::read(self.site.folder, self.plan.scratch(), slot)?;
        let added = links::make(self.site, &log, &self.plan.orders.links)?;
        if added == 0 {
            return Ok(());
        }
        let new = self.site.own.join(FILE);
        self.hands.sync(&new)?;
        aside::take(&mut self.hands, self.site, links::replaced())?;
        self.hands.rename(&new, &self.site.folder.join(FILE))?;
        self.done.push(format!("{added} links were given back"));
        Ok(())
    }

    /// Makes the catalog again. The old database goes first: from then on until
    /// the new one is there, a start refuses, and never takes one part for the
    /// whole.
    fn catalog(&mut self, slot: &Superblock) -> Result<()> {
        let folder = self.site.folder;
        let log = Log::read(folder, self.plan.scratch(), slot)?;
        let origin = names::Origin::of(&log, slot)?;
        let new = self.site.own.join(FILE);
        let made = origin.make(folder, &log, slot, &new)?;
        self.hands.sync(&new)?;
        let things = catalog_files("the catalog was made again from the store");
        let place = aside::take(&mut self.hands, self.site, things)?;
        self.hands.rename(&new, &folder.join(FILE))?;
        let from = match made.copy {
            Some(sequence) => format!("its copy at change {sequence} and {} notes", made.notes),
            None => format!("{} notes", made.notes),
        };
        let kept = place.map_or_else(String::new, |place| {
            format!("; what was there is in {}", place.display())
        });
        self.done
            .push(format!("the catalog was made again from {from}{kept}"));
        self.left.extend(made.lost);
        Ok(())
    }
}

/// The catalog and what is beside it, to be moved away.
fn catalog_files(why: &str) -> Vec<Moved> {
    let moved = |name: &str| Moved {
        from: name.to_owned(),
        why: why.to_owned(),
    };
    [FILE, WAL, SHM].map(moved).into()
}
