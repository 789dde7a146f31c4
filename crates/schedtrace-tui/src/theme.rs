//! Colours and signs. What a colour says is said by a sign or a word too: some terminals have none, and some people see none.

use std::str::FromStr;

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::{bar, border};
use serde::Deserialize;

use crate::sheet::Value;

/// A choice of colours.
///
/// ```
/// use schedtrace_tui::Look;
/// assert_eq!("light".parse(), Ok(Look::Light));
/// assert!("pink".parse::<Look>().unwrap_err().contains("colour-blind"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look {
    /// For a dark ground, by the terminal's own colours.
    #[default]
    Dark,
    /// For a light ground.
    Light,
    /// Blue to orange: told apart whatever colours one sees (Okabe and Ito, "Color Universal Design", 2008).
    ColourBlind,
    /// The sixteen colours that every terminal has.
    Sixteen,
    /// None.
    Monochrome,
}

impl Look {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Dark, Self::Light, Self::ColourBlind, Self::Sixteen, Self::Monochrome];

    /// As it is written: `colour-blind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::ColourBlind => "colour-blind",
            Self::Sixteen => "sixteen",
            Self::Monochrome => "monochrome",
        }
    }

    /// What fits this terminal: none where `NO_COLOR` is set or `TERM` says so (<https://no-color.org>), by sixteen where it
    /// has no more.
    #[must_use]
    pub fn of_terminal(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|text| !text.is_empty());
        let term = set("TERM").unwrap_or_default();
        if set("NO_COLOR").is_some() || term == "dumb" || term.starts_with("vt") {
            return Self::Monochrome;
        }
        let deep =
            set("COLORTERM").is_some_and(|depth| depth == "truecolor" || depth == "24bit") || term.contains("256color");
        if deep { Self::Dark } else { Self::Sixteen }
    }
}

impl FromStr for Look {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|look| look.name() == text).ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no theme: {all}")
        })
    }
}

/// Styles by what they mean.
#[derive(Clone, Debug)]
pub(crate) struct Theme {
    pub(crate) glyphs: &'static Glyphs,
    pub(crate) title: Style,
    pub(crate) head: Style,
    pub(crate) dim: Style,
    pub(crate) selected: Style,
    pub(crate) good: Style,
    pub(crate) warn: Style,
    pub(crate) bad: Style,
    pub(crate) key: Style,
    /// From little to much.
    scale: [Style; 4],
}

/// Signs, for terminals with Unicode and without.
#[derive(Debug)]
pub(crate) struct Glyphs {
    /// From nothing to all.
    pub(crate) bars: [&'static str; 9],
    pub(crate) shade: &'static str,
    pub(crate) rule: &'static str,
    /// Before the title of the table that has the keys.
    pub(crate) here: &'static str,
    /// Around what lies over a view.
    pub(crate) border: border::Set<'static>,
    pub(crate) dot: &'static str,
    /// Where a text goes on.
    pub(crate) cut: &'static str,
    /// Before a row below which there is more, hidden or shown.
    pub(crate) folded: &'static str,
    pub(crate) opened: &'static str,
    up: &'static str,
    down: &'static str,
    /// What stands on a timeline for the letters `#`, `+`, `w` and `.`.
    lane: [char; 4],
}

const UNICODE: Glyphs = Glyphs {
    bars: [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
    shade: "░",
    rule: "─",
    here: "▶",
    border: border::PLAIN,
    dot: "·",
    cut: "…",
    folded: "▸ ",
    opened: "▾ ",
    up: "▲",
    down: "▼",
    lane: ['▇', '▃', '▒', '·'],
};

const ASCII: Glyphs = Glyphs {
    bars: [" ", ".", ":", "-", "=", "+", "*", "#", "@"],
    shade: ":",
    rule: "-",
    here: ">",
    border: border::Set {
        top_left: "+",
        top_right: "+",
        bottom_left: "+",
        bottom_right: "+",
        vertical_left: "|",
        vertical_right: "|",
        horizontal_top: "-",
        horizontal_bottom: "-",
    },
    dot: "|",
    cut: "~",
    folded: "+ ",
    opened: "- ",
    up: "^",
    down: "v",
    lane: ['#', '+', 'w', '.'],
};

impl Glyphs {
    /// A share from 0 to 1, as a bar of one character.
    pub(crate) fn bar(&self, ratio: f64) -> &'static str {
        let steps = self.bars.len() - 1;
        // The least that is something is not nothing.
        let at = if ratio <= 0.0 { 0 } else { ((ratio * steps as f64).ceil() as usize).clamp(1, steps) };
        self.bars[at]
    }

    /// The same, as a curve takes them.
    pub(crate) fn bar_set(&self) -> bar::Set<'static> {
        let [empty, one_eighth, one_quarter, three_eighths, half, five_eighths, three_quarters, seven_eighths, full] =
            self.bars;
        bar::Set {
            full,
            seven_eighths,
            three_quarters,
            five_eighths,
            half,
            three_eighths,
            one_quarter,
            one_eighth,
            empty,
        }
    }

    /// The sign for a letter of `schedtrace_core::analysis::Lane::drawn`.
    pub(crate) fn lane(&self, letter: char) -> char {
        let at = ['#', '+', 'w', '.'].iter().position(|known| *known == letter);
        at.map_or(letter, |at| self.lane[at])
    }

    /// Takes out of a screen what such a terminal may not have, be it in a name or a unit.
    pub(crate) fn only_known(&self, screen: &mut Buffer) {
        if !self.dot.is_ascii() {
            return;
        }
        for cell in screen.content.iter_mut().filter(|cell| !cell.symbol().is_ascii()) {
            let known = match cell.symbol() {
                "\u{b5}" | "\u{3bc}" => "u",
                "\u{b7}" => self.dot,
                _ => "?",
            };
            cell.set_symbol(known);
        }
    }

    pub(crate) fn sorted(&self, ascending: bool) -> &'static str {
        if ascending { self.up } else { self.down }
    }
}

impl Theme {
    pub(crate) fn new(look: Look, ascii: bool) -> Self {
        let fg = |colour: Color| Style::new().fg(colour);
        let [low, some, much, most, dim] = match look {
            Look::Dark | Look::Sixteen => [Color::Green, Color::Cyan, Color::Yellow, Color::Red, Color::DarkGray],
            Look::Light => [
                Color::Rgb(0, 110, 40),
                Color::Rgb(0, 90, 140),
                Color::Rgb(150, 90, 0),
                Color::Rgb(180, 0, 20),
                Color::Rgb(100, 100, 100),
            ],
            Look::ColourBlind => [
                Color::Rgb(86, 180, 233),
                Color::Rgb(0, 114, 178),
                Color::Rgb(230, 159, 0),
                Color::Rgb(213, 94, 0),
                Color::DarkGray,
            ],
            Look::Monochrome => [Color::Reset; 5],
        };
        let plain = look == Look::Monochrome;
        let strong = |style: Style| if plain { style.add_modifier(Modifier::BOLD) } else { style };
        let dim = if plain { Style::new().add_modifier(Modifier::DIM) } else { fg(dim) };
        Self {
            glyphs: if ascii { &ASCII } else { &UNICODE },
            title: Style::new().add_modifier(Modifier::BOLD),
            head: Style::new().add_modifier(Modifier::BOLD),
            dim,
            selected: Style::new().add_modifier(Modifier::REVERSED),
            good: fg(low),
            warn: strong(fg(much)),
            bad: strong(fg(most)).add_modifier(Modifier::BOLD),
            key: match look {
                Look::Monochrome => Style::new().add_modifier(Modifier::UNDERLINED),
                // The darker blue is hard to read where it is thin.
                Look::ColourBlind => fg(low),
                _ => fg(some),
            },
            scale: [fg(low), fg(some), strong(fg(much)), strong(fg(most))],
        }
    }

    /// From 0 to 1, where much is bad.
    pub(crate) fn scale(&self, ratio: f64) -> Style {
        match ratio {
            n if n >= 0.9 => self.scale[3],
            n if n >= 0.7 => self.scale[2],
            n if n >= 0.4 => self.scale[1],
            _ => self.scale[0],
        }
    }

    /// A wait for a CPU: from a millisecond on it may matter, from ten it does.
    pub(crate) fn wait(&self, ns: u64) -> Style {
        match ns {
            10_000_000.. => self.bad,
            1_000_000.. => self.warn,
            _ => Style::new(),
        }
    }

    pub(crate) fn value(&self, value: &Value) -> Style {
        match value {
            Value::None => self.dim,
            Value::Time(ns) | Value::AtLeast(ns) => self.wait(*ns).remove_modifier(Modifier::BOLD),
            _ => Style::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_says_which_colours_it_has() {
        let of = |pairs: &'static [(&str, &str)]| {
            Look::of_terminal(move |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[("TERM", "xterm-256color")]), Look::Dark);
        assert_eq!(of(&[("TERM", "xterm"), ("COLORTERM", "truecolor")]), Look::Dark);
        assert_eq!(of(&[("TERM", "linux")]), Look::Sixteen);
        assert_eq!(of(&[("TERM", "xterm-256color"), ("NO_COLOR", "1")]), Look::Monochrome);
        assert_eq!(of(&[("TERM", "vt100")]), Look::Monochrome);
    }

    #[test]
    fn a_terminal_without_unicode_is_sent_none() {
        let mut screen = Buffer::with_lines(["5\u{b5}s \u{b7} caf\u{e9} \u{732b}x"]);
        UNICODE.only_known(&mut screen);
        assert_eq!(screen, Buffer::with_lines(["5\u{b5}s \u{b7} caf\u{e9} \u{732b}x"]));
        ASCII.only_known(&mut screen);
        assert_eq!(screen, Buffer::with_lines(["5us | caf? ? x"]));
    }

    #[test]
    fn a_bar_is_empty_only_for_nothing() {
        assert_eq!([0.0, 0.001, 0.5, 1.0, 2.0].map(|ratio| UNICODE.bar(ratio)), [" ", "▁", "▄", "█", "█"]);
    }
}
