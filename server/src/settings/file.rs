//! The settings file: TOML, read as a whole, its keys checked against the
//! table. Values keep their place; their kinds are checked where they are used.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::problem::{Origin, Position, Problem};
use super::suggest;
use super::table::ALL;

/// Bytes that a file may have.
const SIZE_MAX: u64 = 1024 * 1024;
/// Problems of one file that are reported.
const PROBLEMS_MAX: usize = 32;

/// A value as it is written.
#[derive(Clone, Debug)]
pub(crate) struct FileValue {
    pub(crate) key: &'static str,
    pub(crate) value: toml::Value,
    pub(crate) at: Position,
}

/// A file as it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingsFile {
    pub(crate) path: PathBuf,
    pub(crate) values: Vec<FileValue>,
}

impl SettingsFile {
    /// Reads a file. Problems are added to the list; what could be read in
    /// spite of them is returned.
    pub(crate) fn read(path: &Path, problems: &mut Vec<Problem>) -> SettingsFile {
        let mut file = SettingsFile {
            path: path.to_owned(),
            values: Vec::new(),
        };
        let mut found = Vec::new();
        match read_text(path) {
            Ok(text) => file.parse(&text, &mut found),
            Err(problem) => found.push(*problem),
        }
        found.sort_by_key(|problem| match &problem.origin {
            Origin::File(_, Some(at)) => (at.line, at.column),
            _ => (0, 0),
        });
        // The parser repeats itself for each bracket that is left open.
        found.dedup();
        let more = found.len().saturating_sub(PROBLEMS_MAX);
        found.truncate(PROBLEMS_MAX);
        problems.append(&mut found);
        if more > 0 {
            let origin = Origin::File(path.to_owned(), None);
            problems.push(Problem::new(origin, format!("{more} more problems")));
        }
        file
    }

    fn parse(&mut self, text: &str, problems: &mut Vec<Problem>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            self.take(text, "", table.get_ref(), problems);
            return;
        }
        // What follows a mistake in the grammar may not be what was meant.
        problems.extend(errors.iter().map(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let message = format!("not TOML: {}", error.message().replace('\n', ", "));
            Problem::new(self.origin(text, offset), message)
        }));
    }

    /// Takes what a table has; sections have no sections in them.
    fn take(
        &mut self,
        text: &str,
        section: &str,
        table: &DeTable<'_>,
        problems: &mut Vec<Problem>,
    ) {
        for (name, value) in table {
            let key = match section {
                "" => name.get_ref().to_string(),
                section => format!("{section}.{}", name.get_ref()),
            };
            let is_quoted_path = name.get_ref().contains('.');
            let known = ALL
                .iter()
                .map(|entry| entry.key())
                .find(|known| *known == key && !is_quoted_path);
            if let Some(key) = known {
                let deserializer = ValueDeserializer::from(value.clone());
                match toml::Value::deserialize(deserializer) {
                    Ok(taken) => self.values.push(FileValue {
                        key,
                        value: taken,
                        at: Position::of(text.as_bytes(), value.span().start),
                    }),
                    Err(error) => {
                        let origin = self.origin(text, value.span().start);
                        problems.push(Problem::new(origin, error.message()).key(key));
                    }
                }
            } else if section.is_empty() && sections().any(|section| section == key) {
                match value.get_ref() {
                    DeValue::Table(table) => self.take(text, &key, table, problems),
                    _ => problems.push(
                        Problem::new(self.origin(text, value.span().start), "is a table")
                            .hint(format!("write [{key}] and its keys below it"))
                            .key(&key),
                    ),
                }
            } else {
                let origin = self.origin(text, name.span().start);
                problems.push(unknown(origin, &key, is_quoted_path));
            }
        }
    }

    fn origin(&self, text: &str, offset: usize) -> Origin {
        let at = Position::of(text.as_bytes(), offset);
        Origin::File(self.path.clone(), Some(at))
    }
}

fn unknown(origin: Origin, key: &str, is_quoted_path: bool) -> Problem {
    let problem = Problem::new(origin, "is not a setting").key(key);
    if is_quoted_path {
        return problem.hint("write a key with a dot without quotation marks");
    }
    if key.replace('-', "_").ends_with("insecure_anonymous") {
        return problem.hint("--insecure-anonymous is a flag only, so that it is never inherited");
    }
    let keys = ALL.iter().map(|entry| entry.key()).chain(sections());
    match suggest::nearest(key, keys) {
        Some(near) => problem.hint(format!("did you mean {near}?")),
        None => problem.hint("`orlop config show` lists what there is"),
    }
}

/// First parts of the keys that have two.
fn sections() -> impl Iterator<Item = &'static str> {
    ALL.iter()
        .filter_map(|entry| entry.key().split_once('.'))
        .map(|(section, _)| section)
}

/// The content of a file. The problem is boxed for its size.
fn read_text(path: &Path) -> Result<String, Box<Problem>> {
    let origin = |at| Origin::File(path.to_owned(), at);
    let unreadable = |error: io::Error| {
        Box::new(Problem::new(
            origin(None),
            format!("cannot read this file of settings: {error}"),
        ))
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > SIZE_MAX {
        let message = format!("is larger than {SIZE_MAX} bytes, and so no file of settings");
        return Err(Box::new(Problem::new(origin(None), message)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = Position::of(error.as_bytes(), error.utf8_error().valid_up_to());
        Box::new(Problem::new(origin(Some(at)), "is not UTF-8").hint("save the file as UTF-8"))
    })
}
