//! The table of settings: the one place that says which there are.
//!
//! Flags, variables, keys of the file, help, the JSON schema and what `config
//! show` prints are all made from it, and tests hold `docs/operating.md` and
//! the example file to it. A new setting is an entry here, a name in [`ALL`],
//! and a field of `Settings`.
//!
//! `--insecure-anonymous` is no setting: it is a flag only, so that it is never
//! inherited from a file or an environment.

use orlop_disk::Choice;
use orlop_engine::config::BACKGROUND_RATE;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use super::kind::{Filter, Form, Kind, LogFormat, Place, Size, Time};
use super::machine;
use super::network::{Address, AddressOrOff, Networks, PublicUrl};
use super::problem::Origin;
use super::schedule::{Keep, Times};
use super::sources::Sources;
use crate::collection::Untagged;
use crate::jobs::Cron;

/// One setting.
pub(crate) struct Setting<T> {
    /// Where it stands in the file, such as `gc.lease`.
    pub(crate) key: &'static str,
    /// What its value is called in help.
    pub(crate) value: &'static str,
    /// What it means.
    pub(crate) help: &'static str,
    /// Its value where nobody writes one.
    pub(crate) default: fn() -> T,
    /// What the default is, where it is not the same everywhere.
    pub(crate) default_note: Option<&'static str>,
    /// What a value of the right kind must keep to.
    pub(crate) range: fn(&T) -> Result<(), String>,
}

/// Any value of the kind will do.
fn any<T>(_: &T) -> Result<(), String> {
    Ok(())
}

/// Data folder.
pub(crate) static DATA: Setting<Place> = Setting {
    key: "data",
    value: "DIR",
    help: "Data folder",
    default: || Place(machine::data_folder()),
    default_note: Some(
        "/var/lib/orlop if a store is there or for a service that may write there, else ./orlop-data",
    ),
    range: any,
};

/// Where the registry listens.
pub(crate) static LISTEN: Setting<Address> = Setting {
    key: "listen",
    value: "ADDR:PORT",
    help: "Address and port of the registry; port 0 takes a free one, which is printed",
    default: || Address::loopback(5000),
    default_note: None,
    range: any,
};

/// How long draining may take.
pub(crate) static DRAIN: Setting<Time> = Setting {
    key: "drain",
    value: "TIME",
    help: "How long requests under way may take to finish after a stop signal; at most 1h",
    default: || Time::seconds(30),
    default_note: None,
    range: |time| time.within(Time::seconds(0), Time::hours(1)),
};

/// Scheme and authority of absolute addresses.
pub(crate) static PUBLIC_URL: Setting<Option<PublicUrl>> = Setting {
    key: "server.public_url",
    value: "URL",
    help: "Address that clients reach this server by, such as https://registry.example.org, for answers that name an address",
    default: || None,
    default_note: Some("the address of the connection"),
    range: any,
};

/// Proxies that are believed.
pub(crate) static TRUSTED_PROXIES: Setting<Networks> = Setting {
    key: "server.trusted_proxies",
    value: "NET",
    help: "Networks of proxies whose X-Forwarded-For is believed for the log, such as 10.0.0.0/8",
    default: Networks::default,
    default_note: Some("none"),
    range: any,
};

/// Certificate chain.
pub(crate) static TLS_CERTIFICATE: Setting<Option<Place>> = Setting {
    key: "tls.certificate",
    value: "FILE",
    help: "Certificate chain in PEM, the server's own first; with tls.key the server speaks TLS",
    default: || None,
    default_note: Some("none"),
    range: any,
};

/// Private key.
pub(crate) static TLS_KEY: Setting<Option<Place>> = Setting {
    key: "tls.key",
    value: "FILE",
    help: "Private key in PEM",
    default: || None,
    default_note: Some("none"),
    range: any,
};

/// Where metrics and health are.
pub(crate) static OPS_LISTEN: Setting<AddressOrOff> = Setting {
    key: "ops.listen",
    value: "ADDR:PORT",
    help: "Address and port for metrics and health, or off",
    default: || AddressOrOff(Some(Address::loopback(5001).0)),
    default_note: None,
    range: any,
};

/// How long a lease holds.
pub(crate) static GC_LEASE: Setting<Time> = Setting {
    key: "gc.lease",
    value: "TIME",
    help: "How long the answer \"this blob is here\" holds against collection; 1m to 30d",
    default: || Time::hours(1),
    default_note: None,
    range: |time| time.within(Time::seconds(60), Time::days(30)),
};

/// How long deleted rows stay.
pub(crate) static GC_UNDELETE_WINDOW: Setting<Time> = Setting {
    key: "gc.undelete_window",
    value: "TIME",
    help: "How long what was deleted can be brought back; at most 365d",
    default: || Time::hours(24),
    default_note: None,
    range: |time| time.within(Time::seconds(0), Time::days(365)),
};

/// How long what nothing reaches stays.
pub(crate) static GC_UNTAGGED: Setting<Keep> = Setting {
    key: "gc.untagged",
    value: "TIME",
    help: "How long a manifest stays that no tag, index or subject reaches, after it was pushed, lost a tag or was pulled last, whichever is latest, before it is deleted; keep, or 1m or more, and never shorter than gc.lease; for some repositories another time, by patterns: keep,ci/**=7d",
    default: || Keep(Untagged::default()),
    default_note: None,
    range: |keep| keep.within(Time::seconds(60), Time::days(3650)),
};

/// When a collection begins by itself.
pub(crate) static GC_SCHEDULE: Setting<Times> = Setting {
    key: "gc.schedule",
    value: "CRON",
    help: "When garbage is collected by itself: a cron pattern in UTC, or off; nothing is done where nothing changed",
    default: || Times(Cron::parse("*/15 * * * *").ok()),
    default_note: None,
    range: any,
};

/// How long one may take.
pub(crate) static GC_LIMIT: Setting<Option<Time>> = Setting {
    key: "gc.limit",
    value: "TIME",
    help: "How long a collection may go on before it leaves the rest to the next one; 1m or more",
    default: || None,
    default_note: Some("none: until it is done"),
    range: |limit| match limit {
        Some(time) => time.within(Time::seconds(60), Time::days(365)),
        None => Ok(()),
    },
};

/// How long uploads wait for their clients.
pub(crate) static GC_UPLOAD_EXPIRY: Setting<Time> = Setting {
    key: "gc.upload_expiry",
    value: "TIME",
    help: "How long an upload waits for its client to go on; 1h to 30d",
    default: || Time::hours(24),
    default_note: None,
    range: |time| time.within(Time::hours(1), Time::days(30)),
};

/// Whether manifests may be sparse.
pub(crate) static PUSH_SPARSE_MANIFESTS: Setting<bool> = Setting {
    key: "push.sparse_manifests",
    value: "BOOL",
    help: "Accept manifests that name blobs or manifests which are not here",
    default: || false,
    default_note: None,
    range: any,
};

/// What moves bytes.
pub(crate) static DISK_BACKEND: Setting<Choice> = Setting {
    key: "disk.backend",
    value: "NAME",
    help: "What moves bytes to and from the disk: uring, pool, or auto: io_uring where it works, else the pool",
    default: || Choice::Auto,
    default_note: None,
    range: any,
};

/// Bytes kept from pushes.
pub(crate) static SPACE_RESERVE: Setting<Option<Size>> = Setting {
    key: "space.reserve",
    value: "SIZE",
    help: "Free space below which pushes are refused; deletes and collection may use it",
    default: || None,
    default_note: Some("the larger of 1GiB and 2 %"),
    range: any,
};

/// Bytes of cache.
pub(crate) static CACHE_SIZE: Setting<Size> = Setting {
    key: "cache.size",
    value: "SIZE",
    help: "Memory for hot content, taken as it is used; 8MiB or more",
    default: || Size(machine::cache_size()),
    default_note: Some("a quarter of the machine's memory or of the control group's limit"),
    range: |size| {
        if size.0 < machine::CACHE_MIN {
            return Err(format!("{} is too small: use 8MiB or more", size.show()));
        }
        Ok(())
    },
};

/// When a scrub begins by itself.
pub(crate) static SCRUB_SCHEDULE: Setting<Times> = Setting {
    key: "scrub.schedule",
    value: "CRON",
    help: "When what is stored is read to find damage: a cron pattern in UTC, put off by up to an hour, or off",
    default: || Times(Cron::parse("0 3 * * 0").ok()),
    default_note: None,
    range: any,
};

/// How fast it reads.
pub(crate) static SCRUB_RATE: Setting<Size> = Setting {
    key: "scrub.rate",
    value: "SIZE",
    help: "Bytes that a scrub reads in a second at most; 1MiB or more",
    default: || Size(BACKGROUND_RATE),
    default_note: None,
    range: |size| {
        if size.0 < SCRUB_RATE_MIN {
            return Err(format!("{} is too slow: use 1MiB or more", size.show()));
        }
        Ok(())
    },
};

/// Whether it hashes.
pub(crate) static SCRUB_DIGESTS: Setting<bool> = Setting {
    key: "scrub.digests",
    value: "BOOL",
    help: "Whether a scrub also checks the content of each blob against its digest, for which it reads everything twice",
    default: || false,
    default_note: None,
    range: any,
};

/// The least of `scrub.rate`.
const SCRUB_RATE_MIN: u64 = 1024 * 1024;

/// How log lines are written.
pub(crate) static LOG_FORMAT: Setting<LogFormat> = Setting {
    key: "log.format",
    value: "FORMAT",
    help: "How log lines are written: text or json",
    default: || LogFormat::Text,
    default_note: None,
    range: any,
};

/// What is logged.
pub(crate) static LOG_LEVEL: Setting<Filter> = Setting {
    key: "log.level",
    value: "FILTER",
    help: "What is logged: error, warn, info, debug, trace, or by target: info,access=off",
    default: || Filter("info".to_owned()),
    default_note: None,
    range: any,
};

/// Every setting, in the order in which help and `config show` list them.
pub(crate) const ALL: &[&dyn Entry] = &[
    &DATA,
    &LISTEN,
    &DRAIN,
    &PUBLIC_URL,
    &TRUSTED_PROXIES,
    &TLS_CERTIFICATE,
    &TLS_KEY,
    &OPS_LISTEN,
    &GC_LEASE,
    &GC_UNDELETE_WINDOW,
    &GC_UNTAGGED,
    &GC_SCHEDULE,
    &GC_LIMIT,
    &GC_UPLOAD_EXPIRY,
    &PUSH_SPARSE_MANIFESTS,
    &DISK_BACKEND,
    &SPACE_RESERVE,
    &CACHE_SIZE,
    &SCRUB_SCHEDULE,
    &SCRUB_RATE,
    &SCRUB_DIGESTS,
    &LOG_FORMAT,
    &LOG_LEVEL,
];

/// A setting's flag, without dashes.
pub(crate) fn flag(key: &str) -> String {
    key.replace(['.', '_'], "-")
}

/// A setting's variable.
pub(crate) fn variable(key: &str) -> String {
    format!("ORLOP_{}", key.replace('.', "_").to_uppercase())
}

/// A setting of any kind.
pub(crate) trait Entry: Sync {
    fn key(&self) -> &'static str;
    fn value(&self) -> &'static str;
    fn help(&self) -> &'static str;
    fn default_text(&self) -> String;
    fn form(&self) -> Form;
    fn choices(&self) -> &'static [&'static str];
    fn hint(&self) -> clap::ValueHint;
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema;
    /// Its value with these sources, as text and for programs, and where that
    /// comes from.
    fn show(&self, sources: &Sources) -> (String, Value, Origin);
}

impl<T: Kind> Entry for Setting<T> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn value(&self) -> &'static str {
        self.value
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn default_text(&self) -> String {
        self.default_note
            .map_or_else(|| (self.default)().show(), str::to_owned)
    }

    fn form(&self) -> Form {
        T::FORM
    }

    fn choices(&self) -> &'static [&'static str] {
        T::CHOICES
    }

    fn hint(&self) -> clap::ValueHint {
        T::HINT
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }

    fn show(&self, sources: &Sources) -> (String, Value, Origin) {
        // Problems were reported when the settings were resolved.
        let given = sources.get(self, &mut Vec::new());
        let (text, value) = (given.value.show(), given.value.json());
        match self.default_note {
            Some(note) if value.is_null() => (note.to_owned(), value, given.origin),
            _ => (text, value, given.origin),
        }
    }
}
