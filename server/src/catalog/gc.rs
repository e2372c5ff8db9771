//! What collection knows of itself from one start to the next: the time that it
//! believes, how many blobs died unexplained, and whether it is held.

use super::Catalog;
use super::change;
use super::error::CatalogError;
use super::read::within;
use super::sql::{Arg, Connection};
use super::types::{ChangeKind, GcPause, GcState};
use super::verb::{Effect, Progress, Verb};

/// The number of a change that is of no repository; none has it.
const NO_REPOSITORY: i64 = 0;

/// A change of it.
#[derive(Debug, Clone)]
pub(super) enum GcVerb {
    /// It is at least this late.
    Clock(i64),
    /// So many died, of which the first at this time if none did before in
    /// this day.
    Unexplained { dead: i64, since: i64 },
    /// Somebody says that collecting is right.
    Release,
    /// A cycle ended, and came to this.
    Collected(String),
    /// Somebody wants no collection, since then and for this reason, or wants it
    /// again.
    Pause(Option<GcPause>),
}

impl GcVerb {
    pub(super) async fn apply(
        &self,
        connection: &mut Connection,
        now: i64,
    ) -> std::result::Result<Effect, sqlx::Error> {
        match self {
            GcVerb::Collected(text) => {
                let changes = [(ChangeKind::Collected, text.clone())];
                let sequence = change::record(connection, NO_REPOSITORY, &changes, now).await?;
                return Ok(Effect {
                    sequence: Some(sequence),
                    number: Some(sequence),
                    ..Effect::default()
                });
            }
            GcVerb::Clock(at) => {
                let sql = "UPDATE catalog SET clock = $1 \
                     WHERE one = 1 AND COALESCE(clock, -1) < $1";
                connection.run(sql, &[Arg::Int(*at)]).await?;
            }
            GcVerb::Unexplained { dead, since } => {
                let sql = "UPDATE catalog SET unexplained = $1 + \
                     CASE WHEN unexplained_since = $2 THEN unexplained ELSE 0 END, \
                     unexplained_since = $2 WHERE one = 1";
                connection
                    .run(sql, &[Arg::Int(*dead), Arg::Int(*since)])
                    .await?;
            }
            GcVerb::Pause(pause) => {
                let sql = "UPDATE catalog SET gc_paused_at = \
                     CASE WHEN $1 < 0 THEN NULL ELSE $1 END, gc_paused_why = $2 WHERE one = 1";
                let since = pause.as_ref().map_or(-1, |pause| pause.since);
                let why = pause.as_ref().map(|pause| pause.why.as_str());
                let arguments = [Arg::Int(since), Arg::MaybeText(why)];
                connection.run(sql, &arguments).await?;
                // As a change, so that the next copy of the catalog has it.
                let kind = match pause {
                    Some(_) => ChangeKind::CollectionPaused,
                    None => ChangeKind::CollectionResumed,
                };
                let changes = [(kind, why.unwrap_or_default().to_owned())];
                let sequence = change::record(connection, NO_REPOSITORY, &changes, now).await?;
                return Ok(Effect {
                    sequence: Some(sequence),
                    ..Effect::default()
                });
            }
            GcVerb::Release => {
                let sql = "UPDATE catalog SET gc_hold = NULL WHERE one = 1";
                connection.run(sql, &[]).await?;
            }
        }
        Ok(Effect::default())
    }
}

impl Catalog {
    /// What collection knows of itself.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn gc_state(&self) -> Result<GcState, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let row = connection
                .one(
                    "SELECT COALESCE(clock, -1), COALESCE(unexplained_since, -1), unexplained, \
                     gc_hold, COALESCE(gc_paused_at, -1), gc_paused_why \
                     FROM catalog WHERE one = 1",
                    &[],
                )
                .await?;
            let time = |at: i64| Some(at).filter(|at| *at >= 0);
            let why = row.maybe_text(5)?.unwrap_or_default();
            Ok(GcState {
                clock: time(row.int(0)?),
                unexplained_since: time(row.int(1)?),
                unexplained: row.int(2)?.unsigned_abs(),
                hold: row.maybe_text(3)?,
                pause: time(row.int(4)?).map(|since| GcPause { since, why }),
            })
        })
        .await
    }

    /// Says that it is at least this late, in milliseconds since 1970: rows get
    /// no earlier time from now on.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn set_clock(&self, at: i64) -> Result<(), CatalogError> {
        self.submit(Verb::Gc(GcVerb::Clock(at))).await?;
        self.shared().clock.fetch_max(at, super::Ordering::Relaxed);
        Ok(())
    }

    /// Says that blobs died that nothing explains, in the day that began then.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn add_unexplained(&self, dead: u64, since: i64) -> Result<(), CatalogError> {
        let dead = i64::try_from(dead).unwrap_or(i64::MAX);
        let verb = Verb::Gc(GcVerb::Unexplained { dead, since });
        self.submit(verb).await.map(|_| ())
    }

    /// Writes down that a cycle ended, as a change of no repository, and says which
    /// number it has.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn add_cycle(&self, text: String) -> Result<u64, CatalogError> {
        let verb = Verb::Gc(GcVerb::Collected(text));
        Ok(match self.step(verb).await? {
            Progress::Number(number) => number.unsigned_abs(),
            _ => 0,
        })
    }

    /// Says that no collection is to run, or that it may again.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn pause_gc(&self, pause: Option<GcPause>) -> Result<(), CatalogError> {
        let verb = Verb::Gc(GcVerb::Pause(pause));
        self.submit(verb).await.map(|_| ())
    }

    /// Ends what holds collection up.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn release_gc(&self) -> Result<(), CatalogError> {
        self.submit(Verb::Gc(GcVerb::Release)).await.map(|_| ())
    }
}
