//! What a configuration file holds, whichever language it is written in: values that know their line.

use super::BadConfig;

/// A value, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Flag(bool),
    Whole(i64),
    Fraction(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table, and what it is set to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for a person who expected something else.
    fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "true or false",
            Self::Whole(_) | Self::Fraction(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Table(_) => "keys with values",
        }
    }
}

/// Some keys with their values, all of which are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    /// The key it is set to, with those above it: `probes.tracepoints[0]`.
    path: &'a str,
    entries: &'a [Entry],
    line: usize,
}

impl<'a> Table<'a> {
    /// The table in a node, which may have these keys only.
    pub(super) fn read(node: &'a Node, path: &'a str, known: &[&str]) -> Result<Self, BadConfig> {
        let entries = match &node.value {
            Value::Table(entries) => entries.as_slice(),
            Value::Null => &[],
            other => return Err(wrong(node.line, path, "keys with values", other)),
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                return Err(unknown(entry, path, known));
            }
        }
        Ok(Self { path, entries, line: node.line })
    }

    /// What stands there, unless it is nothing.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (entry.node.value != Value::Null).then_some(&entry.node)
    }

    /// The full name of a key of it.
    pub(super) fn path(&self, key: &str) -> String {
        join(self.path, key)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, BadConfig> {
        self.get(key).map(|node| text(node, &self.path(key))).transpose()
    }

    pub(super) fn required(&self, key: &str) -> Result<String, BadConfig> {
        self.text(key)?.ok_or_else(|| BadConfig::at(self.line, format!("`{}` is missing", self.path(key))))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, BadConfig> {
        let read = |node: &Node| match node.value {
            Value::Flag(flag) => Ok(flag),
            ref other => Err(wrong(node.line, &self.path(key), "true or false", other)),
        };
        self.get(key).map(read).transpose()
    }

    /// A number above 0.
    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>, BadConfig> {
        let wanted = "a whole number above 0";
        let read = |node: &Node| match node.value {
            Value::Whole(number) => u64::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| {
                BadConfig::at(node.line, format!("`{}` has to be {wanted}, and it is {number}", self.path(key)))
            }),
            ref other => Err(wrong(node.line, &self.path(key), wanted, other)),
        };
        self.get(key).map(read).transpose()
    }

    /// A number above 0, whole or not.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, BadConfig> {
        let wanted = "a number above 0";
        let read = |node: &Node| {
            let number = match node.value {
                Value::Whole(number) => number as f64,
                Value::Fraction(number) => number,
                ref other => return Err(wrong(node.line, &self.path(key), wanted, other)),
            };
            // Nothing here is larger: hours of retention, calls in a second.
            if number > 0.0 && number <= 1e9 {
                return Ok(number);
            }
            let told = format!("`{}` has to be {wanted} and at most 1e9, and it is {number}", self.path(key));
            Err(BadConfig::at(node.line, told))
        };
        self.get(key).map(read).transpose()
    }

    /// The parts of a list with their full names; none where it is not there.
    pub(super) fn list(&self, key: &str) -> Result<Option<Vec<(String, &'a Node)>>, BadConfig> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let path = self.path(key);
        let Value::List(list) = &node.value else { return Err(wrong(node.line, &path, "a list", &node.value)) };
        Ok(Some(list.iter().enumerate().map(|(at, node)| (format!("{path}[{at}]"), node)).collect()))
    }

    /// A list of texts; empty where it is not there.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, BadConfig> {
        let list = self.list(key)?.unwrap_or_default();
        list.iter().map(|(path, node)| text(node, path)).collect()
    }
}

fn text(node: &Node, path: &str) -> Result<String, BadConfig> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(wrong(node.line, path, "a text (in quotes)", other)),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn wrong(line: usize, path: &str, wanted: &str, found: &Value) -> BadConfig {
    let path = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
    BadConfig::at(line, format!("{path} has to be {wanted}, and it is {}", found.what()))
}

fn unknown(entry: &Entry, path: &str, known: &[&str]) -> BadConfig {
    let key: String = entry.key.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    let near = nearest(&key, known.iter().copied());
    let near = near.map_or_else(String::new, |near| format!(": do you mean `{}`?", join(path, near)));
    let known = known.join(", ");
    BadConfig::at(entry.line, format!("no key is called `{}`{near} (there are {known})", join(path, &key)))
}

/// The one of some names that is most like another, if any is.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// So alike are names of which one is taken for the other.
    const ALIKE: f64 = 0.75;
    let near = names.map(|other| (strsim::jaro_winkler(&name.to_lowercase(), other), other));
    near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(alike, _)| *alike >= ALIKE).map(|(_, other)| other)
}
