//! What a query's conditions say of times and tasks: whatever cannot fulfil them need not be read.

use std::collections::BTreeSet;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

use arrow::datatypes::DataType;

use crate::event::Nanos;

/// The rows that can be wanted: no others, and perhaps fewer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The earliest time.
    pub(super) from: Option<i64>,
    /// The latest.
    pub(super) until: Option<i64>,
    /// Only these tasks, by `utid`.
    pub(super) utids: Option<BTreeSet<i64>>,
    /// Only threads of these ids.
    pub(super) tids: Option<BTreeSet<i64>>,
    /// Only threads of these processes.
    pub(super) pids: Option<BTreeSet<i64>>,
    /// Only tasks of these names.
    pub(super) comms: Option<BTreeSet<String>>,
}

impl Bounds {
    /// Those of conditions that all have to hold; `time` is the column of times.
    pub(super) fn of(conditions: &[Expr], time: &str) -> Self {
        let mut bounds = Self::default();
        for condition in conditions.iter().flat_map(split_conjunction) {
            bounds.tighten(condition, time);
        }
        bounds
    }

    /// As times of a trace.
    pub(super) fn times(&self) -> (Option<Nanos>, Option<Nanos>) {
        let time = |ns: i64| Nanos(u64::try_from(ns).unwrap_or(0));
        (self.from.map(time), self.until.map(time))
    }

    /// Whether a time lies in them.
    #[inline]
    pub(super) fn contain(&self, time: Nanos) -> bool {
        let ns = i64::try_from(time.0).unwrap_or(i64::MAX);
        self.from.is_none_or(|from| ns >= from) && self.until.is_none_or(|until| ns <= until)
    }

    /// Whether any task will do.
    pub(super) fn any_task(&self) -> bool {
        self.utids.is_none() && self.tids.is_none() && self.pids.is_none() && self.comms.is_none()
    }

    fn tighten(&mut self, condition: &Expr, time: &str) {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (column, op, value) = match (name(left), value(right)) {
                    (Some(column), Some(value)) => (column, *op, value),
                    _ => match (name(right), value(left), op.swap()) {
                        (Some(column), Some(value), Some(op)) => (column, op, value),
                        _ => return,
                    },
                };
                self.compare(column, op, value, time);
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let (Some(column), Some(low), Some(high)) = (name(expr), value(low), value(high)) else { return };
                self.compare(column, Operator::GtEq, low, time);
                self.compare(column, Operator::LtEq, high, time);
            }
            Expr::InList(InList { expr, list, negated: false }) => {
                let (Some(column), Some(values)) = (name(expr), list.iter().map(value).collect::<Option<Vec<_>>>())
                else {
                    return;
                };
                self.one_of(column, &values);
            }
            _ => {}
        }
    }

    fn compare(&mut self, column: &str, op: Operator, value: &ScalarValue, time: &str) {
        if op == Operator::Eq {
            self.one_of(column, &[value]);
        }
        if column != time {
            return;
        }
        let Some(ns) = integer(value) else { return };
        match op {
            Operator::Eq => (self.from, self.until) = (later(self.from, ns), sooner(self.until, ns)),
            Operator::Gt | Operator::GtEq => self.from = later(self.from, ns),
            Operator::Lt | Operator::LtEq => self.until = sooner(self.until, ns),
            _ => {}
        }
    }

    fn one_of(&mut self, column: &str, values: &[&ScalarValue]) {
        let set = match column {
            "utid" => &mut self.utids,
            "tid" => &mut self.tids,
            "pid" => &mut self.pids,
            "comm" => {
                let texts = values.iter().map(|value| value.try_as_str().flatten().map(str::to_owned));
                return narrow(&mut self.comms, texts.collect());
            }
            _ => return,
        };
        narrow(set, values.iter().map(|value| integer(value)).collect());
    }
}

/// Both sets' members; what is not known restricts nothing.
fn narrow<T: Ord + Clone>(set: &mut Option<BTreeSet<T>>, to: Option<BTreeSet<T>>) {
    let Some(to) = to else { return };
    *set = Some(match set.take() {
        Some(set) => set.intersection(&to).cloned().collect(),
        None => to,
    });
}

fn later(from: Option<i64>, ns: i64) -> Option<i64> {
    Some(from.map_or(ns, |from| from.max(ns)))
}

fn sooner(until: Option<i64>, ns: i64) -> Option<i64> {
    Some(until.map_or(ns, |until| until.min(ns)))
}

fn name(expr: &Expr) -> Option<&str> {
    if let Expr::Column(column) = expr { Some(&column.name) } else { None }
}

fn value(expr: &Expr) -> Option<&ScalarValue> {
    if let Expr::Literal(value, _) = expr { Some(value) } else { None }
}

fn integer(value: &ScalarValue) -> Option<i64> {
    if !value.data_type().is_integer() {
        return None;
    }
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    #[test]
    fn times_and_tasks_are_narrowed() {
        let conditions = [
            col("ts").gt_eq(lit(5_i64)).and(col("ts").lt(lit(9_i64))),
            lit(8_i64).gt(col("ts")),
            col("tid").eq(lit(7_u32)),
            col("comm").in_list(vec![lit("a"), lit("b")], false),
            col("comm").eq(lit("b")),
        ];
        let bounds = Bounds::of(&conditions, "ts");
        assert_eq!((bounds.from, bounds.until), (Some(5), Some(8)));
        assert_eq!(bounds.tids, Some([7].into()));
        assert_eq!(bounds.comms, Some(["b".to_owned()].into()));
        assert!(bounds.contain(Nanos(5)) && bounds.contain(Nanos(8)) && !bounds.contain(Nanos(9)));
    }

    #[test]
    fn what_says_nothing_restricts_nothing() {
        let conditions = [
            col("ts").gt_eq(lit(5_i64)).or(col("cpu").eq(lit(1_u16))),
            col("ts").not_eq(lit(5_i64)),
            col("tid").gt(lit(7_u32)),
            col("tid").in_list(vec![lit(1_u32)], true),
            col("tid").eq(col("pid")),
            col("ts").gt(lit(1.5)),
        ];
        assert_eq!(Bounds::of(&conditions, "ts"), Bounds::default());
    }
}
