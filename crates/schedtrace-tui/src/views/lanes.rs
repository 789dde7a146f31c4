//! How the lanes of a timeline are drawn: a row of letters each, in colours that say the same.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use schedtrace_core::Nanos;
use schedtrace_core::analysis::{Lane, Lanes, TimelineReport};

use crate::sheet::printable;
use crate::theme::Theme;

/// As wide as the name of a lane.
pub(super) const LABEL: u16 = 18;
/// From one mark of the ruler to the next.
const TICK: usize = 20;

/// How a lane is to be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// The column under the cursor, if the cursor is in this lane.
    pub(super) cursor: Option<usize>,
    /// Whether names stand where there is room for them.
    pub(super) names: bool,
}

/// What a lane is called.
pub(super) fn name(lane: &Lane) -> String {
    match (&lane.cpu, &lane.task) {
        (Some(cpu), _) => format!("CPU {cpu}"),
        (None, Some(who)) => printable(&who.to_string()),
        (None, None) => "?".to_owned(),
    }
}

/// So many columns wide on the screen, on which some letters take two and some none.
fn fit(name: &str, width: usize) -> String {
    let wide = |text: &str| Span::raw(text).width();
    let ends = name.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let end = ends.take_while(|&end| wide(&name[..end]) <= width).last().unwrap_or(0);
    let shown = &name[..end];
    format!("{shown}{}", " ".repeat(width.saturating_sub(wide(shown))))
}

pub(super) fn line(lane: &Lane, timeline: &TimelineReport, look: Look, theme: &Theme) -> Line<'static> {
    let label = if look.cursor.is_some() { theme.head } else { Style::new() };
    let width = usize::from(LABEL) - 1;
    let mut line = Line::from(Span::styled(format!("{} ", fit(&name(lane), width)), label));
    let letters: Vec<char> = lane.drawn(timeline.columns, timeline.resolution_ns).chars().collect();
    let mut shown: Vec<char> = letters.iter().map(|letter| theme.glyphs.lane(*letter)).collect();
    if look.names {
        with_names(&mut shown, &letters, lane);
    }
    let style = |at: usize| {
        let style = painted(letters[at], theme);
        if look.cursor == Some(at) { style.patch(theme.selected) } else { style }
    };
    // A span for all that look alike.
    let mut from = 0;
    while from < shown.len() {
        let painted = style(from);
        let until = (from..shown.len()).find(|&at| style(at) != painted).unwrap_or(shown.len());
        line.push_span(Span::styled(shown[from..until].iter().collect::<String>(), painted));
        from = until;
    }
    line
}

/// What the signs of lanes mean: as core says it of its letters, in the signs that stand for them; as much as there is room for.
pub(super) fn legend(lanes: Lanes, theme: &Theme, width: u16) -> String {
    let told = |part: &str| {
        let mut letters = part.chars();
        match (letters.next(), letters.as_str()) {
            // A sign, and what it means; `blank unknown` has none.
            (Some(letter), meaning) if meaning.starts_with(' ') => format!("{}{meaning}", theme.glyphs.lane(letter)),
            _ => part.to_owned(),
        }
    };
    let mut text = String::new();
    for part in lanes.legend().split(", ").map(told) {
        let more = if text.is_empty() { part } else { format!(", {part}") };
        if text.chars().count() + more.chars().count() > usize::from(width) {
            break;
        }
        text.push_str(&more);
    }
    text
}

/// Writes who ran into each long stretch of one task, between letters that go on saying what the stretch was.
fn with_names(shown: &mut [char], letters: &[char], lane: &Lane) {
    let who = |at: usize| lane.longest.get(at).and_then(Option::as_ref).filter(|_| matches!(letters[at], '#' | 'w'));
    let mut from = 0;
    while from < letters.len() {
        let Some(first) = who(from) else {
            from += 1;
            continue;
        };
        let is_other = |at: &usize| who(*at).is_none_or(|who| who.task != first.task);
        let until = (from..letters.len()).find(is_other).unwrap_or(letters.len());
        // What is not as wide as a letter would shift the rest.
        let name: String = first.comm.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        if until - from >= name.len() + 4 {
            let place = &mut shown[from + 1..from + name.len() + 3];
            place.iter_mut().zip(format!("[{name}]").chars()).for_each(|(to, letter)| *to = letter);
        }
        from = until;
    }
}

/// How far it is from the first column, now and then, and where something is marked.
pub(super) fn ruler(timeline: &TimelineReport, mark: Option<Nanos>, theme: &Theme) -> Line<'static> {
    let mut text: Vec<char> = Vec::new();
    for at in (0..timeline.columns).step_by(TICK) {
        let tick = format!("|{}", Nanos(timeline.resolution_ns.0.saturating_mul(at as u64)));
        let room = TICK.min(timeline.columns - at);
        // One that would be cut off says something else.
        let tick = if tick.len() < room { tick } else { "|".to_owned() };
        text.extend(format!("{tick:<room$}").chars());
    }
    let mut line = Line::from(" ".repeat(usize::from(LABEL)));
    let marked = mark.and_then(|mark| column(timeline, mark));
    match marked.filter(|at| *at < text.len()) {
        None => line.push_span(Span::styled(text.into_iter().collect::<String>(), theme.dim)),
        Some(at) => {
            let (before, after) = (text[..at].iter(), text[at + 1..].iter());
            line.push_span(Span::styled(before.collect::<String>(), theme.dim));
            line.push_span(Span::styled(theme.glyphs.sorted(false), theme.key));
            line.push_span(Span::styled(after.collect::<String>(), theme.dim));
        }
    }
    line
}

/// In which column a moment is.
pub(super) fn column(timeline: &TimelineReport, at: Nanos) -> Option<usize> {
    let offset = at.0.checked_sub(timeline.from_ns.0)? / timeline.resolution_ns.0.max(1);
    usize::try_from(offset).ok().filter(|at| *at < timeline.columns)
}

/// When a column begins.
pub(super) fn moment(timeline: &TimelineReport, column: usize) -> Nanos {
    timeline.from_ns + Nanos(timeline.resolution_ns.0.saturating_mul(column as u64))
}

fn painted(letter: char, theme: &Theme) -> Style {
    match letter {
        'w' => theme.bad,
        'D' => theme.warn,
        '#' | '+' => theme.good,
        _ => theme.dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::theme::Look as Colours;
    use schedtrace_core::analysis::Who;
    use schedtrace_core::{Cpu, TaskId};

    fn lane(comm: &str) -> (Lane, TimelineReport) {
        let who = Who { task: TaskId(7), tid: 7, pid: 7, comm: comm.into() };
        let lane = Lane {
            cpu: Some(Cpu(3)),
            task: None,
            running_ns: vec![9, 9, 9, 9, 9, 9, 9, 9, 0, 9],
            waiting_ns: vec![0, 0, 0, 0, 0, 9, 9, 9, 0, 0],
            io_ns: Vec::new(),
            idle_ns: vec![1; 10],
            longest: (0..10).map(|at| (at != 8).then(|| who.clone())).collect(),
        };
        let timeline = TimelineReport {
            resolution_ns: Nanos(10),
            from_ns: Nanos(100),
            columns: 10,
            lanes: vec![lane.clone()],
            lanes_total: 1,
            others_ns: 0,
        };
        (lane, timeline)
    }

    fn drawn(comm: &str, names: bool) -> String {
        let (lane, timeline) = lane(comm);
        let theme = Theme::new(Colours::Dark, true);
        let line = line(&lane, &timeline, Look { cursor: Some(3), names }, &theme);
        line.spans.iter().skip(1).map(|span| span.content.as_ref()).collect()
    }

    #[test]
    fn names_stand_where_there_is_room() {
        assert_eq!(drawn("abc", false), "#####www.#");
        assert_eq!(drawn("abc", true), "#[abc]ww.#");
        assert_eq!(drawn("a\u{1f980}c", true), "#[a?c]ww.#");
        assert_eq!(drawn("abcde", true), "#####www.#", "one more letter than there is room for");
    }

    #[test]
    fn names_are_as_wide_as_they_look() {
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("abcdefg", 5), "abcde");
        assert_eq!(fit("\u{732b}\u{732b}\u{732b}", 5), "\u{732b}\u{732b} ", "three would take six");
        assert_eq!(fit("e\u{301}x", 3), "e\u{301}x ");
        assert_eq!(fit("", 2), "  ");
    }

    #[test]
    fn moments_are_in_columns() {
        let (_, timeline) = lane("a");
        assert_eq!(
            [99, 100, 109, 199, 200].map(|at| column(&timeline, Nanos(at))),
            [None, Some(0), Some(0), Some(9), None]
        );
        assert_eq!(moment(&timeline, 9), Nanos(190));
        let theme = Theme::new(Colours::Dark, true);
        let ruler: String =
            ruler(&timeline, Some(Nanos(150)), &theme).spans.iter().map(|s| s.content.as_ref()).collect();
        assert_eq!(ruler.trim_start(), "|0ns v    ".trim_start());
    }
}
