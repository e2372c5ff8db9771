//! docs/format.md describes the bytes that engine/format writes. The page
//! carries a hash of that code: who changes the code must read the page again.
//!
//! Comments, layout and tests do not count, values in literals do.

use crate::source::{self, File, Finding, Literals};

const PAGE: &str = "docs/format.md";
const CODE: &str = "engine/format/src/";
const MARK: &str = "<!-- engine/format: ";

/// Checks that the page's hash is the code's.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let hash = hash(files);
    let line = format!("{MARK}{hash} -->");
    let instead =
        format!("read {PAGE} against the change, correct it, then set its line to {line}");
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        return vec![Finding::new(
            PAGE,
            1,
            "the page is missing".to_owned(),
            &instead,
        )];
    };
    let marks: Vec<(usize, &str)> = page
        .text
        .lines()
        .enumerate()
        .filter(|(_, text)| text.starts_with(MARK))
        .collect();
    match marks.as_slice() {
        [(_, found)] if *found == line => Vec::new(),
        [(at, _)] => {
            let rule = format!("{CODE} has changed since this page was last read");
            vec![Finding::new(PAGE, at + 1, rule, &instead)]
        }
        _ => {
            let rule = format!("{} lines start with {MARK:?}, one is wanted", marks.len());
            vec![Finding::new(PAGE, 1, rule, &instead)]
        }
    }
}

/// The hash of the code that ships, file by file in the order of their paths.
fn hash(files: &[File]) -> String {
    let test_paths = source::test_paths(files);
    let mut sources: Vec<&File> = files
        .iter()
        .filter(|file| file.path.starts_with(CODE) && file.path.ends_with(".rs"))
        .filter(|file| !source::is_test_path(&file.path, &test_paths))
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = blake3::Hasher::new();
    for file in sources {
        let kept = source::code(&file.text, Literals::Keep);
        let blanked = source::code(&file.text, Literals::Blank);
        let shipped = source::without_tests(&kept, &blanked);
        hasher.update(file.path.as_bytes());
        hasher.update(b"\0");
        hasher.update(without_layout(&shipped).as_bytes());
        hasher.update(b"\0");
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

/// The text without what rustfmt puts in and takes out: white space, and the
/// comma behind the last of a list.
fn without_layout(code: &str) -> String {
    let mut dense: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    for close in [")", "]", "}"] {
        dense = dense.replace(&format!(",{close}"), close);
    }
    dense
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(code: &str, page: &str) -> Vec<File> {
        vec![
            File {
                path: "engine/format/src/lib.rs".to_owned(),
                text: code.to_owned(),
            },
            File {
                path: PAGE.to_owned(),
                text: page.to_owned(),
            },
        ]
    }

    #[test]
    fn only_what_ships_counts() {
        let base = hash(&with("const A: &[u8] = b\"AB\";", ""));
        let same = "// why\nconst A:  &[u8] =\n  b\"AB\";\n#[cfg(test)]\nmod tests { fn f() {} }\n";
        assert_eq!(base, hash(&with(same, "")));
        let short = hash(&with("fn f() { g(a, b) }", ""));
        let long = "fn f() {\n    g(\n        a,\n        b,\n    )\n}\n";
        assert_eq!(short, hash(&with(long, "")));
        assert_ne!(base, hash(&with("const A: &[u8] = b\"AC\";", "")));
        assert_ne!(base, hash(&with("const B: &[u8] = b\"AB\";", "")));
    }

    #[test]
    fn a_stale_page_is_found() {
        let code = "const WIDTH: usize = 8;";
        let page = format!("# Format\n{MARK}{} -->\n", hash(&with(code, "")));
        assert_eq!(check(&with(code, &page)), []);

        let findings = check(&with("const WIDTH: usize = 9;", &page));
        assert_eq!(findings.first().map(|finding| finding.line), Some(2));
        let fresh = hash(&with("const WIDTH: usize = 9;", ""));
        assert!(
            findings
                .iter()
                .all(|finding| finding.instead.contains(&fresh)),
            "{findings:?}"
        );
    }

    #[test]
    fn a_page_without_its_line_is_found() {
        assert_eq!(check(&with("", "# Format\n")).len(), 1);
        assert_eq!(
            check(&with("", &format!("{MARK}a -->\n{MARK}a -->\n"))).len(),
            1
        );
        assert_eq!(check(&[]).len(), 1);
    }
}
