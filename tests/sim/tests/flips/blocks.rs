//! Whole blocks: zeroed, lost with all behind them, doubled over another,
//! swapped with another.

use orlop_format::BLOCK;

use crate::damage::{Change, Edit};
use crate::map::Spot;
use crate::store::Base;
use crate::support::random::{Random, mix};

/// Every such change that reaches a recorded byte.
pub fn all(base: &Base) -> Vec<Change> {
    let mut changes = Vec::new();
    for (file, (name, bytes)) in base.files.iter().enumerate() {
        let last = last_recorded(base, file);
        let mut random = Random::new(mix(crate::seed(), file as u64));
        // Behind the last recorded block lie the mark and what is no record.
        let blocks = last.div_ceil(BLOCK);
        for block in 0..blocks {
            let at = block * BLOCK;
            let other = random.below(blocks as u64) as usize * BLOCK;
            let one = bytes[at..at + BLOCK].to_vec();
            let two = bytes[other..other + BLOCK].to_vec();
            let edit = |at, bytes| Edit { file, at, bytes };
            let mut add = |what: &str, edits: Vec<Edit>, cut| {
                let name = format!("block {block} of {name} {what}");
                let sweep = "blocks";
                let hits = hits(base, &edits, cut);
                if !hits.is_empty() {
                    changes.push(Change {
                        name,
                        sweep,
                        edits,
                        cut,
                        hits,
                    });
                }
            };
            add("zeroed", vec![edit(at, vec![0; BLOCK])], None);
            add("overwritten", vec![edit(at, two.clone())], None);
            add("swapped", vec![edit(at, two), edit(other, one)], None);
            // Without its end the journal's last file says nothing of it.
            if !is_last_journal(base, file) {
                add("lost", Vec::new(), Some((file, at)));
            }
        }
    }
    changes
}

fn last_recorded(base: &Base, file: usize) -> usize {
    let spots = base.spots.iter().filter(|spot| spot.file == file);
    spots.map(|spot| spot.range.end).max().unwrap_or(0)
}

fn is_last_journal(base: &Base, file: usize) -> bool {
    let names = base.files.iter().map(|(name, _)| name);
    let last = names.filter(|name| name.starts_with("journal/J-")).max();
    last == Some(&base.files[file].0)
}

/// The recorded bytes that are not what they were.
fn hits(base: &Base, edits: &[Edit], cut: Option<(usize, usize)>) -> Vec<(Spot, usize)> {
    let changed = |spot: &Spot| {
        let lost = cut
            .filter(|(file, len)| *file == spot.file && spot.range.end > *len)
            .map(|(_, len)| len.max(spot.range.start));
        let edited = edits.iter().filter(|edit| edit.file == spot.file);
        let mut edited = edited.filter_map(|edit| {
            let end = edit.at + edit.bytes.len();
            let range = spot.range.start.max(edit.at)..spot.range.end.min(end);
            let old = &base.files[edit.file].1;
            range
                .into_iter()
                .find(|at| old[*at] != edit.bytes[at - edit.at])
        });
        lost.or_else(|| edited.next())
    };
    base.spots
        .iter()
        .filter_map(|spot| changed(spot).map(|at| (spot.clone(), at)))
        .collect()
}
