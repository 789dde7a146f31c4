//! The types of columns: how their cells are written and read.
//!
//! Times are `Int64`, so that every SQL dialect can subtract them; [`Nanos::MAX`] is stored as the largest of them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Int64Array, StringArray, StringViewArray, UInt8Array,
    UInt16Array, UInt32Array,
};
use arrow::datatypes::DataType;

use crate::event::Nanos;

/// The longest text of a cell in bytes: what is longer is cut when written, and refused when read. A path has at most
/// `PATH_MAX` bytes.
const MAX_TEXT: usize = 4096;

/// Why a cell cannot be what it says.
pub(super) type Bad = &'static str;

/// How the cells of one type of column are written and read.
pub(super) trait Column {
    type Value<'a>;
    type Builder: Default + std::fmt::Debug;
    type View<'a>;
    const TYPE: DataType;
    const NULLABLE: bool = false;
    fn push(builder: &mut Self::Builder, value: Self::Value<'_>);
    fn array(builder: &mut Self::Builder) -> ArrayRef;
    fn view(array: &ArrayRef) -> Option<Self::View<'_>>;
    fn value<'a>(view: &Self::View<'a>, row: usize) -> Result<Self::Value<'a>, Bad>;
}

macro_rules! number {
    ($column:ident, $array:ident, $type:ident, $value:ty, $to:expr, $from:expr) => {
        pub(super) struct $column;
        impl Column for $column {
            type Value<'a> = $value;
            type Builder = Vec<<arrow::datatypes::$type as arrow::array::ArrowPrimitiveType>::Native>;
            type View<'a> = &'a $array;
            const TYPE: DataType = <arrow::datatypes::$type as arrow::array::ArrowPrimitiveType>::DATA_TYPE;
            #[inline]
            fn push(builder: &mut Self::Builder, value: $value) {
                builder.push($to(value));
            }
            fn array(builder: &mut Self::Builder) -> ArrayRef {
                Arc::new($array::from(std::mem::take(builder)))
            }
            fn view(array: &ArrayRef) -> Option<&$array> {
                array.as_primitive_opt()
            }
            #[inline]
            fn value<'a>(view: &Self::View<'a>, row: usize) -> Result<Self::Value<'a>, Bad> {
                $from(view.value(row))
            }
        }
    };
}

number!(U8, UInt8Array, UInt8Type, u8, |v| v, Ok);
number!(U16, UInt16Array, UInt16Type, u16, |v| v, Ok);
number!(U32, UInt32Array, UInt32Type, u32, |v| v, Ok);
number!(Time, Int64Array, Int64Type, Nanos, stored, |v: i64| match v {
    i64::MAX => Ok(Nanos::MAX),
    v => u64::try_from(v).map(Nanos).map_err(|_| "is a time before the start of the clock"),
});
number!(Count, Int64Array, Int64Type, u64, |v| i64::try_from(v).unwrap_or(i64::MAX), |v: i64| u64::try_from(v)
    .map_err(|_| "is a negative count"));
// An identifier, not a quantity: all 64 bits count, whatever the sign.
number!(Id, Int64Array, Int64Type, u64, |v| v as i64, |v: i64| Ok(v as u64));

fn stored(time: Nanos) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

pub(super) struct Flag;
impl Column for Flag {
    type Value<'a> = bool;
    type Builder = BooleanBuilder;
    type View<'a> = &'a BooleanArray;
    const TYPE: DataType = DataType::Boolean;
    #[inline]
    fn push(builder: &mut BooleanBuilder, value: bool) {
        builder.append_value(value);
    }
    fn array(builder: &mut BooleanBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
    fn view(array: &ArrayRef) -> Option<&BooleanArray> {
        array.as_boolean_opt()
    }
    #[inline]
    fn value<'a>(view: &Self::View<'a>, row: usize) -> Result<Self::Value<'a>, Bad> {
        Ok(view.value(row))
    }
}

/// Text of either layout: a stream holds it plainly, a Parquet file is read as views into its pages.
pub(super) enum Texts<'a> {
    Plain(&'a StringArray),
    View(&'a StringViewArray),
}

pub(super) struct Text;
impl Column for Text {
    type Value<'a> = &'a str;
    type Builder = arrow::array::StringBuilder;
    type View<'a> = Texts<'a>;
    const TYPE: DataType = DataType::Utf8;
    #[inline]
    fn push(builder: &mut Self::Builder, value: &str) {
        builder.append_value(&value[..value.floor_char_boundary_at(MAX_TEXT)]);
    }
    fn array(builder: &mut Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
    fn view(array: &ArrayRef) -> Option<Texts<'_>> {
        array.as_string_opt().map(Texts::Plain).or_else(|| array.as_string_view_opt().map(Texts::View))
    }
    #[inline]
    fn value<'a>(view: &Self::View<'a>, row: usize) -> Result<Self::Value<'a>, Bad> {
        let text = match view {
            Texts::Plain(array) => array.value(row),
            Texts::View(array) => array.value(row),
        };
        if text.len() > MAX_TEXT { Err("is too long") } else { Ok(text) }
    }
}

trait CharBoundary {
    fn floor_char_boundary_at(&self, max: usize) -> usize;
}

impl CharBoundary for str {
    /// The last boundary between characters at or before `max`.
    #[inline]
    fn floor_char_boundary_at(&self, max: usize) -> usize {
        if self.len() <= max {
            return self.len();
        }
        (0..=max).rev().find(|&at| self.is_char_boundary(at)).unwrap_or(0)
    }
}

macro_rules! nullable {
    ($column:ident, $inner:ident, $builder:ty, $array:expr) => {
        pub(super) struct $column;
        impl Column for $column {
            type Value<'a> = Option<<$inner as Column>::Value<'a>>;
            type Builder = $builder;
            type View<'a> = (&'a ArrayRef, <$inner as Column>::View<'a>);
            const TYPE: DataType = $inner::TYPE;
            const NULLABLE: bool = true;
            #[inline]
            fn push(builder: &mut Self::Builder, value: Self::Value<'_>) {
                builder.push(value.map(Into::into));
            }
            fn array(builder: &mut Self::Builder) -> ArrayRef {
                Arc::new($array(std::mem::take(builder)))
            }
            fn view(array: &ArrayRef) -> Option<Self::View<'_>> {
                $inner::view(array).map(|view| (array, view))
            }
            #[inline]
            fn value<'a>(view: &Self::View<'a>, row: usize) -> Result<Self::Value<'a>, Bad> {
                if view.0.is_null(row) { Ok(None) } else { $inner::value(&view.1, row).map(Some) }
            }
        }
    };
}

nullable!(OptU32, U32, Vec<Option<u32>>, UInt32Array::from);
nullable!(OptFlag, Flag, Vec<Option<bool>>, BooleanArray::from);
nullable!(OptText, Text, Vec<Option<String>>, StringArray::from);
