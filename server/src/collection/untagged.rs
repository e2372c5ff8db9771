//! How long what nothing reaches stays, by repository.

use std::time::Duration;

use glob::{MatchOptions, Pattern, PatternError};

/// A part of a name is not crossed by `*` and `?`, but by `**`.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// A time for all repositories, and other ones for those that patterns match.
/// None: for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Untagged {
    /// Where no pattern matches.
    pub other: Option<Duration>,
    globs: Vec<Glob>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    pattern: Pattern,
    time: Option<Duration>,
}

impl Glob {
    /// Characters that stand for themselves: of patterns that match, the one with
    /// most of them counts.
    fn weight(&self) -> usize {
        let mut text = self.pattern.as_str().chars().peekable();
        let mut weight = 0;
        while let Some(character) = text.next() {
            match character {
                '*' | '?' => {}
                '[' => {
                    text.next_if_eq(&'!');
                    // The first one of a set may be a bracket itself.
                    text.next();
                    text.by_ref().find(|character| *character == ']');
                }
                _ => weight += 1,
            }
        }
        weight
    }
}

impl From<Option<Duration>> for Untagged {
    fn from(other: Option<Duration>) -> Untagged {
        Untagged {
            other,
            globs: Vec::new(),
        }
    }
}

impl Untagged {
    /// Adds a pattern.
    ///
    /// # Errors
    /// When it is none.
    pub fn add(&mut self, pattern: &str, time: Option<Duration>) -> Result<(), PatternError> {
        let pattern = Pattern::new(pattern)?;
        self.globs.push(Glob { pattern, time });
        Ok(())
    }

    /// Every pattern and its time, in the order in which they were added.
    pub fn globs(&self) -> impl Iterator<Item = (&str, Option<Duration>)> {
        self.globs
            .iter()
            .map(|glob| (glob.pattern.as_str(), glob.time))
    }

    /// The time for a repository: that of the pattern that matches it with the
    /// most characters of its own; of equals, the longer one.
    #[must_use]
    pub fn of(&self, repository: &str) -> Option<Duration> {
        let matching = self.globs.iter();
        let matching = matching.filter(|glob| glob.pattern.matches_with(repository, OPTIONS));
        let longest = |glob: &&Glob| (glob.weight(), glob.time.is_none(), glob.time);
        matching
            .max_by_key(longest)
            .map_or(self.other, |glob| glob.time)
    }

    /// The shortest time of any; None: nothing goes anywhere.
    #[must_use]
    pub fn shortest(&self) -> Option<Duration> {
        let times = self.globs.iter().map(|glob| glob.time);
        times.chain([self.other]).flatten().min()
    }

    /// The same, with no time below this one.
    #[must_use]
    pub fn at_least(mut self, least: Duration) -> Untagged {
        let raise = |time: Option<Duration>| time.map(|time| time.max(least));
        self.other = raise(self.other);
        for glob in &mut self.globs {
            glob.time = raise(glob.time);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(hours: u64) -> Option<Duration> {
        Some(Duration::from_secs(hours * 3600))
    }

    #[test]
    fn the_pattern_that_says_most_counts_in_whatever_order() {
        let rules = [
            ("ci/**", hours(1)),
            ("ci/*/release", None),
            ("**/tmp", hours(2)),
            ("ci/nightly/**", hours(3)),
            ("[ab]", hours(4)),
            // However much is in a set, it is one character.
            ("team/[a-z0-9_.-]*", hours(1)),
            ("team/[!]]*", hours(1)),
            ("team/web", None),
        ];
        let expected = [
            ("library/alpine", hours(100)),
            ("ci", hours(100)),
            ("ci/app", hours(1)),
            ("ci/app/web", hours(1)),
            ("ci/app/release", None),
            ("ci/app/web/release", hours(1)),
            ("ci/nightly/web", hours(3)),
            ("tmp", hours(2)),
            ("team/app/tmp", hours(2)),
            // As many characters of its own as the other: the longer time.
            ("ci/tmp", hours(2)),
            ("a", hours(4)),
            ("c", hours(100)),
            ("team/app", hours(1)),
            ("team/web", None),
        ];
        for turn in 0..rules.len() {
            let mut untagged = Untagged::from(hours(100));
            for (pattern, time) in rules.iter().cycle().skip(turn).take(rules.len()) {
                untagged.add(pattern, *time).unwrap();
            }
            for (repository, time) in expected {
                assert_eq!(untagged.of(repository), time, "{repository} from {turn}");
            }
            assert_eq!(untagged.shortest(), hours(1));
            let longer = untagged.at_least(Duration::from_secs(2 * 3600));
            assert_eq!(longer.of("ci/app"), hours(2));
            assert_eq!(longer.of("ci/app/release"), None);
        }
        assert_eq!(Untagged::default().shortest(), None);
        assert!(Untagged::default().add("a/**b", None).is_err());
    }
}
