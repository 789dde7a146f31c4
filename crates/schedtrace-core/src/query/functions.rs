//! Functions whose results are longer than their arguments: they are told how long, before they reserve it.
//!
//! The engine's memory pool counts what sorts, groups and joins hold, and not what a function makes of a batch of rows: a
//! text that is doubled forty times ends the process. So the functions that make texts and lists of any length are wrapped, and
//! those that make lists of lists are not there.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::{cast, kernels::concat_elements::concat_elements_utf8};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::prelude::SessionContext;

/// The most bytes of text that a function may make of one batch of rows.
const MAX_BYTES: f64 = (64 << 20) as f64;

/// How long a result can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Grows {
    /// As all arguments together.
    Sum,
    /// The first, as often as the second says.
    Repeated,
    /// As many characters as the second says.
    Padded,
    /// The first, with the third in place of each of its characters.
    Replaced,
    /// A list of the numbers from the first to the second, by steps of the third.
    Numbers,
}

const GROWING: [(&str, Grows); 10] = [
    ("concat", Grows::Sum),
    ("concat_ws", Grows::Sum),
    ("overlay", Grows::Sum),
    ("repeat", Grows::Repeated),
    ("lpad", Grows::Padded),
    ("rpad", Grows::Padded),
    ("replace", Grows::Replaced),
    ("regexp_replace", Grows::Replaced),
    ("range", Grows::Numbers),
    ("generate_series", Grows::Numbers),
];

/// They make lists longer, of which no table here has one.
const LISTS: [&str; 6] = ["array_repeat", "array_resize", "array_concat", "array_append", "array_prepend", "flatten"];

/// Puts bounds in the place of what has none.
pub(super) fn bound(context: &mut SessionContext) -> Result<()> {
    for (name, grows) in GROWING {
        let inner = context.udf(name)?;
        FunctionRegistry::register_udf(context, Arc::new(Bounded { inner, grows }.into()))?;
    }
    LISTS.into_iter().for_each(|name| SessionContext::deregister_udf(context, name));
    context.register_function_rewrite(Arc::new(Joins))
}

/// A function that looks at its arguments first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    grows: Grows,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.name(), self.grows, &args.args, args.number_rows)?;
        self.inner.invoke_with_args(args)
    }
}

fn check(name: &str, grows: Grows, args: &[ColumnarValue], rows: usize) -> Result<()> {
    let bytes = |at: usize| args.get(at).map_or(0.0, |arg| all_bytes(arg, rows));
    let all: f64 = match grows {
        Grows::Sum => (0..args.len()).map(bytes).sum(),
        Grows::Repeated => bytes(0) * args.get(1).map_or(0.0, most),
        Grows::Padded => bytes(0) + rows as f64 * args.get(1).map_or(0.0, most) * 4.0,
        // Between all characters, too.
        Grows::Numbers => rows as f64 * numbers(args)? * 8.0,
        Grows::Replaced => (bytes(0) + rows as f64) * args.get(2).map_or(0.0, longest).max(1.0),
    };
    if all > MAX_BYTES {
        let mib = all / f64::from(1 << 20);
        let why = format!("`{name}` would make {mib:.0} MiB of {rows} rows, and 64 MiB are the most");
        return Err(DataFusionError::ResourcesExhausted(why));
    }
    Ok(())
}

/// How many numbers are in the longest list; the first may be left out, and is 0 then.
fn numbers(args: &[ColumnarValue]) -> Result<f64> {
    if !args.iter().all(|arg| arg.data_type().is_numeric()) {
        return Err(DataFusionError::Plan("lists are made of numbers here: make times of them by adding".into()));
    }
    let (from, until) = match args {
        [until] => (0.0, most(until)),
        [from, until, ..] => (-most(&negative(from)?), most(until)),
        [] => (0.0, 0.0),
    };
    let step = args.get(2).map_or(1.0, |step| most(step).max(1.0));
    // Downwards, the two change places.
    let back = match args {
        [from, until, _] => most(from) + most(&negative(until)?),
        _ => 0.0,
    };
    Ok((until - from).max(back).max(0.0) / step)
}

fn negative(arg: &ColumnarValue) -> Result<ColumnarValue> {
    let array = cast(&arg.to_array(1)?, &DataType::Float64)?;
    Ok(ColumnarValue::Array(arrow::compute::kernels::numeric::neg(&array)?))
}

/// The bytes of all texts.
fn all_bytes(arg: &ColumnarValue, rows: usize) -> f64 {
    match arg {
        ColumnarValue::Array(array) => lengths(array).sum(),
        ColumnarValue::Scalar(_) => longest(arg) * rows as f64,
    }
}

/// The bytes of the longest text.
fn longest(arg: &ColumnarValue) -> f64 {
    match arg {
        ColumnarValue::Array(array) => lengths(array).fold(0.0, f64::max),
        ColumnarValue::Scalar(value) => value.try_as_str().flatten().map_or(32, str::len) as f64,
    }
}

fn lengths(array: &Arc<dyn Array>) -> Box<dyn Iterator<Item = f64> + '_> {
    if let Some(texts) = array.as_string_view_opt() {
        Box::new(texts.iter().map(|text| text.map_or(0, str::len) as f64))
    } else if let Some(texts) = array.as_string_opt::<i32>() {
        Box::new(texts.iter().map(|text| text.map_or(0, str::len) as f64))
    } else if let Some(texts) = array.as_string_opt::<i64>() {
        Box::new(texts.iter().map(|text| text.map_or(0, str::len) as f64))
    } else {
        // A number, a time: no longer than that as a text.
        Box::new((0..array.len()).map(|_| 32.0))
    }
}

/// The largest number.
fn most(arg: &ColumnarValue) -> f64 {
    let array = match arg {
        ColumnarValue::Array(array) => cast(array, &DataType::Float64).ok(),
        ColumnarValue::Scalar(value) => match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(Some(number))) => return number,
            _ => None,
        },
    };
    let numbers = array.as_ref().and_then(|array| array.as_primitive_opt::<Float64Type>());
    numbers.and_then(|numbers| numbers.iter().flatten().reduce(f64::max)).unwrap_or(0.0)
}

/// `a || b`, which is an operator to the engine, becomes a function that looks first.
#[derive(Debug)]
struct Joins;

impl FunctionRewrite for Joins {
    fn name(&self) -> &str {
        "bounded ||"
    }
    fn rewrite(&self, expr: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                let func = Arc::new(ScalarUDF::from(Join::new()));
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: vec![*left, *right] })))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// Two texts as one; NULL if one is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Join(Signature);

impl Join {
    fn new() -> Self {
        Self(Signature::user_defined(Volatility::Immutable))
    }
}

impl ScalarUDFImpl for Join {
    fn name(&self) -> &str {
        "||"
    }
    fn signature(&self) -> &Signature {
        &self.0
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.iter().any(DataType::is_nested) {
            return Err(DataFusionError::Plan("`||` joins texts, and no lists".into()));
        }
        Ok(vec![DataType::Utf8; 2])
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.name(), Grows::Sum, &args.args, args.number_rows)?;
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("`||` has two sides".into()));
        };
        let joined = concat_elements_utf8(left.as_string::<i32>(), right.as_string::<i32>())?;
        Ok(ColumnarValue::Array(Arc::new(joined)))
    }
}
