//! Which known name was meant by an unknown one.

/// From 0 to 1: how alike two names must be to be worth a question.
const ALIKE: f64 = 0.8;
/// Letters by which a name may differ from another and still be taken for a
/// mistake in writing it.
const TYPO: usize = 2;

/// The known name most like this one, if any is. The last part of a dotted
/// name counts too: `lease` is like `gc.lease`, `gc.level` like `log.level`.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| {
            let whole = strsim::jaro_winkler(name, candidate);
            let part = strsim::jaro_winkler(last(name), last(candidate));
            (whole.max(part), candidate)
        })
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether a name is another one with a slip of the finger in it.
pub(crate) fn is_typo(name: &str, known: &str) -> bool {
    strsim::osa_distance(name, known) <= TYPO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_no_far_one() {
        let known = ["gc.lease", "gc.undelete_window", "log.level", "listen"];
        assert_eq!(nearest("gc.leese", known), Some("gc.lease"));
        assert_eq!(nearest("lease", known), Some("gc.lease"));
        assert_eq!(nearest("gc.level", known), Some("log.level"));
        assert_eq!(nearest("log.levle", known), Some("log.level"));
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("quota", known), None);
    }

    #[test]
    fn a_typo_is_one_or_two_letters() {
        assert!(is_typo("ORLOP_GC_LEESE", "ORLOP_GC_LEASE"));
        assert!(is_typo("ORLOP_LISTNE", "ORLOP_LISTEN"));
        assert!(!is_typo("ORLOP_CACHE", "ORLOP_CACHE_SIZE"));
        assert!(!is_typo("ORLOP_PORT", "ORLOP_DATA"));
    }
}
