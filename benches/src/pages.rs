//! Lists that come in pages: tags of a repository, referrers of a manifest,
//! the catalog. Pages are fetched and counted here; nothing is timed.

use crate::client::Connection;
use crate::error::{Error, Result};
use crate::push;
use std::collections::HashSet;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Tags of a repository.
    Tags,
    /// Manifests with a subject.
    Referrers,
    /// Repositories.
    Catalog,
}

impl List {
    /// Name in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            List::Tags => "tags",
            List::Referrers => "referrers",
            List::Catalog => "catalog",
        }
    }

    /// The entries of an answer, each by what tells it from the others.
    fn entries(self, body: &[u8]) -> Option<Vec<String>> {
        let (list, name) = match self {
            List::Tags => ("tags", None),
            List::Referrers => ("manifests", Some("digest")),
            List::Catalog => ("repositories", None),
        };
        let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
        let name_of = |entry: &serde_json::Value| match name {
            Some(name) => entry.get(name)?.as_str().map(str::to_owned),
            None => entry.as_str().map(str::to_owned),
        };
        answer.get(list)?.as_array()?.iter().map(name_of).collect()
    }
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its entries.
    pub(crate) entries: Vec<String>,
    /// Length of its body.
    pub(crate) bytes: u64,
    /// Where the next one is.
    pub(crate) next: Option<String>,
}

/// Fetches the page at `path`.
pub(crate) async fn page(connection: &mut Connection, list: List, path: &str) -> Result<Page> {
    connection.send(&[&push::get_request(path)]).await?;
    let head = connection.receive_head().await?;
    if head.status != 200 {
        return Err(push::unexpected(connection, &head, &format!("GET {path}")).await);
    }
    let mut body = Vec::new();
    let take = connection.read_body(head.length, |piece| body.extend_from_slice(piece));
    take.await?;
    connection.after(&head).await?;
    let Some(entries) = list.entries(&body) else {
        let label = list.label();
        return Err(Error::Answer(format!("GET {path}: not a list of {label}")));
    };
    Ok(Page {
        entries,
        bytes: head.length,
        next: head.next,
    })
}

/// Paths of all pages from `first` on, after a look at each: together they
/// hold at least `expected` entries, none twice, and no page is empty.
pub(crate) async fn walk(
    connection: &mut Connection,
    list: List,
    first: &str,
    expected: u64,
) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        crate::stop::check()?;
        let page = page(connection, list, &path).await?;
        if page.entries.is_empty() {
            return Err(Error::Answer(format!("GET {path}: the page is empty")));
        }
        for entry in page.entries {
            if let Some(entry) = seen.replace(entry) {
                return Err(Error::Answer(format!(
                    "GET {path}: {entry} was on an earlier page"
                )));
            }
        }
        paths.push(path);
        next = page.next;
    }
    if (seen.len() as u64) < expected {
        return Err(Error::Answer(format!(
            "GET {first} and the pages behind it hold {} entries, {expected} were pushed",
            seen.len()
        )));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_each_list() {
        let body = br#"{"name":"a","tags":["x","y"]}"#;
        assert_eq!(List::Tags.entries(body).unwrap(), ["x", "y"]);
        assert_eq!(List::Catalog.entries(body), None);
        let body = br#"{"manifests":[{"digest":"sha256:00","size":1}]}"#;
        assert_eq!(List::Referrers.entries(body).unwrap(), ["sha256:00"]);
        let body = br#"{"manifests":[{"size":1}]}"#;
        assert_eq!(List::Referrers.entries(body), None);
        let body = br#"{"repositories":[]}"#;
        assert!(List::Catalog.entries(body).unwrap().is_empty());
        assert_eq!(List::Tags.entries(b"{\"tags\":[\"x\""), None);
    }
}
