//! How the cells of derived tables are made, column by column, and only of the columns that are asked for.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, StringViewBuilder};
use arrow::array::{Int32Builder, Int64Builder};
use arrow::datatypes::DataType;

use crate::event::Nanos;

/// A type that columns have.
pub(super) trait Cell {
    type Value<'a>: Copy;
    type Builder: Default + std::fmt::Debug;
    const TYPE: DataType;
    const NULLABLE: bool;
    fn push(builder: &mut Self::Builder, value: Self::Value<'_>);
    fn finish(builder: &mut Self::Builder) -> ArrayRef;
}

macro_rules! cells {
    ($($(#[$doc:meta])* $cell:ident: $value:ty => $type:ident, $nullable:literal, $builder:ty, $v:ident => $to:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $cell;
        impl Cell for $cell {
            type Value<'a> = $value;
            type Builder = $builder;
            const TYPE: DataType = DataType::$type;
            const NULLABLE: bool = $nullable;
            #[inline]
            fn push(builder: &mut $builder, $v: $value) {
                builder.append_option($to);
            }
            fn finish(builder: &mut $builder) -> ArrayRef {
                Arc::new(builder.finish())
            }
        }
    )*};
}

/// SQL's integers have a sign; 2^63 ns are 292 years.
fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

// SQL subtracts: numbers without a sign would wrap.
cells! {
    /// A moment: `CLOCK_MONOTONIC`, in nanoseconds.
    Time: Nanos => Int64, false, Int64Builder, v => Some(signed(v.0));
    OptTime: Option<Nanos> => Int64, true, Int64Builder, v => v.map(|v| signed(v.0));
    /// A span of time in nanoseconds.
    OptNs: Option<u64> => Int64, true, Int64Builder, v => v.map(signed);
    /// The number of a task, a process or a trace.
    Num: i64 => Int64, false, Int64Builder, v => Some(v);
    OptNum: Option<i64> => Int64, true, Int64Builder, v => v;
    U32: u32 => Int64, false, Int64Builder, v => Some(v.into());
    OptU32: Option<u32> => Int64, true, Int64Builder, v => v.map(i64::from);
    U16: u16 => Int32, false, Int32Builder, v => Some(v.into());
    OptU16: Option<u16> => Int32, true, Int32Builder, v => v.map(i32::from);
    OptU8: Option<u8> => Int32, true, Int32Builder, v => v.map(i32::from);
    Flag: bool => Boolean, false, BooleanBuilder, v => Some(v);
    OptFlag: Option<bool> => Boolean, true, BooleanBuilder, v => v;
}

/// A text. Views: those of at most 12 bytes, as most names of tasks are, are copied and compared without following a
/// pointer.
pub(super) struct Text;
impl Cell for Text {
    type Value<'a> = &'a str;
    type Builder = StringViewBuilder;
    const TYPE: DataType = DataType::Utf8View;
    const NULLABLE: bool = false;
    #[inline]
    fn push(builder: &mut StringViewBuilder, value: &str) {
        builder.append_value(value);
    }
    fn finish(builder: &mut StringViewBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

pub(super) struct OptText;
impl Cell for OptText {
    type Value<'a> = Option<&'a str>;
    type Builder = StringViewBuilder;
    const TYPE: DataType = DataType::Utf8View;
    const NULLABLE: bool = true;
    #[inline]
    fn push(builder: &mut StringViewBuilder, value: Option<&str>) {
        builder.append_option(value);
    }
    fn finish(builder: &mut StringViewBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}
