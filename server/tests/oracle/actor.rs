//! A client that does something at random in one repository, and tells the
//! model. Whatever the registry answers otherwise than the model says is a
//! failure.

use std::collections::BTreeSet;

use bytes::Bytes;
use orlop::registry::{Algorithm, Digest, Error, Reference, Tag as TagName};

use crate::model::{Edge, Gone, Kind, Repo, Row, Span, Unlinked};
use crate::pool::{self, Blob, INDEX, Image, MANIFEST, Pool};
use crate::random::Random;
use crate::server::{Server, now};

/// Tags of a repository.
const TAGS: u64 = 12;
/// A push begins again when a lease was over before its end.
const TRIES: usize = 200;

pub(crate) struct Actor<'a> {
    pub(crate) server: &'a Server,
    pub(crate) pool: &'a Pool,
    pub(crate) repo: &'a mut Repo,
    pub(crate) random: &'a mut Random,
    /// Contents that are not here though rows name them.
    pub(crate) dangling: &'a mut BTreeSet<Digest>,
    pub(crate) others: &'a [String],
    /// Whether collections run beside this.
    pub(crate) beside: bool,
    /// Whether they purge soon what is deleted now.
    pub(crate) purges: bool,
    /// Whether all that is not tagged may go.
    pub(crate) any: bool,
}

impl Actor<'_> {
    pub(crate) async fn step(&mut self) {
        match self.random.below(100) {
            0..=27 => self.image(None).await,
            28..=37 => self.index().await,
            38..=44 => self.referrer().await,
            45..=48 => self.mount().await,
            49..=55 => self.retag().await,
            56..=63 => self.untag().await,
            64..=76 => self.delete().await,
            77..=78 => self.delete_blob().await,
            79..=82 => self.undelete_tag().await,
            83..=86 => self.undelete_manifest().await,
            87..=88 => self.give_up().await,
            89..=91 => self.loose_blob().await,
            _ => self.pull_one().await,
        }
        if self.purges {
            self.repo.doubt(self.any);
        }
    }

    fn soft(&self) -> BTreeSet<Digest> {
        if self.beside {
            self.repo.soft(self.any)
        } else {
            BTreeSet::new()
        }
    }

    fn gone(&mut self, from: i64) -> Gone {
        Gone {
            at: Span { from, to: now() },
            number: self.random.any(),
        }
    }

    fn some_visible(&mut self, soft: &BTreeSet<Digest>) -> Option<Digest> {
        let rows = self.repo.visible();
        let rows: Vec<Digest> = rows
            .map(|(digest, _)| *digest)
            .filter(|digest| !soft.contains(digest))
            .collect();
        self.random.one(&rows).copied()
    }

    fn some_tag(&mut self) -> String {
        format!("t{}", self.random.below(TAGS))
    }

    /// A tag mostly, or the digest of the content.
    fn some_reference(&mut self, bytes: &Bytes) -> Reference {
        match self.random.below(10) {
            0..=6 => Reference::Tag(TagName::parse(&self.some_tag()).unwrap()),
            7..=8 => Reference::Digest(Digest::of(Algorithm::Sha256, bytes)),
            _ => Reference::Digest(Digest::of(Algorithm::Sha512, bytes)),
        }
    }

    /// Sees to it that the repository has a blob, as a client does.
    async fn have(&mut self, blob: &Blob, digest: Digest) {
        let name = self.repo.name.clone();
        let found = self.server.blob_size(&name, &digest).await;
        match &found {
            Ok(size) => assert_eq!(*size, blob.bytes.len() as u64, "{digest}"),
            Err(Error::BlobUnknown(_)) => {}
            Err(error) => panic!("{name}@{digest}: {error}"),
        }
        let is_linked = self.repo.links.contains_key(&digest);
        assert!(
            found.is_err() || is_linked,
            "{name} has {digest}, which nobody gave it"
        );
        if found.is_ok() && self.random.percent(80) {
            self.repo.links.insert(digest, true);
            self.dangling.remove(&blob.sha256);
            return;
        }
        let from = self.random.one(self.others).cloned();
        if self.random.percent(30)
            && self
                .server
                .mount(&name, from.as_deref(), &digest)
                .await
                .unwrap()
        {
            self.repo.links.insert(digest, true);
            self.dangling.remove(&blob.sha256);
            return;
        }
        self.upload(blob, digest).await;
    }

    async fn upload(&mut self, blob: &Blob, digest: Digest) {
        let pieces = 1 + self.random.index(2);
        let name = self.repo.name.clone();
        let stored = self.server.upload(&name, digest, &blob.bytes, pieces);
        if let Err(error) = stored.await {
            panic!("{name}@{digest}: {error}");
        }
        self.repo.links.insert(digest, true);
        self.dangling.remove(&blob.sha256);
    }

    /// Pushes an image, about a subject if one is given.
    async fn image(&mut self, subject: Option<(Digest, Edge, usize)>) {
        let about = subject.as_ref().map(|(digest, _, size)| (digest, *size));
        let Image {
            config,
            layers,
            bytes,
        } = self.pool.image(self.random, about);
        let reference = self.some_reference(&bytes);
        let mut blobs = vec![(config.clone(), config.sha256)];
        blobs.extend(layers);
        let mut edges: Vec<Edge> = blobs
            .iter()
            .map(|(blob, digest)| Edge {
                kind: Kind::Blob,
                digest: *digest,
                sha256: blob.sha256,
            })
            .collect();
        edges.extend(subject.map(|(_, edge, _)| edge));
        for _ in 0..TRIES {
            for (blob, digest) in &blobs {
                self.have(blob, *digest).await;
            }
            if self.put(&reference, MANIFEST, &bytes, &edges).await {
                return;
            }
            assert!(self.beside, "what was just pushed is not here");
        }
        panic!("a lease is always over");
    }

    /// Pushes a manifest. False: something that it names is not here.
    async fn put(
        &mut self,
        reference: &Reference,
        kind: &'static str,
        bytes: &Bytes,
        edges: &[Edge],
    ) -> bool {
        let from = now();
        let name = self.repo.name.clone();
        let pushed = match self.server.push(&name, reference, kind, bytes).await {
            Ok(pushed) => pushed,
            Err(Error::ReferencesUnknown { .. }) => return false,
            Err(error) => panic!("{name}:{reference}: {error}"),
        };
        let row = Row {
            bytes: bytes.clone(),
            kind,
            sha256: Digest::of(Algorithm::Sha256, bytes),
            edges: edges.to_vec(),
            hidden: None,
            sure: true,
            orphan: None,
            touched: Span { from, to: now() },
            pulled: 0,
        };
        self.dangling.remove(&row.sha256);
        // What is about it may have gone while it was not here.
        let soft = self.soft();
        for (digest, about) in &mut self.repo.rows {
            about.sure &= about.subject() != Some(&pushed.digest) || !soft.contains(digest);
        }
        let tag = reference.tag().map(ToString::to_string);
        self.repo.put(pushed.digest, row, tag.as_deref());
        true
    }

    async fn index(&mut self) {
        let mut children = Vec::new();
        for _ in 0..=self.random.below(3) {
            // Also what may be going, in a storm.
            if let Some(child) = self.some_visible(&BTreeSet::new())
                && !children.contains(&child)
            {
                children.push(child);
            }
        }
        let soft = self.soft();
        let is_soft = children.iter().any(|child| soft.contains(child));
        let rows: Vec<_> = children
            .iter()
            .map(|child| (*child, &self.repo.rows[child]))
            .filter(|(_, row)| !self.dangling.contains(&row.sha256))
            .collect();
        let edges: Vec<Edge> = rows
            .iter()
            .map(|(digest, row)| Edge {
                kind: Kind::Child,
                digest: *digest,
                sha256: row.sha256,
            })
            .collect();
        let listed: Vec<_> = rows
            .iter()
            .map(|(digest, row)| (row.kind, *digest, row.bytes.len()))
            .collect();
        let bytes = pool::index(&listed);
        let reference = self.some_reference(&bytes);
        if self.put(&reference, INDEX, &bytes, &edges).await {
            for edge in &edges {
                self.pull(&edge.digest).await;
            }
        } else {
            assert!(is_soft, "{}: a child is not here", self.repo.name);
        }
    }

    async fn referrer(&mut self) {
        let soft = self.soft();
        let rows: Vec<Digest> = self.repo.rows.keys().copied().collect();
        let Some(subject) = self.random.one(&rows).copied() else {
            return;
        };
        let row = &self.repo.rows[&subject];
        let (sha256, size) = (row.sha256, row.bytes.len());
        let was_here = row.sure && !soft.contains(&subject) && !self.dangling.contains(&sha256);
        let edge = Edge {
            kind: Kind::Subject { was_here },
            digest: subject,
            sha256,
        };
        self.image(Some((subject, edge, size))).await;
    }

    async fn mount(&mut self) {
        let blobs: Vec<&Blob> = self.pool.blobs().collect();
        let (Some(blob), Some(from)) = (self.random.one(&blobs), self.random.one(self.others))
        else {
            return;
        };
        let (name, digest) = (self.repo.name.clone(), blob.sha256);
        if self.server.mount(&name, Some(from), &digest).await.unwrap() {
            self.repo.links.insert(digest, true);
            self.dangling.remove(&digest);
        }
    }

    /// Gives what is here another tag.
    async fn retag(&mut self) {
        let soft = self.soft();
        let Some(digest) = self.some_visible(&soft) else {
            return;
        };
        let row = self.repo.rows[&digest].clone();
        // By a tag it gets its SHA-256, and with it another row.
        let reference = Reference::Tag(TagName::parse(&self.some_tag()).unwrap());
        if !self.put(&reference, row.kind, &row.bytes, &row.edges).await {
            let is_less = row.edges.iter().any(|edge| {
                let is_gone = match edge.kind {
                    Kind::Blob => self.repo.links.get(&edge.digest) != Some(&true),
                    Kind::Child => {
                        let child = self.repo.rows.get(&edge.digest);
                        child.is_none_or(|row| row.hidden.is_some() || !row.sure)
                            || soft.contains(&edge.digest)
                    }
                    Kind::Subject { .. } => false,
                };
                is_gone || self.dangling.contains(&edge.sha256)
            });
            assert!(is_less, "{}@{digest}: not all is here", self.repo.name);
        }
    }

    async fn untag(&mut self) {
        let tags: Vec<String> = self.repo.tags.keys().cloned().collect();
        let Some(tag) = self.random.one(&tags).cloned() else {
            return;
        };
        let (from, name) = (now(), self.repo.name.clone());
        let done = self.server.untag(&name, &tag).await;
        if self.repo.tags[&tag].hidden.is_some() {
            assert!(done.is_err(), "{name}:{tag} was deleted before");
            return;
        }
        if let Err(error) = done {
            let known = &self.repo.tags[&tag];
            let found = self
                .server
                .stat(&name, &Reference::Digest(known.digest))
                .await;
            let row = self.repo.rows.get(&known.digest);
            panic!("{name}:{tag} is not deleted: {error}; {known:?} is {found:?}, {row:?}");
        }
        let gone = self.gone(from);
        self.repo.untag(&tag, gone);
        if let Some(tag) = self.repo.tags.get_mut(&tag) {
            tag.sure = true;
        }
    }

    async fn delete(&mut self) {
        let Some(digest) = self.some_visible(&BTreeSet::new()) else {
            return;
        };
        let is_sure = self.repo.rows[&digest].sure && !self.soft().contains(&digest);
        let (from, name) = (now(), self.repo.name.clone());
        let done = self.server.delete(&name, &digest).await;
        let mut gone = self.gone(from);
        match done {
            // A collection deleted it, nobody knows when.
            Err(Error::ManifestUnknown) if !is_sure => gone.at.from = 0,
            done => done.unwrap(),
        }
        self.repo.hide(&digest, gone);
    }

    async fn delete_blob(&mut self) {
        let links: Vec<Digest> = self.repo.links.keys().copied().collect();
        let Some(digest) = self.random.one(&links).copied() else {
            return;
        };
        let (from, name) = (now(), self.repo.name.clone());
        let done = self.server.blob_delete(&name, &digest).await;
        if self.repo.links[&digest] && !self.beside {
            done.clone().unwrap();
        }
        self.repo.links.remove(&digest);
        if done.is_ok() {
            let gone = self.gone(from);
            let sure = !self.beside;
            self.repo.unlinked.insert(digest, Unlinked { gone, sure });
        }
    }

    async fn undelete_tag(&mut self) {
        let tags: Vec<String> = self.repo.tags.keys().cloned().collect();
        let Some(tag) = self.random.one(&tags).cloned() else {
            return;
        };
        let known = self.repo.tags[&tag].clone();
        let reference = Reference::Tag(TagName::parse(&tag).unwrap());
        let (from, name) = (now(), self.repo.name.clone());
        match self.server.undelete(&name, &reference).await {
            Ok(back) => {
                assert!(known.hidden.is_some(), "{name}:{tag} was not deleted");
                assert_eq!(back.digest, known.digest);
                self.came_back(&back.digest, &back.tags, from).await;
            }
            Err(Error::ReferencesUnknown { .. }) if self.is_dangling(&known.digest) => {}
            Err(Error::ManifestUnknown) => assert!(
                known.hidden.is_none() || !known.sure,
                "{name}:{tag} does not come back"
            ),
            Err(error) => panic!("{error}"),
        }
    }

    async fn undelete_manifest(&mut self) {
        let hidden = |(digest, row): (&Digest, &Row)| row.hidden.map(|gone| (*digest, gone));
        let rows: Vec<_> = self.repo.rows.iter().filter_map(hidden).collect();
        let Some((digest, gone)) = self.random.one(&rows).copied() else {
            return;
        };
        let is_sure = self.repo.rows[&digest].sure;
        let (from, name) = (now(), self.repo.name.clone());
        let reference = Reference::Digest(digest);
        let back = match self.server.undelete(&name, &reference).await {
            Ok(back) => back,
            Err(Error::ManifestUnknown) if !is_sure => return,
            Err(Error::ReferencesUnknown { .. }) if self.is_dangling(&digest) => return,
            Err(error) => panic!("{name}@{digest} does not come back: {error}"),
        };
        for (tag, row) in &self.repo.tags {
            let is_of = row.digest == digest && row.hidden.is_some();
            let went = row.hidden.is_some_and(|of| of.number == gone.number);
            let is_back = back.tags.contains(tag);
            assert!(!is_back || is_of, "{name}:{tag} came back with {digest}");
            assert!(
                is_back || !(is_of && went && row.sure && is_sure),
                "{name}:{tag} did not come back with {digest}"
            );
        }
        self.came_back(&digest, &back.tags, from).await;
    }

    fn is_dangling(&self, digest: &Digest) -> bool {
        let row = self.repo.rows.get(digest);
        row.is_some_and(|row| self.dangling.contains(&row.sha256))
    }

    /// A manifest came back with these tags, with what it lists, and with their
    /// blobs.
    async fn came_back(&mut self, root: &Digest, tags: &[String], from: i64) {
        let at = Span { from, to: now() };
        for tag in tags {
            // A purge may have taken it between the answer and the change.
            let is_sure = self.repo.tags.get(tag).is_some_and(|tag| tag.sure);
            let reference = Reference::Tag(TagName::parse(tag).unwrap());
            if self.purges && !is_sure && !self.is_dangling(root) {
                let found = self.server.stat(&self.repo.name, &reference).await;
                if found == Err(Error::ManifestUnknown) {
                    self.repo.tags.remove(tag);
                }
            }
        }
        self.repo.undelete_tags(tags);
        self.repo.revive(root, at, true);
        let sure = self.repo.unit(root, true);
        for digest in self.repo.unit(root, false) {
            let is_sure = sure.contains(&digest) && (!self.beside || digest == *root);
            let is_hidden = self.repo.rows[&digest].hidden.is_some();
            let mut is_seen = is_sure;
            // What was purged does not come back.
            if is_hidden && !is_sure && !self.is_dangling(&digest) {
                let reference = Reference::Digest(digest);
                match self.server.stat(&self.repo.name, &reference).await {
                    Ok(_) => is_seen = true,
                    Err(Error::ManifestUnknown) => {
                        self.is_away(&digest);
                        continue;
                    }
                    Err(error) => panic!("{}@{digest}: {error}", self.repo.name),
                }
            }
            self.repo.revive(&digest, at, is_seen);
            self.repo.relink(&digest, is_sure, self.dangling);
        }
    }

    /// A manifest is still hidden, or hidden again, or purged.
    fn is_away(&mut self, digest: &Digest) {
        if let Some(row) = self.repo.rows.get_mut(digest) {
            row.sure = false;
            if let Some(gone) = &mut row.hidden {
                gone.at.to = now();
            }
        }
    }

    async fn give_up(&mut self) {
        let blobs: Vec<&Blob> = self.pool.blobs().collect();
        let Some(blob) = self.random.one(&blobs) else {
            return;
        };
        let cancel = self.random.percent(70);
        let name = self.repo.name.clone();
        let left = self.server.upload_given_up(&name, &blob.bytes, cancel);
        left.await.unwrap();
    }

    /// A layer of a push that goes no further.
    async fn loose_blob(&mut self) {
        let blobs: Vec<&Blob> = self.pool.blobs().collect();
        let Some(blob) = self.random.one(&blobs).copied().cloned() else {
            return;
        };
        let algorithm = match self.random.below(4) {
            0 => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        };
        self.upload(&blob, blob.digest(algorithm)).await;
    }

    async fn pull_one(&mut self) {
        if let Some(digest) = self.some_visible(&BTreeSet::new()) {
            self.pull(&digest).await;
        }
    }

    /// Pulls a manifest with the blobs that it names, byte for byte.
    pub(crate) async fn pull(&mut self, digest: &Digest) {
        let row = self.repo.rows[digest].clone();
        let is_sure =
            row.sure && !self.soft().contains(digest) && !self.dangling.contains(&row.sha256);
        let name = self.repo.name.clone();
        let pulled = self.server.pull(&name, &Reference::Digest(*digest)).await;
        match pulled {
            Ok((of, bytes)) => {
                assert!(row.hidden.is_none(), "{name}@{digest} was deleted");
                assert_eq!((of, &bytes), (*digest, &row.bytes), "{name}@{digest}");
            }
            Err(Error::ManifestUnknown) if !is_sure => return,
            Err(error) => panic!("{name}@{digest} is lost: {error}"),
        }
        if let Some(row) = self.repo.rows.get_mut(digest) {
            row.pulled = now();
        }
        let blobs = row.edges.iter().filter(|edge| edge.kind == Kind::Blob);
        for edge in blobs {
            let is_linked = self.repo.links.get(&edge.digest) == Some(&true);
            if !is_sure || !is_linked || self.dangling.contains(&edge.sha256) {
                continue;
            }
            let blob = self.pool.of(&edge.digest).unwrap();
            match self.server.blob(&name, &edge.digest).await {
                Ok(bytes) => assert_eq!(bytes, blob.bytes, "{name}@{}", edge.digest),
                Err(error) => {
                    let why = self.server.why(&edge.digest).await;
                    panic!(
                        "{name}@{} of {digest} is lost: {error}: {why:?}",
                        edge.digest
                    );
                }
            }
        }
    }
}
