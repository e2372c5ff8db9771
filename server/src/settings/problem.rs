//! What is wrong with settings, and where it is written.

use std::fmt;
use std::path::PathBuf;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A place in a file, counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Position {
    /// The place of a byte in a text.
    pub(crate) fn of(text: &[u8], offset: usize) -> Position {
        let before = text.get(..offset).unwrap_or(text);
        let start = before
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at.saturating_add(1));
        let line = before.iter().filter(|&&byte| byte == b'\n').count();
        let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default())
            .chars()
            .count();
        Position {
            line: line.saturating_add(1),
            column: column.saturating_add(1),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody wrote it.
    Default,
    /// A file; without a position, the file as a whole.
    File(PathBuf, Option<Position>),
    /// A variable of the environment, by its name.
    Variable(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl Origin {
    /// As in [`fmt::Display`], but to the line only.
    pub fn short(&self) -> String {
        match self {
            Origin::File(path, Some(at)) => format!("{}:{}", path.display(), at.line),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, None) => write!(f, "{}", path.display()),
            Origin::File(path, Some(at)) => {
                write!(f, "{}:{}:{}", path.display(), at.line, at.column)
            }
            Origin::Variable(name) | Origin::Flag(name) => f.write_str(name),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Origin::Default => map.serialize_entry("kind", "default")?,
            Origin::File(path, at) => {
                map.serialize_entry("kind", "file")?;
                map.serialize_entry("file", &path.to_string_lossy())?;
                if let Some(at) = at {
                    map.serialize_entry("line", &at.line)?;
                    map.serialize_entry("column", &at.column)?;
                }
            }
            Origin::Variable(name) => {
                map.serialize_entry("kind", "variable")?;
                map.serialize_entry("name", name)?;
            }
            Origin::Flag(name) => {
                map.serialize_entry("kind", "flag")?;
                map.serialize_entry("name", name)?;
            }
        }
        map.end()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where it is written.
    pub origin: Origin,
    /// The setting, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with no key and no hint yet.
    pub(crate) fn new(origin: Origin, message: impl Into<String>) -> Problem {
        Problem {
            origin,
            key: None,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn key(mut self, key: &str) -> Problem {
        self.key = Some(key.to_owned());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Why settings cannot be used: at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub Vec<Problem>);

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    /// One line each, those after the first below the text that follows
    /// `orlop: `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n       ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_and_in_characters() {
        let text = "a = 1\nbü = 2\n".as_bytes();
        let at = |offset| {
            let Position { line, column } = Position::of(text, offset);
            (line, column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(5), (1, 6));
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(10), (2, 4));
        assert_eq!(at(99), (3, 1));
    }

    #[test]
    fn a_problem_names_place_key_fault_and_hint() {
        let at = Some(Position { line: 3, column: 9 });
        let problem = Problem::new(Origin::File("a.toml".into(), at), "is wrong").key("gc.lease");
        assert_eq!(problem.to_string(), "a.toml:3:9: gc.lease: is wrong");
        let problem = problem.hint("make it right");
        assert_eq!(
            problem.to_string(),
            "a.toml:3:9: gc.lease: is wrong; make it right"
        );
        let flag = Problem::new(Origin::Flag("--x".into()), "no");
        let both = SettingsError(vec![problem, flag]).to_string();
        assert_eq!(both.lines().count(), 2);
        assert!(both.ends_with("\n       --x: no"), "{both}");
    }
}
