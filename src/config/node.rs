//! TOML as a tree in which every value knows where it was written.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use toml::de::{DeTable, DeValue};

/// Where something was written: `inputs/a.toml:12` or `--set dynamics.steps=1`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place(Rc<str>);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::String(text) => write!(f, "\"{}\"", text.escape_debug()),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Datetime(text) => f.write_str(text),
            Value::Array(items) => {
                f.write_str("[")?;
                for (k, item) in items.iter().enumerate() {
                    if k > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{}", item.value)?;
                }
                f.write_str("]")
            }
            Value::Table(_) => f.write_str("a table"),
        }
    }
}

impl Node {
    /// Whether there is something under this path of keys.
    pub fn has(&self, path: &[&str]) -> bool {
        match (path, &self.value) {
            ([], _) => true,
            ([first, rest @ ..], Value::Table(table)) => table.get(*first).is_some_and(|node| node.has(rest)),
            _ => false,
        }
    }

    /// Takes away what is under this path of keys.
    pub fn remove(&mut self, path: &[&str]) {
        if let ([first, rest @ ..], Value::Table(table)) = (path, &mut self.value) {
            if rest.is_empty() {
                table.remove(*first);
            } else if let Some(node) = table.get_mut(*first) {
                node.remove(rest);
            }
        }
    }
}

/// Parses a document; `file` is for messages.
pub(super) fn parse(file: &str, text: &str) -> Result<Node> {
    let lines = Lines::new(file, text);
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let what = explain(error.message(), text, &span);
        Error::Input(format!("{}: this is not valid TOML: {what}", lines.place(span.start)))
    })?;
    convert(DeValue::Table(table.into_inner()), "", lines.place(0), &lines)
}

/// The parser's complaints in the words of somebody who writes an input. Those that are rare stay as they are.
fn explain(message: &str, text: &str, span: &Range<usize>) -> String {
    let there = text.get(span.clone()).unwrap_or_default();
    let begin = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    let line = text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or_default().trim();
    let rest = text.get(span.start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let rest = rest.split('#').next().unwrap_or_default().trim();
    match message.trim() {
        message if message.starts_with("string values must be quoted") => match rest {
            "" => "the key has no value".into(),
            value => format!("texts, and numbers with a unit, need quotes: \"{}\"", value.escape_debug()),
        },
        "duplicate key" => format!("{there} is there twice; keep one of them"),
        message if message.starts_with("key with no value") => {
            format!("'{}' is not of the form key = value", line.escape_debug())
        }
        message if message.starts_with("unclosed table") => "the ] after the name of the table is missing".into(),
        message if message.starts_with("invalid basic string, expected `\"`") => {
            "the quotes at the end of the text are missing".into()
        }
        message if message.contains("recurs") => "lists or tables lie too deep in each other".into(),
        message => message.replace('\n', ", "),
    }
}

/// Parses `section.key=value` from the command line. A value that is no TOML is taken as a string, so that
/// `--set dynamics.timestep=1fs` needs no quotes within quotes.
pub(super) fn parse_override(text: &str) -> Result<Node> {
    let place = format!("--set {text}");
    let Some((key, value)) = text.split_once('=') else {
        return Err(Error::Input(format!("{place}: write it as section.key=value")));
    };
    let quoted = format!("{key} = {}", toml::Value::String(value.trim().to_string()));
    let tree = parse(&place, &format!("{key} = {value}")).or_else(|_| parse(&place, &quoted)).map_err(|_| {
        Error::Input(format!("{place}: '{key}' is not the name of a key; write it as section.key=value"))
    })?;
    Ok(relocate(tree, &Place(place.into())))
}

/// Lays `over` on top of `under`: tables are merged, everything else is replaced.
pub(super) fn merge(under: &mut Node, over: Node) {
    match (&mut under.value, over.value) {
        (Value::Table(under), Value::Table(over)) => {
            for (key, node) in over {
                match under.get_mut(&key) {
                    Some(existing) => merge(existing, node),
                    None => {
                        under.insert(key, node);
                    }
                }
            }
        }
        (_, value) => *under = Node { place: over.place, value },
    }
}

fn relocate(node: Node, place: &Place) -> Node {
    let value = match node.value {
        Value::Table(table) => {
            Value::Table(table.into_iter().map(|(key, node)| (key, relocate(node, place))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|node| relocate(node, place)).collect()),
        other => other,
    };
    Node { place: place.clone(), value }
}

/// `key` is the full name of what the value is given to.
fn convert(value: DeValue, key: &str, place: Place, lines: &Lines) -> Result<Node> {
    let large =
        |text: &str| Error::Input(format!("{place}: {key} = {text} is more than can be held; give a smaller number"));
    let value = match value {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(integer) => {
            Value::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| large(integer.as_str()))?)
        }
        DeValue::Float(float) => {
            let number: Option<f64> = float.as_str().parse().ok();
            // Digits that come out as infinite are too many; who writes inf gets it.
            let number = number.filter(|x| x.is_finite() || !float.as_str().contains(|c: char| c.is_ascii_digit()));
            Value::Float(number.ok_or_else(|| large(float.as_str()))?)
        }
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| {
                    let place = lines.place(item.span().start);
                    convert(item.into_inner(), key, place, lines)
                })
                .collect::<Result<_>>()?,
        ),
        DeValue::Table(table) => Value::Table(
            table
                .into_iter()
                .map(|(name, item)| {
                    let place = lines.place(name.span().start);
                    let name = name.into_inner().into_owned();
                    let node = convert(item.into_inner(), &super::keys::path(key, &name), place, lines)?;
                    Ok((name, node))
                })
                .collect::<Result<_>>()?,
        ),
    };
    Ok(Node { place, value })
}

/// Turns offsets into line numbers.
struct Lines<'a> {
    file: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a str, text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { file, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|&start| start <= offset);
        Place(format!("{}:{line}", self.file).into())
    }
}
