//! Pages of tags over memory.

use super::super::PAGE_MAX;
use super::super::memory::Memory;
use super::super::note::Note;
use super::*;
use orlop_oci::{Algorithm, Digest};

const WHO: Subject = Subject::Anonymous;

#[tokio::test]
async fn pages_cover_all_tags_once() {
    let memory = Memory::default();
    let registry = memory.registry();
    let a = RepositoryName::parse("a").unwrap();
    let mut all: Vec<String> = ["-", ".", "0", "B", "_", "a", "a-", "aa"]
        .map(|tag| format!("t{tag}"))
        .to_vec();
    for tag in &all {
        memory.set_tag("a", tag, Digest::of(Algorithm::Sha256, b""));
    }
    all.sort();
    for n in 1..10 {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let last = seen.last().cloned();
            let page = registry
                .tag_list(WHO, &a, last.as_deref(), Some(n))
                .await
                .unwrap();
            assert!(page.entries.len() as u64 <= n);
            seen.extend(page.entries);
            if page.more_after.is_none() {
                break;
            }
        }
        assert_eq!(seen, all, "pages of {n}");
    }
}

#[tokio::test]
async fn a10_limits_are_clamped() {
    let memory = Memory::default();
    let registry = memory.registry();
    let a = RepositoryName::parse("a").unwrap();
    for i in 0..=PAGE_MAX {
        memory.set_tag("a", &format!("{i:05}"), Digest::of(Algorithm::Sha256, b""));
    }
    for n in [None, Some(u64::MAX), Some(1001)] {
        let page = registry.tag_list(WHO, &a, None, n).await.unwrap();
        assert_eq!(
            (page.entries.len(), page.more_after.is_some()),
            (PAGE_MAX, true)
        );
    }
    let page = registry.tag_list(WHO, &a, None, Some(0)).await.unwrap();
    assert_eq!((page.entries.len(), page.more_after.is_some()), (0, false));
    let unknown = RepositoryName::parse("b").unwrap();
    assert_eq!(
        registry.tag_list(WHO, &unknown, None, Some(0)).await,
        Err(Error::NameUnknown)
    );
}

#[tokio::test]
async fn a_deleted_tag_leaves_the_manifest() {
    let memory = Memory::default();
    let registry = memory.registry();
    let a = RepositoryName::parse("a").unwrap();
    let digest = memory.push_image("a", &["x", "y"]);
    let at = |text: &str| Reference::parse(text).unwrap();
    let tag = |text: &str| Tag::parse(text).unwrap();
    registry.tag_delete(WHO, &a, &tag("x")).await.unwrap();
    let gone = registry.manifest_stat(WHO, &a, &at("x")).await;
    assert_eq!(gone, Err(Error::ManifestUnknown));
    for kept in ["y".to_owned(), digest.to_string()] {
        registry.manifest_stat(WHO, &a, &at(&kept)).await.unwrap();
    }
    let untag = Note::Deletion(Deletion::Tag {
        repository: a.clone(),
        tag: "x".to_owned(),
    });
    assert_eq!(memory.notes(), [untag]);
    assert_eq!(
        registry.tag_delete(WHO, &a, &tag("x")).await,
        Err(Error::ManifestUnknown)
    );
    let b = RepositoryName::parse("b").unwrap();
    assert_eq!(
        registry.tag_delete(WHO, &b, &tag("x")).await,
        Err(Error::NameUnknown)
    );
    assert_eq!(memory.notes().len(), 1, "nothing deleted, nothing noted");
}
