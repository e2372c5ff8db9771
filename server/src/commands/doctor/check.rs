//! One question of the doctor, its answer, and what to do about it.

use std::path::Path;

use serde::Serialize;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// As it should be.
    Pass,
    /// Works, but could be better.
    Note,
    /// The server would not start, or not serve.
    Fail,
}

/// One answer.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) result: Outcome,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Check {
    pub(super) fn pass(name: &'static str, message: impl Into<String>) -> Check {
        Check {
            name,
            result: Outcome::Pass,
            message: message.into(),
            advice: None,
        }
    }

    pub(super) fn note(
        name: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Check {
        Check {
            result: Outcome::Note,
            advice: Some(advice.into()),
            ..Check::pass(name, message)
        }
    }

    pub(super) fn fail(
        name: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Check {
        Check {
            result: Outcome::Fail,
            ..Check::note(name, message, advice)
        }
    }
}

/// All of them for people.
pub(super) fn as_text(folder: &Path, checks: &[Check]) -> String {
    let mut text = format!("data folder {}\n", folder.display());
    for check in checks {
        let sign = match check.result {
            Outcome::Pass => "ok  ",
            Outcome::Note => "note",
            Outcome::Fail => "FAIL",
        };
        text += &format!("{sign}  {:14} {}\n", check.name, check.message);
        if let Some(advice) = &check.advice {
            text += &format!("      {:14} -> {advice}\n", "");
        }
    }
    text
}
