//! Pages of tags over memory.

use super::super::memory::Memory;
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
            assert!(page.tags.len() as u64 <= n);
            seen.extend(page.tags);
            if !page.more {
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
    for i in 0..=TAGS_PAGE_MAX {
        memory.set_tag("a", &format!("{i:05}"), Digest::of(Algorithm::Sha256, b""));
    }
    for n in [None, Some(u64::MAX), Some(1001)] {
        let page = registry.tag_list(WHO, &a, None, n).await.unwrap();
        assert_eq!((page.tags.len(), page.more), (TAGS_PAGE_MAX, true));
    }
    let page = registry.tag_list(WHO, &a, None, Some(0)).await.unwrap();
    assert_eq!((page.tags.len(), page.more), (0, false));
    let unknown = RepositoryName::parse("b").unwrap();
    assert_eq!(
        registry.tag_list(WHO, &unknown, None, Some(0)).await,
        Err(Error::NameUnknown)
    );
}
