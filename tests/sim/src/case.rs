//! One crash of one run, by name, so that it can be run again.

use std::fmt;
use std::str::FromStr;

use orlop_disk::sim::{Crash, Parts};

use crate::random::mix;

/// What of the unsynced survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// Nothing.
    Lost,
    /// All of it.
    Kept,
    /// A prefix that this number chooses, the last write of it in part.
    Prefix(u64),
    /// Any sectors, lengths and names, as this number chooses.
    Torn(u64),
    /// All of it, and it is still not durable: the process ended, the machine
    /// did not.
    Killed,
    /// Some kinds of changes: names 1, lengths 2, bytes 4, added up.
    Parts(u8),
}

impl Model {
    /// How many kinds of power cuts there are.
    pub const KINDS: usize = 4;

    /// The crash of the disk.
    #[must_use]
    pub fn crash(self, seed: u64) -> Crash {
        match self {
            Model::Lost => Crash::Lost,
            Model::Kept => Crash::Kept,
            Model::Prefix(number) => Crash::Prefix(mix(&[seed, number, 1])),
            Model::Torn(number) => Crash::Torn(mix(&[seed, number, 2])),
            Model::Killed => Crash::Killed,
            Model::Parts(parts) => Crash::Parts(Parts {
                names: parts & 1 > 0,
                lengths: parts & 2 > 0,
                bytes: parts & 4 > 0,
            }),
        }
    }

    fn number(self) -> u64 {
        match self {
            Model::Lost => 0,
            Model::Kept => 1,
            Model::Killed => 2,
            Model::Parts(parts) => 3 + u64::from(parts),
            Model::Prefix(number) => 2 * number + 300,
            Model::Torn(number) => 2 * number + 301,
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Model::Lost => f.write_str("lost"),
            Model::Kept => f.write_str("kept"),
            Model::Killed => f.write_str("killed"),
            Model::Prefix(number) => write!(f, "prefix-{number}"),
            Model::Torn(number) => write!(f, "torn-{number}"),
            Model::Parts(parts) => write!(f, "parts-{parts}"),
        }
    }
}

impl FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Model, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("not a number: {text:?}"));
        match text.split_once('-') {
            None if text == "lost" => Ok(Model::Lost),
            None if text == "kept" => Ok(Model::Kept),
            None if text == "killed" => Ok(Model::Killed),
            Some(("prefix", rest)) => Ok(Model::Prefix(number(rest)?)),
            Some(("torn", rest)) => Ok(Model::Torn(number(rest)?)),
            Some(("parts", rest)) => match u8::try_from(number(rest)?) {
                Ok(parts @ 0..8) => Ok(Model::Parts(parts)),
                _ => Err(format!("not a sum of 1, 2 and 4: {rest:?}")),
            },
            _ => Err(format!("not a model of a crash: {text:?}")),
        }
    }
}

/// A crash before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The operation's number.
    pub operation: u64,
    /// What survives.
    pub model: Model,
}

/// A run, a crash in it, and perhaps a second one in the recovery after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The workload's name.
    pub workload: String,
    /// The seed of the run.
    pub seed: u64,
    /// The crash.
    pub cut: Cut,
    /// The crash in the recovery.
    pub nested: Option<Cut>,
}

impl Case {
    /// The seed of all that the crash leaves open: what the index and the names
    /// keep, what the checks do.
    #[must_use]
    pub fn seed(&self) -> u64 {
        let Cut { operation, model } = self.cut;
        let first = mix(&[self.seed, operation, model.number()]);
        match self.nested {
            None => first,
            Some(Cut { operation, model }) => mix(&[first, operation, model.number()]),
        }
    }

    /// The command that runs this case alone.
    #[must_use]
    pub fn command(&self) -> String {
        format!(
            "ORLOP_SIM={self} cargo test --manifest-path tests/sim/Cargo.toml --test crash replay -- --nocapture"
        )
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { operation, model } = self.cut;
        write!(f, "{}:{}:{operation}:{model}", self.workload, self.seed)?;
        match self.nested {
            Some(Cut { operation, model }) => write!(f, ":{operation}:{model}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("not a number: {text:?}"));
        let parts: Vec<&str> = text.trim().split(':').collect();
        let cut = |operation, model: &str| {
            Ok::<_, String>(Cut {
                operation: number(operation)?,
                model: model.parse()?,
            })
        };
        let (workload, seed, first, nested) = match parts.as_slice() {
            [workload, seed, operation, model] => (workload, seed, cut(operation, model)?, None),
            [workload, seed, operation, model, again, other] => (
                workload,
                seed,
                cut(operation, model)?,
                Some(cut(again, other)?),
            ),
            _ => {
                return Err(format!(
                    "not workload:seed:operation:model[:operation:model]: {text:?}"
                ));
            }
        };
        Ok(Case {
            workload: (*workload).to_owned(),
            seed: number(seed)?,
            cut: first,
            nested,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_round_trip() {
        for text in [
            "inline:7:12:lost",
            "kills:0:1:torn-3:44:prefix-2",
            "a:1:2:killed:3:kept",
            "a:1:2:parts-5",
        ] {
            assert_eq!(text.parse::<Case>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "a:1:2",
            "a:x:2:lost",
            "a:1:2:wet",
            "a:1:2:torn-",
            "a:1:2:parts-8",
            "a:1:2:lost:3",
        ] {
            assert!(text.parse::<Case>().is_err(), "{text}");
        }
    }
}
