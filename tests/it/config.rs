//! Settings from outside: which source wins, what a wrong one does to a start,
//! and what `orlop config` and `orlop completions` print.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use orlop_tests::server::{Refusal, Setup};
use orlop_tests::{place, tools};
use serde_json::Value;
use tempfile::TempDir;

/// How long a refusal may take.
const SOON: Duration = Duration::from_secs(10);

fn orlop() -> Command {
    let mut command = Command::new(place::binary("orlop"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORLOP_") {
            command.env_remove(name);
        }
    }
    command
}

/// A folder with a file of settings, and room for data beside it.
struct Written {
    folder: TempDir,
}

impl Written {
    fn new(text: &str) -> Written {
        let folder = place::dir();
        fs::write(folder.path().join("orlop.toml"), text).unwrap();
        Written { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("orlop.toml")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A start with this file, which has to be refused and to make nothing.
    fn refused(&self) -> Refusal {
        let refusal = Setup::default()
            .data(self.data())
            .env("ORLOP_CONFIG", self.file().display().to_string())
            .start_refused(SOON);
        assert!(
            !self.data().exists(),
            "a refused start made the data folder"
        );
        refusal
    }

    fn check(&self) -> tools::Ran {
        tools::try_run(
            orlop()
                .args(["config", "check", "--config"])
                .arg(self.file()),
        )
    }
}

fn document(ran: &tools::Ran) -> Value {
    serde_json::from_str(&ran.out)
        .unwrap_or_else(|e| panic!("not one JSON document ({e}): {}{}", ran.out, ran.err))
}

/// What `config show` says: key → (value, origin).
fn shown(command: &mut Command) -> BTreeMap<String, (Value, Value)> {
    let ran = tools::try_run(command.args(["--output", "json"]));
    let report = document(&ran);
    assert!(ran.ok, "{report}");
    let settings = report["settings"].as_array().unwrap().iter();
    settings
        .map(|one| {
            let key = one["key"].as_str().unwrap().to_owned();
            (key, (one["value"].clone(), one["origin"].clone()))
        })
        .collect()
}

#[test]
fn a106_a_wrong_file_stops_the_start_and_names_the_place() {
    for (text, place, words) in [
        // A slip in a key.
        (
            "[gc]\nleese = \"1h\"\n",
            ":2:1",
            &["gc.leese", "did you mean gc.lease?"][..],
        ),
        // A key that never was.
        ("quota = 5\n", ":1:1", &["quota", "config show"]),
        // The flag that is a flag only.
        ("\ninsecure_anonymous = true\n", ":2:1", &["flag only"]),
        // A wrong type.
        (
            "[gc]\nlease = 60\n",
            ":2:9",
            &["gc.lease", "an integer", "\"90s\""],
        ),
        (
            "[push]\nsparse_manifests = \"yes\"\n",
            ":2:20",
            &["push.sparse_manifests", "a string", "true"],
        ),
        ("gc = \"1h\"\n", ":1:6", &["gc", "[gc]"]),
        // A value out of range.
        ("gc.lease = \"1s\"\n", ":1:12", &["gc.lease", "1m to 30d"]),
        (
            "cache.size = \"1KiB\"\n",
            ":1:14",
            &["cache.size", "8MiB or more"],
        ),
        ("drain = \"2h\"\n", ":1:9", &["drain", "0s to 1h"]),
        // A word that is none of those there are.
        (
            "disk.backend = \"tape\"\n",
            ":1:16",
            &["disk.backend", "auto, uring or pool"],
        ),
        ("log.level = \"inof\"\n", ":1:13", &["log.level", "inof"]),
        // Half of a pair.
        (
            "[tls]\nkey = \"k.pem\"\n",
            ":2:7",
            &["tls.key", "without tls.certificate", "set both, or neither"],
        ),
        // Not TOML.
        ("data = \n", ":1:", &["not TOML"]),
        (
            "drain = \"1s\"\ndrain = \"2s\"\n",
            ":2:1",
            &["not TOML", "duplicate"],
        ),
    ] {
        let written = Written::new(text);
        let place = format!("{}{place}", written.file().display());
        written
            .refused()
            .names(&[&[place.as_str()], words].concat());
        // The command finds the same without starting.
        let ran = written.check();
        assert!(!ran.ok && ran.out.contains(&place), "{text}: {}", ran.out);
    }
}

#[test]
fn a106_a_file_that_cannot_be_read_stops_the_start() {
    let written = Written::new("");
    let name = written.file().display().to_string();
    written.check(); // an empty one can be
    fs::remove_file(written.file()).unwrap();
    written
        .refused()
        .names(&[&name, "No such file", "ORLOP_CONFIG"]);
    fs::create_dir(written.file()).unwrap();
    written.refused().names(&[&name, "directory"]);
    fs::remove_dir(written.file()).unwrap();
    fs::write(written.file(), b"data = \"\xff\"").unwrap();
    written.refused().names(&[&format!("{name}:1:9"), "UTF-8"]);
    // The flag wins over the variable for the file, too.
    let ran = tools::try_run(
        orlop()
            .args(["config", "check", "--config", "/nonexistent/by-flag"])
            .env("ORLOP_CONFIG", &name),
    );
    assert!(
        !ran.ok && ran.out.contains("/nonexistent/by-flag"),
        "{}",
        ran.out
    );
}

#[test]
fn a106_a_wrong_flag_or_variable_stops_the_start() {
    let folder = place::dir();
    let data = folder.path().join("data");
    for (flag, value, words) in [
        ("--gc-lease", "1s", &["1m to 30d"][..]),
        ("--space-reserve", "much", &["\"much\"", "512MiB"]),
        ("--tls-certificate", "c.pem", &["without tls.key"]),
        (
            "--server-public-url",
            "registry",
            &["https://registry.example.org"],
        ),
        (
            "--ops-listen",
            "0.0.0.0:0",
            &["127.0.0.1", "--insecure-anonymous"],
        ),
    ] {
        let variable = format!("ORLOP_{}", flag[2..].replace('-', "_").to_uppercase());
        let by_flag = Setup::default().arg(flag).arg(value);
        let by_variable = Setup::default().env(&variable, value);
        for (setup, origin) in [(by_flag, flag), (by_variable, variable.as_str())] {
            let refusal = setup.data(&data).start_refused(SOON);
            refusal.names(&[&[origin], words].concat());
        }
    }
    // A slip in the name of a variable.
    Setup::default()
        .data(&data)
        .env("ORLOP_GC_LEESE", "1h")
        .start_refused(SOON)
        .names(&["ORLOP_GC_LEESE", "did you mean ORLOP_GC_LEASE?"]);
    Setup::default()
        .data(&data)
        .env("ORLOP_INSECURE_ANONYMOUS", "true")
        .start_refused(SOON)
        .names(&["ORLOP_INSECURE_ANONYMOUS", "flag only"]);
    assert!(!data.exists(), "a refused start made the data folder");
}

#[test]
fn a106_every_problem_is_named_at_once() {
    let written = Written::new("quota = 5\ngc.lease = \"soon\"\n[log]\nformat = 1\n");
    let ran = tools::try_run(
        orlop()
            .args(["config", "check", "--output", "json", "--config"])
            .arg(written.file())
            .arg("--drain=2h")
            .env("ORLOP_CACHE_SIZE", "1"),
    );
    let report = document(&ran);
    assert!(!ran.ok && report["ok"] == false);
    let problems = report["problems"].as_array().unwrap();
    let keys: Vec<_> = problems
        .iter()
        .map(|p| p["key"].as_str().unwrap())
        .collect();
    for key in ["quota", "gc.lease", "log.format", "drain", "cache.size"] {
        assert!(keys.contains(&key), "{key} is missing: {report}");
    }
    assert_eq!(problems.len(), 5, "{report}");
    let lease = problems.iter().find(|p| p["key"] == "gc.lease").unwrap();
    assert_eq!(
        lease["origin"]["file"],
        written.file().display().to_string()
    );
    assert_eq!(
        (&lease["origin"]["line"], &lease["origin"]["column"]),
        (&2.into(), &12.into())
    );
    // A start says the same.
    let refusal = written.refused();
    refusal.names(&["quota", "gc.lease", "log.format"]);
}

#[test]
fn variables_of_others_do_not_stop_a_start() {
    let mut server = Setup::default()
        .env("ORLOP_CACHE", "/tmp/cache")
        .env("ORLOP_NO_APT", "1")
        .env("ORLOP_JOBS", "2")
        .env("ORLOP_TEST_SOMETHING", "1")
        .env("ORLOP_PORT", "tcp://10.0.0.1:5000")
        .env("ORLOP_SERVICE_HOST", "10.0.0.1")
        .start();
    server.stop();
    let log = server.log();
    assert!(log.contains("ORLOP_CACHE: is not a setting"), "{log}");
    assert!(log.contains("did you mean ORLOP_CACHE_SIZE?"), "{log}");
}

#[test]
fn a_server_starts_from_its_file_alone() {
    let port = place::port();
    let written = Written::new(&format!(
        "data = \"data\"\nlisten = \"127.0.0.1:{port}\"\nops.listen = \"off\"\n"
    ));
    let server = Setup::default()
        .bare()
        .listen(&format!("127.0.0.1:{port}"))
        .arg("--config")
        .arg(&written.file().display().to_string())
        .start();
    server.client().push_blob("file/repo", b"bytes");
    // A path in the file starts from the file's folder.
    assert!(written.data().join("catalog.db").is_file());
    // Commands that work on the folder find it in the file as well.
    let ran = tools::try_run(
        orlop()
            .args(["catalog", "adopt", "--config"])
            .arg(written.file()),
    );
    assert!(
        !ran.ok && ran.err.contains(&server.pid().to_string()),
        "{}",
        ran.err
    );
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_and_show_says_so() {
    let written = Written::new("drain = \"1s\"\n[gc]\nlease = \"2h\"\nundelete_window = \"3h\"\n");
    let command = || {
        let mut command = orlop();
        command
            .args(["config", "show", "--drain", "4s"])
            .env("ORLOP_CONFIG", written.file())
            .env("ORLOP_DRAIN", "3s")
            .env("ORLOP_GC_LEASE", "5h");
        command
    };
    let settings = shown(&mut command());
    let is = |key: &str, value: &str, kind: &str| {
        let (found, origin) = &settings[key];
        assert_eq!(
            (found, &origin["kind"]),
            (&value.into(), &kind.into()),
            "{key}"
        );
        origin.clone()
    };
    assert_eq!(is("drain", "4s", "flag")["name"], "--drain");
    assert_eq!(is("gc.lease", "5h", "variable")["name"], "ORLOP_GC_LEASE");
    let origin = is("gc.undelete_window", "3h", "file");
    assert_eq!(origin["file"], written.file().display().to_string());
    assert_eq!(origin["line"], 4);
    is("log.level", "info", "default");
    is("ops.listen", "127.0.0.1:5001", "default");
    // The same for people.
    let text = tools::run(&mut command());
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("drain").ends_with("--drain"), "{text}");
    assert!(
        line("gc.undelete_window").ends_with("orlop.toml:4"),
        "{text}"
    );
}

/// The example in the documentation.
fn example() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join("docs/orlop.example.toml")).unwrap()
}

/// Keys of a file and their values, sections flattened.
fn flattened(text: &str) -> BTreeMap<String, toml::Value> {
    let table: toml::Table = text.parse().unwrap();
    let mut keys = BTreeMap::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(section) => {
                keys.extend(
                    section
                        .into_iter()
                        .map(|(key, v)| (format!("{name}.{key}"), v)),
                );
            }
            value => drop(keys.insert(name, value)),
        }
    }
    keys
}

/// Keys of the schema and what it says of each.
fn schema() -> BTreeMap<String, Value> {
    let schema: Value =
        serde_json::from_str(&tools::run(orlop().args(["config", "schema"]))).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let mut keys = BTreeMap::new();
    for (name, value) in schema["properties"].as_object().unwrap() {
        match value["properties"].as_object() {
            Some(section) => {
                assert_eq!(value["additionalProperties"], false, "{name}");
                keys.extend(
                    section
                        .iter()
                        .map(|(key, v)| (format!("{name}.{key}"), v.clone())),
                );
            }
            None => drop(keys.insert(name.clone(), value.clone())),
        }
    }
    keys
}

#[test]
fn the_example_and_the_schema_agree() {
    let example = example();
    let written = Written::new(&example);
    let ran = written.check();
    assert!(ran.ok, "{}", ran.out);
    // Examples of what has no default are commented out.
    let full: String = example
        .lines()
        .map(|line| {
            format!(
                "{}\n",
                line.strip_prefix('#')
                    .filter(|l| !l.starts_with(' '))
                    .unwrap_or(line)
            )
        })
        .collect();
    let written = Written::new(&full);
    let ran = written.check();
    assert!(ran.ok, "{}\n{full}", ran.out);
    let keys = flattened(&full);
    let schema = schema();
    assert!(
        keys.keys().eq(schema.keys()),
        "{:?}\n{:?}",
        keys.keys(),
        schema.keys()
    );
    let settings = shown(
        orlop()
            .args(["config", "show", "--config"])
            .arg(written.file()),
    );
    assert!(
        keys.keys().eq(settings.keys()),
        "{:?}\n{:?}",
        keys.keys(),
        settings.keys()
    );
    for (key, (value, origin)) in &settings {
        // Each key of the example reaches the server.
        assert_eq!(origin["kind"], "file", "{key}");
        assert!(!value.is_null(), "{key}");
        // and has a type that the schema allows.
        let found = match &keys[key] {
            toml::Value::String(_) => "string",
            toml::Value::Integer(_) => "integer",
            toml::Value::Boolean(_) => "boolean",
            toml::Value::Array(_) => "array",
            other => panic!("{key}: {other:?}"),
        };
        let allowed = &schema[key]["type"];
        let listed = |types: &Vec<Value>| types.contains(&found.into());
        assert!(
            *allowed == found || allowed.as_array().is_some_and(listed),
            "{key}: {allowed}"
        );
        if let Some(choices) = schema[key]["enum"].as_array() {
            assert!(
                choices.contains(&keys[key].as_str().unwrap().into()),
                "{key}: {choices:?}"
            );
        }
    }
    // A value that the schema excludes is refused by the server as well.
    for (key, schema) in schema
        .iter()
        .filter(|(_, schema)| schema["type"] == "string")
    {
        let text = format!("{key} = 5\n");
        assert!(!Written::new(&text).check().ok, "{key} {schema}");
    }
}

#[test]
fn completions_name_commands_and_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tools::run(orlop().args(["completions", shell]));
        for word in ["doctor", "completions", "gc-lease", "insecure-anonymous"] {
            assert!(script.contains(word), "{shell}: {word} is missing");
        }
    }
    let ran = tools::try_run(orlop().args(["completions", "cmd"]));
    assert!(!ran.ok && ran.err.contains("bash"), "{}", ran.err);
}

#[test]
fn a_reader_that_goes_early_is_no_failure() {
    let script = "set -o pipefail; \"$1\" config schema | head -c 1 >/dev/null; \"$1\" completions zsh | head -c 1 >/dev/null";
    let ran = tools::try_run(
        Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(place::binary("orlop")),
    );
    assert!(ran.ok && ran.err.is_empty(), "{}", ran.err);
}
