//! The events themselves: the newest last.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::{Paragraph, Wrap};
use schedtrace_core::analysis::GroupBy;
use schedtrace_core::{EventFilter, LoggedEvent, Nanos, Task};

use super::{Cx, Effect, Name, View};
use crate::engine::{Log, Range, Wants};
use crate::keys::Action;
use crate::sheet::{Column, Row, Sheet, Target, Value, printable};

/// So many are kept: the last of the window.
const MOST: usize = 5_000;
/// As much time as is shown before and after an event that is opened.
const AROUND: Nanos = Nanos(500_000);

/// What is typed is read as an [`EventFilter`]; what was read last holds until what is typed can be read again.
#[derive(Default)]
pub(super) struct Events {
    typed: String,
    filter: String,
    wrong: Option<String>,
}

const EVENTS: &[Column] = &[
    Column { name: "AT", about: "When, in seconds from the beginning of the recording.", width: 12, rank: 0 },
    Column { name: "CPU", about: "Where.", width: 5, rank: 1 },
    Column { name: "EVENT", about: "What happened.", width: 18, rank: 0 },
    Column { name: "TASK", about: "Who runs now, is woken, moves: whom it is about.", width: 24, rank: 1 },
    Column { name: "OTHER", about: "Who left the CPU, was current there, or is the parent.", width: 24, rank: 3 },
    Column { name: "FIELDS", about: "What else it says, by the names that filters know.", width: 0, rank: 2 },
];

impl View for Events {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        let log = Log { filter: self.filter.clone(), until: None, most: MOST };
        // The standard study knows what is missing.
        Wants { log: Some(log), ..Wants::default().sched(GroupBy::Llc) }
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let Some(logged) = &cx.picture.log else { return Vec::new() };
        let title = match logged.of.filter.as_str() {
            "" => "events, the newest last".to_owned(),
            filter => format!("events with {filter}, the newest last"),
        };
        let total = usize::try_from(logged.total).unwrap_or(usize::MAX);
        let empty = "no event of this time is such a one: / changes the filter, 0 shows all of the time";
        let sheet = Sheet::new(title, EVENTS, logged.events.iter().map(row).collect());
        vec![sheet.of(total).newest_last().or(empty)]
    }

    fn height(&self, _: &Cx<'_>, _: Rect) -> u16 {
        if self.wrong.is_some() { 2 } else { 0 }
    }

    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        if let Some(why) = &self.wrong {
            let why = format!("not a filter yet: {}", printable(why));
            frame.render_widget(Paragraph::new(why).style(cx.theme.warn).wrap(Wrap { trim: true }), area);
        }
    }

    fn filter(&self) -> Option<&str> {
        Some(&self.typed)
    }

    fn set_filter(&mut self, text: String) {
        self.wrong = match text.trim() {
            "" => None,
            text => text.parse::<EventFilter>().err().map(|why| why.to_string()),
        };
        if self.wrong.is_none() {
            text.trim().clone_into(&mut self.filter);
        }
        self.typed = text;
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Open, Action::Explain, Action::Filter, Action::Pause, Action::Last]
    }

    /// The moment, CPU by CPU.
    fn open(&self, target: &Target) -> Option<Effect> {
        let Target::Moment { from, until, .. } = target else { return None };
        Some(Effect::At(Name::Timeline.into(), Range::Between(*from - AROUND, *until + AROUND)))
    }
}

fn row(told: &LoggedEvent) -> Row {
    let who = |task: Option<Task>| {
        let name = |task: Task| match task.tid {
            0 => "idle".to_owned(),
            tid => format!("{}[{tid}]", task.comm),
        };
        Value::text(task.map_or_else(String::new, name))
    };
    let fields = told.fields.iter().map(|(name, text)| format!("{name}={text}"));
    let at = told.event.ts;
    Row {
        target: Target::Moment {
            from: at,
            until: at,
            tid: told.task.map(|task| task.tid).filter(|tid| *tid > 0),
            cpu: Some(told.event.cpu),
        },
        depth: 0,
        cells: vec![
            Value::Moment(at),
            Value::Count(told.event.cpu.0.into()),
            Value::text(told.event.kind.kind().name()),
            who(told.task),
            who(told.other),
            Value::text(fields.collect::<Vec<_>>().join(" ")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_yet_leaves_what_could_be() {
        let mut view = Events::default();
        let wanted = |view: &Events| view.wants(GroupBy::Task, 80).log.map(|log| log.filter);
        view.set_filter("cpu = 3".into());
        view.set_filter("cpu = 3 and co".into());
        assert_eq!((view.filter(), wanted(&view).as_deref()), (Some("cpu = 3 and co"), Some("cpu = 3")));
        assert!(view.wrong.as_ref().is_some_and(|why| why.contains("`co`")), "{:?}", view.wrong);
        view.set_filter(" ".into());
        assert_eq!((wanted(&view).as_deref(), &view.wrong), (Some(""), &None));
    }
}
