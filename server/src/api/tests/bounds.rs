//! Pushes that are refused whatever they bring.

use super::*;

#[tokio::test]
async fn a_catalog_that_is_not_the_stores_is_told() {
    let server = Server {
        unpaired: Some(Unpaired::Older),
        ..Server::default()
    };
    let ready = get(&server, "GET /readyz").await;
    let body = ready.json();
    assert_eq!((ready.status, body["writes"].as_str()), (200, Some("off")));
    assert!(body["reason"].as_str().unwrap().contains("older"));
    let refused = get(&server, "POST /v2/a/blobs/uploads/").await;
    assert_eq!(
        (refused.status, refused.code()),
        (503, "UNAVAILABLE".into())
    );
    assert!(!refused.header("retry-after").is_empty());
    let message = refused.json()["errors"][0]["message"].to_string();
    assert!(message.contains("orlop catalog adopt"), "{message}");
    assert_eq!(get(&server, "GET /v2/a/tags/list").await.status, 404);
}

#[tokio::test]
async fn manifests_in_memory_are_bounded() {
    let server = Server {
        kept: Some(Memory::default().registry()),
        ..Server::default()
    };
    let registry = server.kept.clone().unwrap();
    let put = |headers: &'static [(&str, &str)]| {
        let line = "PUT /v2/a/manifests/v1";
        send(&server, line, headers, &[b"no manifest"], None)
    };
    let a = crate::registry::RepositoryName::parse("a").unwrap();
    let take = || registry.manifest_room(Subject::Anonymous, &a, 4 << 20).ok();
    let mut taken: Vec<_> = std::iter::from_fn(take).collect();
    assert_eq!(taken.len(), 16);
    for headers in [&[][..], &[("content-length", "11")]] {
        let refused = put(headers).await;
        assert_eq!(
            (refused.status, refused.code()),
            (429, "TOOMANYREQUESTS".into())
        );
        assert!(!refused.header("retry-after").is_empty());
    }
    let large = put(&[("content-length", "4194305")]).await;
    assert_eq!(large.status, 413);
    taken.pop();
    for headers in [&[][..], &[("content-length", "11")], &[]] {
        assert_eq!(put(headers).await.code(), "MANIFEST_INVALID");
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_trickles_in_is_given_up() {
    let server = Server::default();
    let (head, ()) = Request::put("/v2/a/manifests/v1")
        .body(())
        .unwrap()
        .into_parts();
    let trickle = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        Some((Ok(Bytes::from_static(b" ")), ()))
    });
    let began = tokio::time::Instant::now();
    let answer = handle(&server, &head, Box::pin(trickle)).await;
    let error = answer.map(|_| ()).unwrap_err();
    assert_eq!(
        (error.status().as_u16(), error.code()),
        (408, "MANIFEST_INVALID")
    );
    assert_eq!(began.elapsed().as_secs(), 60);
}
