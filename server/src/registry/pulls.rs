//! Pulls, counted in memory until somebody writes them down.
//!
//! A pull costs one short lock and no wait. Memory is bounded by
//! [`ENTRIES_MAX`]: when it is full, whoever writes is woken, and pulls of what
//! is not in yet are dropped, which the next to write is told, since a pull
//! that was lost must not look like none.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use orlop_oci::{Digest, Reference};
use tokio::sync::Notify;

use crate::catalog::{Pull, PullOf};
use crate::metrics::Count;

/// Manifests and tags that are counted at once.
pub const ENTRIES_MAX: usize = 32_768;
/// Of these, when whoever writes is woken early.
const ENTRIES_MANY: usize = ENTRIES_MAX / 4 * 3;
/// Locks that pulls spread over.
const SHARDS: usize = 16;

/// How often and when last.
#[derive(Clone, Copy, Debug)]
struct Tally {
    count: u64,
    /// Milliseconds since 1970.
    last: i64,
}

/// What was pulled of one repository.
#[derive(Debug, Default)]
struct Pulled {
    manifests: HashMap<Digest, Tally>,
    tags: HashMap<Box<str>, Tally>,
}

/// By repository.
type Shard = HashMap<Box<str>, Pulled>;

/// The pulls since they were taken last.
#[derive(Debug, Default)]
pub struct Pulls {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    entries: AtomicUsize,
    /// Whether pulls were lost that nobody was told of.
    lost: AtomicBool,
    dropped: Count,
    many: Notify,
}

impl Pulls {
    /// Counts a pull of a manifest by this reference.
    pub fn record(&self, repository: &str, digest: &Digest, reference: &Reference) {
        let tally = Tally {
            count: 1,
            last: now(),
        };
        let tag = match reference {
            Reference::Tag(tag) => Some(tag.as_str()),
            Reference::Digest(_) => None,
        };
        let Some(mut shard) = self.shard(repository) else {
            return;
        };
        let kept = self.add(&mut shard, repository, &PullOf::Manifest(*digest), tally);
        let tag_kept = tag.is_none_or(|tag| self.add_tag(&mut shard, repository, tag, tally));
        drop(shard);
        if !(kept && tag_kept) {
            self.dropped.add(1);
            self.lost.store(true, Ordering::Release);
        }
        if self.entries.load(Ordering::Relaxed) >= ENTRIES_MANY {
            self.many.notify_one();
        }
    }

    /// Returns when there is so much that it should be taken now.
    pub async fn many(&self) {
        self.many.notified().await;
    }

    /// Takes what was counted, the counts of each repository together.
    pub fn take(&self) -> Vec<Pull> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let shard = std::mem::take(&mut *locked(shard));
            for (repository, pulled) in shard {
                let before = taken.len();
                let pull = |of, tally: Tally| Pull {
                    repository: repository.to_string(),
                    of,
                    count: tally.count,
                    last: tally.last,
                };
                let manifests = pulled.manifests.into_iter();
                taken
                    .extend(manifests.map(|(digest, tally)| pull(PullOf::Manifest(digest), tally)));
                let tags = pulled.tags.into_iter();
                taken.extend(tags.map(|(tag, tally)| pull(PullOf::Tag(tag.into()), tally)));
                let entries = taken.len().saturating_sub(before);
                self.entries.fetch_sub(entries, Ordering::Relaxed);
            }
        }
        taken
    }

    /// Puts back what was taken and could not be written.
    pub fn put_back(&self, pulls: Vec<Pull>) {
        for pull in pulls {
            let tally = Tally {
                count: pull.count,
                last: pull.last,
            };
            let kept = self
                .shard(&pull.repository)
                .is_some_and(|mut shard| self.add(&mut shard, &pull.repository, &pull.of, tally));
            if !kept {
                self.dropped.add(pull.count);
                self.lost.store(true, Ordering::Release);
            }
        }
    }

    /// Says that pulls were lost, here or before.
    pub fn set_lost(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether pulls were lost since this was asked last.
    pub fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// Pulls that were not counted.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    fn shard(&self, repository: &str) -> Option<MutexGuard<'_, Shard>> {
        let hash = usize::try_from(self.hasher.hash_one(repository) % SHARDS as u64).ok()?;
        self.shards.get(hash).map(locked)
    }

    fn add(&self, shard: &mut Shard, repository: &str, of: &PullOf, tally: Tally) -> bool {
        match of {
            PullOf::Tag(tag) => self.add_tag(shard, repository, tag, tally),
            PullOf::Manifest(digest) => {
                let known = shard
                    .get_mut(repository)
                    .and_then(|pulled| pulled.manifests.get_mut(digest));
                if known.is_some() || !self.enter() {
                    return merge(known, tally);
                }
                let pulled = shard.entry(repository.into()).or_default();
                pulled.manifests.insert(*digest, tally);
                true
            }
        }
    }

    fn add_tag(&self, shard: &mut Shard, repository: &str, tag: &str, tally: Tally) -> bool {
        let known = shard
            .get_mut(repository)
            .and_then(|pulled| pulled.tags.get_mut(tag));
        if known.is_some() || !self.enter() {
            return merge(known, tally);
        }
        let pulled = shard.entry(repository.into()).or_default();
        pulled.tags.insert(tag.into(), tally);
        true
    }

    /// Takes a place for one more entry, if there is one.
    fn enter(&self) -> bool {
        let one_more = |entries: usize| (entries < ENTRIES_MAX).then(|| entries.saturating_add(1));
        self.entries
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }
}

/// Adds to a tally that is there. False: there is none.
fn merge(known: Option<&mut Tally>, more: Tally) -> bool {
    let Some(known) = known else { return false };
    known.count = known.count.saturating_add(more.count);
    known.last = known.last.max(more.last);
    true
}

/// No code that can fail runs under it.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970. Kept with rows; orders nothing.
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_oci::Algorithm;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn digest(of: &str) -> Digest {
        Digest::of(Algorithm::Sha256, of.as_bytes())
    }

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    /// Counts by repository and what was pulled.
    fn counts(pulls: Vec<Pull>) -> BTreeMap<(String, String), u64> {
        pulls
            .into_iter()
            .map(|pull| ((pull.repository, format!("{:?}", pull.of)), pull.count))
            .collect()
    }

    #[test]
    fn manifests_and_tags_are_counted_apart() {
        let pulls = Pulls::default();
        let one = digest("1");
        for _ in 0..3 {
            pulls.record("a/b", &one, &reference("latest"));
        }
        pulls.record("a/b", &one, &reference(&one.to_string()));
        pulls.record("c", &one, &reference("latest"));
        let mut taken = pulls.take();
        assert!(taken.iter().all(|pull| pull.last > 1_700_000_000_000));
        taken.sort_by_key(|pull| (pull.repository.clone(), pull.count));
        let of = |at: usize| {
            (
                taken[at].repository.as_str(),
                &taken[at].of,
                taken[at].count,
            )
        };
        assert_eq!(of(0), ("a/b", &PullOf::Tag("latest".into()), 3));
        assert_eq!(of(1), ("a/b", &PullOf::Manifest(one), 4));
        assert_eq!(taken.len(), 4);
        assert!(pulls.take().is_empty());
        assert!(!pulls.take_lost());
    }

    #[tokio::test]
    async fn when_it_is_full_new_ones_are_dropped_and_it_says_so() {
        let pulls = Pulls::default();
        let one = digest("1");
        let by_digest = reference(&one.to_string());
        for number in 0..ENTRIES_MAX {
            pulls.record(&format!("r{number}"), &one, &by_digest);
        }
        pulls.many().await;
        assert!(!pulls.take_lost());
        pulls.record("r0", &one, &by_digest);
        assert_eq!(pulls.dropped(), 0, "what is in goes on being counted");
        pulls.record("other", &one, &by_digest);
        assert_eq!(pulls.dropped(), 1);
        assert!(pulls.take_lost() && !pulls.take_lost());
        let taken = pulls.take();
        assert_eq!(taken.len(), ENTRIES_MAX);
        pulls.put_back(taken);
        pulls.record("other", &one, &by_digest);
        assert_eq!(pulls.dropped(), 2);
        assert_eq!(pulls.take().len(), ENTRIES_MAX);
        pulls.record("other", &one, &by_digest);
        assert_eq!(pulls.take().len(), 1);
    }

    proptest! {
        /// Whatever is taken and put back in between, no pull is lost or
        /// counted twice.
        #[test]
        fn nothing_is_lost_on_the_way(steps in prop::collection::vec((0u8..8, 0u8..4), 1..200)) {
            let pulls = Pulls::default();
            let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
            let mut written: BTreeMap<(String, String), u64> = BTreeMap::new();
            let mut write = |taken: Vec<Pull>| {
                for (key, count) in counts(taken) {
                    *written.entry(key).or_default() += count;
                }
            };
            for (what, which) in steps {
                let repository = format!("r{}", which % 2);
                let of = digest(&which.to_string());
                match what {
                    0 => write(pulls.take()),
                    1 => pulls.put_back(pulls.take()),
                    _ => {
                        pulls.record(&repository, &of, &reference("t"));
                        let tag = format!("{:?}", PullOf::Tag("t".into()));
                        let manifest = format!("{:?}", PullOf::Manifest(of));
                        *expected.entry((repository.clone(), tag)).or_default() += 1;
                        *expected.entry((repository, manifest)).or_default() += 1;
                    }
                }
            }
            write(pulls.take());
            prop_assert_eq!(written, expected);
            prop_assert_eq!(pulls.entries.load(Ordering::Relaxed), 0);
        }
    }
}
