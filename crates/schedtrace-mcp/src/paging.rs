//! Parts of lists that fit an answer: what is told of where the next part begins must be true of what is shown.

use schedtrace_core::system::tracefs::Page;
#[cfg(feature = "live")]
use serde::Serialize;
use serde_json::{Value, json};

#[cfg(feature = "live")]
use crate::answer::BUDGET;

/// What is left for a list beside the rest of an answer.
#[cfg(feature = "live")]
const ROOM: usize = BUDGET - 4_000;

/// What a list takes that is told part by part.
pub(crate) fn numbered() -> Value {
    json!({
        "filter": { "type": "string", "description": "Only names that contain this." },
        "cursor": { "type": "integer", "minimum": 0, "description": "`next_cursor` of the page before." }
    })
}

/// The part of a list from a place on.
pub(crate) fn of_place(cursor: Option<u64>, limit: usize) -> Page {
    // A cursor beyond every list is behind its end.
    Page { skip: cursor.map_or(0, |skip| usize::try_from(skip).unwrap_or(usize::MAX)), limit }
}

/// How many of these fit an answer: one at least.
#[cfg(feature = "live")]
pub(crate) fn fitting(items: &[impl Serialize]) -> usize {
    let size = |item| serde_json::to_string(item).map_or(0, |text| text.len() + 1);
    let mut taken = 0;
    let fits = |&item: &_| {
        taken += size(item);
        taken <= ROOM
    };
    items.iter().take_while(fits).count().max(1).min(items.len())
}

#[cfg(test)]
#[cfg(feature = "live")]
mod tests {
    use super::*;

    #[test]
    fn as_many_fit_as_have_room() {
        assert_eq!(fitting(&[0; 0]), 0);
        assert_eq!(fitting(&[7; 100]), 100);
        assert_eq!(fitting(&["x".repeat(ROOM)]), 1, "one is told, if only a part of it");
        assert_eq!(fitting(&vec!["x".repeat(97); 1_000]), ROOM / 100);
    }
}
