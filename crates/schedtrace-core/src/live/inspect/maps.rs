//! The maps that are there.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use libbpf_rs::query::{MapInfoIter, ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore, MapHandle, MapType};
use serde::Serialize;

use super::{clean, may_look, words};
use crate::error::Result;
use crate::system::read_text;

/// A map.
///
/// ```
/// use schedtrace_core::live::inspect::Map;
/// let map = Map { id: 3, name: "pids".into(), ty: "hash".into(), key_bytes: 4, value_bytes: 1, ..Map::default() };
/// assert!(map.unreadable.is_none());
/// assert_eq!(serde_json::to_value(&map)?["type"], "hash");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Map {
    /// Its number, which no other map gets until the machine is started again, or the numbers are used up.
    pub id: u32,
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// What kind it is: `hash`, `percpu_array`, `ringbuf`, ...
    #[serde(rename = "type")]
    pub ty: String,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value, for one CPU.
    pub value_bytes: u32,
    /// So many entries fit; of a ring buffer these are bytes, of an arena pages.
    pub max_entries: u32,
    /// What it was made with: `BPF_F_` flags in `include/uapi/linux/bpf.h`.
    pub flags: u32,
    /// Whether user space may write it no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
    /// Bytes of memory that it takes; on kernels before 6.4 an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The types of its entries, if it has any, and the numbers of the key's and the value's among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub btf: Option<MapTypes>,
    /// The loaded programs that use it, by their ids.
    pub program_ids: Vec<u32>,
    /// Why [`dump_map`](super::dump_map) does not read it, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<&'static str>,
}

/// Where the types of a map's entries are described.
///
/// ```
/// use schedtrace_core::live::inspect::MapTypes;
/// let types = MapTypes { btf_id: 12, key_type_id: 1, value_type_id: 4 };
/// assert_eq!(serde_json::to_value(&types)?["value_type_id"], 4);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MapTypes {
    /// The BTF that has them.
    pub btf_id: u32,
    /// The type of the key in it; 0 for none.
    pub key_type_id: u32,
    /// The type of the value in it; 0 for none.
    pub value_type_id: u32,
}

/// Every map that is there. What is in them tells [`dump_map`](super::dump_map).
///
/// ```no_run
/// use schedtrace_core::live::inspect;
/// let bytes: u64 = inspect::maps()?.iter().filter_map(|map| map.memory_bytes).sum();
/// println!("BPF maps take {bytes} bytes");
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotShown`](crate::Error::NotShown) without `CAP_SYS_ADMIN`.
pub fn maps() -> Result<Vec<Map>> {
    may_look()?;
    let users = users();
    let ids: Vec<u32> = MapInfoIter::default().map(|info| info.id).collect();
    // One that is gone meanwhile is not there.
    let open = |id| MapHandle::from_map_id(id).and_then(|handle| describe(&handle, &users));
    Ok(ids.into_iter().filter_map(|id| open(id).ok()).collect())
}

/// Programs by the maps they use.
pub(super) fn users() -> BTreeMap<u32, Vec<u32>> {
    let mut users: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for program in ProgInfoIter::with_query_opts(ProgInfoQueryOptions::default().include_map_ids(true)) {
        program.map_ids.into_iter().for_each(|map| users.entry(map).or_default().push(program.id));
    }
    users
}

/// What the kernel says of a map.
pub(super) fn describe(map: &MapHandle, users: &BTreeMap<u32, Vec<u32>>) -> libbpf_rs::Result<Map> {
    let info = map.info()?.info;
    let path = PathBuf::from(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()));
    let more = read_text(&path).unwrap_or_default();
    let field = |name: &str| more.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok();
    let ty = map.map_type();
    Ok(Map {
        id: info.id,
        name: clean(&map.name().to_string_lossy()),
        ty: words::of(ty),
        key_bytes: info.key_size,
        value_bytes: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
        frozen: field("frozen:").map(|frozen| frozen != 0),
        memory_bytes: field("memlock:"),
        btf: (info.btf_id != 0).then_some(MapTypes {
            btf_id: info.btf_id,
            key_type_id: info.btf_key_type_id,
            value_type_id: info.btf_value_type_id,
        }),
        program_ids: users.get(&info.id).cloned().unwrap_or_default(),
        unreadable: unreadable(ty),
    })
}

/// Why a map of this kind cannot be read entry by entry. What is not known here is not tried either: the kernel would
/// write values of a length that only it knows.
pub(super) fn unreadable(ty: MapType) -> Option<&'static str> {
    match ty {
        MapType::Hash
        | MapType::LruHash
        | MapType::PercpuHash
        | MapType::LruPercpuHash
        | MapType::Array
        | MapType::PercpuArray
        | MapType::LpmTrie
        | MapType::ProgArray
        | MapType::ArrayOfMaps
        | MapType::HashOfMaps
        | MapType::Devmap
        | MapType::DevmapHash
        | MapType::Cpumap
        | MapType::CgroupStorage
        | MapType::PercpuCgroupStorage
        | MapType::StructOps => None,
        MapType::RingBuf | MapType::UserRingBuf => Some(
            "a ring buffer has no keys: what is in it is for its reader, once, and reading it here would take it away",
        ),
        MapType::Arena => Some("an arena has no keys: it is memory, whose layout only its programs know"),
        MapType::StackTrace => {
            Some("stacks are kept by numbers that only events name, as addresses without a meaning here")
        }
        MapType::Queue | MapType::Stack => {
            Some("a queue or a stack has no keys: reading on would take out what is in it")
        }
        MapType::BloomFilter => Some("a bloom filter has no keys, and keeps none of its values"),
        MapType::SkStorage | MapType::InodeStorage | MapType::TaskStorage | MapType::CGrpStorage => {
            Some("its values lie with the kernel's objects, and the kernel lists no keys of it")
        }
        MapType::PerfEventArray | MapType::CgroupArray | MapType::Xskmap => {
            Some("it holds files of the process that filled it, which the kernel does not show")
        }
        MapType::Sockmap | MapType::Sockhash | MapType::ReuseportSockarray => {
            Some("it holds sockets, which the kernel does not show")
        }
        _ => Some("this kind of map is not known to this version"),
    }
}
