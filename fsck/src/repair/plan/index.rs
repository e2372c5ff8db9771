//! Whether the index goes, and what would go with it.
//!
//! Invariant: an index goes only where the next start can make it again. That
//! the log is whole was decided before.

use super::{Plan, listed};
use crate::finding::{Code, Finding};
use crate::repair::further::{self, Further};
use crate::repair::log::Log;
use crate::trouble::Result;

impl Plan {
    /// Whether the index has seen records that the log does not have.
    pub(in crate::repair) fn is_ahead(&self) -> bool {
        !self.has(&[Code::IndexAhead]).is_empty()
    }

    /// An index that is wrong is made again from the log. Digests that it alone
    /// knows would go with it: those that the bytes prove are kept in the log.
    pub(super) fn index(&mut self, log: &Log) -> Result<()> {
        if !self.folder.join("index").exists() {
            return Ok(());
        }
        let all = self.before.findings();
        let found: Vec<&Finding> = all.iter().filter(|found| is_index(found)).collect();
        let cut = self.before.findings_left_off > 0 && all.last().and_then(further::of).is_some();
        let further = Further::sort(&self.folder, log, &found)?;
        let wrong = found.len().saturating_sub(further.spared());
        for (digest, blob) in &further.proven {
            self.act(
                "digest.keep",
                format!("digest {digest}"),
                format!("writes to the log that it is one of blob {blob}: its bytes prove it, and only the index knew"),
                None,
            );
        }
        let unproven: Vec<String> = further.unproven.iter().map(ToString::to_string).collect();
        let mut gives_up = Vec::new();
        if wrong > 0 && !cut {
            let ended = further.wrong.iter().map(ToString::to_string);
            let lost: Vec<String> = unproven.iter().cloned().chain(ended).collect();
            if !lost.is_empty() {
                gives_up.push(format!(
                    "{} as further digests: only the index knows them, and no bytes prove them now",
                    listed(&lost)
                ));
            }
        } else {
            for digest in &unproven {
                self.cannot.push(format!(
                    "digest {digest}: only the index knows it, and the bytes of its blob are damaged or missing; bring them back and repair again"
                ));
            }
        }
        self.orders.further = further.proven;
        if wrong == 0 {
            return Ok(());
        }
        if cut {
            self.cannot.push(
                "the index: more further digests are known to it alone than are looked at in one go; repair again after this".to_owned(),
            );
            return Ok(());
        }
        if let Some(reason) = no_rebuild(self.before.findings()) {
            self.cannot.push(reason);
            return Ok(());
        }
        if self.is_ahead() {
            gives_up.push("what the end of the log held, which the index has seen and the log has lost; put lost journal files back instead if there are any".to_owned());
        }
        if !self.has(&[Code::IndexUnreadable]).is_empty() {
            gives_up.push(
                "further digests that it alone knows, if it has any: it cannot be read".to_owned(),
            );
        }
        self.index = true;
        self.act(
            "index.rebuild",
            "index/",
            format!(
                "moves it to quarantine/ ({wrong} findings); the next start makes it again from the log"
            ),
            (!gives_up.is_empty()).then(|| gives_up.join("; ")),
        );
        Ok(())
    }
}

fn is_index(finding: &Finding) -> bool {
    finding.code.name().starts_with("index.")
}

/// Why a start could make no index again, though the log holds.
fn no_rebuild(findings: &[Finding]) -> Option<String> {
    findings.iter().find_map(|finding| {
        let file = finding.object.file.as_deref()?;
        let is_log = file.starts_with("data/small/") || file.starts_with("data/meta/");
        match finding.code {
            Code::SegmentFooter if is_log => Some(format!(
                "the index: the footer of {file} does not hold, so that it cannot be made again; restore the store from a backup"
            )),
            Code::FileUnreadable if is_log => Some(format!(
                "the index: the disk cannot read all of {file}, so that it cannot be made again; copy the folder to another disk first"
            )),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Object;

    #[test]
    fn an_index_stays_while_the_disk_cannot_read_a_segment_that_it_is_made_from() {
        let found = |file: &str, code| {
            let object = Object::file(file).at(4096u64).len(4096u64);
            [Finding::new(code, object, "4096 bytes", "an error")]
        };
        for code in [Code::FileUnreadable, Code::SegmentFooter] {
            let is_kept = |file| no_rebuild(&found(file, code)).is_some();
            assert!(is_kept("data/small/S-0000000000000002.00000000"));
            assert!(is_kept("data/meta/S-0000000000000003.00000000"));
            assert!(!is_kept("data/raw/S-0000000000000001.00000000"));
        }
    }
}
