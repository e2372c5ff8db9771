//! A finding, and what it is about, field by field and in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::finding::{Code, Level};

/// A repository, and the tags in it, that a finding reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    /// The repository's name.
    pub repository: String,
    /// Its tags that lead to the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// What a finding is about. Only what is known is there.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// A blob, by its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// An upload, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// A segment: class, id and generation, as in the name of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// A file, by its path below the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Offset in the file, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Bytes from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// A table of the index or of the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// A row of the table, by its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the catalog says would be missed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affected: Vec<Affected>,
}

impl Object {
    /// A file below the data folder.
    #[must_use]
    pub fn file(path: impl Into<String>) -> Self {
        Self {
            file: Some(path.into()),
            ..Self::default()
        }
    }

    /// A blob.
    #[must_use]
    pub fn blob(digest: impl fmt::Display) -> Self {
        Self {
            blob: Some(digest.to_string()),
            ..Self::default()
        }
    }

    /// An upload.
    #[must_use]
    pub fn upload(id: impl fmt::Display) -> Self {
        Self {
            upload: Some(id.to_string()),
            ..Self::default()
        }
    }

    /// A row of a table.
    #[must_use]
    pub fn row(table: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            table: Some(table.into()),
            key: Some(key.into()),
            ..Self::default()
        }
    }

    /// The same, in this file.
    #[must_use]
    pub fn inside(mut self, path: impl Into<String>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// The same, in this segment.
    #[must_use]
    pub fn segment(mut self, segment: impl Into<String>) -> Self {
        self.segment = Some(segment.into());
        self
    }

    /// The same, at this offset of its file.
    #[must_use]
    pub fn at(mut self, offset: impl Into<u64>) -> Self {
        self.offset = Some(offset.into());
        self
    }

    /// The same, with this many bytes.
    #[must_use]
    pub fn len(mut self, length: impl Into<u64>) -> Self {
        self.length = Some(length.into());
        self
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(table) = &self.table {
            parts.push(format!(
                "row {} of {table}",
                self.key.as_deref().unwrap_or("?")
            ));
        }
        if let Some(blob) = &self.blob {
            parts.push(format!("blob {blob}"));
        }
        if let Some(upload) = &self.upload {
            parts.push(format!("upload {upload}"));
        }
        match (&self.file, &self.segment) {
            (Some(file), _) => parts.push(file.clone()),
            (None, Some(segment)) => parts.push(format!("segment {segment}")),
            (None, None) => {}
        }
        f.write_str(&parts.join(" in "))?;
        match self.offset {
            Some(offset) => write!(f, " at {offset}"),
            None => Ok(()),
        }
    }
}

/// Something that should not be, or a note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its stable code.
    pub code: Code,
    /// How bad it is.
    pub level: Level,
    /// What it is about, in words.
    pub about: String,
    /// What it is about, field by field.
    pub object: Object,
    /// What should be there; empty in a note.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expected: String,
    /// What is.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// A finding of this code.
    #[must_use]
    pub fn new(
        code: Code,
        object: Object,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self {
            code,
            level: code.level(),
            about: object.to_string(),
            object,
            expected: expected.to_string(),
            found: found.to_string(),
            remedy: code.remedy().to_owned(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.about.is_empty() { "" } else { ": " };
        if self.level == Level::Note {
            return writeln!(f, "note {}: {}{colon}{}", self.code, self.about, self.found);
        }
        writeln!(f, "{} {}: {}", self.level, self.code, self.about)?;
        writeln!(f, "  expected {}", self.expected)?;
        writeln!(f, "  found    {}", self.found)?;
        for affected in &self.object.affected {
            writeln!(
                f,
                "  affects  {} {}",
                affected.repository,
                affected.tags.join(" ")
            )?;
        }
        writeln!(f, "  remedy   {}", self.remedy)
    }
}
