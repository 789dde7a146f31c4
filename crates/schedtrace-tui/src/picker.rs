//! A list over a view of what can be on or off: the columns of a table, the events of a recording. What is typed narrows it.

use std::collections::BTreeMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent};
use schedtrace_core::{EventGroup, Kind, Probe};

use crate::line::Line;

/// What is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picks {
    Columns,
    Events,
}

/// Something that is on or off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) is_on: bool,
    /// It stays as it is, for this reason.
    pub(crate) fixed: Option<&'static str>,
    /// A figure or a word beside it.
    pub(crate) note: String,
    pub(crate) about: String,
    /// Those up to the next one that is none are its own.
    pub(crate) is_group: bool,
}

/// The list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picker {
    pub(crate) what: Picks,
    pub(crate) items: Vec<Item>,
    /// What is typed.
    pub(crate) line: Line,
    /// Which of those that are shown is selected.
    pub(crate) at: usize,
    /// Something is otherwise than when it was opened.
    pub(crate) is_changed: bool,
}

/// What a key has led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Picked {
    /// The list goes on.
    Going,
    /// This is on, or off, from now on.
    Turned(usize),
    /// This was chosen.
    Chosen(usize),
    Closed,
}

impl Picker {
    pub(crate) fn new(what: Picks, items: Vec<Item>) -> Self {
        Self { what, items, line: Line::default(), at: 0, is_changed: false }
    }

    /// Which items are shown, in their order: those that have what was typed in their name; of a group, with it.
    pub(crate) fn shown(&self) -> Vec<usize> {
        let text = self.line.text().to_lowercase();
        let mut group_has = false;
        let has = |(at, item): (usize, &Item)| {
            let has = item.name.to_lowercase().contains(&text);
            group_has = if item.is_group { has } else { group_has };
            (has || group_has && !item.is_group).then_some(at)
        };
        self.items.iter().enumerate().filter_map(has).collect()
    }

    pub(crate) fn selected(&self) -> Option<usize> {
        self.shown().get(self.at).copied()
    }

    pub(crate) fn press(&mut self, key: impl Into<KeyEvent>) -> Picked {
        let key = key.into();
        let last = self.shown().len().saturating_sub(1);
        match (key.code, self.selected()) {
            (KeyCode::Esc, _) => return Picked::Closed,
            (KeyCode::Enter, Some(at)) => return Picked::Chosen(at),
            (KeyCode::Char(' '), Some(at)) => return self.turn(at),
            (KeyCode::Char(' '), None) => {}
            (KeyCode::Up, _) => self.at = self.at.saturating_sub(1),
            (KeyCode::Down, _) => self.at = (self.at + 1).min(last),
            (KeyCode::PageUp, _) => self.at = self.at.saturating_sub(10),
            (KeyCode::PageDown, _) => self.at = (self.at + 10).min(last),
            (KeyCode::Home, _) => self.at = 0,
            (KeyCode::End, _) => self.at = last,
            _ => {
                let before = self.line.letters().len();
                self.line.press(key);
                if self.line.letters().len() != before {
                    self.at = 0;
                }
            }
        }
        Picked::Going
    }

    /// Turns something on or off, and with a group all that belongs to it.
    fn turn(&mut self, at: usize) -> Picked {
        let Some(item) = self.items.get(at).filter(|item| item.fixed.is_none()) else { return Picked::Going };
        let (is_on, is_group) = (!item.is_on, item.is_group);
        let own = self.items.iter().skip(at + 1).take_while(|item| is_group && !item.is_group).count();
        for item in self.items.iter_mut().skip(at).take(own + 1).filter(|item| item.fixed.is_none()) {
            item.is_on = is_on;
        }
        self.is_changed = true;
        Picked::Turned(at)
    }
}

/// All events by their groups: whether each is recorded, and how many there are where that is known.
pub(crate) fn events(probes: &[Probe], counts: Option<&BTreeMap<Kind, u64>>) -> Vec<Item> {
    let mut items = Vec::new();
    for (name, group) in EventGroup::ALL {
        let kinds: Vec<Kind> = Kind::selectable().filter(|kind| kind.group() == group).collect();
        let probe = |kind: &Kind| probes.iter().find(|probe| probe.kind == *kind);
        let is_on = |kind: &Kind| probe(kind).is_some_and(|probe| probe.on);
        let on = kinds.iter().filter(|kind| is_on(kind)).count();
        items.push(Item {
            name: name.to_owned(),
            is_on: on > 0,
            fixed: None,
            note: format!("{on} of {}", kinds.len()),
            about: String::new(),
            is_group: true,
        });
        items.extend(kinds.iter().map(|kind| {
            let why = probe(kind).filter(|probe| !probe.on).and_then(|probe| probe.why.clone());
            Item {
                name: kind.name().to_owned(),
                is_on: is_on(kind),
                fixed: None,
                note: counts.map_or_else(String::new, |counts| counts.get(kind).copied().unwrap_or(0).to_string()),
                about: why.map_or_else(|| sentence(kind.about()), |why| format!("not here: {why}")),
                is_group: false,
            }
        }));
    }
    items
}

/// The first sentence, without the kernel's name that may stand before it.
fn sentence(about: &str) -> String {
    let about = if about.starts_with('`') { about.split_once(": ").map_or(about, |(_, rest)| rest) } else { about };
    about.split_once(". ").map_or(about, |(first, _)| first).trim_end_matches('.').to_owned()
}

/// What is on, as `--events` takes it.
pub(crate) fn selection(items: &[Item]) -> String {
    let is_on = |kind: &Kind| items.iter().any(|item| !item.is_group && item.is_on && item.name == kind.name());
    let on: Vec<Kind> = Kind::selectable().filter(is_on).collect();
    let all_default = Kind::selectable().all(|kind| !kind.is_default() || on.contains(&kind));
    let mut names = if all_default { vec!["default"] } else { Vec::new() };
    let mut left: Vec<Kind> = on.into_iter().filter(|kind| !(all_default && kind.is_default())).collect();
    for (name, group) in EventGroup::ALL {
        let rest = || Kind::selectable().filter(|kind| kind.group() == group && !(all_default && kind.is_default()));
        if rest().next().is_some() && rest().all(|kind| left.contains(&kind)) {
            names.push(name);
            left.retain(|kind| kind.group() != group);
        }
    }
    names.extend(left.iter().map(|kind| kind.name()));
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(on: &[Kind]) -> Vec<Probe> {
        Kind::selectable().map(|kind| Probe { kind, on: on.contains(&kind), why: None }).collect()
    }

    fn defaults() -> Vec<Kind> {
        Kind::selectable().filter(|kind| kind.is_default()).collect()
    }

    fn item<'a>(picker: &'a Picker, name: &str) -> &'a Item {
        picker.items.iter().find(|item| item.name == name && !item.is_group).unwrap()
    }

    #[test]
    fn a_group_turns_all_of_its_own() {
        let counts = BTreeMap::from([(Kind::Switch, 7)]);
        let mut picker = Picker::new(Picks::Events, events(&probes(&defaults()), Some(&counts)));
        assert_eq!((item(&picker, "sched_switch").is_on, item(&picker, "sched_switch").note.as_str()), (true, "7"));
        assert_eq!(selection(&picker.items), "default");
        "IRQ".chars().for_each(|letter| _ = picker.press(KeyCode::Char(letter)));
        assert!(picker.shown().len() > 4, "those of the group are shown with it");
        let Picked::Turned(at) = picker.press(KeyCode::Char(' ')) else { panic!("nothing was turned") };
        assert!(picker.items[at].is_group && item(&picker, "softirq_entry").is_on && picker.is_changed);
        assert!(!item(&picker, "block_rq_issue").is_on, "no others");
        assert_eq!(selection(&picker.items), "default,irq");
        (0..3).for_each(|_| _ = picker.press(KeyCode::Backspace));
        "block_rq_iss".chars().for_each(|letter| _ = picker.press(KeyCode::Char(letter)));
        picker.press(KeyCode::Char(' '));
        assert_eq!(selection(&picker.items), "default,irq,block_rq_issue");
        assert!(
            matches!(picker.press(KeyCode::Enter), Picked::Chosen(at) if picker.items[at].name == "block_rq_issue")
        );
        assert_eq!(picker.press(KeyCode::Esc), Picked::Closed);
    }

    #[test]
    fn what_is_selected_reads_back() {
        let some = [Kind::Switch, Kind::SoftirqEntry];
        let items = events(&probes(&some), None);
        let named = selection(&items);
        let read: Vec<Kind> =
            named.split(',').flat_map(|name| name.parse::<schedtrace_core::Kinds>().unwrap().kinds).collect();
        assert_eq!(read, some, "{named}");
    }

    #[test]
    fn nothing_typed_is_too_much() {
        let mut picker = Picker::new(Picks::Columns, Vec::new());
        for key in [KeyCode::Up, KeyCode::Down, KeyCode::Enter, KeyCode::Char(' '), KeyCode::End, KeyCode::Char('x')] {
            assert_eq!(picker.press(key), Picked::Going);
        }
        assert_eq!(picker.selected(), None);
    }
}
