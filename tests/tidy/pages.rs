//! The documentation hangs together: every page below docs/ can be reached by
//! links from README.md, and every relative link leads to something.

use std::collections::BTreeSet;

use crate::source::{File, Finding};

const START: &str = "README.md";

/// Checks links and reachability. `paths` are all files and folders there are.
pub(crate) fn check(files: &[File], paths: &BTreeSet<String>) -> Vec<Finding> {
    let pages: Vec<&File> = files
        .iter()
        .filter(|file| file.path.ends_with(".md"))
        .collect();
    let mut findings = Vec::new();
    if !pages.iter().any(|page| page.path == START) {
        let rule = "the page that all others hang from is missing".to_owned();
        findings.push(Finding::new(START, 1, rule, "write it"));
    }
    for page in &pages {
        for link in links(&page.text) {
            let target = resolve(&page.path, &link.target);
            if !target
                .as_ref()
                .is_some_and(|target| target.is_empty() || paths.contains(target))
            {
                let rule = format!("the link {} leads nowhere", link.target);
                let instead = "link to a path relative to this page, inside the repository";
                findings.push(Finding::new(&page.path, link.line, rule, instead));
            }
        }
    }
    let reached = reachable(&pages);
    for page in pages.iter().filter(|page| page.path.starts_with("docs/")) {
        if !reached.contains(&page.path) {
            let rule = format!("no chain of links leads here from {START}");
            let instead =
                "link it from README.md or from a page that README.md links, or delete it";
            findings.push(Finding::new(&page.path, 1, rule, instead));
        }
    }
    findings
}

/// The pages one can click to from the start. A link to a folder is a link to
/// its README.md.
fn reachable(pages: &[&File]) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![START.to_owned()];
    while let Some(path) = next.pop() {
        let Some(page) = pages.iter().find(|page| page.path == path) else {
            continue;
        };
        if reached.insert(path.clone()) {
            for target in links(&page.text)
                .iter()
                .filter_map(|link| resolve(&path, &link.target))
            {
                next.push(format!("{target}/README.md"));
                next.push(target);
            }
        }
    }
    reached
}

struct Link {
    line: usize,
    target: String,
}

/// The relative links of a page: `[text](target)` and `[name]: target`,
/// outside code.
fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    let mut fence: Option<&str> = None;
    for (number, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(_)) => fence = mark,
            (Some(open), Some(close)) if open == close => fence = None,
            (None, None) => {
                let targets = inline_targets(line)
                    .into_iter()
                    .chain(reference_target(start));
                let local = targets.filter(|target| is_relative(target));
                found.extend(local.map(|target| Link {
                    line: number + 1,
                    target,
                }));
            }
            _ => {}
        }
    }
    found
}

fn inline_targets(line: &str) -> Vec<String> {
    // What stands between backticks is no link.
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    prose
        .split("](")
        .skip(1)
        .filter_map(|after| after.split([')', ' ']).next())
        .map(|target| target.trim_matches(['<', '>']).to_owned())
        .collect()
}

fn reference_target(line: &str) -> Option<String> {
    let (_, target) = line.strip_prefix('[')?.split_once("]: ")?;
    target.split_whitespace().next().map(str::to_owned)
}

fn is_relative(target: &str) -> bool {
    !target.starts_with('#') && !target.contains("://") && !target.starts_with("mailto:")
}

/// The path from the root that a link in a page means; None when it leaves the
/// repository or starts at the file system's root.
fn resolve(page: &str, target: &str) -> Option<String> {
    let target = target.split(['#', '?']).next().unwrap_or_default();
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(pages: &[(&str, &str)]) -> Vec<String> {
        let file = |&(path, text): &(&str, &str)| File {
            path: path.into(),
            text: text.into(),
        };
        let files: Vec<File> = pages.iter().map(file).collect();
        let mut paths: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
        paths.insert("docs/adr".to_owned());
        check(&files, &paths)
            .iter()
            .map(|f| format!("{}:{} {}", f.path, f.line, f.rule))
            .collect()
    }

    #[test]
    fn a_chain_of_links_is_enough() {
        let pages = [
            (
                "README.md",
                "[a](docs/a.md#top) [out](https://example.org/x.md)\n```\n[no](nowhere.md)\n```\n`[no](x.md)`\n",
            ),
            (
                "docs/a.md",
                "see [the decisions][d] and [up](../README.md)\n\n[d]: adr/\n",
            ),
            ("docs/adr/README.md", "[one](0001.md)"),
            ("docs/adr/0001.md", "text"),
        ];
        assert_eq!(findings(&pages), [""; 0]);
    }

    #[test]
    fn an_unlinked_page_is_found() {
        let pages = [
            ("README.md", "nothing"),
            ("docs/a.md", "[b](b.md)"),
            ("docs/b.md", "[a](a.md)"),
        ];
        assert_eq!(
            findings(&pages),
            [
                "docs/a.md:1 no chain of links leads here from README.md",
                "docs/b.md:1 no chain of links leads here from README.md"
            ]
        );
    }

    #[test]
    fn a_broken_link_is_found() {
        let pages = [(
            "README.md",
            "x\n[a](docs/a.md) ![p](p.png)\n[r]: ../outside.md\n[s](/etc/x)",
        )];
        assert_eq!(
            findings(&pages),
            [
                "README.md:2 the link docs/a.md leads nowhere",
                "README.md:2 the link p.png leads nowhere",
                "README.md:3 the link ../outside.md leads nowhere",
                "README.md:4 the link /etc/x leads nowhere"
            ]
        );
    }

    #[test]
    fn a_missing_start_is_found() {
        let missing = "README.md:1 the page that all others hang from is missing";
        assert_eq!(findings(&[]), [missing]);
    }
}
