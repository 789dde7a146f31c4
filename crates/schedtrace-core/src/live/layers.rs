//! Where scx_layered keeps the layer of each task, so that a program can look it up.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::query::{MapInfo, MapInfoIter, ProgInfoIter};
use libbpf_rs::{MapHandle, MapType};

/// What scx_layered calls its map, and what the layer is called there (`scheds/rust/scx_layered/src/bpf` in sched-ext/scx).
const MAP: &str = "task_ctxs";
const LAYER: &str = "layer_id";

/// The map of a running scx_layered in which each task's layer stands.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) map: MapHandle,
    /// Where in a value, in bytes.
    pub(super) at: u32,
}

impl Layers {
    /// Looks for it among all maps: task storage of that name whose values have such a member.
    pub(super) fn find() -> Option<Self> {
        MapInfoIter::default()
            .filter(|map| map.name == MAP && map.ty == MapType::TaskStorage)
            .find_map(|map| Some(Self { at: layer_at(&map)?, map: MapHandle::from_map_id(map.id).ok()? }))
    }
}

/// The types of a map are those of the programs it was loaded with.
fn layer_at(map: &MapInfo) -> Option<u32> {
    let program = ProgInfoIter::default().find(|program| program.btf_id == map.btf_id)?;
    let btf = Btf::from_prog_id(program.id).ok()?;
    let value: Struct<'_> = btf.type_by_id(map.btf_value_type_id.into())?;
    value.iter().filter(|member| member.name.is_some_and(|name| name == LAYER)).find_map(|member| match member.attr {
        MemberAttr::Normal { offset } => Some(offset / 8),
        MemberAttr::BitField { .. } => None,
    })
}
