//! The unit of systemd: that systemd takes it, that it exposes little, and that
//! it allows what the server really asks of the kernel.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use orlop_tests::server::Setup;
use orlop_tests::{data, oci, place, release, tools};

const UNIT: &str = "packaging/orlop.service";
/// The exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE: &str = "15";
/// Oldest systemd that rates a unit that is not installed.
const RATES_SINCE: u32 = 250;

#[test]
fn systemd_takes_the_unit() {
    let Some(analyze) = tools::need("systemd-analyze") else {
        return;
    };
    let folder = place::dir();
    let unit = folder.path().join("orlop.service");
    // The program lies elsewhere here; everything else is as it is released.
    let text = release::text(UNIT);
    let program = place::binary("orlop").display().to_string();
    let text = text.replace("/usr/bin/orlop", &program);
    assert!(text.contains(&program), "{text}");
    std::fs::write(&unit, text).expect("write the unit");
    let verify = |unit: &Path| {
        let mut command = Command::new(&analyze);
        tools::try_run(command.args(["verify", "--man=no"]).arg(unit))
    };
    let ran = verify(&unit);
    assert!(ran.ok, "{}", ran.err);
    assert!(!ran.err.contains("orlop.service"), "{}", ran.err);

    // It finds what is wrong, so that the above means something.
    let broken = release::text(UNIT).replace("Type=notify", "Type=notifi");
    std::fs::write(&unit, broken).expect("write the unit");
    assert!(verify(&unit).err.contains("notifi"));
}

#[test]
fn the_unit_exposes_little() {
    let Some(analyze) = tools::need("systemd-analyze") else {
        return;
    };
    let version = tools::run(Command::new(&analyze).arg("--version"));
    let number = version.split_whitespace().nth(1);
    let number: Option<u32> = number.and_then(|word| word.parse().ok());
    if number.is_none_or(|number| number < RATES_SINCE) {
        tools::skipped("this systemd cannot rate a unit that is not installed");
        return;
    }
    let mut command = Command::new(&analyze);
    command.args(["security", "--offline=true", "--threshold", EXPOSURE]);
    tools::run(command.arg(release::file(UNIT)));
}

#[test]
fn the_unit_allows_what_the_ring_asks_of_the_kernel() {
    asks_what_is_allowed("auto");
}

#[test]
fn the_unit_allows_what_the_pool_asks_of_the_kernel() {
    asks_what_is_allowed("pool");
}

/// Follows a server from its start to its end and compares each system call
/// with the unit's filters.
#[track_caller]
fn asks_what_is_allowed(backend: &str) {
    let (Some(strace), Some(analyze)) = (tools::need("strace"), tools::need("systemd-analyze"))
    else {
        return;
    };
    let folder = place::dir();
    let out = folder.path().join("calls");
    let (strace, into) = (strace.display().to_string(), out.display().to_string());
    // The tracer is a grandchild, so that signals reach the server itself.
    let setup = Setup::default()
        .env("ORLOP_DISK_BACKEND", backend)
        .under(&[&strace, "-D", "-f", "-qq", "-o", &into]);
    let mut server = match setup.try_start() {
        Ok(server) => server,
        Err(log) if log.contains("ptrace") => {
            tools::skipped("strace may not trace here");
            return;
        }
        Err(log) => panic!("the server did not start:\n{log}"),
    };
    let client = server.client();
    let large = data::bytes(470, 3 << 20);
    let image = oci::image(&client, "service/repo", &[b"small", &large]);
    image.put(&client, "service/repo", "v1");
    image.is_at(&client, "service/repo", "v1");
    client.blob_is("service/repo", &data::sha256(&large), &large);
    client.get("/v2/service/repo/tags/list").expect(200);
    server.stop();
    // What there is at a start that finds data.
    server.start_again();
    server.stop();

    let calls = std::fs::read_to_string(&out).expect("calls");
    let made: BTreeSet<&str> = calls.lines().filter_map(name).collect();
    assert!(made.len() > 30 && made.contains("fdatasync"), "{made:?}");
    let filter = Filter::of_unit(&analyze);
    // As root, which the service never is, SQLite gives files to their owner.
    let is_of_root = |call: &str| tools::is_root() && call == "fchown";
    let is_refused = |call: &&&str| !filter.allows(call) && !is_of_root(call);
    let refused: Vec<_> = made.iter().filter(is_refused).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");

    let is_executable = |line: &&str| {
        matches!(name(line), Some("mmap" | "mprotect" | "pkey_mprotect"))
            && line.contains("PROT_WRITE")
            && line.contains("PROT_EXEC")
    };
    let found = calls.lines().find(is_executable);
    assert_eq!(found, None, "MemoryDenyWriteExecute= refuses it");
    let families = values("RestrictAddressFamilies=");
    for line in calls.lines().filter(|line| line.contains(" socket(")) {
        let family = line.split(['(', ',']).nth(1).unwrap_or_default();
        assert!(families.iter().any(|known| known == family), "{line}");
    }
}

/// The call of a line of strace: `1234  openat(AT_FDCWD, …`.
fn name(line: &str) -> Option<&str> {
    let (_, call) = line.split_once(' ')?;
    let call = call.trim_start();
    let resumed = call
        .strip_prefix("<... ")
        .and_then(|rest| rest.split(' ').next());
    let plain = call.split_once('(').map(|(name, _)| name);
    resumed.or(plain).filter(|name| {
        let mut letters = name.bytes();
        letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
    })
}

/// The words of every line of the unit with this key.
fn values(key: &str) -> Vec<String> {
    let text = release::text(UNIT);
    let lines = text.lines().filter_map(|line| line.strip_prefix(key));
    lines
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

/// The unit's filter of system calls, groups resolved.
struct Filter {
    allowed: BTreeSet<String>,
}

impl Filter {
    fn of_unit(analyze: &Path) -> Filter {
        let text = release::text(UNIT);
        // What is always allowed, also by a list that does not say so.
        let mut allowed = group(analyze, "@default");
        for line in text.lines() {
            let Some(words) = line.strip_prefix("SystemCallFilter=") else {
                continue;
            };
            let (words, is_taken_away) = match words.strip_prefix('~') {
                Some(words) => (words, true),
                None => (words, false),
            };
            for call in words
                .split_whitespace()
                .flat_map(|word| group(analyze, word))
            {
                if is_taken_away {
                    allowed.remove(&call);
                } else {
                    allowed.insert(call);
                }
            }
        }
        Filter { allowed }
    }

    fn allows(&self, call: &str) -> bool {
        self.allowed.contains(call)
    }
}

/// The calls that a word of a filter stands for.
fn group(analyze: &Path, word: &str) -> BTreeSet<String> {
    if !word.starts_with('@') {
        return BTreeSet::from([word.to_owned()]);
    }
    let listed = tools::run(Command::new(analyze).args(["syscall-filter", word]));
    listed
        .lines()
        .skip(1)
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| group(analyze, line))
        .collect()
}
