//! A copy of the golden store, and the program run on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::v1;

pub(crate) const ONE: &str = "journal/J-0000000000000002";
pub(crate) const TWO: &str = "journal/J-0000000000000003";
pub(crate) const RAW: &str = "data/raw/S-0000000000000001.00000000";
pub(crate) const SMALL: &str = "data/small/S-0000000000000002.00000000";
pub(crate) const META: &str = "data/meta/S-0000000000000003.00000000";

/// A data folder that goes away.
pub(crate) struct Folder(tempfile::TempDir);

/// What the program said.
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) report: serde_json::Value,
    pub(crate) error: String,
}

impl Folder {
    /// A copy of the golden files.
    pub(crate) fn golden() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (path, _) in v1::store().files() {
            let to = folder.path(path.to_str().unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(v1::folder().join(&path), to).unwrap();
        }
        catalog(&folder.path("catalog.db"));
        folder
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).unwrap()
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        std::fs::write(self.path(file), bytes).unwrap();
    }

    /// Changes bytes of a file.
    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(file);
        let before = bytes.clone();
        change(&mut bytes);
        assert!(bytes != before, "nothing was changed in {file}");
        self.write(file, &bytes);
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.path(file)).unwrap();
    }

    /// Runs the program on the folder; it must change nothing.
    pub(crate) fn check(&self) -> Said {
        check(self.0.path())
    }
}

/// Runs the program on a folder.
pub(crate) fn check(folder: &Path) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_orlop-fsck"))
        .arg(folder)
        .args(["--output", "json"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    Said {
        status: output.status.code().unwrap(),
        report: serde_json::from_str(&text).unwrap_or_default(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The catalog that the golden store has seen, without names.
fn catalog(path: &Path) {
    let sql = rusqlite::Connection::open(path).unwrap();
    let tables = concat!(
        include_str!("../../../server/src/catalog/migrations/0001_names.sql"),
        include_str!("../../../server/src/catalog/migrations/0002_pulls.sql"),
        include_str!("../../../server/src/catalog/migrations/0003_lists.sql"),
    );
    let words = [
        ("{id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        ("{ordinal}", "INTEGER PRIMARY KEY"),
        ("{blob}", "BLOB"),
        ("{text}", "TEXT"),
        ("{clustered}", "WITHOUT ROWID"),
    ];
    let tables = words
        .iter()
        .fold(tables.to_owned(), |text, (word, meaning)| {
            text.replace(word, meaning)
        });
    sql.execute_batch(&format!(
        "PRAGMA application_id = {}; {tables}",
        0x4f52_4c50
    ))
    .unwrap();
    sql.execute(
        "INSERT INTO catalog (one, id, sequence, schema, needs) VALUES (1, ?1, 41, 3, 1)",
        (v1::CATALOG.as_slice(),),
    )
    .unwrap();
}

impl Said {
    /// Level, code and object of each finding.
    pub(crate) fn findings(&self) -> Vec<String> {
        let findings = self.report["findings"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let text =
            |finding: &serde_json::Value, field: &str| finding[field].as_str().unwrap().to_owned();
        findings
            .iter()
            .map(|finding| {
                assert!(
                    ["expected", "found", "remedy"]
                        .iter()
                        .all(|field| !text(finding, field).is_empty())
                );
                format!(
                    "{} {} {}",
                    text(finding, "level"),
                    text(finding, "code"),
                    text(finding, "object")
                )
            })
            .collect()
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let notes = self.report["notes"].as_array().cloned().unwrap_or_default();
        notes
            .iter()
            .map(|note| note.as_str().unwrap().to_owned())
            .collect()
    }

    /// Fails unless there is exactly one finding, which begins and ends so.
    #[track_caller]
    pub(crate) fn finds_one(&self, start: &str, end: &str) {
        let findings = self.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(
            findings[0].starts_with(start) && findings[0].ends_with(end),
            "{findings:#?}"
        );
        assert_eq!(self.status, 1);
        assert_eq!(self.report["clean"], false);
    }
}
