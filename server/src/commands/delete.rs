//! `orlop delete` and `orlop undelete`: what goes by an operator's word, and how
//! something comes back. Asks the server that runs on the data folder.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::asking::{Common, Form, answer, ask};
use super::fail;
use crate::control::{Status, Verb};

/// Flags of `orlop delete`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Delete a repository with all that is in it; it can be brought back within
    /// the undelete window
    Repository {
        /// Its name
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Flags of `orlop undelete`.
#[derive(clap::Args, Debug)]
pub struct UndeleteArgs {
    /// REPOSITORY:TAG, REPOSITORY@DIGEST, or REPOSITORY for all of it
    name: String,
    /// Bring a repository back under this name
    #[arg(long = "as", value_name = "NAME")]
    new_name: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Runs `orlop delete`.
pub fn run(args: &Args) -> ExitCode {
    let Command::Repository { name, common } = &args.command;
    let verb = Verb::DeleteRepository {
        repository: name.clone(),
    };
    answer(common, &FORM, |folder| ask(folder, verb))
}

/// Runs `orlop undelete`.
pub fn run_undelete(args: &UndeleteArgs) -> ExitCode {
    let name = args.name.as_str();
    let parts = name.split_once('@').or_else(|| name.rsplit_once(':'));
    let verb = match (parts, &args.new_name) {
        (None, new_name) => Verb::UndeleteRepository {
            repository: name.to_owned(),
            name: new_name.clone(),
        },
        (Some(_), Some(_)) => {
            return fail(&format_args!(
                "--as is for a whole repository, and {name:?} names a part of one"
            ));
        }
        (Some((repository, reference)), None) => Verb::Undelete {
            repository: repository.to_owned(),
            reference: reference.to_owned(),
        },
    };
    answer(&args.common, &FORM, |folder| ask(folder, verb))
}

const FORM: Form = Form {
    text: as_text,
    json: |status| {
        serde_json::json!({
            "repository": status.repository,
            "undeleted": status.undeleted,
        })
    },
};

// Writing to a string does not fail.
fn as_text(status: &Status) -> String {
    let mut text = String::new();
    if let Some(repository) = &status.repository {
        let name = &repository.name;
        let _ = match repository.manifests {
            Some(manifests) => writeln!(text, "back: {name}, with {manifests} manifests"),
            None => writeln!(
                text,
                "deleted: {name}; `orlop undelete {name}` brings it back within the undelete window"
            ),
        };
    }
    if let Some(undeleted) = &status.undeleted {
        let _ = writeln!(text, "back: {}@{}", undeleted.repository, undeleted.digest);
        for tag in &undeleted.tags {
            let _ = writeln!(text, "back: {}:{tag}", undeleted.repository);
        }
    }
    text
}
