//! Settings: as written on the command line or in the environment, then
//! resolved and checked once.
//!
//! A flag wins over its variable, which wins over the default. Every setting
//! has a variable: `ORLOP_` and its path in upper case. `--insecure-anonymous`
//! has none, so that it is never inherited by accident.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use orlop_disk::Choice;

/// Where a service keeps its data.
const SERVICE_DATA: &str = "/var/lib/orlop";
/// Where anything else does, below the working folder.
const LOCAL_DATA: &str = "orlop-data";
/// The smallest cache, so that a zero is no surprise.
const CACHE_MIN: u64 = 8 * MIB;
/// The fraction of the machine's memory, or of the control group's limit, that
/// the cache may take by default.
const CACHE_FRACTION: u64 = 4;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The data folder, for every command that works on one.
#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    /// Data folder [default: /var/lib/orlop for a service, else ./orlop-data]
    #[arg(long, value_name = "DIR", env = "ORLOP_DATA")]
    pub data: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of the server, as written.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// The data folder.
    #[command(flatten)]
    pub data: DataArgs,

    /// Address and port to listen on; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "ORLOP_LISTEN",
        default_value = "127.0.0.1:5000"
    )]
    pub listen: String,

    /// How long an answer "this blob is here" holds against collection
    #[arg(
        long,
        value_name = "TIME",
        env = "ORLOP_GC_LEASE",
        default_value = "1h"
    )]
    pub gc_lease: humantime::Duration,

    /// What moves bytes to and from the disk: auto, uring or pool
    #[arg(
        long,
        value_name = "NAME",
        env = "ORLOP_DISK_BACKEND",
        default_value = "auto"
    )]
    pub disk_backend: String,

    /// Free space below which pushes are refused, such as 10GiB [default: the larger of 1 GiB and 2 %]
    #[arg(long, value_name = "SIZE", env = "ORLOP_SPACE_RESERVE")]
    pub space_reserve: Option<Size>,

    /// Memory for hot content, such as 1GiB [default: a quarter of the machine's memory or of the control group's limit]
    #[arg(long, value_name = "SIZE", env = "ORLOP_CACHE_SIZE")]
    pub cache_size: Option<Size>,

    /// How log lines are written
    #[arg(
        long,
        value_name = "FORMAT",
        env = "ORLOP_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or targets such as info,access=off
    #[arg(
        long,
        value_name = "FILTER",
        env = "ORLOP_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: String,

    /// How long requests under way may take to finish after a stop signal
    #[arg(long, value_name = "TIME", env = "ORLOP_DRAIN", default_value = "30s")]
    pub drain: humantime::Duration,

    /// The address that clients reach this server by, such as https://registry.example.org; put into answers that name an address
    #[arg(long, value_name = "URL", env = "ORLOP_SERVER_PUBLIC_URL")]
    pub server_public_url: Option<String>,

    /// Networks of proxies whose X-Forwarded-For is believed for the log, such as 10.0.0.0/8
    #[arg(
        long,
        value_name = "NET",
        env = "ORLOP_SERVER_TRUSTED_PROXIES",
        value_delimiter = ','
    )]
    pub server_trusted_proxies: Vec<IpNet>,

    /// Certificate chain in PEM; with --tls-key the server speaks TLS
    #[arg(long, value_name = "FILE", env = "ORLOP_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,

    /// Private key in PEM
    #[arg(long, value_name = "FILE", env = "ORLOP_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Address and port for metrics and health, or off
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "ORLOP_OPS_LISTEN",
        default_value = "127.0.0.1:5001"
    )]
    pub ops_listen: String,

    /// How long what was deleted can be brought back
    #[arg(
        long,
        value_name = "TIME",
        env = "ORLOP_GC_UNDELETE_WINDOW",
        default_value = "24h"
    )]
    pub gc_undelete_window: humantime::Duration,

    /// Accept manifests that name blobs and manifests which are not here
    #[arg(long, env = "ORLOP_PUSH_SPARSE_INDEX")]
    pub push_sparse_index: bool,

    /// Let everyone do everything, on any address. For labs and benchmarks
    #[arg(long)]
    pub insecure_anonymous: bool,
}

/// Settings of the server, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data folder, absolute.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How long a lease holds.
    pub gc_lease: Duration,
    /// What was asked to move bytes.
    pub disk_backend: Choice,
    /// Bytes kept free of pushes; None for the default, which depends on the
    /// file system.
    pub space_reserve: Option<u64>,
    /// Bytes of memory for hot content.
    pub cache_size: u64,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
    /// How long draining may take.
    pub drain: Duration,
    /// Scheme and authority for absolute addresses in answers, without a
    /// slash at its end; None: of the accepted connection.
    pub public_url: Option<String>,
    /// Proxies that are believed about who their client is.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate and key, if TLS is spoken.
    pub tls: Option<TlsFiles>,
    /// Where metrics and health are served besides; None: nowhere.
    pub ops_listen: Option<SocketAddr>,
    /// How long a deleted row can be brought back.
    pub undelete_window: Duration,
    /// Whether manifests may name blobs and manifests which are not here.
    pub sparse_index: bool,
}

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not an address and port.
    #[error("--listen {0:?} is not an address and port such as 127.0.0.1:5000 or [::1]:5000")]
    Listen(String),
    /// An address others can reach, without accounts to keep them out.
    #[error(
        "--listen {0} can be reached by others, and there are no accounts yet: whoever reaches it may read, write and fill the disk. Listen on 127.0.0.1 behind something that asks who is there, or pass --insecure-anonymous if this is a lab"
    )]
    Exposed(SocketAddr),
    /// Not a backend.
    #[error("--disk-backend: {0}")]
    Backend(String),
    /// A lease that protects nothing, or for ever.
    #[error("--gc-lease {0} is out of range: use 1m to 30d")]
    Lease(humantime::Duration),
    /// Too little memory to work with.
    #[error("--cache-size {0} bytes is too small: use 8MiB or more")]
    Cache(u64),
    /// Longer than a stop may take.
    #[error("--drain {0} is out of range: use 0s to 1h")]
    Drain(humantime::Duration),
    /// An address others can reach for what tells about the server.
    #[error(
        "--ops-listen {0} can be reached by others, and there are no accounts yet; listen on 127.0.0.1, pass off, or pass --insecure-anonymous"
    )]
    OpsExposed(SocketAddr),

    /// Only one of the two.
    #[error("--tls-certificate and --tls-key go together: set both, or neither")]
    Tls,

    /// Not an address of a server.
    #[error(
        "--server-public-url {0:?} is not an address such as https://registry.example.org or http://10.0.0.5:5000, without a path"
    )]
    PublicUrl(String),

    /// Longer or shorter than makes sense.
    #[error("--gc-undelete-window {0} is out of range: use 0s to 365d")]
    UndeleteWindow(humantime::Duration),

    /// The working folder is gone.
    #[error("cannot find the working folder: {0}; pass --data with an absolute path")]
    WorkingFolder(String),
}

impl Settings {
    /// Settings for work on a stopped store.
    pub fn stopped(data: PathBuf) -> Settings {
        Settings {
            data,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            gc_lease: Duration::from_secs(3600),
            disk_backend: Choice::Pool,
            space_reserve: None,
            cache_size: CACHE_MIN,
            log_format: LogFormat::Text,
            log_level: "warn".to_owned(),
            drain: Duration::ZERO,
            public_url: None,
            trusted_proxies: Vec::new(),
            tls: None,
            ops_listen: None,
            undelete_window: Duration::from_secs(24 * 3600),
            sparse_index: false,
        }
    }

    /// Checks and completes what was written.
    pub fn resolve(args: &ServeArgs) -> Result<Settings, SettingsError> {
        let listen = parse_listen(&args.listen)?;
        if !listen.ip().is_loopback() && !args.insecure_anonymous {
            return Err(SettingsError::Exposed(listen));
        }
        let lease = *args.gc_lease;
        if !(Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600)).contains(&lease) {
            return Err(SettingsError::Lease(args.gc_lease));
        }
        if *args.drain > Duration::from_secs(3600) {
            return Err(SettingsError::Drain(args.drain));
        }
        let cache_size = match args.cache_size {
            Some(Size(bytes)) if bytes < CACHE_MIN => return Err(SettingsError::Cache(bytes)),
            Some(Size(bytes)) => bytes,
            None => default_cache(memory_limit().unwrap_or(u64::MAX).min(machine_memory())),
        };
        Ok(Settings {
            data: data_folder(&args.data)?,
            listen,
            gc_lease: lease,
            disk_backend: Choice::from_str(&args.disk_backend).map_err(SettingsError::Backend)?,
            space_reserve: args.space_reserve.map(|size| size.0),
            cache_size,
            log_format: args.log_format,
            log_level: args.log_level.clone(),
            drain: *args.drain,
            public_url: args
                .server_public_url
                .as_deref()
                .map(parse_public_url)
                .transpose()?,
            trusted_proxies: args.server_trusted_proxies.clone(),
            tls: match (&args.tls_certificate, &args.tls_key) {
                (None, None) => None,
                (Some(certificate), Some(key)) => Some(TlsFiles {
                    certificate: certificate.clone(),
                    key: key.clone(),
                }),
                _ => return Err(SettingsError::Tls),
            },
            ops_listen: parse_ops_listen(&args.ops_listen, args.insecure_anonymous)?,
            undelete_window: match *args.gc_undelete_window {
                window if window > Duration::from_secs(365 * 24 * 3600) => {
                    return Err(SettingsError::UndeleteWindow(args.gc_undelete_window));
                }
                window => window,
            },
            sparse_index: args.push_sparse_index,
        })
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, SettingsError> {
    let malformed = || SettingsError::Listen(text.to_owned());
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| malformed())?;
        return Ok((IpAddr::from(Ipv4Addr::LOCALHOST), port).into());
    }
    text.parse().map_err(|_| malformed())
}

fn parse_ops_listen(text: &str, exposed: bool) -> Result<Option<SocketAddr>, SettingsError> {
    if text == "off" {
        return Ok(None);
    }
    let address = parse_listen(text)?;
    if !address.ip().is_loopback() && !exposed {
        return Err(SettingsError::OpsExposed(address));
    }
    Ok(Some(address))
}

/// Scheme and authority alone.
fn parse_public_url(text: &str) -> Result<String, SettingsError> {
    let malformed = || SettingsError::PublicUrl(text.to_owned());
    let uri: http::Uri = text.parse().map_err(|_| malformed())?;
    let scheme = uri.scheme_str().ok_or_else(malformed)?;
    let authority = uri.authority().ok_or_else(malformed)?;
    let is_plain = matches!(scheme, "http" | "https")
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !authority.as_str().contains('@');
    if is_plain {
        Ok(format!("{scheme}://{authority}"))
    } else {
        Err(malformed())
    }
}

/// The data folder as an absolute path, whether it exists or not.
pub fn data_folder(args: &DataArgs) -> Result<PathBuf, SettingsError> {
    let path = match &args.data {
        Some(path) => path.clone(),
        None if is_service() && is_writable(Path::new(SERVICE_DATA)) => SERVICE_DATA.into(),
        None => LOCAL_DATA.into(),
    };
    std::path::absolute(&path).map_err(|error| SettingsError::WorkingFolder(error.to_string()))
}

/// Whether a service manager or a container started this process.
fn is_service() -> bool {
    std::process::id() == 1 || std::env::var_os("INVOCATION_ID").is_some()
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(
        path,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )
    .is_ok()
}

fn default_cache(memory: u64) -> u64 {
    (memory / CACHE_FRACTION).max(CACHE_MIN)
}

/// Bytes of memory the machine has.
fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    (info.totalram as u64).saturating_mul(unit)
}

/// Bytes of memory this process may use, if its control group sets a limit.
pub fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let mut folder = root.join(group.trim_start_matches('/'));
    let mut lowest: Option<u64> = None;
    // The limit of each group above counts too.
    loop {
        let limit = std::fs::read_to_string(folder.join("memory.max"))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        lowest = lowest.into_iter().chain(limit).min();
        if folder == root || !folder.pop() {
            return lowest;
        }
    }
}

/// A number of bytes, written with a unit or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let malformed = || format!("{text:?} is not a size such as 512MiB, 10G or 1073741824");
        let end = text
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => KIB,
            "m" | "mb" | "mib" => MIB,
            "g" | "gb" | "gib" => 1024 * MIB,
            "t" | "tb" | "tib" => 1024 * 1024 * MIB,
            _ => return Err(malformed()),
        };
        number.checked_mul(factor).map(Size).ok_or_else(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn resolve(flags: &[&str]) -> Result<Settings, SettingsError> {
        let line = Line::parse_from(std::iter::once(&"orlop").chain(flags));
        Settings::resolve(&line.args)
    }

    #[test]
    fn defaults() {
        let settings = resolve(&["--data", "/tmp/x"]).unwrap();
        assert_eq!(settings.data, Path::new("/tmp/x"));
        assert_eq!(settings.listen, "127.0.0.1:5000".parse().unwrap());
        assert_eq!(settings.gc_lease, Duration::from_secs(3600));
        assert_eq!(settings.disk_backend, Choice::Auto);
        assert_eq!(settings.space_reserve, None);
        assert_eq!(settings.drain, Duration::from_secs(30));
    }

    #[test]
    fn flags() {
        let settings = resolve(&[
            "--data",
            "relative",
            "--listen",
            "[::1]:0",
            "--gc-lease",
            "90s",
            "--disk-backend",
            "pool",
            "--space-reserve",
            "10GiB",
            "--cache-size",
            "64m",
            "--log-format",
            "json",
        ])
        .unwrap();
        assert!(settings.data.is_absolute() && settings.data.ends_with("relative"));
        assert_eq!(settings.listen, "[::1]:0".parse().unwrap());
        assert_eq!(settings.gc_lease, Duration::from_secs(90));
        assert_eq!(settings.disk_backend, Choice::Pool);
        assert_eq!(settings.space_reserve, Some(10 << 30));
        assert_eq!(settings.cache_size, 64 << 20);
        assert_eq!(settings.log_format, LogFormat::Json);
        let local = resolve(&["--listen", "localhost:80"]).unwrap();
        assert_eq!(local.listen, "127.0.0.1:80".parse().unwrap());
    }

    #[test]
    fn others_are_kept_out_unless_told() {
        for address in ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000"] {
            let error = resolve(&["--listen", address]).unwrap_err();
            assert_eq!(error, SettingsError::Exposed(address.parse().unwrap()));
            assert!(error.to_string().contains("--insecure-anonymous"));
            assert!(resolve(&["--listen", address, "--insecure-anonymous"]).is_ok());
        }
    }

    #[test]
    fn a106_what_is_out_of_range_is_refused() {
        for flags in [
            ["--listen", "here"],
            ["--listen", "127.0.0.1"],
            ["--listen", "localhost:99999"],
            ["--gc-lease", "1s"],
            ["--gc-lease", "1y"],
            ["--disk-backend", "tape"],
            ["--cache-size", "1"],
            ["--drain", "2h"],
        ] {
            assert!(resolve(&flags).is_err(), "{flags:?}");
        }
        for flags in [
            ["--gc-lease", "soon"],
            ["--log-format", "xml"],
            ["--space-reserve", "-1"],
        ] {
            let line = std::iter::once("orlop").chain(flags);
            assert!(Line::try_parse_from(line).is_err(), "{flags:?}");
        }
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
    fn the_cache_leaves_memory_to_others() {
        assert_eq!(default_cache(400 * MIB), 100 * MIB);
        assert_eq!(default_cache(1), CACHE_MIN);
        assert!(machine_memory() > 64 * MIB);
    }
}
