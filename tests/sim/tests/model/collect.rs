//! Collections: what may die is known before.

use std::collections::BTreeSet;
use std::time::Duration;

use orlop_engine::{Digest, Error, Garbage, Invalid, Trailer};

use crate::run::{Outcome, Run, ensure};
use crate::steps::{good, some_algorithm};
use crate::support::contents;
use crate::support::world::LEASE;

impl Run {
    /// A few collections with live sets of their own, after every lease has
    /// ended. Some end early.
    pub async fn collect(&mut self) -> Outcome {
        tokio::time::advance(LEASE * 2 + Duration::from_secs(1)).await;
        if self.known.catalog.is_none() && self.random.chance(80) {
            self.catalog().await?;
        }
        for _ in 0..1 + self.random.below(4) {
            let percent = *self.random.pick(&[50, 80, 95]);
            let shas: Vec<Digest> = self.known.blobs.keys().copied().collect();
            let live: Vec<Digest> = shas
                .into_iter()
                .filter(|_| self.random.chance(percent))
                .collect();
            let named: Vec<Digest> = live.iter().map(|sha256| self.any_name(sha256)).collect();
            self.cycle(&live, &named).await?;
        }
        self.reclaim().await?;
        Ok(())
    }

    /// What is dead comes back; sometimes not to the end.
    async fn reclaim(&mut self) -> Outcome {
        let mut pass = good("reclaim", self.store.reclaim().await)?;
        let most = if self.random.chance(20) { 3 } else { u64::MAX };
        let mut steps = 0;
        while steps < most && good("reclaim", pass.step().await)?.is_some() {
            steps += 1;
        }
        let total = pass.total();
        ensure!(total.failed == 0, "a segment that failed: {total:?}");
        Ok(())
    }

    /// A digest that the blob is known by.
    fn any_name(&mut self, sha256: &Digest) -> Digest {
        let algorithm = some_algorithm(&mut self.random);
        let all = contents::all().iter();
        let mut same = all.filter(|content| content.sha256 == *sha256);
        let other = same.next().map(|content| content.digest(algorithm));
        let is_known = |other: &Digest| self.known.digests.contains_key(other);
        other.filter(is_known).unwrap_or(*sha256)
    }

    async fn cycle(&mut self, live: &[Digest], named: &[Digest]) -> Outcome {
        let mut collector = good("collect", self.store.collect().await)?;
        for part in named.chunks(5) {
            good("mark", collector.mark(part))?;
            if self.random.chance(50) {
                good("look up", collector.look_up(false))?;
            }
        }
        let (catalog, sequence) = self.known.catalog.unwrap_or(([0; 16], 0));
        let is_short = self.random.chance(10);
        let trailer = Trailer {
            digests: named.len() as u64 + u64::from(is_short),
            catalog,
            sequence,
        };
        let swept = collector.whole(trailer, false);
        if is_short || self.known.catalog.is_none() {
            let refused = matches!(swept, Err(Error::Invalid(Invalid::LiveSet { .. })));
            ensure!(refused, "a live set that is not whole: {swept:?}");
            // What was used meanwhile is condemned no more.
            let blobs = &self.known.blobs;
            let is_used = |sha256: &Digest| blobs.get(sha256).is_some_and(|blob| blob.pins > 0);
            self.known.condemned.retain(|sha256| !is_used(sha256));
            // What it named is condemned no more, if it was looked up by then.
            self.known.doubtful.extend(live);
            return Ok(());
        }
        let mut sweep = good("whole", swept)?;
        let live: BTreeSet<Digest> = live.iter().copied().collect();
        let copies: Vec<Digest> = self.known.copies.iter().map(|(copy, _)| *copy).collect();
        let blobs = self.known.blobs.iter();
        let garbage = blobs
            .filter(|(sha256, blob)| blob.pins == 0 && !live.contains(*sha256))
            .map(|(sha256, _)| *sha256)
            .filter(|sha256| !copies.contains(sha256));
        let (old, mut new): (BTreeSet<_>, BTreeSet<_>) =
            garbage.partition(|sha256| self.known.condemned.contains(sha256));
        let mut found: Vec<Garbage> = Vec::new();
        while let Some(part) = good("step", sweep.step())? {
            found.extend(part);
        }
        let dying: BTreeSet<Digest> = found.iter().map(|blob| blob.digest).collect();
        let doubtful = std::mem::take(&mut self.known.doubtful);
        let is_right = dying.is_subset(&old) && old.is_subset(&(&dying | &doubtful));
        ensure!(is_right, "{dying:?} may die, and not {old:?}");
        new.extend(old.difference(&dying));
        let old = dying;
        if self.random.chance(10) {
            // Who collects goes away; what the live set named is condemned no more.
            self.known.condemned = old;
            return Ok(());
        }
        let (die, stay): (Vec<_>, Vec<_>) = found.into_iter().partition(|_| self.random.chance(80));
        sweep.keep(&stay);
        let dead = good("end", sweep.end(&die, true).await)?;
        ensure!(dead == die, "{dead:?} died, not {die:?}");
        for blob in &dead {
            self.known.blobs.remove(&blob.digest);
            self.counts.dead += 1;
        }
        let done = good("finish", sweep.finish())?;
        let stayed = stay.iter().map(|blob| blob.digest);
        self.known.condemned = new.into_iter().chain(stayed).collect();
        ensure!(
            done.condemned == self.known.condemned.len() as u64 && done.dead == dead.len() as u64,
            "{done:?}, not {} condemned and {} dead",
            self.known.condemned.len(),
            dead.len()
        );
        Ok(())
    }
}
