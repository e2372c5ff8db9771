//! The table in trace.md is whole: every duty has a number, and every test it
//! names is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("trace.md");

/// How often each key word stands in the specification.
const KEY_WORDS: [(&str, usize); 4] = [
    ("MUST", 109),
    ("MUST NOT", 9),
    ("SHOULD", 48),
    ("SHOULD NOT", 8),
];
const DUTY: &str = "| # | section | key word | what it asks | of whom | tests |";
const CODE: &str = "| code | tests |";

/// The rows of the table below this head.
fn rows(page: &str, head: &str) -> Vec<Vec<String>> {
    let mut lines = page.lines().skip_while(|line| *line != head);
    assert!(lines.next().is_some(), "there is no table {head}");
    assert!(lines.next().is_some_and(|line| line.starts_with("|-")));
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let inner = line.trim_matches('|');
            inner
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

/// What is written between backticks and names a test.
fn named(cell: &str) -> Vec<&str> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter(|text| text.contains("::")).collect()
}

/// The tests of a source: functions marked as such, and listed scenarios.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some((_, after)) = line.split_once("fn ").filter(|_| marked) {
            let end = after.find(|c: char| !c.is_alphanumeric() && c != '_');
            found.insert(after[..end.unwrap_or(after.len())].to_owned());
            marked = false;
        }
    }
    let lists = source.split("\nscenarios![").skip(1);
    let names = lists.filter_map(|rest| rest.split(']').next());
    found.extend(
        names
            .flat_map(|list| list.split(','))
            .map(|name| name.trim().to_owned()),
    );
    found
}

/// The file that a name leads to, and the test in it: `blobs::mount` in this
/// folder, `tests/it/errors.rs::name` in the repository.
fn place(name: &str) -> (PathBuf, &str) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (module, test) = name.rsplit_once("::").unwrap();
    let file = match module.ends_with(".rs") {
        true => tests.join("..").join(module),
        false => tests.join(format!("conformance/{module}.rs")),
    };
    (file, test)
}

fn exists(name: &str, read: &mut BTreeMap<PathBuf, BTreeSet<String>>) -> bool {
    let (file, test) = place(name);
    let tests = read.entry(file.clone()).or_insert_with(|| {
        std::fs::read_to_string(&file).map_or_else(|_| BTreeSet::new(), |text| tests_in(&text))
    });
    tests.contains(test)
}

#[test]
fn every_duty_has_a_number_and_a_test_that_exists() {
    let mut read = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut counted = BTreeMap::new();
    for (index, row) in rows(PAGE, DUTY).iter().enumerate() {
        let number = index + 1;
        assert_eq!(row.len(), 6, "row {number} has other columns: {row:?}");
        assert_eq!(row[0], number.to_string(), "numbers follow each other");
        *counted.entry(row[2].clone()).or_insert(0) += 1;
        if row.iter().any(String::is_empty) || named(&row[5]).is_empty() {
            wrong.push(format!("row {number} has an empty cell or no test"));
        }
        if !["registry", "client", "both", "reader"].contains(&row[4].as_str()) {
            wrong.push(format!("row {number} binds {:?}", row[4]));
        }
        let lost = named(&row[5]).into_iter().filter(|n| !exists(n, &mut read));
        wrong.extend(lost.map(|name| format!("row {number}: there is no test {name}")));
    }
    let expected: BTreeMap<String, usize> = KEY_WORDS
        .map(|(word, count)| (word.to_owned(), count))
        .into();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(counted, expected, "rows of each key word");
}

#[test]
fn every_code_has_a_test_or_a_reason() {
    let mut read = BTreeMap::new();
    let codes = rows(PAGE, CODE);
    assert_eq!(codes.len(), 14);
    for row in codes {
        let names = named(&row[1]);
        let reason = row[1].starts_with("none yet: ");
        assert!(reason == names.is_empty(), "{}: a test or a reason", row[0]);
        for name in names {
            assert!(
                exists(name, &mut read),
                "{}: there is no test {name}",
                row[0]
            );
        }
    }
}

#[test]
fn a_row_that_lies_is_found() {
    let page = format!("x\n{DUTY}\n|--|\n| 1 | a | MUST | b | registry | `a::b`, `c` |\n\nx");
    let rows = rows(&page, DUTY);
    assert_eq!(rows.len(), 1);
    assert_eq!(named(&rows[0][5]), ["a::b"]);
    let tests =
        tests_in("#[test]\nfn one() {}\nfn two() {}\nscenarios![three,\n four];\nscenarios![five]");
    let names: Vec<&str> = tests.iter().map(String::as_str).collect();
    assert_eq!(names, ["five", "four", "one", "three"]);
    let mut read = BTreeMap::new();
    assert!(exists("trace::a_row_that_lies_is_found", &mut read));
    assert!(exists(
        "tests/it/errors.rs::every_refusal_is_the_specifications_document",
        &mut read
    ));
    assert!(!exists("trace::exists", &mut read));
    assert!(!exists("nowhere::at_all", &mut read));
}
