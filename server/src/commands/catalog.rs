//! `orlop catalog`: work on the catalog of a stopped store.
//!
//! `adopt` makes the catalog in the data folder the store's, after an operator
//! has put an older or another one there. It takes the folder's lock, so that
//! it never works beside a server.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use orlop_disk::select;
use orlop_engine::Progress;
use serde::Serialize;

use super::{Output, fail, print};
use crate::registry::Unpaired;
use crate::settings::{self, DataArgs, Settings};
use crate::storage::{self, CATALOG, StartError, Storage};

/// Flags of `orlop catalog`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Make the catalog in the data folder the store's, though it is older or another one
    Adopt(AdoptArgs),
}

#[derive(clap::Args, Debug)]
struct AdoptArgs {
    #[command(flatten)]
    data: DataArgs,

    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// What was found and done.
#[derive(Debug, Serialize)]
struct Report {
    data: PathBuf,
    /// Whether anything was changed.
    adopted: bool,
    /// What the catalog was to the store before: `same`, `older` or `other`.
    was: &'static str,
    /// The catalog's id.
    catalog: String,
    /// Its last change.
    sequence: u64,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let Command::Adopt(args) = &args.command;
    let folder = match settings::data_folder(&args.data) {
        Ok(folder) => folder,
        Err(error) => return fail(&error),
    };
    match (adopt(&folder), args.output) {
        (Ok(report), Output::Text) => print(&as_text(&report), ExitCode::SUCCESS),
        (Ok(report), Output::Json) => {
            let report = format!("{}\n", serde_json::json!(report));
            print(&report, ExitCode::SUCCESS)
        }
        (Err(error), Output::Json) => {
            let error = error.to_string();
            let report = serde_json::json!({ "data": folder, "adopted": false, "error": error });
            print(&format!("{report}\n"), ExitCode::FAILURE)
        }
        (Err(error), Output::Text) => fail(&error),
    }
}

fn as_text(report: &Report) -> String {
    let Report {
        data,
        catalog,
        sequence,
        ..
    } = report;
    let data = data.display();
    let which = format!("catalog {catalog} at change {sequence}");
    match report.was {
        "same" => {
            format!("{which} is the one of the store in {data} already; nothing was changed\n")
        }
        was => format!(
            "{which} is now the one of the store in {data}; it was {was} before. Start the server: pushes are taken again\n"
        ),
    }
}

fn adopt(folder: &Path) -> Result<Report, Error> {
    // Before anything is made: the folder may be a typing mistake.
    let path = folder.join(CATALOG);
    if !path.try_exists()? {
        return Err(format!(
            "there is no catalog at {}; put one there first, or pass the right --data",
            path.display()
        )
        .into());
    }
    storage::own(folder)?;
    let lock = storage::lock(folder).map_err(|error| match error {
        StartError::Locked(held) => {
            format!("{held}; a running server keeps its catalog: stop it first").into()
        }
        other => Error::from(other),
    })?;
    let settings = Settings::stopped(folder.to_owned());
    let (disk, _) = select(settings.disk_backend).map_err(StartError::Disk)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut storage = Storage::open(&settings, lock, disk, &Progress::default()).await?;
        let adopted = storage.adopt().await;
        let (catalog, sequence) = storage.catalog();
        storage.close(pending()).await?;
        let was = adopted?;
        Ok(Report {
            data: folder.to_owned(),
            adopted: was.is_some(),
            was: match was {
                None => "same",
                Some(Unpaired::Older) => "older",
                Some(Unpaired::Other) => "other",
            },
            catalog: uuid::Uuid::from_bytes(catalog).to_string(),
            sequence,
        })
    })
}
