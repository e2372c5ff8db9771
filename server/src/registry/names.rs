//! The names of the registry: the catalog behind [`Names`].

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use orlop_oci::{Digest, RefKind, Reference, RepositoryName};

use super::seam::{
    Edge, Fault, Hidden, HiddenRepository, Life, ManifestRow, Names, NewManifest, Referrer,
    ReferrerPage, ReferrerQuery,
};
use crate::catalog::{self, Catalog, CatalogError, EdgeKind, PutManifest};

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Fault {
        let text = error.to_string();
        match error {
            CatalogError::Refused(_) => Fault::Invalid(text),
            CatalogError::Gone(digest) => Fault::Gone(digest),
            CatalogError::Full(_) => Fault::Full(text),
            CatalogError::Unavailable(_) => Fault::Unavailable(text),
            CatalogError::Poisoned(_) => Fault::Poisoned(text),
            CatalogError::Missing { .. }
            | CatalogError::Newer { .. }
            | CatalogError::Damaged(_) => Fault::Io(text),
        }
    }
}

impl Names for Catalog {
    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<ManifestRow>, Fault>> {
        async move {
            let row = Catalog::manifest(self, repository.as_str(), reference).await?;
            Ok(row.map(|row| ManifestRow {
                digest: row.digest,
                media_type: row.media_type,
                size: row.size,
            }))
        }
        .boxed()
    }

    fn blob_linked<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move { Ok(Catalog::blob_linked(self, repository.as_str(), digest).await?) }.boxed()
    }

    fn link_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        Life { size, birth }: Life,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        async move {
            Ok(Catalog::link_blob(self, repository.as_str(), digest, (size, birth)).await?)
        }
        .boxed()
    }

    fn hidden<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Hidden>, Fault>> {
        async move {
            let hidden = Catalog::hidden(self, repository.as_str(), reference).await?;
            Ok(hidden.map(|hidden| Hidden {
                digest: hidden.digest,
                media_type: hidden.media_type,
                tags: hidden.tags,
            }))
        }
        .boxed()
    }

    fn undelete<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Vec<String>>, Fault>> {
        async move { Ok(Catalog::undelete(self, repository.as_str(), reference).await?) }.boxed()
    }

    fn put_manifest(&self, manifest: NewManifest) -> BoxFuture<'_, Result<(), Fault>> {
        async move { Ok(Catalog::put_manifest(self, row(manifest)).await?) }.boxed()
    }

    fn unlink_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move { Ok(Catalog::unlink_blob(self, repository.as_str(), digest).await?) }.boxed()
    }

    fn holders<'a>(
        &'a self,
        digest: &'a Digest,
        n: usize,
    ) -> BoxFuture<'a, Result<Vec<RepositoryName>, Fault>> {
        async move { names(Catalog::holders(self, digest, n).await?) }.boxed()
    }

    fn delete_manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move { Ok(Catalog::delete_manifest(self, repository.as_str(), digest).await?) }
            .boxed()
    }

    fn repository<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<Option<i64>, Fault>> {
        async move { Ok(Catalog::repository_row(self, repository.as_str()).await?) }.boxed()
    }

    fn delete_repository<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move { Ok(Catalog::delete_repository(self, repository.as_str()).await?) }.boxed()
    }

    fn hidden_repository<'a>(
        &'a self,
        repository: &'a RepositoryName,
        name: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<Option<HiddenRepository>, Fault>> {
        async move {
            let (repository, name) = (repository.as_str(), name.as_str());
            let hidden = Catalog::hidden_repository(self, repository, name).await?;
            Ok(hidden.map(|hidden| HiddenRepository {
                row: hidden.row,
                manifests: hidden.manifests,
                in_the_way: hidden.in_the_way,
                makes_way: hidden.makes_way,
            }))
        }
        .boxed()
    }

    fn undelete_repository<'a>(
        &'a self,
        row: i64,
        name: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move { Ok(Catalog::undelete_repository(self, row, name.as_str()).await?) }.boxed()
    }

    fn delete_tag<'a>(
        &'a self,
        repository: &'a RepositoryName,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move { Ok(Catalog::delete_tag(self, repository.as_str(), tag).await?) }.boxed()
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a RepositoryName,
        query: ReferrerQuery<'a>,
    ) -> BoxFuture<'a, Result<ReferrerPage, Fault>> {
        async move {
            let ReferrerQuery {
                subject,
                artifact_type,
                last,
                limit,
                bytes,
            } = query;
            let name = repository.as_str();
            let bounds = (limit, bytes);
            let found = Catalog::referrers(self, name, subject, artifact_type, last, bounds);
            let (rows, more_after) = found.await?;
            Ok((rows.into_iter().map(referrer).collect(), more_after))
        }
        .boxed()
    }

    fn repositories<'a>(
        &'a self,
        last: Option<&'a str>,
        n: usize,
    ) -> BoxFuture<'a, Result<Vec<RepositoryName>, Fault>> {
        async move { names(Catalog::repositories(self, last, n).await?) }.boxed()
    }

    fn tags<'a>(
        &'a self,
        repository: &'a RepositoryName,
        last: Option<&'a str>,
        n: usize,
    ) -> BoxFuture<'a, Result<Option<Vec<String>>, Fault>> {
        async move { Ok(Catalog::tags(self, repository.as_str(), last, n).await?) }.boxed()
    }

    fn poisoned(&self) -> Option<String> {
        Catalog::poisoned(self)
    }

    fn writing(&self) -> Duration {
        Catalog::writing(self)
    }
}

/// Names as they were once accepted.
fn names(rows: Vec<String>) -> Result<Vec<RepositoryName>, Fault> {
    rows.iter()
        .map(|name| RepositoryName::parse(name))
        .collect::<Result<_, _>>()
        .map_err(|error| Fault::Io(format!("the catalog holds a name of a wrong form: {error}")))
}

fn referrer(row: catalog::Referrer) -> Referrer {
    Referrer {
        digest: row.digest,
        media_type: row.media_type,
        artifact_type: row.artifact_type,
        size: row.size,
        annotations: row.annotations,
    }
}

fn row(manifest: NewManifest) -> PutManifest {
    // Only lists of referrers show them, and they can be large.
    let annotations = Some(&manifest.annotations)
        .filter(|annotations| manifest.subject.is_some() && !annotations.is_empty())
        .map(|annotations| serde_json::json!(annotations).to_string());
    PutManifest {
        repository: manifest.repository.to_string(),
        digest: manifest.digest,
        media_type: manifest.media_type,
        artifact_type: manifest.artifact_type,
        size: manifest.size,
        subject: manifest.subject,
        edges: manifest.edges.into_iter().map(edge).collect(),
        tags: manifest.tags,
        annotations,
        links: manifest.links.into_iter().map(linked).collect(),
        children: manifest.children,
    }
}

fn linked((digest, life): (Digest, Life)) -> catalog::LinkedBlob {
    catalog::LinkedBlob {
        digest,
        size: life.size,
        birth: life.birth,
    }
}

fn edge(edge: Edge) -> catalog::Edge {
    catalog::Edge {
        digest: edge.digest,
        kind: match edge.kind {
            RefKind::Config => EdgeKind::Config,
            RefKind::Layer => EdgeKind::Layer,
            RefKind::Child => EdgeKind::Child,
            RefKind::Subject => EdgeKind::Subject,
        },
        size: edge.size,
        media_type: edge.media_type,
    }
}
