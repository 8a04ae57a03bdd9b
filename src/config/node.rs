//! TOML as a tree in which every value knows where it was written.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
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
            Value::String(text) => write!(f, "\"{text}\""),
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
        let at = error.span().map_or(0, |span| span.start);
        let what = error.message().trim().replace('\n', ", ");
        Error::Input(format!("{}: this is not valid TOML: {what}", lines.place(at)))
    })?;
    convert(DeValue::Table(table.into_inner()), lines.place(0), &lines)
}

/// Parses `section.key=value` from the command line. A value that is no TOML is taken as a string, so that
/// `--set dynamics.timestep=1fs` needs no quotes within quotes.
pub(super) fn parse_override(text: &str) -> Result<Node> {
    let place = format!("--set {text}");
    let Some((key, value)) = text.split_once('=') else {
        return Err(Error::Input(format!("{place}: write it as section.key=value")));
    };
    let quoted = format!("{key} = {}", toml::Value::String(value.trim().to_string()));
    let tree = parse(&place, &format!("{key} = {value}")).or_else(|_| parse(&place, &quoted))?;
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

fn convert(value: DeValue, place: Place, lines: &Lines) -> Result<Node> {
    let bad = |what: &str, text: &str| Error::Input(format!("{place}: {text} is too large for {what}"));
    let value = match value {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(integer) => Value::Integer(
            i64::from_str_radix(integer.as_str(), integer.radix())
                .map_err(|_| bad("a 64-bit integer", integer.as_str()))?,
        ),
        DeValue::Float(float) => Value::Float(float.as_str().parse().map_err(|_| bad("a number", float.as_str()))?),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| {
                    let place = lines.place(item.span().start);
                    convert(item.into_inner(), place, lines)
                })
                .collect::<Result<_>>()?,
        ),
        DeValue::Table(table) => Value::Table(
            table
                .into_iter()
                .map(|(key, item)| {
                    let place = lines.place(key.span().start);
                    Ok((key.into_inner().into_owned(), convert(item.into_inner(), place, lines)?))
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
