//! YAML 1.2, of bounded size: anchors may be used, but not to make much of little.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::BadConfig;
use super::node::{Entry, Node, Value};

/// So many values may be in a file, those that aliases stand for counted each time.
const MAX_NODES: usize = 10_000;
/// So many bytes of text may they have, counted the same way.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// So deep may they stand in each other.
const MAX_DEPTH: usize = 16;

/// The one document of a file; nothing in it is an empty table.
pub(super) fn read(text: &str) -> Result<Node, BadConfig> {
    let mut reader = Reader::default();
    let mut document = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| BadConfig::at(error.marker().line(), error.info()))?;
        if document.is_some() && matches!(event, Event::DocumentStart(_)) {
            return Err(BadConfig::at(span.start.line(), "a second document begins: there may be one"));
        }
        if let Some(node) = reader.event(event, span)? {
            document = Some(node);
        }
    }
    Ok(document.unwrap_or(Node { line: 1, value: Value::Null }))
}

/// What has begun and not ended yet.
#[derive(Debug)]
struct Open {
    line: usize,
    anchor: usize,
    holds: Holds,
}

#[derive(Debug)]
enum Holds {
    List(Vec<Node>),
    /// With the key whose value comes next.
    Table(Vec<Entry>, Option<(String, usize)>),
}

#[derive(Debug, Default)]
struct Reader {
    open: Vec<Open>,
    /// What anchors stand for, with its size.
    anchors: HashMap<usize, (Node, Size)>,
    size: Size,
}

/// What values take.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: usize,
    text_bytes: usize,
}

impl Size {
    /// Of a value with what is in it.
    fn of(node: &Node) -> Self {
        let own = Self::own(node);
        match &node.value {
            Value::List(list) => list.iter().map(Self::of).fold(own, Self::plus),
            Value::Table(entries) => entries.iter().fold(own, |size, entry| {
                size.plus(Self { nodes: 1, text_bytes: entry.key.len() }).plus(Self::of(&entry.node))
            }),
            _ => own,
        }
    }

    /// Of a value without what is in it.
    fn own(node: &Node) -> Self {
        Self { nodes: 1, text_bytes: if let Value::Text(text) = &node.value { text.len() } else { 0 } }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            text_bytes: self.text_bytes.saturating_add(other.text_bytes),
        }
    }
}

impl Reader {
    /// Takes the next event; gives the document once it is whole.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, BadConfig> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                let value = if style == ScalarStyle::Plain { plain(&text) } else { Value::Text(text.into_owned()) };
                let node = Node { line, value };
                let size = Size::own(&node);
                self.close(node, anchor, size)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                self.begin(Open { line, anchor, holds: Holds::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                self.begin(Open { line, anchor, holds: Holds::Table(Vec::new(), None) })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(None) };
                let value = match open.holds {
                    Holds::List(list) => Value::List(list),
                    Holds::Table(entries, _) => Value::Table(entries),
                };
                // What is in it was counted when it came.
                self.close(Node { line: open.line, value }, open.anchor, Size { nodes: 1, text_bytes: 0 })
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let (node, size) =
                    known.ok_or_else(|| BadConfig::at(line, "an alias stands for what it is a part of"))?;
                self.close(Node { line, ..node }, 0, size)
            }
            _ => Ok(None),
        }
    }

    fn begin(&mut self, open: Open) -> Result<Option<Node>, BadConfig> {
        if self.open.len() >= MAX_DEPTH {
            return Err(BadConfig::at(open.line, format!("values stand in each other more than {MAX_DEPTH} deep")));
        }
        self.open.push(open);
        Ok(None)
    }

    /// Puts a whole value, which adds so much to the file, where it belongs.
    fn close(&mut self, node: Node, anchor: usize, size: Size) -> Result<Option<Node>, BadConfig> {
        self.size = self.size.plus(size);
        if self.size.nodes > MAX_NODES {
            return Err(BadConfig::at(node.line, format!("there are more than {MAX_NODES} values in it")));
        }
        if self.size.text_bytes > MAX_TEXT_BYTES {
            let told = format!("its values have more than {MAX_TEXT_BYTES} bytes of text, with what aliases stand for");
            return Err(BadConfig::at(node.line, told));
        }
        if anchor != 0 {
            let size = Size::of(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else { return Ok(Some(node)) };
        match &mut open.holds {
            Holds::List(list) => list.push(node),
            Holds::Table(entries, awaited) => match awaited.take() {
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => *awaited = Some((key_of(&node, entries)?, node.line)),
            },
        }
        Ok(None)
    }
}

/// The text of a key that is not there yet.
fn key_of(node: &Node, entries: &[Entry]) -> Result<String, BadConfig> {
    let Value::Text(key) = &node.value else { return Err(BadConfig::at(node.line, "a key has to be a text")) };
    if let Some(entry) = entries.iter().find(|entry| entry.key == *key) {
        let key: String = key.chars().take(64).collect();
        return Err(BadConfig::at(node.line, format!("`{key}` was set before, in line {}", entry.line)));
    }
    Ok(key.clone())
}

fn refuse_tag(is_tagged: bool, line: usize) -> Result<(), BadConfig> {
    if is_tagged { Err(BadConfig::at(line, "tags (`!` and what follows) are not read: leave it out")) } else { Ok(()) }
}

/// What a value without quotes is, by the core schema of YAML 1.2.
fn plain(text: &str) -> Value {
    let radix = |prefix: &str, radix| i64::from_str_radix(text.strip_prefix(prefix)?, radix).ok();
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Flag(true),
        "false" | "False" | "FALSE" => Value::Flag(false),
        _ => {
            let whole = text.parse().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8));
            let begins = text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit() || c == '.');
            let fraction = || text.parse().ok().filter(|_| begins);
            whole
                .map(Value::Whole)
                .or_else(|| fraction().map(Value::Fraction))
                .unwrap_or_else(|| Value::Text(text.to_owned()))
        }
    }
}
