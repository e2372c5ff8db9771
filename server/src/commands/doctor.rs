//! `orlop doctor`: looks at settings, data folder and machine, one question at
//! a time, and says of each what to do.
//!
//! Takes the settings that `orlop serve` with the same flags would take.
//! Changes nothing that stays. Can run beside a server.

mod certificate;
mod check;
mod folder;
mod machine;

use std::process::ExitCode;
use std::time::SystemTime;

use orlop_disk::blocking::Blocking;
use orlop_disk::lock::LockError;

use self::check::{Check, Outcome, as_text};
use super::{Output, print};
use crate::settings::{Loaded, Problem, ServeArgs, Settings, memory_limit};

/// Threads of the disk that makes the trials.
const TRIAL_THREADS: usize = 1;

/// Flags of `orlop doctor`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Settings that the server would have.
    #[command(flatten)]
    settings: ServeArgs,

    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Makes all checks and reports them.
pub fn run(args: &Args) -> ExitCode {
    let loaded = load(&args.settings);
    let folder = &loaded.unchecked().data;
    let mut checks = settings_checks(&loaded);
    checks.extend(examine(loaded.unchecked()));
    let is_well = checks.iter().all(|check| check.result != Outcome::Fail);
    let report = match args.output {
        Output::Text => as_text(folder, &checks),
        Output::Json => {
            let report = serde_json::json!({ "data": folder, "ok": is_well, "checks": checks });
            format!("{report}\n")
        }
    };
    let code = if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    print(&report, code)
}

/// The settings. That an address is open to others is no fault of a server that
/// runs: it was passed the flag that this command line may lack.
fn load(args: &ServeArgs) -> Loaded {
    let loaded = Loaded::new(args);
    let data = &loaded.unchecked().data;
    if args.insecure_anonymous || !matches!(folder::holder(data), Some(LockError::Held { .. })) {
        return loaded;
    }
    let mut args = args.clone();
    args.insecure_anonymous = true;
    Loaded::new(&args)
}

/// What was written, one check for each problem.
fn settings_checks(loaded: &Loaded) -> Vec<Check> {
    const NAME: &str = "settings";
    let what = |problem: &Problem| match &problem.key {
        Some(key) => format!("{}: {key}: {}", problem.origin, problem.message),
        None => format!("{}: {}", problem.origin, problem.message),
    };
    let hint = |problem: &Problem| {
        let hint = problem.hint.as_deref();
        hint.unwrap_or("correct it; `orlop config check` tells when it is right")
            .to_owned()
    };
    let mut checks: Vec<Check> = loaded
        .problems
        .iter()
        .map(|problem| Check::fail(NAME, what(problem), hint(problem)))
        .collect();
    if checks.is_empty() {
        checks.push(match loaded.file() {
            Some(file) => Check::pass(NAME, format!("{} can be used", file.display())),
            None => Check::pass(NAME, "there is no file; flags and variables can be used"),
        });
    }
    let notes = loaded.notes.iter();
    checks.extend(notes.map(|note| Check::note(NAME, what(note), hint(note))));
    checks
}

/// Looks at everything that settings lead to; where something is wrong with
/// them, at what the defaults lead to.
fn examine(settings: &Settings) -> Vec<Check> {
    let data = &settings.data;
    let mut checks = Vec::new();
    let (place, check) = folder::data_folder(data);
    checks.push(check);
    let holder = folder::holder(data);
    checks.extend(holder.as_ref().map(folder::lock));
    if let Some(place) = place {
        match Blocking::new(TRIAL_THREADS) {
            Ok(disk) => {
                checks.extend(folder::file_system(disk.as_ref(), &place));
                checks.push(folder::space(disk.as_ref(), &place, settings.space_reserve));
            }
            Err(error) => checks.push(Check::fail(
                "file system",
                format!("no thread can be started for the trials: {error}"),
                "raise the limit of processes of this user",
            )),
        }
    }
    checks.push(folder::maintenance(data));
    checks.push(machine::ring(settings.disk_backend));
    let is_served = matches!(holder, Some(LockError::Held { .. }));
    checks.push(machine::port(
        "port",
        "--listen",
        settings.listen,
        is_served,
    ));
    if let Some(address) = settings.ops_listen {
        checks.push(machine::port(
            "ops port",
            "--ops-listen",
            address,
            is_served,
        ));
    }
    let now = SystemTime::now();
    checks.push(machine::clock(now, data));
    if let Some(files) = &settings.tls {
        let public_url = settings.public_url.as_deref();
        checks.extend(certificate::certificate(files, public_url, now));
    }
    checks.push(machine::memory(memory_limit()));
    checks.push(machine::files());
    checks
}
