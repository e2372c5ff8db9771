//! Settings of the server: as written, then resolved and checked once.
//!
//! A flag wins over its variable, which wins over the file, which wins over
//! the default. [`table`] says which settings there are; [`sources`] what was
//! written where; [`Settings`] is what everything else uses. All problems are
//! found in one pass, and each names its place.
//!
//! Refuses to know: whether a file that a setting names is there, and whether
//! an address is free. `orlop doctor` looks, and the start finds out.

mod args;
mod file;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod kind;
mod machine;
mod network;
mod problem;
mod schedule;
mod schema;
mod sources;
mod suggest;
mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use orlop_disk::Choice;
use serde::Serialize;

pub use args::{DataArgs, FileArgs, Flags, ServeArgs};
pub use kind::{LogFormat, Size};
pub use machine::memory_limit;
pub use problem::{Origin, Position, Problem, SettingsError};
pub use schema::schema;

use crate::collection::Untagged;
use crate::jobs::Cron;
use sources::{Sources, Surroundings};
use table::ALL;

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
    /// slash at its end; None: addresses are paths.
    pub public_url: Option<String>,
    /// Proxies that are believed about who their client is.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate and key, if TLS is spoken.
    pub tls: Option<TlsFiles>,
    /// Where metrics and health are served besides; None: nowhere.
    pub ops_listen: Option<SocketAddr>,
    /// How long a deleted row can be brought back.
    pub undelete_window: Duration,
    /// How long what nothing reaches stays.
    pub untagged: Untagged,
    /// When garbage is collected by itself; None: never.
    pub gc_schedule: Option<Cron>,
    /// How long a collection may go on; None: until it is done.
    pub gc_limit: Option<Duration>,
    /// How long an upload waits for its client.
    pub upload_expiry: Duration,
    /// Whether manifests may name blobs or manifests which are not here.
    pub sparse_manifests: bool,
    /// When a scrub begins by itself; None: never.
    pub scrub_schedule: Option<Cron>,
    /// Bytes that it reads in a second at most.
    pub scrub_rate: u64,
    /// Whether it checks digests too.
    pub scrub_digests: bool,
}

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
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
            cache_size: machine::CACHE_MIN,
            log_format: LogFormat::Text,
            log_level: "warn".to_owned(),
            drain: Duration::ZERO,
            public_url: None,
            trusted_proxies: Vec::new(),
            tls: None,
            ops_listen: None,
            undelete_window: Duration::from_secs(24 * 3600),
            untagged: Untagged::default(),
            gc_schedule: None,
            gc_limit: None,
            upload_expiry: Duration::from_secs(24 * 3600),
            sparse_manifests: false,
            scrub_schedule: None,
            scrub_rate: orlop_engine::config::BACKGROUND_RATE,
            scrub_digests: false,
        }
    }
}

/// A setting's value and where it comes from, for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its place in the file.
    pub key: &'static str,
    /// Its value, as it could be written.
    #[serde(skip)]
    pub text: String,
    /// The same for programs: sizes are numbers of bytes, what is unset is null.
    pub value: serde_json::Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// Settings that were read, and what is wrong with them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is wrong. While there is anything, no server starts.
    pub problems: Vec<Problem>,
    /// What is odd, and harmless.
    pub notes: Vec<Problem>,
    sources: Sources,
    settings: Settings,
}

impl Loaded {
    /// Reads the settings of a command line, in the surroundings of this
    /// process.
    pub fn new(args: &ServeArgs) -> Loaded {
        let mut problems = Vec::new();
        let around = Surroundings::of_process(&mut problems);
        let mut loaded = Loaded::read(args, &around);
        problems.append(&mut loaded.problems);
        Loaded { problems, ..loaded }
    }

    fn read(args: &ServeArgs, around: &Surroundings) -> Loaded {
        let (mut problems, mut notes) = (Vec::new(), Vec::new());
        let flags = args.flags.clone();
        let sources = Sources::read(flags, &args.file, around, &mut problems, &mut notes);
        let settings = resolve(&sources, args.insecure_anonymous, &mut problems);
        Loaded {
            problems,
            notes,
            sources,
            settings,
        }
    }

    /// The settings, if nothing is wrong with them.
    ///
    /// # Errors
    /// All problems.
    pub fn checked(&self) -> Result<Settings, SettingsError> {
        if self.problems.is_empty() {
            Ok(self.settings.clone())
        } else {
            Err(SettingsError(self.problems.clone()))
        }
    }

    /// The settings with defaults where something is wrong, to look at what
    /// can be looked at.
    pub fn unchecked(&self) -> &Settings {
        &self.settings
    }

    /// Whether nobody has written which data folder is meant.
    pub fn is_data_default(&self) -> bool {
        let data = self.sources.get(&table::DATA, &mut Vec::new());
        data.origin == Origin::Default
    }

    /// The file that was read, if one was.
    pub fn file(&self) -> Option<&std::path::Path> {
        self.sources.file()
    }

    /// Every setting, its value and where that comes from.
    pub fn show(&self) -> Vec<Shown> {
        ALL.iter()
            .map(|entry| {
                let (text, value, origin) = entry.show(&self.sources);
                Shown {
                    key: entry.key(),
                    text,
                    value,
                    origin,
                }
            })
            .collect()
    }
}

/// The data folder, absolute, whether it exists or not.
///
/// # Errors
/// When what was written cannot be read. Values of other settings do not
/// matter here.
pub fn data_folder(args: &DataArgs) -> Result<PathBuf, SettingsError> {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let around = Surroundings::of_process(&mut problems);
    let flag = args.data.clone().map(|data| (table::DATA.key, data.into()));
    let flags = Flags(flag.into_iter().collect());
    let sources = Sources::read(flags, &args.file, &around, &mut problems, &mut notes);
    let data = sources.get(&table::DATA, &mut problems).value.0;
    if problems.is_empty() {
        Ok(data)
    } else {
        Err(SettingsError(problems))
    }
}

/// Makes settings of what was written. Where there are problems, what comes
/// back holds defaults instead.
fn resolve(sources: &Sources, insecure_anonymous: bool, problems: &mut Vec<Problem>) -> Settings {
    let listen = sources.get(&table::LISTEN, problems);
    let ops_listen = sources.get(&table::OPS_LISTEN, problems);
    let certificate = sources.get(&table::TLS_CERTIFICATE, problems);
    let key = sources.get(&table::TLS_KEY, problems);
    let settings = Settings {
        data: sources.get(&table::DATA, problems).value.0,
        listen: listen.value.0,
        gc_lease: sources.get(&table::GC_LEASE, problems).value.0,
        disk_backend: sources.get(&table::DISK_BACKEND, problems).value,
        space_reserve: sources
            .get(&table::SPACE_RESERVE, problems)
            .value
            .map(|size| size.0),
        cache_size: sources.get(&table::CACHE_SIZE, problems).value.0,
        log_format: sources.get(&table::LOG_FORMAT, problems).value,
        log_level: sources.get(&table::LOG_LEVEL, problems).value.0,
        drain: sources.get(&table::DRAIN, problems).value.0,
        public_url: sources
            .get(&table::PUBLIC_URL, problems)
            .value
            .map(|url| url.0),
        trusted_proxies: sources.get(&table::TRUSTED_PROXIES, problems).value.0,
        tls: match (&certificate.value, &key.value) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.0.clone(),
                key: key.0.clone(),
            }),
            _ => None,
        },
        ops_listen: ops_listen.value.0,
        undelete_window: sources.get(&table::GC_UNDELETE_WINDOW, problems).value.0,
        untagged: sources.get(&table::GC_UNTAGGED, problems).value.0,
        gc_schedule: sources.get(&table::GC_SCHEDULE, problems).value.0,
        gc_limit: sources
            .get(&table::GC_LIMIT, problems)
            .value
            .map(|limit| limit.0),
        upload_expiry: sources.get(&table::GC_UPLOAD_EXPIRY, problems).value.0,
        sparse_manifests: sources.get(&table::PUSH_SPARSE_MANIFESTS, problems).value,
        scrub_schedule: sources.get(&table::SCRUB_SCHEDULE, problems).value.0,
        scrub_rate: sources.get(&table::SCRUB_RATE, problems).value.0,
        scrub_digests: sources.get(&table::SCRUB_DIGESTS, problems).value,
    };
    // Values against each other, where each is what it was meant to be.
    let is_sound = |keys: &[&str]| {
        let touches = |problem: &Problem| match &problem.key {
            Some(key) => keys.iter().any(|prefix| key.starts_with(prefix)),
            None => true,
        };
        !problems.iter().any(touches)
    };
    let mut found = Vec::new();
    if is_sound(&["listen", "ops"]) {
        if !insecure_anonymous {
            found.extend(exposed(&settings, &listen.origin, &ops_listen.origin));
        }
        found.extend(clash(&settings, &ops_listen.origin));
    }
    if is_sound(&["tls"]) {
        found.extend(alone(
            (certificate.value.is_some(), &certificate.origin),
            (key.value.is_some(), &key.origin),
        ));
    }
    problems.append(&mut found);
    settings
}

/// Addresses that others can reach, without accounts to keep them out.
fn exposed(settings: &Settings, listen: &Origin, ops_listen: &Origin) -> Vec<Problem> {
    let is_open = |address: &SocketAddr| !address.ip().is_loopback();
    let mut problems = Vec::new();
    if is_open(&settings.listen) {
        let message = format!(
            "{} can be reached by others, and there are no accounts yet: whoever reaches it may read, write and fill the disk",
            settings.listen
        );
        problems.push(
            Problem::new(listen.clone(), message).key(table::LISTEN.key).hint(
                "listen on 127.0.0.1 behind something that asks who is there, or pass --insecure-anonymous if this is a lab",
            ),
        );
    }
    if let Some(address) = settings.ops_listen.filter(is_open) {
        let message = format!("{address} can be reached by others, and there are no accounts yet");
        problems.push(
            Problem::new(ops_listen.clone(), message)
                .key(table::OPS_LISTEN.key)
                .hint("listen on 127.0.0.1, write off, or pass --insecure-anonymous"),
        );
    }
    problems
}

/// A certificate without a key, or a key without a certificate.
fn alone(certificate: (bool, &Origin), key: (bool, &Origin)) -> Option<Problem> {
    let (origin, key, missing) = match (certificate, key) {
        ((true, origin), (false, _)) => (origin, &table::TLS_CERTIFICATE, &table::TLS_KEY),
        ((false, _), (true, origin)) => (origin, &table::TLS_KEY, &table::TLS_CERTIFICATE),
        _ => return None,
    };
    Some(
        Problem::new(
            origin.clone(),
            format!("stands alone, without {}", missing.key),
        )
        .key(key.key)
        .hint("set both, or neither"),
    )
}

/// Two listeners on one address, or one of them on all.
fn clash(settings: &Settings, ops_listen: &Origin) -> Option<Problem> {
    let address = settings.ops_listen?;
    (address.port() == settings.listen.port()
        && address.port() != 0
        && overlap(address.ip(), settings.listen.ip()))
    .then(|| {
        Problem::new(
            ops_listen.clone(),
            format!(
                "{address} is where the registry listens, on {}",
                settings.listen
            ),
        )
        .key(table::OPS_LISTEN.key)
        .hint("choose another port for one of them, or write off")
    })
}

/// Whether both cannot be listened on with one port. All addresses of IPv6 are
/// those of IPv4 too.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let takes = |all: IpAddr, other: IpAddr| {
        all.is_unspecified() && (all.is_ipv6() || other.to_canonical().is_ipv4())
    };
    let (one, other) = (one.to_canonical(), other.to_canonical());
    one == other || takes(one, other) || takes(other, one)
}
