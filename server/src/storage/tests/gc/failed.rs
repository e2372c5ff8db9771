//! Pushes that came to nothing after they were noted: a repair makes of the notes what
//! the catalog has.

use super::purge::{made_again, of, patient};
use super::refused::{names_of, parsed};
use super::*;

/// What was there of the manifest that is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Purged,
    Hidden,
    There,
}

/// How the push fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fails {
    /// Before anything is written.
    Early,
    /// When all is written: nobody can tell from the answer.
    Late,
}

async fn fails(before: Before, fails: Fails) {
    let case = format!("{before:?}, {fails:?}");
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    let (a, content) = (parsed("a"), layer("content"));
    let had = running.image("a", "moves", "kept").await;
    let bytes = async |running: &Running, digest: Digest| {
        let by_digest = Reference::Digest(digest);
        let pulled = running.registry.manifest_pull(WHO, &a, &by_digest).await;
        pulled.unwrap().content.bytes(1 << 20).await.unwrap()
    };
    let image = running.image("elsewhere", "v1", "content").await;
    let elsewhere = parsed("elsewhere");
    let v1 = Reference::parse("v1").unwrap();
    let pulled = running.registry.manifest_pull(WHO, &elsewhere, &v1).await;
    let text = pulled.unwrap().content.bytes(1 << 20).await.unwrap();
    if before != Before::Nothing {
        assert_eq!(running.image("a", "v1", "content").await, image);
        assert_eq!(bytes(&running, image).await, text);
    }
    match before {
        Before::Nothing | Before::There => {}
        Before::Hidden => running.delete("a", &image).await,
        Before::Purged => {
            let target = of(Some("a"), image);
            running.storage.gc().expunge(&target).await.unwrap();
        }
    }
    running.blob("a", "content").await;
    running.blob("a", "config of content").await;
    let is_named = Arc::new(AtomicBool::new(false));
    let named = Arc::clone(&is_named);
    running.storage.catalog.tell(Arc::new(move |place| {
        if place == "push" {
            named.store(true, Ordering::SeqCst);
        }
        let is_push = named.load(Ordering::SeqCst);
        match fails {
            Fails::Early => place != "push",
            Fails::Late => place != "committed" || !is_push,
        }
    }));
    // The link goes after the push has seen it, and comes back with it, which is noted.
    let held = running.registry.alone(Subject::Operator, &a).await;
    let deleting = running.registry.blob_delete(WHO, &a, &content);
    let pushing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let room = running.registry.manifest_room(WHO, &a, text.len()).unwrap();
        let moves = Reference::parse("moves").unwrap();
        let to = (&moves, &[][..]);
        let pushed = running
            .registry
            .manifest_push(WHO, &a, to, Some(MANIFEST), (text, room));
        pushed.await
    };
    let letting_go = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(held);
    };
    let (deleted, pushed, ()) = tokio::join!(deleting, pushing, letting_go);
    deleted.unwrap();
    let Err(Error::Storage(fault)) = pushed else {
        panic!("{case}: {pushed:?}");
    };
    println!("{case}: {fault}");
    assert!(is_named.load(Ordering::SeqCst));
    running.storage.catalog.tell(Arc::new(|_| true));
    let digests = [had, image, content, layer("config of content")];
    let names = names_of(&running, &["a"], &digests).await;
    let moves = match fails {
        Fails::Early => had,
        Fails::Late => image,
    };
    assert_eq!(names["a:moves"], moves.to_string(), "{case}");
    let image_of = made_again(running, folder.path()).await;
    let running = Running::start(image_of.path(), patient).await;
    assert_eq!(names_of(&running, &["a"], &digests).await, names, "{case}");
    // What the test deleted by its digest others may name.
    running.stop().await;
}

/// Only where a child was gone was it noted that a push came to nothing: a repair gave
/// the tag to what nobody had been told of, and brought back what was purged.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_gives_no_name_of_a_push_that_failed() {
    for before in [
        Before::Nothing,
        Before::Purged,
        Before::Hidden,
        Before::There,
    ] {
        fails(before, Fails::Early).await;
        fails(before, Fails::Late).await;
    }
}
