//! What is shipped is built with arithmetic that is checked, and without the
//! bugs that the simulator plants.

use crate::source::{File, Finding};

const WORKSPACE: &str = "Cargo.toml";
const KEY: &str = "overflow-checks";
const INSTEAD: &str = "write overflow-checks = true in [profile.release], and false nowhere";

/// Checks the profiles of the workspace.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let finding = |rule: String| vec![Finding::new(WORKSPACE, 0, rule, INSTEAD)];
    let Some(file) = files.iter().find(|file| file.path == WORKSPACE) else {
        return finding("there is no manifest of the workspace".to_owned());
    };
    let manifest = match file.text.parse::<toml::Table>() {
        Ok(manifest) => toml::Value::Table(manifest),
        Err(error) => return finding(format!("it cannot be read: {error}")),
    };
    let profiles = manifest.get("profile");
    let release = profiles
        .and_then(|profiles| profiles.get("release"))
        .and_then(|release| release.get(KEY));
    if release.and_then(toml::Value::as_bool) != Some(true) {
        return finding(format!("releases are built without {KEY}"));
    }
    match profiles.filter(|profiles| switches_off(profiles)) {
        Some(_) => finding(format!("a profile switches {KEY} off")),
        None => Vec::new(),
    }
}

/// Whether a profile, or what it says of single packages, leaves checks out.
fn switches_off(value: &toml::Value) -> bool {
    let Some(table) = value.as_table() else {
        return false;
    };
    table.iter().any(|(key, value)| match value.as_bool() {
        Some(on) => key == KEY && !on,
        None => switches_off(value),
    })
}

/// The engine's feature that lets bugs be planted, and who may enable it.
const PLANTED: &str = "planted";
const SIMULATOR: &str = "tests/sim/Cargo.toml";

/// Checks that no manifest but the simulator's enables planted bugs, directly
/// or by a feature of its own.
pub(crate) fn planted(files: &[File]) -> Vec<Finding> {
    let manifests = files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.toml") && file.path != SIMULATOR);
    let mut findings = Vec::new();
    for file in manifests {
        for (number, line) in file.text.lines().enumerate() {
            let code = line.split('#').next().unwrap_or_default();
            // What declares it enables nothing.
            if code.contains(PLANTED) && code.trim() != "planted = []" {
                findings.push(Finding::new(
                    &file.path,
                    number + 1,
                    format!("it enables the feature {PLANTED}"),
                    "leave planted bugs to tests/sim",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_enables_planted_bugs_is_found() {
        let count = |path: &str, text: &str| {
            let (path, text) = (path.to_owned(), text.to_owned());
            planted(&[File { path, text }]).len()
        };
        let enables = "orlop-engine = { path = \"x\", features = [\"planted\"] }\n";
        assert_eq!(count("server/Cargo.toml", enables), 1);
        assert_eq!(
            count("engine/store/Cargo.toml", "default = [\"planted\"]\n"),
            1
        );
        assert_eq!(count("engine/store/Cargo.toml", "planted = []\n"), 0);
        assert_eq!(count("tests/sim/Cargo.toml", enables), 0);
    }

    fn count(text: &str) -> usize {
        let file = File {
            path: WORKSPACE.to_owned(),
            text: text.to_owned(),
        };
        check(&[file]).len()
    }

    #[test]
    fn releases_without_checks_are_found() {
        assert_eq!(count("[profile.release]\noverflow-checks = true\n"), 0);
        assert_eq!(count("[profile.release]\ndebug = true\n"), 1);
        assert_eq!(count("[profile.release]\noverflow-checks = false\n"), 1);
        assert_eq!(count("[package]\nname = \"a\"\n"), 1);
        let some = "[profile.release]\noverflow-checks = true\n\
            [profile.release.package.b]\noverflow-checks = false\n";
        assert_eq!(count(some), 1);
        let derived = "[profile.release]\noverflow-checks = true\n\
            [profile.fast]\ninherits = \"release\"\noverflow-checks = false\n";
        assert_eq!(count(derived), 1);
        assert_eq!(check(&[]).len(), 1);
    }
}
