//! Tables for a terminal: as wide as it is, coloured unless `NO_COLOR` or a pipe says otherwise.

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use crate::units::count;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column<'a> {
    /// Left-aligned.
    Text(&'a str),
    /// Right-aligned.
    Number(&'a str),
}

/// Columns of text, below which nothing is broken to fit.
const NARROW: usize = 100;

/// Whether to use colour and bold type: <https://no-color.org>.
pub(crate) fn styled() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !no_color && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A heading.
pub(crate) fn heading(text: &str) -> String {
    if styled() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// Something that must not be overlooked.
pub(crate) fn warning(text: &str) -> String {
    if styled() { format!("\x1b[33m{text}\x1b[0m") } else { text.to_owned() }
}

/// Something that may be overlooked.
pub(crate) fn quiet(text: &str) -> String {
    if styled() { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
}

/// A table without lines, its columns aligned by kind; two spaces in front of each row.
pub(crate) fn table(columns: &[Column<'_>], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !styled() {
        table.force_no_tty();
    }
    // Only texts are broken to fit. In a pipe there is no width to keep to, since programs read lines; and on a very
    // narrow terminal a long line is easier to read than a column of single letters.
    let wide_enough = table.width().is_some_and(|width| usize::from(width) >= NARROW);
    table.set_content_arrangement(match styled() && wide_enough {
        true => ContentArrangement::Dynamic,
        false => ContentArrangement::Disabled,
    });
    table.set_header(columns.iter().map(|column| {
        let (Column::Text(name) | Column::Number(name)) = column;
        Cell::new(name).add_attribute(Attribute::Dim)
    }));
    for row in rows {
        table.add_row(row);
    }
    for (at, column) in columns.iter().enumerate() {
        if let (Column::Number(_), Some(cells)) = (column, table.column_mut(at)) {
            cells.set_cell_alignment(CellAlignment::Right);
            cells.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.lines().map(|line| format!(" {}\n", line.trim_end())).collect()
}

/// That there would be more rows.
pub(crate) fn more(shown: usize, total: usize) -> String {
    if total > shown { format!("  … and {} more\n", count((total - shown) as u64)) } else { String::new() }
}
