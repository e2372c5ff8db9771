//! A copy of the golden store, and the program run on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use orlop_format::group::{Builder, Entries, Head, Volume};
use orlop_format::journal::FileHeader;
use orlop_format::location::Home;
use orlop_format::record::Record;

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
        crate::named::empty_catalog(&folder.path("catalog.db"), v1::CATALOG, 41);
        folder
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).unwrap()
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
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

    /// Appends a group of records to the last journal file.
    pub(crate) fn append(&self, records: Vec<(u64, Record, Vec<u8>)>) {
        let mut bytes = self.read(TWO);
        let header = FileHeader::decode(&bytes).unwrap();
        let volume = Volume {
            home: Home::Journal(header.sequence),
            salt: header.salt,
        };
        let (mut at, mut number, mut chain) = (4096, header.first_group, header.chain);
        while let Ok(head) = bytes
            .get(at..)
            .map_or(Err(()), |b| Head::decode(&volume, b).map_err(drop))
        {
            let mut entries = Entries::new(volume, &head, at as u32, &bytes[at..]);
            assert!(entries.by_ref().all(|entry| entry.is_ok()));
            (number, chain) = (head.number + 1, entries.last_crc());
            at += head.bytes as usize;
        }
        let mut builder = Builder::new(volume, at as u32, number, chain);
        for (lsn, record, payload) in records {
            builder.push(lsn, &record, &payload);
        }
        bytes.truncate(at);
        bytes.extend(builder.finish().0);
        self.write(TWO, &bytes);
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.path(file)).unwrap();
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Runs the program on the folder.
    pub(crate) fn check(&self) -> Said {
        self.check_with(&[])
    }

    /// Runs the program on the folder with more arguments.
    pub(crate) fn check_with(&self, args: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_orlop-fsck"))
            .arg(self.0.path())
            .args(["--output", "json"])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        Said {
            status: output.status.code().unwrap(),
            report: serde_json::from_str(&text).unwrap_or_default(),
            error: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// Level, code and what it is about, of each finding.
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
                    text(finding, "about")
                )
            })
            .collect()
    }

    /// Code, what it is about and what was found, of each note.
    pub(crate) fn notes(&self) -> Vec<String> {
        let notes = self.report["notes"].as_array().cloned().unwrap_or_default();
        notes
            .iter()
            .map(|note| {
                let text = |field: &str| note[field].as_str().unwrap().to_owned();
                format!("{} {}: {}", text("code"), text("about"), text("found"))
            })
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
