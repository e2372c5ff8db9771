//! The container image of this release, run by docker with the line in the
//! README.

use std::process::Command;
use std::time::{Duration, Instant};

use orlop_tests::docker::Docker;
use orlop_tests::place;
use orlop_tests::release::{self, Release};
use orlop_tests::tools;
use serde_json::Value;

/// Where the README's line publishes the registry.
const ADDRESS: &str = "127.0.0.1:5000";
/// The user the image runs as.
const USER: &str = "65532";
/// How long a container may take until it is ready.
const READY: Duration = Duration::from_secs(60);
/// What `docker stop` allows by default before it kills.
const STOP: Duration = Duration::from_secs(10);
/// Docker forbids io_uring by default from this version on.
const FORBIDS_SINCE: u32 = 25;
/// A seccomp profile that forbids io_uring and nothing else.
const FORBIDDING: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
    "names": ["io_uring_setup", "io_uring_enter", "io_uring_register"],
    "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;
/// The profile of podman's package. It is in the form of Docker's, and forbids
/// io_uring as Docker's does since 25.
const SYSTEM_PROFILE: &str = "/usr/share/containers/seccomp.json";

#[test]
fn the_image_opens_itself_to_nobody() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let release = load(&docker);
    let inspect = ["image", "inspect", "--format", "{{json .Config}}"];
    let config = docker.run(&[&inspect[..], &[&release.name()]].concat());
    assert!(!config.contains("anonymous"), "{config}");
    let config: Value = serde_json::from_str(&config).expect("JSON of docker");
    assert_eq!(config["User"], format!("{USER}:{USER}"), "{config}");
    let volumes = config["Volumes"].as_object().expect("volumes");
    assert_eq!(volumes.keys().collect::<Vec<_>>(), ["/var/lib/orlop"]);

    let run = ["run", "--rm", "--network=none", "--read-only"];
    let ran = tools::try_run(docker.command().args(run).arg(release.name()));
    assert!(!ran.ok, "{}", ran.out);
    assert!(ran.err.contains("--insecure-anonymous"), "{}", ran.err);
    let fsck = ["--entrypoint=orlop-fsck", &release.name(), "--help"];
    docker.run(&[&run[..], &fsck].concat());
}

#[test]
fn the_readme_line_serves_from_docker() {
    let Some((docker, _release)) = docker_with_image() else {
        return;
    };
    let version = docker.run(&["version", "--format", "{{.Server.Version}}"]);
    let major = version.split('.').next().and_then(|word| word.parse().ok());
    let is_forbidden = major.is_some_and(|major: u32| major >= FORBIDS_SINCE);
    let backend = if is_forbidden || !ring_works_here() {
        "pool"
    } else {
        "uring"
    };
    serve(&docker, &readme_line(), backend);
}

#[test]
fn the_readme_line_serves_by_the_pool_where_seccomp_forbids_the_ring() {
    let Some((docker, _release)) = docker_with_image() else {
        return;
    };
    if !has_seccomp(&docker) {
        return;
    }
    let folder = place::dir();
    let profile = folder.path().join("forbids.json");
    std::fs::write(&profile, FORBIDDING).expect("write a profile");
    let line = with_profile(&readme_line(), &profile.display().to_string());
    serve(&docker, &line, "pool");
}

/// Makes the profile by the line that the page gives, from one that forbids
/// the ring.
#[test]
fn the_profile_of_the_page_allows_the_ring() {
    if tools::need("jq").is_none() {
        return;
    }
    if !std::path::Path::new(SYSTEM_PROFILE).exists() {
        tools::skipped(&format!("{SYSTEM_PROFILE} is not there"));
        return;
    }
    if !ring_works_here() {
        tools::skipped("the kernel offers no io_uring");
        return;
    }
    let Some((docker, release)) = docker_with_image() else {
        return;
    };
    if !has_seccomp(&docker) {
        return;
    }
    let folder = place::dir();
    std::fs::copy(SYSTEM_PROFILE, folder.path().join("default.json")).expect("copy the profile");
    let make = release::line("docs/container.md", "jq ");
    tools::run(
        Command::new("sh")
            .args(["-euc", &make])
            .current_dir(folder.path()),
    );
    let doctor = |profile: &str| {
        let path = folder.path().join(profile);
        let security = format!("seccomp={}", path.display());
        let run = ["run", "--rm", "--read-only", "--network=none"];
        let image = ["--security-opt", &security, &release.name()];
        docker.run(
            &[
                &run[..],
                &image,
                &["doctor", "--insecure-anonymous", "--output=json"],
            ]
            .concat(),
        )
    };
    assert_eq!(ring_of(&doctor("default.json")), "note");
    assert_eq!(ring_of(&doctor("orlop-seccomp.json")), "pass");
}

/// The life of a registry: starts it by this line, looks at the process, and
/// pushes, pulls, restarts, stops and starts it anew on the same volume.
#[track_caller]
fn serve(docker: &Docker, line: &str, backend: &str) {
    tools::run(&mut docker.shell(line));
    wait_until_ready(docker);
    let log = logs(docker);
    let starts = log.lines().find(|line| line.trim().starts_with("disk "));
    let said = starts.unwrap_or_default().trim();
    let why = if backend == "pool" {
        "(io_uring cannot be used: "
    } else {
        "(io_uring works)"
    };
    assert!(
        said.contains(&format!(" {backend} {why}")),
        "it should serve by the {backend} and say why:\n{log}"
    );
    let doctor = docker.run(&["exec", "orlop", "orlop", "doctor", "--output=json"]);
    let expected = if backend == "pool" { "note" } else { "pass" };
    assert_eq!(ring_of(&doctor), expected, "{doctor}");
    is_confined(docker);

    // The image itself is what is pushed: some layers' worth of real bytes.
    let here = docker.run(&["inspect", "--format", "{{.Config.Image}}", "orlop"]);
    let there = format!("{ADDRESS}/team/{here}");
    docker.run(&["tag", &here, &there]);
    let pushed = docker.push(&there);
    let pulls = || {
        docker.run(&["rmi", &there]);
        assert_eq!(docker.pull(&there), pushed);
    };
    pulls();
    docker.run(&["restart", "orlop"]);
    wait_until_ready(docker);
    pulls();
    stops(docker);

    // The volume outlives the container.
    docker.run(&["rm", "orlop"]);
    tools::run(&mut docker.shell(line));
    wait_until_ready(docker);
    pulls();
    stops(docker);
    assert_eq!(
        docker.run(&["diff", "orlop"]),
        "",
        "wrote outside the volume"
    );
    assert!(!logs(docker).contains("panicked"), "{}", logs(docker));
}

/// Not root, nothing but the volume to write to, and nothing inherited.
#[track_caller]
fn is_confined(docker: &Docker) {
    let process = docker.run(&["inspect", "--format", "{{.State.Pid}}", "orlop"]);
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/{process}/{name}")).expect("read of the process")
    };
    let status = read("status");
    let field = |name: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().collect()
    };
    assert_eq!(field("Uid:"), [USER; 4], "{status}");
    assert_eq!(field("Gid:"), [USER; 4], "{status}");
    assert_eq!(field("CapEff:"), ["0000000000000000"], "{status}");
    let mounts = read("mountinfo");
    let options = |point: &str| -> &str {
        let mut lines = mounts.lines().map(|line| line.split(' '));
        let mut found = lines.find(|fields| fields.clone().nth(4) == Some(point));
        found
            .as_mut()
            .and_then(|fields| fields.nth(5))
            .unwrap_or_default()
    };
    assert!(
        options("/").split(',').any(|option| option == "ro"),
        "{mounts}"
    );
    let of_volume = options("/var/lib/orlop");
    assert!(
        of_volume.split(',').any(|option| option == "rw"),
        "{mounts}"
    );
}

/// `docker stop` ends it by itself, before docker's patience does.
#[track_caller]
fn stops(docker: &Docker) {
    let began = Instant::now();
    docker.run(&["stop", "orlop"]);
    assert!(began.elapsed() < STOP, "took {:?}", began.elapsed());
    let code = docker.run(&["inspect", "--format", "{{.State.ExitCode}}", "orlop"]);
    assert_eq!(code, "0", "{}", logs(docker));
}

#[track_caller]
fn wait_until_ready(docker: &Docker) {
    let began = Instant::now();
    let url = format!("http://{ADDRESS}/readyz");
    loop {
        let mut curl = docker.inside("curl");
        let ran = tools::try_run(curl.args(["-fsS", "--noproxy", "*", &url]));
        if ran.ok {
            assert!(ran.out.contains("\"ready\""), "{}", ran.out);
            return;
        }
        let state = docker.run(&["inspect", "--format", "{{.State.Running}}", "orlop"]);
        assert!(
            state == "true" && began.elapsed() < READY,
            "not ready: {}\n{}",
            ran.err,
            logs(docker)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn docker_with_image() -> Option<(Docker, std::sync::Arc<Release>)> {
    tools::need("curl")?;
    let docker = Docker::start_with_network()?;
    let release = load(&docker);
    Some((docker, release))
}

#[track_caller]
fn load(docker: &Docker) -> std::sync::Arc<Release> {
    let release = Release::shared();
    docker.run(&["load", "--input", &release.archive().display().to_string()]);
    release
}

/// What the container printed on both streams since it was made.
fn logs(docker: &Docker) -> String {
    let ran = tools::try_run(docker.command().args(["logs", "orlop"]));
    ran.out + &ran.err
}

#[track_caller]
fn readme_line() -> String {
    let line = release::line("README.md", "docker run ");
    for words in [
        &format!("-p {ADDRESS}:5000"),
        "--read-only",
        "--insecure-anonymous",
    ] {
        assert!(
            line.contains(words),
            "the README's line has no {words}: {line}"
        );
    }
    line
}

fn with_profile(line: &str, profile: &str) -> String {
    let option = format!("docker run --security-opt seccomp={profile} ");
    line.replacen("docker run ", &option, 1)
}

fn has_seccomp(docker: &Docker) -> bool {
    let options = docker.run(&["info", "--format", "{{.SecurityOptions}}"]);
    let has = options.contains("seccomp");
    if !has {
        tools::skipped("this dockerd has no seccomp");
    }
    has
}

/// Whether the ring can be used outside a container.
fn ring_works_here() -> bool {
    let folder = place::dir();
    let mut doctor = Command::new(place::binary("orlop"));
    doctor
        .args(["doctor", "--output=json", "--data"])
        .arg(folder.path());
    ring_of(&tools::try_run(&mut doctor).out) == "pass"
}

/// What a report of `orlop doctor` says of io_uring.
#[track_caller]
fn ring_of(report: &str) -> String {
    let report: Value = serde_json::from_str(report).expect("report of doctor");
    let checks = report["checks"].as_array().expect("checks");
    let ring = checks.iter().find(|check| check["name"] == "io_uring");
    let result = &ring.expect("a check of io_uring")["result"];
    result.as_str().expect("a result").to_owned()
}
