//! Tests of reading and resolving settings.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use orlop_disk::Choice;

use super::kind::Kind;
use super::*;

mod untagged;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ServeArgs,
}

/// What surrounds a start in these tests.
#[derive(Default)]
struct Case {
    flags: Vec<&'static str>,
    variables: Vec<(&'static str, &'static str)>,
    file: Option<&'static str>,
}

impl Case {
    fn load(&self) -> Loaded {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orlop.toml");
        if let Some(text) = self.file {
            std::fs::write(&path, text).unwrap();
        }
        let around = Surroundings {
            variables: self
                .variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            default_file: path,
            folder: "/work".into(),
        };
        let line = Line::try_parse_from(std::iter::once(&"orlop").chain(&self.flags));
        let line = line.unwrap_or_else(|error| panic!("{:?}: {error}", self.flags));
        Loaded::read(&line.args, &around)
    }

    fn settings(&self) -> Settings {
        self.load().checked().unwrap()
    }

    /// The problems, one a line, with the file's name short.
    fn problems(&self) -> Vec<String> {
        self.load().problems.iter().map(short).collect()
    }
}

fn short(problem: &Problem) -> String {
    let text = problem.to_string();
    match text.split_once("orlop.toml") {
        Some((_, rest)) => format!("orlop.toml{rest}"),
        None => text,
    }
}

fn flags(flags: &[&'static str]) -> Case {
    Case {
        flags: flags.to_vec(),
        ..Case::default()
    }
}

fn file(text: &'static str) -> Case {
    Case {
        file: Some(text),
        ..Case::default()
    }
}

#[test]
fn defaults() {
    let settings = flags(&["--data", "/tmp/x"]).settings();
    assert_eq!(settings.data, Path::new("/tmp/x"));
    assert_eq!(settings.listen, "127.0.0.1:5000".parse().unwrap());
    assert_eq!(settings.ops_listen, Some("127.0.0.1:5001".parse().unwrap()));
    assert_eq!(settings.gc_lease, Duration::from_secs(3600));
    assert_eq!(settings.undelete_window, Duration::from_secs(86_400));
    assert_eq!(settings.disk_backend, Choice::Auto);
    assert_eq!(settings.space_reserve, None);
    assert_eq!(settings.drain, Duration::from_secs(30));
    assert_eq!((settings.tls, settings.public_url), (None, None));
    assert!(!settings.sparse_manifests && settings.trusted_proxies.is_empty());
}

#[test]
fn a_default_is_a_value_that_may_be_written() {
    fn holds<T: Kind>(setting: &table::Setting<T>) {
        let value = (setting.default)();
        assert_eq!((setting.range)(&value), Ok(()), "{}", setting.key);
    }
    holds(&table::GC_LEASE);
    holds(&table::GC_UNDELETE_WINDOW);
    holds(&table::GC_UPLOAD_EXPIRY);
    holds(&table::DRAIN);
    holds(&table::CACHE_SIZE);
    for shown in Case::default().load().show() {
        assert_eq!(shown.origin, Origin::Default, "{}", shown.key);
    }
}

#[test]
fn every_flag_is_read() {
    let settings = flags(&[
        "--data=relative",
        "--listen=[::1]:0",
        "--drain=5s",
        "--server-public-url=https://registry.example.org/",
        "--server-trusted-proxies=10.0.0.0/8,192.0.2.1",
        "--server-trusted-proxies=fd00::/8",
        "--tls-certificate=c.pem",
        "--tls-key=/k.pem",
        "--ops-listen=off",
        "--gc-lease=90s",
        "--gc-undelete-window=0s",
        "--gc-upload-expiry=2h",
        "--gc-untagged=30d",
        "--gc-schedule=off",
        "--gc-limit=30m",
        "--push-sparse-manifests",
        "--disk-backend=pool",
        "--space-reserve=10GiB",
        "--cache-size=64m",
        "--log-format=json",
        "--log-level=info,access=off",
    ])
    .settings();
    let networks = ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"];
    let expected = Settings {
        data: "/work/relative".into(),
        listen: "[::1]:0".parse().unwrap(),
        gc_lease: Duration::from_secs(90),
        disk_backend: Choice::Pool,
        space_reserve: Some(10 << 30),
        cache_size: 64 << 20,
        log_format: LogFormat::Json,
        log_level: "info,access=off".to_owned(),
        drain: Duration::from_secs(5),
        public_url: Some("https://registry.example.org".to_owned()),
        trusted_proxies: networks.map(|n| n.parse().unwrap()).to_vec(),
        tls: Some(TlsFiles {
            certificate: "/work/c.pem".into(),
            key: "/k.pem".into(),
        }),
        ops_listen: None,
        undelete_window: Duration::ZERO,
        untagged: Some(Duration::from_secs(30 * 24 * 3600)).into(),
        gc_schedule: None,
        gc_limit: Some(Duration::from_secs(1800)),
        upload_expiry: Duration::from_secs(7200),
        sparse_manifests: true,
        scrub_schedule: Cron::parse("0 3 * * 0").ok(),
        scrub_rate: 50 << 20,
        scrub_digests: false,
    };
    assert_eq!(settings, expected);
    let local = flags(&["--listen", "localhost:80"]).settings();
    assert_eq!(local.listen, "127.0.0.1:80".parse().unwrap());
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file() {
    let case = |flags: &[&'static str], variables: &[(&'static str, &'static str)]| Case {
        flags: flags.to_vec(),
        variables: variables.to_vec(),
        file: Some("gc.lease = \"2h\"\n[push]\nsparse_manifests = true\n"),
    };
    let lease = |case: &Case| {
        let loaded = case.load();
        let shown = loaded.show().into_iter().find(|s| s.key == "gc.lease");
        let origin = short(&Problem::new(shown.unwrap().origin, ""));
        (loaded.checked().unwrap().gc_lease.as_secs() / 3600, origin)
    };
    let of = |hours, origin: &str| (hours, format!("{origin}: "));
    let variable = [("ORLOP_GC_LEASE", "3h")];
    assert_eq!(lease(&Case::default()), of(1, "default"));
    assert_eq!(lease(&case(&[], &[])), of(2, "orlop.toml:1:12"));
    assert_eq!(lease(&case(&[], &variable)), of(3, "ORLOP_GC_LEASE"));
    assert_eq!(
        lease(&case(&["--gc-lease", "4h"], &variable)),
        of(4, "--gc-lease")
    );
    // A switch can be turned off again.
    assert!(case(&[], &[]).settings().sparse_manifests);
    let off = [("ORLOP_PUSH_SPARSE_MANIFESTS", "0")];
    assert!(!case(&[], &off).settings().sparse_manifests);
    assert!(
        !case(&["--push-sparse-manifests=false"], &[])
            .settings()
            .sparse_manifests
    );
    // So can a list be emptied.
    let emptied = Case {
        variables: vec![("ORLOP_SERVER_TRUSTED_PROXIES", "")],
        ..file("server.trusted_proxies = [\"10.0.0.0/8\"]")
    };
    assert!(emptied.settings().trusted_proxies.is_empty());
}

#[test]
fn paths_in_a_file_start_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, "data = \"blobs\"\n").unwrap();
    let args = ServeArgs {
        file: FileArgs { config: Some(path) },
        ..ServeArgs::default()
    };
    let settings = Loaded::new(&args).unchecked().clone();
    assert_eq!(settings.data, folder.path().join("blobs"));
}

#[test]
fn others_are_kept_out_unless_told() {
    for address in ["0.0.0.0:5002", "[::]:5002", "192.0.2.1:5002"] {
        for flag in ["--listen", "--ops-listen"] {
            let found = flags(&[flag, address]).problems();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(&format!("{flag}: ")), "{found:?}");
            assert!(found[0].contains("--insecure-anonymous"), "{found:?}");
        }
        flags(&["--listen", address, "--insecure-anonymous"]).settings();
    }
    // By no other way.
    let hint = "--insecure-anonymous is a flag only, so that it is never inherited";
    for text in ["insecure_anonymous = true", "insecure-anonymous = true"] {
        let found = file(text).problems();
        assert!(
            found[0].starts_with("orlop.toml:1:1: ") && found[0].ends_with(hint),
            "{found:?}"
        );
    }
    let variable = Case {
        variables: vec![("ORLOP_INSECURE_ANONYMOUS", "true")],
        ..Case::default()
    };
    let expected = format!("ORLOP_INSECURE_ANONYMOUS: is not a setting; {hint}");
    assert_eq!(variable.problems(), [expected]);
}

#[test]
fn two_listeners_need_two_addresses() {
    let found = flags(&["--listen=127.0.0.1:7000", "--ops-listen=127.0.0.1:7000"]).problems();
    assert!(
        found[0].starts_with("--ops-listen: ops.listen: 127.0.0.1:7000"),
        "{found:?}"
    );
    flags(&["--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"]).settings();
    for (one, other, is_one) in [
        ("0.0.0.0:7000", "127.0.0.1:7000", true),
        ("0.0.0.0:7000", "0.0.0.0:7000", true),
        ("[::]:7000", "127.0.0.1:7000", true),
        ("[::]:7000", "[::1]:7000", true),
        ("[::ffff:127.0.0.1]:7000", "127.0.0.1:7000", true),
        ("0.0.0.0:7000", "[::1]:7000", false),
        ("127.0.0.1:7000", "[::1]:7000", false),
        ("0.0.0.0:7000", "127.0.0.1:7001", false),
    ] {
        for (listen, ops) in [(one, other), (other, one)] {
            let (listen, ops) = (format!("--listen={listen}"), format!("--ops-listen={ops}"));
            let case = flags(&[listen.leak(), ops.leak(), "--insecure-anonymous"]);
            if is_one {
                assert!(case.problems()[0].contains("is where the registry listens"));
            } else {
                case.settings();
            }
        }
    }
}

#[test]
fn a106_what_is_wrong_in_a_file_is_named_with_its_place_and_a_hint() {
    for (text, expected) in [
        (
            "gc.leese = \"1h\"",
            "orlop.toml:1:4: gc.leese: is not a setting; did you mean gc.lease?",
        ),
        (
            "# ü\n[gc]\nlease = \"1h\"\nlevel = \"info\"",
            "orlop.toml:4:1: gc.level: is not a setting; did you mean log.level?",
        ),
        (
            "[gcc]\nlease = \"1h\"",
            "orlop.toml:1:2: gcc: is not a setting; did you mean gc?",
        ),
        (
            "quota = 5",
            "orlop.toml:1:1: quota: is not a setting; `orlop config show` lists what there is",
        ),
        (
            "gc = 5",
            "orlop.toml:1:6: gc: is a table; write [gc] and its keys below it",
        ),
        (
            "\"gc.lease\" = \"1h\"",
            "orlop.toml:1:1: gc.lease: is not a setting; write a key with a dot without quotation marks",
        ),
        (
            "gc.lease = 60",
            "orlop.toml:1:12: gc.lease: is an integer, which it cannot be; write a value such as \"90s\", \"15m\" or \"24h\"",
        ),
        (
            "gc.lease = \"1s\"",
            "orlop.toml:1:12: gc.lease: 1s is out of range: use 1m to 30d",
        ),
        (
            "[gc.lease]\nx = 1",
            "orlop.toml:1:1: gc.lease: is a table, which it cannot be; write a value such as \"90s\", \"15m\" or \"24h\"",
        ),
        (
            "push.sparse_manifests = \"true\"",
            "orlop.toml:1:25: push.sparse_manifests: is a string, which it cannot be; write a value such as true",
        ),
        (
            "space.reserve = -1",
            "orlop.toml:1:17: space.reserve: -1 is not a number of bytes",
        ),
        ("listen = \"\"", "orlop.toml:1:10: listen: is empty"),
        (
            "[tls]\ncertificate = \"c.pem\"",
            "orlop.toml:2:15: tls.certificate: stands alone, without tls.key; set both, or neither",
        ),
        (
            "listen = \"0.0.0.0:5000\"",
            "orlop.toml:1:10: listen: 0.0.0.0:5000 can be reached by others",
        ),
        ("listen = \"127.0.0.1:5000", "orlop.toml:1:"),
        (
            "drain = \"1s\"\ndrain = \"2s\"",
            "orlop.toml:2:1: not TOML: ",
        ),
    ] {
        let found = file(text).problems();
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].starts_with(expected), "{text}: {found:#?}");
    }
}

#[test]
fn a106_all_problems_are_found_at_once() {
    let case = Case {
        flags: vec!["--cache-size=1"],
        variables: vec![("ORLOP_DRAIN", "2h"), ("ORLOP_LOG_LEVLE", "info")],
        file: Some("typo = 1\ndisk.backend = \"tape\"\n[log]\nlevel = 5\nformat = \"xml\"\n"),
    };
    let found = case.problems();
    assert_eq!(found.len(), 7, "{found:#?}");
    for start in [
        "ORLOP_LOG_LEVLE: is not a setting; did you mean ORLOP_LOG_LEVEL?",
        "orlop.toml:1:1: typo: ",
        "orlop.toml:2:16: disk.backend: ",
        "orlop.toml:4:9: log.level: ",
        "orlop.toml:5:10: log.format: ",
        "ORLOP_DRAIN: drain: 2h is out of range: use 0s to 1h",
        "--cache-size: cache.size: 1 is too small",
    ] {
        assert!(
            found.iter().any(|line| line.starts_with(start)),
            "{start}: {found:#?}"
        );
    }
}

#[test]
fn a106_values_are_held_against_each_other_beside_other_problems() {
    let found = file("quota = 1\ntls.key = \"k\"\nlisten = \"0.0.0.0:0\"").problems();
    assert_eq!(found.len(), 3, "{found:#?}");
    // But not when one of them is the problem.
    for text in [
        "tls.key = \"k\"\ntls.certificate = 5",
        "tls.key = \"k\"\ntls.cert = \"c\"",
    ] {
        assert_eq!(file(text).problems().len(), 1, "{text}");
    }
}

#[test]
fn a106_a_hidden_value_is_checked_too() {
    let case = Case {
        flags: vec!["--gc-lease=1h"],
        ..file("gc.lease = \"soon\"")
    };
    assert_eq!(case.problems().len(), 1);
}

#[test]
fn a106_wrong_flags_and_variables_are_refused() {
    for (flag, value) in [
        ("--listen", "here"),
        ("--listen", "127.0.0.1"),
        ("--listen", "localhost:99999"),
        ("--gc-lease", "1s"),
        ("--gc-lease", "1y"),
        ("--gc-lease", "soon"),
        ("--gc-lease", ""),
        ("--gc-undelete-window", "366d"),
        ("--gc-upload-expiry", "59m"),
        ("--cache-size", "1"),
        ("--space-reserve", "-1"),
        ("--drain", "2h"),
        ("--log-level", "inof"),
        ("--log-level", "info,,access=off"),
        ("--log-level", "info,access"),
        ("--log-level", "access=loud"),
        ("--server-public-url", "registry.example.org"),
        ("--server-public-url", "https://registry.example.org/path"),
        ("--server-public-url", "https://user@registry.example.org"),
        ("--server-trusted-proxies", "10.0.0.0/8,proxy"),
        ("--ops-listen", "of"),
        ("--data", ""),
    ] {
        let argument: &'static str = format!("{flag}={value}").leak();
        let found = flags(&[argument]).problems();
        assert_eq!(found.len(), 1, "{argument}: {found:?}");
        assert!(found[0].starts_with(&format!("{flag}: ")), "{found:?}");
        let variable = format!("ORLOP_{}", flag[2..].replace('-', "_").to_uppercase());
        let by_variable = Case {
            variables: vec![(variable.leak(), value)],
            ..Case::default()
        };
        assert_eq!(by_variable.problems().len(), 1, "{argument}");
    }
    for (flag, value) in [("--disk-backend", "tape"), ("--log-format", "xml")] {
        assert!(Line::try_parse_from(["orlop", flag, value]).is_err());
    }
}

#[test]
fn variables_of_others_are_noted_and_harmless() {
    let case = Case {
        variables: vec![
            ("ORLOP_CACHE", "/tmp/cache"),
            ("ORLOP_NO_APT", "1"),
            ("ORLOP_JOBS", "2"),
            ("ORLOP_TEST_PEER", "x"),
            ("ORLOP_PORT", "tcp://10.0.0.1:5000"),
            ("ORLOP_PORT_5000_TCP_ADDR", "10.0.0.1"),
            ("ORLOP_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ],
        ..Case::default()
    };
    let loaded = case.load();
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.notes.len(), 7);
    let cache = loaded.notes.first().unwrap().to_string();
    assert!(cache.ends_with("did you mean ORLOP_CACHE_SIZE?"), "{cache}");
}

#[test]
fn a106_the_file_itself_may_be_the_problem() {
    let folder = tempfile::tempdir().unwrap();
    let read = |path: &Path| {
        let args = ServeArgs {
            file: FileArgs {
                config: Some(path.to_owned()),
            },
            ..ServeArgs::default()
        };
        let around = Surroundings {
            variables: Vec::new(),
            default_file: folder.path().join("none"),
            folder: folder.path().to_owned(),
        };
        Loaded::read(&args, &around).problems
    };
    let path = folder.path().join("a.toml");
    let name = path.display().to_string();
    let expect = |start: &str| {
        let found = read(&path);
        assert_eq!(found.len(), 1, "{found:?}");
        let line = found[0].to_string();
        assert!(line.starts_with(&format!("{name}{start}")), "{line}");
        line
    };
    assert!(expect(": cannot read").ends_with("--config names it"));
    std::fs::create_dir(&path).unwrap();
    expect(": cannot read");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"# ok\ndata = \"\xff\"\n").unwrap();
    expect(":2:9: is not UTF-8");
    std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    expect(": is larger than");
    std::fs::write(&path, format!("data = {}", "[".repeat(100_000))).unwrap();
    let found = read(&path);
    assert!((1..5).contains(&found.len()), "{found:?}");
    assert!(
        found[0]
            .to_string()
            .starts_with(&format!("{name}:1:88: not TOML: "))
    );
    std::fs::write(&path, "x\n".repeat(10_000)).unwrap();
    assert!(read(&path).len() < 40);
    std::fs::write(&path, "").unwrap();
    assert_eq!(read(&path), []);
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0", 0),
        ("1024", 1024),
        ("1k", 1024),
        ("2 MiB", 2 << 20),
        ("3GB", 3 << 30),
        ("1t", 1 << 40),
    ] {
        assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        assert_eq!(Size(bytes).show().parse(), Ok(Size(bytes)), "{text}");
    }
    for text in [
        "",
        "x",
        "-1",
        "1.5G",
        "1X",
        "G",
        "99999999999999999999",
        "99999999999T",
    ] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
}

#[test]
fn what_is_shown_can_be_written() {
    fn holds<T: Kind + PartialEq + std::fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let value = T::from_text(text).unwrap();
            assert_eq!(T::from_text(&value.show()), Ok(value), "{text}");
        }
    }
    holds::<kind::Time>(&["90s", "1h 30m", "0s", "30d"]);
    holds::<network::Address>(&["localhost:1", "[::1]:0"]);
    holds::<network::AddressOrOff>(&["off", "127.0.0.1:1"]);
    holds::<network::Networks>(&["10.0.0.0/8,::1"]);
    holds::<network::PublicUrl>(&["http://[::1]:5000/"]);
    holds::<Choice>(&["auto", "uring", "pool"]);
    holds::<LogFormat>(&["text", "json"]);
    holds::<bool>(&["true", "0"]);
}

/// A row of the table in `docs/operating.md`.
fn row(entry: &dyn table::Entry) -> String {
    let key = entry.key();
    let (flag, value) = (table::flag(key), entry.value());
    let flag = match entry.form() {
        kind::Form::Switch => format!("--{flag}[={value}]"),
        _ => format!("--{flag} {value}"),
    };
    let default = entry.default_text();
    let variable = table::variable(key);
    format!(
        "| `{key}` | `{flag}` | `{variable}` | {default} | {} |",
        entry.help()
    )
}

#[test]
fn the_manual_has_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md");
    let page = std::fs::read_to_string(path).unwrap();
    let expected: Vec<_> = ALL.iter().map(|entry| row(*entry)).collect();
    let found: Vec<_> = page
        .lines()
        .filter(|line| line.contains("` | `ORLOP_"))
        .collect();
    assert_eq!(
        found,
        expected,
        "the table should be\n{}",
        expected.join("\n")
    );
}
