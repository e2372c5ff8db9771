//! The list of tags: form, order, pages.

use orlop_tests::client::manifest;
use serde_json::json;

use crate::case::Case;
use crate::check::{next_page, tags_in};
use crate::content::{Maker, index_document};

/// A repository with these tags.
fn tagged(scenario: &str, tags: &[&str]) -> Case {
    let case = Case::plain(scenario);
    let mut make = Maker::new(&case);
    make.manifest(index_document(&[]));
    make.last().tags = tags.iter().map(ToString::to_string).collect();
    case.push_all(&make.content);
    case
}

#[test]
fn the_list_has_name_and_tags() {
    let case = tagged("tags/form", &["b", "a"]);
    let path = format!("/v2/{}/tags/list", case.repository);
    let reply = case.client.get(&path).expect(200);
    assert_eq!(reply.header("content-type"), "application/json");
    let expected = json!({"name": case.repository, "tags": ["a", "b"]});
    assert_eq!(reply.json(), expected);
    assert_eq!(reply.find("link"), None, "a whole list has no next page");
}

#[test]
fn a_repository_without_tags_has_an_empty_list() {
    let case = tagged("tags/none", &[]);
    assert_eq!(case.tags(""), [""; 0]);
}

#[test]
fn a_repository_that_is_not_there_has_no_list() {
    let case = Case::plain("tags/unknown");
    case.client
        .get("/v2/tags/nobody/pushed/here/tags/list")
        .refused(404, "NAME_UNKNOWN");
}

#[test]
fn tags_are_in_order_of_their_bytes() {
    let tags = [
        "v10", "v9", "latest", "Alpha", "_x", "1.0", "alpha", "ALPHA", "0",
    ];
    let case = tagged("tags/order", &tags);
    let mut sorted = tags.to_vec();
    sorted.sort_unstable();
    assert_eq!(case.tags(""), sorted);
    assert_eq!(case.tags("?n=4"), sorted[..4]);
    assert_eq!(case.tags("?n=4&last=Alpha"), sorted[4..8]);
    assert_eq!(case.tags("?last=Alpha"), sorted[4..]);
}

#[test]
fn n_is_the_length_of_a_page() {
    let case = tagged("tags/pages", &["a", "b", "c", "d", "e"]);
    let list = |query: &str| {
        let path = format!("/v2/{}/tags/list{query}", case.repository);
        case.client.get(&path).expect(200)
    };
    let page = list("?n=2");
    assert_eq!(tags_in(&page), ["a", "b"]);
    assert!(next_page(&page).is_some(), "there is more");
    for enough in ["?n=5", "?n=6", "?n=1000000"] {
        let whole = list(enough);
        assert_eq!(tags_in(&whole).len(), 5, "{enough}");
        assert_eq!(whole.find("link"), None, "{enough}");
    }
    let none = list("?n=0");
    assert_eq!(tags_in(&none), [""; 0]);
    assert_eq!(none.find("link"), None);
}

#[test]
fn links_lead_through_all_pages() {
    let names: Vec<String> = (0..23).map(|number| format!("v{number:02}")).collect();
    let tags: Vec<&str> = names.iter().map(String::as_str).collect();
    let case = tagged("tags/links", &tags);
    let mut seen = Vec::new();
    let mut next = Some(format!("/v2/{}/tags/list?n=5", case.repository));
    while let Some(path) = next {
        let reply = case.client.get(&path).expect(200);
        let page = tags_in(&reply);
        next = next_page(&reply);
        assert!(page.len() == 5 || next.is_none(), "a short page in between");
        seen.extend(page);
        assert!(seen.len() <= 23, "the pages do not end");
    }
    assert_eq!(seen, names);
}

#[test]
fn last_is_a_tag_and_not_a_number_of_one() {
    let case = tagged("tags/last", &["1", "2", "3", "b", "d"]);
    assert_eq!(case.tags("?last=2"), ["3", "b", "d"]);
    assert_eq!(case.tags("?n=1&last=2"), ["3"]);
    // It need not be there.
    assert_eq!(case.tags("?last=c"), ["d"]);
    assert_eq!(case.tags("?last=d"), [""; 0]);
    assert_eq!(case.tags("?n=2&last=zzz"), [""; 0]);
}

#[test]
fn a_deleted_tag_is_not_listed() {
    let case = tagged("tags/deleted", &["a", "b", "c"]);
    case.client
        .delete(&manifest(&case.repository, "b"))
        .expect(202);
    assert_eq!(case.tags(""), ["a", "c"]);
}
