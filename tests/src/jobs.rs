//! Commands about jobs of a running server.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{place, tools};

/// Runs `orlop` with these words on a data folder.
#[must_use]
pub fn orlop(folder: &Path, words: &[&str]) -> tools::Ran {
    let mut command = Command::new(place::binary("orlop"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORLOP_") {
            command.env_remove(name);
        }
    }
    tools::try_run(command.args(words).arg("--data").arg(folder))
}

/// Runs a command that has to succeed, and gives back its document.
#[track_caller]
#[must_use]
pub fn ask(folder: &Path, words: &[&str]) -> Value {
    let ran = orlop(folder, &[words, &["--output", "json"]].concat());
    assert!(ran.ok, "{words:?}: {}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

/// Waits until the newest scrub is in this state, and gives back its status.
#[track_caller]
#[must_use]
pub fn scrub_is(folder: &Path, state: &str) -> Value {
    let began = Instant::now();
    loop {
        let status = ask(folder, &["scrub", "status"]);
        if status["jobs"][0]["state"] == state {
            return status;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
