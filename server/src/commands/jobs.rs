//! `orlop jobs` and `orlop scrub`: asks the server that runs on the data
//! folder about its jobs. Jobs are the server's: where none runs, there is
//! nothing to ask.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::{Output, fail, print};
use crate::control::client::{self, AskError};
use crate::control::{JobView, Status, Verb};
use crate::jobs::SCRUB;
use crate::settings::{self, DataArgs};

/// Flags of `orlop jobs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List jobs, the newest first, and when the next ones begin by themselves
    List {
        /// Only of this kind
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show a job
    Show(One),
    /// End a job
    Cancel(One),
    /// Print a job's log
    Log(One),
}

#[derive(clap::Args, Debug)]
struct One {
    /// The job's number
    id: i64,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args, Debug)]
struct Common {
    #[command(flatten)]
    data: DataArgs,

    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Flags of `orlop scrub`.
#[derive(clap::Args, Debug)]
pub struct ScrubArgs {
    #[command(subcommand)]
    command: ScrubCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ScrubCommand {
    /// Read everything that is stored and look for damage
    Start(Common),
    /// Show the scrub that runs, or the last one, and what it found
    Status(Common),
    /// End the scrub that runs
    Cancel(Common),
}

/// Runs `orlop jobs`.
pub fn run(args: &Args) -> ExitCode {
    match &args.command {
        Command::List { kind, common } => {
            let verb = Verb::JobList { kind: kind.clone() };
            answer(common, |folder| ask(folder, verb))
        }
        Command::Show(one) => about(one, |id| Verb::JobShow { id }),
        Command::Cancel(one) => about(one, |id| Verb::JobCancel { id }),
        Command::Log(one) => about(one, |id| Verb::JobLog { id }),
    }
}

fn about(one: &One, verb: impl FnOnce(i64) -> Verb) -> ExitCode {
    answer(&one.common, |folder| ask(folder, verb(one.id)))
}

/// Runs `orlop scrub`.
pub fn run_scrub(args: &ScrubArgs) -> ExitCode {
    match &args.command {
        ScrubCommand::Start(common) => {
            let kind = SCRUB.to_owned();
            answer(common, |folder| {
                ask(folder, Verb::JobStart { kind, params: None })
            })
        }
        ScrubCommand::Status(common) => answer(common, status),
        ScrubCommand::Cancel(common) => answer(common, cancel),
    }
}

fn scrubs(folder: &Path) -> Result<Status, String> {
    let kind = Some(SCRUB.to_owned());
    ask(folder, Verb::JobList { kind })
}

/// The newest scrub with its log.
fn status(folder: &Path) -> Result<Status, String> {
    let mut status = scrubs(folder)?;
    if let Some(jobs) = &mut status.jobs {
        jobs.truncate(1);
        if let Some(job) = jobs.first() {
            status.log = ask(folder, Verb::JobLog { id: job.id })?.log;
        }
    }
    if let Some(schedules) = &mut status.schedules {
        schedules.retain(|schedule| schedule.kind == SCRUB);
    }
    Ok(status)
}

fn cancel(folder: &Path) -> Result<Status, String> {
    let jobs = scrubs(folder)?.jobs.unwrap_or_default();
    let active = jobs
        .iter()
        .find(|job| job.state == "running" || job.state == "queued");
    let id = active.ok_or("no scrub waits or runs")?.id;
    ask(folder, Verb::JobCancel { id })
}

fn ask(folder: &Path, verb: Verb) -> Result<Status, String> {
    client::ask(folder, verb).map_err(|error| match error {
        AskError::Nobody => {
            "no server is running on it, and jobs are the server's: start it with `orlop serve`, or pass the --data that it has; on a stopped store `orlop-fsck` looks for damage".to_owned()
        }
        error => error.to_string(),
    })
}

/// Asks, and prints what comes back.
fn answer(common: &Common, ask: impl FnOnce(&Path) -> Result<Status, String>) -> ExitCode {
    let folder = match settings::data_folder(&common.data) {
        Ok(folder) => folder,
        Err(error) => return fail(&error),
    };
    match (ask(&folder), common.output) {
        (Ok(status), Output::Text) => print(&as_text(&status), ExitCode::SUCCESS),
        (Ok(status), Output::Json) => {
            let report = serde_json::json!({
                "data": folder,
                "jobs": status.jobs,
                "schedules": status.schedules,
                "log": status.log,
            });
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

fn as_text(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    if let Some(jobs) = &status.jobs {
        for job in jobs {
            let _ = writeln!(text, "{}", line(job));
        }
        if jobs.is_empty() {
            text.push_str("no jobs so far\n");
        }
    }
    for schedule in status.schedules.iter().flatten() {
        let _ = writeln!(
            text,
            "next {} at {} ({} UTC)",
            schedule.kind, schedule.next, schedule.cron
        );
    }
    for line in status.log.iter().flatten() {
        let _ = writeln!(text, "{} {}", line.at, line.text);
    }
    text
}

fn line(job: &JobView) -> String {
    let mut line = format!("job {} {} {}", job.id, job.kind, job.state);
    if job.total > 0 {
        let percent = job.done.saturating_mul(100).checked_div(job.total);
        let _ = write!(
            line,
            ", {}% ({} of {} {})",
            percent.unwrap_or_default(),
            job.done,
            job.total,
            job.unit
        );
    }
    if job.cancel && job.state == "running" {
        line.push_str(", is being ended");
    }
    let times = [("began", &job.started), ("ended", &job.ended)];
    for (what, at) in times {
        if let Some(at) = at {
            let _ = write!(line, ", {what} {at}");
        }
    }
    if let Some(outcome) = &job.outcome {
        let _ = write!(line, ": {outcome}");
    }
    line
}
