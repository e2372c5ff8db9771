//! The tidy test: rules about the sources that no compiler checks.
//!
//! - `crates`, `modules`: who may import whom, between crates and within the server
//! - `lines`: how long a file may be
//! - `profiles`: what is shipped checks its arithmetic
//! - `pages`: every page is linked, every link leads somewhere
//! - `format_page`: the page on the byte format was read since the code changed
//! - `bans`: words that may stand in few places or in none
//!
//! Each check is a function from files to findings and is itself tested with
//! text that breaks its rule.

use std::collections::BTreeSet;
use std::path::Path;

mod bans;
mod crates;
mod format_page;
mod hazards;
mod lines;
mod modules;
mod pages;
mod profiles;
mod source;

use source::{File, Finding};

/// Folders that hold nothing of ours: what is built, what a server run here
/// wrote, and what is hidden but for `.ci`.
fn is_foreign(path: &str, name: &str) -> bool {
    ["target", "node_modules"].contains(&name)
        || ["data", "orlop-data"].contains(&path)
        || (name.starts_with('.') && name != ".ci")
}

/// What the repository holds: the texts that are checked, and all paths.
struct Repository {
    files: Vec<File>,
    paths: BTreeSet<String>,
}

impl Repository {
    fn load() -> std::io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut repository = Self {
            files: Vec::new(),
            paths: BTreeSet::new(),
        };
        repository.walk(&root, "")?;
        repository.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(repository)
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                if !is_foreign(&path, &name) {
                    self.walk(&entry.path(), &format!("{path}/"))?;
                    self.paths.insert(path);
                }
                continue;
            }
            if [".rs", ".md", ".toml"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                let text = std::fs::read_to_string(entry.path())?;
                self.files.push(File {
                    path: path.clone(),
                    text,
                });
            }
            self.paths.insert(path);
        }
        Ok(())
    }
}

/// Runs one check over the repository and fails with all it found.
#[track_caller]
fn assert_tidy(check: impl FnOnce(&Repository) -> Vec<Finding>) -> std::io::Result<()> {
    let repository = Repository::load()?;
    for path in [
        "engine/format/src/lib.rs",
        "server/src/main.rs",
        "server/Cargo.toml",
    ] {
        assert!(
            repository.paths.contains(path),
            "{path} is missing: the wrong folder was read"
        );
    }
    let mut findings = check(&repository);
    findings.sort();
    findings.dedup();
    let list: String = findings
        .iter()
        .map(|finding| format!("\n  {finding}"))
        .collect();
    assert!(findings.is_empty(), "{} findings:{list}\n", findings.len());
    Ok(())
}

#[test]
fn crates_import_what_they_may() -> std::io::Result<()> {
    assert_tidy(|repository| crates::check(&repository.files))
}

#[test]
fn a102_release_builds_keep_overflow_checks() -> std::io::Result<()> {
    assert_tidy(|repository| profiles::check(&repository.files))
}

#[test]
fn server_modules_import_what_they_may() -> std::io::Result<()> {
    assert_tidy(|repository| modules::check(&repository.files))
}

#[test]
fn files_are_short() -> std::io::Result<()> {
    assert_tidy(|repository| lines::check(&repository.files, lines::EXCEPTIONS))
}

#[test]
fn pages_are_linked() -> std::io::Result<()> {
    assert_tidy(|repository| pages::check(&repository.files, &repository.paths))
}

#[test]
fn hazards_name_tests_that_exist() -> std::io::Result<()> {
    assert_tidy(|repository| hazards::check(&repository.files))
}

#[test]
fn the_format_page_is_current() -> std::io::Result<()> {
    assert_tidy(|repository| format_page::check(&repository.files))
}

#[test]
fn banned_words_are_absent() -> std::io::Result<()> {
    assert_tidy(|repository| bans::check(&repository.files))
}
