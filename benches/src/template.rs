//! Data folders with a full repository: filled once for each format through
//! the registry protocol, then copied for each server of each row.

use crate::document::Filled;
use crate::error::{Context as _, Error, Result};
use crate::populate::{self, Population};
use crate::server::{DATA, Kind, Programs, READY_LIMIT, Server};
use crate::{contender, copy, rows};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders to copy, each with the server that filled it.
#[derive(Debug, Default)]
pub(crate) struct Templates(Vec<(Kind, PathBuf)>);

impl Templates {
    /// Fills one folder below `root` for each format of `kinds`.
    pub(crate) fn make(
        programs: &Programs,
        root: &Path,
        kinds: &[Kind],
        population: impl Fn(Kind) -> Population,
    ) -> Result<(Templates, Vec<Filled>)> {
        let (mut templates, mut all) = (Templates::default(), Vec::new());
        for kind in kinds.iter().copied().filter(|kind| kind.stores()) {
            if templates.find(kind).is_some() {
                continue;
            }
            let label = kind.label();
            eprintln!("orlop-bench: filling {label} …");
            let folder = root.join(format!("{kind:?}"));
            let filled = fill(kind, programs, &folder, population(kind));
            all.push(filled.map_err(|error| match error {
                Error::Interrupted => error,
                error => Error::Server(format!(
                    "cannot fill {label}: {error}; leave it out with --only"
                )),
            })?);
            templates.0.push((kind, folder));
        }
        contender::sync(root)?;
        Ok((templates, all))
    }

    /// Copies the data into `folder`, where a server of `kind` will start.
    pub(crate) fn copy(&self, kind: Kind, folder: &Path) -> Result<()> {
        let Some(template) = self.find(kind) else {
            let label = kind.label();
            return Err(Error::Server(format!("no full folder of {label} was made")));
        };
        fs::create_dir_all(folder).context(|| format!("create {}", folder.display()))?;
        copy::folder(&template.join(DATA), &folder.join(DATA))?;
        contender::sync(folder)
    }

    fn find(&self, kind: Kind) -> Option<&Path> {
        self.0
            .iter()
            .find(|(by, _)| by.shares_format(kind))
            .map(|(_, folder)| folder.as_path())
    }
}

fn fill(kind: Kind, programs: &Programs, folder: &Path, population: Population) -> Result<Filled> {
    let server = Server::start(kind, programs, folder, READY_LIMIT)?;
    let seconds = populate::fill(&server, rows::REPOSITORY, population)?;
    if kind.is_orlop() {
        server.stop()?;
    } else {
        // docker-registry ends with a failure on every signal. It writes each
        // file before it answers.
        server.kill()?;
    }
    Ok(Filled {
        server: kind,
        population,
        blobs: population.blobs(),
        seconds,
    })
}
