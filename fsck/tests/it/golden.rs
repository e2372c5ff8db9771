//! One damaged golden store and one expected report for each code.
//!
//! `fsck/tests/golden/CODE.json` is what the program says of the golden store
//! after the recipe of that code. `UPDATE=1` writes the files anew; look at
//! what changed before it is committed.

use std::path::{Path, PathBuf};

use orlop_fsck::{Code, Level, Report};

use crate::support::Folder;
use crate::{recipes, recipes_catalog, recipes_index};

/// Damage for a code: what is done to a copy of the golden store, and with
/// which arguments it is checked.
pub(crate) struct Case {
    pub(crate) code: Code,
    pub(crate) damage: fn(&Folder),
    pub(crate) args: &'static [&'static str],
}

/// A case that is checked without further arguments.
pub(crate) const fn case(code: Code, damage: fn(&Folder)) -> Case {
    Case {
        code,
        damage,
        args: &[],
    }
}

/// Codes that a changed copy of files cannot bring about, and the test that
/// does instead.
const ELSEWHERE: &[(Code, &str)] = &[(
    Code::FileUnreadable,
    "file::tests::a_block_that_the_disk_cannot_read_counts_as_zeros_and_is_reported",
)];

fn cases() -> impl Iterator<Item = &'static Case> {
    recipes::CASES
        .iter()
        .chain(recipes_catalog::CASES)
        .chain(recipes_index::CASES)
}

fn expected(code: Code) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(format!("{code}.json"))
}

#[test]
fn every_code_has_a_case() {
    for code in Code::ALL {
        let count = cases().filter(|case| case.code == *code).count();
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == code);
        assert_eq!(count, usize::from(!elsewhere), "cases of {code}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let code = Code::parse(name.strip_suffix(".json").unwrap());
        assert!(code.is_some(), "{name} belongs to no code");
    }
}

#[test]
fn every_case_gives_the_report_that_is_expected() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for Case { code, damage, args } in cases() {
        let folder = Folder::golden();
        damage(&folder);
        let said = folder.check_with(args);
        let mut report: Report = serde_json::from_value(said.report.clone())
            .unwrap_or_else(|error| panic!("{code}: {error}: {}", said.error));
        let all = report.findings.iter().chain(&report.notes);
        assert!(
            all.clone().any(|finding| finding.code == *code),
            "{code} is not among {:#?}",
            all.collect::<Vec<_>>()
        );
        let unclean = report.findings.iter().any(|f| f.level > Level::Note);
        assert_eq!(said.status, i32::from(unclean), "{code}");
        assert_eq!(report.clean, !unclean, "{code}");
        // What differs from run to run.
        report.folder = "DIR".to_owned();
        report.version = "VERSION".to_owned();
        report.seconds = 0.0;
        let text = serde_json::to_string_pretty(&report).unwrap() + "\n";
        if update {
            std::fs::write(expected(*code), &text).unwrap();
        } else if std::fs::read_to_string(expected(*code)).ok().as_ref() != Some(&text) {
            wrong.push(format!("{code}:\n{text}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "reports are not those in fsck/tests/golden (UPDATE=1 rewrites them): {}",
        wrong.join("\n")
    );
}
