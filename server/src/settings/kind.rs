//! Kinds of values that a setting can have: how each is read from text and
//! from TOML, how it is shown, and its JSON schema.
//!
//! Invariant: what [`Kind::show`] prints can be read again by
//! [`Kind::from_text`], `unset` and `none` apart.
//!
//! Refuses to know: which settings there are, and where a value was written.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueHint;
use orlop_disk::Choice;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

/// How a flag takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `--flag VALUE`, once.
    One,
    /// `--flag VALUE`, as often as wanted, or with commas.
    Many,
    /// `--flag`, or `--flag=false`.
    Switch,
}

/// A kind of value.
pub(crate) trait Kind: Sized {
    /// How its flag is written.
    const FORM: Form = Form::One;
    /// All values there are, if they can be listed.
    const CHOICES: &'static [&'static str] = &[];
    /// What a shell completes.
    const HINT: ValueHint = ValueHint::Other;
    /// One value as TOML.
    const EXAMPLE: &'static str;

    /// Reads the value of a flag or variable, or a string of a file.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads the value of a flag or variable that need not be UTF-8.
    fn from_os(text: &OsStr) -> Result<Self, String> {
        match text.to_str() {
            Some("") => Err("is empty".to_owned()),
            Some(text) => Self::from_text(text),
            None => Err(format!("{text:?} is not UTF-8")),
        }
    }

    /// Reads a value of a file.
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) if text.is_empty() => Err("is empty".to_owned()),
            toml::Value::String(text) => Self::from_text(text),
            other => Err(mistyped::<Self>(other)),
        }
    }

    /// A path that is relative is one from this folder.
    fn below(self, folder: &Path) -> Self {
        let _ = folder;
        self
    }

    /// As text.
    fn show(&self) -> String;

    /// For programs.
    fn json(&self) -> serde_json::Value {
        serde_json::Value::String(self.show())
    }

    /// What a file may have.
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = generator.subschema_for::<String>();
        if !Self::CHOICES.is_empty() {
            schema.insert("enum".to_owned(), json!(Self::CHOICES));
        }
        schema
    }
}

/// The message for a value of another type.
pub(super) fn mistyped<T: Kind>(value: &toml::Value) -> String {
    let found = match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) => "an integer",
        toml::Value::Float(_) => "a float",
        toml::Value::Boolean(_) => "a boolean",
        toml::Value::Datetime(_) => "a date or time",
        toml::Value::Array(_) => "an array",
        toml::Value::Table(_) => "a table",
    };
    format!(
        "is {found}, which it cannot be; write a value such as {}",
        T::EXAMPLE
    )
}

impl<T: Kind> Kind for Option<T> {
    const FORM: Form = T::FORM;
    const CHOICES: &'static [&'static str] = T::CHOICES;
    const HINT: ValueHint = T::HINT;
    const EXAMPLE: &'static str = T::EXAMPLE;

    fn from_text(text: &str) -> Result<Self, String> {
        T::from_text(text).map(Some)
    }

    fn from_os(text: &OsStr) -> Result<Self, String> {
        T::from_os(text).map(Some)
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        T::from_toml(value).map(Some)
    }

    fn below(self, folder: &Path) -> Self {
        self.map(|value| value.below(folder))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "unset".to_owned(), Kind::show)
    }

    fn json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, Kind::json)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

impl Kind for bool {
    const FORM: Form = Form::Switch;
    const CHOICES: &'static [&'static str] = &["true", "false", "1", "0"];
    const EXAMPLE: &'static str = "true";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Boolean(value) => Ok(*value),
            other => Err(mistyped::<Self>(other)),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::Value::Bool(*self)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<bool>()
    }
}

/// The path of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) PathBuf);

impl Kind for Place {
    const HINT: ValueHint = ValueHint::AnyPath;
    const EXAMPLE: &'static str = "\"/srv/orlop\"";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Place(text.into()))
    }

    fn from_os(text: &OsStr) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Place(text.into()))
    }

    fn below(self, folder: &Path) -> Self {
        Place(folder.join(self.0).components().collect())
    }

    fn show(&self) -> String {
        self.0.display().to_string()
    }
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

impl Time {
    pub(crate) const fn seconds(seconds: u64) -> Time {
        Time(Duration::from_secs(seconds))
    }

    pub(crate) const fn hours(hours: u64) -> Time {
        Time::seconds(hours * HOUR)
    }

    pub(crate) const fn days(days: u64) -> Time {
        Time::seconds(days * DAY)
    }

    /// Refuses a time that is not between two others.
    pub(crate) fn within(&self, least: Time, most: Time) -> Result<(), String> {
        if (least.0..=most.0).contains(&self.0) {
            return Ok(());
        }
        Err(format!(
            "{} is out of range: use {} to {}",
            self.show(),
            least.show(),
            most.show()
        ))
    }
}

impl Kind for Time {
    const EXAMPLE: &'static str = "\"90s\", \"15m\" or \"24h\"";

    fn from_text(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Time)
            .map_err(|_| format!("{text:?} is not a time such as 90s, 15m or 24h"))
    }

    fn show(&self) -> String {
        let seconds = self.0.as_secs();
        let is_whole = self.0.subsec_nanos() == 0;
        // A day is written 24h, as everywhere in the documentation.
        for (from, unit, name) in [
            (2 * DAY, DAY, "d"),
            (HOUR, HOUR, "h"),
            (MINUTE, MINUTE, "m"),
        ] {
            if is_whole && seconds >= from && seconds.is_multiple_of(unit) {
                return format!("{}{name}", seconds / unit);
            }
        }
        humantime::format_duration(self.0).to_string()
    }
}

/// A number of bytes, written with a unit or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let malformed = || format!("{text:?} is not a size such as 512MiB, 10G or 1073741824");
        let end = text
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => KIB,
            "m" | "mb" | "mib" => MIB,
            "g" | "gb" | "gib" => GIB,
            "t" | "tb" | "tib" => TIB,
            _ => return Err(malformed()),
        };
        number.checked_mul(factor).map(Size).ok_or_else(malformed)
    }
}

impl Kind for Size {
    const EXAMPLE: &'static str = "\"512MiB\" or 536870912";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => text.parse(),
            toml::Value::Integer(number) => u64::try_from(*number)
                .map(Size)
                .map_err(|_| format!("{number} is not a number of bytes")),
            other => Err(mistyped::<Self>(other)),
        }
    }

    fn show(&self) -> String {
        let units = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        for (bytes, unit) in units {
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return format!("{}{unit}", self.0 / bytes);
            }
        }
        self.0.to_string()
    }

    fn json(&self) -> serde_json::Value {
        json!(self.0)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 0 })
    }
}

impl Kind for Choice {
    const CHOICES: &'static [&'static str] = &["auto", "uring", "pool"];
    const EXAMPLE: &'static str = "\"auto\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn show(&self) -> String {
        let word = match self {
            Choice::Auto => "auto",
            Choice::Uring => "uring",
            Choice::Pool => "pool",
        };
        word.to_owned()
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Kind for LogFormat {
    const CHOICES: &'static [&'static str] = &["text", "json"];
    const EXAMPLE: &'static str = "\"text\" or \"json\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{text:?} is not a format: use text or json")),
        }
    }

    fn show(&self) -> String {
        let word = match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        word.to_owned()
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter(pub(crate) String);

impl Kind for Filter {
    const EXAMPLE: &'static str = "\"info\" or \"info,access=off\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let malformed = |part: &str| {
            format!(
                "{part:?} is neither a level from error to trace nor a filter such as access=off"
            )
        };
        // The library takes a word that is no level for a target, and would
        // log nothing else. Commas within brackets do not part filters.
        let parts = text.split(',').filter(|_| !text.contains('['));
        for part in parts.filter(|part| !part.contains('=')) {
            let is_level = part.trim().parse::<LevelFilter>().is_ok();
            if !is_level || part.trim().is_empty() {
                return Err(malformed(part));
            }
        }
        EnvFilter::builder()
            .parse(text)
            .map_err(|_| malformed(text))?;
        Ok(Filter(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}
