//! Every question of docs/cookbook.md, asked again: the answers are those that stand there.
//! `SCHEDTRACE_ACCEPT=1` writes them anew; read the difference before you commit it.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a reader takes in at a glance.
const MOST_ROWS: usize = 10;
const MOST_COLUMNS: usize = 110;

/// The paths in the cookbook, and in its answers, begin here.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn file() -> PathBuf {
    root().join("docs/cookbook.md")
}

/// A question.
struct Recipe {
    question: String,
    /// The names of its traces, and further arguments: what stands between backquotes in the line that begins with "Over".
    traces: Vec<String>,
    options: Vec<String>,
    sql: String,
    answer: String,
    /// Where in the text the answer stands.
    place: Range<usize>,
    asked_by_perfetto: bool,
}

/// Each `###` begins one.
fn recipes(text: &str) -> Vec<Recipe> {
    let starts: Vec<usize> = text.match_indices("\n### ").map(|(at, _)| at + 1).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(&start, end)| recipe(text, start..end)).collect()
}

fn recipe(text: &str, section: Range<usize>) -> Recipe {
    let at = section.start;
    let section = &text[section];
    let question = section.lines().next().unwrap().trim_start_matches("### ").to_owned();
    let over = section.lines().find(|line| line.starts_with("Over `"));
    let over = over.unwrap_or_else(|| panic!("`{question}` does not say over which trace"));
    let (mut traces, mut options) = (Vec::new(), Vec::new());
    for quoted in over.split('`').skip(1).step_by(2) {
        if quoted.starts_with("--") {
            options.extend(quoted.split_whitespace().map(str::to_owned));
        } else {
            traces.push(quoted.to_owned());
        }
    }
    let (sql, answer) = (block(section, "sql", &question), block(section, "text", &question));
    assert!(sql.end < answer.start, "the answer of `{question}` comes before its statement");
    Recipe {
        traces,
        options,
        sql: section[sql].to_owned(),
        answer: section[answer.clone()].to_owned(),
        place: at + answer.start..at + answer.end,
        asked_by_perfetto: section.lines().any(|line| line.starts_with("*Perfetto*, ")),
        question,
    }
}

/// What stands in the only block of a kind, its last line feed included.
fn block(section: &str, kind: &str, question: &str) -> Range<usize> {
    let fence = format!("\n```{kind}\n");
    let mut found = section.match_indices(&fence).map(|(at, _)| at + fence.len());
    let (Some(start), None) = (found.next(), found.next()) else { panic!("`{question}` has not one block of {kind}") };
    // An empty block ends where it begins.
    let length = section[start - 1..].find("\n```").unwrap_or_else(|| panic!("a block of `{question}` has no end"));
    start..start + length
}

/// Where the trace lies that the text calls so.
fn trace<'a>(text: &'a str, name: &str) -> &'a str {
    let path = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    path.unwrap_or_else(|| panic!("the cookbook does not say where `{name}` lies"))
}

/// What the command prints.
fn ask(text: &str, recipe: &Recipe) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_schedtrace"))
        .current_dir(root())
        .arg("sql")
        .args(recipe.traces.iter().map(|name| trace(text, name)))
        .args(&recipe.options)
        .arg(&recipe.sql)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "`{}`: {complaint}", recipe.question);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_question_has_the_answer_that_stands_there() {
    let mut text = fs::read_to_string(file()).unwrap();
    let recipes = recipes(&text);
    let answers: Vec<String> = recipes.iter().map(|recipe| ask(&text, recipe)).collect();
    if std::env::var_os("SCHEDTRACE_ACCEPT").is_some() {
        // From the end, so that the places before stay where they are.
        for (recipe, answer) in recipes.iter().zip(&answers).rev() {
            text.replace_range(recipe.place.clone(), answer);
        }
        fs::write(file(), text).unwrap();
        return;
    }
    for (recipe, answer) in recipes.iter().zip(&answers) {
        assert!(
            recipe.answer == *answer,
            "`{}` has another answer now: see docs/cookbook.md, or accept with SCHEDTRACE_ACCEPT=1; it is\n{answer}",
            recipe.question
        );
    }
}

#[test]
fn the_cookbook_has_questions_enough_and_answers_short_enough() {
    let text = fs::read_to_string(file()).unwrap();
    let recipes = recipes(&text);
    let questions: BTreeSet<&str> = recipes.iter().map(|recipe| &*recipe.question).collect();
    assert!(questions.len() >= 30 && questions.len() == recipes.len(), "{} questions", questions.len());
    let known = recipes.iter().filter(|recipe| recipe.asked_by_perfetto).count();
    assert!(known >= 10, "{known} questions that Perfetto asks, too");
    for Recipe { question, traces, options, answer, .. } in &recipes {
        assert!(question.ends_with('?') && !traces.is_empty(), "{question}");
        let widest = answer.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!((1..=MOST_COLUMNS).contains(&widest), "the answer of `{question}` has {widest} columns");
        // The first line has the names; another format is no table.
        let rows = answer.lines().count() - 1;
        let is_table = !options.iter().any(|option| option == "--format");
        assert!(!is_table || rows <= MOST_ROWS, "the answer of `{question}` has {rows} rows");
    }
}
