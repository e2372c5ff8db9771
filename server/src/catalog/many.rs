//! One statement for many values, or for many rows.
//!
//! A statement costs the writer more than most rows that it is about, so what
//! is done to many of them is done at once. Each text has few widths, since a
//! connection prepares each of them and keeps that.
//!
//! Refuses to know: what statements say.

use std::fmt::Write as _;

use super::sql::{Arg, Connection, Row};

/// Values of one statement at most, and where there are few.
const WIDTHS: [usize; 2] = [WIDEST, 8];
/// The longest list that one statement is about.
pub(super) const WIDEST: usize = 64;
/// Rows of one statement: any number is a few of these.
const HEIGHTS: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

type Result<T> = std::result::Result<T, sqlx::Error>;

/// A statement that is about a list of values: `{list}` stands for them, behind
/// its own arguments. Longer lists are cut into several statements.
pub(super) struct OfList {
    own: usize,
    texts: [String; WIDTHS.len()],
}

impl OfList {
    /// `own`: how many arguments the statement has beside the list.
    pub(super) fn new(sql: &str, own: usize) -> OfList {
        let text = |width| {
            let mut list = String::new();
            for place in 1..=width {
                let comma = if place == 1 { "" } else { ", " };
                // Writing to a string does not fail.
                let _ = write!(list, "{comma}${}", own + place);
            }
            sql.replace("{list}", &list)
        };
        OfList {
            own,
            texts: WIDTHS.map(text),
        }
    }

    /// Runs it, and says how many rows it changed.
    pub(super) async fn run<'a>(
        &'static self,
        connection: &mut Connection,
        own: &[Arg<'a>],
        list: impl IntoIterator<Item = Arg<'a>>,
    ) -> Result<u64> {
        let mut changed = 0u64;
        for (sql, arguments) in self.parts(own, list) {
            let more = connection.run(sql, &arguments).await?;
            changed = changed.saturating_add(more);
        }
        Ok(changed)
    }

    /// Its rows. A limit in its text is one of each statement.
    pub(super) async fn rows<'a>(
        &'static self,
        connection: &mut Connection,
        own: &[Arg<'a>],
        list: impl IntoIterator<Item = Arg<'a>>,
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (sql, arguments) in self.parts(own, list) {
            rows.append(&mut connection.rows(sql, &arguments).await?);
        }
        Ok(rows)
    }

    /// Statements with their arguments. The last value of a list that is shorter
    /// than the statement's stands in it again.
    fn parts<'a>(
        &'static self,
        own: &[Arg<'a>],
        list: impl IntoIterator<Item = Arg<'a>>,
    ) -> Vec<(&'static str, Vec<Arg<'a>>)> {
        debug_assert_eq!(own.len(), self.own, "arguments of {:?}", self.texts);
        let [most, few] = WIDTHS;
        let [wide, narrow] = &self.texts;
        let list: Vec<Arg<'a>> = list.into_iter().collect();
        list.chunks(most)
            .map(|values| {
                let (sql, width) = match values.len() {
                    len if len <= few => (narrow, few),
                    _ => (wide, most),
                };
                let mut arguments = own.to_vec();
                arguments.extend_from_slice(values);
                if let Some(last) = values.last() {
                    arguments.resize(own.len() + width, *last);
                }
                (sql.as_str(), arguments)
            })
            .collect()
    }
}

/// A statement that writes rows: `{rows}` stands for them, behind its own
/// arguments. No two rows of one call have the same key.
pub(super) struct OfRows {
    texts: [(usize, String); HEIGHTS.len()],
}

impl OfRows {
    /// `own`: how many arguments the statement has beside the rows. `row`: a row,
    /// in which `{}` stands for an argument of the row.
    pub(super) fn new(sql: &str, own: usize, row: &str) -> OfRows {
        let text = |height| {
            let mut rows = String::new();
            let mut place = own;
            for number in 0..height {
                rows.push_str(if number == 0 { "" } else { ", " });
                for (at, part) in row.split("{}").enumerate() {
                    if at > 0 {
                        place += 1;
                        // Writing to a string does not fail.
                        let _ = write!(rows, "${place}");
                    }
                    rows.push_str(part);
                }
            }
            (height, sql.replace("{rows}", &rows))
        };
        OfRows {
            texts: HEIGHTS.map(text),
        }
    }

    /// Writes the rows.
    pub(super) async fn run<'a, const N: usize>(
        &'static self,
        connection: &mut Connection,
        own: &[Arg<'a>],
        rows: &[[Arg<'a>; N]],
    ) -> Result<()> {
        let mut left = rows;
        for (height, sql) in &self.texts {
            while let Some((part, rest)) = left.split_at_checked(*height) {
                left = rest;
                let mut arguments = own.to_vec();
                arguments.extend(part.iter().flatten());
                connection.run(sql, &arguments).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    #[test]
    fn a_list_is_cut_and_filled_up() {
        static OF: LazyLock<OfList> = LazyLock::new(|| OfList::new("a = $1 AND b IN ({list})", 1));
        let numbers = |of: &[Arg<'_>]| -> Vec<i64> {
            of.iter()
                .map(|arg| match arg {
                    Arg::Int(number) => *number,
                    _ => -1,
                })
                .collect()
        };
        for count in [0usize, 1, 7, 8, 9, 64, 65, 200] {
            let list = (0..count).map(|number| Arg::Int(i64::try_from(number).unwrap()));
            let parts = OF.parts(&[Arg::Int(-7)], list);
            let mut found = Vec::new();
            for (sql, arguments) in &parts {
                let numbers = numbers(arguments);
                assert!(sql.ends_with(&format!(", ${})", numbers.len())), "{sql}");
                assert_eq!(numbers[0], -7);
                found.extend_from_slice(&numbers[1..]);
            }
            found.dedup();
            assert_eq!(
                found,
                (0..i64::try_from(count).unwrap()).collect::<Vec<_>>()
            );
        }
        let few = OF.parts(&[Arg::Int(0)], [Arg::Int(1)]);
        assert_eq!(few[0].0, "a = $1 AND b IN ($2, $3, $4, $5, $6, $7, $8, $9)");
    }

    #[test]
    fn rows_have_arguments_of_their_own_and_shared_ones() {
        let of = OfRows::new(
            "INSERT INTO t VALUES {rows} ON CONFLICT DO NOTHING",
            1,
            "($1, {}, {})",
        );
        for (height, text) in &of.texts {
            let rows = (1..=*height).map(|row| format!("($1, ${}, ${})", 2 * row, 2 * row + 1));
            let rows = rows.collect::<Vec<_>>().join(", ");
            assert_eq!(
                *text,
                format!("INSERT INTO t VALUES {rows} ON CONFLICT DO NOTHING")
            );
        }
        assert_eq!(
            of.texts.last().map(|text| text.0),
            Some(1),
            "any number of rows"
        );
    }
}
