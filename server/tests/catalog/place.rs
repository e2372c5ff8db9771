//! Where a catalog under test is, and a PostgreSQL server for a test run.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orlop::catalog::{Catalog, CatalogError, Location, Options};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// A place for one catalog.
#[derive(Debug, Clone)]
pub(crate) struct Place(pub(crate) Location);

impl Place {
    pub(crate) fn file(folder: &Path) -> Place {
        Place(Location::Sqlite(folder.join("catalog.db")))
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.0, Location::Sqlite(_))
    }

    pub(crate) async fn try_open(&self, create: bool) -> Result<Catalog, CatalogError> {
        let options = Options {
            create,
            ..Options::default()
        };
        Catalog::open(self.0.clone(), options).await
    }

    /// Opens it, and makes it if it is missing.
    pub(crate) async fn open(&self) -> Catalog {
        self.try_open(true).await.unwrap()
    }

    /// Changes rows behind the catalog's back.
    pub(crate) async fn raw(&self, sql: &str) {
        let script = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match &self.0 {
            Location::Sqlite(path) => {
                let mut connection = sqlite(path).await;
                script.execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Location::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                script.execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Makes a catalog as the first release did, without a name in it.
    pub(crate) async fn make_first(&self, id: &[u8; 16]) {
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (words, id) = match &self.0 {
            Location::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path);
                let file = options.create_if_missing(true).connect().await.unwrap();
                file.close().await.unwrap();
                let words = [
                    ("{id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
                    ("{ordinal}", "INTEGER PRIMARY KEY"),
                    ("{blob}", "BLOB"),
                    ("{text}", "TEXT"),
                    ("{clustered}", "WITHOUT ROWID"),
                ];
                self.raw("PRAGMA application_id = 1330793552").await;
                (words, format!("X'{id}'"))
            }
            Location::Postgres(_) => {
                let words = [
                    ("{id}", "BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY"),
                    ("{ordinal}", "BIGINT PRIMARY KEY"),
                    ("{blob}", "BYTEA"),
                    ("{text}", "TEXT COLLATE \"C\""),
                    ("{clustered}", ""),
                ];
                (words, format!("'\\x{id}'"))
            }
        };
        let text = include_str!("../../src/catalog/migrations/0001_names.sql").to_owned();
        let text = words
            .iter()
            .fold(text, |text, (word, meaning)| text.replace(word, meaning));
        self.raw(&text).await;
        self.raw(&format!(
            "INSERT INTO catalog (one, id, sequence, schema, needs) VALUES (1, {id}, 0, 1, 1)"
        ))
        .await;
    }

    /// A number from a query.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.0 {
            Location::Sqlite(path) => {
                let mut connection = sqlite(path).await;
                let number = sqlx::query_scalar(sql).fetch_one(&mut connection).await;
                connection.close().await.unwrap();
                number.unwrap()
            }
            Location::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                let number = sqlx::query_scalar(sql).fetch_one(&mut connection).await;
                connection.close().await.unwrap();
                number.unwrap()
            }
        }
    }
}

pub(crate) async fn sqlite(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(20))
        .connect()
        .await
        .unwrap()
}

/// A server of its own in a temporary folder, reached by a Unix socket.
pub(crate) struct Postgres {
    server: Child,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server. The error says why that is not possible here.
    pub(crate) async fn start() -> Result<Postgres, String> {
        let bin = newest().ok_or("no /usr/lib/postgresql/*/bin/initdb")?;
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let data = folder.path().join("data");
        let user = unprivileged(folder.path())?;
        let run = |program: &str| {
            let mut command = Command::new(bin.join(program));
            command.current_dir(folder.path()).stdin(Stdio::null());
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        // An order that is not that of bytes, so that it shows where it matters.
        let made = run("initdb")
            .args([
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .args([
                "--locale=C.UTF-8",
                "--locale-provider=icu",
                "--icu-locale=en-US",
            ])
            .output()
            .map_err(|error| error.to_string())?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        let server = run("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let server = Postgres { server, folder };
        for _ in 0..300 {
            if let Ok(connection) = PgConnection::connect(&server.url("postgres")).await {
                connection.close().await.unwrap();
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("the server did not answer within 30 s".to_owned())
    }

    fn url(&self, database: &str) -> String {
        let folder = self.folder.path().display();
        format!("postgres:///{database}?user=postgres&host={folder}")
    }

    /// A new, empty database.
    pub(crate) async fn database(&self, name: &str) -> Place {
        Place(Location::Postgres(self.url("postgres")))
            .raw(&format!("CREATE DATABASE {name}"))
            .await;
        Place(Location::Postgres(self.url(name)))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: end at once. There is nothing to keep.
        let pid = self.server.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.server.wait();
    }
}

fn newest() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").exists().then_some((version, bin))
        })
        .max()
        .map(|(_, bin)| bin)
}

/// The server refuses to run as root: then it runs as the user `postgres`, who
/// gets the folder.
fn unprivileged(folder: &Path) -> Result<Option<(u32, u32)>, String> {
    let number = |arguments: &[&str]| -> Result<u32, String> {
        let output = Command::new("id").args(arguments).output();
        let output = output.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim()
            .parse()
            .map_err(|_| format!("`id {}` gives no number", arguments.join(" ")))
    };
    if number(&["-u"])? != 0 {
        return Ok(None);
    }
    let user = (number(&["-u", "postgres"])?, number(&["-g", "postgres"])?);
    chown(folder, Some(user.0), Some(user.1)).map_err(|error| error.to_string())?;
    Ok(Some(user))
}
