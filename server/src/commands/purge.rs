//! `orlop purge`: takes what must go now, for good. Asks the server that runs on
//! the data folder.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::asking::{Common, Form, answer, ask};
use super::gc;
use crate::collection::{GC, Outcome, Wanted};
use crate::control::{PurgeView, Status, Verb};

/// How often it is looked whether a collection that was there before has ended.
const LOOK: Duration = Duration::from_millis(500);
/// Collections of others that are waited for, at most.
const OTHERS: usize = 5;

/// Flags of `orlop purge`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// DIGEST, or REPOSITORY@DIGEST to take it from one repository alone: of a
    /// manifest or of a blob
    name: String,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Come back when the names are gone: the next collection ends the blobs
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs `orlop purge`.
pub fn run(args: &Args) -> ExitCode {
    let (repository, digest) = match args.name.split_once('@') {
        Some((repository, digest)) => (Some(repository.to_owned()), digest.to_owned()),
        None => (None, args.name.clone()),
    };
    answer(&args.common, &FORM, |folder| {
        let status = ask(
            folder,
            Verb::Purge {
                repository,
                digest,
                dry_run: args.dry_run,
            },
        )?;
        if args.dry_run || args.no_wait {
            return Ok(status);
        }
        let collected = collect(folder).map_err(|error| {
            let taken = status.purged.as_ref();
            let taken = taken.map_or_else(String::new, |purged| told(purged, None));
            format!("the names are gone, and the blobs are not: {error}\n{taken}")
        })?;
        Ok(Status {
            jobs: collected.jobs,
            ..status
        })
    })
}

/// Collects what was purged. One that began before may have passed it over.
fn collect(folder: &Path) -> Result<Status, String> {
    for _ in 0..OTHERS {
        wait_for_others(folder)?;
        match gc::start(folder, &Wanted::default()) {
            Ok(started) => return gc::wait(folder, started),
            // Somebody else was quicker.
            Err(_) if is_active(folder)? => {}
            Err(error) => return Err(error),
        }
    }
    Err("other collections begin again and again; the next one ends them".to_owned())
}

fn wait_for_others(folder: &Path) -> Result<(), String> {
    while is_active(folder)? {
        if ask(folder, Verb::GcStatus {})?.paused.is_some() {
            return Err("collection is paused; `orlop gc resume` ends that".to_owned());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn is_active(folder: &Path) -> Result<bool, String> {
    let kind = Some(GC.to_owned());
    let jobs = ask(folder, Verb::JobList { kind })?
        .jobs
        .unwrap_or_default();
    Ok(jobs
        .iter()
        .any(|job| job.state == "running" || job.state == "queued"))
}

const FORM: Form = Form {
    text: |status| {
        let job = status.jobs.iter().flatten().next();
        let outcome = job.and_then(gc::outcome);
        let mut text = match &status.purged {
            Some(purged) => told(purged, outcome.as_ref()),
            None => String::new(),
        };
        if let Some(outcome) = outcome {
            gc::tell(&mut text, &outcome);
        }
        text
    },
    json: |status| {
        let job = status.jobs.iter().flatten().next();
        serde_json::json!({
            "purged": status.purged,
            "job": job,
            "outcome": job.and_then(gc::outcome),
        })
    },
};

/// What became of names and blobs; `outcome`: of the collection after it, if that
/// has ended.
// Writing to a string does not fail.
fn told(purged: &PurgeView, outcome: Option<&Outcome>) -> String {
    let names = format!(
        "{} manifests with {} tags in {} repositories",
        purged.manifest_count, purged.tag_count, purged.repository_count
    );
    let blobs = format!("{} blobs ({} bytes)", purged.blob_count, purged.bytes);
    let is_over = outcome.is_some_and(|of| !of.paused && !of.cut && of.at_once_left == 0);
    let mut text = if purged.dry_run {
        format!("would go: {names}, {blobs}\n")
    } else if is_over {
        format!("gone for good: {names}, {blobs}\n")
    } else {
        format!("gone for good: {names}\nto be collected: {blobs}\n")
    };
    for manifest in &purged.manifests {
        let _ = write!(text, "  {}@{}", manifest.repository, manifest.digest);
        if !manifest.tags.is_empty() {
            let _ = write!(text, " ({})", manifest.tags.join(", "));
        }
        let more = manifest
            .tag_count
            .saturating_sub(manifest.tags.len() as u64);
        if more > 0 {
            let _ = write!(text, " and {more} tags more");
        }
        text.push('\n');
    }
    let more = purged
        .manifest_count
        .saturating_sub(purged.manifests.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "  and {more} manifests more");
    }
    if purged.left_count > 0 {
        let _ = writeln!(
            text,
            "stays, since something else has it: {} blobs",
            purged.left_count
        );
    }
    for left in &purged.left {
        let _ = write!(text, "  {}", left.digest);
        for (at, reason) in left.kept_by.iter().enumerate() {
            let before = if at == 0 { ": " } else { ", " };
            let _ = write!(text, "{before}{}@{}", reason.repository, reason.manifest);
            if reason.deleted.is_some() {
                text.push_str(" (deleted, not purged)");
            }
        }
        text.push('\n');
    }
    text
}
