//! Bytes as JSON, by the types that BTF gives them. Whatever the types say, the effort is bounded.

use libbpf_rs::btf::types::{Array, Composite, DataSec, Enum, Enum64, Int, IntEncoding, MemberAttr, Var};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, HasSize, ReferencesType, TypeId};
use serde_json::{Map, Value};

use super::{clean, hex};

/// So deep do types lie in each other.
const MAX_DEPTH: usize = 16;
/// So many elements of an array are told.
const MAX_ELEMENTS: usize = 64;
/// So many bytes of a text, or of something that has no type.
pub(super) const MAX_BYTES: usize = 256;
/// So many names stand before the type that is meant.
const MAX_NAMES: usize = 32;
/// What stands where more was.
const MORE: &str = "...";

/// Turns the parts of one entry into JSON.
pub(super) struct Decoder<'a> {
    btf: &'a Btf<'a>,
    /// So many values may follow.
    left: usize,
    /// Whether something was left out.
    pub(super) cut: bool,
}

impl<'a> Decoder<'a> {
    /// One that gives so many values at the most.
    pub(super) fn new(btf: &'a Btf<'a>, most: usize) -> Self {
        Self { btf, left: most, cut: false }
    }

    /// How many values may follow.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// What these bytes are, if they are of this type.
    pub(super) fn decode(&mut self, ty: u32, bytes: &[u8]) -> Value {
        match self.btf.type_by_id(TypeId::from(ty)) {
            Some(ty) => self.value(ty, bytes, 0),
            None => self.raw(bytes),
        }
    }

    fn value(&mut self, ty: BtfType<'a>, bytes: &[u8], depth: usize) -> Value {
        if depth > MAX_DEPTH || self.left == 0 {
            return self.more();
        }
        self.left -= 1;
        let Some(ty) = behind_names(ty) else { return self.raw(bytes) };
        if let Ok(array) = Array::try_from(ty) {
            return self.array(&array, bytes, depth);
        }
        if let Ok(composite) = Composite::try_from(ty) {
            let mut members = Map::new();
            self.members(&composite, bytes, depth, &mut members);
            return Value::Object(members);
        }
        if let Ok(section) = DataSec::try_from(ty) {
            return self.section(&section, bytes, depth);
        }
        match size_of(ty).and_then(|size| bytes.get(..size)) {
            Some(bytes) => self.scalar(ty, bytes),
            None => self.raw(bytes),
        }
    }

    fn more(&mut self) -> Value {
        self.cut = true;
        Value::from(MORE)
    }

    /// What has no type that could be told.
    fn raw(&mut self, bytes: &[u8]) -> Value {
        let (text, cut) = raw(bytes);
        self.cut |= cut;
        Value::from(text)
    }

    fn scalar(&mut self, ty: BtfType<'a>, bytes: &[u8]) -> Value {
        match (ty.kind(), bytes.len()) {
            (BtfKind::Ptr, _) => Value::from(format!("{:#x}", load(bytes))),
            (BtfKind::Float, 4) => float(f64::from(f32::from_bits(load(bytes) as u32))),
            (BtfKind::Float, 8) => float(f64::from_bits(load(bytes) as u64)),
            (BtfKind::Int | BtfKind::Enum | BtfKind::Enum64, 1..=16) => self.number(ty, load(bytes), bytes.len() * 8),
            _ => self.raw(bytes),
        }
    }

    /// An integer or a constant that has so many bits, at most 128.
    fn number(&mut self, ty: BtfType<'a>, bits: u128, width: usize) -> Value {
        if let Ok(int) = Int::try_from(ty) {
            return match int.encoding {
                IntEncoding::Bool if bits <= 1 => Value::from(bits == 1),
                IntEncoding::Signed => integer(signed(bits, width)),
                _ => u64::try_from(bits).map_or_else(|_| Value::from(format!("{bits:#x}")), Value::from),
            };
        }
        let (is_signed, members) = match (Enum::try_from(ty), Enum64::try_from(ty)) {
            (Ok(of), _) => (of.is_signed(), of.len()),
            (_, Ok(of)) => (of.is_signed(), of.len()),
            _ => (false, 0),
        };
        // A long list of constants takes as long as some values.
        self.left = self.left.saturating_sub(members / 64);
        let number = if is_signed { signed(bits, width) } else { i128::try_from(bits).unwrap_or(i128::MAX) };
        constant(ty, number).map_or_else(|| integer(number), Value::from)
    }

    fn array(&mut self, array: &Array<'a>, bytes: &[u8], depth: usize) -> Value {
        let Some(element) = self.btf.type_by_id::<BtfType<'a>>(array.ty()) else { return self.raw(bytes) };
        let count = array.capacity();
        let Some(size) = size_of(element) else { return self.raw(bytes) };
        let Some(bytes) = size.checked_mul(count).and_then(|size| bytes.get(..size)) else { return self.raw(bytes) };
        if is_char(element) {
            return self.text(bytes);
        }
        let mut values: Vec<_> = (0..count.min(MAX_ELEMENTS))
            .map_while(|at| (self.left > 0).then(|| self.value(element, &bytes[at * size..][..size], depth + 1)))
            .collect();
        if values.len() < count {
            self.cut = true;
            values.push(Value::from(format!("{MORE} {} more", count - values.len())));
        }
        Value::Array(values)
    }

    /// Text up to the first zero.
    fn text(&mut self, bytes: &[u8]) -> Value {
        let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        let told = &bytes[..bytes.len().min(MAX_BYTES)];
        self.cut |= told.len() < bytes.len();
        Value::from(clean(&String::from_utf8_lossy(told)))
    }

    /// Members of a struct or a union; those of an unnamed one stand among those of the one around it, as in C.
    fn members(&mut self, composite: &Composite<'a>, bytes: &[u8], depth: usize, into: &mut Map<String, Value>) {
        for at in 0..composite.len() {
            if self.left == 0 || depth > MAX_DEPTH {
                into.insert(MORE.into(), self.more());
                return;
            }
            let Some(member) = composite.get(at) else { continue };
            let Some(ty) = self.btf.type_by_id::<BtfType<'a>>(member.ty) else { continue };
            let (bit, width) = match member.attr {
                MemberAttr::Normal { offset } => (offset as usize, width_of_int(ty)),
                MemberAttr::BitField { size, offset } => (offset as usize, Some(usize::from(size))),
            };
            let here = bytes.get(bit / 8..).unwrap_or_default();
            if member.name.is_none()
                && let Some(Ok(inner)) = behind_names(ty).map(Composite::try_from)
            {
                self.left -= 1;
                self.members(&inner, here, depth + 1, into);
                continue;
            }
            let value = match (width, behind_names(ty)) {
                (Some(width), Some(ty)) => match bits(here, bit % 8, width) {
                    Some(found) => {
                        self.left -= 1;
                        self.number(ty, found, width)
                    }
                    None => self.raw(here),
                },
                _ => self.value(ty, here, depth + 1),
            };
            into.insert(name(member.name.and_then(|name| name.to_str())), value);
        }
    }

    /// The variables of a program, which are one value of a map.
    fn section(&mut self, section: &DataSec<'a>, bytes: &[u8], depth: usize) -> Value {
        let mut variables = Map::new();
        for at in 0..section.len() {
            if self.left == 0 {
                variables.insert(MORE.into(), self.more());
                break;
            }
            let Some(entry) = section.get(at) else { continue };
            let Some(variable) = self.btf.type_by_id::<Var<'a>>(entry.ty) else { continue };
            let Some(ty) = self.btf.type_by_id::<BtfType<'a>>(variable.referenced_type_id()) else { continue };
            let here = bytes.get(entry.offset as usize..).unwrap_or_default();
            let value = self.value(ty, &here[..here.len().min(entry.size)], depth + 1);
            variables.insert(name(variable.name().and_then(|name| name.to_str())), value);
        }
        Value::Object(variables)
    }
}

/// Bytes of no known type as hexadecimal digits, and whether some were left out.
pub(super) fn raw(bytes: &[u8]) -> (String, bool) {
    match bytes.len() {
        0..=MAX_BYTES => (hex(bytes), false),
        all => (format!("{}{MORE} {} bytes more", hex(&bytes[..MAX_BYTES]), all - MAX_BYTES), true),
    }
}

/// A type as C writes it.
pub(super) fn name_of(btf: &Btf<'_>, id: u32) -> Option<String> {
    if id == 0 {
        return None;
    }
    let mut ty: BtfType<'_> = btf.type_by_id(id.into())?;
    let mut behind = String::new();
    for _ in 0..MAX_NAMES {
        let named = |kind: &str| Some(format!("{kind}{}{behind}", name(ty.name().and_then(|name| name.to_str()))));
        match ty.kind() {
            BtfKind::Ptr => behind.insert_str(0, " *"),
            BtfKind::Array => {
                let array = Array::try_from(ty).ok()?;
                behind = format!("{behind}[{}]", array.capacity());
                ty = btf.type_by_id(array.ty())?;
                continue;
            }
            BtfKind::Volatile | BtfKind::Const | BtfKind::Restrict | BtfKind::TypeTag | BtfKind::DeclTag => {}
            BtfKind::Struct | BtfKind::Fwd => return named("struct "),
            BtfKind::Union => return named("union "),
            BtfKind::Enum | BtfKind::Enum64 => return named("enum "),
            BtfKind::Void => return Some(format!("void{behind}")),
            BtfKind::Func | BtfKind::FuncProto => return Some(format!("function{behind}")),
            BtfKind::Int | BtfKind::Float | BtfKind::Typedef | BtfKind::DataSec | BtfKind::Var => return named(""),
        }
        ty = ty.next_type()?;
    }
    None
}

fn name(name: Option<&str>) -> String {
    name.map_or_else(|| "(unnamed)".into(), clean)
}

/// The type that names and qualifiers stand for.
fn behind_names(mut ty: BtfType<'_>) -> Option<BtfType<'_>> {
    for _ in 0..MAX_NAMES {
        match ty.kind() {
            BtfKind::Typedef
            | BtfKind::Volatile
            | BtfKind::Const
            | BtfKind::Restrict
            | BtfKind::TypeTag
            | BtfKind::DeclTag
            | BtfKind::Var => ty = ty.next_type()?,
            _ => return Some(ty),
        }
    }
    None
}

/// Bytes of a value; none for what has no size.
fn size_of(ty: BtfType<'_>) -> Option<usize> {
    let (mut ty, mut count) = (behind_names(ty)?, 1_usize);
    for _ in 0..MAX_DEPTH {
        let size = match ty.kind() {
            BtfKind::Array => {
                let array = Array::try_from(ty).ok()?;
                count = count.checked_mul(array.capacity())?;
                ty = behind_names(array.contained_type())?;
                continue;
            }
            // Of BPF programs, and of the kernels that run them.
            BtfKind::Ptr => 8,
            BtfKind::Int => Int::try_from(ty).ok()?.size(),
            BtfKind::Float => libbpf_rs::btf::types::Float::try_from(ty).ok()?.size(),
            BtfKind::Enum => Enum::try_from(ty).ok()?.size(),
            BtfKind::Enum64 => Enum64::try_from(ty).ok()?.size(),
            BtfKind::Struct | BtfKind::Union => Composite::try_from(ty).ok()?.size(),
            BtfKind::DataSec => DataSec::try_from(ty).ok()?.size(),
            _ => return None,
        };
        return size.checked_mul(count);
    }
    None
}

/// The bits of an integer that does not fill its bytes, as compilers wrote bit fields once.
fn width_of_int(ty: BtfType<'_>) -> Option<usize> {
    let int = Int::try_from(behind_names(ty)?).ok()?;
    let width = usize::from(int.bits);
    (width < int.size() * 8).then_some(width)
}

/// A `char`, whatever its sign: `signed char` and `unsigned char` are numbers.
fn is_char(ty: BtfType<'_>) -> bool {
    let Some(Ok(int)) = behind_names(ty).map(Int::try_from) else { return false };
    int.size() == 1 && (matches!(int.encoding, IntEncoding::Char) || int.name().is_some_and(|name| name == "char"))
}

/// What a constant is called.
fn constant<'a>(ty: BtfType<'a>, number: i128) -> Option<&'a str> {
    let name = match (Enum::try_from(ty), Enum64::try_from(ty)) {
        (Ok(of), _) => (0..of.len()).find_map(|at| of.get(at).filter(|it| i128::from(it.value) == number))?.name,
        (_, Ok(of)) => (0..of.len()).find_map(|at| of.get(at).filter(|it| it.value == number))?.name,
        _ => None,
    };
    name?.to_str()
}

/// At most 16 bytes as the number that this machine takes them for.
fn load(bytes: &[u8]) -> u128 {
    let mut all = [0; 16];
    let count = bytes.len().min(16);
    if cfg!(target_endian = "little") {
        all[..count].copy_from_slice(&bytes[..count]);
        u128::from_le_bytes(all)
    } else {
        all[16 - count..].copy_from_slice(&bytes[..count]);
        u128::from_be_bytes(all)
    }
}

/// So many bits, from the first one on, in the order in which this machine's compilers fill bytes.
fn bits(bytes: &[u8], first: usize, width: usize) -> Option<u128> {
    let count = (first + width).div_ceil(8);
    if !(1..=64).contains(&width) {
        return None;
    }
    let all = load(bytes.get(..count)?);
    let shift = if cfg!(target_endian = "little") { first } else { count * 8 - first - width };
    Some(all >> shift & ((1 << width) - 1))
}

fn signed(bits: u128, width: usize) -> i128 {
    let unused = 128_u32.saturating_sub(width as u32);
    // A shift by all bits is none of nothing.
    (bits.checked_shl(unused).unwrap_or(0) as i128).checked_shr(unused).unwrap_or(0)
}

fn integer(number: i128) -> Value {
    let small = i64::try_from(number).map(Value::from).or_else(|_| u64::try_from(number).map(Value::from));
    small.unwrap_or_else(|_| Value::from(number.to_string()))
}

/// JSON has no word for what is no number.
fn float(number: f64) -> Value {
    serde_json::Number::from_f64(number).map_or_else(|| Value::from(number.to_string()), Value::Number)
}

#[cfg(test)]
mod tests;
