//! Which module of the server may import which, and which crates it must not
//! name. Any edge that is not in the table is a finding.
//!
//! Test code may look further. Paths are read from tokens: `crate::…`, grouped
//! imports and chains of `super`; what a macro makes is not seen.

use crate::source::{self, File, Finding};

/// What a module of the server may import: modules of the server, and crates
/// it must not name. Modules not listed put the others together.
struct ModuleRule {
    name: &'static str,
    modules: &'static [&'static str],
    never: &'static [&'static str],
    instead: &'static str,
}

const MODULES: &[ModuleRule] = &[
    ModuleRule {
        name: "api",
        modules: &["registry", "layers", "health", "metrics", "settings"],
        never: &["orlop_engine", "orlop_index", "orlop_disk", "sqlx"],
        instead: "make one typed call to registry/, or re-export the type there",
    },
    ModuleRule {
        name: "registry",
        modules: &["catalog", "access", "metrics", "settings"],
        never: &[
            "orlop_index",
            "orlop_disk",
            "sqlx",
            "http",
            "hyper",
            "hyper_util",
            "http_body_util",
        ],
        instead: "return a value and let api/ turn it into HTTP",
    },
    ModuleRule {
        name: "catalog",
        modules: &["metrics", "supervisor"],
        never: &[
            "orlop_engine",
            "orlop_index",
            "orlop_disk",
            "http",
            "hyper",
            "hyper_util",
        ],
        instead: "take what is needed as an argument: the catalog knows names, not bytes or HTTP",
    },
    ModuleRule {
        name: "jobs",
        modules: &["catalog", "metrics", "supervisor"],
        never: &[
            "orlop_index",
            "orlop_disk",
            "sqlx",
            "http",
            "hyper",
            "hyper_util",
        ],
        instead: "take what a kind of job needs as an argument; settings and storage give it",
    },
    ModuleRule {
        name: "collection",
        modules: &["catalog", "jobs", "metrics", "registry"],
        never: &[
            "orlop_index",
            "orlop_disk",
            "sqlx",
            "http",
            "hyper",
            "hyper_util",
        ],
        instead: "ask the catalog for rows and the store for blobs; settings come as Rules",
    },
    ModuleRule {
        name: "access",
        modules: &["catalog", "metrics", "settings"],
        never: &[
            "orlop_engine",
            "orlop_index",
            "orlop_disk",
            "sqlx",
            "http",
            "hyper",
            "hyper_util",
        ],
        instead: "take the decision from typed values; api/ reads the headers",
    },
];

const SERVER: &str = "server/src/";

/// The edges between modules of the server.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let test_paths = source::test_paths(files);
    let mut findings = Vec::new();
    for file in files {
        let Some(inner) = file
            .path
            .strip_prefix(SERVER)
            .filter(|path| path.ends_with(".rs"))
        else {
            continue;
        };
        let module = inner.split(['/', '.']).next().unwrap_or_default();
        let Some(rule) = MODULES.iter().find(|rule| rule.name == module) else {
            continue;
        };
        if source::is_test_path(&file.path, &test_paths) {
            continue;
        }
        let code = source::shipped_code(&file.text);
        for (at, target) in root_paths(&code, module_depth(inner)) {
            if target != module && !rule.modules.contains(&target.as_str()) {
                let line = source::line_of(&code, at);
                let text = format!("{module} may not import crate::{target}");
                findings.push(Finding::new(&file.path, line, text, rule.instead));
            }
        }
        for name in rule.never {
            for at in crate_uses(&code, name) {
                let line = source::line_of(&code, at);
                let text = format!("{module} may not use the crate {name}");
                findings.push(Finding::new(&file.path, line, text, rule.instead));
            }
        }
    }
    findings
}

/// How many `super` lead from a file of server/src to the crate's root.
fn module_depth(inner: &str) -> usize {
    let parts = inner.split('/').count();
    if inner.ends_with("/mod.rs") {
        parts - 1
    } else {
        parts
    }
}

/// First segments of the paths that start at the crate's root, by `crate::` or
/// by as many `super::` as the file is deep.
fn root_paths(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in source::words(code, "crate") {
        let rest = code.get(at + "crate".len()..).unwrap_or_default();
        found.extend(
            first_segments(rest)
                .into_iter()
                .map(|segment| (at, segment)),
        );
    }
    for at in source::words(code, "super") {
        let before = code.get(..at).unwrap_or_default().trim_end();
        if before.ends_with("::") {
            continue; // counted from the first of the chain
        }
        let mut rest = code.get(at..).unwrap_or_default();
        let mut climbed = 0;
        while let Some(after) = rest.strip_prefix("super") {
            climbed += 1;
            if climbed == depth {
                found.extend(
                    first_segments(after)
                        .into_iter()
                        .map(|segment| (at, segment)),
                );
            }
            rest = after
                .trim_start()
                .strip_prefix("::")
                .unwrap_or_default()
                .trim_start();
        }
    }
    found
}

/// The first names of `::name…` or `::{name…, name…}`.
fn first_segments(rest: &str) -> Vec<String> {
    let Some(path) = rest.trim_start().strip_prefix("::") else {
        return Vec::new();
    };
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        return leading_word(path)
            .into_iter()
            .filter(|word| word != "super")
            .collect();
    };
    let mut segments = Vec::new();
    let mut depth = 1_usize;
    let mut fresh = true;
    let mut rest = group;
    while let Some(c) = rest.chars().next() {
        if fresh && depth == 1 && source::is_word(c) {
            segments.extend(leading_word(rest));
            fresh = false;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            _ => {}
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    segments
}

fn leading_word(text: &str) -> Option<String> {
    let end = text.find(|c| !source::is_word(c)).unwrap_or(text.len());
    text.get(..end)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
}

/// Where a crate is named as a crate: `name::…`, `use name`, `extern crate name`.
pub(crate) fn crate_uses<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    source::words(code, name).filter(move |&at| {
        let before = code.get(..at).unwrap_or_default().trim_end();
        let after = code.get(at + name.len()..).unwrap_or_default().trim_start();
        let inside_path = before
            .strip_suffix("::")
            .is_some_and(|b| b.ends_with(source::is_word));
        let imported = ["use", "crate"].iter().any(|word| before.ends_with(word));
        !inside_path && (after.starts_with("::") || imported)
    })
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
    fn forbidden_module_edges_are_found() {
        let api = "use crate::registry::Blob;\nuse crate::{\n    settings::{Limits, catalog},\n    catalog::Row,\n};\n";
        let findings = check(&[file("server/src/api/blobs.rs", api)]);
        assert_eq!(rules(&findings), ["api may not import crate::catalog"]);

        let climb = "use super::super::api;\nuse super::row;\n";
        let findings = check(&[file("server/src/catalog/read.rs", climb)]);
        assert_eq!(rules(&findings), ["catalog may not import crate::api"]);
        let findings = check(&[file("server/src/catalog/mod.rs", "use super::registry;\n")]);
        assert_eq!(rules(&findings), ["catalog may not import crate::registry"]);
    }

    #[test]
    fn forbidden_crates_in_modules_are_found() {
        let text = "//! orlop_engine::Store\nfn f(s: &orlop_engine::Store) {}\nuse sqlx;\n";
        let findings = check(&[file("server/src/api/uploads.rs", text)]);
        assert_eq!(
            rules(&findings),
            [
                "api may not use the crate orlop_engine",
                "api may not use the crate sqlx"
            ]
        );
        let findings = check(&[file(
            "server/src/registry/blob.rs",
            "use http::StatusCode;\n",
        )]);
        assert_eq!(rules(&findings), ["registry may not use the crate http"]);
    }

    #[test]
    fn allowed_edges_and_tests_are_left_alone() {
        let api = "use crate::api::wire;\nuse crate::registry;\nuse crate::{health, metrics};\n#[cfg(test)]\nmod tests { use crate::catalog::Catalog; }\n";
        assert_eq!(check(&[file("server/src/api/tags.rs", api)]), []);
        let registry =
            "use crate::catalog::Catalog;\nuse orlop_engine::Store;\nuse orlop_oci::Name;\n";
        assert_eq!(check(&[file("server/src/registry/tag.rs", registry)]), []);
        assert_eq!(
            check(&[file("server/src/listen.rs", "use crate::{api, catalog};")]),
            []
        );
    }
}
