//! The questions, in order: superblock, segments, journal, seals, what the log
//! stands for beside the index, accounts, content, catalog. Each part reports what
//! it finds; only what cannot be read at all ends the check.

use std::path::Path;
use std::time::Instant;

use orlop_format::row::State as Life;

use crate::blobs::Blobs;
use crate::catalog::blobs::Replayed;
use crate::content::{Crew, Owner};
use crate::file::names;
use crate::finding::{Code, Object};
use crate::index::{self, Compare};
use crate::journal::Journal;
use crate::log::{Log, Names};
use crate::options::{Choice, Options};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::segment::Segments;
use crate::trouble::{Result, Trouble};
use crate::{catalog, lock, space, state, superblock};

/// Checks the store in `folder`, which nobody may have open meanwhile: all of
/// it but the names in its catalog, in this thread, without a word on the way.
///
/// # Errors
/// When it could not look.
pub fn store(folder: &Path) -> Result<Report> {
    let alone = Options {
        catalog: false,
        ..Options::default()
    };
    with(folder, &alone)
}

/// Checks the store in `folder` as the options say.
///
/// # Errors
/// When it could not look.
pub fn with(folder: &Path, options: &Options) -> Result<Report> {
    let started = Instant::now();
    if !folder.is_dir() {
        return Err(Trouble::NotAStore(folder.to_owned()));
    }
    let _lock = lock::take(folder)?;
    held(folder, options, started)
}

/// As [`with`], by who holds the store's lock.
pub(crate) fn held(folder: &Path, options: &Options, started: Instant) -> Result<Report> {
    let mut report = Report::new(folder);
    let done = look(folder, options, started, &mut report);
    options.progress.clear();
    done?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn look(folder: &Path, options: &Options, started: Instant, report: &mut Report) -> Result<()> {
    let Some(slot) = superblock::check(folder, report)? else {
        return Ok(());
    };
    report.store = Some(
        slot.store
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    );
    let progress = &options.progress;
    let scratch = Scratch::new(options.scratch.as_deref());
    let mut segments = Segments::open(folder, &slot, report)?;
    let young = slot.journal == 0
        && slot.recycled == 0
        && segments.files.is_empty()
        && names(&folder.join(index::FOLDER))?.is_empty();
    let journal = Journal::open(folder, &slot, young, report)?;
    let index = index::open(folder, &scratch, options.index, &slot, &journal, report)?;
    // Without an index there is nothing between the two states.
    let watermark = index.as_ref().map_or(u64::MAX, |index| index.watermark);

    let choice = Choice::new(options, started);
    let crew = Crew::new(options.threads, folder, progress)?;
    let mut log = Log::new(&scratch, choice, crew, slot.recycled, watermark);
    segments.walk(folder, &mut log, progress, report)?;
    journal.walk(folder, &mut log, progress, report)?;
    log.settle()?;
    report.index.log_end = log.end;
    let mut seals = log.seals.clone();
    seals.retain(|id, _| !log.released.is_removed(id));
    segments.let_go(&log.released, report);
    segments.check(folder, &seals, report)?;
    if let Some(index) = &index {
        index.place(log.end, report);
    }

    progress.stage("index", 0);
    let mut compare = index.as_ref().map(|index| Compare::new(index, report));
    let (ever_sealed, released) = (
        std::mem::take(&mut log.seals),
        std::mem::take(&mut log.released),
    );
    let (names, there) = (log.names.clone(), log.names_there.clone());
    let (mut state, mut choice, mut crew) =
        state::join(log, &scratch, watermark, &mut compare, report)?;
    if let Some(compare) = &mut compare {
        state.ordinals(compare, report)?;
        compare.segments(&segments, &ever_sealed, &released, report);
        compare.names(&there, report);
    }
    drop(compare);
    drop(index);
    copies(&names, &state.blobs, report)?;
    let accounts = std::mem::replace(&mut state.space, space::Space::new(&scratch));
    accounts.check(folder, &segments, &seals, &released, report)?;
    space::foreign(folder, report)?;

    let blobs = Replayed {
        blobs: std::mem::replace(&mut state.blobs, Blobs::new(&scratch)),
        others: std::mem::take(&mut state.others),
    };
    let files = state::files(&journal, &segments);
    state.content(&files, &mut choice, &mut crew, progress, report)?;
    cover(options, &choice, report);
    if !options.catalog {
        return Ok(());
    }
    progress.stage("catalog", 0);
    let noted = names.notes > 0 || !names.copies.is_empty();
    catalog::check(folder, &scratch, &slot, (&blobs, noted), report)
}

/// The copies of the catalog must be in the store.
fn copies(names: &Names, blobs: &Blobs, report: &mut Report) -> Result<()> {
    for copy in &names.copies {
        let object = Owner::Blob(copy.sha256).object();
        let expected = format!("a copy of the catalog with sequence {}", copy.sequence);
        let found = match blobs.get(&copy.sha256)?.map(|row| row.state) {
            Some(Life::Live) => continue,
            Some(Life::Quarantined) => "a blob in quarantine",
            Some(Life::Dead) | None => "no such blob",
        };
        report.find(Code::CopyMissing, object, expected, found);
    }
    Ok(())
}

/// Says how much content was compared.
fn cover(options: &Options, choice: &Choice, report: &mut Report) {
    let coverage = &mut report.coverage;
    coverage.content = options.content.to_string();
    coverage.seed =
        matches!(options.content, crate::options::Content::Sample(_)).then_some(options.seed);
    coverage.from = options.from.map(|from| from.to_string());
    coverage.next = choice.stopped.map(|stop| stop.to_string());
    coverage.complete = choice.whole() && coverage.next.is_none();
    if coverage.complete {
        return;
    }
    let mut found = format!(
        "{} of {} blobs and {} of {} bytes were compared",
        coverage.blobs, coverage.blobs_of, coverage.bytes, coverage.bytes_of
    );
    if let Some(seed) = coverage.seed {
        found.push_str(&format!("; the sample was drawn by seed {seed}"));
    }
    if let Some(next) = &coverage.next {
        found.push_str(&format!("; the time ran out: go on with --from {next}"));
    }
    report.note(Code::ContentPartial, Object::default(), found);
}
