//! A table on the screen: sorted, filtered, scrolled, with one row selected, which stays selected whatever comes.

use std::cmp::Ordering;
use std::collections::HashSet;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use schedtrace_core::Nanos;

use crate::filter::RowFilter;
use crate::sheet::{Head, Key, Row, Sheet, Target, Value, printable};
use crate::theme::Theme;

/// What is kept of a table from one picture to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grid {
    /// By which column it is sorted, and whether the least comes first; as it comes, without.
    pub(crate) sort: Option<(usize, bool)>,
    /// Only rows in which this stands, whatever the case, or that meet these conditions.
    pub(crate) filter: String,
    /// Why it cannot be read as conditions, though it looks so: then it is a text.
    pub(crate) why_text: Option<String>,
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
        let read = RowFilter::read(&self.filter, &sheet.columns.heads());
        self.why_text = read.as_ref().err().cloned();
        let filter = read.unwrap_or_else(|_| RowFilter::Text(self.filter.to_lowercase()));
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

    /// Which rows are shown: those that hold what is looked for, with all that they stand below; of what stands below a row
    /// only what is open.
    fn visible(&self, sheet: &Sheet, tree: &Tree, filter: &RowFilter, origin: Nanos) -> Vec<bool> {
        let holds = |row: &Row| filter.accepts(row, origin);
        let is_open = |at: usize| !sheet.folds || self.opened.contains(&sheet.rows[at].target);
        if self.filter.is_empty() {
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
        let at = self.offset + usize::from(y - drawn.area.y - 1);
        if at >= self.order.len() {
            return Some(Hit::Place);
        }
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
        // What fits is shown, also when there are fewer rows than there were.
        let offset = self.offset.min(self.order.len().saturating_sub(self.page));
        self.offset = offset.clamp((self.at + 1).saturating_sub(self.page), self.at);
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
        for (line, &at) in self.order.iter().skip(self.offset).take(self.page).enumerate() {
            let (row, y) = (&sheet.rows[at], body.y + line as u16);
            let is_marked = has_keys && self.offset + line == self.at;
            let style = if is_marked { theme.selected } else { Style::new() };
            frame.buffer_mut().set_style(Rect { y, height: 1, ..body }, style);
            for (place, &column) in places.iter().zip(&shown) {
                let Some(cell) = row.cells.get(column) else { continue };
                let (indent, sign) = match column == shown[0] {
                    true => (usize::from(row.depth) * 2, self.sign(sheet, at, theme)),
                    false => (0, ""),
                };
                let text = format!("{:indent$}{sign}{}", "", cell.shown(origin));
                // On the selected row colours would become grounds.
                let style = if is_marked { Style::new() } else { theme.value(cell) };
                let line = Line::from(Span::styled(text, style));
                let right = cell.is_figure() && !(*cell == Value::None && texts.contains(&column));
                let line = if right { line.right_aligned() } else { line };
                frame.render_widget(line, Rect { y, height: 1, ..*place });
            }
        }
        let drawn = self.drawn.get_or_insert_default();
        (drawn.area, drawn.columns) = (area, shown.iter().copied().zip(places.iter().copied()).collect());
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
        grid.fold(&sheet);
    }
}
