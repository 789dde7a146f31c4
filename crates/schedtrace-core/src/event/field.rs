//! The fields of events, for whoever takes any event: their names, their types, and their values as numbers.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cpu, Nanos, TaskId};

/// A text that events speak of by a number: the name of a function of the kernel's, of an interrupt's handler, of a disk.
///
/// What it reads comes in [`Batch::names`](super::Batch::names), before the first event that bears it.
///
/// ```
/// use schedtrace_core::NameId;
/// assert_eq!(NameId::NONE, NameId(0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NameId(pub u32);

impl NameId {
    /// No name: there is none, or it could not be told.
    pub const NONE: Self = Self(0);
}

/// The text behind a [`NameId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its number.
    pub id: NameId,
    /// The moment at which it was told.
    pub since: Nanos,
    /// The text: at most 63 bytes, without control characters.
    pub text: Arc<str>,
}

impl Name {
    /// A name from strangers: control characters are replaced, and what is beyond 63 bytes is cut.
    ///
    /// ```
    /// use schedtrace_core::{Name, NameId, Nanos};
    /// assert_eq!(&*Name::new(NameId(1), Nanos(5), b"virtio0\n-input\0rest").text, "virtio0?-input");
    /// ```
    #[must_use]
    pub fn new(id: NameId, since: Nanos, bytes: &[u8]) -> Self {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()).min(63);
        let text = String::from_utf8_lossy(&bytes[..end]);
        let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Self { id, since, text: text.into() }
    }
}

/// What a field holds, and so how its value is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldType {
    /// A [`TaskId`].
    Task,
    /// The number of a CPU.
    Cpu,
    /// A number without sign, of so many bits.
    Unsigned(u8),
    /// A number with a sign, as its two's complement in 64 bits.
    Signed,
    /// An address or an identifier: all 64 bits count.
    Id,
    /// A span of time in nanoseconds.
    Duration,
    /// 0 or 1.
    Flag,
    /// A [`NameId`].
    Name,
    /// One of these, by its place; numbers beyond them are possible, and have no name.
    Choice(&'static [&'static str]),
}

/// A field of a kind of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldInfo {
    /// Its name, and that of its column: the unit stands at the end.
    pub name: &'static str,
    /// What it holds.
    pub ty: FieldType,
    /// What it is, in a sentence.
    pub about: &'static str,
}

/// No event has more fields.
pub(super) const MAX_FIELDS: usize = 6;

/// The values of an event's fields, in the order of [`Kind::fields`](super::Kind::fields), as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    pub(super) values: [u64; MAX_FIELDS],
    pub(super) len: u8,
}

impl std::ops::Deref for Values {
    type Target = [u64];
    fn deref(&self) -> &[u64] {
        &self.values[..usize::from(self.len)]
    }
}

/// A type that fields have.
pub(super) trait Field: Copy {
    const TYPE: FieldType;
    fn to_value(self) -> u64;
    /// None where no such field can have the value.
    fn from_value(value: u64) -> Option<Self>;
}

macro_rules! field {
    ($($type:ty = $is:expr, $self:ident => $to:expr, $value:ident => $from:expr;)*) => {
        $(impl Field for $type {
            const TYPE: FieldType = $is;
            #[inline]
            fn to_value(self) -> u64 {
                let $self = self;
                $to
            }
            #[inline]
            fn from_value($value: u64) -> Option<Self> {
                $from
            }
        })*
    };
}

field! {
    u8 = FieldType::Unsigned(8), v => v.into(), v => v.try_into().ok();
    u16 = FieldType::Unsigned(16), v => v.into(), v => v.try_into().ok();
    u32 = FieldType::Unsigned(32), v => v.into(), v => v.try_into().ok();
    u64 = FieldType::Unsigned(64), v => v, v => Some(v);
    i32 = FieldType::Signed, v => i64::from(v) as u64, v => (v as i64).try_into().ok();
    i64 = FieldType::Signed, v => v as u64, v => Some(v as i64);
    bool = FieldType::Flag, v => v.into(), v => match v { 0 => Some(false), 1 => Some(true), _ => None };
    Nanos = FieldType::Duration, v => v.0, v => Some(Nanos(v));
    Cpu = FieldType::Cpu, v => v.0.into(), v => v.try_into().ok().map(Cpu);
    TaskId = FieldType::Task, v => v.0.into(), v => v.try_into().ok().map(TaskId);
    NameId = FieldType::Name, v => v.0.into(), v => v.try_into().ok().map(NameId);
    Address = FieldType::Id, v => v.0, v => Some(Address(v));
}

/// An address, or an identifier that is none of ours: [`fmt::Display`] prints it in hexadecimal.
///
/// ```
/// use schedtrace_core::Address;
/// assert_eq!(Address(0x7f00_1234).to_string(), "0x7f001234");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident = [$($choice:literal),* $(,)?];)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct $name(pub u8);

            impl $name {
                /// The names, in the order of their numbers.
                pub const NAMES: &'static [&'static str] = &[$($choice),*];

                /// Its name; none where the number is a later kernel's.
                ///
                /// ```
                #[doc = concat!("use schedtrace_core::", stringify!($name), ";")]
                #[doc = concat!("assert_eq!(", stringify!($name), "(255).name(), None);")]
                #[doc = concat!("assert_eq!(", stringify!($name), "(0).name(), Some(", stringify!($name), "::NAMES[0]));")]
                /// ```
                #[must_use]
                pub fn name(self) -> Option<&'static str> {
                    Self::NAMES.get(usize::from(self.0)).copied()
                }
            }

            impl Field for $name {
                const TYPE: FieldType = FieldType::Choice(Self::NAMES);
                fn to_value(self) -> u64 {
                    self.0.into()
                }
                fn from_value(value: u64) -> Option<Self> {
                    value.try_into().ok().map(Self)
                }
            }
        )*
    };
}

choices! {
    /// A software interrupt: the numbers of `include/linux/interrupt.h`.
    Softirq = ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];
    /// What an interrupt from another CPU is for.
    Ipi = ["reschedule", "call_function", "call_function_single"];
    /// An operation of a block device: `enum req_op` of `include/linux/blk_types.h`, as far as it has names.
    BlockOp = [
        "read", "write", "flush", "discard", "4", "secure_erase", "6", "zone_append", "8", "write_zeroes", "zone_open",
        "zone_close", "zone_finish", "zone_reset", "14", "zone_reset_all",
    ];
    /// A scheduling policy: `SCHED_*` of `include/uapi/linux/sched.h`.
    Policy = ["other", "fifo", "rr", "batch", "iso", "idle", "deadline", "ext"];
}

impl BlockOp {
    /// Its letters in `rwbs` of the kernel's block tracepoints (`blk_fill_rwbs()` of `kernel/trace/blktrace.c`): `N` for those
    /// that have none. Flags of a request, which add letters there, are not recorded.
    ///
    /// ```
    /// use schedtrace_core::BlockOp;
    /// assert_eq!((BlockOp(0).rwbs(), BlockOp(1).rwbs(), BlockOp(3).rwbs()), ("R", "W", "D"));
    /// ```
    #[must_use]
    pub fn rwbs(self) -> &'static str {
        match self.name() {
            Some("read") => "R",
            Some("write") => "W",
            Some("flush") => "F",
            Some("discard") => "D",
            Some("secure_erase") => "DE",
            Some("zone_append") => "ZA",
            Some("zone_open") => "ZO",
            Some("zone_close") => "ZC",
            Some("zone_finish") => "ZF",
            Some("zone_reset" | "zone_reset_all") => "ZR",
            _ => "N",
        }
    }
}

/// A value as people read it; `name` gives the text of a [`NameId`].
pub(crate) fn text<'a>(ty: FieldType, value: u64, name: impl FnOnce(NameId) -> Option<&'a str>) -> String {
    match ty {
        FieldType::Task | FieldType::Cpu | FieldType::Unsigned(_) | FieldType::Duration => value.to_string(),
        FieldType::Signed => (value as i64).to_string(),
        FieldType::Id => Address(value).to_string(),
        FieldType::Flag => (value != 0).to_string(),
        FieldType::Name => u32::try_from(value).ok().and_then(|id| name(NameId(id))).unwrap_or_default().to_owned(),
        FieldType::Choice(names) => {
            let known = usize::try_from(value).ok().and_then(|at| names.get(at));
            known.map_or_else(|| value.to_string(), |&name| name.to_owned())
        }
    }
}

/// The number that [`text()`] made such a text of.
#[cfg(feature = "trace")]
pub(crate) fn choice(names: &[&str], text: &str) -> Option<u64> {
    let known = names.iter().position(|name| *name == text).map(|at| at as u64);
    known.or_else(|| text.parse().ok().filter(|&n| n <= u64::from(u8::MAX)))
}
