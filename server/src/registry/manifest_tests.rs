//! Manifests over memory.

use super::super::memory::Memory;
use super::*;
use orlop_oci::ManifestType;
use serde_json::{Value, json};

const WHO: Subject = Subject::Anonymous;

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn descriptor(media_type: &str, digest: Digest, size: usize) -> Value {
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
}

fn image(config: Value, layers: Vec<Value>) -> Bytes {
    let body = json!({
        "schemaVersion": 2,
        "mediaType": ManifestType::OciImage.as_str(),
        "config": config,
        "layers": layers,
    });
    // Trailing space: bytes come back as they were.
    format!("{body} \n").into()
}

fn index(manifests: Vec<Value>) -> Bytes {
    let body = json!({
        "schemaVersion": 2,
        "mediaType": ManifestType::OciIndex.as_str(),
        "manifests": manifests,
    });
    body.to_string().into()
}

fn an_image(memory: &Memory, repository: &str) -> Bytes {
    let config = memory.add(repository, b"{}");
    let layer = memory.add(repository, b"layer");
    image(
        descriptor("application/vnd.oci.image.config.v1+json", config, 2),
        vec![descriptor("application/vnd.oci.image.layer.v1.tar", layer, 5); 2],
    )
}

#[tokio::test]
async fn two_pushes_of_one_tag_are_noted_in_the_order_of_their_rows() {
    let memory = Memory::default();
    let registry = memory.registry();
    let one = an_image(&memory, "a");
    let two = Bytes::from([&one[..], b" "].concat());
    // The first is noted, and its row comes late.
    let held = memory.hold(Digest::of(Algorithm::Sha256, &one));
    let pushes = [one, two].map(|bytes| {
        let registry = registry.clone();
        async move { push(&registry, "latest", bytes).await.unwrap() }
    });
    let [first, second] = pushes.map(tokio::spawn);
    while memory.notes().is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    held.notify_one();
    first.await.unwrap();
    second.await.unwrap();
    let latest = registry
        .manifest_stat(WHO, &name("a"), &reference("latest"))
        .await
        .unwrap();
    let noted = memory
        .notes()
        .into_iter()
        .rev()
        .find_map(|note| match note {
            Note::Manifest { digest, .. } => Some(digest),
            _ => None,
        });
    assert_eq!(Some(latest.digest), noted, "the last note names another");
}

async fn push(registry: &Registry, at: &str, bytes: Bytes) -> Result<Pushed, Error> {
    let a = name("a");
    let room = registry.manifest_room(WHO, &a, bytes.len())?;
    registry
        .manifest_push(WHO, &a, (&reference(at), &[]), None, (bytes, room))
        .await
}

#[tokio::test]
async fn pushed_bytes_come_back_exactly() {
    let memory = Memory::default();
    let registry = memory.registry();
    let bytes = an_image(&memory, "a");
    let digest = push(&registry, "latest", bytes.clone())
        .await
        .unwrap()
        .digest;
    for at in ["latest".to_owned(), digest.to_string()] {
        let at = reference(&at);
        let pulled = registry.manifest_pull(WHO, &name("a"), &at).await.unwrap();
        let whole = pulled.content.bytes(1 << 20).await.unwrap();
        assert_eq!(whole, bytes);
        assert_eq!(pulled.row.digest, digest);
        let row = registry.manifest_stat(WHO, &name("a"), &at).await.unwrap();
        assert_eq!(row.size, bytes.len() as u64);
        assert_eq!(row.media_type, ManifestType::OciImage.as_str());
    }
    assert_eq!(memory.pins(), 0);
    assert_eq!(
        memory.notes(),
        [Note::Manifest {
            repository: name("a"),
            digest,
            media_type: ManifestType::OciImage.as_str().to_owned(),
            tags: vec!["latest".to_owned()],
        }]
    );
    for (repository, at) in [("a", "other"), ("b", "latest")] {
        assert_eq!(
            registry
                .manifest_stat(WHO, &name(repository), &reference(at))
                .await,
            Err(Error::ManifestUnknown)
        );
    }
}

#[tokio::test]
async fn a42_a43_the_digest_asked_for_is_the_digest() {
    let memory = Memory::default();
    let registry = memory.registry();
    let bytes = an_image(&memory, "a");
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, &bytes);
        let pushed = push(&registry, &digest.to_string(), bytes.clone()).await;
        assert_eq!(pushed.unwrap().digest, digest);
        let other = Digest::of(algorithm, b"other");
        assert_eq!(
            push(&registry, &other.to_string(), bytes.clone()).await,
            Err(Error::mismatch(other, digest))
        );
    }
}

#[tokio::test]
async fn a47_what_it_names_must_be_in_the_repository() {
    let memory = Memory::default();
    let registry = memory.registry();
    let config = memory.add("a", b"{}");
    let config = descriptor("application/vnd.oci.image.config.v1+json", config, 2);
    let elsewhere = memory.add("b", b"layer");
    let absent = Digest::of(Algorithm::Sha256, b"absent");
    for digest in [elsewhere, absent] {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar", digest, 5);
        assert_eq!(
            push(&registry, "t", image(config.clone(), vec![layer])).await,
            Err(Error::references_unknown(vec![digest]))
        );
    }
    assert_eq!(memory.pins(), 0);
    let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let foreign = descriptor(kind, absent, 5);
    push(&registry, "t", image(config.clone(), vec![foreign.clone()]))
        .await
        .unwrap();
    // Once as a foreign layer and once as any other, it is needed.
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar", absent, 5);
    assert_eq!(
        push(&registry, "t", image(config.clone(), vec![foreign, layer])).await,
        Err(Error::references_unknown(vec![absent]))
    );
    // What need not be here, but is, has the size it has.
    let here = memory.add("a", b"here");
    let wrong = descriptor(kind, here, 5);
    assert!(matches!(
        push(&registry, "t", image(config, vec![wrong])).await,
        Err(Error::DescriptorSize { stored: 4, .. })
    ));
}

#[tokio::test]
async fn a49_sizes_must_be_those_of_the_blobs() {
    let memory = Memory::default();
    let registry = memory.registry();
    let digest = memory.add("a", b"{}");
    let config = descriptor("application/vnd.oci.image.config.v1+json", digest, 3);
    assert_eq!(
        push(&registry, "t", image(config, vec![])).await,
        Err(Error::DescriptorSize {
            digest,
            declared: 3,
            stored: 2
        })
    );
}

#[tokio::test]
async fn an_index_needs_its_manifests() {
    let memory = Memory::default();
    let registry = memory.registry();
    let bytes = an_image(&memory, "a");
    let child = Digest::of(Algorithm::Sha256, &bytes);
    let entry = descriptor(ManifestType::OciImage.as_str(), child, bytes.len());
    assert_eq!(
        push(&registry, "multi", index(vec![entry.clone()])).await,
        Err(Error::references_unknown(vec![child]))
    );
    push(&registry, &child.to_string(), bytes).await.unwrap();
    push(&registry, "multi", index(vec![entry])).await.unwrap();
}

#[tokio::test]
async fn a15_a_deep_dag_is_pushed_level_by_level() {
    let memory = Memory::default();
    let registry = memory.registry();
    let mut bytes = an_image(&memory, "a");
    push(&registry, "leaf", bytes.clone()).await.unwrap();
    let mut media_type = ManifestType::OciImage.as_str();
    for level in 0..40 {
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let entry = descriptor(media_type, digest, bytes.len());
        bytes = index(vec![entry.clone(), entry]);
        media_type = ManifestType::OciIndex.as_str();
        push(&registry, &format!("level-{level}"), bytes.clone())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn sparse_manifests_are_a_setting() {
    let memory = Memory::default();
    let here = an_image(&memory, "a");
    let child = Digest::of(Algorithm::Sha256, &here);
    let entry = |digest, size| descriptor(ManifestType::OciImage.as_str(), digest, size);
    let absent = entry(Digest::of(Algorithm::Sha256, b"absent"), 6);
    let sparse = memory.registry().with_sparse_manifests(true);
    push(&sparse, "here", here.clone()).await.unwrap();
    push(&sparse, "sparse", index(vec![absent.clone()]))
        .await
        .unwrap();
    let layer = Digest::of(Algorithm::Sha256, b"no such layer");
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar", layer, 5);
    let config = Digest::of(Algorithm::Sha256, b"no such config");
    let config = descriptor("application/vnd.oci.image.config.v1+json", config, 5);
    let bare = image(config, vec![layer]);
    push(&sparse, "bare", bare.clone()).await.unwrap();
    // What is here must be what it says it is.
    let wrong = entry(child, here.len() + 1);
    assert!(matches!(
        push(&sparse, "wrong", index(vec![wrong])).await,
        Err(Error::DescriptorSize { .. })
    ));
    for strict in [index(vec![absent]), bare] {
        let refused = push(&memory.registry(), "x", strict).await;
        assert!(matches!(refused, Err(Error::ReferencesUnknown { .. })));
    }
}

#[tokio::test]
async fn one_push_by_digest_sets_many_tags() {
    let memory = Memory::default();
    let registry = memory.registry();
    let bytes = an_image(&memory, "a");
    let digest = Reference::Digest(Digest::of(Algorithm::Sha512, &bytes));
    let tags: Vec<Tag> = (0..10)
        .map(|i| Tag::parse(&format!("v{i}")).unwrap())
        .collect();
    let (a, to) = (name("a"), (&digest, tags.as_slice()));
    let room = registry.manifest_room(WHO, &a, bytes.len()).unwrap();
    let pushed = registry
        .manifest_push(WHO, &a, to, None, (bytes, room))
        .await;
    assert_eq!(Some(&pushed.unwrap().digest), digest.digest());
    for tag in tags {
        let row = registry.manifest_stat(WHO, &a, &Reference::Tag(tag)).await;
        assert_eq!(Some(&row.unwrap().digest), digest.digest());
    }
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags_along() {
    let memory = Memory::default();
    let registry = memory.registry();
    let digest = memory.push_image("a", &["x", "y"]);
    memory.push_image("b", &["x"]);
    let (a, b) = (name("a"), name("b"));
    assert_eq!(registry.manifest_delete(WHO, &a, &digest).await, Ok(()));
    for at in ["x".to_owned(), "y".to_owned(), digest.to_string()] {
        assert_eq!(
            registry.manifest_stat(WHO, &a, &reference(&at)).await,
            Err(Error::ManifestUnknown),
            "{at}"
        );
    }
    registry
        .manifest_stat(WHO, &b, &reference("x"))
        .await
        .unwrap();
    let noted = Note::Deletion(Deletion::Manifest {
        repository: a.clone(),
        digest,
    });
    assert_eq!(memory.notes(), [noted]);
    for (repository, error) in [
        (&b, Error::ManifestUnknown),
        (&name("c"), Error::NameUnknown),
    ] {
        assert_eq!(
            registry.manifest_delete(WHO, repository, &digest).await,
            Err(error)
        );
    }
}

#[tokio::test]
async fn a_subject_may_come_later() {
    let memory = Memory::default();
    let registry = memory.registry();
    let config = memory.add("a", b"{}");
    let absent = Digest::of(Algorithm::Sha256, b"later");
    let body = json!({
        "schemaVersion": 2,
        "mediaType": ManifestType::OciImage.as_str(),
        "artifactType": "application/vnd.example.sbom",
        "config": descriptor("application/vnd.oci.empty.v1+json", config, 2),
        "layers": [],
        "subject": descriptor(ManifestType::OciImage.as_str(), absent, 7),
    });
    let pushed = push(&registry, "sbom", body.to_string().into()).await;
    let pushed = pushed.unwrap();
    assert_eq!(pushed.subject, Some(absent));
    let list = async |kind, last| {
        let a = name("a");
        let page = registry.referrer_list(WHO, &a, &absent, kind, last, None);
        page.await.unwrap().entries
    };
    let [referrer] = &list(None, None).await[..] else {
        panic!("one referrer");
    };
    assert_eq!(referrer.digest, pushed.digest);
    let kind = referrer.artifact_type.as_deref();
    assert_eq!(kind, Some("application/vnd.example.sbom"));
    assert_eq!(list(kind, None).await.len(), 1);
    assert!(list(Some("other/type"), None).await.is_empty());
    assert!(list(None, Some(&pushed.digest)).await.is_empty());
}

#[tokio::test]
async fn a_failed_catalog_names_nothing() {
    let memory = Memory::default();
    let registry = memory.registry();
    let bytes = an_image(&memory, "a");
    memory.fail_writes(Some(Fault::Poisoned("sync failed".into())));
    push(&registry, "t", bytes).await.unwrap_err();
    assert_eq!(memory.pins(), 0);
    assert_eq!(
        registry
            .manifest_stat(WHO, &name("a"), &reference("t"))
            .await,
        Err(Error::ManifestUnknown)
    );
}
