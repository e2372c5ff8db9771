//! Results as text for people. Formats, computes nothing.

use crate::document::{Filled, HerdReport, Idle, ListsReport, QuickReport, StartReport, Versions};
use crate::gc::report::{Collection, Foreground, GcReport, Offline};
use crate::machine::Machine;
use crate::report::{Comparison, RowReport, Side};
use crate::stats::Ratio;
use std::fmt::Write as _;

/// What the run was made on.
pub(crate) fn heading(machine: &Machine, versions: &Versions) -> String {
    let missing = "not found".to_owned();
    format!(
        "{} · {} cores shared by client and servers · {:.1} GiB · Linux {} · {}\n\
         orlop: {} · docker-registry: {} · distribution 3: {} · commit {} · {} · load {:.2}\n",
        machine.cpu,
        machine.cores,
        machine.memory as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.file_system,
        versions.orlop.as_ref().unwrap_or(&missing),
        versions.registry.as_ref().unwrap_or(&missing),
        versions.registry3.as_ref().unwrap_or(&missing),
        machine.commit.as_deref().unwrap_or("unknown"),
        machine.started,
        machine.load.unwrap_or_default(),
    )
}

/// Memory without requests.
pub(crate) fn idle(idle: &[Idle]) -> String {
    let mut text = "Idle, freshly started on an empty folder\n".to_owned();
    for server in idle {
        line(
            &mut text,
            format_args!(
                "  {:<16} resident {:>6.1} MiB (own {:>6.1} MiB)   ready after {:>4.0} ms",
                server.server.label(),
                mib(server.memory.resident),
                mib(server.memory.anonymous),
                server.start_seconds * 1e3,
            ),
        );
    }
    text
}

/// Repositories that were filled before the rows.
pub(crate) fn filled(filled: &[Filled]) -> String {
    let mut text = String::new();
    for one in filled {
        line(
            &mut text,
            format_args!(
                "  {:<16} filled with {} manifests, {} tags and {} blobs in {:.0} s",
                one.server.label(),
                one.population.manifests,
                one.population.tags,
                one.blobs,
                one.seconds
            ),
        );
    }
    text
}

/// One row.
pub(crate) fn row(row: &RowReport) -> String {
    let objects = if row.objects == 0 {
        "each one new".to_owned()
    } else {
        format!("over {} objects", row.objects)
    };
    let connections = row.connections;
    let mut text = format!("\n{} · {connections} connections · {objects}\n", row.name);
    let more = Columns::of(row);
    line(
        &mut text,
        format_args!(
            "  {:<16}{:>10}{:>10}{:>10}{:>10}{:>12}{:>8}{:>8}  {:<20}{}{:<10}{:<12}{}",
            "server",
            "req/s",
            "MB/s",
            "p50 ms",
            "p99 ms",
            if row.cpu_per_gb {
                "CPU s/GB"
            } else {
                "CPU s/1000"
            },
            "MiB",
            "client",
            "x registry (range)",
            more.registry3(|| "x dist. 3 (range)".to_owned()),
            "x loop",
            "verdict",
            more.empty(|| "x empty (range)".to_owned())
        ),
    );
    for side in &row.sides {
        let comparison = row
            .comparisons
            .iter()
            .find(|one| one.server == side.server && one.populated == side.populated);
        line(
            &mut text,
            format_args!("{}", side_line(row, side, comparison, more)),
        );
    }
    text
}

/// Columns that not every row has.
#[derive(Debug, Clone, Copy)]
struct Columns {
    registry3: bool,
    empty: bool,
}

impl Columns {
    fn of(row: &RowReport) -> Columns {
        Columns {
            registry3: row.comparisons.iter().any(|one| one.to_registry3.is_some()),
            empty: row.sides.iter().any(|side| side.populated),
        }
    }

    fn registry3(self, text: impl FnOnce() -> String) -> String {
        if self.registry3 {
            format!("{:<20}", text())
        } else {
            String::new()
        }
    }

    fn empty(self, text: impl FnOnce() -> String) -> String {
        if self.empty { text() } else { String::new() }
    }
}

/// A ratio with its range; nothing where there is none.
fn ratio(ratio: Option<Ratio>) -> String {
    ratio.map_or_else(String::new, |ratio| {
        format!(
            "{:.2} ({:.2}-{:.2})",
            ratio.median, ratio.least, ratio.greatest
        )
    })
}

fn side_line(
    row: &RowReport,
    side: &Side,
    comparison: Option<&Comparison>,
    more: Columns,
) -> String {
    // A full one stands below the empty one of the same server.
    let label = if side.populated {
        "  full"
    } else {
        side.server.label()
    };
    let Some(median) = &side.median else {
        let error = side.error.as_deref().unwrap_or("no rounds");
        return format!("  {label:<16}error: {error}");
    };
    let cpu = if row.cpu_per_gb {
        median.cpu_per_gb
    } else {
        median.cpu_per_thousand
    };
    let to_registry = ratio(comparison.and_then(|one| one.to_registry));
    let to_registry3 = more.registry3(|| ratio(comparison.and_then(|one| one.to_registry3)));
    let to_loopback = comparison
        .and_then(|one| one.to_loopback)
        .map_or_else(String::new, |ratio| format!("{:.2}", ratio.median));
    let verdict = comparison
        .and_then(|one| one.verdict)
        .map_or("", |verdict| verdict.label());
    let to_empty = more.empty(|| {
        let holds = match comparison.and_then(|one| one.holds) {
            Some(true) => " holds",
            Some(false) => " SLOWER",
            None => "",
        };
        ratio(comparison.and_then(|one| one.to_empty)) + holds
    });
    let memory = side.peak_memory.map_or(0.0, mib);
    let cut = if side.rounds.iter().any(|round| round.cut_short) {
        " [ended early by the disk guard]"
    } else {
        ""
    };
    let text = format!(
        "  {label:<16}{:>10.*}{:>10.1}{:>10.3}{:>10.3}{cpu:>12.4}{memory:>8.0}{:>7.0}%  {to_registry:<20}{to_registry3}{to_loopback:<10}{verdict:<12}{to_empty}{cut}",
        usize::from(median.rate < 1000.0),
        median.rate,
        median.bytes_per_second / 1e6,
        median.p50_ms,
        median.p99_ms,
        median.client_busy * 100.0,
    );
    text.trim_end().to_owned()
}

/// What follows the rows.
pub(crate) fn closing(report: &QuickReport) -> String {
    let mut text = "\n".to_owned();
    for skipped in &report.skipped {
        let label = skipped.server.label();
        line(
            &mut text,
            format_args!("skipped {label}: {}", skipped.reason),
        );
    }
    for note in &report.notes {
        line(&mut text, format_args!("note: {note}"));
    }
    line(&mut text, format_args!("took {:.0} s", report.seconds));
    text
}

/// The result of `start`.
pub(crate) fn start(report: &StartReport) -> String {
    let mut text = heading(&report.machine, &report.versions);
    let rate = report.blobs as f64 / report.fill_seconds.max(1e-9);
    line(
        &mut text,
        format_args!(
            "{}: {} blobs of {} bytes, pushed in {:.0} s ({rate:.0}/s)",
            report.server.label(),
            report.blobs,
            report.blob_bytes,
            report.fill_seconds
        ),
    );
    for (what, times, median) in [
        (
            "after a clean stop",
            &report.after_stop,
            report.after_stop_median,
        ),
        ("after a kill", &report.after_kill, report.after_kill_median),
    ] {
        let times: Vec<String> = times.iter().map(|time| format!("{time:.3}")).collect();
        line(
            &mut text,
            format_args!(
                "  ready {what:<20} {:.3} s   ({})",
                median.unwrap_or(f64::NAN),
                times.join(", ")
            ),
        );
    }
    let met = |median: Option<f64>| match median {
        Some(time) if time < report.target_seconds => "met",
        _ => "MISSED",
    };
    line(
        &mut text,
        format_args!(
            "  target < {:.0} s: {} after a stop, {} after a kill · {} blobs read back · resident {:.1} MiB",
            report.target_seconds,
            met(report.after_stop_median),
            met(report.after_kill_median),
            report.verified,
            mib(report.memory.resident)
        ),
    );
    text
}

/// The result of `lists`.
pub(crate) fn lists(report: &ListsReport) -> String {
    let mut text = heading(&report.machine, &report.versions);
    line(
        &mut text,
        format_args!(
            "{}: {} tags, {} referrers, {} repositories, pushed in {:.0} s",
            report.server.label(),
            report.entries,
            report.entries,
            report.repositories,
            report.fill_seconds
        ),
    );
    line(
        &mut text,
        format_args!(
            "  {:<42}{:>6}{:>9}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}",
            "page",
            "conn.",
            "entries",
            "kB",
            "requests",
            "req/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "CPU s/1000"
        ),
    );
    for page in &report.pages {
        let missed = if page.p99_ms > report.target_ms {
            "  MISSED"
        } else {
            ""
        };
        line(
            &mut text,
            format_args!(
                "  {:<42}{:>6}{:>9}{:>8.1}{:>10}{:>10.0}{:>10.3}{:>10.3}{:>10.3}{:>12.4}{missed}",
                page.name,
                page.connections,
                page.entries,
                page.bytes as f64 / 1e3,
                page.requests,
                page.rate,
                page.p50_ms,
                page.p99_ms,
                page.max_ms,
                page.cpu_per_thousand
            ),
        );
    }
    for failure in &report.failures {
        line(
            &mut text,
            format_args!("  {}: {}", failure.list, failure.reason),
        );
    }
    let target = report.target_ms;
    let peak = mib(report.peak_memory);
    line(
        &mut text,
        format_args!("  target p99 <= {target:.0} ms · greatest resident {peak:.0} MiB"),
    );
    text
}

/// The result of `herd`.
pub(crate) fn herd(report: &HerdReport) -> String {
    let mut text = heading(&report.machine, &report.versions);
    line(
        &mut text,
        format_args!(
            "{}: {} clients, {:.1} MB/s each, one blob of {:.0} MiB, cache {:.0} MiB",
            report.server.label(),
            report.clients,
            report.rate as f64 / 1e6,
            mib(report.blob_bytes),
            mib(report.cache)
        ),
    );
    line(
        &mut text,
        format_args!(
            "  {:<10}{:>12}{:>10}{:>10}{:>14}{:>8}{:>18}{:>8}",
            "start",
            "before MiB",
            "peak MiB",
            "own MiB",
            "above cache",
            "MB/s",
            "MB a client",
            "CPU s"
        ),
    );
    let target = mib(report.target);
    for crowd in &report.crowds {
        let above = crowd.above_cache as f64 / f64::from(1 << 20);
        let missed = if above > target { "  MISSED" } else { "" };
        let range = format!(
            "{:.1}-{:.1}",
            crowd.least as f64 / 1e6,
            crowd.most as f64 / 1e6
        );
        line(
            &mut text,
            format_args!(
                "  {:<10}{:>12.1}{:>10.1}{:>10.1}{above:>14.1}{:>8.0}{range:>18}{:>8.1}{missed}",
                crowd.start,
                mib(crowd.before),
                mib(crowd.peak),
                mib(crowd.peak_own),
                crowd.bytes as f64 / 1e6 / crowd.seconds.max(1e-9),
                crowd.server_cpu_seconds
            ),
        );
    }
    line(
        &mut text,
        format_args!("  target <= {target:.0} MiB above the cache"),
    );
    text
}

/// The result of `gc`.
pub(crate) fn gc(report: &GcReport) -> String {
    let mut text = heading(&report.machine, &report.versions);
    let counts = report.counts;
    line(
        &mut text,
        format_args!(
            "{}: {} images and {} blobs in {} repositories, pushed in {:.0} s; {} images deleted in {:.0} s, {} blobs and manifests are garbage; {:.0} MiB on disk",
            report.server.label(),
            counts.manifests,
            counts.blobs,
            counts.repositories,
            report.fill_seconds,
            counts.deleted,
            report.delete_seconds,
            counts.garbage,
            mib(report.disk_bytes)
        ),
    );
    line(
        &mut text,
        format_args!(
            "  {:<14}{:>9}{:>9}{:>9}{:>9}{:>11}{:>12}{:>10}{:>10}{:>10}{:>8}",
            "collection",
            "s",
            "purge s",
            "marks s",
            "sweeps s",
            "deaths/min",
            "before MiB",
            "peak MiB",
            "own MiB",
            "own peak",
            "CPU s"
        ),
    );
    for pair in &report.pairs {
        collection(&mut text, "beside load", &pair.loaded);
        collection(&mut text, "quiet", &pair.alone);
    }
    line(
        &mut text,
        format_args!(
            "  {:<14}{:>9}{:>10}{:>10}{:>10}{:>9}{:>10}{:>10}{:>10}{:>8}",
            "load",
            "pulls/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "pushes/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "CPU s"
        ),
    );
    for pair in &report.pairs {
        foreground(&mut text, "quiet", &pair.quiet);
        foreground(&mut text, "beside it", &pair.beside);
    }
    for goal in &report.goals {
        let sign = if goal.at_least { ">=" } else { "<=" };
        let met = if goal.met { "met" } else { "MISSED" };
        line(
            &mut text,
            format_args!(
                "  {:<32}{:>12.2} ({:.2}-{:.2})  {sign} {} {met}",
                goal.name, goal.value.median, goal.value.least, goal.value.greatest, goal.limit
            ),
        );
    }
    line(
        &mut text,
        format_args!(
            "  goals are meant for {} images · {} images pulled and looked for behind each collection · {} connections pull, {} push",
            report.goals_for, report.verified, report.pull_connections, report.push_connections
        ),
    );
    for offline in &report.offline {
        peer(&mut text, offline);
    }
    for skipped in &report.skipped {
        let label = skipped.server.label();
        line(
            &mut text,
            format_args!("skipped {label}: {}", skipped.reason),
        );
    }
    for failed in &report.failed {
        let label = failed.server.label();
        line(&mut text, format_args!("FAILED {label}: {}", failed.reason));
    }
    text
}

fn collection(text: &mut String, name: &str, collection: &Collection) {
    let outcome = &collection.outcome;
    let seconds = |times: &[u64]| times.iter().sum::<u64>() as f64 / 1e3;
    let [_, purged, ..] = outcome.purged;
    let cut = match outcome.cut {
        true => format!(
            " [cut by its limit: {purged} manifests purged, {} blobs dead]",
            outcome.dead
        ),
        false => String::new(),
    };
    line(
        text,
        format_args!(
            "  {name:<14}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>11.0}{:>12.1}{:>10.1}{:>10.1}{:>10.1}{:>8.2}{cut}",
            collection.seconds,
            outcome.purge_ms as f64 / 1e3,
            seconds(&outcome.mark_ms),
            seconds(&outcome.sweep_ms),
            collection.deaths_per_minute,
            mib(collection.before),
            mib(collection.peak),
            mib(collection.own_before),
            mib(collection.own_peak),
            collection.server_cpu_seconds
        ),
    );
}

fn foreground(text: &mut String, name: &str, load: &Foreground) {
    let (pulls, pushes) = (&load.pulls, &load.pushes);
    let cut = if pulls.cut_short || pushes.cut_short {
        " [ended early by the disk guard]"
    } else {
        ""
    };
    line(
        text,
        format_args!(
            "  {name:<14}{:>9.0}{:>10.3}{:>10.3}{:>10.3}{:>9.0}{:>10.3}{:>10.3}{:>10.3}{:>8.2}{cut}",
            pulls.rate,
            pulls.p50_ms,
            pulls.p99_ms,
            pulls.max_ms,
            pushes.rate,
            pushes.p50_ms,
            pushes.p99_ms,
            pushes.max_ms,
            load.server_cpu_seconds
        ),
    );
}

fn peer(text: &mut String, offline: &Offline) {
    let counts = offline.counts;
    line(
        text,
        format_args!(
            "{}: {} images and {} blobs, pushed in {:.0} s; {} deleted in {:.0} s; collected in {:.2} s, {:.0} deaths a minute; read-only meanwhile: all {} tries to push were refused",
            offline.server.label(),
            counts.manifests,
            counts.blobs,
            offline.fill_seconds,
            counts.deleted,
            offline.delete_seconds,
            offline.collect_seconds,
            offline.deaths_per_minute,
            offline.pushes_refused
        ),
    );
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    writeln!(text, "{arguments}").ok();
}
