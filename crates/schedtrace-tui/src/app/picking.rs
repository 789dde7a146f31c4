//! Lists over a view: which columns a table has, and which events are recorded.

use std::ops::ControlFlow;

use ratatui::crossterm::event::{KeyCode, KeyEvent};
use schedtrace_core::Kind;

use super::{App, Over, Wish};
use crate::config::Chosen;
use crate::filter::nearest;
use crate::jobs;
use crate::keys::Action;
use crate::picker::{self, Item, Picked, Picker, Picks};
use crate::sheet::Sheet;
use crate::views::Name;

impl App {
    /// Opens the list that somebody asks for.
    pub(super) fn open_picker(&mut self, action: Action) {
        match action {
            Action::Columns => self.open_columns(),
            _ => self.open_events(),
        }
    }

    fn open_columns(&mut self) {
        let Some((grid, sheet)) = self.panel() else {
            self.message = Some("there is no table here".to_owned());
            return;
        };
        let item = |(at, head): (usize, crate::sheet::Head<'_>)| {
            let is_on = at == 0 || !grid.hidden.iter().any(|name| name.eq_ignore_ascii_case(head.name));
            Item {
                name: head.name.to_owned(),
                is_on,
                fixed: (at == 0).then_some("says what a row is"),
                note: if is_on && !grid.has_drawn(at) { "no room" } else { "" }.to_owned(),
                about: head.about.to_owned(),
                is_group: false,
            }
        };
        let items: Vec<Item> = sheet.columns.heads().into_iter().enumerate().map(item).collect();
        self.over = Over::Picker(Picker::new(Picks::Columns, items));
    }

    fn open_events(&mut self) {
        let mut items = picker::events(&self.origin.meta().probes, self.counts.as_ref());
        if !self.origin.is_live() || self.origin.without().is_some() {
            items.iter_mut().for_each(|item| item.fixed = Some("as it was recorded"));
        }
        self.over = Over::Picker(Picker::new(Picks::Events, items));
        let store = self.origin.store().clone();
        if let Err(error) = self.out.jobs.look(move || jobs::count(&store)) {
            self.message = Some(error.to_string());
        }
    }

    /// Takes how many events there are of each kind.
    pub(super) fn counted(&mut self, counts: std::collections::BTreeMap<Kind, u64>) {
        if let Over::Picker(Picker { what: Picks::Events, items, .. }) = &mut self.over {
            let of = |item: &Item| counts.iter().find(|(kind, _)| kind.name() == item.name).map_or(0, |(_, n)| *n);
            items.iter_mut().filter(|item| !item.is_group).for_each(|item| item.note = of(item).to_string());
        }
        self.counts = Some(counts);
    }

    pub(super) fn pick(&mut self, key: KeyEvent, mut list: Picker) -> ControlFlow<()> {
        let picked = match (list.press(key), list.what) {
            (Picked::Closed, _) => return ControlFlow::Continue(()),
            // Of a column there is nothing else to choose.
            (Picked::Chosen(_), Picks::Columns) => list.press(KeyCode::Char(' ')),
            (picked, _) => picked,
        };
        match (picked, list.what) {
            (Picked::Turned(at), Picks::Columns) => {
                if let Some(item) = list.items.get(at) {
                    self.choose_column(&item.name, !item.is_on);
                }
            }
            (Picked::Chosen(_), Picks::Events) if list.is_changed => return self.collect(list),
            (Picked::Chosen(at), Picks::Events) => {
                if let Some(item) = list.items.get(at) {
                    self.show_events(&item.name);
                }
                return ControlFlow::Continue(());
            }
            _ => {}
        }
        self.over = Over::Picker(list);
        ControlFlow::Continue(())
    }

    /// The events of a kind, or of a group.
    fn show_events(&mut self, name: &str) {
        if let Some(why) = self.origin.without() {
            self.message = Some(format!("there are no events: {why}"));
            return;
        }
        self.go(Name::Events.into());
        self.views[self.at].view.set_filter(format!("event = {name}"));
    }

    /// Begins anew with other events, if that can be; else says how somebody else can.
    fn collect(&mut self, list: Picker) -> ControlFlow<()> {
        let events = picker::selection(&list.items);
        if events.is_empty() {
            self.message = Some("nothing would be recorded: turn something on".to_owned());
            self.over = Over::Picker(list);
            return ControlFlow::Continue(());
        }
        if self.settings.begins_anew && !self.warns() {
            self.again = Some(events);
            return ControlFlow::Break(());
        }
        // Else something is being written still, and that was said.
        if !self.settings.begins_anew {
            let command = format!("sudo schedtrace top --events {events}");
            self.message = Some(format!("{command} (copied): it takes the privileges that were given up here"));
            self.out.wishes.push(Wish::Copy(command));
        }
        ControlFlow::Continue(())
    }

    /// Shows or hides a column of the table that has the keys, now and the next time.
    fn choose_column(&mut self, column: &str, hidden: bool) {
        let (view, table) = (self.name(), self.views[self.at].panel);
        // Those of an answer are others the next time.
        if view == Name::Sql {
            if let Some((grid, _)) = self.panel() {
                grid.hidden.retain(|name| name != column);
                grid.hidden.extend(hidden.then(|| column.to_owned()));
            }
            return;
        }
        self.columns.retain(|it| it.view != view.text() || it.table != table || it.column != column);
        self.columns.push(Chosen { view: view.text().to_owned(), table, column: column.to_owned(), hidden });
        for shown in &mut self.views {
            if shown.place.name == view
                && let Some(grid) = shown.grids.get_mut(table)
            {
                grid.hidden = hidden_of(view, table, &self.settings.hidden, &self.columns);
            }
        }
    }
}

/// What the configuration hides of a view, but none of its tables has: the first such name, and what was probably meant.
pub(super) fn unknown_column(hidden: &[String], sheets: &[Sheet]) -> Option<String> {
    let heads = || sheets.iter().flat_map(|sheet| sheet.columns.heads()).map(|head| head.name.to_lowercase());
    let name = hidden.iter().find(|name| !heads().any(|head| head == name.to_lowercase()))?;
    let near =
        nearest(&name.to_lowercase(), heads()).map_or_else(String::new, |near| format!(": do you mean `{near}`?"));
    Some(format!("no column here is called `{name}`, which the configuration hides{near}"))
}

/// Which columns of a table are not shown: those that the configuration names, but for what was chosen since.
pub(super) fn hidden_of(
    view: Name,
    table: usize,
    configured: &std::collections::BTreeMap<String, Vec<String>>,
    chosen: &[Chosen],
) -> Vec<String> {
    let mut hidden = configured.get(view.text()).cloned().unwrap_or_default();
    for choice in chosen.iter().filter(|choice| choice.view == view.text() && choice.table == table) {
        hidden.retain(|name| !name.eq_ignore_ascii_case(&choice.column));
        hidden.extend(choice.hidden.then(|| choice.column.clone()));
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hidden_columns_are_looked_at() {
        use crate::sheet::Column;
        const COLUMNS: &[Column] = &[Column { name: "MOST AT ONCE", about: "", width: 0, rank: 0 }];
        let told = |name: &str| unknown_column(&[name.to_owned()], &[Sheet::new("", COLUMNS, Vec::new())]);
        assert_eq!(told("most at once"), None);
        assert!(told("MOST AT ONE").is_some_and(|told| told.contains("`most at once`?")));
    }

    #[test]
    fn what_is_chosen_goes_before_what_is_configured() {
        let configured = [("tasks".to_owned(), vec!["forced".to_owned(), "moved".to_owned()])].into();
        let choice =
            |table, column: &str, hidden| Chosen { view: "tasks".into(), table, column: column.into(), hidden };
        let chosen = [choice(0, "FORCED", false), choice(0, "P50", true), choice(1, "MOVED", false)];
        assert_eq!(hidden_of(Name::Tasks, 0, &configured, &chosen), ["moved", "P50"]);
        assert_eq!(hidden_of(Name::Tasks, 1, &configured, &chosen), ["forced"]);
        assert!(hidden_of(Name::Cpus, 0, &configured, &chosen).is_empty());
    }
}
