//! How much each durability suite does, and a record of what it did.
//!
//! Owns: the two sizes of a run, the table of figures with what each must
//! reach, and the file in which suites of several processes write theirs.
//! Invariant: a suite fails on its own when something is lost or wrong; what
//! is recorded here is only how much it tried, so a figure that is missing or
//! too small is a failure of the run too.
//! Refuses to know: what the suites test. It has no dependencies, so that every
//! workspace can use it.
#![expect(
    clippy::panic,
    reason = "support of tests: a mistake here fails the test with its message"
)]

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// The variable that chooses the size: `commit` or `release`.
pub const SIZE: &str = "ORLOP_SIZE";
/// The variable that names the file in which figures are written.
pub const FILE: &str = "ORLOP_FIGURES";

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A part, in seconds: what a plain `cargo test` runs.
    Quick,
    /// For every commit, in minutes.
    Commit,
    /// Before a release, in hours.
    Release,
}

/// The size that was asked for. Anything unknown is an error of the caller, so
/// that a misspelt soak does not pass in seconds.
///
/// # Panics
/// When the variable holds another word.
#[must_use]
pub fn size() -> Size {
    match std::env::var(SIZE).as_deref() {
        Err(_) | Ok("" | "quick") => Size::Quick,
        Ok("commit") => Size::Commit,
        Ok("release") => Size::Release,
        Ok(other) => panic!("{SIZE} must be quick, commit or release, not {other:?}"),
    }
}

/// The value for the size that was asked for.
#[must_use]
pub fn choose<T>(quick: T, commit: T, release: T) -> T {
    match size() {
        Size::Quick => quick,
        Size::Commit => commit,
        Size::Release => release,
    }
}

/// One figure: what is counted, and how many there must be.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name in the file and in the table.
    pub name: &'static str,
    /// At least, for every commit.
    pub commit: u64,
    /// At least, before a release.
    pub release: u64,
}

const fn figure(name: &'static str, commit: u64, release: u64) -> Figure {
    Figure {
        name,
        commit,
        release,
    }
}

/// Every figure. The names are the ones that [`record`] takes.
pub const FIGURES: &[Figure] = &[
    figure("workloads", 12, 12),
    figure("persistence models", 4, 4),
    figure("crash images", 20_000, 1_000_000),
    figure("crash images in recovery", 2_000, 100_000),
    figure("crash images in repair", 100, 1_000),
    figure("crash images read by fsck", 2_000, 200_000),
    figure("Nth-call faults", 5_000, 50_000),
    figure("metadata bytes flipped", 1_000, 1_000),
    figure("payload flips", 20_000, 1_000_000),
    figure("model sequences of 80 operations", 2_000, 1_000_000),
    figure("steps of the collection oracle", 10_000, 10_000_000),
    figure("seconds of the push storm", 20, 600),
    figure("kills of the real process", 50, 2_000),
    figure("power cuts of the real process", 30, 5_000),
    figure("scenarios", 12, 12),
    figure("schedules", 120_000, 120_000_000),
    figure("fuzz targets", 12, 12),
    figure("planted faults found", 8, 8),
];

/// Adds `count` to a figure, with the seed or range of seeds it came from.
/// Several calls for one figure add up. Prints the line too; without
/// [`FILE`] that is all.
///
/// # Panics
/// When the name is not in [`FIGURES`] or the file cannot be written: a figure
/// that nobody would look for must not be lost silently.
pub fn record(name: &str, count: u64, seed: &str) {
    if !FIGURES.iter().any(|figure| figure.name == name) {
        panic!("{name:?} is not in the table of figures");
    }
    println!("figure: {name}: {count} (seed {seed})");
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    if let Err(error) = append(Path::new(&file), name, count, seed) {
        panic!("cannot write figures to {file}: {error}");
    }
}

/// One line, in one write, so that processes can share the file.
fn append(file: &Path, name: &str, count: u64, seed: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    let seed = seed.replace(['\t', '\n'], " ");
    file.write_all(format!("{name}\t{count}\t{seed}\n").as_bytes())
}

/// A figure as a run reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Its name.
    pub name: &'static str,
    /// How many there were.
    pub count: u64,
    /// How many there must be.
    pub wanted: u64,
    /// The seeds they came from.
    pub seeds: Vec<String>,
}

impl Reached {
    /// Whether it is enough.
    #[must_use]
    pub fn enough(&self) -> bool {
        self.count >= self.wanted
    }
}

/// Sums the lines of a run.
///
/// # Errors
/// When a line is not one of [`record`]'s.
pub fn sum(lines: &str, size: Size) -> Result<Vec<Reached>, String> {
    let wanted = |figure: &Figure| match size {
        Size::Quick => 0,
        Size::Commit => figure.commit,
        Size::Release => figure.release,
    };
    let mut all: Vec<_> = FIGURES
        .iter()
        .map(|figure| Reached {
            name: figure.name,
            count: 0,
            wanted: wanted(figure),
            seeds: Vec::new(),
        })
        .collect();
    for line in lines.lines() {
        let mut parts = line.split('\t');
        let (name, count, seed) = (parts.next(), parts.next(), parts.next());
        let entry = all
            .iter_mut()
            .find(|reached| Some(reached.name) == name)
            .ok_or_else(|| format!("no figure has this name: {line:?}"))?;
        let count: u64 = count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| format!("not a count: {line:?}"))?;
        entry.count = entry.count.saturating_add(count);
        entry.seeds.extend(seed.map(str::to_owned));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_figure_add_up_and_too_few_is_seen() {
        let lines = "kills of the real process\t30\t1\nkills of the real process\t20\t2\n";
        let all = sum(lines, Size::Commit).unwrap();
        let kills = all
            .iter()
            .find(|reached| reached.name.starts_with("kills"))
            .unwrap();
        assert_eq!((kills.count, kills.enough()), (50, true));
        assert_eq!(kills.seeds, ["1", "2"]);
        assert!(!all.iter().all(Reached::enough), "the others are missing");
        assert!(sum("unknown\t1\t1\n", Size::Commit).is_err());
        assert!(sum("crash images\tmany\t1\n", Size::Commit).is_err());
    }

    #[test]
    fn release_wants_more() {
        let one = |size| sum("crash images\t20000\t1\n", size).unwrap()[2].enough();
        assert!(one(Size::Commit) && !one(Size::Release));
    }
}
