//! From what RocksDB reports to what the caller does.
//!
//! Owns: the one place that reads RocksDB's messages. Its C interface hands
//! out nothing but a line of text that starts with the status code, then the
//! subcode where there is one; both are fixed words of the pinned version, and
//! the tests break when they change. Failures of background work come as lines
//! of its log.
//!
//! Invariant: unsure is never "damaged", for damage makes the caller throw the
//! index away. What is not known to be damage or a full device is `Io`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::IndexError;

/// Name of the file that tells the next open that a read found damage.
pub(super) const MARK: &str = "DAMAGED";

/// What was being done when RocksDB failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Opening: a file that is not there is damage.
    Open,
    /// Reading: likewise.
    Read,
    /// Writing: a file that is not there is the folder's trouble.
    Write,
}

/// The last failure of background work that is not told yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Background {
    last: Arc<Mutex<Option<String>>>,
}

impl Background {
    /// Takes an error line of RocksDB's log; keeps it if it tells that a flush
    /// or a compaction failed for another reason than a full device. RocksDB
    /// itself goes on after that one, and refuses writes until there is room.
    pub(super) fn note(&self, line: &str) {
        const STARTS: [&str; 2] = ["background flush error: ", "background compaction error: "];
        let Some(status) = STARTS
            .iter()
            .find_map(|start| line.split_once(start).map(|(_, status)| status))
        else {
            return;
        };
        let status = status
            .split_once(", Accumulated")
            .map_or(status, |(status, _)| status);
        if is_full(status) {
            return;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.to_owned());
    }

    /// The failure not told yet, if there is one.
    pub(super) fn take(&self) -> Option<String> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Sorts a status of RocksDB.
pub(super) fn classify(path: &Path, status: &str, stage: Stage) -> IndexError {
    let path: PathBuf = path.to_owned();
    let reason = status.to_owned();
    let gone = status.starts_with("IO error: No such file or directory");
    if status.starts_with("Corruption: ") || (gone && stage != Stage::Write) {
        IndexError::Damaged { path, reason }
    } else if is_full(status) {
        IndexError::Full { path, reason }
    } else {
        IndexError::Io { path, reason }
    }
}

fn is_full(status: &str) -> bool {
    status.starts_with("IO error: No space left on device")
        || status.starts_with("IO error: Space limit reached")
        || (status.starts_with("IO error: ") && status.ends_with("Disk quota exceeded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_by_what_the_caller_does() {
        let sort = |status, stage| match classify(Path::new("/i"), status, stage) {
            IndexError::Damaged { .. } => "damaged",
            IndexError::Io { .. } => "io",
            IndexError::Full { .. } => "full",
            IndexError::Newer { .. } => "newer",
        };
        let cases = [
            (
                "Corruption: block checksum mismatch",
                Stage::Read,
                "damaged",
            ),
            (
                "IO error: No such file or directory: While open",
                Stage::Open,
                "damaged",
            ),
            (
                "IO error: No such file or directory: While open",
                Stage::Write,
                "io",
            ),
            (
                "IO error: No space left on device: While appending",
                Stage::Write,
                "full",
            ),
            (
                "IO error: While appending: /i/1.sst: Disk quota exceeded",
                Stage::Write,
                "full",
            ),
            (
                "IO error: While pread: /i/1.sst: Input/output error",
                Stage::Read,
                "io",
            ),
            (
                "Invalid argument: Direct I/O is not supported",
                Stage::Open,
                "io",
            ),
            ("something new", Stage::Read, "io"),
        ];
        for (status, stage, expected) in cases {
            assert_eq!(sort(status, stage), expected, "{status} while {stage:?}");
        }
    }

    #[test]
    fn keeps_background_failures_only() {
        let background = Background::default();
        background.note("[db/x.cc:1] Unable to load table properties for file 7");
        background.note(
            "[JOB 3] Waiting after background flush error: IO error: No space left on device: \
             While appending, Accumulated background error counts: 1",
        );
        assert_eq!(background.take(), None);
        background.note(
            "Waiting after background compaction error: Corruption: bad block, Accumulated \
             background error counts: 2",
        );
        assert_eq!(background.take().as_deref(), Some("Corruption: bad block"));
        assert_eq!(background.take(), None);
    }
}
