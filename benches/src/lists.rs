//! `orlop-bench lists`: how long a page of a long list takes.
//!
//! One server is filled with a repository of many tags, a manifest with many
//! referrers and many repositories. All pages are walked and their entries
//! counted before single pages are timed.

use crate::client::Connection;
use crate::document::{ListFailure, ListsReport, PageFigures, SCHEMA};
use crate::error::{Error, Result};
use crate::load::{self, Object, Plan, Work, runtime};
use crate::machine::{self, Machine};
use crate::pages::{self, List};
use crate::payload::digest_of;
use crate::populate::{self, Population};
use crate::push::{self, BlobRef, MANIFEST_TYPE, descriptor};
use crate::server::{Kind, Programs, READY_LIMIT, Server};
use crate::workers::{self, Task};
use crate::{process, quick, stop};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// Repository with many tags.
const TAGGED: &str = "bench/tags";
/// Repository of a manifest with many referrers.
const REFERRED: &str = "bench/referrers";
/// Tags of each manifest.
const TAGS_EACH: u64 = 10;
/// Most different pages that are asked for in turns.
const SPREAD: usize = 64;
/// Connections that ask, in one measurement after another.
const CONNECTIONS: [usize; 2] = [1, 8];
/// Load before each measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// 99th percentile that is asked for, in milliseconds.
const TARGET_MS: f64 = 10.0;
/// One referrer in this many has the rare artifact type.
const RARE: u64 = 100;
/// Artifact types of the referrers.
const RARE_TYPE: &str = "application/vnd.bench.sbom.v1";
const COMMON_TYPE: &str = "application/vnd.bench.signature.v1";
/// Content of the blob that stands for none.
const EMPTY: &[u8] = b"{}";
/// Space an entry may take, for the look at the disk.
const ENTRY: u64 = 16 * 1024;

/// What `lists` is asked to do.
#[derive(Debug)]
pub(crate) struct Lists {
    /// Where the programs are.
    pub(crate) programs: Programs,
    /// Which server.
    pub(crate) kind: Kind,
    /// Folder that holds the data of the run.
    pub(crate) root: PathBuf,
    /// Tags, and as many referrers.
    pub(crate) entries: u64,
    /// Repositories.
    pub(crate) repositories: u64,
    /// Length of each measurement, in seconds.
    pub(crate) seconds: f64,
}

/// Pages that are asked for in turns.
struct Case {
    name: String,
    entries: usize,
    bytes: u64,
    work: Arc<Work>,
    pages: usize,
}

impl Lists {
    /// Fills, walks, measures; a list that fails has no figures.
    pub(crate) fn run(&self) -> Result<ListsReport> {
        let need = (2 * self.entries + self.repositories) * ENTRY;
        machine::want_space(&self.root, need, "lists", "--entries")?;
        let machine = Machine::read(&self.root)?;
        let versions = quick::versions(&self.programs);
        let folder = self.root.join("lists");
        let server = Server::start(self.kind, &self.programs, &folder, READY_LIMIT)?;
        let mut report = ListsReport {
            schema: SCHEMA,
            kind: "lists",
            machine,
            versions,
            server: self.kind,
            entries: self.entries,
            repositories: self.repositories,
            seconds: self.seconds,
            fill_seconds: 0.0,
            pages: Vec::new(),
            failures: Vec::new(),
            peak_memory: 0,
            target_ms: TARGET_MS,
        };
        let begin = Instant::now();
        self.fill_tags(&server)?;
        let subject = self.fill_referrers(&server)?;
        self.fill_repositories(&server)?;
        report.fill_seconds = begin.elapsed().as_secs_f64();
        process::reset_peak(server.pid());
        for list in [List::Tags, List::Referrers, List::Catalog] {
            let label = list.label();
            eprintln!("orlop-bench: pages of {label} …");
            let first = match list {
                List::Tags => format!("/v2/{TAGGED}/tags/list"),
                List::Referrers => format!("/v2/{REFERRED}/referrers/{subject}"),
                List::Catalog => "/v2/_catalog".to_owned(),
            };
            match self.measure(&server, list, &first) {
                Ok(pages) => report.pages.extend(pages),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => report.failures.push(ListFailure {
                    list: label,
                    reason: error.to_string(),
                }),
            }
        }
        report.peak_memory = process::memory(server.pid())?.peak;
        server.stop()?;
        Ok(report)
    }

    fn fill_tags(&self, server: &Server) -> Result<()> {
        eprintln!("orlop-bench: pushing {} tags …", self.entries);
        let population = Population {
            manifests: self.entries.div_ceil(TAGS_EACH),
            tags: self.entries,
        };
        populate::fill(server, TAGGED, population).map(|_seconds| ())
    }

    /// Returns the digest of the subject.
    fn fill_referrers(&self, server: &Server) -> Result<String> {
        eprintln!("orlop-bench: pushing {} referrers …", self.entries);
        let (subject, empty) = runtime()?.block_on(async {
            let mut connection = Connection::open(server.addr).await?;
            let empty = push::push_bytes(&mut connection, REFERRED, EMPTY).await?;
            let body = artifact(COMMON_TYPE, &empty, "");
            let digest = digest_of(body.as_bytes());
            let path = push::manifest_path(REFERRED, &digest);
            push::put_manifest(&mut connection, &path, &body).await?;
            Ok::<_, Error>(((digest, body.len() as u64), empty))
        })?;
        let digest = subject.0.clone();
        let task = Arc::new(Referrers { subject, empty });
        workers::each(server.addr, self.entries, &task)?;
        Ok(digest)
    }

    fn fill_repositories(&self, server: &Server) -> Result<()> {
        eprintln!("orlop-bench: pushing {} repositories …", self.repositories);
        workers::each(server.addr, self.repositories, &Arc::new(Repositories))
    }

    fn measure(&self, server: &Server, list: List, first: &str) -> Result<Vec<PageFigures>> {
        let mut figures = Vec::new();
        for case in runtime()?.block_on(self.cases(server, list, first))? {
            for connections in CONNECTIONS {
                stop::check()?;
                figures.push(case.measure(server, connections, self.seconds)?);
            }
        }
        Ok(figures)
    }

    /// The pages of a list that are worth asking for.
    async fn cases(&self, server: &Server, list: List, first: &str) -> Result<Vec<Case>> {
        let mut connection = Connection::open(server.addr).await?;
        let connection = &mut connection;
        let (all, rare) = match list {
            List::Tags | List::Referrers => (self.entries, self.entries.div_ceil(RARE)),
            List::Catalog => (self.repositories, 0),
        };
        let mut cases = vec![Case::new(connection, list, "default, first page", &[first]).await?];
        for size in [100, 1000] {
            let path = format!("{first}?n={size}");
            let pages = pages::walk(connection, list, &path, all).await?;
            cases.push(
                Case::new(connection, list, &format!("n={size}, first page"), &[path]).await?,
            );
            if pages.len() > 1 {
                let name = format!("n={size}, all over");
                cases.push(Case::new(connection, list, &name, &spread(&pages)).await?);
            }
        }
        if list == List::Referrers {
            for (name, of_type, entries) in [
                ("1 % of all", RARE_TYPE, rare),
                ("99 % of all", COMMON_TYPE, all - rare),
            ] {
                let path = format!("{first}?n=100&artifactType={of_type}");
                let pages = pages::walk(connection, list, &path, entries).await?;
                let name = format!("n=100, one type, {name}");
                cases.push(Case::new(connection, list, &name, &spread(&pages)).await?);
            }
        }
        Ok(cases)
    }
}

/// Up to [`SPREAD`] of the pages, evenly, the last one only if it is the only
/// one: it may be short.
fn spread(pages: &[String]) -> Vec<String> {
    let whole = pages.len().saturating_sub(1).max(1);
    let step = whole.div_ceil(SPREAD).max(1);
    pages.iter().take(whole).step_by(step).cloned().collect()
}

impl Case {
    async fn new(
        connection: &mut Connection,
        list: List,
        name: &str,
        paths: &[impl AsRef<str>],
    ) -> Result<Case> {
        let (mut objects, mut entries, mut bytes) = (Vec::new(), 0, 0);
        for path in paths {
            let path = path.as_ref();
            let page = pages::page(connection, list, path).await?;
            if objects.is_empty() {
                (entries, bytes) = (page.entries.len(), page.bytes);
            }
            objects.push(Object {
                request: push::get_request(path),
                path: path.to_owned(),
                size: page.bytes,
                digest: None,
            });
        }
        Ok(Case {
            name: format!("{}, {name}", list.label()),
            entries,
            bytes,
            pages: objects.len(),
            work: Arc::new(Work::Get(objects)),
        })
    }

    fn measure(&self, server: &Server, connections: usize, seconds: f64) -> Result<PageFigures> {
        let plan = |duration| Plan {
            connections,
            threads: 1,
            duration,
        };
        let stored = Arc::new(AtomicU64::new(0));
        load::round(&self.work, server.addr, plan(WARM_UP), &stored)?;
        let cpu = server.cpu_time()?;
        let wanted = plan(Duration::from_secs_f64(seconds));
        let tally = load::round(&self.work, server.addr, wanted, &stored)?;
        let cpu = server.cpu_time()?.saturating_sub(cpu).as_secs_f64();
        let requests = tally.latency.count();
        let ms = |quantile| tally.latency.quantile(quantile) as f64 / 1e6;
        Ok(PageFigures {
            name: self.name.clone(),
            connections,
            pages: self.pages,
            entries: self.entries,
            bytes: self.bytes,
            requests,
            rate: requests as f64 / tally.elapsed.as_secs_f64().max(1e-9),
            p50_ms: ms(0.50),
            p99_ms: ms(0.99),
            max_ms: ms(1.0),
            cpu_per_thousand: cpu * 1e3 / requests.max(1) as f64,
        })
    }
}

/// A manifest without content, of this type, with more fields behind.
fn artifact(artifact_type: &str, empty: &BlobRef, more: &str) -> String {
    let empty = descriptor("empty.v1+json", empty);
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","artifactType":"{artifact_type}","config":{empty},"layers":[{empty}]{more}}}"#
    )
}

/// Pushes one referrer for each number.
struct Referrers {
    subject: BlobRef,
    empty: BlobRef,
}

impl Referrers {
    fn body(&self, number: u64) -> String {
        let artifact_type = if number.is_multiple_of(RARE) {
            RARE_TYPE
        } else {
            COMMON_TYPE
        };
        let subject = descriptor("image.manifest.v1+json", &self.subject);
        let more = format!(
            r#","subject":{subject},"annotations":{{"bench.number":"{number}","org.opencontainers.image.created":"2026-01-01T00:00:00Z"}}"#
        );
        artifact(artifact_type, &self.empty, &more)
    }
}

impl Task for Referrers {
    const WHAT: &'static str = "referrers";

    async fn run(&self, connection: &mut Connection, number: u64) -> Result<()> {
        let body = self.body(number);
        let path = push::manifest_path(REFERRED, &digest_of(body.as_bytes()));
        push::put_manifest(connection, &path, &body).await?;
        Ok(())
    }
}

/// Makes one repository with one manifest for each number.
struct Repositories;

impl Task for Repositories {
    const WHAT: &'static str = "repositories";

    async fn run(&self, connection: &mut Connection, number: u64) -> Result<()> {
        let repository = format!("bench/of-many/{number:06}");
        let empty = push::push_bytes(connection, &repository, EMPTY).await?;
        let path = push::manifest_path(&repository, "latest");
        push::put_manifest(connection, &path, &artifact(COMMON_TYPE, &empty, "")).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_spread_evenly_and_the_last_is_left_out() {
        let pages: Vec<String> = (0..1000).map(|page| page.to_string()).collect();
        let taken = spread(&pages);
        assert!(taken.len() > SPREAD / 2 && taken.len() <= SPREAD);
        assert_eq!(taken.first().unwrap(), "0");
        assert!(!taken.contains(&"999".to_owned()));
        assert_eq!(spread(&pages[..3]), ["0", "1"]);
        assert_eq!(spread(&pages[..1]), ["0"]);
        assert!(spread(&[]).is_empty());
    }

    #[test]
    fn referrers_are_json_and_name_their_subject() {
        let of = |text: &str| (digest_of(text.as_bytes()), text.len() as u64);
        let task = Referrers {
            subject: of("subject"),
            empty: of("{}"),
        };
        let types: Vec<String> = [0, 1, RARE, RARE + 1]
            .into_iter()
            .map(|number| {
                let body: serde_json::Value = serde_json::from_str(&task.body(number)).unwrap();
                assert_eq!(body["subject"]["digest"], task.subject.0);
                assert_eq!(body["layers"][0]["size"], 2);
                body["artifactType"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(types, [RARE_TYPE, COMMON_TYPE, RARE_TYPE, COMMON_TYPE]);
    }
}
