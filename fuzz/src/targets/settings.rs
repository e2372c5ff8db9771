//! Settings: flags, variables and a file, of one input.
//!
//! The input is three parts with a zero byte between: lines of flags, lines
//! `NAME=value` of variables, the file. Reading is total and says the same
//! twice. What is accepted, shown and given as flags again, is the same; a flag
//! wins over a variable, that over the file. Whatever is wrong names a place
//! that is there, and never says what stands where a secret can: in variables
//! that are no settings, under keys that are none, in an address's credentials.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use orlop::settings::fuzzing::Start;
use orlop::settings::{Loaded, Origin, Problem};

/// Stands for any secret.
const SECRET: &str = "hunter2-secret";

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let flags = parts.next().unwrap_or_default();
    let variables = parts.next().unwrap_or_default();
    let file = parts.next();
    let folder = tempfile::tempdir_in(crate::corpus::scratch()).unwrap();
    let path = folder.path().join("orlop.toml");
    if let Some(file) = file {
        std::fs::write(&path, file).unwrap();
    }
    let start = Start {
        flags: lines(flags)
            // They end a real program with a page of their own.
            .filter(|flag| !matches!(flag.as_slice(), b"-h" | b"--help" | b"-V" | b"--version"))
            .filter(|flag| !flag.starts_with(b"--config"))
            .map(OsString::from_vec)
            .collect(),
        variables: lines(variables)
            .filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b'=')?;
                let (name, value) = line.split_at(at);
                (name != b"ORLOP_CONFIG").then(|| {
                    let value = OsString::from_vec(value[1..].to_vec());
                    (OsString::from_vec(name.to_vec()), value)
                })
            })
            .collect(),
        file: path,
        folder: PathBuf::from("/work"),
    };
    let Ok(loaded) = start.load() else {
        return;
    };
    let again = start.load().unwrap();
    assert_eq!(loaded.problems, again.problems);
    assert_eq!(loaded.unchecked(), again.unchecked());
    assert_eq!(loaded.checked().is_ok(), loaded.problems.is_empty());
    places(&loaded, file.unwrap_or_default());
    secrets(&start, &loaded, file.unwrap_or_default());
    precedence(&start, &loaded);
    shown(&start, &loaded);
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
}

fn all(loaded: &Loaded) -> impl Iterator<Item = &Problem> {
    loaded.problems.iter().chain(&loaded.notes)
}

fn places(loaded: &Loaded, file: &[u8]) {
    let lines = file.iter().filter(|byte| **byte == b'\n').count() + 1;
    for problem in all(loaded) {
        if let Origin::File(_, Some(at)) = &problem.origin {
            assert!((1..=lines).contains(&at.line), "{problem}");
            assert!((1..=file.len() + 1).contains(&at.column), "{problem}");
        }
    }
}

/// Where a secret can stand without a setting being meant, it is never said.
fn secrets(start: &Start, loaded: &Loaded, file: &[u8]) {
    let known: BTreeSet<&str> = loaded.show().iter().map(|shown| shown.key).collect();
    let has = |text: &OsString| text.to_string_lossy().contains(SECRET);
    // Said on purpose: the value of a setting, and names that are not known.
    let of_setting = |name: &OsString| {
        let name = name.to_string_lossy().to_lowercase();
        known
            .iter()
            .any(|key| name == format!("orlop_{}", key.replace('.', "_")))
    };
    let by_variable = start.variables.iter().any(|(name, value)| {
        has(name)
            || (of_setting(name)
                && has(value)
                && !(name == "ORLOP_SERVER_PUBLIC_URL" && credentials(value)))
    });
    let by_flag = start
        .flags
        .iter()
        .any(|flag| has(flag) && !credentials(flag));
    if by_variable || by_flag || by_file(file, &known) {
        return;
    }
    for problem in all(loaded) {
        let text = problem.to_string();
        assert!(!text.contains(SECRET), "a secret is told: {text}");
    }
}

/// Whether all of the secret stands before the host of the public address.
fn credentials(text: &OsString) -> bool {
    let text = text.to_string_lossy();
    let of_address = ["--server-public-url=", "http"]
        .iter()
        .any(|start| text.starts_with(start));
    of_address
        && text
            .split(SECRET)
            .skip(1)
            .all(|after| after.starts_with('@'))
        && text.contains("://")
}

/// Whether the file says the secret where it may be said.
fn by_file(file: &[u8], known: &BTreeSet<&str>) -> bool {
    fn walk(table: &toml::Table, section: &str, known: &BTreeSet<&str>) -> bool {
        table.iter().any(|(name, value)| {
            let key = format!("{section}{name}");
            let is_section = known
                .iter()
                .any(|known| known.starts_with(&format!("{key}.")));
            name.contains(SECRET)
                || match value {
                    toml::Value::Table(table) if section.is_empty() && is_section => {
                        walk(table, &format!("{key}."), known)
                    }
                    toml::Value::String(text) if key == "server.public_url" => {
                        text.contains(SECRET) && !credentials(&text.into())
                    }
                    value => known.contains(key.as_str()) && format!("{value:?}").contains(SECRET),
                }
        })
    }
    let Ok(text) = std::str::from_utf8(file) else {
        return false;
    };
    text.parse::<toml::Table>()
        .is_ok_and(|table| walk(&table, "", known))
}

/// The strongest source of a value is the one it is said to come from.
fn precedence(start: &Start, loaded: &Loaded) {
    if loaded.checked().is_err() {
        return;
    }
    for shown in loaded.show() {
        let flag = format!("--{}", shown.key.replace(['.', '_'], "-"));
        let variable = format!("ORLOP_{}", shown.key.replace('.', "_").to_uppercase());
        let by_flag = start.flags.iter().any(|text| {
            let text = text.to_string_lossy();
            text == flag
                || text
                    .strip_prefix(&flag)
                    .is_some_and(|rest| rest.starts_with('='))
        });
        let by_variable = start.variables.iter().any(|(name, _)| *name == *variable);
        match &shown.origin {
            Origin::Flag(name) => assert_eq!(*name, flag),
            Origin::Variable(name) => assert!(*name == variable && !by_flag),
            Origin::File(..) | Origin::Default => assert!(!by_flag && !by_variable),
        }
    }
}

/// What is shown can be given again.
fn shown(start: &Start, loaded: &Loaded) {
    let Ok(settings) = loaded.checked() else {
        return;
    };
    let mut flags = vec![OsString::from("--insecure-anonymous")];
    for shown in loaded.show() {
        // What is unset is shown in words.
        let is_unset = shown.value.is_null() || shown.text == "none";
        if shown.origin != Origin::Default && !is_unset {
            let flag = shown.key.replace(['.', '_'], "-");
            flags.push(format!("--{flag}={}", shown.text).into());
        }
    }
    // A path need not be text, and then cannot be shown as it is.
    if flags
        .iter()
        .any(|flag| flag.to_string_lossy().contains('\u{fffd}'))
    {
        return;
    }
    let again = Start {
        flags: flags.clone(),
        variables: Vec::new(),
        file: start.file.with_extension("none"),
        folder: start.folder.clone(),
    };
    let again = match again.load() {
        Ok(again) => again,
        Err(error) => panic!("{flags:?}: {error}"),
    };
    match again.checked() {
        Ok(again) => assert_eq!(again, settings, "{flags:?}"),
        Err(error) => panic!("{flags:?}: {error}"),
    }
}
