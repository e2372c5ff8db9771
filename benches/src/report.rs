//! The figures of a row as values: rounds, medians, ratios, verdicts. They are
//! serialised as they are; `table` prints them for people.

use crate::server::Kind;
use crate::stats::{Ratio, median, paired_ratio};
use serde::Serialize;

/// A peer that reaches this part of loopback is at the ceiling.
const CEILING: f64 = 0.85;
/// What is asked for beside a peer at the ceiling.
const BESIDE_CEILING: f64 = 0.9;
/// What is asked for of a full repository beside an empty one.
const BESIDE_EMPTY: f64 = 0.9;

/// One timed round of one server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    /// Requests finished (a push counts once, its POST and PUT together).
    pub(crate) requests: u64,
    /// Body bytes moved.
    pub(crate) bytes: u64,
    /// Wall time from the first request's start to the last one's end.
    pub(crate) seconds: f64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Body bytes per second.
    pub(crate) bytes_per_second: f64,
    /// Median latency in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile of latency in milliseconds.
    pub(crate) p99_ms: f64,
    /// CPU time of the server process, all threads, in seconds.
    pub(crate) server_cpu_seconds: f64,
    /// CPU time of the client, in seconds.
    pub(crate) client_cpu_seconds: f64,
    /// Part of its threads' time the client was busy, 0 to 1.
    pub(crate) client_busy: f64,
    /// After rounds that store: time to write out what the server left in
    /// the page cache, in seconds. Not part of the other figures.
    pub(crate) settle_seconds: Option<f64>,
    /// Whether the disk guard ended the round early.
    pub(crate) cut_short: bool,
}

/// Medians over rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Body bytes per second.
    pub(crate) bytes_per_second: f64,
    /// Median latency in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile of latency in milliseconds.
    pub(crate) p99_ms: f64,
    /// Server CPU seconds per 10^9 body bytes.
    pub(crate) cpu_per_gb: f64,
    /// Server CPU seconds per 1,000 requests.
    pub(crate) cpu_per_thousand: f64,
    /// Part of its threads' time the client was busy.
    pub(crate) client_busy: f64,
}

/// One server in one row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Side {
    /// Which server.
    pub(crate) server: Kind,
    /// Whether its repository was full before the row.
    pub(crate) populated: bool,
    /// Its rounds, in order; round N of all servers ran side by side.
    pub(crate) rounds: Vec<Round>,
    /// Medians; absent when the side failed.
    pub(crate) median: Option<Summary>,
    /// Greatest resident memory during the rounds, in bytes.
    pub(crate) peak_memory: Option<u64>,
    /// Why the side has no figures.
    pub(crate) error: Option<String>,
}

impl Side {
    /// Fills in the medians. A side with an error keeps none.
    pub(crate) fn summarise(&mut self) {
        if self.error.is_none() {
            self.median = summary(&self.rounds);
        }
    }
}

fn summary(rounds: &[Round]) -> Option<Summary> {
    let over = |value: fn(&Round) -> f64| -> Option<f64> {
        median(&rounds.iter().map(value).collect::<Vec<f64>>())
    };
    Some(Summary {
        rate: over(|round| round.rate)?,
        bytes_per_second: over(|round| round.bytes_per_second)?,
        p50_ms: over(|round| round.p50_ms)?,
        p99_ms: over(|round| round.p99_ms)?,
        cpu_per_gb: over(|round| per(round.server_cpu_seconds, round.bytes, 1e9))?,
        cpu_per_thousand: over(|round| per(round.server_cpu_seconds, round.requests, 1e3))?,
        client_busy: over(|round| round.client_busy)?,
    })
}

fn per(seconds: f64, count: u64, unit: f64) -> f64 {
    if count == 0 {
        0.0
    } else {
        seconds * unit / count as f64
    }
}

/// Whether a row's target is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As fast as the peer or faster.
    Ahead,
    /// The peer is at the ceiling of loopback, and this is near it with no
    /// more CPU.
    AtCeiling,
    /// Neither.
    Behind,
}

impl Verdict {
    /// Word in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Verdict::Ahead => "ahead",
            Verdict::AtCeiling => "at ceiling",
            Verdict::Behind => "BEHIND",
        }
    }
}

/// One server beside the others, from rounds paired by number. Peers are
/// those with a repository as full as its own.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Comparison {
    /// Which server.
    pub(crate) server: Kind,
    /// Whether its repository was full before the row.
    pub(crate) populated: bool,
    /// Its rate over docker-registry's.
    pub(crate) to_registry: Option<Ratio>,
    /// Its CPU per request over docker-registry's.
    pub(crate) cpu_to_registry: Option<Ratio>,
    /// Its rate over distribution 3's.
    pub(crate) to_registry3: Option<Ratio>,
    /// Its CPU per request over distribution 3's.
    pub(crate) cpu_to_registry3: Option<Ratio>,
    /// Its rate over the loopback server's.
    pub(crate) to_loopback: Option<Ratio>,
    /// For Orlop beside a peer only; the worse one of two.
    pub(crate) verdict: Option<Verdict>,
    /// With a full repository: its rate over that of the same server with an
    /// empty one.
    pub(crate) to_empty: Option<Ratio>,
    /// Whether that is no more than a tenth slower.
    pub(crate) holds: Option<bool>,
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RowReport {
    /// Name of the row.
    pub(crate) name: &'static str,
    /// Connections kept busy.
    pub(crate) connections: usize,
    /// Different objects fetched; 0 when each was new.
    pub(crate) objects: usize,
    /// Whether the table tells CPU per GB, not per 1,000 requests.
    pub(crate) cpu_per_gb: bool,
    /// The servers.
    pub(crate) sides: Vec<Side>,
    /// The servers beside each other.
    pub(crate) comparisons: Vec<Comparison>,
}

impl RowReport {
    /// Compares the sides, which must be summarised.
    pub(crate) fn compare(&mut self) {
        self.comparisons = self
            .sides
            .iter()
            .filter(|side| side.median.is_some() && side.server != Kind::Loopback)
            .map(|side| self.comparison(side.server, side.populated))
            .collect();
    }

    fn comparison(&self, server: Kind, populated: bool) -> Comparison {
        let beside = |peer: Kind| {
            let rate = self.rates(server, populated, peer, populated);
            let cpu = self.cpu(server, populated, peer);
            (rate.filter(|_| server.is_orlop()), cpu)
        };
        let judge = |peer: Kind| {
            let (rate, cpu) = beside(peer);
            let ceiling = self.rates(peer, populated, Kind::Loopback, false);
            Some(verdict(rate?, cpu, ceiling))
        };
        let (to_registry, cpu_to_registry) = beside(Kind::Registry);
        let (to_registry3, cpu_to_registry3) = beside(Kind::Registry3);
        let to_empty = self
            .rates(server, true, server, false)
            .filter(|_| populated);
        Comparison {
            server,
            populated,
            to_registry,
            cpu_to_registry: cpu_to_registry.filter(|_| to_registry.is_some()),
            to_registry3,
            cpu_to_registry3: cpu_to_registry3.filter(|_| to_registry3.is_some()),
            to_loopback: self.rates(server, populated, Kind::Loopback, false),
            verdict: judge(Kind::Registry).max(judge(Kind::Registry3)),
            to_empty,
            holds: to_empty.map(|ratio| ratio.median >= BESIDE_EMPTY),
        }
    }

    /// The rate of one side over that of another.
    fn rates(&self, ours: Kind, full: bool, base: Kind, base_full: bool) -> Option<Ratio> {
        let rate = |round: &Round| round.rate;
        paired_ratio(
            &self.values(ours, full, rate)?,
            &self.values(base, base_full, rate)?,
        )
    }

    /// CPU per request of one side over that of another that is as full.
    fn cpu(&self, ours: Kind, full: bool, base: Kind) -> Option<Ratio> {
        let cpu = |round: &Round| per(round.server_cpu_seconds, round.requests, 1.0);
        paired_ratio(
            &self.values(ours, full, cpu)?,
            &self.values(base, full, cpu)?,
        )
    }

    /// A value of each round of a side that has figures.
    fn values(
        &self,
        kind: Kind,
        populated: bool,
        value: impl Fn(&Round) -> f64,
    ) -> Option<Vec<f64>> {
        let side = self.sides.iter().find(|side| {
            side.server == kind && side.populated == populated && side.median.is_some()
        })?;
        Some(side.rounds.iter().map(value).collect())
    }
}

/// The rule: ahead of the peer; or, where the peer reaches 0.85 of loopback,
/// at least 0.9 of it with no more CPU.
fn verdict(rate: Ratio, cpu: Option<Ratio>, peer_to_loopback: Option<Ratio>) -> Verdict {
    if rate.median >= 1.0 {
        return Verdict::Ahead;
    }
    let peer_at_ceiling = peer_to_loopback.is_some_and(|ratio| ratio.median >= CEILING);
    let cheap = cpu.is_some_and(|ratio| ratio.median <= 1.0);
    if peer_at_ceiling && cheap && rate.median >= BESIDE_CEILING {
        Verdict::AtCeiling
    } else {
        Verdict::Behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(requests: u64, cpu: f64) -> Round {
        Round {
            requests,
            bytes: requests * 1000,
            seconds: 1.0,
            rate: requests as f64,
            bytes_per_second: requests as f64 * 1000.0,
            p50_ms: 1.0,
            p99_ms: 2.0,
            server_cpu_seconds: cpu,
            client_cpu_seconds: 0.5,
            client_busy: 0.5,
            settle_seconds: None,
            cut_short: false,
        }
    }

    fn side(server: Kind, rounds: &[(u64, f64)]) -> Side {
        let mut side = Side {
            server,
            populated: false,
            rounds: rounds.iter().map(|(n, cpu)| round(*n, *cpu)).collect(),
            median: None,
            peak_memory: None,
            error: None,
        };
        side.summarise();
        side
    }

    fn row(sides: Vec<Side>) -> RowReport {
        let mut row = RowReport {
            name: "test",
            connections: 1,
            objects: 1,
            cpu_per_gb: true,
            sides,
            comparisons: Vec::new(),
        };
        row.compare();
        row
    }

    fn verdict_of(ours: &[(u64, f64)], peer: &[(u64, f64)], loopback: &[(u64, f64)]) -> Verdict {
        let row = row(vec![
            side(Kind::Uring, ours),
            side(Kind::Registry, peer),
            side(Kind::Loopback, loopback),
        ]);
        row.comparisons[0].verdict.unwrap()
    }

    #[test]
    fn medians_over_rounds() {
        let side = side(Kind::Pool, &[(100, 1.0), (300, 1.0), (200, 1.0)]);
        let median = side.median.unwrap();
        assert_eq!(median.rate, 200.0);
        assert_eq!(median.cpu_per_thousand, 5.0);
        assert_eq!(median.cpu_per_gb, 5000.0);
    }

    #[test]
    fn the_rule_of_the_targets() {
        let far = [(1000, 1.0); 3];
        let near = [(105, 1.0); 3];
        let peer = [(100, 1.0); 3];
        assert_eq!(verdict_of(&[(100, 9.0); 3], &peer, &far), Verdict::Ahead);
        assert_eq!(verdict_of(&[(95, 0.5); 3], &peer, &far), Verdict::Behind);
        assert_eq!(
            verdict_of(&[(95, 0.5); 3], &peer, &near),
            Verdict::AtCeiling
        );
        assert_eq!(verdict_of(&[(95, 1.5); 3], &peer, &near), Verdict::Behind);
        assert_eq!(verdict_of(&[(89, 0.5); 3], &peer, &near), Verdict::Behind);
    }

    #[test]
    fn a_failed_peer_leaves_no_ratio() {
        let mut peer = side(Kind::Registry, &[(100, 1.0)]);
        peer.median = None;
        peer.error = Some("gone".to_owned());
        let row = row(vec![side(Kind::Uring, &[(100, 1.0)]), peer]);
        assert_eq!(row.comparisons.len(), 1);
        assert!(row.comparisons[0].to_registry.is_none());
        assert!(row.comparisons[0].verdict.is_none());
    }

    #[test]
    fn the_peer_is_compared_with_loopback_only() {
        let row = row(vec![
            side(Kind::Registry, &[(50, 1.0)]),
            side(Kind::Loopback, &[(100, 1.0)]),
        ]);
        assert_eq!(row.comparisons.len(), 1);
        assert!(row.comparisons[0].to_registry.is_none());
        assert_eq!(row.comparisons[0].to_loopback.unwrap().median, 0.5);
    }

    #[test]
    fn beside_two_peers_the_worse_verdict_counts() {
        let row = row(vec![
            side(Kind::Uring, &[(100, 1.0)]),
            side(Kind::Registry, &[(50, 1.0)]),
            side(Kind::Registry3, &[(200, 1.0)]),
        ]);
        let ours = &row.comparisons[0];
        assert_eq!(ours.to_registry.unwrap().median, 2.0);
        assert_eq!(ours.to_registry3.unwrap().median, 0.5);
        assert_eq!(ours.verdict, Some(Verdict::Behind));
        assert!(row.comparisons[2].verdict.is_none());
    }

    #[test]
    fn a_full_repository_is_compared_with_an_empty_one_and_full_peers() {
        let full = |kind, rounds: &[(u64, f64)]| Side {
            populated: true,
            ..side(kind, rounds)
        };
        let row = row(vec![
            side(Kind::Uring, &[(100, 1.0), (200, 1.0), (100, 1.0)]),
            full(Kind::Uring, &[(95, 1.0), (170, 1.0), (91, 1.0)]),
            side(Kind::Registry, &[(90, 1.0); 3]),
            full(Kind::Registry, &[(10, 1.0); 3]),
        ]);
        let [empty, ours, _, peer] = &row.comparisons[..] else {
            panic!("not four comparisons");
        };
        assert!(empty.to_empty.is_none() && empty.holds.is_none());
        let ratio = ours.to_empty.unwrap();
        assert_eq!((ratio.least, ratio.greatest), (0.85, 0.95));
        assert_eq!(ours.holds, Some(true));
        assert_eq!(ours.to_registry.unwrap().least, 9.1);
        assert_eq!(peer.holds, Some(false));
        assert!(peer.to_registry.is_none());
    }
}
