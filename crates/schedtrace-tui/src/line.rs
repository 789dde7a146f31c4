//! A line that somebody types: text with a cursor, and the keys that shells have. All that is typed is typed in one of these.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Style;
use ratatui::text::Span;

use crate::sheet::printable;
use crate::theme::Theme;

/// Nothing that is typed is longer, in characters.
const LONGEST: usize = 4_096;

/// The letters, and before which of them the cursor stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    letters: Vec<char>,
    cursor: usize,
}

impl Line {
    /// With the cursor at its end.
    pub(crate) fn new(text: &str) -> Self {
        let letters: Vec<char> = text.chars().take(LONGEST).collect();
        Self { cursor: letters.len(), letters }
    }

    pub(crate) fn text(&self) -> String {
        self.letters.iter().collect()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn letters(&self) -> &[char] {
        &self.letters
    }

    pub(crate) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Takes a key; whether it is one of a line's. A letter with Control or Alt is none that is typed.
    pub(crate) fn press(&mut self, key: KeyEvent) -> bool {
        let is_held = |held| key.modifiers.contains(held);
        match key.code {
            KeyCode::Char(_) if is_held(KeyModifiers::ALT) => return false,
            KeyCode::Char(letter) if is_held(KeyModifiers::CONTROL) => return self.press_held(letter),
            KeyCode::Char(letter) if self.letters.len() < LONGEST => {
                self.letters.insert(self.cursor, letter);
                self.cursor += 1;
            }
            KeyCode::Char(_) => {}
            KeyCode::Backspace => self.take_back(),
            KeyCode::Delete if self.cursor < self.letters.len() => drop(self.letters.remove(self.cursor)),
            KeyCode::Delete => {}
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (self.cursor + 1).min(self.letters.len()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.letters.len(),
            _ => return false,
        }
        true
    }

    /// As readline has it (<https://tiswww.case.edu/php/chet/readline/readline.html#Commands-For-Killing>).
    fn press_held(&mut self, letter: char) -> bool {
        match letter {
            'a' => self.cursor = 0,
            'e' => self.cursor = self.letters.len(),
            // What Backspace sends on some terminals.
            'h' => self.take_back(),
            'k' => self.letters.truncate(self.cursor),
            'u' => self.replace(0, ""),
            'w' => {
                let blank = |at: &usize| self.letters[*at].is_whitespace();
                let word = (0..self.cursor).rev().skip_while(blank).find(blank);
                self.replace(word.map_or(0, |at| at + 1), "");
            }
            _ => return false,
        }
        true
    }

    fn take_back(&mut self) {
        if let Some(at) = self.cursor.checked_sub(1) {
            self.letters.remove(at);
            self.cursor = at;
        }
    }

    /// Puts a text in the place of what stands between there and the cursor.
    pub(crate) fn replace(&mut self, from: usize, text: &str) {
        let from = from.min(self.cursor);
        self.letters.splice(from..self.cursor, text.chars());
        self.cursor = from + text.chars().count();
    }

    /// As much of it as there is room for, with the cursor: on a letter, or as `end` behind the last.
    pub(crate) fn spans(&self, room: usize, cursor: Style, end: &'static str) -> [Span<'static>; 3] {
        let wide = |letters: &[char]| Span::raw(letters.iter().collect::<String>()).width();
        let text = |letters: &[char]| printable(&letters.iter().collect::<String>());
        let (room, letters) = (room.saturating_sub(1).max(1), &self.letters);
        let mut from = self.cursor.saturating_sub(room);
        while from < self.cursor && wide(&letters[from..self.cursor]) > room {
            from += 1;
        }
        let (under, after) = letters[self.cursor..].split_at(usize::from(self.cursor < letters.len()));
        let left = room.saturating_sub(wide(&letters[from..self.cursor]) + wide(under).saturating_sub(1));
        let mut fits = after.len().min(left);
        while wide(&after[..fits]) > left {
            fits -= 1;
        }
        let under = if under.is_empty() { Span::raw(end) } else { Span::styled(text(under), cursor) };
        [text(&letters[from..self.cursor]).into(), under, text(&after[..fits]).into()]
    }

    /// The same where keys go to it.
    pub(crate) fn typed(&self, room: usize, theme: &Theme) -> [Span<'static>; 3] {
        self.spans(room, theme.selected, "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(line: &Line) -> String {
        let mut letters = line.letters.clone();
        letters.insert(line.cursor, '|');
        letters.into_iter().collect()
    }

    fn press(line: &mut Line, keys: &[KeyCode]) -> String {
        keys.iter().for_each(|&key| assert!(line.press(key.into()), "{key}"));
        shown(line)
    }

    fn held(letter: char, held: KeyModifiers) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(letter), held)
    }

    #[test]
    fn a_line_is_edited() {
        use KeyCode::{Backspace, Char, Delete, End, Home, Left, Right};
        let mut line = Line::new("sélect");
        assert_eq!(press(&mut line, &[Home, Right, Delete, Left, Left]), "|slect");
        assert_eq!(press(&mut line, &[Backspace, End, Delete, Backspace]), "slec|");
        assert_eq!(press(&mut line, &[Left, Char('x')]), "slex|c");
        line = Line::new("slec from  here");
        for (letter, wanted) in
            [('w', "slec from  |"), ('w', "slec |"), ('h', "slec|"), ('a', "|slec"), ('w', "|slec"), ('k', "|")]
        {
            assert!(line.press(held(letter, KeyModifiers::CONTROL)));
            assert_eq!(shown(&line), wanted, "ctrl-{letter}");
        }
        line = Line::new("one two");
        press(&mut line, &[Left]);
        line.press(held('u', KeyModifiers::CONTROL));
        assert_eq!(shown(&line), "|o");
        line = Line::new(&"x".repeat(LONGEST + 7));
        press(&mut line, &[Char('y')]);
        assert_eq!(line.text().len(), LONGEST);
    }

    #[test]
    fn what_is_held_is_not_typed() {
        let mut line = Line::new("x");
        for letter in 'a'..='z' {
            line.press(held(letter, KeyModifiers::ALT));
            line.press(held(letter, KeyModifiers::CONTROL | KeyModifiers::ALT));
        }
        assert!(!line.press(held('z', KeyModifiers::CONTROL)) && !line.press(held('p', KeyModifiers::CONTROL)));
        assert_eq!(shown(&line), "x|");
        assert!(line.press(held('Z', KeyModifiers::SHIFT)));
        assert_eq!(shown(&line), "xZ|");
    }

    proptest! {
        #[test]
        fn it_is_drawn_in_the_room_that_there_is(text in "[a-zé世 ]{0,40}", left in 0..40_usize, room in 3..30_usize) {
            let mut line = Line::new(&text);
            (0..left).for_each(|_| _ = line.press(KeyCode::Left.into()));
            let spans = line.spans(room, Style::new(), "_");
            prop_assert!(spans.iter().map(Span::width).sum::<usize>() <= room + 1, "{spans:?}");
            prop_assert!(!spans[1].content.is_empty());
        }
    }
}
