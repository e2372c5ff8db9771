//! How long a source file may be: a ratchet that only turns down.
//!
//! A file over the limit stands in the table with its length. It may shrink;
//! when it has shrunk well below its entry, the entry must follow.

use crate::source::{File, Finding};

/// Lines that a source file may have without an entry.
pub(crate) const LIMIT: usize = 600;

/// Files over the limit, with the length they may not exceed. Entries are made
/// smaller or taken out, never added without a reason in the line above.
pub(crate) const EXCEPTIONS: &[(&str, usize)] = &[];

/// An entry follows its file when the file is shorter by more than this share.
const SLACK_PERCENT: usize = 10;

const INSTEAD: &str = "split it by what its parts own";
const TABLE: &str = "correct EXCEPTIONS in tests/tidy/lines.rs";

/// Checks every source file against the limit and the exceptions.
pub(crate) fn check(files: &[File], exceptions: &[(&str, usize)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let lines = file.text.lines().count();
        let entry = exceptions
            .iter()
            .find(|(path, _)| *path == file.path)
            .map(|(_, max)| *max);
        let max = entry.unwrap_or(LIMIT);
        let mut find =
            |rule, instead| findings.push(Finding::new(&file.path, lines, rule, instead));
        if lines > max {
            find(format!("{lines} lines, {max} allowed"), INSTEAD);
        } else if let Some(entry) = entry {
            if lines <= LIMIT {
                find(format!("{lines} lines need no exception"), TABLE);
            } else if lines * 100 < entry * (100 - SLACK_PERCENT) {
                find(
                    format!("{lines} lines, but its exception still says {entry}"),
                    TABLE,
                );
            }
        }
    }
    for (path, _) in exceptions {
        if !files.iter().any(|file| file.path == *path) {
            findings.push(Finding::new(
                path,
                1,
                "has an exception but does not exist".to_owned(),
                TABLE,
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: usize, exceptions: &[(&str, usize)]) -> Vec<String> {
        let file = File {
            path: "a.rs".to_owned(),
            text: "x\n".repeat(lines),
        };
        check(&[file], exceptions)
            .into_iter()
            .map(|finding| finding.rule)
            .collect()
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(rules(LIMIT, &[]), [""; 0]);
        assert_eq!(rules(LIMIT + 1, &[]), ["601 lines, 600 allowed"]);
    }

    #[test]
    fn the_ratchet_only_turns_down() {
        assert_eq!(rules(950, &[("a.rs", 1000)]), [""; 0]);
        assert_eq!(rules(1001, &[("a.rs", 1000)]), ["1001 lines, 1000 allowed"]);
        assert_eq!(
            rules(899, &[("a.rs", 1000)]),
            ["899 lines, but its exception still says 1000"]
        );
        assert_eq!(
            rules(600, &[("a.rs", 1000)]),
            ["600 lines need no exception"]
        );
        assert_eq!(
            rules(1, &[("gone.rs", 1000)]),
            ["has an exception but does not exist"]
        );
    }
}
