//! docs/fsck.md lists every code as the program knows it.

use std::fmt::Write as _;
use std::path::Path;

use orlop_fsck::{Code, Level};

const BEGIN: &str = "<!-- codes -->\n";
const END: &str = "<!-- end of codes -->\n";

fn table() -> String {
    let mut text = String::new();
    for level in [Level::Error, Level::Damage, Level::Warning, Level::Note] {
        writeln!(text, "\n| {level} | means | what to do |\n|---|---|---|").unwrap();
        for code in Code::ALL.iter().filter(|code| code.level() == level) {
            writeln!(
                text,
                "| `{code}` | {} | {} |",
                code.meaning(),
                code.remedy()
            )
            .unwrap();
        }
    }
    text + "\n"
}

#[test]
fn the_page_lists_every_code_with_its_level_meaning_and_remedy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fsck.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (start, rest) = page.split_once(BEGIN).unwrap();
    let (listed, end) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, [start, BEGIN, &table(), END, end].concat()).unwrap();
        return;
    }
    assert!(
        listed == table(),
        "the table in docs/fsck.md is not that of the codes; UPDATE=1 rewrites it"
    );
}

#[test]
fn codes_have_names_of_their_own() {
    for (at, code) in Code::ALL.iter().enumerate() {
        assert_eq!(
            Code::ALL
                .iter()
                .position(|other| other.name() == code.name()),
            Some(at)
        );
        assert_eq!(Code::parse(code.name()), Some(*code));
        let shape = |c: char| c.is_ascii_lowercase() || c == '.' || c == '-';
        assert!(code.name().chars().all(shape), "{code}");
        assert!(
            !code.meaning().is_empty() && !code.remedy().is_empty(),
            "{code}"
        );
    }
}
