//! What can be asked for, and how it is shown.

use std::process::{Command, Output};

use crate::support::{Folder, RAW};

fn run(folder: &Folder, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orlop-fsck"))
        .arg(folder.root())
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn text_names_code_object_and_remedy_of_each_finding() {
    let folder = Folder::golden();
    folder.edit(RAW, |bytes| bytes[4096 + 70] ^= 1);
    let said = run(&folder, &[]);
    let out = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("damage extent.header: blob sha256:"),
        "{out}"
    );
    assert!(lines[0].ends_with(&format!(" in {RAW} at 4096")), "{out}");
    assert!(lines[1].starts_with("  expected "), "{out}");
    assert!(lines[2].starts_with("  found    "), "{out}");
    assert!(lines[3].starts_with("  remedy   "), "{out}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("note journal.cut: ")),
        "{out}"
    );
    assert_eq!(lines.last(), Some(&"findings: 1"));
    assert_eq!(text(&said.stderr), "", "quiet in a pipe");
}

#[test]
fn progress_is_shown_in_a_pipe_only_when_asked_for() {
    let folder = Folder::golden();
    let said = run(&folder, &["--progress"]);
    assert!(
        text(&said.stderr).contains("journal: "),
        "{:?}",
        text(&said.stderr)
    );
    assert_eq!(text(&run(&folder, &["--quiet"]).stderr), "");
    let both = run(&folder, &["--quiet", "--progress"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_sample_tells_the_seed_that_draws_it_again() {
    let folder = Folder::golden();
    let said = folder.check_with(&["--content", "sample=50"]);
    let coverage = &said.report["coverage"];
    let seed = coverage["seed"].to_string();
    assert_eq!(coverage["content"], "sample=50");
    let again = folder.check_with(&["--content", "sample=50", "--seed", &seed]);
    assert_eq!(&again.report["coverage"], coverage);
    assert!(
        said.notes()
            .iter()
            .any(|note| note.contains(&format!("seed {seed}")))
    );
}

#[test]
fn what_cannot_be_is_refused_with_status_2() {
    let folder = Folder::golden();
    for args in [
        ["--content", "some"],
        ["--content", "sample=101"],
        ["--from", "somewhere"],
        ["--budget", "soon"],
        ["--output", "xml"],
    ] {
        let said = run(&folder, &args);
        assert_eq!(said.status.code(), Some(2), "{args:?}");
        assert!(
            text(&said.stderr).contains(args[1]),
            "{args:?}: {}",
            text(&said.stderr)
        );
    }
}

#[test]
fn a_scratch_folder_that_is_not_there_is_named() {
    let folder = Folder::golden();
    // The index is opened by a private copy, which needs one.
    folder.write("index/CURRENT", b"nothing\n");
    let scratch = folder.path("nowhere");
    let said = folder.check_with(&["--scratch", scratch.to_str().unwrap()]);
    assert_eq!(said.status, 2);
    assert!(
        said.error.contains("nowhere") && said.error.contains("--scratch"),
        "{}",
        said.error
    );
}

#[test]
fn a_small_store_needs_no_scratch_folder() {
    let folder = Folder::golden();
    let scratch = folder.path("nowhere");
    let said = folder.check_with(&[
        "--no-catalog", // it is opened in a private copy
        "--scratch",
        scratch.to_str().unwrap(),
    ]);
    assert_eq!(said.status, 0, "{}", said.error);
}
