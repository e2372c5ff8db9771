//! The further digests of blobs that may die, read for many of them at once.
//!
//! The index leads from a further digest to its blob, and not back. So all of
//! that table is read for each so many candidates, which is once in most sweeps,
//! and never where it is empty. Bounded by [`COLLECT_FURTHER`] candidates.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use orlop_format::digest::{Algorithm, Digest};
use orlop_index::Table;
use roaring::RoaringTreemap;

use crate::config::COLLECT_FURTHER;
use crate::core::Core;
use crate::error::Result;
use crate::view::unreadable;

/// All digests that each of these blobs has, here or not: by SHA-256, and further
/// ones. Reads the table once.
pub(crate) fn all_of(core: &Core, digests: &[Digest]) -> Result<Vec<Vec<Digest>>> {
    let resolved = core.resolve_all(digests)?;
    let mut names: BTreeMap<[u8; 32], Vec<Digest>> = BTreeMap::new();
    for sha256 in resolved.iter().flatten() {
        if let Ok(digest) = Digest::new(Algorithm::Sha256, sha256) {
            names.insert(*sha256, vec![digest]);
        }
    }
    let mut broken = None;
    let visit = &mut |key: &[u8], value: &[u8]| {
        let sha256 = <[u8; 32]>::try_from(value).ok();
        let Some(names) = sha256.and_then(|sha256| names.get_mut(&sha256)) else {
            return ControlFlow::Continue(());
        };
        match Digest::decode(key) {
            Ok((digest, _)) => names.push(digest),
            Err(_) => broken = Some(orlop_format::Malformed::Field("digest")),
        }
        ControlFlow::Continue(())
    };
    core.index.scan(Table::Alias, &[], visit)?;
    if let Some(error) = broken {
        return Err(unreadable(Table::Alias, error));
    }
    let of = |sha256: &Option<[u8; 32]>| sha256.and_then(|sha256| names.get(&sha256).cloned());
    let all = digests.iter().zip(&resolved);
    Ok(all
        .map(|(digest, sha256)| of(sha256).unwrap_or_else(|| vec![*digest]))
        .collect())
}

/// Further digests of the candidates up to an ordinal.
#[derive(Debug, Default)]
pub(super) struct Further {
    names: BTreeMap<[u8; 32], Vec<Digest>>,
    /// Ordinals below this are read in.
    until: u64,
}

impl Further {
    /// Those of a blob that was read in.
    pub(super) fn of(&self, sha256: &[u8; 32]) -> &[Digest] {
        self.names.get(sha256).map_or(&[], Vec::as_slice)
    }

    /// Sees to it that those of candidates from `from` to `last` are read in;
    /// there are fewer than [`COLLECT_FURTHER`] of these.
    pub(super) fn reach(
        &mut self,
        core: &Core,
        (from, last): (u64, u64),
        candidates: &RoaringTreemap,
    ) -> Result<()> {
        if last < self.until {
            return Ok(());
        }
        let mut is_empty = true;
        core.index.scan(Table::Alias, &[], &mut |_, _| {
            is_empty = false;
            ControlFlow::Break(())
        })?;
        if is_empty {
            self.names.clear();
            self.until = last.saturating_add(1);
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        let mut until = u64::MAX;
        let visit = &mut |key: &[u8], value: &[u8]| {
            let row = (<[u8; 8]>::try_from(key), <[u8; 32]>::try_from(value));
            // Another reader of this row says that it is damaged.
            let (Ok(ordinal), Ok(sha256)) = row else {
                return ControlFlow::Continue(());
            };
            let ordinal = u64::from_be_bytes(ordinal);
            if wanted.len() >= COLLECT_FURTHER {
                until = ordinal;
                return ControlFlow::Break(());
            }
            if candidates.contains(ordinal) {
                wanted.insert(sha256);
            }
            ControlFlow::Continue(())
        };
        core.index
            .scan(Table::Ordinal, &from.to_be_bytes(), visit)?;
        let mut names: BTreeMap<[u8; 32], Vec<Digest>> = BTreeMap::new();
        let mut broken = None;
        let visit = &mut |key: &[u8], value: &[u8]| {
            let Some(sha256) = wanted.get(value) else {
                return ControlFlow::Continue(());
            };
            match Digest::decode(key) {
                Ok((digest, _)) => names.entry(*sha256).or_default().push(digest),
                Err(_) => broken = Some(orlop_format::Malformed::Field("digest")),
            }
            ControlFlow::Continue(())
        };
        core.index.scan(Table::Alias, &[], visit)?;
        if let Some(error) = broken {
            return Err(unreadable(Table::Alias, error));
        }
        (self.names, self.until) = (names, until);
        Ok(())
    }
}
