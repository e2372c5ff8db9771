//! Words that may stand in few places or in none. What clippy can ban, clippy
//! bans; this is the rest.

use crate::modules::crate_uses;
use crate::source::{self, File, Finding, Literals};

/// A crate that only some folders may name.
struct Confined {
    name: &'static str,
    /// Path prefixes.
    homes: &'static [&'static str],
    instead: &'static str,
}

const CONFINED: &[Confined] = &[
    Confined {
        name: "tokio_uring",
        homes: &["engine/disk/src/uring"],
        instead: "use the traits Disk and File of orlop-disk",
    },
    Confined {
        name: "sqlx",
        homes: &["server/src/catalog", "server/tests/", "fsck/src/repair"],
        instead: "add a verb to server/src/catalog",
    },
    Confined {
        name: "orlop_fsck",
        homes: &[
            "fsck/",
            "server/src/commands/fsck.rs",
            "server/src/storage/tests/",
            "server/tests/oracle/",
            "tests/",
            "fuzz/",
        ],
        instead: "a check that shares code with the server is no check of it",
    },
    Confined {
        name: "rusqlite",
        homes: &["fsck/"],
        instead: "add a verb to server/src/catalog",
    },
    Confined {
        name: "rocksdb",
        homes: &["engine/index/", "fsck/"],
        instead: "use the trait Index of orlop-index",
    },
];

/// Macros that mean unfinished work or left-over debugging.
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

const UNSAFE_HOME: &str = "engine/disk/";

/// Where locks, atomics and channels of the store must come from, so that a
/// schedule explorer can replace them.
const SEAM: &str = "engine/store/src/sync.rs";
const SEAM_OF: &str = "engine/store/src/";
/// What of `std::sync` only shares.
const SHARING: &[&str] = &["Arc", "Weak"];

/// Runs every ban over the sources.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let code = source::code(&file.text, Literals::Blank);
        let mut find = |at: usize, rule: String, instead: &str| {
            findings.push(Finding::new(
                &file.path,
                source::line_of(&code, at),
                rule,
                instead,
            ));
        };
        for rule in CONFINED
            .iter()
            .filter(|rule| !rule.homes.iter().any(|home| file.path.starts_with(home)))
        {
            for at in crate_uses(&code, rule.name) {
                find(
                    at,
                    format!("{} is used outside {:?}", rule.name, rule.homes),
                    rule.instead,
                );
            }
        }
        for name in UNFINISHED {
            for at in
                source::words(&code, name).filter(|at| followed_by(&code, at + name.len(), "!"))
            {
                find(
                    at,
                    format!("{name}! is left in"),
                    "finish it or return an error",
                );
            }
        }
        if !file.path.starts_with(UNSAFE_HOME) {
            for at in source::words(&code, "unsafe").chain(lifted_unsafe_lint(&code)) {
                let rule = format!("unsafe code outside {UNSAFE_HOME}");
                find(at, rule, "a safe interface in engine/disk, or rustix");
            }
        }
        if file.path.starts_with(SEAM_OF) && file.path != SEAM {
            for at in locks(&source::shipped_code(&file.text)) {
                let rule = format!("a lock, atomic or channel that is not of {SEAM}");
                find(at, rule, "take it from crate::sync");
            }
        }
        for at in dropped_matches(&code) {
            let rule = "matches! as a statement checks nothing".to_owned();
            find(at, rule, "assert!(matches!(…)) or a `let … else`");
        }
        if !file.text.starts_with("//!") {
            let rule = "the file does not start with a `//!` comment".to_owned();
            find(
                0,
                rule,
                "say what it owns, its invariants, what it refuses to know",
            );
        }
    }
    findings
}

/// Where `std::sync` is named for more than sharing, or another crate's locks.
fn locks(code: &str) -> Vec<usize> {
    let mut found: Vec<usize> = crate_uses(code, "parking_lot").collect();
    for path in ["std::sync", "tokio::sync"] {
        for (at, _) in code.match_indices(path) {
            let rest = code.get(at + path.len()..).unwrap_or_default();
            let names = rest.strip_prefix("::").unwrap_or(rest);
            let end = match names.starts_with('{') {
                true => names.find('}'),
                false => names.find(|c| !source::is_word(c)),
            };
            let names = names.get(..end.unwrap_or(names.len())).unwrap_or_default();
            let shares = path == "std::sync"
                && names
                    .split(|c| !source::is_word(c))
                    .all(|name| name.is_empty() || SHARING.contains(&name));
            if !shares || names.is_empty() {
                found.push(at);
            }
        }
    }
    found
}

fn followed_by(code: &str, at: usize, text: &str) -> bool {
    code.get(at..).is_some_and(|rest| rest.starts_with(text))
}

/// Where the lint `unsafe_code` is switched off.
fn lifted_unsafe_lint(code: &str) -> impl Iterator<Item = usize> + '_ {
    source::words(code, "unsafe_code").filter(|&at| {
        let before = code.get(..at).unwrap_or_default();
        let attribute = before
            .rfind("#")
            .and_then(|from| before.get(from..))
            .unwrap_or_default();
        ["allow", "expect", "warn"]
            .iter()
            .any(|word| source::words(attribute, word).next().is_some())
    })
}

/// Where a `matches!(…);` stands alone, so that its answer is dropped.
fn dropped_matches(code: &str) -> impl Iterator<Item = usize> + '_ {
    const NAME: &str = "matches";
    source::words(code, NAME).filter(|&at| {
        let before = code.get(..at).unwrap_or_default().trim_end();
        let arguments = code
            .get(at + NAME.len()..)
            .and_then(|rest| rest.strip_prefix('!'));
        let starts = before.is_empty() || before.ends_with([';', '{', '}']);
        starts && arguments.is_some_and(|rest| after_group(rest).trim_start().starts_with(';'))
    })
}

/// What follows the bracketed group at the start of a text.
fn after_group(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return text.get(at + 1..).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, body: &str) -> Vec<String> {
        let file = File {
            path: path.to_owned(),
            text: format!("//! Doc.\n{body}"),
        };
        check(&[file])
            .into_iter()
            .map(|finding| format!("{} {}", finding.line, finding.rule))
            .collect()
    }

    #[test]
    fn unfinished_work_is_found() {
        let body =
            "fn f() { todo!() }\nfn g() { dbg!(1); unimplemented!(); }\n// todo!()\nfn todo() {}\n";
        assert_eq!(
            rules("a.rs", body),
            [
                "2 todo! is left in",
                "3 unimplemented! is left in",
                "3 dbg! is left in"
            ]
        );
    }

    #[test]
    fn unsafe_code_has_one_home() {
        let body = "#![deny(unsafe_code)]\nfn f() { unsafe { x() } }\n#[expect(unsafe_code, reason = \"\")]\nfn g() {}\n";
        let rule = "unsafe code outside engine/disk/";
        assert_eq!(
            rules("server/src/a.rs", body),
            [format!("3 {rule}"), format!("4 {rule}")]
        );
        assert_eq!(rules("engine/disk/src/buffer.rs", body), [""; 0]);
    }

    #[test]
    fn crates_stay_at_home() {
        let body = "use tokio_uring::fs::File;\nuse sqlx::Row;\nfn f(db: &rocksdb::DB) {}\nlet rocksdb = 1;\n";
        assert_eq!(rules("server/src/a.rs", body).len(), 3);
        assert_eq!(rules("engine/disk/src/uring.rs", body).len(), 2);
        assert_eq!(rules("server/src/catalog/read.rs", body).len(), 2);
        assert_eq!(rules("fsck/src/index.rs", body).len(), 2);
    }

    #[test]
    fn locks_of_the_store_come_from_its_seam() {
        let body = "use std::sync::{Arc, Weak};\nuse std::sync::Arc;\nuse std::sync::{Arc, OnceLock};\nuse std::sync::atomic::AtomicU64;\nlet a: tokio::sync::Mutex<()>;\nuse std::sync;\n#[cfg(test)]\nmod tests { use std::sync::Mutex; }\n";
        let rule = format!("a lock, atomic or channel that is not of {SEAM}");
        let found: Vec<_> = [4, 5, 6, 7].map(|line| format!("{line} {rule}")).into();
        let mut rules_found = rules("engine/store/src/a.rs", body);
        rules_found.sort();
        assert_eq!(rules_found, found);
        assert_eq!(rules(SEAM, body), [""; 0]);
        assert_eq!(rules("server/src/a.rs", body), [""; 0]);
    }

    #[test]
    fn a_dropped_matches_is_found() {
        let body = "fn f() {\n    matches!(a, Some(b) if b.c());\n    if x { matches!(a, B) } else { y }\n    assert!(matches!(a, B));\n    let z = matches!(a, B);\n}\n";
        assert_eq!(
            rules("a.rs", body),
            ["3 matches! as a statement checks nothing"]
        );
    }

    #[test]
    fn a_file_without_its_head_is_found() {
        let file = File {
            path: "a.rs".to_owned(),
            text: "fn f() {}\n".to_owned(),
        };
        assert_eq!(check(&[file]).len(), 1);
    }
}
