//! What a statement may be: one that reads, and no larger than anybody needs; and what is said of one that cannot be.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, SchemaError};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::prelude::SQLOptions;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{Query, Statement as Sql, Visit, Visitor, visit_relations};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use hashbrown::HashMap;

use crate::error::{Error, Result};

/// The longest statement, in bytes.
pub(super) const MAX_BYTES: usize = 64 << 10;
/// The most operators, joins and the like: the engine's stack grows with them.
pub(super) const MAX_OPERATORS: usize = 1_000;
/// The most brackets within brackets: the parser tries several readings of some of them, and so takes twice as long with each.
pub(super) const MAX_BRACKETS: usize = 32;
/// The most steps of a plan: a `with` that is named twice by the next, and so on, doubles them each time.
pub(super) const MAX_STEPS: usize = 5_000;
/// The most centroids of an approximate percentile: it keeps that many for each group.
pub(super) const MAX_CENTROIDS: i64 = 10_000;
/// A name that is so much unlike is not meant.
const ALIKE: f64 = 0.7;
/// The longest message, in characters.
const MAX_MESSAGE: usize = 900;

/// Checks a statement's size, and parses it.
pub(super) fn parse(sql: &str) -> Result<Statement> {
    if sql.len() > MAX_BYTES {
        let bytes = sql.len();
        return Err(query(format!("it has {bytes} bytes, and {MAX_BYTES} are the most: split it, or use parameters")));
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize().map_err(|error| query(error.to_string()))?;
    let mut depth = 0_usize;
    for token in &tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            let why =
                format!("it has more than {MAX_BRACKETS} brackets within each other: divide it, by `with` for example");
            return Err(query(why));
        }
    }
    let operators = tokens.iter().filter(|token| nests(token)).count();
    if operators > MAX_OPERATORS {
        let why =
            format!("it has {operators} operators, and {MAX_OPERATORS} are the most: split it, or use `in (...)`");
        return Err(query(why));
    }
    let mut statements = DFParser::parse_sql_with_dialect(sql, &dialect).map_err(|error| explain(error, &[]))?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) if only_reads(&statement) => {
            if steps(&statement) > MAX_STEPS {
                let why = format!("it has more than {MAX_STEPS} steps, once every `with` is written out: divide it");
                return Err(query(why));
            }
            Ok(statement)
        }
        (Some(_), true) => {
            Err(query("traces are only read: use `select`, `with`, `values`, `explain`, `describe` or `show`".into()))
        }
        (None, _) => Err(query("it is empty: try `select * from sched_slice limit 10`".into())),
        (Some(_), false) => Err(query("one statement at a time: split them at the semicolons".into())),
    }
}

/// About how many tables and queries a statement reads, once every `with` is written out wherever it is named: the engine
/// does that.
fn steps(statement: &Statement) -> usize {
    match statement {
        Statement::Statement(statement) => {
            let mut sizes = Sizes::default();
            let _: ControlFlow<()> = statement.visit(&mut sizes);
            sizes.all
        }
        Statement::Explain(explain) => steps(&explain.statement),
        _ => 0,
    }
}

/// The sizes of what `with` gives names to.
#[derive(Default)]
struct Sizes {
    named: HashMap<String, usize>,
    all: usize,
}

impl Sizes {
    /// What is read within a part of a statement.
    fn of(&self, part: &impl Visit) -> usize {
        let mut size = 1_usize;
        let _: ControlFlow<()> = visit_relations(part, |name| {
            let one = name.to_string().to_lowercase();
            size = size.saturating_add(self.named.get(&one).copied().unwrap_or(1));
            ControlFlow::Continue(())
        });
        size
    }
}

impl Visitor for Sizes {
    type Break = ();

    /// What is inside comes first.
    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let size = self.of(&*cte.query);
            let name = cte.alias.name.to_string().to_lowercase();
            let known = self.named.entry(name).or_default();
            *known = size.max(*known);
        }
        self.all = self.all.max(self.of(&*query.body));
        ControlFlow::Continue(())
    }
}

/// Whether it is one of the statements that change nothing. What they hold inside is looked at once they are planned.
fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => matches!(
            **statement,
            Sql::Query(_)
                | Sql::Explain { .. }
                | Sql::ExplainTable { .. }
                | Sql::ShowTables { .. }
                | Sql::ShowColumns { .. }
                | Sql::ShowFunctions { .. }
        ),
        Statement::Explain(explain) => only_reads(&explain.statement),
        _ => false,
    }
}

/// Whether a part of a statement makes its tree deeper.
fn nests(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::SELECT
                | Keyword::CASE
                | Keyword::WHEN
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::VALUES
        ),
        Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon
        | Token::EOF => false,
        _ => true,
    }
}

/// Checks what a statement has become: that it only reads, and that it is not too large to be worked on.
pub(super) fn check(plan: &LogicalPlan) -> DfResult<()> {
    let mut steps = 0;
    plan.apply_with_subqueries(|step| {
        steps += 1;
        if steps > MAX_STEPS {
            let why = format!("it has more than {MAX_STEPS} steps, once every `with` is written out: divide it");
            return Err(DataFusionError::Plan(why));
        }
        step.apply_expressions(|expr| expr.apply(check_expr))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(plan)
}

fn check_expr(expr: &Expr) -> DfResult<TreeNodeRecursion> {
    if let Expr::AggregateFunction(function) = expr
        && function.func.name().starts_with("approx_percentile")
    {
        let numbers = function.params.args.iter().filter_map(|arg| match arg {
            Expr::Literal(value, _) => value.cast_to(&DataType::Float64).ok(),
            _ => None,
        });
        let most = numbers.filter_map(|value| if let ScalarValue::Float64(number) = value { number } else { None });
        if most.fold(0.0, f64::max) > MAX_CENTROIDS as f64 {
            return Err(DataFusionError::Plan(format!(
                "an approximate percentile has {MAX_CENTROIDS} centroids at most"
            )));
        }
    }
    Ok(TreeNodeRecursion::Continue)
}

/// An error of this module: one line, whatever it quotes.
pub(super) fn query(why: String) -> Error {
    Error::Query(one_line(&why))
}

/// What the engine says, in one line, with the nearest name where one is not known.
pub(super) fn explain(error: DataFusionError, tables: &[String]) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => query(other.to_string()),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => explain(*inner, tables),
        DataFusionError::Shared(inner) => match inner.find_root() {
            DataFusionError::External(inner) => query(inner.to_string()),
            DataFusionError::ResourcesExhausted(why) => exhausted(why),
            other => query(other.strip_backtrace()),
        },
        DataFusionError::Collection(mut errors) if !errors.is_empty() => explain(errors.swap_remove(0), tables),
        DataFusionError::SchemaError(error, _) => match *error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let names: Vec<String> = valid_fields.iter().map(|field| field.name().to_owned()).collect();
                let name = short(field.name());
                query(format!("no column is called `{name}`{}", instead(&name, &names)))
            }
            other => query(other.to_string()),
        },
        DataFusionError::ResourcesExhausted(why) => exhausted(&why),
        DataFusionError::ParquetError(error) => match *error {
            parquet::errors::ParquetError::External(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => query(other.to_string()),
            },
            other => query(other.to_string()),
        },
        DataFusionError::Plan(why) => query(unknown_table(&why, tables).unwrap_or(why)),
        other => query(other.strip_backtrace()),
    }
}

fn exhausted(why: &str) -> Error {
    let why = why.split_once('\n').map_or(why, |(first, _)| first);
    query(format!("it needs more memory than it may have ({why}): ask for less at once, or raise the limit"))
}

/// "table 'datafusion.public.x' not found", in our words.
fn unknown_table(why: &str, tables: &[String]) -> Option<String> {
    let name = why.strip_prefix("table '")?.strip_suffix("' not found")?;
    let name = short(name.rsplit('.').next().unwrap_or(name));
    if let Some(events) = super::docs::recorded_with(&name) {
        return Some(format!("the table `{name}` is not in this trace: record with `--events {events}`"));
    }
    Some(format!("no table is called `{name}`{}", instead(&name, tables)))
}

/// As much of a name as is needed to know it again.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The nearest of some names, or all of them.
fn instead(name: &str, names: &[String]) -> String {
    let near = |other: &String| strsim::jaro_winkler(&name.to_lowercase(), other);
    let best = names.iter().map(|other| (near(other), other)).max_by(|a, b| a.0.total_cmp(&b.0));
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.sort_unstable();
    all.dedup();
    match best {
        Some((alike, other)) if alike >= ALIKE => format!(": do you mean `{other}`? (there are {})", all.join(", ")),
        _ if all.is_empty() => String::new(),
        _ => format!(": there are {}", all.join(", ")),
    }
}

/// Messages quote the query: one line, of bounded length, without control characters.
fn one_line(text: &str) -> String {
    let text: String = text.chars().take(MAX_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    unset(&text).unwrap_or(text)
}

/// A parameter without a value, in our words.
fn unset(why: &str) -> Option<String> {
    let name = why.contains("laceholder").then(|| why.split('$').nth(1))??;
    let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    Some(format!("the parameter ${name} has no value: give it one (`--param {name}=...`)"))
}

/// The statements of a text, as the semicolons divide it; what is no SQL is one, which says so when it is asked.
///
/// ```
/// use schedtrace_core::query;
/// assert_eq!(query::statements("select ';' ; select 2;"), ["select ';'", "select 2"]);
/// ```
#[must_use]
pub fn statements(text: &str) -> Vec<&str> {
    let ends = ends(text);
    let starts = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    let parts = starts.zip(ends.iter().copied().chain([text.len()])).map(|(start, end)| text[start..end].trim());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Whether the last statement of a text is over.
///
/// ```
/// use schedtrace_core::query;
/// assert!(query::is_whole("select 1;") && !query::is_whole("select ';") && !query::is_whole("select 1"));
/// ```
#[must_use]
pub fn is_whole(text: &str) -> bool {
    ends(text).last().is_some_and(|end| text[end + 1..].trim().is_empty())
}

/// Where the semicolons are that end statements.
fn ends(text: &str) -> Vec<usize> {
    let dialect = GenericDialect {};
    let Ok(tokens) = Tokenizer::new(&dialect, text).tokenize_with_location() else { return Vec::new() };
    let lines: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let at = |line: u64, column: u64| {
        let start = *lines.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
        let column = usize::try_from(column).ok()?.checked_sub(1)?;
        text[start..].char_indices().nth(column).map(|(at, _)| start + at)
    };
    let ends = tokens.iter().filter(|token| token.token == Token::SemiColon);
    ends.filter_map(|token| at(token.span.start.line, token.span.start.column)).collect()
}
