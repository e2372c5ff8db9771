//! `orlop gc` and `orlop blob`: what is garbage, and what is done about it. Asks
//! the server that runs on the data folder.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::asking::{Common, Form, answer, ask, end, newest};
use crate::collection::{GC, Outcome, Wanted};
use crate::control::{DoomedView, JobView, PlanView, Status, Verb, WhyView};

/// How often it is asked how far a job is.
const ASK: Duration = Duration::from_millis(500);

/// Flags of `orlop gc`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Say what would go, and delete nothing
    Plan {
        /// Another undelete window than the server's, such as 0s
        #[arg(long, value_name = "TIME")]
        undelete_window: Option<humantime::Duration>,
        #[command(flatten)]
        common: Common,
    },
    /// Collect garbage now
    Run {
        /// Come back when it is done
        #[arg(long)]
        wait: bool,
        /// Another undelete window than the server's, such as 0s: what was
        /// deleted longer ago cannot be brought back afterwards
        #[arg(long, value_name = "TIME")]
        undelete_window: Option<humantime::Duration>,
        /// Collect also more than deletes explain
        #[arg(long)]
        unlimited: bool,
        /// Collect again after the catalog was made again without some names
        #[arg(long)]
        release: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show the collection that runs, or the last one, and what it did
    Status(Common),
    /// End the collection that runs
    Stop(Common),
    /// Let no collection run until `gc resume`, also after a restart; one that runs
    /// stands still
    Pause {
        /// Why, for everyone to read
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Let collections run again
    Resume(Common),
}

/// Flags of `orlop blob`.
#[derive(clap::Args, Debug)]
pub struct BlobArgs {
    #[command(subcommand)]
    command: BlobCommand,
}

#[derive(clap::Subcommand, Debug)]
enum BlobCommand {
    /// Say what keeps a blob, or why it is garbage
    Why {
        /// Its digest
        digest: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Runs `orlop gc`.
pub fn run(args: &Args) -> ExitCode {
    match &args.command {
        Command::Plan {
            undelete_window,
            common,
        } => {
            let wanted = Wanted {
                plan: true,
                undelete_window: undelete_window.map(milliseconds),
                ..Wanted::default()
            };
            answer(common, &FORM, |folder| {
                let status = wait(folder, start(folder, &wanted)?)?;
                let job = status.jobs.iter().flatten().next();
                let job = job.ok_or("the server named no job")?.id;
                let plan = ask(folder, Verb::GcPlan { job })?.plan;
                Ok(Status { plan, ..status })
            })
        }
        Command::Run {
            wait: waits,
            undelete_window,
            unlimited,
            release,
            common,
        } => {
            let wanted = Wanted {
                plan: false,
                undelete_window: undelete_window.map(milliseconds),
                unlimited: *unlimited,
                release: *release,
            };
            answer(common, &FORM, |folder| {
                let started = start(folder, &wanted)?;
                if *waits {
                    wait(folder, started)
                } else {
                    Ok(started)
                }
            })
        }
        Command::Status(common) => answer(common, &FORM, |folder| {
            let paused = ask(folder, Verb::GcStatus {})?.paused;
            Ok(Status {
                paused,
                ..newest(folder, GC)?
            })
        }),
        Command::Stop(common) => answer(common, &FORM, |folder| end(folder, GC)),
        Command::Pause { reason, common } => answer(common, &PAUSE_FORM, |folder| {
            let reason = reason.clone();
            ask(folder, Verb::GcPause { reason })
        }),
        Command::Resume(common) => {
            answer(common, &PAUSE_FORM, |folder| ask(folder, Verb::GcResume {}))
        }
    }
}

fn milliseconds(time: humantime::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Runs `orlop blob`.
pub fn run_blob(args: &BlobArgs) -> ExitCode {
    let BlobCommand::Why { digest, common } = &args.command;
    let verb = Verb::BlobWhy {
        digest: digest.clone(),
    };
    answer(common, &FORM, |folder| ask(folder, verb))
}

pub(super) fn start(folder: &Path, wanted: &Wanted) -> Result<Status, String> {
    let params = serde_json::to_string(wanted).map_err(|error| error.to_string())?;
    ask(
        folder,
        Verb::JobStart {
            kind: GC.to_owned(),
            params: Some(params),
        },
    )
}

/// Asks until the job has ended. One that failed is an error.
pub(super) fn wait(folder: &Path, started: Status) -> Result<Status, String> {
    let id = started
        .jobs
        .iter()
        .flatten()
        .next()
        .ok_or("the server named no job")?
        .id;
    loop {
        let status = ask(folder, Verb::JobShow { id })?;
        let job = status.jobs.iter().flatten().next();
        let job = job.ok_or("the server knows the job no more")?;
        match job.state.as_str() {
            "queued" | "running" => std::thread::sleep(ASK),
            "done" => {
                let log = ask(folder, Verb::JobLog { id })?.log;
                return Ok(Status { log, ..status });
            }
            state => {
                let why = job
                    .outcome
                    .as_deref()
                    .unwrap_or("the log of the server says why");
                return Err(format!("job {id} is {state}: {why}"));
            }
        }
    }
}

const FORM: Form = Form {
    text: as_text,
    json: |status| {
        let job = status.jobs.iter().flatten().next();
        serde_json::json!({
            "job": job,
            "outcome": job.and_then(outcome),
            "schedules": status.schedules,
            "log": status.log,
            "paused": status.paused,
            "plan": status.plan,
            "why": status.why,
        })
    },
};

const PAUSE_FORM: Form = Form {
    text: |status| {
        let mut text = String::new();
        if status.paused.is_none() {
            text.push_str("collection goes on\n");
        }
        tell_pause(&mut text, status);
        text
    },
    json: |status| serde_json::json!({ "paused": status.paused }),
};

fn tell_pause(text: &mut String, status: &Status) {
    if let Some(paused) = &status.paused {
        let _ = writeln!(
            text,
            "collection is paused since {}: {}",
            paused.since, paused.reason
        );
    }
}

pub(super) fn outcome(job: &JobView) -> Option<Outcome> {
    serde_json::from_str(job.outcome.as_deref()?).ok()
}

// Writing to a string does not fail.
fn as_text(status: &Status) -> String {
    let mut text = String::new();
    tell_pause(&mut text, status);
    for job in status.jobs.iter().flatten() {
        let _ = write!(text, "job {} {} {}", job.id, job.kind, job.state);
        if job.state == "running" && job.done > 0 {
            let _ = write!(text, ", at {} {}", job.done, job.unit);
            if job.total > job.done {
                let _ = write!(text, " of {}", job.total);
            }
            if let Some(eta) = job.eta {
                let left = humantime::format_duration(Duration::from_secs(eta));
                let _ = write!(text, ", about {left} left of this part");
            }
        }
        text.push('\n');
        match outcome(job) {
            Some(outcome) => tell(&mut text, &outcome),
            None => {
                if let Some(why) = &job.outcome {
                    let _ = writeln!(text, "  {why}");
                }
            }
        }
    }
    if status.jobs.as_ref().is_some_and(Vec::is_empty) {
        text.push_str("no collection so far\n");
    }
    if let Some(plan) = &status.plan {
        tell_plan(&mut text, plan);
    }
    for schedule in status.schedules.iter().flatten() {
        let _ = writeln!(text, "next at {} ({} UTC)", schedule.next, schedule.cron);
    }
    for line in status.log.iter().flatten() {
        let _ = writeln!(text, "{} {}", line.at, line.text);
    }
    if let Some(why) = &status.why {
        explain(&mut text, why);
    }
    text
}

fn tell_plan(text: &mut String, plan: &PlanView) {
    let _ = writeln!(
        text,
        "deleted, and would go: {} manifests, {} repositories",
        plan.manifest_count, plan.repository_count
    );
    for repository in &plan.repositories {
        let _ = writeln!(
            text,
            "  {}, {} manifests, deleted at {}",
            repository.name, repository.manifests, repository.deleted
        );
    }
    for manifest in &plan.manifests {
        tell_doomed(text, manifest);
    }
    let _ = writeln!(
        text,
        "untagged, and nothing reaches them: {} manifests, of which the next collection deletes {}",
        plan.untagged_count, plan.untagged_due
    );
    for manifest in &plan.untagged {
        tell_doomed(text, manifest);
    }
}

fn tell_doomed(text: &mut String, manifest: &DoomedView) {
    let _ = write!(
        text,
        "  {}@{}, {} bytes with what it names",
        manifest.repository, manifest.digest, manifest.bytes
    );
    let _ = match &manifest.last_pulled {
        Some(at) => write!(text, ", pulled last at {at} or before"),
        None => write!(text, ", never pulled"),
    };
    let _ = match (&manifest.deleted, &manifest.due) {
        (Some(at), _) => writeln!(text, ", deleted at {at}"),
        (None, Some(at)) => writeln!(text, ", goes at {at} unless it is used"),
        (None, None) => writeln!(text, ", kept"),
    };
}

pub(super) fn tell(text: &mut String, outcome: &Outcome) {
    if outcome.paused {
        text.push_str("  collection was paused; `orlop gc resume` ends that\n");
        return;
    }
    if outcome.idle {
        text.push_str("  nothing had changed since a collection that left no garbage\n");
        return;
    }
    let [repositories, manifests, tags, blobs] = outcome.purged;
    let bytes = |bytes: u64| format!("{bytes} bytes");
    if outcome.plan {
        let _ = writeln!(
            text,
            "  would go: {} blobs ({}) that are condemned already, {} ({}) that one more cycle would condemn",
            outcome.dead,
            bytes(outcome.dead_bytes),
            outcome.condemned,
            bytes(outcome.condemned_bytes)
        );
    } else {
        let _ = writeln!(
            text,
            "  purged for good: {manifests} manifests, {tags} tags, {blobs} deleted blobs, {repositories} repositories"
        );
        if outcome.retired > 0 {
            let _ = writeln!(
                text,
                "  deleted since nothing reaches them: {} manifests; they can be brought back",
                outcome.retired
            );
        }
        let _ = writeln!(
            text,
            "  collected: {} blobs ({}) in {} cycles; condemned: {} ({})",
            outcome.dead,
            bytes(outcome.dead_bytes),
            outcome.cycles,
            outcome.condemned,
            bytes(outcome.condemned_bytes)
        );
    }
    let _ = writeln!(
        text,
        "  blobs: {}; named: {}; garbage that is held for now, by a lease or since it is in use: {}",
        outcome.blobs, outcome.live, outcome.held
    );
    if !outcome.plan {
        let _ = writeln!(
            text,
            "  given back to the file system: {}, {} whole segments",
            bytes(outcome.freed),
            outcome.freed_segments
        );
    }
    if outcome.at_once > 0 || outcome.at_once_left > 0 {
        let _ = writeln!(
            text,
            "  purged by digest: {} blobs died; {} are in use for now and go with a later collection",
            outcome.at_once, outcome.at_once_left
        );
    }
    if outcome.absent > 0 {
        let _ = writeln!(
            text,
            "  {} references name blobs that are not here; `orlop-fsck` says which",
            outcome.absent
        );
    }
    if outcome.bounded > 0 {
        let _ = writeln!(
            text,
            "  {} blobs are garbage that no delete explains, more than goes at once; if that is right, pass --unlimited",
            outcome.bounded
        );
    }
    if outcome.skipped > 0 {
        let _ = writeln!(
            text,
            "  {} were skipped, since reading or ending them failed; the job's log names some, and the next collection tries again",
            outcome.skipped
        );
    }
    if outcome.cut {
        text.push_str("  its time was up; the next one goes on\n");
    }
}

fn explain(text: &mut String, why: &WhyView) {
    match why.size {
        Some(size) => {
            let _ = writeln!(text, "{} is here, {size} bytes", why.digest);
        }
        None => {
            let _ = writeln!(text, "{} is not here", why.digest);
        }
    }
    for reason in &why.kept_by {
        let _ = write!(text, "kept by {}@{}", reason.repository, reason.manifest);
        if !reason.tags.is_empty() {
            let _ = write!(text, " ({})", reason.tags.join(", "));
        }
        if let Some(deleted) = &reason.deleted {
            let _ = write!(text, ", deleted at {deleted} and not purged yet");
        }
        text.push('\n');
    }
    if why.kept_by.is_empty() && why.size.is_some() {
        text.push_str("nothing names it\n");
    }
    if why.held {
        text.push_str("held: it is in use, or somebody was told lately that it is here\n");
    }
    if why.deleted_from.as_deref() == Some("") {
        text.push_str("doomed by a purge of its digest\n");
    } else if let Some(repository) = &why.deleted_from {
        let _ = write!(text, "doomed by a delete in {repository}");
        if let Some(manifest) = &why.deleted_manifest {
            let _ = write!(text, " of {manifest}");
        }
        if let (Some(deleted), Some(purged)) = (&why.deleted, &why.purged) {
            let _ = write!(text, " at {deleted}, purged at {purged}");
        }
        text.push('\n');
    }
}
