//! The operator's commands, and the names that scripts rest on.

use std::process::Command;

use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, place, tools};
use serde_json::Value;

fn orlop() -> Command {
    let mut command = Command::new(place::binary("orlop"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORLOP_") {
            command.env_remove(name);
        }
    }
    command
}

/// The one JSON document a command prints.
fn document(ran: &tools::Ran) -> Value {
    serde_json::from_str(&ran.out)
        .unwrap_or_else(|e| panic!("not one JSON document ({e}): {}{}", ran.out, ran.err))
}

#[test]
fn version_prints_one_line_or_one_document() {
    let version = env!("CARGO_PKG_VERSION");
    let text = tools::run(orlop().arg("version"));
    assert!(text.contains(version), "{text}");
    let ran = tools::try_run(orlop().args(["version", "--output", "json"]));
    assert!(ran.ok);
    assert_eq!(document(&ran)["version"], version);
}

#[test]
fn help_names_the_commands_and_an_unknown_one_fails() {
    let help = tools::run(orlop().arg("--help"));
    for command in ["serve", "doctor", "catalog", "version"] {
        assert!(help.contains(command), "{help}");
    }
    let ran = tools::try_run(orlop().arg("sevre"));
    assert!(!ran.ok && !ran.err.is_empty());
}

#[test]
fn doctor_passes_on_a_healthy_folder() {
    let mut server = Server::start();
    server.client().push_blob("doctor/repo", b"bytes");
    server.stop();
    let ran = tools::try_run(
        orlop()
            .args(["doctor", "--output", "json", "--data"])
            .arg(server.data())
            .args(["--listen", &server.address().to_string()])
            .env("ORLOP_SPACE_RESERVE", "64MiB"),
    );
    let report = document(&ran);
    assert!(ran.ok, "{report}");
    server.start_again();
    server
        .client()
        .blob_is("doctor/repo", &data::sha256(b"bytes"), b"bytes");
}

#[test]
fn doctor_finds_what_is_wrong() {
    let folder = place::dir();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let ran = tools::try_run(
        orlop()
            .args(["doctor", "--output", "json", "--data"])
            .arg(&file),
    );
    let report = document(&ran).to_string();
    assert!(!ran.ok, "{report}");
    assert!(report.contains(&file.display().to_string()), "{report}");
    // The same for a human.
    let ran = tools::try_run(orlop().args(["doctor", "--data"]).arg(&file));
    assert!(!ran.ok);
    assert!(ran.out.contains(&file.display().to_string()), "{}", ran.out);
}

#[test]
fn the_environment_names_folder_and_address() {
    let folder = place::dir();
    let data_folder = folder.path().join("by-variable");
    let port = place::port();
    let server = Setup::default()
        .bare()
        .listen(&format!("127.0.0.1:{port}"))
        .env("ORLOP_DATA", data_folder.display().to_string())
        .env("ORLOP_LISTEN", format!("127.0.0.1:{port}"))
        .start();
    server.client().push_blob("env/repo", b"bytes");
    assert!(data_folder.join("journal").is_dir());
    assert!(data_folder.join("catalog.db").is_file());
}

#[test]
fn a_start_says_where_everything_is_and_what_to_type_next() {
    let mut server = Setup::default().env("ORLOP_LOG_FORMAT", "text").start();
    let address = server.address().to_string();
    let data_folder = server.data().display().to_string();
    server.stop();
    let log = server.log();
    for word in [address.as_str(), data_folder.as_str(), "docker"] {
        assert!(log.contains(word), "{word} is missing:\n{log}");
    }
}

#[test]
fn gc_lease_takes_a_duration() {
    for lease in ["90s", "24h"] {
        let server = Setup::default().env("ORLOP_GC_LEASE", lease).start();
        server.client().get("/v2/").expect(200);
    }
}
