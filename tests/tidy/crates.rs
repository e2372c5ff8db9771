//! Which crate of the workspace may depend on which. Any edge that is not in
//! the table is a finding.
//!
//! Dev-dependencies do not count: tests are built around the product, not into
//! it.

use crate::source::{self, File, Finding};

/// What a crate may depend on. `own` are crates of this workspace, `only` are
/// all the others it may have where that list is closed, `never` those it
/// must not have.
struct CrateRule {
    name: &'static str,
    own: &'static [&'static str],
    only: Option<&'static [&'static str]>,
    never: &'static [&'static str],
}

/// What the engine refuses to know: HTTP, JSON, SQL.
const OUTER_WORLD: &[&str] = &[
    "http",
    "hyper",
    "hyper-util",
    "axum",
    "reqwest",
    "serde_json",
    "sqlx",
];

const CRATES: &[CrateRule] = &[
    CrateRule {
        name: "orlop-format",
        own: &[],
        only: Some(&["blake3", "crc32fast", "sha2", "thiserror"]),
        never: &[],
    },
    CrateRule {
        name: "orlop-disk",
        own: &[],
        only: None,
        never: OUTER_WORLD,
    },
    CrateRule {
        name: "orlop-index",
        own: &["orlop-format"],
        only: None,
        never: OUTER_WORLD,
    },
    CrateRule {
        name: "orlop-engine",
        own: &["orlop-format", "orlop-disk", "orlop-index"],
        only: None,
        never: OUTER_WORLD,
    },
    CrateRule {
        name: "orlop-oci",
        own: &["orlop-format"],
        // base64: descriptors may embed their content.
        only: Some(&["base64", "serde", "serde_json", "thiserror"]),
        never: &[],
    },
    CrateRule {
        name: "orlop",
        own: &[
            "orlop-format",
            "orlop-disk",
            "orlop-index",
            "orlop-engine",
            "orlop-oci",
            // For the command `orlop fsck` alone; the bans hold it there.
            "orlop-fsck",
        ],
        only: None,
        never: &["rocksdb", "tokio-uring"],
    },
    // fsck shares the byte format with the engine, not the code paths.
    CrateRule {
        name: "orlop-fsck",
        own: &["orlop-format", "orlop-oci"],
        only: None,
        never: &["tokio-uring"],
    },
    CrateRule {
        name: "orlop-bench",
        own: &["orlop-format", "orlop-disk", "orlop-index", "orlop-engine"],
        only: None,
        never: &[],
    },
    CrateRule {
        name: "orlop-tests",
        own: &["orlop-format", "orlop-oci", "orlop-figures"],
        only: None,
        never: &[],
    },
    // Every workspace uses it, so it brings nothing along.
    CrateRule {
        name: "orlop-figures",
        own: &[],
        only: Some(&[]),
        never: &[],
    },
    // Workspaces of their own, around the product and never in it.
    CrateRule {
        name: "orlop-sim",
        own: &[
            "orlop",
            "orlop-format",
            "orlop-disk",
            "orlop-index",
            "orlop-engine",
            "orlop-oci",
            "orlop-fsck",
            "orlop-figures",
        ],
        only: None,
        never: &[],
    },
    CrateRule {
        name: "orlop-fuzz",
        own: &[
            "orlop",
            "orlop-format",
            "orlop-disk",
            "orlop-index",
            "orlop-engine",
            "orlop-oci",
            "orlop-fsck",
            "orlop-figures",
        ],
        only: None,
        never: &[],
    },
];

/// The edges between crates, read from each member's Cargo.toml.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"))
    {
        match file.text.parse::<toml::Table>() {
            Ok(manifest) => crate_findings(file, &manifest, &mut findings),
            Err(error) => findings.push(Finding::new(
                &file.path,
                1,
                format!("not a manifest ({})", error.message()),
                "valid TOML",
            )),
        }
    }
    findings
}

fn crate_findings(file: &File, manifest: &toml::Table, findings: &mut Vec<Finding>) {
    let Some(package) = manifest
        .get("package")
        .and_then(|package| package.get("name"))
    else {
        return; // a workspace without a package of its own
    };
    let package = package.as_str().unwrap_or_default();
    let Some(rule) = CRATES.iter().find(|rule| rule.name == package) else {
        let table = "add it to CRATES in tests/tidy/crates.rs with what it may depend on";
        findings.push(Finding::new(
            &file.path,
            1,
            format!("crate {package} has no import rule"),
            table,
        ));
        return;
    };
    for dependency in dependencies(manifest) {
        let own = dependency.starts_with("orlop");
        let allowed = match rule.only {
            _ if own => rule.own.contains(&dependency.as_str()),
            Some(only) => only.contains(&dependency.as_str()),
            None => true,
        };
        if !allowed || rule.never.contains(&dependency.as_str()) {
            let line = source::words(&file.text, &dependency)
                .map(|at| source::line_of(&file.text, at))
                .find(|line| {
                    !file
                        .text
                        .lines()
                        .nth(line - 1)
                        .is_some_and(|l| l.starts_with("name"))
                })
                .unwrap_or(1);
            let instead = format!(
                "hand the value in from above, or change CRATES in tests/tidy/crates.rs by an ADR; {package} may use {:?}",
                rule.own
            );
            findings.push(Finding::new(
                &file.path,
                line,
                format!("{package} may not depend on {dependency}"),
                &instead,
            ));
        }
    }
}

/// The packages that end up in what is built: dependencies of all targets and
/// of build scripts, not those of tests.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut names = Vec::new();
    for table in tables {
        for kind in ["dependencies", "build-dependencies"] {
            for (key, value) in table
                .get(kind)
                .and_then(toml::Value::as_table)
                .into_iter()
                .flatten()
            {
                let package = value.get("package").and_then(toml::Value::as_str);
                names.push(package.unwrap_or(key).to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    fn rules(findings: &[Finding]) -> Vec<&str> {
        findings
            .iter()
            .map(|finding| finding.rule.as_str())
            .collect()
    }

    #[test]
    fn a_forbidden_crate_edge_is_found() {
        let text = "[package]\nname = \"orlop-fsck\"\n[dependencies]\norlop-engine = { workspace = true }\nclap = \"4\"\n";
        let findings = check(&[file("fsck/Cargo.toml", text)]);
        assert_eq!(
            rules(&findings),
            ["orlop-fsck may not depend on orlop-engine"]
        );
        assert_eq!(findings.first().map(|finding| finding.line), Some(4));
    }

    #[test]
    fn renamed_and_target_dependencies_are_seen() {
        let text = "[package]\nname = \"orlop-format\"\n[target.'cfg(unix)'.dependencies]\nd = { package = \"orlop-disk\", path = \"x\" }\n[build-dependencies]\nserde = \"1\"\n[dev-dependencies]\nproptest = \"1\"\n";
        let findings = check(&[file("engine/format/Cargo.toml", text)]);
        assert_eq!(
            rules(&findings),
            [
                "orlop-format may not depend on serde",
                "orlop-format may not depend on orlop-disk"
            ]
        );
    }

    #[test]
    fn the_engine_knows_no_json() {
        let text = "[package]\nname = \"orlop-engine\"\n[dependencies]\nserde_json = \"1\"\n";
        assert_eq!(
            rules(&check(&[file("engine/store/Cargo.toml", text)])),
            ["orlop-engine may not depend on serde_json"]
        );
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        let findings = check(&[file("x/Cargo.toml", "[package]\nname = \"orlop-x\"\n")]);
        assert_eq!(rules(&findings), ["crate orlop-x has no import rule"]);
    }
}
