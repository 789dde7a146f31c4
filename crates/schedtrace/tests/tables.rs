//! docs/tables.md is what the code says of its tables. `SCHEDTRACE_ACCEPT=1` writes it anew.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::Path;

use schedtrace_core::query::{self, TableDoc, TableKind};

/// The page, for people.
fn page() -> String {
    let mut text = String::from(
        "# Tables and columns\n\n\
         What `schedtrace sql` can ask ([sql.md](sql.md)); the same as `.tables` and `.schema` at its prompt, and as\n\
         `schedtrace_core::query::tables()`. Made from the code; a test compares the two.\n\n\
         Of many traces, each table but `trace_bounds` has two more columns, `host` and `trace`. A column that can be `NULL` has a\n\
         question mark behind its type.\n",
    );
    let kinds = [
        (
            TableKind::Derived,
            "Derived tables",
            "Made of the events while a query runs, by the state machine that all reports stand on.",
        ),
        (TableKind::Event, "Events", "As the kernel told them: each lies in the trace if it was recorded."),
        (TableKind::Setting, "Setting", "Who the tasks are, and what is missing. They lie in the trace, too."),
        (TableKind::View, "Views", "Queries with names, shaped like tables of Perfetto's trace processor."),
    ];
    let tables = query::tables();
    for (kind, heading, about) in kinds {
        writeln!(text, "\n## {heading}\n\n{about}").unwrap();
        tables.iter().filter(|table| table.kind == kind).for_each(|table| text += &section(table));
    }
    text
}

fn section(table: &TableDoc) -> String {
    let mut text = format!("\n### `{}`\n\n{}\n\nSource: {}.\n\n", table.name, table.about, table.source);
    text += "| column | type | unit | what |\n|---|---|---|---|\n";
    for column in &table.columns {
        let null = if column.nullable { "?" } else { "" };
        let about = column.about.replace('|', "\\|");
        writeln!(text, "| `{}` | {}{null} | {} | {about} |", column.name, column.data_type, column.unit).unwrap();
    }
    text
}

#[test]
fn the_page_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tables.md");
    let page = page();
    if std::env::var_os("SCHEDTRACE_ACCEPT").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).expect("docs/tables.md is there");
    assert!(
        found == page,
        "docs/tables.md is not what the code says: accept it with SCHEDTRACE_ACCEPT=1, and read the difference"
    );
}
