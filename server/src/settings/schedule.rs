//! Kinds of values that say when something begins by itself, or goes.

use std::ffi::OsStr;
use std::time::Duration;

use super::kind::{Kind, Time, mistyped};
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

/// After which time something goes, if it does.
#[derive(Clone, Debug)]
pub(crate) struct Keep(pub(crate) Option<Duration>);

impl Kind for Keep {
    const EXAMPLE: &'static str = "\"keep\" or \"30d\"";

    fn from_text(text: &str) -> Result<Keep, String> {
        match text.trim() {
            KEEP => Ok(Keep(None)),
            time => Time::from_text(time)
                .map(|time| Keep(Some(time.0)))
                .map_err(|error| format!("{error}, nor {KEEP}")),
        }
    }

    fn show(&self) -> String {
        self.0
            .map_or_else(|| KEEP.to_owned(), |time| Time(time).show())
    }
}
