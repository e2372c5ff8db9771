//! What repair takes out of a store's way: moved to `quarantine/repair-<n>/`,
//! with a page that says what came from where and why. Never removed.

use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::Site;
use super::hands::Hands;
use crate::file::{names, trouble};
use crate::trouble::{Result, Trouble};

/// What begins the name of a folder of one repair.
const PREFIX: &str = "repair-";
/// The page in it.
const PAGE: &str = "moved.json";

/// One thing that is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Moved {
    /// Its name in the data folder.
    pub(super) from: String,
    /// Why it is moved.
    pub(super) why: String,
}

/// Moves what is there, in this order, and says where to.
pub(super) fn take(
    hands: &mut Hands<'_>,
    Site { folder, own }: Site<'_>,
    things: Vec<Moved>,
) -> Result<Option<PathBuf>> {
    let there: Vec<Moved> = things
        .into_iter()
        .filter(|thing| folder.join(&thing.from).symlink_metadata().is_ok())
        .collect();
    if there.is_empty() {
        return Ok(None);
    }
    let below = folder.join("quarantine");
    hands.make_folder(&below)?;
    let number = names(&below)?
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX)?.parse::<u64>().ok())
        .max()
        .unwrap_or(0)
        .saturating_add(1);
    let place = below.join(format!("{PREFIX}{number}"));
    hands.make_folder(&place)?;
    let page = own.join(PAGE);
    let text = serde_json::to_string_pretty(&there)
        .map_err(|error| Trouble::Refused(error.to_string()))?;
    hands.write(&page, |file| {
        file.write_all(text.as_bytes())
            .map_err(trouble("write", &page))
    })?;
    hands.rename(&page, &place.join(PAGE))?;
    for thing in &there {
        let from = folder.join(&thing.from);
        let name = from.file_name().unwrap_or_default().to_owned();
        hands.move_away(&from, &place.join(name))?;
    }
    Ok(Some(place))
}
