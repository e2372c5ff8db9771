//! The catalog on SQLite, and on PostgreSQL where its server is installed: one
//! suite of cases on both, and what only a file can go through.
//!
//! `ORLOP_SEED=<number>` repeats a random case; seeds are printed.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

#[path = "catalog/at_once.rs"]
mod at_once;
#[path = "catalog/cases.rs"]
mod cases;
#[path = "catalog/collection.rs"]
mod collection;
#[path = "catalog/deletes.rs"]
mod deletes;
#[path = "catalog/file.rs"]
mod file;
#[path = "catalog/jobs.rs"]
mod jobs;
#[path = "catalog/lists.rs"]
mod lists;
#[path = "catalog/place.rs"]
mod place;
#[path = "catalog/pulls.rs"]
mod pulls;
#[path = "catalog/seen.rs"]
mod seen;
#[path = "catalog/steps.rs"]
mod steps;
#[path = "catalog/unit.rs"]
mod unit;

use place::{Place, Postgres};

macro_rules! suite {
    ($($file:ident::$case:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let folder = tempfile::TempDir::new().unwrap();
                    super::$file::$case(&super::Place::file(folder.path())).await;
                }
            )*
        }

        /// All cases on one server, each in a database of its own.
        #[tokio::test(flavor = "multi_thread")]
        async fn postgres() {
            let server = match Postgres::start().await {
                Ok(server) => server,
                Err(reason) => {
                    eprintln!("catalog on PostgreSQL: skipped, {reason}");
                    return;
                }
            };
            $(
                eprintln!("postgres: {}", stringify!($case));
                $file::$case(&server.database(stringify!($case)).await).await;
            )*
        }
    };
}

suite!(
    cases::finds_what_was_put,
    cases::moves_hides_and_brings_back_tags,
    deletes::hides_manifests_and_repositories,
    deletes::a_manifest_with_many_tags_goes_in_steps,
    deletes::takes_blobs_from_one_repository_alone,
    cases::refuses_one_change_and_keeps_the_others,
    cases::commits_many_writers_at_once,
    cases::keeps_totals_of_all_rows,
    cases::keeps_every_edge_of_large_manifests,
    lists::lists_tags_in_byte_order,
    lists::lists_repositories_in_byte_order,
    lists::lists_referrers,
    lists::referrers_that_were_there_are_listed_while_others_are_pushed,
    cases::numbers_changes_and_forgets_old_ones,
    pulls::pulls_add_up_and_change_no_name,
    pulls::lost_pulls_count_as_pulled_then,
    pulls::a_catalog_of_the_first_form_is_brought_up_to_date,
    pulls::the_release_before_can_push_a_deleted_blob_again,
    jobs::jobs_are_taken_one_of_a_kind_and_who_lost_one_writes_nothing,
    jobs::jobs_that_get_nowhere_are_given_up,
    jobs::attempts_count_until_a_job_is_at_a_new_place,
    jobs::history_and_logs_of_jobs_have_bounds,
    jobs::a_schedule_fires_once_for_each_time,
    collection::purges_leave_what_is_not_deleted_and_the_totals_right,
    collection::only_what_was_deleted_long_enough_ago_is_purged,
    collection::i04_a_plan_keeps_a_deleted_child_that_an_index_lists,
    collection::a_repository_goes_whole_and_in_steps,
    collection::deletes_explain_garbage_until_it_is_gone,
    collection::what_was_deleted_comes_back_with_what_belongs_to_it,
    collection::what_a_purged_manifest_leaves_is_found,
    collection::what_a_push_has_checked_is_there_when_it_ends,
    collection::a_listed_manifest_is_not_purged_before_its_index,
    collection::undelete_brings_blobs_back_that_were_deleted_too,
    collection::rows_get_no_time_before_the_one_that_is_believed,
    collection::what_purged_rows_named_is_forgotten_when_it_is_named,
    collection::a_live_set_of_other_rows_than_were_written_is_refused,
    steps::a_purge_takes_manifests_of_any_size_together,
    steps::what_comes_back_while_a_purge_looks_ahead_stays,
    steps::links_of_dead_blobs_go_however_many_they_are,
    unit::a_unit_is_a_manifest_with_what_is_about_it_and_what_nothing_else_reaches,
    unit::what_needs_it_blocks_a_purge_unless_it_was_deleted,
    unit::a_purge_finds_deleted_repositories_and_says_what_names_the_rest,
    unit::a_purged_manifest_with_many_tags_is_gone_from_every_cache,
    unit::a_repository_comes_back_whole_or_not_at_all,
    unit::a_pause_of_collection_survives_a_restart,
    unit::an_undelete_tells_only_tags_that_came_back,
    at_once::what_is_purged_while_a_live_set_is_read_is_not_forgotten_with_it,
    at_once::a_push_after_a_purge_has_its_leases_and_another_life_too,
    at_once::a_purge_that_is_cut_short_has_said_what_goes_at_once,
    at_once::as_many_purges_as_readers_do_not_wait_for_each_other,
    at_once::a_plan_counts_no_manifests_of_deleted_repositories,
    at_once::a_pause_and_its_end_are_changes,
    seen::what_was_seen_before_and_what_changed_is_what_a_whole_read_finds,
    seen::what_changed_too_much_is_read_again,
    seen::what_was_said_of_a_later_life_outlasts_the_end_of_an_earlier_one,
    seen::leases_keep_a_life_that_is_linked_by_any_of_its_digests,
    cases::readers_never_go_back,
    cases::comes_back_as_it_was,
    cases::refuses_newer_and_missing,
    lists::measures_lists_and_lookups,
);
