//! Kinds of values that say when something begins by itself, or goes.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::kind::{Kind, Time, mistyped};
use crate::collection::Untagged;
use crate::jobs::Cron;

/// How it is written that nothing begins by itself.
const OFF: &str = "off";

/// A cron pattern in UTC, or off.
#[derive(Clone, Debug)]
pub(crate) struct Times(pub(crate) Option<Cron>);

impl Kind for Times {
    const EXAMPLE: &'static str = "\"0 3 * * 0\" or \"off\"";

    fn from_text(text: &str) -> Result<Times, String> {
        match text.trim() {
            "" | OFF => Ok(Times(None)),
            pattern => Cron::parse(pattern).map(|cron| Times(Some(cron))),
        }
    }

    fn from_os(text: &OsStr) -> Result<Times, String> {
        match text.to_str() {
            Some(text) => Times::from_text(text),
            None => Err(format!("{text:?} is not UTF-8")),
        }
    }

    fn from_toml(value: &toml::Value) -> Result<Times, String> {
        match value {
            toml::Value::String(text) => Times::from_text(text),
            other => Err(mistyped::<Times>(other)),
        }
    }

    fn show(&self) -> String {
        let text = self.0.as_ref().map_or(OFF, Cron::text);
        text.to_owned()
    }
}

/// How it is written that something does not go.
const KEEP: &str = "keep";
/// The pattern of all names.
const ALL: &str = "**";

/// After which time something goes, if it does, and in which repositories after
/// another one.
#[derive(Clone, Debug)]
pub(crate) struct Keep(pub(crate) Untagged);

fn time_of(text: &str) -> Result<Option<Duration>, String> {
    match text.trim() {
        KEEP => Ok(None),
        time => Time::from_text(time)
            .map(|time| Some(time.0))
            .map_err(|error| format!("{error}, nor {KEEP}")),
    }
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| KEEP.to_owned(), |time| Time(time).show())
}

impl Keep {
    /// One pattern and its time. The pattern for everything is no other than what
    /// is said without one, and is there once at most.
    fn add(&mut self, pattern: &str, time: &str, has_all: &mut bool) -> Result<(), String> {
        let pattern = pattern.trim();
        let time = time_of(time).map_err(|error| format!("{pattern}: {error}"))?;
        if pattern == ALL {
            if std::mem::replace(has_all, true) {
                return Err(format!(
                    "{ALL} is there twice: a time without a pattern is the same"
                ));
            }
            self.0.other = time;
            return Ok(());
        }
        if pattern.is_empty() || pattern.contains([',', '=']) {
            return Err(format!(
                "{pattern:?} is not a pattern of repository names such as ci/**"
            ));
        }
        if self.0.globs().any(|(other, _)| other == pattern) {
            return Err(format!("{pattern} is there twice"));
        }
        let added = self.0.add(pattern, time);
        added.map_err(|error| format!("{pattern:?} is not a pattern such as ci/**: {error}"))
    }

    /// Refuses times that are not between two others.
    pub(crate) fn within(&self, least: Time, most: Time) -> Result<(), String> {
        let times = self.0.globs().map(|(_, time)| time).chain([self.0.other]);
        for time in times.flatten() {
            Time(time).within(least, most)?;
        }
        Ok(())
    }
}

impl Kind for Keep {
    const EXAMPLE: &'static str =
        "\"keep\", \"30d\" or a table of patterns such as { \"ci/**\" = \"7d\" }";

    fn from_text(text: &str) -> Result<Keep, String> {
        let mut keep = Keep(Untagged::default());
        let mut has_all = false;
        for (at, part) in text.split(',').enumerate() {
            match part.split_once('=') {
                Some((pattern, time)) => keep.add(pattern, time, &mut has_all)?,
                None if at == 0 => {
                    keep.0.other = time_of(part)?;
                    has_all = true;
                }
                None => {
                    return Err(format!(
                        "{part:?} is neither a pattern nor its time: write ci/**=7d"
                    ));
                }
            }
        }
        Ok(keep)
    }

    fn from_toml(value: &toml::Value) -> Result<Keep, String> {
        let toml::Value::Table(table) = value else {
            return match value {
                toml::Value::String(text) if text.is_empty() => Err("is empty".to_owned()),
                toml::Value::String(text) => Keep::from_text(text),
                other => Err(mistyped::<Keep>(other)),
            };
        };
        let mut keep = Keep(Untagged::default());
        let mut has_all = false;
        for (pattern, time) in table {
            let toml::Value::String(time) = time else {
                return Err(format!("{pattern}: {}", mistyped::<Time>(time)));
            };
            keep.add(pattern, time, &mut has_all)?;
        }
        Ok(keep)
    }

    fn show(&self) -> String {
        let mut text = shown(self.0.other);
        for (pattern, time) in self.0.globs() {
            // Writing to a string does not fail.
            let _ = write!(text, ",{pattern}={}", shown(time));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let mut table = serde_json::Map::new();
        for (pattern, time) in self.0.globs() {
            table.insert(pattern.to_owned(), shown(time).into());
        }
        if table.is_empty() {
            return shown(self.0.other).into();
        }
        table.insert(ALL.to_owned(), shown(self.0.other).into());
        serde_json::Value::Object(table)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"],
            "additionalProperties": { "type": "string" },
        })
    }
}
