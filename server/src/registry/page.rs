//! Pages of lists, by the last key seen.

/// Most entries of one page.
pub const PAGE_MAX: usize = 1000;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in their order.
    pub entries: Vec<T>,
    /// How many were asked for, after clamping.
    pub limit: usize,
    /// The key after which the list goes on, if it does.
    pub more_after: Option<String>,
}

/// Entries that are given at most when so many are asked for.
pub(super) fn limit(n: Option<u64>) -> usize {
    n.and_then(|n| usize::try_from(n).ok())
        .unwrap_or(PAGE_MAX)
        .min(PAGE_MAX)
}

impl<T: ToString> Page<T> {
    /// A page of at most `limit` entries, which are their own keys, from one
    /// entry more, if there is one.
    pub(super) fn cut(mut entries: Vec<T>, limit: usize) -> Page<T> {
        let more = entries.len() > limit;
        entries.truncate(limit);
        let last = entries.last().map(ToString::to_string);
        Page {
            entries,
            limit,
            more_after: last.filter(|_| more),
        }
    }
}
