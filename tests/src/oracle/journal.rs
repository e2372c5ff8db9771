//! The oracle's journal: a line before each request, a line after each answer.
//!
//! Invariants: a line is durable before the request that it announces is sent,
//! and before its writer goes on after an answer. Lines are whole: one that a
//! crash cut has no line break and is left out. Numbers are never given twice.
//!
//! A line is words with a space between them; a manifest comes last, as JSON
//! without spaces.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::content::{Content, Held};

/// What a request is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// A blob in a repository, pushed or mounted.
    Blob(String, Content),
    /// A blob leaves a repository.
    BlobGone(String, String),
    /// A manifest in a repository, perhaps under a tag.
    Manifest(String, Option<String>, Held),
    /// A manifest leaves a repository, with its tags.
    ManifestGone(String, String),
    /// A tag leaves a repository.
    TagGone(String, String),
    /// A session is opened for this content.
    Open(String, Content),
    /// Its bytes are sent up to this offset.
    Chunk(u64, usize),
    /// The rest is sent, and it becomes a blob.
    Finish(u64),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A request is about to be sent.
    Try(u64, Attempt),
    /// It was acknowledged; a session tells where it goes on.
    Done(u64, Option<String>),
    /// Something was answered that must never be.
    Wrong(String),
    /// The server could not, and said so: nothing is known of that request.
    Refused(String),
    /// What was found after a restart holds from then on: a blob is there.
    SawBlob(String, String, bool),
    /// A manifest is there.
    SawManifest(String, String, bool),
    /// A tag leads to this digest, or to none.
    SawTag(String, String, Option<String>),
    /// A session is at this offset and goes on there, or is gone.
    SawUpload(u64, Option<(usize, String)>),
}

fn words(line: &Line) -> String {
    use Attempt::{Blob, BlobGone, Chunk, Finish, Manifest, ManifestGone, Open, TagGone};
    let or = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
    match line {
        Line::Try(n, Blob(r, c)) => format!("try {n} blob {r} {} {}", c.seed, c.size),
        Line::Try(n, BlobGone(r, d)) => format!("try {n} blob-gone {r} {d}"),
        Line::Try(n, Manifest(r, t, m)) => {
            format!("try {n} manifest {r} {} {} {}", or(t), m.media_type, m.body)
        }
        Line::Try(n, ManifestGone(r, d)) => format!("try {n} manifest-gone {r} {d}"),
        Line::Try(n, TagGone(r, t)) => format!("try {n} tag-gone {r} {t}"),
        Line::Try(n, Open(r, c)) => format!("try {n} open {r} {} {}", c.seed, c.size),
        Line::Try(n, Chunk(u, to)) => format!("try {n} chunk {u} {to}"),
        Line::Try(n, Finish(u)) => format!("try {n} finish {u}"),
        Line::Done(n, at) => format!("done {n} {}", or(at)),
        Line::Wrong(what) => format!("wrong {}", what.replace('\n', " ")),
        Line::Refused(what) => format!("refused {}", what.replace('\n', " ")),
        Line::SawBlob(r, d, is) => format!("saw-blob {r} {d} {is}"),
        Line::SawManifest(r, d, is) => format!("saw-manifest {r} {d} {is}"),
        Line::SawTag(r, t, d) => format!("saw-tag {r} {t} {}", or(d)),
        Line::SawUpload(u, Some((to, at))) => format!("saw-upload {u} {to} {at}"),
        Line::SawUpload(u, None) => format!("saw-upload {u} -"),
    }
}

/// Reads one line; nothing when it is none of ours.
fn parse(line: &str) -> Option<Line> {
    let (kind, rest) = line.split_once(' ')?;
    if kind == "wrong" {
        return Some(Line::Wrong(rest.to_owned()));
    }
    if kind == "refused" {
        return Some(Line::Refused(rest.to_owned()));
    }
    let w: Vec<&str> = rest.split(' ').collect();
    let word = |i: usize| w.get(i).map(|word| (*word).to_owned());
    let number = |i: usize| w.get(i)?.parse::<u64>().ok();
    let size = |i: usize| w.get(i)?.parse::<usize>().ok();
    let or = |i: usize| Some(word(i)?).map(|word| (word != "-").then_some(word));
    let flag = |i: usize| w.get(i)?.parse::<bool>().ok();
    let content = |i: usize| {
        let (seed, size) = (number(i)?, size(i + 1)?);
        Some(Content { seed, size })
    };
    Some(match kind {
        "try" => {
            let attempt = match *w.get(1)? {
                "blob" => Attempt::Blob(word(2)?, content(3)?),
                "blob-gone" => Attempt::BlobGone(word(2)?, word(3)?),
                "manifest" => {
                    let (media_type, body) = (word(4)?, word(5)?);
                    Attempt::Manifest(word(2)?, or(3)?, Held { media_type, body })
                }
                "manifest-gone" => Attempt::ManifestGone(word(2)?, word(3)?),
                "tag-gone" => Attempt::TagGone(word(2)?, word(3)?),
                "open" => Attempt::Open(word(2)?, content(3)?),
                "chunk" => Attempt::Chunk(number(2)?, size(3)?),
                "finish" => Attempt::Finish(number(2)?),
                _ => return None,
            };
            Line::Try(number(0)?, attempt)
        }
        "done" => Line::Done(number(0)?, or(1)?),
        "saw-blob" => Line::SawBlob(word(0)?, word(1)?, flag(2)?),
        "saw-manifest" => Line::SawManifest(word(0)?, word(1)?, flag(2)?),
        "saw-tag" => Line::SawTag(word(0)?, word(1)?, or(2)?),
        "saw-upload" => match or(1)? {
            Some(_) => Line::SawUpload(number(0)?, Some((size(1)?, word(2)?))),
            None => Line::SawUpload(number(0)?, None),
        },
        _ => return None,
    })
}

/// Every whole line of a journal.
///
/// # Panics
/// When a whole line cannot be read: then nothing can be concluded from it.
#[must_use]
pub fn read(path: &Path) -> Vec<Line> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => panic!("read the oracle's journal {}: {error}", path.display()),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parsed = whole.lines().map(|line| {
        parse(line).unwrap_or_else(|| panic!("a line of the oracle's journal is wrong: {line}"))
    });
    parsed.collect()
}

/// The journal, open for writing by several threads.
#[derive(Debug)]
pub struct Journal {
    file: File,
    waiting: Mutex<Waiting>,
    /// Held by the one that writes for all.
    leader: Mutex<()>,
}

#[derive(Debug)]
struct Waiting {
    text: String,
    next: u64,
    /// Lines taken so far, and of these the durable ones.
    taken: u64,
    durable: u64,
}

impl Journal {
    /// Opens it at its end.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn open(path: &Path) -> Journal {
        let next = read(path).iter().fold(0, |next, line| match line {
            Line::Try(n, _) => next.max(n + 1),
            _ => next,
        });
        let file = File::options().create(true).append(true).open(path);
        Journal {
            file: file.expect("open the oracle's journal"),
            waiting: Mutex::new(Waiting {
                text: String::new(),
                next,
                taken: 0,
                durable: 0,
            }),
            leader: Mutex::new(()),
        }
    }

    /// Announces a request; returns its number.
    pub fn attempt(&self, attempt: Attempt) -> u64 {
        let (number, place) = {
            let mut waiting = self.waiting();
            let number = waiting.next;
            waiting.next += 1;
            (number, waiting.take(&Line::Try(number, attempt)))
        };
        self.sync(place);
        number
    }

    /// Writes a line.
    pub fn write(&self, line: &Line) {
        let place = self.waiting().take(line);
        self.sync(place);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the line at this place is durable: the first that comes
    /// syncs for all that wait.
    fn sync(&self, place: u64) {
        let _turn = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        let (text, taken) = {
            let mut waiting = self.waiting();
            if waiting.durable >= place {
                return;
            }
            (std::mem::take(&mut waiting.text), waiting.taken)
        };
        (&self.file)
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .expect("write the oracle's journal");
        self.waiting().durable = taken;
    }
}

impl Waiting {
    fn take(&mut self, line: &Line) -> u64 {
        self.text.push_str(&words(line));
        self.text.push('\n');
        self.taken += 1;
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_cut_line_is_left_out() {
        let folder = crate::place::dir();
        let path = folder.path().join("journal");
        let held = Held {
            media_type: "a/b".to_owned(),
            body: "{\"x\":1}".to_owned(),
        };
        let content = Content { seed: 3, size: 4 };
        let name = || "r/s".to_owned();
        let attempts = vec![
            Attempt::Blob(name(), content),
            Attempt::BlobGone(name(), "d".into()),
            Attempt::Manifest(name(), None, held.clone()),
            Attempt::Manifest(name(), Some("t".into()), held),
            Attempt::ManifestGone(name(), "d".into()),
            Attempt::TagGone(name(), "t".into()),
            Attempt::Open(name(), content),
            Attempt::Chunk(6, 10),
            Attempt::Finish(6),
        ];
        let journal = Journal::open(&path);
        let mut lines = Vec::new();
        for attempt in attempts {
            let number = journal.attempt(attempt.clone());
            assert_eq!(number, lines.len() as u64);
            lines.push(Line::Try(number, attempt));
        }
        let more = [
            Line::Done(0, None),
            Line::Done(6, Some("/v2/x?y=z".into())),
            Line::Wrong("a b c".into()),
            Line::Refused("503 d".into()),
            Line::SawBlob(name(), "d".into(), true),
            Line::SawManifest(name(), "d".into(), false),
            Line::SawTag(name(), "t".into(), None),
            Line::SawTag(name(), "t".into(), Some("d".into())),
            Line::SawUpload(6, None),
            Line::SawUpload(6, Some((7, "/l".into()))),
        ];
        for line in more {
            journal.write(&line);
            lines.push(line);
        }
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"try 99 bl").unwrap();
        assert_eq!(read(&path), lines);
        drop(Journal::open(&path));
    }
}
