//! What a collection passed over since it could not be ended: counted, said, and
//! left to the next one. Data only.
//!
//! Invariants: what is passed over lives on; a job that had to pass over too
//! much has failed.

use std::fmt::Display;

use orlop_oci::Digest;

use super::NAMED;
use crate::catalog::CatalogError;
use crate::jobs::{Run, Stop};

/// Failures after which a job gives up.
pub(super) const FAILURES_MAX: u64 = 32;
/// Digests that one line names.
const LINE: usize = 3;

/// What one job passed over.
#[derive(Debug, Default)]
pub(super) struct Skips {
    pub(super) blobs: u64,
    failures: u64,
    named: usize,
}

impl Skips {
    /// Passes over something after a failure.
    pub(super) fn add(
        &mut self,
        run: &Run,
        what: &[Digest],
        why: &(impl Display + ?Sized),
    ) -> Result<(), Stop> {
        if what.is_empty() {
            tracing::warn!(job = run.id(), error = %why, "a collection goes on after a failure");
        }
        self.name(run, what, why);
        self.failures = self.failures.saturating_add(1);
        if self.failures > FAILURES_MAX {
            return Err(Stop::Failed(format!(
                "given up after {FAILURES_MAX} failures, the last of which: {why}"
            )));
        }
        Ok(())
    }

    /// Says what was passed over, if anything was.
    pub(super) fn name(&mut self, run: &Run, what: &[Digest], why: &(impl Display + ?Sized)) {
        let count = what.len() as u64;
        if count == 0 {
            return;
        }
        self.blobs = self.blobs.saturating_add(count);
        let some: Vec<String> = what.iter().take(LINE).map(ToString::to_string).collect();
        let (some, more) = (some.join(", "), what.len().saturating_sub(LINE));
        tracing::warn!(job = run.id(), count, some, error = %why, "a collection passes over what it cannot end");
        if self.named < NAMED {
            self.named = self.named.saturating_add(1);
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            run.log(format!("skipped for now: {some}{more}: {why}"));
        }
    }
}

/// Whether nothing is written any more, so that going on is of no use.
pub(super) fn is_end(error: &orlop_engine::Error) -> bool {
    use orlop_engine::Error;
    matches!(
        error,
        Error::Poisoned { .. } | Error::Cancelled | Error::Corrupt { .. } | Error::Invalid(_)
    )
}

/// As [`is_end`], of the catalog.
pub(super) fn is_end_of_names(error: &CatalogError) -> bool {
    !matches!(
        error,
        CatalogError::Unavailable(_) | CatalogError::Full(_) | CatalogError::Refused(_)
    )
}
