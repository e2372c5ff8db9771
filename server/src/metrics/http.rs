//! Requests and connections.
//!
//! Invariant: a request counts under its method, the class of its path and the
//! class of its status, each out of a short list. A series is published from
//! its first request on.

use std::sync::Arc;
use std::time::Duration;

use super::text::{Kind, Text};
use super::{Busy, Count, Serving};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"];
const STATUSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
const CLASSES: usize = Class::ALL.len();

/// Upper bounds of durations, in microseconds. Beyond the last is the rest.
const BOUNDS: [u64; 14] = [
    100,
    500,
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// What the path of a request is about, as far as counting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `/livez`, `/readyz`, `/health`
    Health,
    /// `/v2/`
    Base,
    /// `/v2/<name>/blobs/<digest>`
    Blob,
    /// `/v2/<name>/blobs/uploads/…`
    Upload,
    /// `/v2/<name>/manifests/<reference>`
    Manifest,
    /// `/v2/<name>/tags/list`
    Tags,
    /// `/v2/<name>/referrers/<digest>`
    Referrers,
    /// `/v2/_catalog`
    Catalog,
    /// Anything else.
    Other,
}

impl Class {
    const ALL: [Class; 9] = [
        Class::Health,
        Class::Base,
        Class::Blob,
        Class::Upload,
        Class::Manifest,
        Class::Tags,
        Class::Referrers,
        Class::Catalog,
        Class::Other,
    ];

    /// The class of a path, well-formed or not.
    pub fn of(path: &str) -> Class {
        let rest = match path {
            "/livez" | "/readyz" | "/health" => return Class::Health,
            "/v2" | "/v2/" => return Class::Base,
            "/v2/_catalog" => return Class::Catalog,
            other => other.strip_prefix("/v2/").unwrap_or_default(),
        };
        let mut segments = rest.rsplit('/');
        let (last, keyword) = (segments.next(), segments.next());
        match (keyword, last) {
            (Some("uploads"), _) if segments.next() == Some("blobs") => Class::Upload,
            (Some("blobs"), Some("uploads")) => Class::Upload,
            (Some("blobs"), _) => Class::Blob,
            (Some("manifests"), _) => Class::Manifest,
            (Some("tags"), Some("list")) => Class::Tags,
            (Some("referrers"), _) => Class::Referrers,
            _ => Class::Other,
        }
    }

    /// Whether such a request is about images: a probe is not.
    fn is_work(self) -> bool {
        !matches!(self, Class::Health | Class::Base | Class::Other)
    }

    fn name(self) -> &'static str {
        match self {
            Class::Health => "health",
            Class::Base => "base",
            Class::Blob => "blob",
            Class::Upload => "upload",
            Class::Manifest => "manifest",
            Class::Tags => "tags",
            Class::Referrers => "referrers",
            Class::Catalog => "catalog",
            Class::Other => "other",
        }
    }
}

/// What one class of paths has counted.
#[derive(Default)]
struct OfClass {
    requests: [[Count; STATUSES.len()]; METHODS.len()],
    /// Requests by duration, each in the first bound it does not exceed.
    durations: [Count; BOUNDS.len() + 1],
    microseconds: Count,
    received: Count,
    sent: Count,
}

/// Counts of HTTP.
#[derive(Default)]
pub struct Http {
    classes: [OfClass; CLASSES],
    busy: Busy,
    accepted: Count,
    ended: Count,
    refused: Count,
}

impl Http {
    fn of(&self, class: Class) -> Option<&OfClass> {
        self.classes.get(class as usize)
    }

    /// Counts a request as under way until the result is dropped, if it is about
    /// images.
    pub fn enter(&self, class: Class) -> Option<Serving> {
        class.is_work().then(|| self.busy.enter())
    }

    /// How long requests about images were under way.
    pub fn busy(&self) -> Busy {
        self.busy.clone()
    }

    /// A request is over; status 0 when there was no answer.
    pub fn request(&self, method: &str, class: Class, status: u16, took: Duration, sent: u64) {
        let Some(of) = self.of(class) else { return };
        let method = METHODS.iter().position(|known| *known == method);
        let status = match status {
            100..600 => usize::from(status / 100).saturating_sub(1),
            _ => STATUSES.len() - 1,
        };
        if let Some(count) = of
            .requests
            .get(method.unwrap_or(METHODS.len() - 1))
            .and_then(|statuses| statuses.get(status))
        {
            count.add(1);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bound = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(count) = of.durations.get(bound) {
            count.add(1);
        }
        of.microseconds.add(micros);
        of.sent.add(sent);
    }

    /// Bytes of a request's body came.
    pub fn received(&self, class: Class, bytes: u64) {
        if let Some(of) = self.of(class) {
            of.received.add(bytes);
        }
    }

    /// Counts a connection as open until the result is dropped.
    pub fn connection(self: &Arc<Self>) -> Connection {
        self.accepted.add(1);
        Connection(Arc::clone(self))
    }

    /// Counts a connection that is closed at once.
    pub fn refused(&self) {
        self.refused.add(1);
    }

    /// Publishes all of them.
    pub fn write(&self, text: &mut Text) {
        self.write_requests(text);
        self.write_durations(text);
        let bytes = [
            (
                "orlop_http_request_bytes_total",
                "Bytes of bodies of requests, without framing and TLS.",
                (|of| &of.received) as fn(&OfClass) -> &Count,
            ),
            (
                "orlop_http_response_bytes_total",
                "Bytes of bodies of answers, without framing and TLS.",
                |of| &of.sent,
            ),
        ];
        for (name, help, count) in bytes {
            text.family(name, help, Kind::Counter);
            for (class, of) in self.seen() {
                text.sample(name, &[("route", class.name())], count(of).get());
            }
        }
        text.counter(
            "orlop_http_busy_seconds_total",
            "Time during which at least one request about images was under way.",
            self.busy.total().as_secs_f64(),
        );
        // Read in this order, so that none counts as open below zero.
        let ended = self.ended.get();
        let accepted = self.accepted.get();
        text.gauge(
            "orlop_http_connections",
            "Connections open on the main port.",
            accepted.saturating_sub(ended),
        );
        text.counter(
            "orlop_http_connections_accepted_total",
            "Connections accepted and served on the main port.",
            accepted,
        );
        text.counter(
            "orlop_http_connections_refused_total",
            "Connections closed as they came because their peer had too many.",
            self.refused.get(),
        );
    }

    /// The classes that had a request.
    fn seen(&self) -> impl Iterator<Item = (Class, &OfClass)> {
        let all = Class::ALL.into_iter().zip(&self.classes);
        all.filter(|(_, of)| of.durations.iter().any(|count| count.get() > 0))
    }

    fn write_requests(&self, text: &mut Text) {
        const NAME: &str = "orlop_http_requests_total";
        text.family(
            NAME,
            "Requests that are over, by method, kind of path and class of status (none: cut before there was an answer).",
            Kind::Counter,
        );
        for (class, of) in self.seen() {
            for (method, statuses) in METHODS.iter().zip(&of.requests) {
                for (status, count) in STATUSES.iter().zip(statuses) {
                    let labels = [
                        ("method", *method),
                        ("route", class.name()),
                        ("status", *status),
                    ];
                    if count.get() > 0 {
                        text.sample(NAME, &labels, count.get());
                    }
                }
            }
        }
    }

    fn write_durations(&self, text: &mut Text) {
        const NAME: &str = "orlop_http_request_duration_seconds";
        text.family(
            NAME,
            "From the head of a request to the end of its answer.",
            Kind::Histogram,
        );
        for (class, of) in self.seen() {
            let route = ("route", class.name());
            let mut below = 0_u64;
            for (at, count) in of.durations.iter().enumerate() {
                below = below.saturating_add(count.get());
                let bound = BOUNDS.get(at).map(|bound| seconds(*bound).to_string());
                let bound = bound.as_deref().unwrap_or("+Inf");
                text.sample(
                    "orlop_http_request_duration_seconds_bucket",
                    &[route, ("le", bound)],
                    below,
                );
            }
            let sum = seconds(of.microseconds.get());
            text.sample("orlop_http_request_duration_seconds_sum", &[route], sum);
            text.sample("orlop_http_request_duration_seconds_count", &[route], below);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds beyond 285 years may be off by one"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// A connection that counts as open until this is dropped.
pub struct Connection(Arc<Http>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.ended.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_paths() {
        for (path, class) in [
            ("/livez", Class::Health),
            ("/health", Class::Health),
            ("/v2/", Class::Base),
            ("/v2/_catalog", Class::Catalog),
            ("/v2/a/b/blobs/sha256:00", Class::Blob),
            ("/v2/a/b/blobs/uploads/", Class::Upload),
            ("/v2/a/b/blobs/uploads", Class::Upload),
            ("/v2/a/b/blobs/uploads/0af", Class::Upload),
            ("/v2/a/manifests/latest", Class::Manifest),
            ("/v2/manifests/manifests/manifests", Class::Manifest),
            ("/v2/a/tags/list", Class::Tags),
            ("/v2/a/referrers/sha256:00", Class::Referrers),
            ("/v2/a/tags/other", Class::Other),
            ("/v2/uploads/x", Class::Other),
            ("/", Class::Other),
            ("", Class::Other),
            ("/metrics", Class::Other),
        ] {
            assert_eq!(Class::of(path), class, "{path}");
        }
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at);
        }
    }

    fn page(http: &Http) -> Vec<String> {
        let mut text = Text::default();
        http.write(&mut text);
        text.finish().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a24_a_million_invented_names_make_no_series() {
        let http = Http::default();
        let ask = |name: &str| {
            for (method, path) in [
                ("GET", format!("/v2/{name}/manifests/{name}")),
                (name, format!("/v2/{name}/{name}/{name}")),
            ] {
                let class = Class::of(&path);
                http.received(class, 1);
                http.request(method, class, 404, Duration::from_millis(1), 10);
            }
        };
        ask("first");
        let before = page(&http).len();
        for number in 0..1_000_000_u32 {
            ask(&format!("n{number}"));
        }
        let after = page(&http);
        assert_eq!(after.len(), before);
        for line in [
            "orlop_http_requests_total{method=\"GET\",route=\"manifest\",status=\"4xx\"} 1000001",
            "orlop_http_requests_total{method=\"other\",route=\"other\",status=\"4xx\"} 1000001",
            "orlop_http_response_bytes_total{route=\"manifest\"} 10000010",
        ] {
            assert!(after.iter().any(|l| l == line), "{line} not in {after:#?}");
        }
    }

    #[test]
    fn all_the_series_there_can_be_are_within_bounds() {
        let http = Http::default();
        for method in METHODS {
            for class in Class::ALL {
                for status in [100, 200, 300, 400, 500, 0, 999] {
                    http.request(method, class, status, Duration::ZERO, 0);
                }
            }
        }
        let all = page(&http).iter().filter(|l| !l.starts_with('#')).count();
        assert!((378..1000).contains(&all), "{all}");
    }

    #[test]
    fn durations_fall_into_the_first_bound_they_do_not_exceed() {
        let http = Http::default();
        for micros in [0, 100, 101, 5_000, 300_000_000, 300_000_001] {
            let took = Duration::from_micros(micros);
            http.request("GET", Class::Blob, 200, took, 0);
        }
        let page = page(&http);
        for (le, count) in [
            ("0.0001", 2),
            ("0.0005", 3),
            ("0.005", 4),
            ("300", 5),
            ("+Inf", 6),
        ] {
            let line = format!(
                "orlop_http_request_duration_seconds_bucket{{route=\"blob\",le=\"{le}\"}} {count}"
            );
            assert!(page.contains(&line), "{line} not in {page:#?}");
        }
        let sum = "orlop_http_request_duration_seconds_sum{route=\"blob\"} 600.005202";
        assert!(page.iter().any(|line| line == sum), "{page:#?}");
    }

    #[test]
    fn connections_count_while_they_are_open() {
        let http = Arc::new(Http::default());
        let (one, _two) = (http.connection(), http.connection());
        drop(one);
        let page = page(&http);
        for line in [
            "orlop_http_connections 1",
            "orlop_http_connections_accepted_total 2",
        ] {
            assert!(page.iter().any(|l| l == line), "{line} not in {page:#?}");
        }
    }
}
