//! The kernel's names of kinds of programs, maps and attachments, as its other tools have them.

use std::fmt::Debug;

/// `LruPercpuHash` as `lru_percpu_hash`.
fn snake(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for (at, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && at > 0 {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// What a kind is called, which is how its variant is written but for a few.
pub(super) fn of(kind: impl Debug) -> String {
    match format!("{kind:?}").as_str() {
        "RingBuf" => "ringbuf".into(),
        "UserRingBuf" => "user_ringbuf".into(),
        "CGrpStorage" => "cgrp_storage".into(),
        name => snake(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libbpf_rs::{MapType, ProgramAttachType, ProgramType};

    #[test]
    fn names_are_those_of_the_kernel() {
        let maps = [MapType::LruPercpuHash, MapType::RingBuf, MapType::UserRingBuf, MapType::CGrpStorage];
        assert_eq!(maps.map(of), ["lru_percpu_hash", "ringbuf", "user_ringbuf", "cgrp_storage"]);
        assert_eq!([MapType::ArrayOfMaps, MapType::LpmTrie].map(of), ["array_of_maps", "lpm_trie"]);
        let programs = [ProgramType::RawTracepointWritable, ProgramType::LwtSeg6local, ProgramType::Xdp];
        assert_eq!(programs.map(of), ["raw_tracepoint_writable", "lwt_seg6local", "xdp"]);
        assert_eq!(of(ProgramAttachType::TraceFentry), "trace_fentry");
    }
}
