//! What a user has chosen: `schedtrace/config.toml` in the folder for configurations; and what is remembered from the last
//! time: `schedtrace/top.toml` in the folder for states (<https://specifications.freedesktop.org/basedir-spec/latest/>).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use schedtrace_core::analysis::GroupBy;
use schedtrace_core::{Error, Quantity, Result};
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use crate::filter::nearest;
use crate::keys::{Action, Key};
use crate::settings::Settings;
use crate::theme::Look;
use crate::views::Name;

/// No configuration is longer, and nothing longer is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The file of a user's choices.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    theme: Option<Look>,
    ascii: Option<bool>,
    interval: Option<String>,
    keys: BTreeMap<String, Vec<String>>,
    hidden: BTreeMap<String, Vec<String>>,
}

/// What can stand in it: docs/top.md tells of each.
pub(crate) const KEYS: [&str; 5] = ["theme", "ascii", "interval", "keys", "hidden"];

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) view: Option<String>,
    pub(crate) by: Option<GroupBy>,
    pub(crate) theme: Option<Look>,
    pub(crate) sort: Vec<Sorted>,
    pub(crate) column: Vec<Chosen>,
}

/// By what a table is sorted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Sorted {
    pub(crate) view: String,
    pub(crate) table: usize,
    pub(crate) column: String,
    pub(crate) ascending: bool,
}

/// A column that somebody showed or hid.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) view: String,
    pub(crate) table: usize,
    pub(crate) column: String,
    pub(crate) hidden: bool,
}

impl Settings {
    /// What fits this terminal and was chosen by this user: by the variables of the environment, and the files that these
    /// name. What was remembered and cannot be read is forgotten.
    ///
    /// # Errors
    /// [`Error::Invalid`] with file and line if the configuration is wrong, [`Error::Io`] if it cannot be read.
    ///
    /// ```
    /// use schedtrace_tui::{Look, Settings};
    /// let settings = Settings::of_user(|name| (name == "NO_COLOR").then(|| "1".into()))?;
    /// assert!(settings.look == Look::Monochrome && settings.ascii);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let folder = |name: &str, below: &str| {
            let named = variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
            let at_home = || Some(PathBuf::from(variable("HOME").filter(|home| !home.is_empty())?).join(below));
            Some(named.or_else(at_home)?.join("schedtrace"))
        };
        let text = |name: &str| variable(name).map(|text| text.to_string_lossy().into_owned());
        let look = Look::of_terminal(text);
        let mut settings = Self { look, ascii: !is_utf8(text), ..Self::default() };
        let state = folder("XDG_STATE_HOME", ".local/state").map(|folder| folder.join("top.toml"));
        settings.remembered = state.map(Remembered::read);
        let theme = settings.remembered.as_ref().and_then(|it| it.state.theme);
        // A terminal without colours has none, whatever was chosen on another.
        if look != Look::Monochrome {
            settings.look = theme.unwrap_or(look);
        }
        if let Some(path) = folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("config.toml")) {
            Config::read(&path)?.apply(&mut settings);
        }
        Ok(settings)
    }
}

/// Whether texts of this locale are in UTF-8.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &&str| variable(name).filter(|text| !text.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The text of a file that is there: of nothing else, which may have no end, or wait for somebody to write.
fn text_of(path: &Path) -> Result<Option<String>> {
    let failed = || Error::io("cannot read", path);
    let refused = |why: &str| Error::Invalid(format!("{}: {why}", path.display()));
    let found = match path.metadata() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        found => found.map_err(failed())?,
    };
    if !found.is_file() {
        return Err(refused("it is no regular file: put a file of TOML there"));
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed())?;
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(failed())?;
    if text.len() as u64 > LONGEST {
        return Err(refused(&format!("it has more than {LONGEST} bytes: no configuration is so long")));
    }
    Ok(Some(text))
}

impl Config {
    fn read(path: &Path) -> Result<Self> {
        let Some(text) = text_of(path)? else { return Ok(Self::default()) };
        Self::parse(&text).map_err(|(at, why)| {
            let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
            Error::Invalid(format!("{}, line {line}: {why}", path.display()))
        })
    }

    /// Reads it; where it is wrong, and why.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let wrong = |error: toml::de::Error| {
            let why = error.message().lines().collect::<Vec<_>>().join(" ");
            (error.span().map_or(0, |span| span.start), why)
        };
        let table = DeTable::parse(text).map_err(wrong)?;
        known(table.get_ref(), "", &KEYS)?;
        if let Some(keys) = below(table.get_ref(), "keys") {
            let names: Vec<&str> = Action::ALL.iter().map(|action| action.name()).collect();
            known(keys, "keys.", &names)?;
            each_key_once(keys)?;
        }
        if let Some(hidden) = below(table.get_ref(), "hidden") {
            let names: Vec<&str> = Name::ALL.iter().map(|name| name.text()).collect();
            known(hidden, "hidden.", &names)?;
        }
        let config: Self = toml::from_str(text).map_err(wrong)?;
        if let Some(interval) = &config.interval {
            let at = table.get_ref().iter().find(|(key, _)| key.get_ref() == "interval");
            let at = at.map_or(0, |(_, value)| value.span().start);
            interval_of(interval).map_err(|why| (at, why))?;
        }
        Ok(config)
    }

    fn apply(self, settings: &mut Settings) {
        settings.look = self.theme.unwrap_or(settings.look);
        settings.ascii = self.ascii.unwrap_or(settings.ascii);
        if let Some(interval) = self.interval.and_then(|text| interval_of(&text).ok()) {
            settings.interval = interval;
        }
        (settings.keys, settings.hidden) = (self.keys, self.hidden);
    }
}

fn interval_of(text: &str) -> Result<std::time::Duration, String> {
    let time = Quantity::read(text.trim()).and_then(Quantity::time_ns).map(std::time::Duration::from_nanos);
    let time = time.ok_or_else(|| format!("`{text}` is no time: write \"500ms\" or \"2s\""))?;
    let settings = Settings { interval: time, ..Settings::default() };
    settings.check().map(|()| time).map_err(|error| error.to_string())
}

fn below<'a, 'text>(table: &'a DeTable<'text>, name: &str) -> Option<&'a DeTable<'text>> {
    table.iter().find(|(key, _)| key.get_ref() == name).and_then(|(_, value)| match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    })
}

/// Fails at a key that is none of these.
fn known(table: &DeTable<'_>, before: &str, names: &[&str]) -> Result<(), (usize, String)> {
    let Some(key) = table.keys().find(|key| !names.contains(&key.get_ref().as_ref())) else { return Ok(()) };
    let Range { start, .. } = key.span();
    let name = key.get_ref();
    let why = match nearest(name.as_ref(), names) {
        Some(near) => format!("there is no `{before}{name}`: do you mean `{before}{near}`?"),
        None if names.len() > 16 => format!("there is no `{before}{name}`: `schedtrace top` tells all with `:`"),
        None => format!("there is no `{before}{name}`: {}", names.join(", ")),
    };
    Err((start, why))
}

/// Fails at a text that is no key, or one that does something else already.
fn each_key_once(actions: &DeTable<'_>) -> Result<(), (usize, String)> {
    let mut known: HashMap<Key, String> = HashMap::new();
    // What is no list of texts is told by whoever reads it as one.
    let lists = actions.iter().filter_map(|(name, keys)| match keys.get_ref() {
        DeValue::Array(keys) => Some((name.get_ref(), keys)),
        _ => None,
    });
    let mut found: Vec<_> = lists.flat_map(|(name, keys)| keys.iter().map(move |key| (name, key))).collect();
    found.sort_by_key(|(_, key)| key.span().start);
    for (name, key) in found {
        let DeValue::String(text) = key.get_ref() else { continue };
        let wrong = |why| (key.span().start, why);
        let other = known.insert(text.parse().map_err(wrong)?, name.to_string());
        if let Some(other) = other.filter(|other| other != name) {
            return Err(wrong(format!("`{text}` is to do both `{other}` and `{name}`: choose one")));
        }
    }
    Ok(())
}

/// What is remembered from one time to the next, and where it stands.
///
/// ```
/// use schedtrace_tui::{Remembered, Settings};
/// // As it is where nothing was remembered yet.
/// let settings = Settings { remembered: Some(Remembered::read("/nonexistent/top.toml".into())), ..Settings::default() };
/// assert!(settings.remembered.is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Remembered {
    pub(crate) path: PathBuf,
    pub(crate) state: State,
}

impl Remembered {
    /// Reads what was written there; where that cannot be read, nothing is remembered.
    #[must_use]
    pub fn read(path: PathBuf) -> Self {
        Self { state: State::read(&path).unwrap_or_default(), path }
    }
}

impl State {
    /// What was written there, if it can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        toml::from_str(&text_of(path).ok()??).ok()
    }

    fn text(&self) -> String {
        let mut text = String::from("# What `schedtrace top` remembers from the last time; it may be removed.\n");
        let texts = [
            ("view", self.view.clone()),
            ("theme", self.theme.map(|theme| theme.name().to_owned())),
            ("by", self.by.map(|by| by.to_string())),
        ];
        for (name, value) in texts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            text += &format!("{name} = {value:?}\n");
        }
        for Sorted { view, table, column, ascending } in &self.sort {
            text += &format!(
                "\n[[sort]]\nview = {view:?}\ntable = {table}\ncolumn = {column:?}\nascending = {ascending}\n"
            );
        }
        for Chosen { view, table, column, hidden } in &self.column {
            text +=
                &format!("\n[[column]]\nview = {view:?}\ntable = {table}\ncolumn = {column:?}\nhidden = {hidden}\n");
        }
        text
    }

    /// Writes it for the next time: whole, or not at all.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let written = std::fs::write(&new, self.text()).and_then(|()| std::fs::rename(&new, path));
        written.inspect_err(|_| drop(std::fs::remove_file(&new)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings_of(config: &str, others: &[(&str, &str)]) -> Result<Settings> {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/schedtrace");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), config).unwrap();
        Settings::of_user(|name| match name {
            "HOME" => Some(home.path().into()),
            name => others.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()),
        })
    }

    #[test]
    fn a_user_chooses() {
        let config = "theme = \"colour-blind\"\ninterval = \"500ms\"\n[keys]\nquit = [\"ctrl-x\"]\n[hidden]\ntasks = [\"forced\"]\n";
        let settings = settings_of(config, &[("LANG", "de_DE.UTF-8"), ("TERM", "linux")]).unwrap();
        assert_eq!((settings.look, settings.ascii), (Look::ColourBlind, false));
        assert_eq!(settings.interval, Duration::from_millis(500));
        assert_eq!(settings.keys["quit"], ["ctrl-x"]);
        assert_eq!(settings.hidden["tasks"], ["forced"]);
        assert!(settings_of("", &[("LANG", "C")]).unwrap().ascii);
        assert!(settings_of("ascii = false", &[]).is_ok_and(|settings| !settings.ascii));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (config, line, told) in [
            ("theme = \"dark\"\nintervall = \"1s\"", 2, "`interval`"),
            ("\n\ntheme = \"pink\"", 3, "pink"),
            ("interval = \"soon\"", 1, "no time"),
            ("interval = \"1h\"", 1, "60s"),
            ("[keys]\nquit = [\"q\"]\nquitt = [\"x\"]", 3, "`keys.quit`"),
            ("[keys]\nquit = [\"q\",\n \"hyper-x\"]", 3, "hyper-x"),
            ("[keys]\nquit = 5", 2, "5"),
            ("[keys]\nquit = [\"ctrl-x\"]\nback = [\"ctrl-X\"]", 3, "both `quit` and `back`"),
            ("[keys]\n\nquit = [\"ctrl-i\"]", 3, "Tab"),
            ("[hidden]\ntask_s = []", 2, "`hidden.tasks`"),
            ("ascii = yes", 1, ""),
            ("theme = \"dark\"\n= 5", 2, ""),
        ] {
            let why = settings_of(config, &[]).unwrap_err().to_string();
            assert!(why.contains(&format!("config.toml, line {line}: ")) && why.contains(told), "{config}: {why}");
            assert!(!why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn only_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, folder.path(), Path::new("/dev/zero")] {
            assert!(text_of(path).unwrap_err().to_string().contains("no regular file"), "{}", path.display());
        }
        let path = folder.path().join("long");
        std::fs::write(&path, vec![b'#'; LONGEST as usize + 1]).unwrap();
        assert!(text_of(&path).unwrap_err().to_string().contains("more than"));
        // One that says that it is empty and is not.
        assert!(text_of(Path::new("/proc/self/status")).is_ok_and(|text| text.is_some_and(|text| !text.is_empty())));
        assert_eq!(text_of(&folder.path().join("none")).unwrap(), None);
    }

    #[test]
    fn what_was_remembered_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("schedtrace/top.toml");
        let sorted = Sorted { view: "tasks".into(), table: 0, column: "MOST AT ONCE".into(), ascending: true };
        let state = State {
            view: Some("tasks".into()),
            by: Some(GroupBy::Cpu),
            theme: Some(Look::ColourBlind),
            sort: vec![sorted.clone(), sorted],
            column: vec![Chosen { view: "tasks".into(), table: 1, column: "FORCED".into(), hidden: true }],
        };
        state.write(&path).unwrap();
        assert_eq!(State::read(&path), Some(state));
        let variable = |term: &'static str| {
            let home = home.path().to_owned();
            move |name: &str| match name {
                "XDG_STATE_HOME" => Some(home.clone().into()),
                "TERM" => Some(term.into()),
                _ => None,
            }
        };
        let settings = Settings::of_user(variable("xterm")).unwrap();
        assert_eq!((settings.look, settings.remembered.map(|it| it.path)), (Look::ColourBlind, Some(path.clone())));
        assert_eq!(Settings::of_user(variable("dumb")).unwrap().look, Look::Monochrome);
        std::fs::write(&path, "view = [broken").unwrap();
        assert_eq!(State::read(&path), None);
        assert_eq!(Settings::of_user(variable("xterm")).unwrap().look, Look::Sixteen);
    }
}
