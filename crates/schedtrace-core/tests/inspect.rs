//! What is told of the BPF objects of this machine, beside what bpftool says of the same. Needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "live")]

mod support;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, num_possible_cpus};
use schedtrace_core::Error;
use schedtrace_core::live::inspect::{self, MapEntry, MapRef, Program};
use serde_json::{Value, json};

/// `tests/inspect/shapes.bpf.c`
const SHAPES: &[u8] = include_bytes!("inspect/shapes.bpf.o");

fn shapes() -> Object {
    ObjectBuilder::default().open_memory(SHAPES).unwrap().load().unwrap()
}

fn id_of(object: &Object, name: &str) -> u32 {
    object.maps().find(|map| map.name() == name).unwrap().info().unwrap().info.id
}

fn update(object: &Object, name: &str, key: &[u8], value: &[u8]) {
    object.maps_mut_by(name, |map| map.update(key, value, MapFlags::ANY).unwrap());
}

trait ByName {
    fn maps_mut_by(&self, name: &str, with: impl FnOnce(&dyn MapCore));
}

impl ByName for Object {
    fn maps_mut_by(&self, name: &str, with: impl FnOnce(&dyn MapCore)) {
        with(&self.maps().find(|map| map.name() == name).unwrap());
    }
}

/// What bpftool says, as JSON.
fn bpftool(args: &[&str]) -> Value {
    let output = Command::new("bpftool").arg("-j").args(args).output().expect("bpftool: `scripts/setup.sh bpftool`");
    assert!(output.status.success(), "bpftool {args:?}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The entries of a map as bpftool tells them: those that it could format.
fn formatted(id: u32) -> Vec<Value> {
    let entries = bpftool(&["map", "dump", "id", &id.to_string()]);
    entries.as_array().unwrap().iter().map(|entry| entry["formatted"].clone()).collect()
}

fn entries(id: u32) -> Vec<Value> {
    let page = inspect::dump_map(&MapRef::Id(id), None, 1_000).unwrap();
    assert_eq!(page.next, None);
    page.entries.iter().map(|entry| serde_json::to_value(entry).unwrap()).collect()
}

fn place(cpu: u32, color: i32) -> Vec<u8> {
    [cpu.to_ne_bytes(), color.to_ne_bytes()].concat()
}

/// The bytes of a `struct shape`.
fn shape(id: u64, label: &str, color: i32) -> Vec<u8> {
    let mut bytes = vec![0; 104];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &id.to_ne_bytes());
    put(8, &(-(id as i64)).to_ne_bytes());
    put(16, &[u8::from(id % 2 == 1), 200, 0xfe]);
    put(19, label.as_bytes());
    put(36, &color.to_ne_bytes());
    put(40, &(-7_i16).to_ne_bytes());
    put(48, &i64::MIN.to_ne_bytes());
    put(56, &300_i16.to_ne_bytes());
    (0..6_u32).for_each(|n| put(72 + n as usize * 4, &(u32::MAX - n).to_ne_bytes()));
    put(96, &[0, 1, 2, 0xfd, 0xfe, 0xff]);
    bytes
}

#[test]
fn live_entries_of_a_hash_are_those_that_bpftool_formats() {
    let object = shapes();
    for (at, (label, color)) in [("", 0), ("ping", 5), ("a longer label", -2), ("pong", 77)].into_iter().enumerate() {
        update(&object, "shapes", &place(at as u32, color), &shape(u64::MAX - at as u64, label, color));
    }
    let id = id_of(&object, "shapes");
    let ours = entries(id);
    assert_eq!(ours.len(), 4);
    assert_eq!(ours, formatted(id));
    let second = ours.iter().find(|entry| entry["key"]["cpu"] == 1).unwrap();
    assert_eq!(second["key"]["color"], "GREEN");
    let value = &second["value"];
    assert_eq!((&value["id"], &value["below_zero"]), (&json!(u64::MAX - 1), &json!(2)));
    assert_eq!((&value["round"], &value["small"], &value["tiny"]), (&json!(false), &json!(200), &json!(-2)));
    assert_eq!((&value["label"], &value["color"]), (&json!("ping"), &json!("GREEN")));
    assert_eq!(value["corners"], json!([{"x": -7, "y": i64::MIN}, {"x": 300, "y": 0}]));
    assert_eq!(value["hardware"], json!([0, 1, 2, 253, 254, 255]));
    let page = inspect::dump_map(&MapRef::Id(id), None, 10).unwrap();
    assert_eq!((page.key_type.as_deref(), page.value_type.as_deref()), (Some("struct place"), Some("struct shape")));
    assert_eq!(page.map.id, id);
}

#[test]
fn live_each_cpu_has_a_value_of_its_own_as_bpftool_has_it() {
    let object = shapes();
    let cpus = num_possible_cpus().unwrap();
    let counts = |packets: u64| {
        let mut bytes = vec![0; 32];
        bytes[..8].copy_from_slice(&packets.to_ne_bytes());
        bytes[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[16..18].copy_from_slice(&(-1_i16).to_ne_bytes());
        bytes[24..].copy_from_slice(&(-(packets as i64)).to_ne_bytes());
        bytes
    };
    let values: Vec<_> = (0..cpus as u64).map(|cpu| counts(1_000 + cpu)).collect();
    object.maps_mut_by("counters", |map| map.update_percpu(&1_u32.to_ne_bytes(), &values, MapFlags::ANY).unwrap());
    let id = id_of(&object, "counters");
    let ours = entries(id);
    assert_eq!(ours, formatted(id));
    assert_eq!(ours.iter().map(|entry| entry["key"].clone()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(ours[1]["values"].as_array().unwrap().len(), cpus);
    let last = json!({"x": -1, "y": -1_000});
    assert_eq!(ours[1]["values"][0], json!({"cpu": 0, "value": {"packets": 1_000, "drops": 7, "last": last}}));
    assert_eq!(ours[2]["values"][0]["value"]["packets"], 0);
}

#[test]
fn live_what_bpftool_cannot_tell_is_told_too() {
    let object = shapes();
    let mut bytes = vec![0; 816];
    // three = 5, minus = -3, flag, color = -2, long_one = 0x123456789a
    let bits = 5 | (0b11101 << 3) | (1 << 8) | (0b1110 << 9) | (0x12_3456_789a_u64 << 13);
    bytes[..8].copy_from_slice(&bits.to_ne_bytes());
    bytes[8..12].copy_from_slice(&0x0002_0001_u32.to_ne_bytes());
    bytes[16..18].copy_from_slice(&9_i16.to_ne_bytes());
    bytes[32..40].copy_from_slice(&(1_u64 << 40).to_ne_bytes());
    bytes[40..48].copy_from_slice(&2.5_f64.to_ne_bytes());
    bytes[48..52].copy_from_slice(&f32::NAN.to_ne_bytes());
    bytes[56..64].copy_from_slice(&0xffff_8000_dead_beef_u64.to_ne_bytes());
    bytes[96..112].copy_from_slice(&(1_u128 << 100).to_ne_bytes());
    bytes[112..116].copy_from_slice(b"a\x1b\xff\n");
    bytes[412..416].copy_from_slice(&77_u32.to_ne_bytes());
    update(&object, "odds", &[0; 4], &bytes);
    let [entry]: [Value; 1] = entries(id_of(&object, "odds")).try_into().unwrap();
    let value = &entry["value"];
    let told = |names: &[&str]| names.iter().map(|name| value[name].clone()).collect::<Vec<_>>();
    assert_eq!(told(&["three", "minus", "flag", "color"]), [json!(5), json!(-3), json!(true), json!("BLUE")]);
    assert_eq!(told(&["long_one", "whole", "halves"]), [json!(0x12_3456_789a_u64), json!(0x0002_0001), json!([1, 2])]);
    assert_eq!(value["either"]["point"]["x"], 9);
    assert_eq!(told(&["wide", "ratio", "part"]), [json!("LARGE"), json!(2.5), json!("NaN")]);
    assert_eq!(told(&["address", "pointers"]), [json!("0xffff8000deadbeef"), json!(["0x0", "0x0"])]);
    assert_eq!(told(&["big", "text"]), [json!("0x10000000000000000000000000"), json!("a\u{fffd}\u{fffd}\u{fffd}")]);
    assert_eq!(told(&["rest"]), [json!([])]);
    let many = value["many"].as_array().unwrap();
    assert_eq!((many.len(), &many[0], &many[64]), (65, &json!(77), &json!("... 36 more")));
    assert_eq!(entry["cut"], true);
}

#[test]
fn live_a_map_without_types_gives_bytes_and_pages_follow_each_other() {
    let object = shapes();
    for n in 1..=3_u8 {
        update(&object, "untyped", &[n, 0, 0xab], &[n; 300]);
    }
    let id = id_of(&object, "untyped");
    let (mut from, mut seen) = (None, BTreeMap::new());
    for page in 0.. {
        let found = inspect::dump_map(&MapRef::Id(id), from.as_deref(), 1).unwrap();
        assert!(found.key_type.is_none() && found.value_type.is_none());
        let [MapEntry { key, value: Some(value), cut: true, .. }] = &found.entries[..] else { panic!("{found:?}") };
        seen.insert(key.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned());
        from = found.next;
        if from.is_none() {
            assert_eq!(page, 2);
            break;
        }
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["0100ab", "0200ab", "0300ab"]);
    assert_eq!(seen["0200ab"], format!("{}... 44 bytes more", "02".repeat(256)));
    let dump = |from: &str| inspect::dump_map(&MapRef::Id(id), Some(from), 1).unwrap_err().to_string();
    for from in ["0", "zz", "0100ab00", ""] {
        assert!(dump(from).contains("is no place in this BPF map"), "{from}");
    }
    assert!(dump("0900ab").contains("begin again"));
}

#[test]
fn live_programs_in_a_map_are_told_by_id_and_variables_by_name() {
    let object = shapes();
    let program = object.progs().next().unwrap();
    update(&object, "tails", &5_u32.to_ne_bytes(), &program.as_fd().as_raw_fd().to_ne_bytes());
    let programs = inspect::programs().unwrap().programs;
    // One process holds two when tests run side by side.
    let of_ours = |program: &&Program| program.name == "counts_how_often_it_is_called";
    let ids: Vec<_> = programs.iter().filter(of_ours).map(|program| json!(program.id)).collect();
    let [entry]: [Value; 1] = entries(id_of(&object, "tails")).try_into().unwrap();
    assert_eq!(entry["key"], 5);
    assert!(ids.contains(&entry["value"]), "{entry} of {ids:?}");
    let data = object.maps().find(|map| map.name().to_string_lossy().ends_with(".data")).unwrap();
    let id = data.info().unwrap().info.id;
    let page = inspect::dump_map(&MapRef::Id(id), None, 10).unwrap();
    assert_eq!(page.entries[0].value, Some(json!({"total": 7, "balance": [1, -2, 3]})));
    assert_eq!(page.value_type.as_deref(), Some(".data"));
}

#[test]
fn live_what_cannot_be_read_says_why() {
    let object = shapes();
    object.maps_mut_by("waiting", |map| map.update(&[], &9_u64.to_ne_bytes(), MapFlags::ANY).unwrap());
    let queue = id_of(&object, "waiting");
    let error = inspect::dump_map(&MapRef::Id(queue), None, 10).unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("has no keys")), "{error}");
    assert!(inspect::maps().unwrap().iter().any(|map| map.id == queue && map.unreadable.is_some()));
    let error = inspect::dump_map(&MapRef::Id(u32::MAX), None, 10).unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("there is no BPF map 4294967295")), "{error}");
    let error = inspect::dump_map(&MapRef::Name("no such map".into()), None, 10).unwrap_err();
    assert!(error.to_string().contains("there is no BPF map no such map"), "{error}");
    let other = shapes();
    let error = inspect::dump_map(&"shapes".parse().unwrap(), None, 10).unwrap_err().to_string();
    assert!(error.contains("BPF maps are called shapes: give the id of one"), "{error}");
    assert!(error.contains(&id_of(&other, "shapes").to_string()), "{error}");
}

/// The fields that both tell, by id.
fn by_id(list: &Value, fields: &[(&str, &str)]) -> BTreeMap<u64, BTreeMap<String, Value>> {
    let told = |item: &Value| {
        fields.iter().map(|(name, theirs)| ((*name).to_owned(), item[theirs].clone())).collect::<BTreeMap<_, _>>()
    };
    list.as_array().unwrap().iter().map(|item| (item["id"].as_u64().unwrap(), told(item))).collect()
}

#[test]
fn live_programs_and_maps_are_those_that_bpftool_lists() {
    let _one = support::ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let collector = support::collector().start().unwrap();
    let _shapes = shapes();
    let found = inspect::programs().unwrap();
    let fields = ["id", "type", "tag"].map(|name| (name, name));
    let sizes = [("jited_bytes", "bytes_jited"), ("translated_bytes", "bytes_xlated"), ("uid", "uid")];
    let theirs: Vec<_> = fields.into_iter().chain(sizes).collect();
    let ours: Vec<_> = theirs.iter().map(|&(name, _)| (name, name)).collect();
    let list = bpftool(&["prog", "show"]);
    let (ours, theirs) = (by_id(&serde_json::to_value(&found.programs).unwrap(), &ours), by_id(&list, &theirs));
    // Others load and unload what they want meanwhile.
    let both: Vec<_> = ours.keys().filter(|id| theirs.contains_key(id)).collect();
    assert!(both.len() >= 10, "{both:?}");
    both.iter().for_each(|id| assert_eq!(ours[id], theirs[id]));
    let named = |id: u32| list.as_array().unwrap().iter().find(|item| item["id"] == id);
    for program in &found.programs {
        let Some(item) = named(program.id) else { continue };
        let name = item["name"].as_str().unwrap_or_default();
        assert!(program.name.starts_with(&name[..name.len().min(15)]), "{name} {}", program.name);
        assert_eq!(json!(program.map_ids), item.get("map_ids").cloned().unwrap_or(json!([])), "{name}");
        assert_eq!(json!(program.btf_id), item["btf_id"], "{name}");
        let seconds = program.loaded_realtime_ns.0 / 1_000_000_000;
        assert!(seconds.abs_diff(item["loaded_at"].as_u64().unwrap()) <= 1, "{name} {seconds} {item}");
    }
    let ours =
        |program: &&Program| program.is_schedtrace && program.holders.iter().any(|of| of.pid == std::process::id());
    let switch = found.programs.iter().filter(ours).find(|program| program.name == "sched_switch").unwrap();
    assert!(switch.jited_bytes > 0 && switch.verified_instructions > 0 && !switch.map_ids.is_empty());
    assert_eq!(switch.attachments[0].to_string(), "raw_tracepoint sched_switch");
    let whole = found.programs.iter().find(|program| program.name == "counts_how_often_it_is_called").unwrap();
    assert!(!whole.is_schedtrace && whole.ty == "syscall" && whole.attachments.is_empty());
    let maps = inspect::maps().unwrap();
    let fields = [("type", "type"), ("name", "name"), ("frozen", "frozen")];
    let sizes = [("key_bytes", "bytes_key"), ("value_bytes", "bytes_value"), ("max_entries", "max_entries")];
    let theirs: Vec<_> = fields.into_iter().chain(sizes).chain([("memory_bytes", "bytes_memlock")]).collect();
    let ours: Vec<_> = theirs.iter().map(|&(name, _)| (name, name)).collect();
    let (ours, mut theirs) =
        (by_id(&serde_json::to_value(&maps).unwrap(), &ours), by_id(&bpftool(&["map", "show"]), &theirs));
    let both: Vec<_> = ours.keys().filter(|id| theirs.contains_key(id)).collect();
    assert!(both.len() >= 5, "{both:?}");
    for id in both {
        let theirs = theirs.get_mut(id).unwrap();
        // A number there, and a hash's memory changes as it is filled.
        let frozen = theirs["frozen"] == 1;
        theirs.insert("frozen".into(), json!(frozen));
        theirs.insert("memory_bytes".into(), ours[id]["memory_bytes"].clone());
        if theirs["type"].is_string() && theirs["name"].is_string() {
            assert_eq!(&ours[id], theirs);
        }
    }
    let pids = maps.iter().find(|map| map.name == "pids" && switch.map_ids.contains(&map.id)).unwrap();
    assert!(pids.program_ids.contains(&switch.id) && pids.btf.is_some() && pids.unreadable.is_none());
    drop(collector);
}

#[test]
fn live_every_map_of_the_machine_is_read_or_says_why_not() {
    let _one = support::ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _collector = support::collector().start().unwrap();
    let _shapes = shapes();
    let mut read = 0;
    for map in inspect::maps().unwrap() {
        match inspect::dump_map(&MapRef::Id(map.id), None, 3) {
            Ok(page) => {
                assert!(map.unreadable.is_none() && page.entries.len() <= 3);
                read += 1;
            }
            Err(error) => {
                assert!(map.unreadable.is_some() || error.to_string().contains("no BPF map"), "{map:?}: {error}")
            }
        }
    }
    assert!(read >= 5, "{read}");
}

#[test]
fn live_runs_are_told_as_known_where_they_are_counted() {
    let setting = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap();
    let mut found = inspect::programs().unwrap();
    assert_eq!(found.run_times_known, setting.trim() != "0");
    assert!(found.programs.iter().all(|program| program.runs.run_time_known || program.runs.mean_ns().is_none()));
    found.sort_busiest_first();
    assert!(found.programs.is_sorted_by(|a, b| a.runs.run_time_ns >= b.runs.run_time_ns));
}

#[test]
fn live_what_the_kernel_has_is_told() {
    let support = inspect::support(true);
    let recording = support.recording.as_ref().unwrap();
    assert!(support.rights.may_record && support.rights.may_inspect && support.rights.mend.is_none());
    assert!(recording.can_record());
    let has = |name: &str| support.features.iter().find(|feature| feature.name == name).unwrap().available;
    for needed in ["btf", "ringbuf", "task_storage", "tp_btf", "task_iterator"] {
        assert_eq!(has(needed), Some(true), "{needed}: the collector needs it");
    }
    let arenas = recording.checks.iter().any(|check| check.found.contains("logs in a BPF arena"));
    assert!(!arenas || has("arena") == Some(true));
    let untried = inspect::support(false);
    assert!(untried.recording.is_none());
    assert_eq!((untried.features, untried.rights), (support.features, support.rights));
}
