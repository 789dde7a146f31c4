//! In place of a view that needs events, on a machine of which there are none.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::{Paragraph, Wrap};
use schedtrace_core::analysis::GroupBy;

use super::system::named;
use super::{Cx, View};
use crate::engine::Wants;
use crate::keys::Action;
use crate::sheet::{Column, Sheet, Value, printable};

pub(super) struct Without(String);

impl Without {
    pub(super) fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

const WAYS: &[Column] = &[
    Column { name: "THIS VIEW NEEDS EVENTS, AND THERE ARE NONE", about: "What can be done.", width: 44, rank: 0 },
    Column { name: "HOW", about: "By which command or key.", width: 0, rank: 0 },
];

impl View for Without {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        Wants::default()
    }

    fn height(&self, _: &Cx<'_>, area: Rect) -> u16 {
        let letters = u16::try_from(self.0.chars().count()).unwrap_or(u16::MAX);
        // One more: words are not broken. And one that stays empty.
        (letters.div_ceil(area.width.max(1)).saturating_add(2)).min(area.height / 2)
    }

    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        let why = Paragraph::new(printable(&self.0)).style(cx.theme.warn).wrap(Wrap::default());
        frame.render_widget(why, area);
    }

    fn sheets(&self, _: &Cx<'_>) -> Vec<Sheet> {
        let ways = [
            ("run it as root, this once", "sudo schedtrace top"),
            ("or let this binary record, for everybody", "sudo setcap cap_bpf,cap_perfmon+ep $(which schedtrace)"),
            ("or look at a trace that somebody recorded", "schedtrace top run.schedtrace"),
            ("see what recording lacks here", "the view `doctor`"),
            ("what works without events", "overview, tasks, CPUs, interrupts, disks, power, memory, network"),
        ];
        let rows = ways.map(|(what, how)| named(vec![Value::text(what), Value::text(how.to_owned())]));
        vec![Sheet::new("what to do", WAYS, rows.into())]
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Doctor, Action::Overview, Action::Tasks, Action::Back]
    }
}
