//! Rust sources as the checks see them: text with comments and literals
//! blanked, so that a word in a comment is no finding; and which parts are
//! test code.
//!
//! Invariant: every view has the byte length and the line breaks of the text
//! it was made from, so an offset means the same place in all of them. This is
//! a reader of tokens, not a parser: it knows no types and no macros.

use std::collections::BTreeSet;
use std::ops::Range;

/// A file of the repository, by its path from the root with `/` between parts.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// One violation of one rule, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) rule: String,
    pub(crate) instead: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, rule: String, instead: &str) -> Self {
        Self {
            path: path.to_owned(),
            line,
            rule,
            instead: instead.to_owned(),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{}: {}; instead: {}",
            self.path, self.line, self.rule, self.instead
        )
    }
}

/// The line, counted from 1, of a byte offset.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
        + 1
}

/// Whether literals survive a view.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Literals {
    Keep,
    Blank,
}

/// The code without its comments and, if asked, without what its string and
/// character literals say.
pub(crate) fn code(text: &str, literals: Literals) -> String {
    let mut lexer = Lexer {
        rest: text,
        out: String::with_capacity(text.len()),
        literals,
    };
    while lexer.step() {}
    lexer.out
}

struct Lexer<'a> {
    rest: &'a str,
    out: String,
    literals: Literals,
}

impl Lexer<'_> {
    /// Moves one token. False at the end of the text.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        if self.rest.starts_with("//") {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()), false);
        } else if self.rest.starts_with("/*") {
            self.take(block_comment_len(self.rest), false);
        } else if is_word(first) {
            let word = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
            match raw_string_len(self.rest) {
                Some(len) => self.take(len, self.literals == Literals::Keep),
                None => self.take(word, true),
            }
        } else if first == '"' {
            self.take(string_len(self.rest), self.literals == Literals::Keep);
        } else if first == '\'' {
            match char_len(self.rest) {
                Some(len) => self.take(len, self.literals == Literals::Keep),
                None => self.take(1, true), // a lifetime
            }
        } else {
            self.take(first.len_utf8(), true);
        }
        true
    }

    /// Passes `len` bytes on, as they are or as blanks.
    fn take(&mut self, len: usize, keep: bool) {
        let (token, rest) = self.rest.split_at_checked(len).unwrap_or((self.rest, ""));
        if keep {
            self.out.push_str(token)
        } else {
            push_blank(&mut self.out, token)
        }
        self.rest = rest;
    }
}

fn push_blank(out: &mut String, token: &str) {
    out.extend(
        token
            .bytes()
            .map(|byte| if byte == b'\n' { '\n' } else { ' ' }),
    );
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of a `/* … */` comment, nested ones included.
fn block_comment_len(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("*/") {
            depth = depth.saturating_sub(1);
            rest = after;
        } else {
            let mut chars = rest.chars();
            if chars.next().is_none() {
                return text.len();
            }
            rest = chars.as_str();
        }
        if depth == 0 {
            return text.len() - rest.len();
        }
    }
}

/// Length of a plain literal that starts with `"`.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a literal like `r"…"`, `br#"…"#`, if one starts here.
fn raw_string_len(text: &str) -> Option<usize> {
    let after_prefix = ["br", "cr", "r"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))?;
    let body = after_prefix.trim_start_matches('#');
    let hashes = after_prefix.len() - body.len();
    let body = body.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(text.len() - body.len() + end)
}

/// Length of a character literal, or None for a lifetime.
fn char_len(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let mut chars = body.chars();
    let first = chars.next()?;
    if first == '\\' {
        // The escaped character may itself be a quote.
        let escape = chars.next()?;
        let close = chars.as_str().find('\'')?;
        return Some(2 + escape.len_utf8() + close + 1);
    }
    chars
        .as_str()
        .starts_with('\'')
        .then(|| first.len_utf8() + 2)
}

/// The same view with every `#[cfg(test)]` item blanked.
pub(crate) fn without_tests(view: &str, blanked: &str) -> String {
    let mut out = String::with_capacity(view.len());
    let mut done = 0;
    for range in test_ranges(blanked) {
        if range.start < done {
            continue;
        }
        out.push_str(view.get(done..range.start).unwrap_or_default());
        push_blank(&mut out, view.get(range.clone()).unwrap_or_default());
        done = range.end;
    }
    out.push_str(view.get(done..).unwrap_or_default());
    out
}

/// The code that ships: comments, literals and test items blanked.
pub(crate) fn shipped_code(text: &str) -> String {
    let blanked = code(text, Literals::Blank);
    without_tests(&blanked, &blanked)
}

const TEST_ITEM: &str = "#[cfg(test)]";

/// Byte ranges of the items under `#[cfg(test)]`, attribute included.
fn test_ranges(blanked: &str) -> Vec<Range<usize>> {
    if blanked.contains("#![cfg(test)]") {
        return std::iter::once(0..blanked.len()).collect();
    }
    blanked
        .match_indices(TEST_ITEM)
        .map(|(start, _)| {
            let after = start + TEST_ITEM.len();
            start..after + item_len(blanked.get(after..).unwrap_or_default())
        })
        .collect()
}

/// Length of an item: to its `;`, or to the brace that closes its first one.
fn item_len(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Paths that hold only test code: what `#[cfg(test)] mod name;` declares, by
/// its name or by a `#[path]` of its own. A folder's path ends in `/`.
pub(crate) fn test_paths(files: &[File]) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let blanked = code(&file.text, Literals::Blank);
        for range in test_ranges(&blanked) {
            let item = blanked.get(range.clone()).unwrap_or_default();
            let words: Vec<&str> = item
                .split(|c| !is_word(c))
                .filter(|w| !w.is_empty())
                .collect();
            let ["cfg", "test", .., "mod", name] = words.as_slice() else {
                continue;
            };
            let written = file.text.get(range).unwrap_or_default();
            if let Some(target) = path_attribute(written) {
                let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                paths.insert(format!("{folder}/{target}"));
            } else {
                let folder = module_folder(&file.path);
                paths.insert(format!("{folder}/{name}.rs"));
                paths.insert(format!("{folder}/{name}/"));
            }
        }
    }
    paths
}

/// The file that `#[path = "…"]` names.
fn path_attribute(item: &str) -> Option<&str> {
    let (_, value) = item.split_once("#[path = \"")?;
    value.split_once('"').map(|(target, _)| target)
}

/// Whether a path is one of `test_paths` or below one.
pub(crate) fn is_test_path(path: &str, test_paths: &BTreeSet<String>) -> bool {
    test_paths.contains(path)
        || test_paths
            .iter()
            .any(|test| test.ends_with('/') && path.starts_with(test))
}

/// The folder in which a file's child modules lie.
fn module_folder(path: &str) -> String {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    match stem.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder.to_owned(),
        _ => stem.to_owned(),
    }
}

/// Byte offsets at which `word` stands as a whole word.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let before = code.get(..at).and_then(|s| s.chars().next_back());
            let after = code.get(at + word.len()..).and_then(|s| s.chars().next());
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let text = "a // unsafe\n/* x /* y */ unsafe */ b(\"uns\\\"afe\", r#\"q\"unsafe\"#, '\"', '\\'', b'\\\\') 'life é";
        let blanked = code(text, Literals::Blank);
        assert_eq!(blanked.len(), text.len());
        assert!(
            !blanked.contains("unsafe") && !blanked.contains('"'),
            "{blanked}"
        );
        assert!(blanked.contains("'life é"), "{blanked}");
        assert_eq!(blanked.find('b'), text.find("b("));
        let kept = code(text, Literals::Keep);
        assert_eq!(
            kept.matches("unsafe").count(),
            1,
            "only the raw string's is left: {kept}"
        );
    }

    #[test]
    fn test_items_are_not_shipped() {
        let text = "use a;\n#[cfg(test)]\nmod tests { fn f() { if x { bad } } }\nfn g() {}\n#[cfg(test)]\nuse bad::{c};\n";
        let shipped = shipped_code(text);
        assert!(!shipped.contains("bad"), "{shipped}");
        assert!(shipped.contains("fn g() {}"), "{shipped}");
        assert_eq!(shipped.len(), text.len());
    }

    #[test]
    fn declared_test_modules_are_test_paths() {
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let paths = test_paths(&[
            file("a/src/lib.rs", "#[cfg(test)]\nmod suite;\nmod real;"),
            file("a/src/real.rs", "#[cfg(test)] mod tests;"),
            file(
                "a/src/b/c.rs",
                "#[cfg(test)]\n#[path = \"c_tests.rs\"]\nmod tests;",
            ),
        ]);
        for test in [
            "a/src/suite.rs",
            "a/src/suite/deep.rs",
            "a/src/real/tests.rs",
            "a/src/b/c_tests.rs",
        ] {
            assert!(is_test_path(test, &paths), "{test}");
        }
        assert!(!is_test_path("a/src/real.rs", &paths));
    }

    #[test]
    fn a_word_is_whole() {
        assert_eq!(
            words("unsafe_code unsafe xunsafe", "unsafe").collect::<Vec<_>>(),
            [12]
        );
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }
}
