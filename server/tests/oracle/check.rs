//! Comparisons of a registry with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use orlop::registry::{Digest, Error, Reference, Tag};

use crate::model::{Collection, Gone, Kind, Limits, Model, Repo, Row};
use crate::pool::Pool;
use crate::random::Random;
use crate::server::Server;

/// Finds out which manifests a collection deleted because nothing reaches them,
/// and that it was right.
pub(crate) async fn retired(
    server: &Server,
    model: &mut Model,
    at: Collection,
    is_purged_too: bool,
) {
    let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap();
    let limits = Limits {
        untagged: server.rules.untagged.map(milliseconds),
        window: milliseconds(server.rules.window),
        floor: model.floor,
    };
    let Model {
        repos,
        dangling,
        buried,
        ..
    } = model;
    for repo in repos {
        // More may have gone with what went.
        while look(server, repo, dangling, (at, limits), &mut |repo| {
            if is_purged_too {
                let whole = false;
                repo.purge(Collection { whole, ..at }, buried);
            }
        })
        .await
        {}
        if at.whole {
            repo.settle(at, limits, is_purged_too);
        }
    }
}

/// Whether something was deleted. `gone`: told of each, which may have been
/// purged at once.
async fn look(
    server: &Server,
    repo: &mut Repo,
    dangling: &BTreeSet<Digest>,
    (at, limits): (Collection, Limits),
    gone: &mut (impl FnMut(&mut Repo) + Send),
) -> bool {
    let soft = repo.soft(limits.untagged.is_some());
    let visible = repo.visible().map(|(digest, _)| *digest);
    let visible: Vec<Digest> = visible.filter(|digest| soft.contains(digest)).collect();
    let mut is_less = false;
    for digest in &visible {
        if dangling.contains(&repo.rows[digest].sha256) {
            // Without its bytes it cannot be seen whether it is there.
            if let Some(row) = repo.rows.get_mut(digest) {
                is_less |= std::mem::take(&mut row.sure);
            }
            continue;
        }
        let found = server.stat(&repo.name, &Reference::Digest(*digest)).await;
        let has_to_go = repo.has_to_go(digest, at, limits);
        let name = &repo.name;
        match found {
            Ok(_) => {
                assert!(
                    !has_to_go,
                    "{name}@{digest}: nothing reaches it and it is kept: {:?}; {limits:?}, {at:?}",
                    repo.rows[digest]
                );
                if let Some(row) = repo.rows.get_mut(digest) {
                    row.sure = true;
                }
            }
            Err(Error::ManifestUnknown) => {
                let may_go = repo.may_go(digest, at, limits);
                assert!(
                    may_go,
                    "{name}@{digest} was in use and is deleted at {at:?}: {:?}",
                    repo.rows.get(digest)
                );
                is_less = true;
                repo.hide(
                    digest,
                    Gone {
                        at: at.at,
                        number: 0,
                    },
                );
                gone(repo);
            }
            Err(error) => panic!("{name}@{digest}: {error}"),
        }
    }
    is_less
}

/// Compares the blobs of the store with the live set. `strict`: everything
/// that is garbage has to be gone.
pub(crate) async fn blobs(server: &Server, pool: &Pool, model: &mut Model, strict: bool) {
    let (must, may) = (model.must_live(), model.may_live());
    let links = model.repos.iter().flat_map(|repo| repo.links.keys());
    let mut wanted: BTreeSet<Digest> = links.copied().collect();
    wanted.extend(may.values().flatten());
    wanted.extend(pool.blobs().map(|blob| blob.sha256));
    wanted.extend(model.manifests());
    let mut here = BTreeMap::new();
    for digest in wanted {
        here.insert(digest, server.has(&digest).await);
    }
    for digest in must.values().flatten() {
        if !here[digest] {
            let why = server.why(digest).await;
            let of = model.repos.iter().flat_map(|repo| {
                let of = move |row: &Row| {
                    let is_named = row.edges.iter().any(|edge| edge.digest == *digest);
                    is_named || row.sha256 == *digest
                };
                let rows = repo.rows.iter().filter(move |(_, row)| row.sure && of(row));
                rows.map(|(of, row)| format!("{}@{of}: {row:?}", repo.name))
            });
            let of: Vec<String> = of.collect();
            panic!("live blob {digest} was deleted: {why:?}; the model has it by {of:#?}");
        }
    }
    if strict {
        let known = pool
            .blobs()
            .map(|blob| blob.sha256)
            .chain(model.manifests());
        for digest in known.filter(|digest| !may.contains_key(digest)) {
            if here[&digest] {
                let why = server.why(&digest).await;
                panic!("{digest} is garbage and was kept: {why:?}");
            }
        }
        model.buried.retain(|digest| here[digest]);
    }
    for repo in &mut model.repos {
        for (digest, is_sure) in &mut repo.links {
            *is_sure &= here[digest];
        }
    }
}

/// How many contents have to be in the store; None when that is not certain.
pub(crate) fn count(model: &Model) -> Option<u64> {
    let (must, may) = (model.must_live(), model.may_live());
    let is_certain = must.keys().eq(may.keys());
    is_certain.then_some(must.len() as u64)
}

/// Compares what every repository answers. `all`: every byte of it.
pub(crate) async fn names(
    server: &Server,
    pool: &Pool,
    model: &mut Model,
    random: &mut Random,
    all: bool,
) {
    let dangling = model.dangling.clone();
    for repo in &mut model.repos {
        tags(server, repo, &dangling).await;
        let rows: Vec<Digest> = repo.rows.keys().copied().collect();
        for digest in rows {
            row(
                server,
                pool,
                repo,
                &digest,
                &dangling,
                all || random.percent(10),
            )
            .await;
        }
        referrers(server, repo).await;
        for (digest, is_sure) in repo.links.clone() {
            if is_sure && (all || random.percent(10)) {
                let size = server.blob_size(&repo.name, &digest).await;
                let blob = pool.of(&digest).unwrap();
                let size = size.unwrap_or_else(|error| panic!("{}@{digest}: {error}", repo.name));
                assert_eq!(size, blob.bytes.len() as u64);
            }
        }
    }
}

async fn tags(server: &Server, repo: &Repo, dangling: &BTreeSet<Digest>) {
    let listed = server.tags(&repo.name).await;
    let known: Vec<String> = repo.visible_tags().map(|(tag, _)| tag.clone()).collect();
    assert_eq!(listed, known, "tags of {}", repo.name);
    for (name, tag) in repo.visible_tags() {
        let row = &repo.rows[&tag.digest];
        if !row.sure || dangling.contains(&row.sha256) {
            continue;
        }
        let reference = Reference::Tag(Tag::parse(name).unwrap());
        let found = server.stat(&repo.name, &reference).await;
        assert_eq!(found, Ok(tag.digest), "{}:{name}", repo.name);
    }
}

async fn referrers(server: &Server, repo: &Repo) {
    let subjects: BTreeSet<Digest> = repo
        .rows
        .values()
        .filter_map(Row::subject)
        .copied()
        .collect();
    for subject in subjects {
        let listed = server.referrers(&repo.name, &subject).await;
        let listed: BTreeSet<Digest> = listed.into_iter().collect();
        let known = |is_sure: bool| -> BTreeSet<Digest> {
            let rows = repo
                .visible()
                .filter(|(_, row)| row.subject() == Some(&subject));
            let rows = rows.filter(|(_, row)| row.sure || !is_sure);
            rows.map(|(digest, _)| *digest).collect()
        };
        let name = &repo.name;
        let missing: Vec<_> = known(true).difference(&listed).copied().collect();
        assert!(
            missing.is_empty(),
            "{name}@{subject} is not told of {missing:?}"
        );
        let extra: Vec<_> = listed.difference(&known(false)).copied().collect();
        assert!(extra.is_empty(), "{name}@{subject} is told of {extra:?}");
    }
}

async fn row(
    server: &Server,
    pool: &Pool,
    repo: &mut Repo,
    digest: &Digest,
    dangling: &BTreeSet<Digest>,
    read: bool,
) {
    let row = repo.rows[digest].clone();
    let (name, reference) = (repo.name.clone(), Reference::Digest(*digest));
    if row.hidden.is_none() && !row.sure {
        return;
    }
    if row.hidden.is_some() || dangling.contains(&row.sha256) {
        let found = server.stat(&name, &reference).await;
        assert_eq!(found, Err(Error::ManifestUnknown), "{name}@{digest}");
        return;
    }
    if !read {
        let found = server.stat(&name, &reference).await;
        assert_eq!(found, Ok(*digest), "{name}@{digest}: {row:?}");
        return;
    }
    let pulled = server.pull(&name, &reference).await;
    let (_, bytes) =
        pulled.unwrap_or_else(|error| panic!("{name}@{digest} is lost: {error}: {row:?}"));
    assert_eq!(bytes, row.bytes, "{name}@{digest}");
    if let Some(row) = repo.rows.get_mut(digest) {
        row.pulled = crate::server::now();
    }
    for edge in row.edges.iter().filter(|edge| edge.kind == Kind::Blob) {
        if repo.links.get(&edge.digest) != Some(&true) {
            continue;
        }
        let blob = server.blob(&name, &edge.digest).await;
        let bytes = blob.unwrap_or_else(|error| panic!("{name}@{}: {error}", edge.digest));
        assert_eq!(bytes, pool.of(&edge.digest).unwrap().bytes);
    }
}

/// `orlop-fsck` has no finding.
pub(crate) fn fsck(folder: &Path) {
    let report = orlop_fsck::check(folder).unwrap();
    assert!(report.clean(), "{:#?}", report.findings());
}
