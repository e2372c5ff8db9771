//! The catalog's tables, as the server makes them.
//!
//! The texts are the server's own migrations: a catalog that repair makes must
//! be one that the server accepts, whatever it becomes. Only the words in
//! braces are SQLite's here.

use rusqlite::Connection;

use super::database::{APPLICATION, SCHEMA};

/// All migrations, in order; the first has number 1.
pub(crate) const MIGRATIONS: [&str; 6] = [
    include_str!("../../../server/src/catalog/migrations/0001_names.sql"),
    include_str!("../../../server/src/catalog/migrations/0002_pulls.sql"),
    include_str!("../../../server/src/catalog/migrations/0003_lists.sql"),
    include_str!("../../../server/src/catalog/migrations/0004_jobs.sql"),
    include_str!("../../../server/src/catalog/migrations/0005_collection.sql"),
    include_str!("../../../server/src/catalog/migrations/0006_operators.sql"),
];

const WORDS: [(&str, &str); 5] = [
    ("{id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
    ("{ordinal}", "INTEGER PRIMARY KEY"),
    ("{blob}", "BLOB"),
    ("{text}", "TEXT"),
    ("{clustered}", "WITHOUT ROWID"),
];

/// Makes the tables of an empty catalog at sequence 0.
pub(crate) fn create(sql: &Connection, id: [u8; 16]) -> rusqlite::Result<()> {
    sql.pragma_update(None, "application_id", APPLICATION)?;
    migrate(sql, 0)?;
    sql.execute(
        "INSERT INTO catalog (one, id, sequence, schema, needs) VALUES (1, ?1, 0, ?2, 1)",
        (id.as_slice(), SCHEMA),
    )?;
    Ok(())
}

/// Brings a catalog up to date.
pub(crate) fn upgrade(sql: &Connection, schema: i64) -> rusqlite::Result<()> {
    if schema < SCHEMA {
        migrate(sql, schema)?;
        sql.execute("UPDATE catalog SET schema = ?1 WHERE one = 1", (SCHEMA,))?;
    }
    Ok(())
}

fn migrate(sql: &Connection, done: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(done).unwrap_or_default();
    for text in MIGRATIONS.iter().skip(done) {
        let text = WORDS
            .iter()
            .fold((*text).to_owned(), |text, (word, meaning)| {
                text.replace(word, meaning)
            });
        sql.execute_batch(&text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_migrations_are_all_that_the_server_has() {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../server/src/catalog/migrations"
        );
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        let texts: Vec<_> = paths
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        assert_eq!(texts, super::MIGRATIONS);
    }
}
