//! What is in a BPF map.

use schedtrace_core::live::inspect::{self, Map, MapPage, MapRef};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, rows};
use crate::answer::{Answer, quoted};
use crate::call::Call;
use crate::paging::fitting;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 500;

pub(super) const MAP_DUMP: Tool = Tool {
    name: "ebpf_map_dump",
    title: "Entries of a BPF map",
    description: "Reads a BPF map of this machine, page by page: keys and values decoded by the types that came with the map \
        (structs, constants, text; a value per CPU for per-CPU maps), or as hexadecimal digits where it has none. Nothing is \
        changed. Without `map`, lists the maps that there are.",
    takes: || {
        json!({
            "map": { "type": "string", "description": "Its id or its name, of which the kernel keeps 15 bytes." },
            "map_name": { "type": "string", "description": "The same." },
            "limit": { "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT },
            "cursor": { "type": "string", "description": "`next_cursor` of the page before." }
        })
    },
    required: &[],
    tells: &[("maps", "array"), ("shown", "integer")],
    collects: false,
    destructive: false,
    call: dump,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(alias = "map_name")]
    map: Option<Named>,
    limit: Option<u64>,
    cursor: Option<String>,
}

/// An id may come as a number, too.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Id(u32),
    Name(String),
}

fn dump(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Asked = call.arguments()?;
    let limit = rows("limit", asked.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let cursor = asked.cursor.as_deref();
    let map = match asked.map {
        None => return list(&inspect::maps().map_err(|why| why.to_string())?, cursor, limit),
        Some(Named::Id(id)) => MapRef::Id(id),
        Some(Named::Name(name)) => name.parse().map_err(told)?,
    };
    let mut page = inspect::dump_map(&map, cursor, limit).map_err(told)?;
    let fits = fitting(&page.entries);
    if fits < page.entries.len() {
        // Only a page knows where it ends.
        page = inspect::dump_map(&MapRef::Id(page.map.id), cursor, fits).map_err(told)?;
    }
    Ok(entries(&page))
}

fn told(why: schedtrace_core::Error) -> String {
    format!("{why}; without `map`, this tool lists the maps")
}

fn entries(page: &MapPage) -> Answer {
    let Map { id, name, ty, max_entries, .. } = &page.map;
    let count = page.entries.len();
    let (entries, last) = if count == 1 { ("entry", "the last one") } else { ("entries", "the last ones") };
    let more = if page.next.is_some() { "more follow" } else { last };
    let types = match (&page.key_type, &page.value_type) {
        (Some(key), Some(value)) => format!("from {} to {}", quoted(key), quoted(value)),
        _ => "it has no types: bytes are told as hexadecimal digits".to_owned(),
    };
    let summary = format!(
        "{count} {entries} of the BPF map {name} (id {id}, {ty}, with room for {max_entries}), {more}; {types}."
    );
    let answer = Answer::new(summary)
        .read_now()
        .with("shown", &count)
        .with("next_cursor", &page.next)
        .with("entries", &page.entries)
        .with("key_type", &page.key_type)
        .with("value_type", &page.value_type)
        .with("maps", std::slice::from_ref(&page.map));
    match &page.next {
        Some(cursor) => {
            answer.next("ebpf_map_dump", json!({ "map": id.to_string(), "cursor": cursor }), "the entries that follow")
        }
        None => answer.next("ebpf_map_dump", json!({}), "lists the maps that there are"),
    }
}

/// The maps that there are, after the one with this id.
fn list(all: &[Map], cursor: Option<&str>, limit: usize) -> Result<Answer, String> {
    let after: u32 = match cursor.map(str::parse) {
        None => 0,
        Some(Ok(id)) => id,
        Some(Err(_)) => return Err("cursor: in the list of maps it is `next_cursor` of the part before".into()),
    };
    let rest: Vec<&Map> = all.iter().filter(|map| map.id > after).collect();
    let shown = &rest[..rest.len().min(limit)];
    let shown = &shown[..fitting(shown)];
    let bytes: u64 = all.iter().filter_map(|map| map.memory_bytes).fold(0, u64::saturating_add);
    let summary = format!(
        "{} BPF maps are there, which take {bytes} bytes together. This lists {} of them by id.",
        all.len(),
        shown.len()
    );
    let next = shown.last().filter(|_| shown.len() < rest.len()).map(|map| map.id.to_string());
    let answer = Answer::new(summary).read_now().with("shown", &shown.len()).with("next_cursor", &next);
    let answer = answer.with("maps", shown).with("maps_total", &all.len());
    let readable = shown.iter().find(|map| map.unreadable.is_none());
    let answer = match readable {
        Some(map) => answer.next("ebpf_map_dump", json!({ "map": map.id.to_string() }), "reads what is in one of them"),
        None => answer,
    };
    Ok(match next {
        Some(cursor) => answer.next("ebpf_map_dump", json!({ "cursor": Value::from(cursor) }), "the maps that follow"),
        None => answer,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, refusal};
    use super::*;
    use crate::Settings;
    use crate::state::State;
    use schedtrace_core::live::inspect::MapEntry;

    fn map(id: u32) -> Map {
        Map { id, name: format!("map_{id}"), ty: "hash".into(), memory_bytes: Some(100), ..Map::default() }
    }

    #[test]
    fn the_list_of_maps_goes_on_where_it_was_cut() {
        let all: Vec<_> = (1..=300).map(map).collect();
        let (mut cursor, mut seen) = (None::<String>, Vec::new());
        loop {
            let page = list(&all, cursor.as_deref(), 500).unwrap().finish().unwrap();
            assert!(page.get("cut_to_fit").is_none() && page["shown"].as_u64().unwrap() > 20);
            seen.extend(page["maps"].as_array().unwrap().iter().map(|map| map["id"].as_u64().unwrap()));
            cursor = page["next_cursor"].as_str().map(Into::into);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, (1..=300).collect::<Vec<_>>());
        assert!(list(&all, Some("ab01"), 10).unwrap_err().contains("next_cursor"));
        let none = list(&[], None, 10).unwrap().finish().unwrap();
        assert_eq!((&none["maps"], &none["next"]), (&json!([]), &json!([])));
    }

    #[test]
    fn a_page_says_what_it_is_and_where_it_goes_on() {
        let entry = MapEntry { key: json!("a\u{1b}b"), value: Some(json!({"runs": 7})), ..MapEntry::default() };
        let page = MapPage {
            map: map(7),
            key_type: Some("char[16]".into()),
            value_type: Some("struct counts".into()),
            entries: vec![entry],
            next: Some("ab01".into()),
        };
        let told = entries(&page).finish().unwrap();
        assert_eq!(
            told["summary"],
            "1 entry of the BPF map map_7 (id 7, hash, with room for 0), more follow; from `char[16]` to `struct counts`."
        );
        assert_eq!(told["entries"], json!([{"key": "a\u{fffd}b", "value": {"runs": 7}}]));
        assert_eq!(told["next"][0]["arguments"], json!({"map": "7", "cursor": "ab01"}));
    }

    #[test]
    fn live_maps_of_this_machine_are_listed_and_refused_in_words() {
        let state = State::new(Settings::default());
        let told = answer(&state, "ebpf_map_dump", &json!({"limit": 1}));
        assert!(told["maps_total"].is_u64(), "{told}");
        for (arguments, why) in [
            (json!({"map": "no such map"}), "there is no BPF map no such map"),
            (json!({"map": ""}), "give its id or its name"),
            (json!({"map_name": 4_294_967_295_u32}), "there is no BPF map 4294967295"),
            (json!({"map": "1", "limit": 501}), "use 1 to 500"),
            (json!({"map": "1", "colour": 1}), "colour"),
        ] {
            let told = refusal(&state, "ebpf_map_dump", &arguments);
            assert!(told.contains(why), "{arguments}: {told}");
        }
    }
}
