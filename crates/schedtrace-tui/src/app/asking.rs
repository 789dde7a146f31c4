//! Questions in SQL: what is typed goes to a thread of its own, and comes back as a table.

use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::App;
use crate::jobs::Done;
use crate::prompt::Pressed;
use crate::sql::{self, Answer, Question};
use crate::views::Name;

impl App {
    /// Gives a key to the line, if one is typed; whether it took it.
    pub(super) fn type_sql(&mut self, key: KeyEvent) -> bool {
        if self.name() != Name::Sql || self.origin.without().is_some() {
            return false;
        }
        if key.code == KeyCode::Esc && self.prompt.cancel() {
            self.message = Some("the query was ended".to_owned());
            return true;
        }
        if !self.prompt.is_typing() {
            return false;
        }
        self.message = None;
        match self.prompt.press(key) {
            Pressed::Taken => {}
            Pressed::Ask(sql) => self.ask_sql(sql),
            Pressed::Passed => return false,
        }
        true
    }

    /// Keys go to the line from now on.
    pub(super) fn begin_sql(&mut self) {
        if self.origin.without().is_none() {
            self.prompt.set_typing(true);
        }
    }

    /// Shows what can be asked, or puts a statement in the line.
    pub(super) fn take_statement(&mut self, statement: Option<String>) {
        match statement {
            Some(text) => {
                self.prompt.set_line(&text);
                self.prompt.set_typing(true);
            }
            None => {
                self.prompt.answer = None;
                self.forget_grids();
            }
        }
    }

    fn ask_sql(&mut self, sql: String) {
        let (serial, cancelled) = self.prompt.begin();
        let window = self.picture.as_ref().map(|picture| picture.window).unwrap_or_default();
        let question = Question { sql, window, started: self.origin.meta().started };
        let store = self.origin.store().clone();
        let ask = move || {
            let answer = sql::answer(&store, &question, cancelled).map_err(|error| error.to_string());
            Done::Answer(serial, Box::new(answer))
        };
        if let Err(error) = self.out.jobs.look(ask) {
            self.prompt.cancel();
            self.message = Some(error.to_string());
        }
    }

    /// Takes an answer that is still waited for.
    pub(super) fn answered(&mut self, serial: u64, answer: Result<Answer, String>) {
        if self.prompt.take(serial, answer) {
            self.forget_grids();
        }
    }

    /// Another table has other columns: what was sorted and filtered in the one before is of no use to it.
    fn forget_grids(&mut self) {
        for shown in self.views.iter_mut().filter(|shown| shown.place.name == Name::Sql) {
            shown.grids.clear();
        }
        self.make_sheets();
    }
}
