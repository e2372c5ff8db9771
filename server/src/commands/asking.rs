//! What commands about a running server have in common: asking it over the
//! control socket, and printing what comes back.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::{Output, fail, print};
use crate::control::client::{self, AskError};
use crate::control::{Status, Verb};
use crate::settings::{self, DataArgs};

/// Flags of each of them.
#[derive(clap::Args, Debug)]
pub(super) struct Common {
    #[command(flatten)]
    data: DataArgs,

    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// How an answer is written.
pub(super) struct Form {
    pub(super) text: fn(&Status) -> String,
    /// The fields beside the data folder.
    pub(super) json: fn(&Status) -> Value,
}

/// Asks the server that runs on the folder. Where none does, the work is not
/// done: what is asked about is the server's.
pub(super) fn ask(folder: &Path, verb: Verb) -> Result<Status, String> {
    client::ask(folder, verb).map_err(|error| match error {
        AskError::Nobody => {
            "no server is running on it, and this is the server's to do: start it with `orlop serve`, or pass the --data that it has; on a stopped store `orlop-fsck` looks for damage".to_owned()
        }
        error => error.to_string(),
    })
}

/// The newest job of a kind with its log, and when the next one begins.
pub(super) fn newest(folder: &Path, kind: &str) -> Result<Status, String> {
    let mut status = of_kind(folder, kind)?;
    if let Some(jobs) = &mut status.jobs {
        jobs.truncate(1);
        if let Some(job) = jobs.first() {
            status.log = ask(folder, Verb::JobLog { id: job.id })?.log;
        }
    }
    if let Some(schedules) = &mut status.schedules {
        schedules.retain(|schedule| schedule.kind == kind);
    }
    Ok(status)
}

/// Ends the job of a kind that waits or runs.
pub(super) fn end(folder: &Path, kind: &str) -> Result<Status, String> {
    let jobs = of_kind(folder, kind)?.jobs.unwrap_or_default();
    let active = jobs
        .iter()
        .find(|job| job.state == "running" || job.state == "queued");
    let id = active.ok_or_else(|| format!("no {kind} waits or runs"))?.id;
    ask(folder, Verb::JobCancel { id })
}

fn of_kind(folder: &Path, kind: &str) -> Result<Status, String> {
    let kind = Some(kind.to_owned());
    ask(folder, Verb::JobList { kind })
}

/// Asks, and prints what comes back.
pub(super) fn answer(
    common: &Common,
    form: &Form,
    ask: impl FnOnce(&Path) -> Result<Status, String>,
) -> ExitCode {
    let folder = match settings::data_folder(&common.data) {
        Ok(folder) => folder,
        Err(error) => return fail(&error),
    };
    match (ask(&folder), common.output) {
        (Ok(status), Output::Text) => print(&(form.text)(&status), ExitCode::SUCCESS),
        (Ok(status), Output::Json) => {
            let mut report = (form.json)(&status);
            if let Some(fields) = report.as_object_mut() {
                fields.insert("data".to_owned(), serde_json::json!(folder));
            }
            print(&format!("{report}\n"), ExitCode::SUCCESS)
        }
        (Err(error), Output::Text) => {
            fail(&format_args!("data folder {}: {error}", folder.display()))
        }
        (Err(error), Output::Json) => {
            let report = serde_json::json!({ "data": folder, "error": error });
            print(&format!("{report}\n"), ExitCode::FAILURE)
        }
    }
}
