//! docs/hazards.md names tests that exist.

use std::collections::BTreeSet;

use crate::source::{File, Finding};

const PAGE: &str = "docs/hazards.md";

/// Checks that every row of every table ends in names of test functions.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        let rule = "the page of hazards is missing".to_owned();
        return vec![Finding::new(PAGE, 0, rule, "write it")];
    };
    let tests = tests(files);
    let mut findings = Vec::new();
    for (number, line) in page.text.lines().enumerate() {
        let Some(cell) = guards(line) else { continue };
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            let rule = "a hazard that no test guards".to_owned();
            findings.push(Finding::new(PAGE, number + 1, rule, "name the test"));
        }
        for name in names.iter().filter(|name| !tests.contains(**name)) {
            findings.push(Finding::new(
                PAGE,
                number + 1,
                format!("no test is called {name}"),
                "name one that exists",
            ));
        }
    }
    findings
}

/// The last cell of a table's row, unless it is its head.
fn guards(line: &str) -> Option<&str> {
    let cells: Vec<_> = line
        .strip_prefix('|')?
        .strip_suffix('|')?
        .split('|')
        .collect();
    let cell = cells.last()?.trim();
    (cell != "guarded by" && !cell.starts_with("---")).then_some(cell)
}

/// The functions that follow a line with a test attribute, and the cases of a
/// `suite!`.
fn tests(files: &[File]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let mut marked = false;
        let mut suite = false;
        for line in file.text.lines().map(str::trim_start) {
            suite = line == "suite!(" || suite && line != ");";
            if suite {
                names.extend(line.trim_end_matches(',').rsplit("::").next());
            } else if line.starts_with("#[") {
                marked |= line.contains("test");
            } else if let Some(rest) = line.split("fn ").nth(1) {
                if marked {
                    names.extend(rest.split(['(', '<']).next());
                }
                marked = false;
            } else if !line.starts_with("//") {
                marked = false;
            }
        }
    }
    names
}

#[cfg(test)]
mod tests_of_the_check {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_hazard_needs_a_test_that_exists() {
        let code = file("a.rs", "#[test]\nfn guarded() {}\nfn plain() {}\n");
        let count = |row: &str| {
            let head = "| hazard | prevented by | guarded by |\n| --- | --- | --- |\n";
            let page = file(PAGE, &format!("{head}{row}\n"));
            check(&[page, file("a.rs", &code.text)]).len()
        };
        assert_eq!(count("| a | b | `guarded` |"), 0);
        assert_eq!(count("| a | b | `plain`, `guarded` |"), 1);
        assert_eq!(count("| a | b | later |"), 1);
        assert_eq!(check(&[]).len(), 1);
    }
}
