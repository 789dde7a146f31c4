//! What keys do: each thing that can be done has a name, a sentence and keys, which may be given others.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Declares what can be done: its name, its keys, what the help line calls it, and what it does.
macro_rules! actions {
    ($($action:ident = $name:literal [$($key:literal),*] $short:literal $about:literal;)*) => {
        /// Something that can be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Action {
            $($action,)*
        }

        impl Action {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$action,)*];

            /// As in the configuration and in the palette.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$action => $name,)* }
            }

            /// In the help line.
            pub(crate) const fn short(self) -> &'static str {
                match self { $(Self::$action => $short,)* }
            }

            /// In a sentence.
            pub(crate) const fn about(self) -> &'static str {
                match self { $(Self::$action => $about,)* }
            }

            const fn keys(self) -> &'static [&'static str] {
                match self { $(Self::$action => &[$($key),*],)* }
            }
        }
    };
}

actions! {
    Quit = "quit" ["q", "F10"] "quit" "Ends.";
    Help = "help" ["?", "F1"] "help" "Which keys do what, here and everywhere.";
    Palette = "palette" [":", "ctrl-p"] "commands" "All that can be done, by name.";
    Back = "back" ["Backspace", "alt-Left"] "back" "The view before, as it was.";
    Forward = "forward" ["alt-Right"] "forward" "The view from which one went back.";
    Close = "close" ["Esc"] "close" "Takes away what is open; then the filter, the time selection; then goes back.";
    Filter = "filter" ["/", "F4"] "filter" "Only rows in which a text stands.";
    Search = "search" ["F3", "ctrl-f"] "search" "Goes to the next row in which a text stands.";
    Columns = "columns" ["F2", "H"] "columns" "Which columns this table has: shows and hides them.";
    Pick = "pick-events" ["K"] "events" "Which events are recorded, and how many; shows those of a kind, or records others.";
    Open = "open" ["Enter"] "open" "Looks at what is selected.";
    Explain = "explain" ["e"] "explain" "Why what is selected was slow.";
    NextPanel = "next-panel" ["Tab"] "next panel" "The next table of this view.";
    PreviousPanel = "previous-panel" ["BackTab"] "panel before" "The table before.";
    NextView = "next-view" ["]"] "next view" "The next view.";
    PreviousView = "previous-view" ["["] "view before" "The view before this one in the list.";
    Up = "up" ["Up", "k"] "up" "One row up.";
    Down = "down" ["Down", "j"] "down" "One row down.";
    PageUp = "page-up" ["PageUp", "ctrl-b"] "page up" "One page up.";
    PageDown = "page-down" ["PageDown", "ctrl-d"] "page down" "One page down.";
    First = "first" ["Home", "g"] "first" "The first row.";
    Last = "last" ["End", "G"] "last" "The last row.";
    Left = "left" ["Left"] "left" "To the left: earlier.";
    Right = "right" ["Right"] "right" "To the right: later.";
    SortNext = "sort-next" [">", "F6"] "sort" "Sorts by the next column.";
    SortPrevious = "sort-previous" ["<"] "sort" "Sorts by the column before.";
    SortReverse = "sort-reverse" ["I"] "turn round" "Turns the order round.";
    Fold = "fold" ["F5", "."] "open, fold" "Shows the threads of a process, or hides them.";
    FoldAll = "fold-all" ["*"] "open all" "Shows the threads of all processes, or hides them.";
    Group = "group" ["b"] "group" "Rows by thread, process, cgroup, CPU or cache, in turn.";
    Pause = "pause" ["Space", "p"] "pause" "Holds the picture, and goes on; replays a trace.";
    Faster = "faster" ["+"] "faster" "Shorter windows, or a faster replay.";
    Slower = "slower" ["-"] "slower" "Longer windows, or a slower replay.";
    ZoomIn = "zoom-in" ["z"] "zoom in" "Half of the time that is selected.";
    ZoomOut = "zoom-out" ["Z"] "zoom out" "Twice the time that is selected.";
    Earlier = "earlier" ["{"] "earlier" "The stretch of time before this one.";
    Later = "later" ["}"] "later" "The stretch of time after this one.";
    AllTime = "all-time" ["0"] "all time" "The whole recording, or what goes on now.";
    Begin = "begin" ["("] "begin" "The first stretch of time that there is.";
    End = "end" [")"] "end" "The last stretch of time that there is.";
    Select = "select" ["v"] "select time" "Marks a time; a second time selects what lies between, in all views.";
    Follow = "follow" ["f"] "who woke it" "Goes to whoever woke the one under the cursor last, and to that moment.";
    Names = "names" ["o"] "names" "Names of who ran, where there is room for them.";
    NextAnomaly = "next-anomaly" ["n"] "next long wait" "The next of the longest waits.";
    PreviousAnomaly = "previous-anomaly" ["N"] "long wait before" "The long wait before.";
    Copy = "copy" ["y"] "copy" "Copies this table as Markdown.";
    CopyJson = "copy-json" ["Y"] "copy JSON" "Copies this table as JSON.";
    Save = "save" ["s"] "save" "Writes this view as a file of Markdown or JSON.";
    Export = "export" ["x"] "export" "Writes this stretch of time for Perfetto.";
    Snapshot = "snapshot" ["S"] "snapshot" "Writes the last seconds as a trace.";
    Record = "record" ["R"] "record" "Begins to record into a trace, with the last seconds; or stops that.";
    Sql = "sql" [";"] "SQL" "Asks in SQL: types a statement, and shows what it answers.";
    Clear = "clear" ["Delete"] "tables" "Shows again what can be asked in SQL.";
    Suspend = "suspend" ["ctrl-z"] "suspend" "Gives the terminal back for a while, as ctrl-z does.";
    Bars = "bars" ["a"] "busy, waits" "What the bars of the CPUs show: how busy they were, or how long tasks waited there.";
    Theme = "theme" ["T"] "theme" "The next choice of colours.";
    Overview = "overview" ["1"] "overview" "The machine at a glance.";
    Tasks = "tasks" ["2", "t"] "tasks" "Processes and threads.";
    Cpus = "cpus" ["3", "c"] "CPUs" "CPU by CPU.";
    Timeline = "timeline" ["4", "m"] "timeline" "What each CPU or thread did, moment by moment.";
    Latency = "latency" ["5", "l"] "latency" "How long tasks waited for a CPU.";
    Events = "events" ["E"] "events" "The events themselves.";
    Wakers = "wakers" ["6", "w"] "wakers" "Who wakes whom, and who takes whose CPU.";
    Interrupts = "interrupts" ["7", "i"] "interrupts" "Interrupts, softirqs and IPIs.";
    BlockIo = "disks" ["8", "d"] "disks" "Block devices.";
    SchedExt = "sched_ext" ["9"] "sched_ext" "The scheduler of sched_ext and its queues.";
    Cgroups = "cgroups" ["u"] "cgroups" "Cgroup by cgroup.";
    Llcs = "llcs" ["L"] "caches" "By last-level cache.";
    Nodes = "nodes" ["M"] "nodes" "By NUMA node.";
    Power = "power" ["P"] "power" "Idle states and frequencies.";
    Memory = "memory" ["r"] "memory" "The memory of the machine.";
    Network = "network" ["W"] "network" "The network interfaces of the machine.";
    Programs = "programs" ["B"] "BPF programs" "The BPF programs of the machine, and what they cost.";
    Doctor = "doctor" ["D"] "doctor" "What can be recorded here, and what is missing.";
}

impl Action {
    /// The one of this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }
}

/// A key with what is held beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(KeyCode, KeyModifiers);

impl From<KeyEvent> for Key {
    fn from(event: KeyEvent) -> Self {
        // A capital says that shift was held; not all terminals say it again.
        let held = event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT);
        Self(event.code, held)
    }
}

impl FromStr for Key {
    type Err = String;

    /// Reads `q`, `Enter`, `F5`, `ctrl-p`, `alt-Left`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut rest, mut held) = (text, KeyModifiers::NONE);
        for (prefix, modifier) in [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT)] {
            if let Some(after) = rest.strip_prefix(prefix).filter(|after| !after.is_empty()) {
                (rest, held) = (after, held | modifier);
            }
        }
        let named = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(rest)).map(|(_, code)| *code);
        let function = || rest.strip_prefix(['F', 'f'])?.parse().ok().filter(|n| (1..=12).contains(n)).map(KeyCode::F);
        let mut letters = rest.chars();
        let letter = || letters.next().filter(|_| letters.next().is_none()).map(KeyCode::Char);
        let code = named.or_else(function).or_else(letter).ok_or_else(|| {
            format!("`{text}` is no key: write a letter, Enter, Space, Tab, F5 or Left, with ctrl- or alt- before it")
        })?;
        let code = if held.contains(KeyModifiers::CONTROL) { held_of(code, text)? } else { code };
        Ok(Self(code, held))
    }
}

/// What terminals send of a key with Control: of letters one of 32 bytes, some of which are those of other keys
/// (<https://man7.org/linux/man-pages/man7/ascii.7.html>).
fn held_of(code: KeyCode, text: &str) -> Result<KeyCode, String> {
    let instead = match code {
        KeyCode::Char(letter) => match letter.to_ascii_lowercase() {
            'c' => return Err(format!("`{text}` always ends: it can do nothing else")),
            'h' => "Backspace",
            'i' => "Tab",
            'm' => "Enter",
            '[' => "Esc",
            letter @ ('a'..='z' | ' ') => return Ok(KeyCode::Char(letter)),
            _ => {
                return Err(format!(
                    "terminals do not send `{text}`: write a letter behind ctrl-, or a key with a name"
                ));
            }
        },
        KeyCode::Enter => "Enter",
        KeyCode::Tab | KeyCode::BackTab => "Tab",
        KeyCode::Esc => "Esc",
        KeyCode::Backspace => "Backspace",
        code => return Ok(code),
    };
    Err(format!("terminals send {instead} for `{text}`: choose another key"))
}

const NAMED: [(&str, KeyCode); 16] = [
    ("Enter", KeyCode::Enter),
    ("Space", KeyCode::Char(' ')),
    ("Tab", KeyCode::Tab),
    ("BackTab", KeyCode::BackTab),
    ("Esc", KeyCode::Esc),
    ("Backspace", KeyCode::Backspace),
    ("Delete", KeyCode::Delete),
    ("Insert", KeyCode::Insert),
    ("Up", KeyCode::Up),
    ("Down", KeyCode::Down),
    ("Left", KeyCode::Left),
    ("Right", KeyCode::Right),
    ("Home", KeyCode::Home),
    ("End", KeyCode::End),
    ("PageUp", KeyCode::PageUp),
    ("PageDown", KeyCode::PageDown),
];

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1.contains(KeyModifiers::CONTROL) {
            f.write_str("ctrl-")?;
        }
        if self.1.contains(KeyModifiers::ALT) {
            f.write_str("alt-")?;
        }
        match NAMED.iter().find(|(_, code)| *code == self.0) {
            Some((name, _)) => f.write_str(name),
            None => match self.0 {
                KeyCode::Char(letter) => write!(f, "{letter}"),
                KeyCode::F(n) => write!(f, "F{n}"),
                other => write!(f, "{other}"),
            },
        }
    }
}

/// Which key does what.
#[derive(Clone, Debug)]
pub(crate) struct Bindings(HashMap<Key, Action>);

impl Default for Bindings {
    fn default() -> Self {
        let keys = |action: &Action| action.keys().iter().filter_map(|key| key.parse().ok()).collect::<Vec<Key>>();
        Self(Action::ALL.iter().flat_map(|action| keys(action).into_iter().map(|key| (key, *action))).collect())
    }
}

impl Bindings {
    /// The usual ones, but for those that somebody has chosen: each of these actions has those keys and no others. With what
    /// has no key any more though nobody said so.
    ///
    /// # Errors
    /// If nothing is called so, a key is none, or one key is to do two things.
    pub(crate) fn chosen(keys: &BTreeMap<String, Vec<String>>) -> Result<(Self, Vec<Action>), String> {
        let mut chosen: HashMap<Key, Action> = HashMap::new();
        let mut actions = Vec::new();
        for (name, keys) in keys {
            let action = Action::of(name).ok_or_else(|| {
                format!("nothing that can be done is called `{name}`: `schedtrace top` tells all with `:`")
            })?;
            actions.push(action);
            for text in keys {
                let key: Key = text.parse()?;
                if let Some(other) = chosen.insert(key, action).filter(|other| *other != action) {
                    return Err(format!("`{text}` is to do both `{}` and `{name}`: choose one", other.name()));
                }
            }
        }
        let mut bindings = Self::default();
        bindings.0.retain(|_, bound| !actions.contains(bound));
        bindings.0.extend(chosen);
        let is_left = |action: &Action| !actions.contains(action) && !bindings.0.values().any(|bound| bound == action);
        let left = Action::ALL.iter().copied().filter(is_left).collect();
        Ok((bindings, left))
    }

    pub(crate) fn action(&self, event: KeyEvent) -> Option<Action> {
        self.0.get(&Key::from(event)).copied()
    }

    /// The keys of something, the shortest first.
    pub(crate) fn keys(&self, action: Action) -> Vec<String> {
        let mut keys: Vec<_> =
            self.0.iter().filter(|(_, bound)| **bound == action).map(|(key, _)| key.to_string()).collect();
        // As they are declared: the one that people know first; then what somebody chose.
        let place = |key: &String| action.keys().iter().position(|known| known == key).unwrap_or(usize::MAX);
        keys.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.len().cmp(&b.len())).then_with(|| a.cmp(b)));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_does_one_thing() {
        let mut seen = HashMap::new();
        for action in Action::ALL {
            for key in action.keys() {
                let parsed: Key = key.parse().unwrap_or_else(|why| panic!("{why}"));
                assert_eq!(parsed.to_string(), *key);
                assert_eq!(seen.insert(parsed, action), None, "{key}");
            }
        }
    }

    fn chosen(keys: &[(&str, &[&str])]) -> Result<(Bindings, Vec<Action>), String> {
        let keys =
            keys.iter().map(|(name, keys)| ((*name).to_owned(), keys.iter().map(|&key| key.to_owned()).collect()));
        Bindings::chosen(&keys.collect())
    }

    #[test]
    fn keys_can_be_given_to_others() {
        let (bindings, left) = chosen(&[("quit", &["ctrl-X", "F12"])]).unwrap();
        assert_eq!(bindings.keys(Action::Quit), ["F12", "ctrl-x"], "terminals send no capitals with Control");
        assert_eq!((bindings.action(KeyCode::Char('q').into()), left), (None, vec![]));
        assert!(chosen(&[("leave", &[])]).unwrap_err().contains("`leave`"));
        assert!(chosen(&[("quit", &["hyper-x"])]).unwrap_err().contains("hyper-x"));
    }

    #[test]
    fn what_loses_its_key_is_told() {
        let (bindings, left) = chosen(&[("quit", &["x"])]).unwrap();
        assert_eq!((bindings.action(KeyCode::Char('x').into()), left), (Some(Action::Quit), vec![Action::Export]));
        let (bindings, left) = chosen(&[("quit", &["x"]), ("export", &["q"])]).unwrap();
        assert_eq!((bindings.action(KeyCode::Char('q').into()), left), (Some(Action::Export), vec![]));
        let (_, left) = chosen(&[("help", &[])]).unwrap();
        assert_eq!(left, [], "somebody wants it so");
    }

    #[test]
    fn a_key_does_not_do_two_things() {
        let why = chosen(&[("quit", &["ctrl-x"]), ("export", &["ctrl-X"])]).unwrap_err();
        assert!(why.contains("`quit`") && why.contains("`export`"), "{why}");
        assert!(chosen(&[("quit", &["q", "q"])]).is_ok());
    }

    #[test]
    fn what_no_terminal_sends_is_refused() {
        for (key, told) in [
            ("ctrl-i", "Tab"),
            ("ctrl-M", "Enter"),
            ("ctrl-[", "Esc"),
            ("ctrl-h", "Backspace"),
            ("ctrl-Enter", "Enter"),
            ("ctrl-1", "do not send"),
            ("ctrl-\u{e9}", "do not send"),
            ("ctrl-c", "always ends"),
        ] {
            let why = key.parse::<Key>().unwrap_err();
            assert!(why.contains(told) && why.contains(key), "{why}");
        }
        for key in ["ctrl-Left", "ctrl-Space", "ctrl-F5", "alt-i", "alt-Enter", "ctrl-alt-x"] {
            assert!(key.parse::<Key>().is_ok(), "{key}");
        }
    }

    #[test]
    fn a_view_and_what_opens_it_have_one_name() {
        for name in crate::views::Name::ALL {
            assert!(name.action().is_none_or(|action| action.name() == name.text()), "{name:?}");
        }
    }
}
