use std::mem::size_of;

use proptest::prelude::*;
use serde_json::json;

use super::super::types;
use super::*;

/// BTF made by hand, as `include/uapi/linux/btf.h` has it.
#[derive(Default)]
struct Made {
    types: Vec<u8>,
    strings: Vec<u8>,
}

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const FLOAT: u32 = 16;
const ENUM64: u32 = 19;
const SIGNED: u32 = 1 << 24;
const CHAR: u32 = 2 << 24;
const BOOL: u32 = 4 << 24;
const FLAG: u32 = 1 << 31;

impl Made {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        if name.is_empty() { 0 } else { at }
    }

    /// A type: what stands in its third word, and what follows.
    fn add(&mut self, kind: u32, name: &str, count: usize, third: u32, more: &[u32]) -> &mut Self {
        let info = (kind << 24) | count as u32;
        let flag = if count & FLAG as usize != 0 { FLAG } else { 0 };
        let words = [self.name(name), info & !FLAG | flag, third];
        self.types.extend(words.iter().chain(more).flat_map(|word| word.to_ne_bytes()));
        self
    }

    fn int(&mut self, name: &str, bytes: u32, encoding: u32, bits: u32) -> &mut Self {
        self.add(INT, name, 0, bytes, &[encoding | bits])
    }

    /// Members: name, type, offset in bits (with the width above, for a struct with a flag).
    fn composite(&mut self, kind: u32, name: &str, bytes: u32, flag: u32, members: &[(&str, u32, u32)]) -> &mut Self {
        let more: Vec<_> = members.iter().flat_map(|&(name, ty, at)| [self.name(name), ty, at]).collect();
        self.add(kind, name, members.len() | flag as usize, bytes, &more)
    }

    fn array(&mut self, of: u32, count: u32) -> &mut Self {
        self.add(ARRAY, "", 0, 0, &[of, 1, count])
    }

    fn bytes(&self) -> Vec<u8> {
        let strings = if self.strings.is_empty() { &[0][..] } else { &self.strings };
        let (types, text) = (self.types.len() as u32, strings.len() as u32);
        let header = [0x0001_eb9f_u32, 24, 0, types, types, text];
        assert_eq!(header.len() * size_of::<u32>(), 24);
        let header = header.iter().flat_map(|word| word.to_ne_bytes());
        header.chain(self.types.iter().copied()).chain(strings.iter().copied()).collect()
    }
}

#[track_caller]
fn decode(made: &Made, ty: u32, bytes: &[u8]) -> (Value, bool) {
    let btf = types::parse(&made.bytes()).unwrap();
    let mut decoder = Decoder::new(&btf, 4_096);
    let value = decoder.decode(ty, bytes);
    (value, decoder.cut)
}

/// `int`, `char` and a few more, by their numbers.
fn basic() -> Made {
    let mut made = Made::default();
    made.int("int", 4, SIGNED, 32).int("char", 1, SIGNED, 8).int("bool", 1, BOOL, 8).int("u64", 8, 0, 64);
    made.int("unsigned char", 1, CHAR, 8);
    made
}

#[test]
fn numbers_are_read_by_their_signs_and_widths() {
    let mut made = basic();
    made.int("s128", 16, SIGNED, 128).int("u128", 16, 0, 128).int("s64", 8, SIGNED, 64);
    let of = |ty, bytes: &[u8]| decode(&made, ty, bytes).0;
    assert_eq!(of(1, &(-5_i32).to_ne_bytes()), json!(-5));
    assert_eq!(of(4, &u64::MAX.to_ne_bytes()), json!(u64::MAX));
    assert_eq!(of(8, &i64::MIN.to_ne_bytes()), json!(i64::MIN));
    assert_eq!([of(3, &[0]), of(3, &[1]), of(3, &[7])], [json!(false), json!(true), json!(7)]);
    assert_eq!(of(6, &(-1_i128).to_ne_bytes()), json!(-1));
    assert_eq!(of(6, &i128::MIN.to_ne_bytes()), json!(i128::MIN.to_string()));
    assert_eq!(of(7, &u128::MAX.to_ne_bytes()), json!("0xffffffffffffffffffffffffffffffff"));
    // A char alone is a small number more often than a letter.
    assert_eq!(of(2, b"a"), json!(97));
}

#[test]
fn too_few_bytes_are_told_as_they_are() {
    let mut made = basic();
    made.array(1, 4).composite(STRUCT, "s", 8, 0, &[("a", 1, 0), ("b", 1, 32)]);
    assert_eq!(decode(&made, 1, &[1, 2]).0, json!("0102"));
    assert_eq!(decode(&made, 6, &[1; 15]).0, json!("01".repeat(15)));
    assert_eq!(decode(&made, 7, &[0, 0, 0, 0, 9]).0, json!({"a": 0, "b": "09"}));
    assert_eq!(decode(&made, 7, &[]).0, json!({"a": "", "b": ""}));
    assert_eq!(decode(&made, 99, &[1]).0, json!("01"));
    assert_eq!(decode(&made, 0, &[1]).0, json!("01"));
}

#[test]
fn constants_have_their_names() {
    let mut made = basic();
    let names: Vec<_> = ["OFF", "ON", "BAD"].map(|name| made.name(name)).into();
    made.add(ENUM, "mode", 2 | FLAG as usize, 4, &[names[0], 0, names[2], u32::MAX]);
    made.add(ENUM64, "wide", 1, 8, &[names[1], 0, 1]);
    let of = |ty, bytes: &[u8]| decode(&made, ty, bytes).0;
    assert_eq!(
        [of(6, &[0; 4]), of(6, &[0xff; 4]), of(6, &7_i32.to_ne_bytes())],
        [json!("OFF"), json!("BAD"), json!(7)]
    );
    assert_eq!([of(7, &(1_u64 << 32).to_ne_bytes()), of(7, &[0; 8])], [json!("ON"), json!(0)]);
}

#[test]
fn names_and_qualifiers_are_looked_through_and_told() {
    let mut made = basic();
    made.add(TYPEDEF, "pid_t", 0, 1, &[]).add(CONST, "", 0, 6, &[]).add(PTR, "", 0, 7, &[]).array(8, 2).array(9, 3);
    made.composite(STRUCT, "node", 8, 0, &[("next", 12, 0)]).add(PTR, "", 0, 11, &[]).composite(UNION, "", 4, 0, &[]);
    assert_eq!(decode(&made, 7, &8_i32.to_ne_bytes()).0, json!(8));
    assert_eq!(decode(&made, 8, &0x10_u64.to_ne_bytes()).0, json!("0x10"));
    let btf = types::parse(&made.bytes()).unwrap();
    let name = |id| name_of(&btf, id).unwrap_or_default();
    assert_eq!([6, 7, 8].map(name), ["pid_t", "pid_t", "pid_t *"]);
    assert_eq!([9, 10, 12, 13].map(name), ["pid_t *[2]", "pid_t *[3][2]", "struct node *", "union (unnamed)"]);
    assert_eq!([0, 99].map(name), ["", ""]);
}

#[test]
fn bit_fields_are_read_in_both_ways_of_writing_them() {
    let mut made = basic();
    made.int("unsigned int", 4, 0, 32).int("old", 4, 0, 5).int("old", 4, SIGNED, 3);
    made.composite(STRUCT, "new", 4, FLAG, &[("a", 6, 3 << 24), ("b", 1, 5 << 24 | 3), ("c", 3, 1 << 24 | 8)]);
    made.composite(STRUCT, "old", 4, 0, &[("a", 7, 0), ("b", 8, 5)]);
    made.composite(STRUCT, "wide", 16, FLAG, &[("a", 4, 60 << 24 | 5), ("b", 4, 64 << 24 | 64)]);
    if cfg!(target_endian = "little") {
        assert_eq!(decode(&made, 9, &0x1ed_u32.to_ne_bytes()).0, json!({"a": 5, "b": -3, "c": true}));
        assert_eq!(decode(&made, 10, &0xde_u32.to_ne_bytes()).0, json!({"a": 30, "b": -2}));
        let bytes = (u128::from(u64::MAX >> 4) << 5 | 9_u128 << 64).to_ne_bytes();
        let told = decode(&made, 11, &bytes).0;
        assert_eq!((&told["a"], &told["b"]), (&json!(u64::MAX >> 4), &json!(9 | 1)));
    }
}

#[test]
fn members_of_unnamed_ones_stand_around_them() {
    let mut made = basic();
    made.composite(UNION, "", 4, 0, &[("whole", 1, 0), ("first", 2, 0)]);
    made.composite(STRUCT, "s", 8, 0, &[("", 6, 0), ("named", 6, 32)]);
    let told = decode(&made, 7, &[[1, 0, 0, 0], [2, 0, 0, 0]].concat()).0;
    assert_eq!(told, json!({"whole": 1, "first": 1, "named": {"whole": 2, "first": 2}}));
}

#[test]
fn text_ends_at_a_zero_and_is_only_text() {
    let mut made = basic();
    made.array(2, 16).array(5, 8).array(2, 1_000).array(4, 2);
    assert_eq!(decode(&made, 6, b"comm\0garbage\xff\0\0\0").0, json!("comm"));
    assert_eq!(decode(&made, 7, b"a\x1b[2J\n\xffb").0, json!("a\u{fffd}[2J\u{fffd}\u{fffd}b"));
    let (told, cut) = decode(&made, 8, &[b'x'; 1_000]);
    assert_eq!((told.as_str().unwrap().len(), cut), (MAX_BYTES, true));
    assert_eq!(decode(&made, 9, &[0; 16]), (json!([0, 0]), false));
}

#[test]
fn floating_point_numbers_are_numbers_where_json_has_them() {
    let mut made = basic();
    made.add(FLOAT, "float", 0, 4, &[]).add(FLOAT, "double", 0, 8, &[]).add(FLOAT, "long double", 0, 16, &[]);
    assert_eq!(decode(&made, 6, &1.5_f32.to_ne_bytes()).0, json!(1.5));
    assert_eq!(decode(&made, 7, &f64::NEG_INFINITY.to_ne_bytes()).0, json!("-inf"));
    assert_eq!(decode(&made, 8, &[0xab; 16]).0, json!("ab".repeat(16)));
}

#[test]
fn whatever_types_say_the_effort_is_bounded() {
    // Structs in each other, 40 deep.
    let mut deep = basic();
    for level in 0..40 {
        deep.composite(STRUCT, "s", 4, 0, &[("in", 5 + level, 0)]);
    }
    let btf = types::parse(&deep.bytes()).unwrap();
    let mut decoder = Decoder::new(&btf, 4_096);
    assert!(decoder.decode(45, &[0; 4]).to_string().contains(MORE) && decoder.cut);
    // Arrays of arrays of nothing, as many as a number can be.
    let mut wide = basic();
    wide.composite(STRUCT, "empty", 0, 0, &[]).array(6, u32::MAX).array(7, u32::MAX).array(8, u32::MAX);
    let btf = types::parse(&wide.bytes()).unwrap();
    let mut decoder = Decoder::new(&btf, 4_096);
    let told = decoder.decode(9, &[]).to_string();
    assert!(decoder.cut && decoder.left() == 0 && told.len() < 100_000, "{}", told.len());
    let mut decoder = Decoder::new(&btf, 4_096);
    assert!(decoder.decode(7, &[]).to_string().contains("... 4294967231 more"));
    // Types that name each other round and round are refused by the kernel, and end here too.
    let mut round = basic();
    round.add(TYPEDEF, "a", 0, 7, &[]).add(TYPEDEF, "b", 0, 6, &[]).array(6, 3);
    let btf = types::parse(&round.bytes()).unwrap();
    assert_eq!(Decoder::new(&btf, 9).decode(6, &[1]), json!("01"));
    assert_eq!(Decoder::new(&btf, 9).decode(8, &[1]), json!("01"));
    assert_eq!([name_of(&btf, 8), name_of(&btf, 6)].map(Option::unwrap), ["a[3]", "a"]);
}

#[test]
fn what_is_no_btf_is_an_error() {
    for bytes in [&b""[..], b"no types", &[0x9f, 0xeb, 1, 0, 24, 0, 0, 0]] {
        assert!(types::parse(bytes).unwrap_err().to_string().contains("reading the types"), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_told(ty in 0_u32..16, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut made = basic();
        made.array(1, 4).array(2, 8).composite(UNION, "", 32, 0, &[("a", 6, 0), ("b", 7, 0)]);
        made.composite(STRUCT, "s", 40, FLAG, &[("x", 8, 0), ("y", 1, 7 << 24 | 259), ("z", 4, 264)]).array(9, 2);
        let btf = types::parse(&made.bytes()).unwrap();
        let mut decoder = Decoder::new(&btf, 50);
        let told = serde_json::to_string(&decoder.decode(ty, &bytes)).unwrap();
        prop_assert!(told.len() < 4_000);
    }
}
