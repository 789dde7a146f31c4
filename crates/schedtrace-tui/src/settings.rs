//! How the screen begins.

use std::collections::BTreeMap;
use std::time::Duration;

use schedtrace_core::Error;

use crate::config::Remembered;
use crate::filter::nearest;
use crate::theme::Look;
use crate::views::Name;

/// The shortest and the longest window of what goes on.
pub(crate) const LEAST_INTERVAL: Duration = Duration::from_millis(125);
pub(crate) const MOST_INTERVAL: Duration = Duration::from_secs(60);

/// How it begins.
///
/// ```
/// use schedtrace_tui::{Look, Settings};
/// let settings = Settings { look: Look::Light, ..Settings::default() };
/// assert!(!settings.ascii);
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which colours.
    pub look: Look,
    /// Only signs that every terminal has.
    pub ascii: bool,
    /// How long the window of a machine that runs is, and how often it is drawn; and how long that of a replay is.
    pub interval: Duration,
    /// With which view it begins: one of [`view_names`]; where none is named, the one that was last looked at, or the first.
    pub view: Option<String>,
    /// Other keys for what can be done, by its name.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Columns that are not shown, by view.
    pub hidden: BTreeMap<String, Vec<String>>,
    /// Whether the program can begin anew with other events: what [`show`](crate::show) ends with then.
    pub begins_anew: bool,
    /// What was remembered from the last time, and is for the next one, if it is.
    pub remembered: Option<Remembered>,
}

impl Settings {
    /// Fails where [`App::new`](crate::App::new) would, so that it is known before anything is loaded.
    ///
    /// ```
    /// use schedtrace_tui::Settings;
    /// use std::time::Duration;
    /// assert!(Settings { interval: Duration::ZERO, ..Settings::default() }.check().is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if the window is too short or too long.
    pub fn check(&self) -> Result<(), Error> {
        if (LEAST_INTERVAL..=MOST_INTERVAL).contains(&self.interval) {
            return Ok(());
        }
        let why = "choose one from";
        Err(Error::Invalid(format!(
            "an interval of {:?}: {why} {LEAST_INTERVAL:?} to {MOST_INTERVAL:?}",
            self.interval
        )))
    }
}

/// What views are called.
///
/// ```
/// assert!(schedtrace_tui::view_names().any(|name| name == "timeline"));
/// ```
pub fn view_names() -> impl Iterator<Item = &'static str> {
    Name::ALL.iter().filter(|name| name.action().is_some()).map(|name| name.text())
}

pub(crate) fn view_of(name: &str) -> Option<Name> {
    Name::ALL.iter().copied().find(|known| known.action().is_some() && known.text() == name)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            look: Look::default(),
            ascii: false,
            interval: Duration::from_secs(1),
            view: None,
            keys: BTreeMap::new(),
            hidden: BTreeMap::new(),
            begins_anew: false,
            remembered: None,
        }
    }
}

pub(crate) fn no_view(name: &str) -> Error {
    let near = nearest(name, view_names()).map_or_else(|| view_names().collect::<Vec<_>>().join(", "), str::to_owned);
    Error::Invalid(format!("no view is called `{name}`: {near}"))
}
