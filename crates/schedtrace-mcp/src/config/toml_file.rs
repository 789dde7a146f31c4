//! TOML: the same values as in YAML.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::BadConfig;
use super::node::{Entry, Node, Value};

/// The table that a file is.
pub(super) fn read(text: &str) -> Result<Node, BadConfig> {
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| lines.line(span.start));
        // It draws where over several lines; which line it is stands beside it.
        BadConfig::at(line, error.message().lines().collect::<Vec<_>>().join(" "))
    })?;
    Ok(Node { line: 1, value: entries(table.get_ref(), &lines)? })
}

/// Where each line begins.
#[derive(Debug)]
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(ends).collect())
    }

    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|begins| *begins <= at)
    }
}

fn entries(table: &DeTable<'_>, lines: &Lines) -> Result<Value, BadConfig> {
    let read = table.iter().map(|(key, value)| {
        let line = lines.line(key.span().start);
        Ok(Entry { key: key.get_ref().as_ref().to_owned(), line, node: node(value, lines)? })
    });
    read.collect::<Result<Vec<_>, _>>().map(Value::Table)
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Result<Node, BadConfig> {
    let line = lines.line(value.span().start);
    let value = match value.get_ref() {
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Integer(number) => {
            let read = i64::from_str_radix(number.as_str(), number.radix());
            Value::Whole(read.map_err(|error| BadConfig::at(line, format!("{number} cannot be had: {error}")))?)
        }
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Fraction(number),
            Err(error) => return Err(BadConfig::at(line, format!("{number} cannot be had: {error}"))),
        },
        DeValue::String(text) => Value::Text(text.as_ref().to_owned()),
        DeValue::Datetime(_) => return Err(BadConfig::at(line, "no key takes a date: put it in quotes")),
        DeValue::Array(list) => {
            Value::List(list.iter().map(|value| node(value, lines)).collect::<Result<Vec<_>, _>>()?)
        }
        DeValue::Table(table) => entries(table, lines)?,
    };
    Ok(Node { line, value })
}
