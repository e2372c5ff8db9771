//! Results as text for people. Formats, computes nothing.

use crate::document::{Idle, QuickReport, StartReport, Versions};
use crate::machine::Machine;
use crate::report::{Comparison, RowReport, Side};
use crate::stats::Ratio;
use std::fmt::Write as _;

/// What the run was made on.
pub(crate) fn heading(machine: &Machine, versions: &Versions) -> String {
    let missing = "not found".to_owned();
    format!(
        "{} · {} cores shared by client and servers · {:.1} GiB · Linux {} · {}\n\
         orlop: {} · docker-registry: {} · commit {} · {} · load {:.2}\n",
        machine.cpu,
        machine.cores,
        machine.memory as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.file_system,
        versions.orlop.as_ref().unwrap_or(&missing),
        versions.registry.as_ref().unwrap_or(&missing),
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

/// One row.
pub(crate) fn row(row: &RowReport) -> String {
    let objects = if row.objects == 0 {
        "each one new".to_owned()
    } else {
        format!("over {} objects", row.objects)
    };
    let connections = row.connections;
    let mut text = format!("\n{} · {connections} connections · {objects}\n", row.name);
    line(
        &mut text,
        format_args!(
            "  {:<16}{:>10}{:>10}{:>10}{:>10}{:>12}{:>8}{:>8}  {:<20}{:<10}{:<10}",
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
            "x loop",
            "verdict"
        ),
    );
    for side in &row.sides {
        let comparison = row.comparisons.iter().find(|one| one.server == side.server);
        line(
            &mut text,
            format_args!("{}", side_line(row, side, comparison)),
        );
    }
    text
}

fn side_line(row: &RowReport, side: &Side, comparison: Option<&Comparison>) -> String {
    let label = side.server.label();
    let Some(median) = &side.median else {
        let error = side.error.as_deref().unwrap_or("no rounds");
        return format!("  {label:<16}error: {error}");
    };
    let cpu = if row.cpu_per_gb {
        median.cpu_per_gb
    } else {
        median.cpu_per_thousand
    };
    let ratio = comparison.and_then(|one| one.to_registry).map_or_else(
        String::new,
        |Ratio {
             median,
             least,
             greatest,
         }| format!("{median:.2} ({least:.2}-{greatest:.2})"),
    );
    let to_loopback = comparison
        .and_then(|one| one.to_loopback)
        .map_or_else(String::new, |ratio| format!("{:.2}", ratio.median));
    let verdict = comparison
        .and_then(|one| one.verdict)
        .map_or("", |verdict| verdict.label());
    let memory = side.peak_memory.map_or(0.0, mib);
    let cut = if side.rounds.iter().any(|round| round.cut_short) {
        " [ended early by the disk guard]"
    } else {
        ""
    };
    let text = format!(
        "  {label:<16}{:>10.*}{:>10.1}{:>10.3}{:>10.3}{cpu:>12.4}{memory:>8.0}{:>7.0}%  {ratio:<20}{to_loopback:<10}{verdict:<10}{cut}",
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

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    writeln!(text, "{arguments}").ok();
}
