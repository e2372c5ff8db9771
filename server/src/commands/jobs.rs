//! `orlop jobs` and `orlop scrub`: asks the server that runs on the data
//! folder about its jobs. Jobs are the server's: where none runs, there is
//! nothing to ask.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::asking::{Common, Form, answer, ask, end, newest};
use crate::control::{JobView, Status, Verb};
use crate::jobs::SCRUB;

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
            answer(common, &FORM, |folder| ask(folder, verb))
        }
        Command::Show(one) => about(one, |id| Verb::JobShow { id }),
        Command::Cancel(one) => about(one, |id| Verb::JobCancel { id }),
        Command::Log(one) => about(one, |id| Verb::JobLog { id }),
    }
}

fn about(one: &One, verb: impl FnOnce(i64) -> Verb) -> ExitCode {
    answer(&one.common, &FORM, |folder| ask(folder, verb(one.id)))
}

/// Runs `orlop scrub`.
pub fn run_scrub(args: &ScrubArgs) -> ExitCode {
    match &args.command {
        ScrubCommand::Start(common) => {
            let kind = SCRUB.to_owned();
            answer(common, &FORM, |folder| {
                ask(folder, Verb::JobStart { kind, params: None })
            })
        }
        ScrubCommand::Status(common) => answer(common, &FORM, |folder| newest(folder, SCRUB)),
        ScrubCommand::Cancel(common) => answer(common, &FORM, |folder| end(folder, SCRUB)),
    }
}

const FORM: Form = Form {
    text: as_text,
    json: |status| {
        serde_json::json!({
            "jobs": status.jobs,
            "schedules": status.schedules,
            "log": status.log,
        })
    },
};

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
