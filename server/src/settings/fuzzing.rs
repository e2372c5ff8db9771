//! A way into the settings for the fuzz targets: flags, variables and file as
//! given, with nothing of the process that runs them.
//!
//! Compiled with the feature `fuzzing` alone. Refuses to know: the settings.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use super::sources::Surroundings;
use super::{Loaded, ServeArgs};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ServeArgs,
}

/// What a start finds.
#[derive(Clone, Debug)]
pub struct Start {
    /// The command line, without the program's name.
    pub flags: Vec<OsString>,
    /// All variables of the environment.
    pub variables: Vec<(OsString, OsString)>,
    /// The file that is read where none is named.
    pub file: PathBuf,
    /// The working folder.
    pub folder: PathBuf,
}

impl Start {
    /// Reads the settings; the message of the command line's parser where that
    /// refuses it.
    ///
    /// # Errors
    /// What the parser says.
    pub fn load(&self) -> Result<Loaded, String> {
        let name = OsString::from("orlop");
        let words = std::iter::once(name).chain(self.flags.iter().cloned());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let around = Surroundings {
            variables: self.variables.clone(),
            default_file: self.file.clone(),
            folder: self.folder.clone(),
        };
        Ok(Loaded::read(&line.args, &around))
    }
}
