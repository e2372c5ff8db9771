//! Content on its way into an answer: a page at a time where there is a place
//! for it, else in small copies that keep no page alive.

use std::ops::Range;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;

use super::piece::{Allowance, Place, SMALL};
use crate::registry::{Content, ContentStream, Fault};

/// A piece of content, and its place if it needs one.
type Next = Result<(Bytes, Option<Place>), Fault>;

/// A part of some content, in order.
pub(super) struct Reader {
    content: Box<dyn Content>,
    /// Of the content, behind what was read.
    next: u64,
    end: u64,
    stream: Option<ContentStream>,
    /// That stream ends before the content: it is of [`SMALL`] bytes.
    is_little: bool,
    little_from: u64,
    /// Read ahead of the answer.
    first: Option<Bytes>,
    /// For the first piece, or the one that is being read.
    place: Option<Place>,
    /// Without one there are places enough.
    allowance: Option<Allowance>,
}

impl Reader {
    /// Begins to read this range. What is wrong with its first piece is an
    /// error here.
    pub(super) async fn begin(
        content: Box<dyn Content>,
        range: Range<u64>,
    ) -> Result<Reader, Fault> {
        let mut rest = content.stream(range.clone());
        let first = rest.next().await.transpose()?;
        let len = first.as_ref().map_or(0, |first| first.len() as u64);
        Ok(Reader {
            content,
            next: range.start.saturating_add(len),
            end: range.end,
            stream: Some(rest),
            is_little: false,
            little_from: 0,
            first,
            place: None,
            allowance: None,
        })
    }

    /// From here on, larger pieces need a place of these.
    pub(super) fn keep_to(&mut self, allowance: Allowance) {
        if let Some(first) = self.first.take() {
            let is_small = first.len() <= SMALL;
            if !is_small {
                self.place = allowance.take();
            }
            self.first = Some(if self.place.is_some() {
                first
            } else if is_small {
                Bytes::copy_from_slice(&first)
            } else {
                let (head, tail) = first.split_at(SMALL);
                self.next = self.next.saturating_sub(tail.len() as u64);
                self.stream = None;
                Bytes::copy_from_slice(head)
            });
        }
        self.allowance = Some(allowance);
    }

    /// The next piece.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Next>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok((first, self.place.take()))));
        }
        loop {
            self.choose();
            let next = match &mut self.stream {
                Some(stream) => ready!(stream.poll_next_unpin(context)),
                None => None,
            };
            match next {
                Some(Ok(bytes)) => {
                    self.next = self.next.saturating_add(bytes.len() as u64);
                    return Poll::Ready(Some(Ok(self.piece(bytes))));
                }
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                None if self.is_little && self.next < self.end => {
                    // No endless loop over content that is too short.
                    let was_empty = self.next == self.little_from;
                    if was_empty {
                        return Poll::Ready(None);
                    }
                    self.stream = None;
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Reads the rest from here where there is a place for a page of it, else
    /// a little.
    fn choose(&mut self) {
        let Some(allowance) = &self.allowance else {
            return;
        };
        if self.is_little && self.stream.is_some() {
            return;
        }
        if self.place.is_none() {
            self.place = allowance.take();
        }
        let has_place = self.place.is_some();
        if has_place && self.stream.is_some() {
            return;
        }
        let end = if has_place {
            self.end
        } else {
            self.next.saturating_add(SMALL as u64).min(self.end)
        };
        self.is_little = !has_place;
        self.little_from = self.next;
        self.stream = Some(self.content.stream(self.next..end));
    }

    fn piece(&mut self, bytes: Bytes) -> (Bytes, Option<Place>) {
        let place = self.place.take();
        if bytes.len() <= SMALL {
            (Bytes::copy_from_slice(&bytes), None)
        } else {
            (bytes, place)
        }
    }
}
