//! A line in which a statement is typed: with what was typed before, and names that are completed. It knows no terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::crossterm::event::{KeyCode, KeyEvent};

use crate::line::Line;
use crate::sql::{self, Answer, Table};

/// So many statements are remembered.
const REMEMBERED: usize = 200;

/// The time that is looked at, in statements.
const EDGES: [&str; 2] = ["$from", "$until"];

/// What a key has led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pressed {
    /// The line is another.
    Taken,
    /// This is to be asked.
    Ask(String),
    /// It is no key of a line's.
    Passed,
}

/// The line, what was asked, and what was answered.
#[derive(Debug, Default)]
pub(crate) struct Prompt {
    line: Line,
    is_typing: bool,
    history: Vec<String>,
    /// Which of these is shown, and what was typed before that.
    shown: Option<(usize, Line)>,
    offers: Option<Offers>,
    tables: Option<Vec<Table>>,
    serial: u64,
    /// What ends the query that runs.
    running: Option<Arc<AtomicBool>>,
    pub(crate) answer: Option<Result<Answer, String>>,
}

/// Names that begin as what was typed.
#[derive(Clone, Debug)]
struct Offers {
    from: usize,
    names: Vec<String>,
    at: Option<usize>,
}

impl Drop for Prompt {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Prompt {
    pub(crate) fn is_typing(&self) -> bool {
        self.is_typing
    }

    /// Keys go to the line, or to the table again.
    pub(crate) fn set_typing(&mut self, types: bool) {
        self.is_typing = types && sql::WITHOUT.is_none();
        self.offers = None;
    }

    pub(crate) fn set_line(&mut self, text: &str) {
        (self.line, self.shown, self.offers) = (Line::new(text), None, None);
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Names that could stand at the cursor, and which of them does.
    pub(crate) fn offers(&self) -> Option<(&[String], Option<usize>)> {
        self.offers.as_ref().map(|offers| (offers.names.as_slice(), offers.at))
    }

    /// What can be asked.
    pub(crate) fn tables(&self) -> &[Table] {
        self.tables.as_deref().unwrap_or_default()
    }

    /// Looks up, once, what can be asked.
    pub(crate) fn prepare(&mut self) {
        self.tables.get_or_insert_with(sql::tables);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Ends the query that runs; whether there was one.
    pub(crate) fn cancel(&mut self) -> bool {
        let running = self.running.take();
        running.iter().for_each(|running| running.store(true, Ordering::Relaxed));
        running.is_some()
    }

    /// The number of a new query, and what ends it; the one before is ended.
    pub(crate) fn begin(&mut self) -> (u64, Arc<AtomicBool>) {
        self.cancel();
        self.serial += 1;
        (self.serial, Arc::clone(self.running.insert(Arc::default())))
    }

    /// Takes an answer, if it is the one that is waited for; whether it was.
    pub(crate) fn take(&mut self, serial: u64, answer: Result<Answer, String>) -> bool {
        let is_awaited = self.serial == serial && self.running.take().is_some();
        if is_awaited {
            self.answer = Some(answer);
        }
        is_awaited
    }

    pub(crate) fn press(&mut self, key: KeyEvent) -> Pressed {
        if key.code == KeyCode::Tab {
            self.complete();
            return Pressed::Taken;
        }
        let offers = self.offers.take();
        match key.code {
            KeyCode::Up => self.look_back(),
            KeyCode::Down => self.look_forward(),
            KeyCode::Enter => return self.enter(),
            // The first one takes the names away, the next one leaves the line.
            KeyCode::Esc => self.is_typing = offers.is_some(),
            _ if self.line.press(key) => {}
            _ => return Pressed::Passed,
        }
        Pressed::Taken
    }

    fn enter(&mut self) -> Pressed {
        let text = self.line.text();
        let text = text.trim();
        if text.is_empty() {
            return Pressed::Taken;
        }
        if self.history.last().is_none_or(|last| last != text) {
            if self.history.len() == REMEMBERED {
                self.history.remove(0);
            }
            self.history.push(text.to_owned());
        }
        (self.shown, self.is_typing) = (None, false);
        Pressed::Ask(text.to_owned())
    }

    fn look_back(&mut self) {
        let (at, typed) = match self.shown.take() {
            Some((at, typed)) => (at.saturating_sub(1), typed),
            None => match self.history.len().checked_sub(1) {
                Some(last) => (last, self.line.clone()),
                None => return,
            },
        };
        self.show(at, typed);
    }

    fn look_forward(&mut self) {
        let Some((at, typed)) = self.shown.take() else { return };
        if at + 1 < self.history.len() {
            return self.show(at + 1, typed);
        }
        self.line = typed;
    }

    fn show(&mut self, at: usize, typed: Line) {
        self.line = self.history.get(at).map(|text| Line::new(text)).unwrap_or_default();
        self.shown = Some((at, typed));
    }

    /// Adds what all names that fit have in common; a second time goes through them.
    fn complete(&mut self) {
        if let Some(mut offers) = self.offers.take() {
            let at = offers.at.map_or(0, |at| (at + 1) % offers.names.len().max(1));
            if let Some(name) = offers.names.get(at) {
                self.line.replace(offers.from, &name.clone());
                offers.at = Some(at);
            }
            self.offers = Some(offers);
            return;
        }
        self.prepare();
        let is_name = |letter: &char| letter.is_alphanumeric() || matches!(letter, '_' | '$');
        let before = &self.line.letters()[..self.line.cursor()];
        let from = before.iter().rposition(|letter| !is_name(letter)).map_or(0, |at| at + 1);
        let begun: String = before[from..].iter().collect::<String>().to_lowercase();
        let names = self.names(from, &begun);
        let Some(first) = names.first() else { return };
        let common = names.iter().fold(first.as_str(), |common, name| {
            let same = common.char_indices().zip(name.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
            &common[..same.unwrap_or(common.len().min(name.len()))]
        });
        if common.len() > begun.len() || names.len() == 1 {
            self.line.replace(from, common);
        }
        if names.len() > 1 {
            self.offers = Some(Offers { from, names, at: None });
        }
    }

    /// Names that begin so: behind `from` those of tables; else of the columns of the tables that the line names, or of all.
    fn names(&self, from: usize, begun: &str) -> Vec<String> {
        let line = self.line.text().to_lowercase();
        let before: String = self.line.letters()[..from].iter().collect::<String>().to_lowercase();
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let last = before.trim_end().rsplit(char::is_whitespace).next().unwrap_or_default();
        if last == "between" && EDGES[0].starts_with(begun) {
            return vec![EDGES.join(" and ")];
        }
        let wants_table = matches!(last, "from" | "join");
        let is_named = |table: &&Table| words.contains(&table.name.as_str());
        let any_named = self.tables().iter().any(|table| is_named(&table));
        let columns =
            self.tables().iter().filter(|table| !any_named || is_named(table)).flat_map(|table| &table.columns);
        let tables = self.tables().iter().map(|table| &table.name);
        let words = sql::WORDS.iter().chain(&EDGES).map(|word| (*word).to_owned());
        let mut names: Vec<String> = match wants_table {
            true => tables.cloned().collect(),
            false => columns.chain(tables).cloned().chain(words).collect(),
        };
        names.retain(|name| name.starts_with(begun));
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyModifiers;

    fn prompt() -> Prompt {
        let table = |name: &str, columns: &[&str]| Table {
            name: name.into(),
            about: String::new(),
            columns: columns.iter().map(|&name| name.into()).collect(),
        };
        let tables = vec![
            table("thread_state", &["ts", "dur", "comm", "cause"]),
            table("wakeup", &["ts", "dur", "waker"]),
            table("wakers", &["times"]),
        ];
        let mut prompt = Prompt::default();
        (prompt.is_typing, prompt.tables) = (true, Some(tables));
        prompt
    }

    fn typed(prompt: &mut Prompt, text: &str) -> String {
        text.chars().for_each(|letter| _ = prompt.press(KeyCode::Char(letter).into()));
        line(prompt)
    }

    fn line(prompt: &Prompt) -> String {
        let line = prompt.line();
        let mut letters = line.letters().to_vec();
        letters.insert(line.cursor(), '|');
        letters.into_iter().collect()
    }

    fn press(prompt: &mut Prompt, keys: &[KeyCode]) -> String {
        keys.iter().for_each(|&key| _ = prompt.press(key.into()));
        line(prompt)
    }

    #[test]
    fn what_is_no_key_of_a_line_is_passed_on() {
        let mut prompt = prompt();
        for letter in ['p', 'z'] {
            let held = KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
            assert_eq!(prompt.press(held), Pressed::Passed);
        }
        assert_eq!(prompt.press(KeyCode::PageDown.into()), Pressed::Passed);
    }

    #[test]
    fn what_was_asked_comes_back() {
        use KeyCode::{Down, Enter, Up};
        let mut prompt = prompt();
        assert_eq!(press(&mut prompt, &[Up, Down, Enter]), "|");
        for text in ["select 1", "select 1", " select 2 "] {
            prompt.set_line(text);
            assert_eq!(prompt.press(Enter.into()), Pressed::Ask(text.trim().to_owned()));
        }
        prompt.set_line("sel");
        assert_eq!(press(&mut prompt, &[Up]), "select 2|");
        assert_eq!(press(&mut prompt, &[Up, Up, Up]), "select 1|", "the same twice is remembered once");
        assert_eq!(press(&mut prompt, &[Down, Down]), "sel|", "what was typed is there again");
    }

    #[test]
    fn names_are_completed() {
        use KeyCode::Tab;
        let mut prompt = prompt();
        typed(&mut prompt, "select * from wak");
        assert_eq!(press(&mut prompt, &[Tab]), "select * from wake|");
        assert_eq!(prompt.offers(), Some((["wakers".to_owned(), "wakeup".to_owned()].as_slice(), None)));
        assert_eq!(press(&mut prompt, &[Tab, Tab]), "select * from wakeup|");
        assert_eq!(press(&mut prompt, &[Tab]), "select * from wakers|", "once round");
        prompt.set_line("select c from thread_state");
        (0..18).for_each(|_| _ = prompt.press(KeyCode::Left.into()));
        assert_eq!(press(&mut prompt, &[Tab]), "select c| from thread_state");
        let offered = prompt.offers().map(|(names, _)| names.join(" "));
        let all = if sql::WORDS.is_empty() { "cause comm" } else { "case cause comm count(*)" };
        assert_eq!(offered.as_deref(), Some(all), "columns of the table that is named");
        prompt.set_line("select w.wake");
        assert_eq!(press(&mut prompt, &[Tab]), "select w.wake|", "nothing more in common");
        prompt.set_line("SELECT $u");
        assert_eq!(press(&mut prompt, &[Tab]), "SELECT $until|");
        prompt.set_line("select ts from wakeup where ts between ");
        assert_eq!(press(&mut prompt, &[Tab]), "select ts from wakeup where ts between $from and $until|");
        prompt.set_line("select zzz");
        assert_eq!(press(&mut prompt, &[Tab, Tab]), "select zzz|");
    }

    #[test]
    fn only_the_answer_that_is_waited_for_is_taken() {
        let mut prompt = prompt();
        let (first, ends_first) = prompt.begin();
        let (second, ends_second) = prompt.begin();
        assert!(ends_first.load(Ordering::Relaxed), "a new query ends the old one");
        assert!(!prompt.take(first, Err("old".into())) && prompt.answer.is_none());
        assert!(prompt.cancel() && !prompt.cancel());
        assert!(ends_second.load(Ordering::Relaxed) && !prompt.take(second, Err("cancelled".into())));
        let (third, ends_third) = prompt.begin();
        assert!(prompt.take(third, Err("no such table".into())));
        assert_eq!(prompt.answer.as_ref().and_then(|answer| answer.as_ref().err()), Some(&"no such table".to_owned()));
        drop(prompt);
        assert!(!ends_third.load(Ordering::Relaxed), "it had ended");
    }
}
