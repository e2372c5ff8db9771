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
    for command in [
        "serve",
        "doctor",
        "config",
        "catalog",
        "fsck",
        "completions",
        "version",
    ] {
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
fn fsck_says_what_the_program_says_with_its_status() {
    let mut server = Server::start();
    let small = data::bytes(1, 3_000);
    server.client().push_blob("fsck/repo", &small);
    let large = data::bytes(2, 300_000);
    server.client().push_blob("fsck/repo", &large);
    let ask = || {
        let fsck = ["fsck", "--output", "json", "--data"];
        orlop().args(fsck).arg(server.data()).output().unwrap()
    };
    let running = ask();
    assert_eq!(running.status.code(), Some(2));
    let error = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(
        error.starts_with("orlop fsck: ") && error.contains("in use by process"),
        "{error}"
    );
    server.stop();
    let clean = || {
        let fsck = ["fsck", "--output", "json", "--data"];
        orlop().args(fsck).arg(server.data()).output().unwrap()
    };
    let said = clean();
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(0), "{report:#}");
    assert_eq!(report["clean"], true);
    let foreign = report["notes"].as_array().unwrap();
    let foreign = foreign.iter().find(|note| note["code"] == "file.foreign");
    assert_eq!(foreign, None, "the server's own files are known");
    // The two, and the copy of the catalog that a stop leaves in the store.
    assert_eq!(report["counts"]["blobs"], 3);
    assert_eq!(report["index"]["compared"], true, "{report:#}");
    let program = Command::new(place::binary("orlop-fsck"))
        .arg(server.data())
        .args(["--output", "json"])
        .output()
        .unwrap();
    let other: Value = serde_json::from_slice(&program.stdout).unwrap();
    assert_eq!(other["counts"], report["counts"]);
    orlop_tests::damage::rot(server.data(), &small);
    let said = clean();
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(1), "{report:#}");
    assert_eq!(report["findings"][0]["code"], "record.payload");
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

/// The results of one kind of check and what was said of each.
fn results(report: &Value, name: &str) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    checks
        .filter(|check| check["name"] == name)
        .map(|check| (text(&check["result"]), text(&check["message"])))
        .collect()
}

#[test]
fn doctor_takes_the_settings_of_serve() {
    let folder = place::dir();
    let file = folder.path().join("orlop.toml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = format!(
        "data = \"by-file\"\nlisten = \"127.0.0.1:{}\"\nops.listen = \"127.0.0.1:{port}\"\nspace.reserve = 1\n",
        place::port()
    );
    std::fs::write(&file, &text).unwrap();
    let doctor = || {
        let mut command = orlop();
        command
            .args(["doctor", "--output", "json", "--config"])
            .arg(&file);
        command
    };
    let report = document(&tools::try_run(&mut doctor()));
    let data = folder.path().join("by-file").display().to_string();
    assert_eq!(report["data"], data);
    assert!(!folder.path().join("by-file").exists());
    assert_eq!(results(&report, "settings")[0].0, "pass", "{report}");
    assert_eq!(results(&report, "port")[0].0, "pass", "{report}");
    // The address of the file is tried, and is taken.
    let (result, message) = &results(&report, "ops port")[0];
    assert!(
        result == "fail" && message.contains(&port.to_string()),
        "{report}"
    );
    assert!(tools::try_run(doctor().arg("--ops-listen=off")).ok);
    // What is wrong with settings is one failure among the others.
    std::fs::write(&file, format!("{text}quota = 1\ndrain = 5\n")).unwrap();
    let ran = tools::try_run(doctor().arg("--ops-listen=off"));
    let report = document(&ran);
    let wrong = results(&report, "settings");
    assert!(!ran.ok && wrong.len() == 2, "{report}");
    assert!(wrong[0].1.contains("orlop.toml:5:1: quota"), "{report}");
    assert_eq!(results(&report, "clock")[0].0, "pass", "{report}");
}

/// A certificate for `registry.test` and its key, in PEM.
fn issued(from: i64, to: i64) -> (String, String) {
    let now = std::time::SystemTime::now();
    let day = |days: i64| {
        let span = std::time::Duration::from_secs(days.unsigned_abs() * 24 * 3600);
        if days < 0 { now - span } else { now + span }
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["registry.test".to_owned()]).unwrap();
    params.not_before = day(from).into();
    params.not_after = day(to).into();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn doctor_judges_certificate_and_key() {
    use std::os::unix::fs::PermissionsExt;
    let folder = place::dir();
    let path = |name: &str| folder.path().join(name);
    let write = |certificate: &str, key: &str| {
        std::fs::write(path("c.pem"), certificate).unwrap();
        std::fs::write(path("k.pem"), key).unwrap();
        std::fs::set_permissions(path("k.pem"), PermissionsExt::from_mode(0o600)).unwrap();
    };
    let judged = |host: &str| {
        let ran = tools::try_run(
            orlop()
                .args([
                    "doctor",
                    "--output",
                    "json",
                    "--listen=127.0.0.1:0",
                    "--ops-listen=off",
                ])
                .args(["--space-reserve=1", "--data"])
                .arg(path("data"))
                .arg("--tls-certificate")
                .arg(path("c.pem"))
                .arg("--tls-key")
                .arg(path("k.pem"))
                .arg(format!("--server-public-url=https://{host}")),
        );
        let found = results(&document(&ran), "certificate");
        let worst = ["fail", "note", "pass"]
            .into_iter()
            .find(|result| found.iter().any(|(found, _)| found == result));
        assert_eq!(ran.ok, worst != Some("fail"), "{found:?}");
        let said: Vec<_> = found.into_iter().map(|(_, message)| message).collect();
        (worst.unwrap(), said.join("\n"))
    };
    let is = |host: &str, result: &str, words: &str| {
        let (found, said) = judged(host);
        assert!(
            found == result && said.contains(words),
            "{result} {words}: {found} {said}"
        );
    };
    let (good, key) = issued(-1, 90);
    write(&good, &key);
    is("registry.test", "pass", "belong together");
    is("elsewhere.test", "note", "does not name elsewhere.test");
    std::fs::set_permissions(path("k.pem"), PermissionsExt::from_mode(0o644)).unwrap();
    is("registry.test", "note", "every user");
    // A stranger's key, no key, no certificate, a chain with an old one.
    let (old, old_key) = issued(-9, -1);
    write(&good, &old_key);
    is("registry.test", "fail", "does not belong");
    write(&good, &good);
    is("registry.test", "fail", "k.pem: there is no private key");
    write("nothing", &key);
    is("registry.test", "fail", "c.pem: there is no certificate");
    write(&format!("{good}{old}"), &key);
    is(
        "registry.test",
        "fail",
        "certificate 2 of its chain has ended",
    );
    // Too late, too early, nearly too late.
    write(&old, &old_key);
    is("registry.test", "fail", "has ended");
    let (early, key) = issued(1, 90);
    write(&early, &key);
    is("registry.test", "fail", "begins at");
    let (soon, key) = issued(-1, 13);
    write(&soon, &key);
    is("registry.test", "note", "ends soon");
    std::fs::remove_file(path("c.pem")).unwrap();
    is("registry.test", "fail", "c.pem");
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

#[test]
fn no_byte_of_a_key_is_printed() {
    let folder = place::dir();
    let path = |name: &str| folder.path().join(name);
    let (certificate, key) = issued(-1, 90);
    std::fs::write(path("c.pem"), &certificate).unwrap();
    let secret: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let words = |command: &str| {
        let mut command = vec![command.to_owned()];
        let value = |name: &str, file| format!("--tls-{name}={}", path(file).display());
        command.extend([value("certificate", "c.pem"), value("key", "k.pem")]);
        command.extend(["--listen=127.0.0.1:0".into(), "--ops-listen=off".into()]);
        command.extend([format!("--data={}", path("data").display())]);
        command
    };
    for (what, written) in [
        ("one line", key.replace('\n', "")),
        (
            "no line ends behind the dashes",
            key.replace("-----\n", "-----"),
        ),
        ("backslash and n", key.replace('\n', "\\n")),
        ("no end", key.replace("-----END PRIVATE KEY-----\n", "")),
        ("no base64", key.replace(&secret[8..16], "!!!!!!!!")),
    ] {
        std::fs::write(path("k.pem"), written).unwrap();
        for command in ["serve", "doctor"] {
            let ran = tools::try_run(orlop().args(words(command)));
            let said = ran.out + &ran.err;
            assert!(!ran.ok && said.contains("k.pem: "), "{what}: {said}");
            for part in secret.as_bytes().windows(8) {
                let text = String::from_utf8_lossy(part).into_owned();
                let numbers = format!("{part:?}");
                for part in [text.as_str(), numbers.trim_matches(['[', ']'])] {
                    assert!(!said.contains(part), "{command}, {what}: {said}");
                }
            }
        }
    }
}

#[test]
fn doctor_reads_certificates_as_the_server_does() {
    let folder = place::dir();
    let path = |name: &str| folder.path().join(name);
    let (certificate, key) = issued(-1, 90);
    std::fs::write(path("c.pem"), &certificate).unwrap();
    let refused = |words: &str| {
        for command in ["serve", "doctor"] {
            let ran = tools::try_run(
                orlop()
                    .arg(command)
                    .args(["--listen=127.0.0.1:0", "--ops-listen=off", "--data"])
                    .arg(path("data"))
                    .arg("--tls-certificate")
                    .arg(path("c.pem"))
                    .arg("--tls-key")
                    .arg(path("k.pem")),
            );
            let said = ran.out + &ran.err;
            assert!(!ran.ok && said.contains(words), "{command}: {said}");
        }
    };
    std::fs::write(path("k.pem"), key + &" ".repeat(1 << 20)).unwrap();
    refused("larger than 1 MiB");
    // A pipe that nobody writes into holds up neither.
    std::fs::remove_file(path("k.pem")).unwrap();
    tools::sh("mkfifo \"$1\"", &[path("k.pem")]);
    refused("not a regular file");
}

#[test]
fn doctor_leaves_what_is_not_its_own() {
    let folder = place::dir();
    let lock = folder.path().join("LOCK");
    std::fs::write(&lock, "the lock of another program").unwrap();
    let ran = tools::try_run(
        orlop()
            .args([
                "doctor",
                "--listen=127.0.0.1:0",
                "--ops-listen=off",
                "--data",
            ])
            .arg(folder.path().join("new")),
    );
    assert!(ran.out.contains("will be made"), "{}", ran.out);
    let text = std::fs::read_to_string(&lock).unwrap();
    assert_eq!(text, "the lock of another program");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_service_and_its_operator_mean_the_same_folder() {
    if !tools::is_root() || tools::need("unshare").is_none() {
        tools::skipped("a folder /var/lib/orlop of the test's own needs root");
        return;
    }
    let mut server = Server::start();
    server.stop();
    let folder = place::dir();
    // What stands where somebody works must not be taken for the service's.
    let beside = folder.path().join("orlop-data");
    tools::sh("cp -a \"$1\" \"$2\"", &[server.data(), &beside]);
    let ran = |words: &str| {
        let script = format!(
            "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/orlop && mount --bind \"$1\" /var/lib/orlop && cd \"$2\" && exec \"$3\" {words}"
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh"]);
        command.args([server.data(), folder.path()]);
        command.env_remove("INVOCATION_ID");
        tools::try_run(command.arg(place::binary("orlop")))
    };
    let on = ran("maintenance read-only on");
    if on.err.contains("mount") || on.err.contains("unshare") {
        tools::skipped(&format!("nothing can be mounted: {}", on.err.trim()));
        return;
    }
    assert!(
        on.ok && on.out.contains("/var/lib/orlop"),
        "{}{}",
        on.out,
        on.err
    );
    assert!(server.data().join("maintenance.json").exists());
    assert!(!beside.join("maintenance.json").exists());
    let shown = ran("config show");
    assert!(shown.out.contains("/var/lib/orlop"), "{}", shown.out);
    assert!(ran("doctor").out.contains("/var/lib/orlop"));
    // The service's store is not served by another user unasked.
    tools::sh("chown -R 12345 \"$1\"", &[server.data()]);
    let served = ran("serve --listen 127.0.0.1:0 --ops-listen off");
    assert!(!served.ok && served.err.contains("12345"), "{}", served.err);
}
