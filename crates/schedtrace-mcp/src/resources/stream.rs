//! What happens, as it happens.

use super::{Contents, Resource};
use crate::stream::{URI, Wanted, takes};

pub(super) const STREAM: Resource = Resource {
    uri: URI,
    name: "Live events",
    description: "Scheduler events of this machine as they happen, one JSON object per line; the last line says what is left \
        and what was lost. Subscribe to it - with a query to choose: ?kind=, task= (tid or name), pid=, cgroup=, cpu=, \
        where=dsq_lat_us > 1000, limit=, after=SEQ - which starts to collect if nothing does; each reading gives what is \
        new.",
    mime_type: "application/x-ndjson",
    takes,
    collects: true,
    read: |call| {
        let (wanted, page) = Wanted::read(call.asked())?;
        call.state.collections.streams.read(&wanted, page).map(Contents::Text)
    },
};
