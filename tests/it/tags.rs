//! The list of tags: order, pages, ends.

use orlop_tests::client::Client;
use orlop_tests::oci;
use serde_json::json;

fn list(reply: &orlop_tests::reply::Reply) -> Vec<String> {
    reply.json()["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn tags_are_listed_in_order_and_in_pages() {
    let client = Client::shared();
    let repository = "tags/pages";
    let image = oci::image(&client, repository, &[b"one"]);
    let mut names: Vec<String> = (0..25).map(|i| format!("v{i}")).collect();
    names.extend(["latest", "Alpha", "_x", "1.0"].map(String::from));
    for name in &names {
        image.put(&client, repository, name);
    }
    let whole = client.get("/v2/tags/pages/tags/list").expect(200);
    assert_eq!(whole.json()["name"], json!(repository));
    let mut all = list(&whole);
    assert!(
        whole.find("link").is_none(),
        "a whole list has no next page"
    );
    let mut seen = Vec::new();
    let mut path = "/v2/tags/pages/tags/list?n=7".to_owned();
    loop {
        let reply = client.get(&path).expect(200);
        let page = list(&reply);
        assert!(page.len() <= 7);
        seen.extend(page);
        let Some(link) = reply.find("link") else {
            break;
        };
        let (target, relation) = link.split_once(';').unwrap();
        assert_eq!(relation.trim(), "rel=\"next\"");
        let target = target.trim_matches(['<', '>']);
        path = target[target.find("/v2/").unwrap()..].to_owned();
        assert!(seen.len() < 100, "the pages do not end");
    }
    assert_eq!(seen, all, "the pages together are the list");
    let listed = all.clone();
    all.sort();
    names.sort();
    assert_eq!(all, names);
    let mut folded = listed.clone();
    folded.sort_by_key(|name| name.to_lowercase());
    assert!(
        listed == all || listed == folded,
        "not in order: {listed:?}"
    );
}

#[test]
fn last_starts_after_a_tag_that_need_not_exist() {
    let client = Client::shared();
    let image = oci::image(&client, "tags/last", &[b"one"]);
    for name in ["a", "c", "e", "g"] {
        image.put(&client, "tags/last", name);
    }
    let after = |last: &str| {
        let path = format!("/v2/tags/last/tags/list?last={last}");
        list(&client.get(&path).expect(200))
    };
    assert_eq!(after("a"), ["c", "e", "g"]);
    assert_eq!(after("b"), ["c", "e", "g"]);
    assert_eq!(after("e"), ["g"]);
    assert_eq!(after("g"), [""; 0]);
    assert_eq!(after("zzz"), [""; 0]);
    let page = client.get("/v2/tags/last/tags/list?n=2&last=a").expect(200);
    assert_eq!(list(&page), ["c", "e"]);
}

#[test]
fn an_unknown_repository_has_no_list() {
    let client = Client::shared();
    client
        .get("/v2/tags/nobody/pushed/here/tags/list")
        .refused(404, "NAME_UNKNOWN");
}
