//! The document of `gc`: what each collection took, what it did to the load
//! beside it, and how that stands to what is asked for.

use super::shape::Counts;
use crate::document::{Skipped, Versions};
use crate::machine::Machine;
use crate::server::Kind;
use crate::stats::{Ratio, paired_ratio};
use serde::{Deserialize, Serialize};

/// What one kind of request came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// Requests finished; a push is its three requests together.
    pub(crate) requests: u64,
    /// From the start to the end of the last one.
    pub(crate) seconds: f64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Median latency in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile of latency in milliseconds.
    pub(crate) p99_ms: f64,
    /// Greatest latency in milliseconds.
    pub(crate) max_ms: f64,
    /// Whether the disk guard ended it early.
    pub(crate) cut_short: bool,
}

/// Pulls and pushes beside each other.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Foreground {
    /// The pulls.
    pub(crate) pulls: Figures,
    /// The pushes.
    pub(crate) pushes: Figures,
    /// CPU time of the server meanwhile, in seconds.
    pub(crate) server_cpu_seconds: f64,
}

/// What `orlop gc run` says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Repositories, manifests, tags and deleted blobs whose rows were purged.
    pub(crate) purged: [u64; 4],
    /// Cycles of mark and sweep.
    pub(crate) cycles: u64,
    /// Blobs before the last cycle.
    pub(crate) blobs: u64,
    /// Those that a name reached.
    pub(crate) live: u64,
    /// Those that are named and not there.
    pub(crate) absent: u64,
    /// Garbage that a lease kept.
    pub(crate) held: u64,
    /// Blobs that died.
    pub(crate) dead: u64,
    /// Their bytes.
    pub(crate) dead_bytes: u64,
    /// Whether its time was up before all was done.
    #[serde(default)]
    pub(crate) cut: bool,
    /// Time the purge of rows took, in milliseconds.
    pub(crate) purge_ms: u64,
    /// Time each cycle marked.
    pub(crate) mark_ms: Vec<u64>,
    /// Time each cycle swept.
    pub(crate) sweep_ms: Vec<u64>,
}

/// One collection.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Collection {
    /// What it says of itself.
    pub(crate) outcome: Outcome,
    /// From the command to its answer, which it looks for twice a second.
    pub(crate) seconds: f64,
    /// The longest mark of its cycles, in seconds.
    pub(crate) mark_seconds: f64,
    /// Blobs that died in a minute, purge and marks counted in.
    pub(crate) deaths_per_minute: f64,
    /// Resident memory of the server before it, in bytes.
    pub(crate) before: u64,
    /// The greatest meanwhile.
    pub(crate) peak: u64,
    /// Of that before it, what was in no cache.
    pub(crate) own_before: u64,
    /// The most in no cache meanwhile, seen once a second.
    pub(crate) own_peak: u64,
    /// CPU time of the server meanwhile, that of the load included.
    pub(crate) server_cpu_seconds: f64,
}

impl Collection {
    /// Memory beyond what the server had before, in MiB. Not that of caches: their
    /// bound is a setting of the server's.
    fn growth(&self) -> f64 {
        self.own_peak.saturating_sub(self.own_before) as f64 / f64::from(1 << 20)
    }
}

/// Two collections of the same store: one beside load, one without.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pair {
    /// The load before the first.
    pub(crate) quiet: Foreground,
    /// The load as long as the first took.
    pub(crate) beside: Foreground,
    /// The collection beside load.
    pub(crate) loaded: Collection,
    /// The collection without.
    pub(crate) alone: Collection,
}

/// A peer's collector, whose server takes no pushes meanwhile.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Offline {
    /// Which server.
    pub(crate) server: Kind,
    /// What it held.
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Time the pushes took, in seconds.
    pub(crate) fill_seconds: f64,
    /// Time the deletes took, in seconds.
    pub(crate) delete_seconds: f64,
    /// Time the collector took, in seconds.
    pub(crate) collect_seconds: f64,
    /// Blobs it removed.
    pub(crate) dead: u64,
    /// Blobs removed in a minute.
    pub(crate) deaths_per_minute: f64,
    /// Pushes that were tried meanwhile; all were refused.
    pub(crate) pushes_refused: u64,
    /// Images looked at behind it.
    pub(crate) verified: u64,
}

/// A figure that something is asked of.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Goal {
    /// What.
    pub(crate) name: &'static str,
    /// The figure of the pairs.
    #[serde(flatten)]
    pub(crate) value: Ratio,
    /// What is asked for.
    pub(crate) limit: f64,
    /// Whether that is the least; else it is the most.
    pub(crate) at_least: bool,
    /// Whether the median keeps to it.
    pub(crate) met: bool,
}

/// The document of `gc`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GcReport {
    /// Layout version.
    pub(crate) schema: u32,
    /// Always `gc`.
    pub(crate) kind: &'static str,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What it ran.
    pub(crate) versions: Versions,
    /// Which server.
    pub(crate) server: Kind,
    /// What it held.
    pub(crate) counts: Counts,
    /// Images that the goals are meant for.
    pub(crate) goals_for: u64,
    /// Time the pushes took, in seconds.
    pub(crate) fill_seconds: f64,
    /// Time the deletes took, in seconds.
    pub(crate) delete_seconds: f64,
    /// Bytes of the data folder behind them, as the file system counts.
    pub(crate) disk_bytes: u64,
    /// The lease that was waited for, in seconds.
    pub(crate) lease_seconds: u64,
    /// Length of the load before a collection, in seconds.
    pub(crate) quiet_seconds: f64,
    /// Connections that pulled.
    pub(crate) pull_connections: usize,
    /// Connections that pushed.
    pub(crate) push_connections: usize,
    /// The collections.
    pub(crate) pairs: Vec<Pair>,
    /// How they stand to what is asked for.
    pub(crate) goals: Vec<Goal>,
    /// Images looked at behind each collection.
    pub(crate) verified: u64,
    /// Peers.
    pub(crate) offline: Vec<Offline>,
    /// Peers that are not there.
    pub(crate) skipped: Vec<Skipped>,
    /// Peers that did not do what they should.
    pub(crate) failed: Vec<Skipped>,
}

/// How the pairs stand to what is asked for.
pub(crate) fn goals(pairs: &[Pair]) -> Vec<Goal> {
    let of = |value: &dyn Fn(&Pair) -> f64| pairs.iter().map(value).collect::<Vec<f64>>();
    let ratio = |beside: &dyn Fn(&Foreground) -> f64| {
        paired_ratio(
            &of(&|pair| beside(&pair.beside)),
            &of(&|pair| beside(&pair.quiet)),
        )
    };
    let plain = |value: &dyn Fn(&Pair) -> f64| {
        let values = of(value);
        paired_ratio(&values, &vec![1.0; values.len()])
    };
    let rows = [
        (
            "mark, quiet, s",
            plain(&|pair| pair.alone.mark_seconds),
            60.0,
            false,
        ),
        (
            "mark, beside load, s",
            plain(&|pair| pair.loaded.mark_seconds),
            600.0,
            false,
        ),
        (
            "memory above caches, quiet, MiB",
            plain(&|pair| pair.alone.growth()),
            256.0,
            false,
        ),
        (
            "memory above caches, beside load, MiB",
            plain(&|pair| pair.loaded.growth()),
            256.0,
            false,
        ),
        (
            "deaths a minute, quiet",
            plain(&|pair| pair.alone.deaths_per_minute),
            1e4,
            true,
        ),
        (
            "deaths a minute, beside load",
            plain(&|pair| pair.loaded.deaths_per_minute),
            1e4,
            true,
        ),
        (
            "pull p99, x quiet",
            ratio(&|load| load.pulls.p99_ms),
            1.5,
            false,
        ),
        (
            "push p99, x quiet",
            ratio(&|load| load.pushes.p99_ms),
            2.0,
            false,
        ),
        (
            "pulls a second, x quiet",
            ratio(&|load| load.pulls.rate),
            0.8,
            true,
        ),
        (
            "pushes a second, x quiet",
            ratio(&|load| load.pushes.rate),
            0.8,
            true,
        ),
    ];
    rows.into_iter()
        .filter_map(|(name, value, limit, at_least)| {
            let value = value?;
            let met = if at_least {
                value.median >= limit
            } else {
                value.median <= limit
            };
            Some(Goal {
                name,
                value,
                limit,
                at_least,
                met,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rate: f64, p99_ms: f64) -> Figures {
        Figures {
            requests: 100,
            seconds: 1.0,
            rate,
            p50_ms: 1.0,
            p99_ms,
            max_ms: 9.0,
            cut_short: false,
        }
    }

    fn foreground(rate: f64, p99_ms: f64) -> Foreground {
        Foreground {
            pulls: figures(rate, p99_ms),
            pushes: figures(rate / 2.0, p99_ms * 2.0),
            server_cpu_seconds: 1.0,
        }
    }

    fn collection(mark_seconds: f64, deaths_per_minute: f64, growth: u64) -> Collection {
        Collection {
            outcome: Outcome {
                purged: [0, 1, 1, 0],
                cycles: 2,
                blobs: 4,
                live: 0,
                absent: 0,
                held: 0,
                dead: 4,
                dead_bytes: 4,
                cut: false,
                purge_ms: 1,
                mark_ms: vec![1, 1],
                sweep_ms: vec![1, 1],
            },
            seconds: 1.0,
            mark_seconds,
            deaths_per_minute,
            before: 1 << 30,
            peak: (1 << 30) + (growth << 21),
            own_before: 1 << 29,
            own_peak: (1 << 29) + (growth << 20),
            server_cpu_seconds: 1.0,
        }
    }

    #[test]
    fn goals_are_judged_by_the_median_of_the_pairs() {
        let pair = |slower: f64, mark: f64| Pair {
            quiet: foreground(100.0, 2.0),
            beside: foreground(100.0 / slower, 2.0 * slower),
            loaded: collection(mark * 10.0, 9_999.0, 300),
            alone: collection(mark, 10_000.0, 200),
        };
        let pairs = [pair(1.1, 61.0), pair(1.6, 50.0), pair(1.2, 59.0)];
        let goals = goals(&pairs);
        let of = |name: &str| goals.iter().find(|goal| goal.name == name).unwrap();
        let mark = of("mark, quiet, s");
        assert!(mark.met && mark.value.greatest == 61.0 && mark.value.median == 59.0);
        assert!(of("mark, beside load, s").met);
        assert!(of("memory above caches, quiet, MiB").met);
        assert!(!of("memory above caches, beside load, MiB").met);
        assert!(of("deaths a minute, quiet").met);
        assert!(!of("deaths a minute, beside load").met);
        assert!(of("pull p99, x quiet").met);
        assert!((of("push p99, x quiet").value.median - 1.2).abs() < 1e-9);
        assert!(of("pulls a second, x quiet").met);
        assert_eq!(goals.len(), 10);
        assert!(super::goals(&[]).is_empty());
    }
}
