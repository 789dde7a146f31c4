//! A table on the screen: sorted, filtered, scrolled, with one row selected, which stays selected whatever comes.

use std::cmp::Ordering;
use std::collections::HashSet;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use schedtrace_core::Nanos;

use crate::filter::{RowFilter, begun};
use crate::sheet::{Head, Key, Row, Sheet, Target, Value, printable};
use crate::theme::Theme;

/// What is kept of a table from one picture to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grid {
    /// By which column it is sorted, and whether the least comes first; as it comes, without.
    pub(crate) sort: Option<(usize, bool)>,
    /// Only rows in which this stands, whatever the case, or that meet these conditions.
    pub(crate) filter: String,
    /// Why it leaves nothing out: it is no condition yet, and no row has it as a text.
    pub(crate) why_not: Option<String>,
    /// Columns that somebody does not want to see.
    pub(crate) hidden: Vec<String>,
    selected: Option<Target>,
    /// Which it is of those shown that are about the same: so many of them stand before it.
    nth: usize,
    at: usize,
    offset: usize,
    /// Rows on the screen, for paging.
    page: usize,
    /// Which rows of the sheet are shown, in their order.
    order: Vec<usize>,
    /// Rows below which there are others.
    parents: HashSet<usize>,
    /// Those of them that are open, where rows can be folded.
    opened: HashSet<Target>,
    /// Where it is on the screen, if it is: for the mouse.
    drawn: Option<Drawn>,
}

#[derive(Clone, Debug, Default)]
struct Drawn {
    /// The line above it.
    rule: Rect,
    area: Rect,
    /// Where the names of columns are.
    columns: Vec<(usize, Rect)>,
    /// Which row is on each line.
    lines: Vec<usize>,
}

/// What of a table the mouse hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hit {
    /// The line above it, or room that is empty.
    Place,
    /// The name of a column: it sorts.
    Head,
    Row,
    /// The row that was selected before.
    Selected,
}

impl Grid {
    /// Takes a sheet of which more was drawn before: the row that was selected stays it.
    pub(crate) fn follow(&mut self, sheet: &Sheet, origin: Nanos) {
        let was_at_end = self.at + 1 >= self.order.len();
        let tree = Tree::new(&sheet.rows);
        let filter = self.read_filter(sheet, origin);
        let visible = self.visible(sheet, &tree, &filter, origin);
        let order = match self.sort.filter(|(column, _)| *column < sheet.columns.len()) {
            None => (0..sheet.rows.len()).collect(),
            Some((column, ascending)) => {
                let key = |row: &Row| row.cells.get(column).unwrap_or(&Value::None).key();
                let keys: Vec<Key> = sheet.rows.iter().map(key).collect();
                tree.sorted(|a, b| {
                    let order = keys[a].cmp(&keys[b]);
                    if ascending { order } else { order.reverse() }
                })
            }
        };
        self.order = order.into_iter().filter(|&at| visible[at]).collect();
        self.parents = tree.parents.iter().flatten().copied().collect();
        if sheet.newest_last && self.sort.is_none() && was_at_end {
            return self.select(sheet, usize::MAX);
        }
        // Nobody chose a row yet: whatever comes first is it, in a picture of half the time as in the whole.
        if self.selected.is_some() {
            self.select(sheet, self.where_it_is(sheet).unwrap_or(self.at));
        }
    }

    /// Where the row that was selected is now. Several may be about the same: where the cursor is on one of them it stays,
    /// or else goes to the one that has as many of them before it.
    fn where_it_is(&self, sheet: &Sheet) -> Option<usize> {
        let wanted = self.selected.as_ref().filter(|target| **target != Target::Nothing)?;
        let is_one = |at: &usize| sheet.rows.get(*at).is_some_and(|row| row.target == *wanted);
        if self.order.get(self.at).is_some_and(is_one) {
            return Some(self.at);
        }
        let same = self.order.iter().enumerate().filter(|(_, at)| is_one(at));
        same.take(self.nth + 1).last().map(|(place, _)| place)
    }

    /// How many rows before this one are about the same.
    fn same_before(&self, sheet: &Sheet, place: usize) -> usize {
        let target = |at: &usize| sheet.rows.get(*at).map(|row| &row.target);
        let wanted = self.order.get(place).and_then(target);
        self.order.iter().take(place).filter(|at| target(at) == wanted).count()
    }

    /// What is typed, as far as it can be read. What is no condition is a text, if some row has it. What is neither leaves
    /// nothing out: who has typed half of a condition looks at the rows that it is about.
    fn read_filter(&mut self, sheet: &Sheet, origin: Nanos) -> RowFilter {
        let heads = sheet.columns.heads();
        let text = RowFilter::Text(self.filter.to_lowercase());
        let has_text = || sheet.rows.iter().any(|row| text.accepts(row, origin));
        self.why_not = None;
        match RowFilter::read(&self.filter, &heads) {
            Ok(RowFilter::Text(_)) => match begun(&self.filter, &heads).filter(|_| !has_text()) {
                Some(column) => {
                    self.why_not = Some(format!("`{column}` is a column: write `{column} > 5ms` or `{column} ~ text`"));
                    RowFilter::default()
                }
                None => text,
            },
            Ok(terms) => terms,
            Err(_) if has_text() => text,
            Err(why) => {
                self.why_not = Some(why);
                RowFilter::default()
            }
        }
    }

    /// Which rows are shown: those that hold what is looked for, with all that they stand below; of what stands below a row
    /// only what is open.
    fn visible(&self, sheet: &Sheet, tree: &Tree, filter: &RowFilter, origin: Nanos) -> Vec<bool> {
        let holds = |row: &Row| filter.accepts(row, origin);
        let is_open = |at: usize| !sheet.folds || self.opened.contains(&sheet.rows[at].target);
        if filter.is_empty() {
            let mut visible = vec![true; sheet.rows.len()];
            for (at, parent) in tree.parents.iter().enumerate() {
                visible[at] = parent.is_none_or(|parent| visible[parent] && is_open(parent));
            }
            return visible;
        }
        let mut found: Vec<bool> = sheet.rows.iter().map(holds).collect();
        // What stands below a row that was found, and is open, is of interest too.
        for (at, parent) in tree.parents.iter().enumerate() {
            found[at] |= parent.is_some_and(|parent| found[parent] && is_open(parent));
        }
        for at in (0..found.len()).rev() {
            if let Some(parent) = tree.parents[at].filter(|_| found[at]) {
                found[parent] = true;
            }
        }
        found
    }

    /// Opens the selected row, or folds it, or that below which it stands.
    pub(crate) fn fold(&mut self, sheet: &Sheet) {
        let Some(&at) = self.order.get(self.at) else { return };
        let at = if self.parents.contains(&at) { Some(at) } else { Tree::new(&sheet.rows).parents[at] };
        let Some(row) = at.and_then(|at| sheet.rows.get(at)) else { return };
        if !self.opened.remove(&row.target) {
            self.opened.insert(row.target.clone());
        }
        self.selected = Some(row.target.clone());
        let place = self.order.iter().position(|shown| Some(*shown) == at);
        self.nth = place.map_or(0, |place| self.same_before(sheet, place));
    }

    /// Opens all rows, or folds all where some are open.
    pub(crate) fn fold_all(&mut self, sheet: &Sheet) {
        if self.opened.is_empty() {
            self.opened = self.parents.iter().filter_map(|&at| Some(sheet.rows.get(at)?.target.clone())).collect();
        } else {
            self.opened.clear();
        }
    }

    fn select(&mut self, sheet: &Sheet, at: usize) {
        self.at = at.min(self.order.len().saturating_sub(1));
        self.selected = self.row(sheet).map(|row| row.target.clone());
        self.nth = self.same_before(sheet, self.at);
    }

    /// The row that is selected.
    pub(crate) fn row<'a>(&self, sheet: &'a Sheet) -> Option<&'a Row> {
        self.order.get(self.at).and_then(|&at| sheet.rows.get(at))
    }

    /// The rows as they are shown.
    pub(crate) fn rows<'a>(&'a self, sheet: &'a Sheet) -> impl Iterator<Item = &'a Row> {
        self.order.iter().filter_map(|&at| sheet.rows.get(at))
    }

    pub(crate) fn scroll(&mut self, sheet: &Sheet, by: isize) {
        self.select(sheet, self.at.saturating_add_signed(by));
    }

    pub(crate) fn scroll_pages(&mut self, sheet: &Sheet, pages: isize) {
        self.scroll(sheet, pages.saturating_mul(self.page.max(1).cast_signed()));
    }

    /// Selects the next row in which a text stands, from the selected one on or after it; whether there is one.
    pub(crate) fn find(&mut self, sheet: &Sheet, origin: Nanos, text: &str, after: bool) -> bool {
        let (text, rows) = (RowFilter::Text(text.to_lowercase()), self.order.len());
        let from = self.at + usize::from(after);
        let found = (0..rows).map(|by| (from + by) % rows).find(|&at| {
            let row = self.order.get(at).and_then(|&at| sheet.rows.get(at));
            row.is_some_and(|row| text.accepts(row, origin))
        });
        if let Some(at) = found {
            self.select(sheet, at);
        }
        found.is_some()
    }

    /// Sorts by the next column, or the one before.
    pub(crate) fn sort_by_next(&mut self, sheet: &Sheet, step: isize) {
        let columns = sheet.columns.len().cast_signed();
        if columns == 0 {
            return;
        }
        let now = self.sort.map_or(if step > 0 { -1 } else { columns }, |(at, _)| at.cast_signed());
        let at = (now + step).rem_euclid(columns).cast_unsigned();
        self.sort_by(sheet, at);
    }

    /// Sorts by a column: figures the largest first, texts the least. A second time turns it round.
    pub(crate) fn sort_by(&mut self, sheet: &Sheet, column: usize) {
        let is_text = sheet.rows.iter().take(50).any(|row| matches!(row.cells.get(column), Some(Value::Text(_))));
        self.sort = match self.sort {
            Some((at, ascending)) if at == column => Some((at, !ascending)),
            _ => Some((column, is_text)),
        };
    }

    /// What the mouse hit, if it is of this table: a column's name sorts, a row is selected.
    pub(crate) fn click(&mut self, sheet: &Sheet, x: u16, y: u16) -> Option<Hit> {
        let drawn = self.drawn.as_ref()?;
        let point = ratatui::layout::Position { x, y };
        if drawn.rule.contains(point) {
            return Some(Hit::Place);
        }
        if !drawn.area.contains(point) {
            return None;
        }
        if y == drawn.area.y {
            let column = drawn.columns.iter().find(|(_, at)| at.contains(point)).map(|(column, _)| *column);
            return Some(column.map_or(Hit::Place, |column| {
                self.sort_by(sheet, column);
                Hit::Head
            }));
        }
        let Some(&at) = drawn.lines.get(usize::from(y - drawn.area.y - 1)).filter(|at| **at < self.order.len()) else {
            return Some(Hit::Place);
        };
        let again = at == self.at;
        self.select(sheet, at);
        Some(if again { Hit::Selected } else { Hit::Row })
    }

    /// It is nowhere on the screen, until it is drawn.
    pub(crate) fn leave_screen(&mut self) {
        self.drawn = None;
    }

    /// Where the line above it is.
    pub(crate) fn place_rule(&mut self, rule: Rect) {
        self.drawn = Some(Drawn { rule, ..Drawn::default() });
    }

    /// Draws it; the selected row is marked where keys go to this table.
    pub(crate) fn draw(
        &mut self,
        (sheet, has_keys): (&Sheet, bool),
        theme: &Theme,
        origin: Nanos,
        frame: &mut Frame<'_>,
        area: Rect,
    ) {
        let heads = sheet.columns.heads();
        let shown = columns(&heads, &self.hidden, area.width);
        let widths = shown.iter().map(|&at| match heads[at].width {
            0 => Constraint::Fill(1),
            width => Constraint::Length(width),
        });
        let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let places = Layout::horizontal(widths).spacing(1).split(head);
        self.page = usize::from(body.height).max(1);
        let wide = places.iter().zip(&shown).find(|(_, at)| sheet.wraps && heads[**at].width == 0);
        let wide = wide.map(|(place, at)| (*at, usize::from(place.width)));
        self.scroll_into_view(sheet, wide, origin);
        let texts: Vec<usize> = shown.iter().copied().filter(|&at| has_text(sheet, at)).collect();
        for (place, &at) in places.iter().zip(&shown) {
            let mark = match self.sort {
                Some((column, ascending)) if column == at => theme.glyphs.sorted(ascending),
                _ => "",
            };
            let line = Line::from(format!("{}{mark}", printable(heads[at].name))).style(theme.head);
            let right = !texts.contains(&at);
            frame.render_widget(Paragraph::new(if right { line.right_aligned() } else { line }), *place);
        }
        if self.order.is_empty() {
            let why = match self.filter.as_str() {
                "" => sheet.empty.to_string(),
                filter => format!("no row has `{}`: Esc takes the filter away", printable(filter)),
            };
            frame.render_widget(Paragraph::new(why).style(theme.dim).wrap(Default::default()), body);
        }
        let mut lines = Vec::new();
        for place in self.offset..self.order.len() {
            let left = body.height.saturating_sub(lines.len() as u16);
            if left == 0 {
                break;
            }
            let height = (self.height(sheet, place, wide, origin) as u16).min(left);
            let row = Rect { y: body.y + lines.len() as u16, height, ..body };
            let is_marked = has_keys && place == self.at;
            let (at, places) = (self.order[place], &*places);
            let of = RowOf { sheet, at, is_marked, places, shown: &shown, texts: &texts, theme, origin };
            self.draw_row(&of, frame, row);
            lines.extend(std::iter::repeat_n(place, usize::from(height)));
        }
        let drawn = self.drawn.get_or_insert_default();
        (drawn.area, drawn.columns) = (area, shown.iter().copied().zip(places.iter().copied()).collect());
        drawn.lines = lines;
    }

    /// Moves what is shown so that the selected row is; what fits is shown, also when there are fewer rows than there were.
    fn scroll_into_view(&mut self, sheet: &Sheet, wide: Option<(usize, usize)>, origin: Nanos) {
        if wide.is_none() {
            let offset = self.offset.min(self.order.len().saturating_sub(self.page));
            self.offset = offset.clamp((self.at + 1).saturating_sub(self.page), self.at);
            return;
        }
        let fit = |from: usize, last: usize| {
            let mut left = self.page;
            (from..=last).all(|place| {
                let height = self.height(sheet, place, wide, origin);
                let fits = height <= left;
                left = left.saturating_sub(height);
                fits
            })
        };
        let (mut offset, last) = (self.offset.min(self.at), self.order.len().saturating_sub(1));
        while offset < self.at && !fit(offset, self.at) {
            offset += 1;
        }
        while offset > 0 && fit(offset - 1, last) {
            offset -= 1;
        }
        self.offset = offset;
    }

    /// How many lines a row takes where the text of a column, which is so wide, goes on below.
    fn height(&self, sheet: &Sheet, place: usize, wide: Option<(usize, usize)>, origin: Nanos) -> usize {
        let Some((column, width)) = wide else { return 1 };
        let cell = self.order.get(place).and_then(|&at| sheet.rows.get(at)?.cells.get(column));
        cell.map_or(1, |cell| wrapped(&cell.shown(origin), width).len())
    }

    fn draw_row(&self, drawn: &RowOf<'_>, frame: &mut Frame<'_>, area: Rect) {
        let RowOf { sheet, at, is_marked, theme, origin, .. } = *drawn;
        let row = &sheet.rows[at];
        frame.buffer_mut().set_style(area, if is_marked { theme.selected } else { Style::new() });
        for (place, &column) in drawn.places.iter().zip(drawn.shown) {
            let Some(cell) = row.cells.get(column) else { continue };
            let (indent, sign) = match column == drawn.shown[0] {
                true => (usize::from(row.depth) * 2, self.sign(sheet, at, theme)),
                false => (0, ""),
            };
            let text = format!("{:indent$}{sign}{}", "", cell.shown(origin));
            // On the selected row colours would become grounds.
            let style = if is_marked { Style::new() } else { theme.value(cell) };
            let right = cell.is_figure() && !(*cell == Value::None && drawn.texts.contains(&column));
            let texts = if area.height > 1 { wrapped(&text, usize::from(place.width)) } else { vec![text] };
            for (y, text) in (area.y..area.bottom()).zip(texts) {
                let line = Line::from(Span::styled(text, style));
                let line = if right { line.right_aligned() } else { line };
                frame.render_widget(line, Rect { y, height: 1, ..*place });
            }
        }
    }

    /// Whether there is more below a row, and whether that is shown.
    fn sign(&self, sheet: &Sheet, at: usize, theme: &Theme) -> &'static str {
        match (sheet.folds, self.parents.contains(&at)) {
            (false, _) => "",
            (true, false) => "  ",
            (true, true) if self.opened.contains(&sheet.rows[at].target) => theme.glyphs.opened,
            (true, true) => theme.glyphs.folded,
        }
    }

    /// Whether there was room for a column.
    pub(crate) fn has_drawn(&self, column: usize) -> bool {
        self.drawn.as_ref().is_none_or(|drawn| drawn.columns.iter().any(|(at, _)| *at == column))
    }

    /// How many are shown of those that the sheet counts: of a tree, what stands below a row is not counted.
    pub(crate) fn counted(&self, sheet: &Sheet) -> usize {
        if sheet.folds { self.rows(sheet).filter(|row| row.depth == 0).count() } else { self.len() }
    }

    /// How many rows are shown.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}

/// A row, and how it is drawn.
struct RowOf<'a> {
    sheet: &'a Sheet,
    /// Which row of the sheet.
    at: usize,
    is_marked: bool,
    /// Where the columns that are shown are.
    places: &'a [Rect],
    shown: &'a [usize],
    /// Those in which there are texts.
    texts: &'a [usize],
    theme: &'a Theme,
    origin: Nanos,
}

/// A text in lines of so many characters, cut between words where that can be; at least one.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (width, mut lines, mut line, mut length) = (width.max(1), Vec::new(), String::new(), 0);
    for word in text.split_inclusive(' ') {
        let wide = word.trim_end().chars().count();
        if length > 0 && length + wide > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        for letter in word.chars() {
            // A word that is wider than a line; a space at its end takes no room.
            if length == width && letter != ' ' {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            if length < width {
                line.push(letter);
                length += 1;
            }
        }
    }
    lines.push(line);
    lines
}

/// Whether a column has texts, which stand at the left: what is missing there does too.
fn has_text(sheet: &Sheet, column: usize) -> bool {
    let cells = sheet.rows.iter().take(50).filter_map(|row| row.cells.get(column));
    let mut known = cells.filter(|cell| **cell != Value::None);
    known.next().is_none_or(|cell| !cell.is_figure())
}

/// Those for which there is room, by their rank, in their order.
fn columns(all: &[Head<'_>], hidden: &[String], width: u16) -> Vec<usize> {
    const LEAST: u16 = 12;
    let takes = |at: usize| all[at].width.max(if all[at].width == 0 { LEAST } else { 1 }) + 1;
    let is_hidden = |at: &usize| hidden.iter().any(|name| name.eq_ignore_ascii_case(all[*at].name));
    // One is left in any case: it says what a row is.
    let mut by_rank: Vec<usize> = (0..all.len()).filter(|at| *at == 0 || !is_hidden(at)).collect();
    by_rank.sort_by_key(|&at| all[at].rank);
    let (mut left, mut kept) = (width + 1, Vec::new());
    for at in by_rank {
        // What is narrower than one that has no room may fit still.
        if let Some(rest) = left.checked_sub(takes(at)) {
            left = rest;
            kept.push(at);
        }
    }
    kept.sort_unstable();
    kept
}

/// Rows, each with the one that it stands below: the last one before it that is less deep.
#[derive(Debug)]
struct Tree {
    parents: Vec<Option<usize>>,
}

impl Tree {
    fn new(rows: &[Row]) -> Self {
        let mut above: Vec<usize> = Vec::new();
        let parent = |(at, row): (usize, &Row)| {
            while above.pop_if(|last| rows[*last].depth >= row.depth).is_some() {}
            let parent = above.last().copied();
            above.push(at);
            parent
        };
        Self { parents: rows.iter().enumerate().map(parent).collect() }
    }

    /// All rows, each followed by those below it; next to each other as `compare` says.
    fn sorted(&self, compare: impl Fn(usize, usize) -> Ordering) -> Vec<usize> {
        let mut below: Vec<Vec<usize>> = vec![Vec::new(); self.parents.len()];
        let mut top = Vec::new();
        for (at, parent) in self.parents.iter().enumerate() {
            parent.map_or(&mut top, |parent| &mut below[parent]).push(at);
        }
        // What is put on the stack last is taken first.
        let mut open = Vec::with_capacity(self.parents.len());
        let put = |mut rows: Vec<usize>, open: &mut Vec<usize>| {
            rows.sort_by(|&a, &b| compare(a, b));
            open.extend(rows.into_iter().rev());
        };
        put(top, &mut open);
        let mut sorted = Vec::with_capacity(self.parents.len());
        while let Some(at) = open.pop() {
            sorted.push(at);
            put(std::mem::take(&mut below[at]), &mut open);
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::sheet::Column;

    const COLUMNS: &[Column] = &[
        Column { name: "WHO", about: "Who.", width: 10, rank: 0 },
        Column { name: "TIME", about: "How long.", width: 5, rank: 1 },
    ];

    /// Two processes, of which each has two threads.
    fn sheet() -> Sheet {
        let row = |depth, name: &'static str, time| {
            let target = if depth == 0 { Target::Process(time) } else { Target::Thread { tid: time, pid: 1 } };
            Row { target, depth, cells: vec![Value::text(name), Value::Time(time.into())] }
        };
        let rows = vec![
            row(0, "sshd", 10),
            row(1, "reader", 3),
            row(1, "writer", 7),
            row(0, "postgres", 20),
            row(1, "reader", 15),
            row(1, "checkpoint", 5),
        ];
        Sheet::new("processes", COLUMNS, rows).folded()
    }

    fn shown(grid: &mut Grid, sheet: &Sheet) -> Vec<u64> {
        grid.follow(sheet, Nanos::ZERO);
        let time = |row: &Row| match row.cells[1] {
            Value::Time(time) => time,
            _ => 0,
        };
        grid.rows(sheet).map(time).collect()
    }

    #[test]
    fn words_stay_whole_where_there_is_room() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one  twothreefour", 5), ["one  ", "twoth", "reefo", "ur"]);
        assert_eq!(wrapped("", 0), [""]);
        assert_eq!(wrapped("é è", 1), ["é", "è"]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_of_a_text_is_lost(text in "[a-zé ]{0,60}", width in 1_usize..20) {
            let lines = wrapped(&text, width);
            proptest::prop_assert!(lines.iter().all(|line| line.chars().count() <= width));
            let letters = |text: &str| text.replace(' ', "");
            proptest::prop_assert_eq!(letters(&lines.concat()), letters(&text));
        }
    }

    #[test]
    fn a_text_goes_on_below_and_the_selected_row_is_on_the_screen() {
        const COLUMNS: &[Column] = &[
            Column { name: "N", about: "Which.", width: 2, rank: 0 },
            Column { name: "FOUND", about: "How it is.", width: 0, rank: 0 },
        ];
        let row = |n: usize| Row {
            target: Target::Named(n.to_string()),
            cells: vec![Value::text(n.to_string()), Value::text("word ".repeat(n % 4 + 1))],
            ..Row::default()
        };
        let sheet = Sheet::new("x", COLUMNS, (0..12).map(row).collect()).wrapped();
        let mut grid = Grid::default();
        grid.follow(&sheet, Nanos::ZERO);
        let mut terminal = ratatui::Terminal::new(ratatui::backend::TestBackend::new(16, 6)).unwrap();
        let theme = Theme::new(crate::theme::Look::Dark, false);
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..12 {
            let draw = |frame: &mut Frame<'_>| grid.draw((&sheet, true), &theme, Nanos::ZERO, frame, frame.area());
            terminal.draw(draw).unwrap();
            let text = terminal.backend().to_string();
            assert!(text.lines().any(|line| line.starts_with(&format!("\"{step} "))), "{step}:\n{text}");
            // Of its second line too a click selects it.
            let lines = grid.drawn.as_ref().map(|drawn| drawn.lines.clone()).unwrap();
            assert_eq!(lines.iter().filter(|at| **at == step).count(), (step % 4 + 2) / 2, "all of it:\n{text}");
            seen.extend(lines);
            grid.scroll(&sheet, 1);
        }
        assert_eq!(seen.len(), 12);
    }

    #[test]
    fn rows_fold_and_open() {
        let (mut grid, sheet) = (Grid::default(), sheet());
        assert_eq!(shown(&mut grid, &sheet), [10, 20]);
        grid.scroll(&sheet, 1);
        grid.fold(&sheet);
        assert_eq!(shown(&mut grid, &sheet), [10, 20, 15, 5]);
        assert_eq!((grid.counted(&sheet), sheet.total), (2, 2), "two processes, however many are open");
        grid.scroll(&sheet, 2);
        grid.fold(&sheet);
        assert_eq!(shown(&mut grid, &sheet), [10, 20], "a thread folds its process");
        assert_eq!(grid.row(&sheet).map(|row| row.target.clone()), Some(Target::Process(20)));
        grid.fold_all(&sheet);
        assert_eq!(shown(&mut grid, &sheet), [10, 3, 7, 20, 15, 5]);
        grid.fold_all(&sheet);
        assert_eq!(shown(&mut grid, &sheet), [10, 20]);
    }

    /// Several rows about one thread, between others.
    fn pairs(times: &[u64]) -> Sheet {
        let row = |&time: &u64| {
            let cells = vec![Value::text("pair"), Value::Time(time)];
            Row { target: Target::Thread { tid: (time % 2) as u32, pid: 1 }, depth: 0, cells }
        };
        Sheet::new("pairs", COLUMNS, times.iter().map(row).collect())
    }

    fn selected(grid: &Grid, sheet: &Sheet) -> Option<Value> {
        grid.row(sheet).map(|row| row.cells[1].clone())
    }

    #[test]
    fn every_row_is_reached_though_several_are_about_the_same() {
        let (mut grid, sheet) = (Grid::default(), pairs(&[2, 4, 1, 6, 3]));
        for time in [2, 4, 1, 6, 3] {
            grid.follow(&sheet, Nanos::ZERO);
            assert_eq!(selected(&grid, &sheet), Some(Value::Time(time)));
            grid.scroll(&sheet, 1);
        }
    }

    #[test]
    fn the_selected_one_of_several_stays_it_when_others_come() {
        let (mut grid, sheet) = (Grid::default(), pairs(&[3, 6]));
        grid.follow(&sheet, Nanos::ZERO);
        let sheet = pairs(&[2, 4, 1, 6, 3]);
        grid.follow(&sheet, Nanos::ZERO);
        assert_eq!(selected(&grid, &sheet), Some(Value::Time(2)), "nobody chose one: it is the first");
        grid.scroll(&sheet, 3);
        let sheet = pairs(&[5, 7, 2, 9, 4, 1, 6, 3]);
        grid.follow(&sheet, Nanos::ZERO);
        assert_eq!(selected(&grid, &sheet), Some(Value::Time(6)), "the third of its thread still");
        let sheet = pairs(&[2, 1]);
        grid.follow(&sheet, Nanos::ZERO);
        assert_eq!(selected(&grid, &sheet), Some(Value::Time(2)), "there are not as many any more");
    }

    #[test]
    fn texts_figures_and_nothing_in_one_column_are_sorted() {
        let cells = ["CPU 10", "", "CPU 2", "7", "rt50", "", "-20", "-3", "cpu 1"];
        let row = |(at, text): (usize, &&'static str)| {
            let value = match text.parse() {
                Ok(number) => Value::Int(number),
                Err(_) if text.is_empty() => Value::None,
                Err(_) => Value::text(*text),
            };
            Row { target: Target::Process(at as u32), depth: 0, cells: vec![value] }
        };
        let sheet = Sheet::new("mixed", COLUMNS, cells.iter().enumerate().map(row).collect());
        let mut grid = Grid { sort: Some((0, true)), ..Grid::default() };
        grid.follow(&sheet, Nanos::ZERO);
        let shown: Vec<_> = grid.rows(&sheet).map(|row| row.cells[0].shown(Nanos::ZERO)).collect();
        assert_eq!(shown, ["-", "-", "cpu 1", "CPU 2", "CPU 10", "rt50", "-20", "-3", "7"]);
    }

    #[test]
    fn threads_stay_below_their_process_however_it_is_sorted() {
        let (mut grid, sheet) = (Grid::default(), sheet());
        grid.follow(&sheet, Nanos::ZERO);
        grid.fold_all(&sheet);
        grid.sort = Some((1, false));
        assert_eq!(shown(&mut grid, &sheet), [20, 15, 5, 10, 7, 3]);
        grid.sort = Some((1, true));
        assert_eq!(shown(&mut grid, &sheet), [10, 3, 7, 20, 5, 15]);
    }

    #[test]
    fn a_thread_that_is_looked_for_comes_with_its_process() {
        let (mut grid, sheet) = (Grid::default(), sheet());
        grid.filter = "READER".to_owned();
        assert_eq!(shown(&mut grid, &sheet), [10, 3, 20, 15]);
        grid.filter = "postgres".to_owned();
        assert_eq!(shown(&mut grid, &sheet), [20]);
        grid.fold(&sheet);
        assert_eq!(shown(&mut grid, &sheet), [20, 15, 5], "of a process that is open all threads");
        grid.filter = "nobody".to_owned();
        assert!(shown(&mut grid, &sheet).is_empty());
        assert_eq!(grid.why_not, None);
        grid.fold(&sheet);
    }

    #[test]
    fn half_of_a_condition_leaves_nothing_out_and_says_what_is_missing() {
        let (mut grid, sheet) = (Grid::default(), sheet());
        let all = shown(&mut grid, &sheet);
        let name = sheet.columns.heads()[1].name.to_lowercase();
        for typed in [&name[..1], &name, &format!("{name} >"), &format!("{name} > many"), "(odd", "a = 'b"] {
            grid.filter = typed.to_owned();
            let now = shown(&mut grid, &sheet);
            let is_text = sheet.rows.iter().any(|row| {
                row.cells.iter().any(|cell| cell.shown(Nanos::ZERO).to_lowercase().contains(&typed.to_lowercase()))
            });
            // What reads as a text is one; what reads as neither, and stands nowhere, is not taken yet.
            let is_neither = grid.why_not.is_some();
            assert!(!(is_text && is_neither), "{typed}");
            assert!(!is_neither || now == all, "{typed}: {now:?}");
        }
        grid.filter = format!("{name} >");
        shown(&mut grid, &sheet);
        assert!(grid.why_not.is_some_and(|why| why.contains("to be compared with")));
    }
}
