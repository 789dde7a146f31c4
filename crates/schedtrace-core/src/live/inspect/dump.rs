//! What is in a map, page by page.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::Path;
use std::str::FromStr;

use libbpf_rs::btf::Btf;
use libbpf_rs::query::MapInfoIter;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use serde::Serialize;
use serde_json::Value;

use super::decode::{self, Decoder};
use super::maps::{self, Map};
use super::types::Types;
use super::{clean, hex, may_look, unhex};
use crate::error::{Error, Result};
use crate::system::{CpuList, read_text};

/// So many entries fit on a page.
const MAX_PAGE: usize = 1_000;
/// So many values are decoded for one entry, and for a page.
const ENTRY_VALUES: usize = 4_096;
const PAGE_VALUES: usize = 65_536;
/// A page ends with the entry with which it is this large, as JSON.
const PAGE_BYTES: usize = 4 << 20;
/// So many keys without a value are passed over for one page.
const MAX_EMPTY: usize = 65_536;
/// So large is an entry at the most, with its values of all CPUs.
const MAX_ENTRY_BYTES: usize = 64 << 20;
/// Longer keys are told by their hash where a page ends: a place is passed on by whoever reads, as it is.
const LONG_KEY: usize = 64;
const HASHED: char = '~';
/// The kernel keeps so many bytes of a name.
const CUT_NAME: usize = 15;

/// Which map: its id, or its name.
///
/// ```
/// use schedtrace_core::live::inspect::MapRef;
/// assert_eq!("12".parse::<MapRef>()?, MapRef::Id(12));
/// assert_eq!("sched_stats".parse::<MapRef>()?, MapRef::Name("sched_stats".into()));
/// assert!("".parse::<MapRef>().is_err());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapRef {
    /// Its id.
    Id(u32),
    /// Its name, which one map alone has to have. The kernel keeps 15 bytes of it: a longer one is compared by these.
    Name(String),
}

impl FromStr for MapRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) if text.is_empty() => Err(Error::Invalid("which map? give its id or its name".into())),
            Err(_) => Ok(Self::Name(text.into())),
        }
    }
}

impl fmt::Display for MapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A part of a map's entries.
///
/// ```
/// use schedtrace_core::live::inspect::MapPage;
/// let page = MapPage::default();
/// assert!(page.entries.is_empty() && page.next.is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MapPage {
    /// The map.
    pub map: Map,
    /// The type of its keys, as C writes it; none where keys are bytes, which are told as hexadecimal digits.
    pub key_type: Option<String>,
    /// The same of its values.
    pub value_type: Option<String>,
    /// The entries, in the kernel's order. It is no order that means anything, but for arrays.
    pub entries: Vec<MapEntry>,
    /// Where the next page begins, to be passed on as it is; none after the last one.
    pub next: Option<String>,
}

/// One entry of a map.
///
/// ```
/// use schedtrace_core::live::inspect::MapEntry;
/// let entry = MapEntry { key: 7.into(), value: Some(true.into()), ..MapEntry::default() };
/// assert_eq!(serde_json::to_string(&entry)?, r#"{"key":7,"value":true}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MapEntry {
    /// Its key.
    pub key: Value,
    /// Its value; none where every CPU has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The value of each CPU that there may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<CpuValue>,
    /// Whether a part of it was left out: `...` stands there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// The value that an entry has for one CPU.
///
/// ```
/// use schedtrace_core::live::inspect::CpuValue;
/// let value = CpuValue { cpu: 3, value: 17.into() };
/// assert_eq!(serde_json::to_string(&value)?, r#"{"cpu":3,"value":17}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuValue {
    /// Which CPU.
    pub cpu: u32,
    /// The value.
    pub value: Value,
}

/// Reads entries of a map, `limit` at the most (1,000 are the most), after those of the page that gave `from`; without
/// it, from the first on. The map is read while programs change it: an entry is that of its moment.
///
/// Keys and values are decoded by the types that came with the map: integers, `bool` and constants by their names,
/// floating-point numbers, structs and unions as objects, arrays, `char` arrays as text, pointers as `0x` and hexadecimal
/// digits, and as text what JSON has no number for. A map without types gives hexadecimal digits, in the order of memory;
/// one that holds programs or other maps gives their ids. Arrays are told up to 64 elements, texts up to 256 bytes, an
/// entry up to 4,096 values, structs up to 16 levels deep. A page ends before `limit` where it has 65,536 values, or 4 MiB
/// of JSON.
///
/// To find `from` in a hash, its keys are gone through again from the first on.
///
/// ```no_run
/// use schedtrace_core::live::inspect;
/// let map = "my_hash".parse()?;
/// let mut from = None;
/// loop {
///     let page = inspect::dump_map(&map, from.as_deref(), 100)?;
///     page.entries.iter().for_each(|entry| println!("{} {:?}", entry.key, entry.value));
///     from = page.next;
///     if from.is_none() {
///         break;
///     }
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotShown`] without `CAP_SYS_ADMIN`; [`Error::Invalid`] if there is no such map or several, if it is of a kind
/// that has no entries to read, or if `from` is not what a page gave, or no longer in the map; [`Error::Bpf`] where the
/// kernel refuses.
pub fn dump_map(map: &MapRef, from: Option<&str>, limit: usize) -> Result<MapPage> {
    may_look()?;
    let id = find(map)?;
    let refused =
        |error: libbpf_rs::Error| Error::Bpf { step: format!("reading the BPF map {map}"), why: error.to_string() };
    let handle = MapHandle::from_map_id(id).map_err(|error| match error.kind() {
        libbpf_rs::ErrorKind::NotFound => none_such(map),
        _ => refused(error),
    })?;
    let about = maps::describe(&handle, &maps::users()).map_err(refused)?;
    let ty = handle.map_type();
    if let Some(why) = about.unreadable {
        let (id, name) = (about.id, &about.name);
        return Err(Error::Invalid(format!("the BPF map {id} ({name}, {}) cannot be read by key: {why}", about.ty)));
    }
    let cpus = cpus();
    let per_cpu = if ty.is_percpu() { cpus.len() } else { 1 };
    if (about.value_bytes as usize).next_multiple_of(8).saturating_mul(per_cpu) > MAX_ENTRY_BYTES {
        let bytes = about.value_bytes;
        return Err(Error::Invalid(format!(
            "a value of the BPF map {map} has {bytes} bytes, which are too many to read"
        )));
    }
    let format = Format::of(&handle, &about);
    let mut page = MapPage {
        key_type: format.key_type(&about),
        value_type: format.value_type(),
        map: about,
        ..MapPage::default()
    };
    let keys = Keys::after(&handle, from)?;
    let (mut filled, mut last) = (Filled::default(), None);
    let limit = limit.clamp(1, MAX_PAGE);
    for key in keys {
        if page.entries.len() >= limit || filled.is_full() {
            page.next = last;
            break;
        }
        match read(&handle, &key, &cpus).map_err(refused)? {
            Some(found) => {
                let (entry, took) = format.entry(&key, found);
                filled.add(&entry, took);
                page.entries.push(entry);
            }
            // Removed meanwhile, or a place of an array that holds nothing.
            None => filled.empty += 1,
        }
        last = Some(place(&key));
    }
    Ok(page)
}

/// What a page has taken.
#[derive(Debug, Default)]
struct Filled {
    values: usize,
    bytes: usize,
    empty: usize,
}

impl Filled {
    fn add(&mut self, entry: &MapEntry, values: usize) {
        self.values += values;
        // What is counted is not kept: nothing can go wrong.
        let _ = serde_json::to_writer(Counted(&mut self.bytes), entry);
    }

    const fn is_full(&self) -> bool {
        self.values >= PAGE_VALUES || self.bytes >= PAGE_BYTES || self.empty >= MAX_EMPTY
    }
}

/// Counts what is written.
struct Counted<'a>(&'a mut usize);

impl io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        *self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn none_such(map: &MapRef) -> Error {
    Error::Invalid(format!("there is no BPF map {map}: list the maps to see which there are"))
}

/// The id of a map.
fn find(map: &MapRef) -> Result<u32> {
    let name = match map {
        MapRef::Id(id) => return Ok(*id),
        MapRef::Name(name) => name.as_bytes().get(..CUT_NAME).unwrap_or(name.as_bytes()),
    };
    let ids: Vec<_> =
        MapInfoIter::default().filter(|info| info.name.as_encoded_bytes() == name).map(|info| info.id).collect();
    match ids[..] {
        [] => Err(none_such(map)),
        [id] => Ok(id),
        _ => {
            let shown: Vec<_> = ids.iter().take(20).map(u32::to_string).collect();
            let count = ids.len();
            Err(Error::Invalid(format!("{count} BPF maps are called {map}: give the id of one, {}", shown.join(", "))))
        }
    }
}

/// The CPUs that there may be, in the order in which the kernel gives their values.
fn cpus() -> Vec<u32> {
    let list =
        read_text(Path::new("/sys/devices/system/cpu/possible")).ok().and_then(|text| text.parse::<CpuList>().ok());
    let possible =
        list.map(|list| list.as_slice().iter().map(|cpu| u32::from(cpu.0)).collect::<Vec<_>>()).unwrap_or_default();
    // libbpf counts them by the same file.
    let count = libbpf_rs::num_possible_cpus().unwrap_or(possible.len());
    if possible.len() == count { possible } else { (0..count as u32).collect() }
}

/// The values of one key.
enum Found {
    One(Vec<u8>),
    PerCpu(Vec<(u32, Vec<u8>)>),
}

fn read(map: &MapHandle, key: &[u8], cpus: &[u32]) -> libbpf_rs::Result<Option<Found>> {
    if map.map_type().is_percpu() {
        let values = map.lookup_percpu(key, MapFlags::ANY)?;
        return Ok(values.map(|values| Found::PerCpu(cpus.iter().copied().zip(values).collect())));
    }
    Ok(map.lookup(key, MapFlags::ANY)?.map(Found::One))
}

/// How a key is told where a page ends: in hexadecimal digits, or a long one by its hash, which is as good to find it again.
fn place(key: &[u8]) -> String {
    if key.len() <= LONG_KEY {
        return hex(key);
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    format!("{HASHED}{:016x}", hasher.finish())
}

/// Whether it may be what [`place`] told of a key of so many bytes.
fn is_place(text: &str, size: usize) -> bool {
    let (digits, bytes) = if size <= LONG_KEY { (Some(text), size) } else { (text.strip_prefix(HASHED), 8) };
    digits.and_then(unhex).is_some_and(|found| found.len() == bytes)
}

/// The keys of a map, after one of them.
enum Keys<'a> {
    /// Of an array: so many, of which this is the next.
    Numbers { next: u32, count: u32 },
    /// Those that the kernel lists. While entries come and go it may list some twice, and even begin again.
    Listed { keys: libbpf_rs::MapKeyIter<'a>, left: u64 },
}

impl<'a> Keys<'a> {
    fn after(map: &'a MapHandle, from: Option<&str>) -> Result<Self> {
        let size = map.key_size() as usize;
        if let Some(text) = from.filter(|text| !is_place(text, size)) {
            return Err(Error::Invalid(format!("`{}` is no place in this BPF map: begin without one", clean(text))));
        }
        let count = match map.map_type() {
            MapType::StructOps => Some(1),
            MapType::Array
            | MapType::PercpuArray
            | MapType::ProgArray
            | MapType::ArrayOfMaps
            | MapType::Devmap
            | MapType::Cpumap => Some(map.max_entries()),
            _ => None,
        };
        if let Some(count) = count {
            let last = from.and_then(unhex).and_then(|key| Some(u32::from_ne_bytes(key.try_into().ok()?)));
            return Ok(Self::Numbers { next: last.map_or(0, |last| last.saturating_add(1)), count });
        }
        // Twice as many as fit, since what comes back is no end.
        let mut left = u64::from(map.max_entries()) * 2 + 16;
        let mut keys = map.keys();
        if let Some(from) = from {
            loop {
                left = left.saturating_sub(1);
                match keys.next() {
                    Some(key) if place(&key) == from => break,
                    Some(_) if left > 0 => {}
                    _ => {
                        let why = "the entry at which the last page ended is no longer in the BPF map";
                        return Err(Error::Invalid(format!("{why}: begin again from the first one")));
                    }
                }
            }
        }
        Ok(Self::Listed { keys, left })
    }
}

impl Iterator for Keys<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Numbers { next, count } => {
                let key = (*next < *count).then_some(*next)?;
                *next += 1;
                Some(key.to_ne_bytes().to_vec())
            }
            Self::Listed { keys, left } => {
                *left = left.checked_sub(1)?;
                keys.next()
            }
        }
    }
}

/// How the entries of a map are told.
struct Format {
    types: Option<Btf<'static>>,
    /// The types of the key and of the value; 0 for bytes.
    key: u32,
    value: u32,
    /// Values are ids of programs or maps.
    holds_ids: bool,
    /// Keys are the numbers of an array's places.
    numbered: bool,
}

impl Format {
    fn of(map: &MapHandle, about: &Map) -> Self {
        let ty = map.map_type();
        let holds_ids = matches!(ty, MapType::ProgArray | MapType::ArrayOfMaps | MapType::HashOfMaps);
        let numbered = matches!(ty, MapType::Array | MapType::PercpuArray | MapType::StructOps) || {
            matches!(ty, MapType::ProgArray | MapType::ArrayOfMaps | MapType::Devmap | MapType::Cpumap)
        };
        let mut format = Self { types: None, key: 0, value: 0, holds_ids, numbered };
        let info = map.info().map(|info| info.info).unwrap_or_default();
        let mut types = Types::read(&about.btf.iter().map(|of| of.btf_id).collect());
        if let Some(of) = about.btf {
            format.types = types.take(of.btf_id);
            (format.key, format.value) = (of.key_type_id, of.value_type_id);
        }
        // Those of a module have numbers that the kernel's own types do not know.
        if info.btf_vmlinux_value_type_id != 0 && types.is_kernel(info.btf_vmlinux_id) {
            format.types = Btf::from_vmlinux().ok();
            (format.key, format.value) = (0, info.btf_vmlinux_value_type_id);
        }
        format
    }

    fn key_type(&self, about: &Map) -> Option<String> {
        let told = self.types.as_ref().and_then(|btf| decode::name_of(btf, self.key));
        told.or_else(|| (self.numbered && about.key_bytes == 4).then(|| "u32".into()))
    }

    fn value_type(&self) -> Option<String> {
        if self.holds_ids {
            return Some("id".into());
        }
        self.types.as_ref().and_then(|btf| decode::name_of(btf, self.value))
    }

    /// An entry, and how many values it took.
    fn entry(&self, key: &[u8], found: Found) -> (MapEntry, usize) {
        let mut decoder = self.types.as_ref().map(|btf| Decoder::new(btf, ENTRY_VALUES));
        let mut cut = false;
        let mut told = |ty: u32, bytes: &[u8], is_number: bool| match (&mut decoder, <[u8; 4]>::try_from(bytes)) {
            (_, Ok(number)) if is_number => Value::from(u32::from_ne_bytes(number)),
            (Some(decoder), _) if ty != 0 => decoder.decode(ty, bytes),
            _ => {
                let (text, was_cut) = decode::raw(bytes);
                cut |= was_cut;
                Value::from(text)
            }
        };
        let mut entry = MapEntry { key: told(self.key, key, self.numbered), ..MapEntry::default() };
        match found {
            Found::One(bytes) => entry.value = Some(told(self.value, &bytes, self.holds_ids)),
            Found::PerCpu(values) => {
                let each = |(cpu, bytes): (u32, Vec<u8>)| CpuValue { cpu, value: told(self.value, &bytes, false) };
                entry.values = values.into_iter().map(each).collect();
            }
        }
        let decoded = decoder.as_ref().map_or(0, |decoder| ENTRY_VALUES - decoder.left());
        // Bytes are values as well, those of each CPU.
        let took = decoded.max(entry.values.len()).max(1);
        entry.cut = cut || decoder.is_some_and(|decoder| decoder.cut);
        (entry, took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_named_by_its_id_or_its_name() {
        let parse = |text: &str| text.parse::<MapRef>();
        assert_eq!(parse("7").unwrap(), MapRef::Id(7));
        for name in ["-7", "4294967296", "7a", "cpu.stats"] {
            assert_eq!(parse(name).unwrap(), MapRef::Name(name.into()));
        }
        assert!(parse("").unwrap_err().to_string().contains("its id or its name"));
    }

    #[test]
    fn what_has_no_type_fills_a_page_as_well() {
        let format = Format { types: None, key: 0, value: 0, holds_ids: false, numbered: false };
        let entry = |cpus: u32, bytes: usize| {
            format.entry(&[7], Found::PerCpu((0..cpus).map(|cpu| (cpu, vec![7; bytes])).collect()))
        };
        assert_eq!((entry(512, 1).1, entry(0, 1).1, format.entry(&[7], Found::One(vec![7])).1), (512, 1, 1));
        let entries = |cpus, bytes| {
            let mut filled = Filled::default();
            let (entry, took) = entry(cpus, bytes);
            (1..=MAX_PAGE).find(|_| {
                filled.add(&entry, took);
                filled.is_full()
            })
        };
        assert_eq!(entries(512, 1), Some(PAGE_VALUES / 512));
        let (large, took) = entry(512, 256);
        assert_eq!(entries(512, 256), Some(PAGE_BYTES.div_ceil(serde_json::to_string(&large).unwrap().len())));
        assert_eq!((took, entries(2, 256)), (512, None));
    }

    #[test]
    fn a_place_fits_the_keys_of_its_map() {
        assert_eq!(place(&[0xab, 1]), "ab01");
        let long = place(&[7; 65]);
        assert_eq!((long.len(), &long, long == place(&[8; 65])), (17, &place(&[7; 65]), false));
        assert!(is_place("ab01", 2) && is_place(&long, 65) && is_place(&long, 400));
        for (text, size) in [("ab01", 3), ("", 2), (&long, 2), ("ab01", 65), ("~ab", 65), ("~", 65), ("ab0g", 2)] {
            assert!(!is_place(text, size), "{text} {size}");
        }
    }
}
