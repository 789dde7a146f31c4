//! A prompt: statements end with a semicolon, and commands begin with a point.

use std::borrow::Cow;
use std::io::Write;
use std::path::PathBuf;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use schedtrace_core::query::{self, Query, TableDoc, TableKind};

use super::{Form, What, ask};
use crate::Failure;
use crate::render::{Column, heading, quiet, styled, table, warning};

const HELP: &str = "\
Statements end with `;` or an empty line. Besides them:
  .tables           the tables
  .schema [TABLE]   what the columns of a table are
  .format FORMAT    how rows are written: table, json, jsonl, csv
  .help             this
  .quit             leave (also: Ctrl-D)
";

const COMMANDS: [&str; 5] = [".tables", ".schema", ".format", ".help", ".quit"];

/// Runs until whoever sits there leaves.
pub(super) fn run(what: &What, mut form: Form) -> Result<(), Failure> {
    let tables = what.now()?.tables();
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true).build();
    let mut editor: Editor<Prompt, FileHistory> = Editor::with_config(config).map_err(no_terminal)?;
    editor.set_helper(Some(Prompt::new(&tables)));
    let history = history();
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", quiet(".tables lists what can be asked, .help what else there is; Ctrl-D leaves"))?;
    loop {
        match editor.readline("sql> ") {
            Ok(line) => {
                let line = line.trim();
                if line == ".quit" || line == ".exit" {
                    break;
                }
                if let Err(failure) = answer(what, &tables, &mut form, line) {
                    tell(failure)?;
                }
            }
            // As a shell does: the line is given up.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(no_terminal(error)),
        }
    }
    if let Some(path) = &history {
        // A history that cannot be kept is no reason to complain.
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = editor.save_history(path);
    }
    Ok(())
}

fn no_terminal(error: ReadlineError) -> Failure {
    Failure::Coded(crate::FAILURE, format!("cannot read from the terminal: {error}"))
}

/// An error ends the statement, and not the prompt.
fn tell(failure: Failure) -> Result<(), Failure> {
    match failure {
        Failure::Error(error) => writeln!(std::io::stdout(), "{}", warning(&error.to_string()))?,
        Failure::Coded(_, text) => writeln!(std::io::stdout(), "{}", warning(&text))?,
        Failure::Pipe => return Err(Failure::Pipe),
    }
    Ok(())
}

fn answer(what: &What, tables: &[TableDoc], form: &mut Form, line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let (command, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match command {
        "" => {}
        ".help" => write!(out, "{HELP}")?,
        ".tables" => write!(out, "{}", list(tables))?,
        ".schema" => write!(out, "{}", schema(tables, name.trim().trim_end_matches(';')))?,
        ".format" => match name.trim() {
            "table" => form.format = None,
            name => form.format = Some(name.parse().map_err(|_| super::unknown_format(name))?),
        },
        _ if command.starts_with('.') => {
            let why = format!("there is no {command}: use one of {}", COMMANDS.join(", "));
            writeln!(out, "{}", warning(&why))?;
        }
        _ => {
            let db = what.now()?;
            for statement in query::statements(line) {
                ask(&db, &Query::new(statement), form)?;
            }
        }
    }
    Ok(())
}

/// The tables, with what a row of each is.
fn list(tables: &[TableDoc]) -> String {
    let kinds = [
        (TableKind::Derived, "made of the events"),
        (TableKind::Event, "events, as the kernel told them"),
        (TableKind::Setting, "who, and what is missing"),
        (TableKind::View, "views, shaped like Perfetto's tables"),
    ];
    let mut text = String::new();
    for (kind, what) in kinds {
        let rows = tables.iter().filter(|table| table.kind == kind).map(|table| {
            let about = table.about.split_once(". ").map_or(&*table.about, |(first, _)| first);
            vec![table.name.clone(), about.trim_end_matches('.').to_owned()]
        });
        let rows: Vec<_> = rows.collect();
        if !rows.is_empty() {
            text += &format!("{}\n{}", heading(what), table(&[Column::Text("table"), Column::Text("a row is")], rows));
        }
    }
    text
}

/// What the columns of a table are, or of all.
fn schema(tables: &[TableDoc], name: &str) -> String {
    let wanted: Vec<&TableDoc> = tables.iter().filter(|table| name.is_empty() || table.name == name).collect();
    if wanted.is_empty() {
        return format!("{}\n", warning(&format!("no table is called `{name}`: .tables lists them")));
    }
    let mut text = String::new();
    for doc in wanted {
        let rows = doc.columns.iter().map(|column| {
            let null = if column.nullable { "null" } else { "" };
            vec![
                column.name.clone(),
                column.data_type.clone(),
                column.unit.clone(),
                null.to_owned(),
                column.about.clone(),
            ]
        });
        let heads = ["column", "type", "unit", "", "what"].map(Column::Text);
        text += &format!("{}: {}\n  {}\n{}", heading(&doc.name), doc.about, quiet(&doc.source), table(&heads, rows));
    }
    text
}

/// `$XDG_STATE_HOME/schedtrace/sql_history`: <https://specifications.freedesktop.org/basedir-spec/latest/>.
fn history() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("schedtrace").join("sql_history"))
}

/// What helps while a line is typed.
struct Prompt {
    /// Tables, columns and words, sorted.
    words: Vec<String>,
}

impl Prompt {
    fn new(tables: &[TableDoc]) -> Self {
        let columns = tables.iter().flat_map(|table| table.columns.iter().map(|column| column.name.clone()));
        let names = tables.iter().map(|table| table.name.clone()).chain(columns);
        let mut words: Vec<String> = names.chain(query::WORDS.map(str::to_owned)).collect();
        words.sort_unstable();
        words.dedup();
        Self { words }
    }

    /// What may stand in place of the word before `at`, and where that word begins.
    fn complete(&self, line: &str, at: usize) -> (usize, Vec<String>) {
        let before = &line[..at];
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let start =
            before.rfind(|c| !is_part(c)).map_or(0, |end| end + before[end..].chars().next().map_or(1, char::len_utf8));
        // `thread_state.du`: a column, whoever's it is.
        let word = &before[start..];
        let start = match word.rfind('.') {
            Some(point) if point > 0 => start + point + 1,
            _ => start,
        };
        let word = before[start..].to_lowercase();
        if start == 0 && word.starts_with('.') {
            return (0, COMMANDS.iter().filter(|command| command.starts_with(&word)).map(|&c| c.to_owned()).collect());
        }
        if word.is_empty() {
            return (start, Vec::new());
        }
        (start, self.words.iter().filter(|known| known.starts_with(&word)).cloned().collect())
    }
}

impl Completer for Prompt {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = self.complete(line, at);
        let pair = |word: String| Pair { display: word.clone(), replacement: word };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

impl Validator for Prompt {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let line = text.trim();
        let over = line.is_empty() || line.starts_with('.') || query::is_whole(line) || text.ends_with("\n");
        Ok(if over { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Prompt {
    type Hint = String;
}

impl Highlighter for Prompt {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        if styled() { Cow::Owned(format!("\x1b[1m{prompt}\x1b[0m")) } else { Cow::Borrowed(prompt) }
    }
}

impl Helper for Prompt {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_wherever_they_stand() {
        let prompt = Prompt::new(&query::tables());
        assert_eq!(prompt.complete("select * from thread_s", 22), (14, vec!["thread_state".to_owned()]));
        assert_eq!(prompt.complete("select x.waker_ut", 17), (9, vec!["waker_utid".to_owned()]));
        assert_eq!(prompt.complete(".ta", 3), (0, vec![".tables".to_owned()]));
        assert_eq!(prompt.complete("sélect dür", 11).0, 8, "in characters of any length");
        assert!(prompt.complete("select ", 7).1.is_empty());
    }

    #[test]
    fn schemas_say_what_every_column_is() {
        let tables = query::tables();
        let text = schema(&tables, "wakeup");
        assert!(text.contains("enqueue_dur") && text.contains("bigint") && text.contains("ns"), "{text}");
        assert!(schema(&tables, "nothing").contains(".tables lists them"));
        assert!(list(&tables).contains("sched_slice"));
    }
}
