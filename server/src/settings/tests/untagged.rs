//! How long untagged manifests stay, by patterns of repositories.

use super::*;

#[test]
fn untagged_manifests_go_by_patterns_of_repositories() {
    let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
    let file = "[gc.untagged]\n\"**\" = \"30d\"\n\"ci/**\" = \"7d\"\n\"ci/release\" = \"keep\"\n";
    let by_file = Case {
        file: Some(file),
        ..Case::default()
    };
    let by_flag = Case {
        flags: vec!["--gc-untagged=30d,ci/**=7d,ci/release=keep"],
        ..Case::default()
    };
    for case in [by_file, by_flag] {
        let untagged = case.settings().untagged;
        assert_eq!(untagged.of("team/app"), days(30));
        assert_eq!(untagged.of("ci/app/web"), days(7));
        assert_eq!(untagged.of("ci/release"), None);
        let shown = case.load().show();
        let shown = shown.iter().find(|shown| shown.key == "gc.untagged");
        let shown = shown.unwrap();
        assert_eq!(shown.text, "30d,ci/**=7d,ci/release=keep");
        assert_eq!(shown.value["ci/**"], "7d");
        assert_eq!(shown.value["**"], "30d");
        let again = schedule::Keep::from_text(&shown.text).unwrap();
        assert_eq!(again.0, untagged);
    }
    for (file, problem) in [
        ("[gc.untagged]\n\"ci/**\" = 7\n", "ci/**: is an integer"),
        ("[gc.untagged]\n\"ci/**\" = \"1s\"\n", "is out of range"),
        ("[gc.untagged]\n\"ci/**x\" = \"7d\"\n", "is not a pattern"),
        ("[gc]\nuntagged = \"keep,7d\"\n", "neither a pattern"),
        ("[gc]\nuntagged = \"keep,a=7d,a=8d\"\n", "is there twice"),
        (
            "[gc]\nuntagged = \"**=7d,a=7d,**=8d\"\n",
            "** is there twice",
        ),
        ("[gc]\nuntagged = \"keep,**=8d\"\n", "** is there twice"),
        (
            "[gc.untagged]\n\"**\" = \"7d\"\n\"** \" = \"8d\"\n",
            "** is there twice",
        ),
        ("[gc]\nuntagged = \"soon\"\n", "nor keep"),
    ] {
        let case = Case {
            file: Some(file),
            ..Case::default()
        };
        let problems = case.problems();
        assert_eq!(problems.len(), 1, "{file}: {problems:?}");
        assert!(problems[0].contains(problem), "{problems:?}");
    }
}
