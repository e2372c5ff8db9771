//! Settings as written: by flags, by variables, in a file, each value with its
//! origin. Which of them wins is decided here and nowhere else.
//!
//! Invariant: a value that another one hides is checked all the same, so that
//! a file that starts a server does so whatever stands around it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::args::{FileArgs, Flags};
use super::file::SettingsFile;
use super::kind::Kind;
use super::problem::{Origin, Problem};
use super::suggest;
use super::table::{ALL, Setting, flag, variable};

/// The file that is read where none is named, if it is there.
pub(crate) const DEFAULT_FILE: &str = "/etc/orlop/orlop.toml";
/// Names the file of settings.
const FILE_VARIABLE: &str = "ORLOP_CONFIG";
/// What all our variables begin with.
const PREFIX: &str = "ORLOP_";
/// The variable that is not there, on purpose.
const REFUSED: &str = "ORLOP_INSECURE_ANONYMOUS";

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// What surrounds a process: variables, and the file that is read unasked.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) default_file: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn of_process(problems: &mut Vec<Problem>) -> Surroundings {
        let folder = std::env::current_dir().unwrap_or_else(|error| {
            let message = format!("cannot find the working folder: {error}");
            let problem = Problem::new(Origin::Default, message);
            problems.push(problem.hint("start in a folder that exists"));
            PathBuf::new()
        });
        Surroundings {
            variables: std::env::vars_os().collect(),
            default_file: DEFAULT_FILE.into(),
            folder,
        }
    }
}

/// Everything that was written.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    flags: Flags,
    variables: Vec<(&'static str, OsString)>,
    file: Option<SettingsFile>,
    folder: PathBuf,
}

impl Sources {
    /// Reads all of it. What is wrong is added to `problems`, what is odd but
    /// harmless to `notes`.
    pub(crate) fn read(
        flags: Flags,
        file: &FileArgs,
        around: &Surroundings,
        problems: &mut Vec<Problem>,
        notes: &mut Vec<Problem>,
    ) -> Sources {
        let variables = variables(&around.variables, problems, notes);
        Sources {
            flags,
            variables,
            file: read_file(file, around, problems),
            folder: around.folder.clone(),
        }
    }

    /// The file that was read.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// The value of a setting: the one that wins, or its default.
    pub(crate) fn get<T: Kind>(
        &self,
        setting: &Setting<T>,
        problems: &mut Vec<Problem>,
    ) -> Given<T> {
        let key = setting.key;
        let mut winner = None;
        let mut consider = |value: Result<T, String>, origin: Origin| match value
            .and_then(|value| (setting.range)(&value).map(|()| value))
        {
            Ok(value) => winner = Some(Given { value, origin }),
            Err(message) => problems.push(Problem::new(origin, message).key(key)),
        };
        // The weakest first, so that each hides those before it.
        if let Some(file) = &self.file {
            let base = file.path.parent().unwrap_or(Path::new(""));
            for written in file.values.iter().filter(|written| written.key == key) {
                let origin = Origin::File(file.path.clone(), Some(written.at));
                let value = T::from_toml(&written.value);
                consider(value.map(|v| v.below(base).below(&self.folder)), origin);
            }
        }
        if let Some((_, text)) = self.variables.iter().find(|(known, _)| *known == key) {
            let value = T::from_os(text).map(|value| value.below(&self.folder));
            consider(value, Origin::Variable(variable(key)));
        }
        if let Some((_, text)) = self.flags.0.iter().find(|(known, _)| *known == key) {
            let value = T::from_os(text).map(|value| value.below(&self.folder));
            consider(value, Origin::Flag(format!("--{}", flag(key))));
        }
        winner.unwrap_or_else(|| Given {
            value: (setting.default)().below(&self.folder),
            origin: Origin::Default,
        })
    }
}

fn read_file(
    args: &FileArgs,
    around: &Surroundings,
    problems: &mut Vec<Problem>,
) -> Option<SettingsFile> {
    let by_variable = around
        .variables
        .iter()
        .find(|(name, _)| name == FILE_VARIABLE)
        .map(|(_, path)| path.as_os_str());
    let (path, hint) = match (&args.config, by_variable) {
        (Some(path), _) => (path.as_os_str(), "--config names it"),
        (None, Some(path)) => (path, "ORLOP_CONFIG names it"),
        // Nobody asked for it, so it may be missing; anything else is told.
        (None, None) if matches!(around.default_file.try_exists(), Ok(false)) => return None,
        (None, None) => (
            around.default_file.as_os_str(),
            "it is read because no other is named; --config names another",
        ),
    };
    if path == OsStr::new("") {
        let origin = match args.config {
            Some(_) => Origin::Flag("--config".to_owned()),
            None => Origin::Variable(FILE_VARIABLE.to_owned()),
        };
        problems.push(Problem::new(origin, "is empty").hint("name a file, or leave it out"));
        return None;
    }
    let before = problems.len();
    let file = SettingsFile::read(Path::new(path), problems);
    for problem in problems.iter_mut().skip(before) {
        if matches!(problem.origin, Origin::File(_, None)) && problem.hint.is_none() {
            problem.hint = Some(hint.to_owned());
        }
    }
    Some(file)
}

/// The variables that are settings.
///
/// A name that is no setting's may be somebody else's: Kubernetes makes
/// `ORLOP_PORT` and more of a service called orlop, the build script has names
/// of its own. Such a name is noted, and only a slip in writing one of ours is
/// refused.
fn variables(
    all: &[(OsString, OsString)],
    problems: &mut Vec<Problem>,
    notes: &mut Vec<Problem>,
) -> Vec<(&'static str, OsString)> {
    let known: Vec<(String, &'static str)> = ALL
        .iter()
        .map(|entry| (variable(entry.key()), entry.key()))
        .collect();
    let names = || {
        known
            .iter()
            .map(|(name, _)| name.as_str())
            .chain([FILE_VARIABLE])
    };
    let mut taken = Vec::new();
    for (name, value) in all {
        let name = name.to_string_lossy();
        if !name.starts_with(PREFIX) || name == FILE_VARIABLE {
            continue;
        }
        if let Some((_, key)) = known.iter().find(|(known, _)| *known == name) {
            taken.push((*key, value.clone()));
            continue;
        }
        let problem = Problem::new(Origin::Variable(name.to_string()), "is not a setting");
        if name == REFUSED {
            problems.push(
                problem.hint("--insecure-anonymous is a flag only, so that it is never inherited"),
            );
        } else if let Some(near) = names().find(|known| suggest::is_typo(&name, known)) {
            problems.push(problem.hint(format!("did you mean {near}?")));
        } else {
            notes.push(match suggest::nearest(&name, names()) {
                Some(near) => problem.hint(format!("it has no effect; did you mean {near}?")),
                None => problem.hint("it has no effect"),
            });
        }
    }
    taken
}
