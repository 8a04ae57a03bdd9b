//! Typed values out of the tree, with one sentence for every mistake.

use super::keys::{self, KEYS, Kind, Sign};
use super::node::{Node, Place, Value};
use crate::error::{Error, Result};
use crate::system::Selection;
use crate::units::Dimension;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub value: T,
    /// `file:line: section.key = value`, the beginning of any complaint.
    pub what: String,
}

impl<T> Found<T> {
    /// An error about this value.
    pub fn error(&self, complaint: impl std::fmt::Display) -> Error {
        Error::Input(format!("{} {complaint}", self.what))
    }
}

/// The tree, with all keys known to be in the table.
pub(super) struct Reader {
    root: Node,
}

impl Reader {
    /// Refuses keys and tables that the program does not know.
    pub fn new(root: Node) -> Result<Self> {
        check_names("", &root)?;
        Ok(Reader { root })
    }

    /// Where the file begins, for complaints about what is missing.
    pub fn missing(&self, section: &str, name: &str) -> Error {
        let place = self.table(section).map_or(&self.root.place, |node| &node.place);
        Error::Input(format!(
            "{place}: {} is missing; give {}",
            keys::path(section, name),
            keys::find(section, name).kind.describe()
        ))
    }

    /// What stands where, for complaints about a value that only later turns out to be wrong: `file:line: key = value` of
    /// every key that is given once, by its full name.
    pub fn given(&self) -> BTreeMap<String, String> {
        let single = KEYS.iter().filter(|key| !keys::is_repeated(key.section));
        let given = single.filter_map(|key| {
            let node = self.get(key.section, key.name)?;
            let name = keys::path(key.section, key.name);
            Some((name.clone(), format!("{}: {name} = {}", node.place, node.value)))
        });
        given.collect()
    }

    /// The tables of a repeated section, each as a reader in which it is the only one.
    pub fn repeated(&self, section: &str) -> Vec<Reader> {
        let Some(Node { value: Value::Array(items), .. }) = self.table(section) else { return Vec::new() };
        let alone = |item: &Node| {
            section.rsplit('.').fold(item.clone(), |node, part| Node {
                place: node.place.clone(),
                value: Value::Table(BTreeMap::from([(part.to_owned(), node)])),
            })
        };
        items.iter().map(|item| Reader { root: alone(item) }).collect()
    }

    fn table(&self, section: &str) -> Option<&Node> {
        let mut node = &self.root;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            match &node.value {
                Value::Table(table) => node = table.get(part)?,
                _ => return None,
            }
        }
        Some(node)
    }

    fn get(&self, section: &str, name: &str) -> Option<&Node> {
        match &self.table(section)?.value {
            Value::Table(table) => table.get(name),
            _ => None,
        }
    }

    fn read<T>(
        &self,
        section: &str,
        name: &str,
        convert: impl FnOnce(&Value, &Kind) -> Option<T>,
    ) -> Result<Option<Found<T>>> {
        let key = keys::find(section, name);
        let Some(node) = self.get(section, name) else { return Ok(None) };
        let what = format!("{}: {} = {}", node.place, keys::path(section, name), node.value);
        match convert(&node.value, &key.kind) {
            Some(value) => Ok(Some(Found { value, what })),
            None => Err(Error::Input(format!("{what} is not accepted; give {}", key.kind.describe()))),
        }
    }

    /// Text, paths and choices.
    pub fn text(&self, section: &str, name: &str) -> Result<Option<Found<String>>> {
        let found = self.read(section, name, |value, kind| match (value, kind) {
            (Value::String(text), Kind::Choice(words)) => words.contains(&text.as_str()).then(|| text.clone()),
            (Value::String(text), Kind::Selection) => text.parse::<Selection>().is_ok().then(|| text.clone()),
            (Value::String(text), Kind::Path) => (!text.is_empty()).then(|| text.clone()),
            (Value::String(text), _) => Some(text.clone()),
            _ => None,
        })?;
        match found {
            Some(found) if found.value.contains('\0') => {
                Err(found.error("has a zero byte in it, at which files end their texts; leave it out"))
            }
            found => Ok(found),
        }
    }

    /// A path relative to `base`.
    pub fn path(&self, section: &str, name: &str, base: &std::path::Path) -> Result<Option<PathBuf>> {
        Ok(self.text(section, name)?.map(|found| base.join(found.value)))
    }

    pub fn integer(&self, section: &str, name: &str) -> Result<Option<Found<u64>>> {
        self.read(section, name, |value, kind| match (value, kind) {
            (Value::Integer(value), Kind::Integer(low, high)) if (low..=high).contains(&value) => {
                u64::try_from(*value).ok()
            }
            _ => None,
        })
    }

    pub fn boolean(&self, section: &str, name: &str) -> Result<Option<bool>> {
        let found = self.read(section, name, |value, _| match value {
            Value::Boolean(value) => Some(*value),
            _ => None,
        })?;
        Ok(found.map(|found| found.value))
    }

    pub fn quantity(&self, section: &str, name: &str) -> Result<Option<Found<f64>>> {
        self.read(section, name, |value, kind| match kind {
            Kind::Quantity(dimension, sign) => quantity(value, *dimension, *sign),
            _ => None,
        })
    }

    /// A list of numbers, or of lists of numbers, flattened; `shapes` are the accepted lengths.
    pub fn numbers(&self, section: &str, name: &str, lengths: &[usize]) -> Result<Option<Found<Vec<f64>>>> {
        self.read(section, name, |value, _| {
            let Value::Array(items) = value else { return None };
            let nested = items.iter().any(|item| matches!(item.value, Value::Array(_)));
            let mut numbers = Vec::new();
            for item in items {
                match &item.value {
                    Value::Array(row) if row.len() == 3 && items.len() == 3 => {
                        for x in row {
                            numbers.push(number(&x.value)?);
                        }
                    }
                    other if !nested => numbers.push(number(other)?),
                    _ => return None,
                }
            }
            lengths.contains(&numbers.len()).then_some(numbers)
        })
    }

    /// Three of the same.
    pub fn triple<T: Copy>(
        &self,
        section: &str,
        name: &str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Found<[T; 3]>>> {
        self.read(section, name, |value, _| match value {
            Value::Array(items) => match &items[..] {
                [a, b, c] => Some([convert(&a.value)?, convert(&b.value)?, convert(&c.value)?]),
                _ => None,
            },
            _ => None,
        })
    }

    /// A table of quantities under names of the user's choosing.
    pub fn map(&self, section: &str, name: &str, dimension: Dimension) -> Result<Vec<(String, Found<f64>)>> {
        let Some(node) = self.get(section, name) else { return Ok(Vec::new()) };
        let key = keys::find(section, name);
        let Value::Table(table) = &node.value else {
            return Err(Error::Input(format!(
                "{}: {} = {} is not accepted; give a table of {}",
                node.place,
                keys::path(section, name),
                node.value,
                key.kind.describe()
            )));
        };
        table
            .iter()
            .map(|(entry, node)| {
                let what = format!("{}: {}.{entry} = {}", node.place, keys::path(section, name), node.value);
                let accepted = Kind::Quantity(dimension, Sign::Positive);
                match quantity(&node.value, dimension, Sign::Positive) {
                    Some(value) => Ok((entry.clone(), Found { value, what })),
                    None => Err(Error::Input(format!("{what} is not accepted; give {}", accepted.describe()))),
                }
            })
            .collect()
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
    .filter(|value| value.is_finite())
}

/// A length in Å, zero or more, from text such as `1` or `0.1 nm`.
pub fn length(text: &str) -> Option<f64> {
    quantity(&Value::String(text.into()), Dimension::Length, Sign::NotNegative)
}

/// A number in the dimension's own unit, or a string like `"0.5 fs"`.
fn quantity(value: &Value, dimension: Dimension, sign: Sign) -> Option<f64> {
    let value = match value {
        Value::String(text) => {
            let text = text.trim();
            // The number is the longest beginning that reads as one: "1e3 fs" keeps its e, "1 1/ps" its second 1 in
            // the unit.
            let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
            let (number, split) =
                ends.rev().find_map(|end| Some((text[..end].trim_end().parse::<f64>().ok()?, end)))?;
            let unit = text[split..].trim();
            number * if unit.is_empty() { 1.0 } else { dimension.factor(unit)? }
        }
        other => number(other)?,
    };
    let allowed = match sign {
        Sign::Positive => value > 0.0,
        Sign::NotNegative => value >= 0.0,
    };
    (allowed && value.is_finite()).then_some(value)
}

/// Refuses the first name that is not in the table of keys.
fn check_names(section: &str, node: &Node) -> Result<()> {
    let header = keys::header(section);
    let table = match &node.value {
        Value::Table(table) if !keys::is_repeated(section) => table,
        Value::Array(items) if keys::is_repeated(section) => {
            return items.iter().try_for_each(|item| match &item.value {
                Value::Table(table) => check_table(section, table),
                other => Err(Error::Input(format!(
                    "{}: {section} = [{other}] is not accepted; write {header} above the keys of each",
                    item.place
                ))),
            });
        }
        Value::Table(_) => {
            return Err(Error::Input(format!(
                "{}: there can be several of {section}: write {header} above its keys, not [{section}]",
                node.place
            )));
        }
        other => {
            return Err(Error::Input(format!(
                "{}: {section} = {other} is not accepted; {section} is a table: write {header} above its keys",
                node.place
            )));
        }
    };
    check_table(section, table)
}

fn check_table(section: &str, table: &BTreeMap<String, Node>) -> Result<()> {
    for (name, child) in table {
        let full = keys::path(section, name);
        if KEYS.iter().any(|key| key.section == section && key.name == name) {
            continue;
        }
        if sections().contains_key(full.as_str()) {
            check_names(&full, child)?;
            continue;
        }
        return Err(unknown(section, name, &full, &child.place, &child.value));
    }
    Ok(())
}

/// All tables, those that only hold other tables included.
fn sections() -> BTreeMap<String, ()> {
    let mut all = BTreeMap::new();
    for key in KEYS {
        let mut name = String::new();
        for part in key.section.split('.').filter(|part| !part.is_empty()) {
            name = keys::path(&name, part);
            all.insert(name.clone(), ());
        }
    }
    all
}

fn unknown(section: &str, name: &str, full: &str, place: &Place, value: &Value) -> Error {
    let keys = || KEYS.iter().map(|key| keys::path(key.section, key.name));
    let table = matches!(value, Value::Table(_));
    let known: Vec<String> =
        if table { sections().into_keys().collect() } else { keys().chain(sections().into_keys()).collect() };
    // A name spelt right in the wrong table is nearer than a similar one in the right table.
    let elsewhere = known.iter().find(|path| path.rsplit('.').next() == Some(name));
    let nearest = elsewhere
        .or_else(|| known.iter().max_by(|a, b| similarity(a, full).total_cmp(&similarity(b, full))))
        .expect("the table of keys is not empty");
    if table {
        let tables: Vec<String> = sections().into_keys().map(|name| keys::header(&name)).collect();
        let nearest = keys::header(nearest);
        return Error::Input(format!(
            "{place}: [{full}] is not a known table; did you mean {nearest}? There are {}",
            tables.join(", ")
        ));
    }
    let here: Vec<&str> = KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
    let accepted = if here.is_empty() {
        String::new()
    } else if section.is_empty() {
        format!(" The top of the file takes {} and tables", here.join(", "))
    } else {
        format!(" {} takes {}", keys::header(section), here.join(", "))
    };
    Error::Input(format!("{place}: {full} = {value} is not a known key; did you mean {nearest}?{accepted}"))
}

fn similarity(a: &str, b: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(a, b)
}

#[cfg(test)]
mod tests {
    use super::super::node;
    use super::*;

    fn reader(text: &str) -> Result<Reader> {
        Reader::new(node::parse("a.toml", text)?)
    }

    fn timestep(value: &str) -> Option<f64> {
        let text = format!("[dynamics]\ntimestep = {value}\n");
        reader(&text).unwrap().quantity("dynamics", "timestep").ok().flatten().map(|found| found.value)
    }

    #[test]
    fn quantities_with_and_without_units() {
        for (text, value) in [
            ("0.5", 0.5),
            ("1", 1.0),
            ("\"0.5 fs\"", 0.5),
            ("\"0.5fs\"", 0.5),
            ("\"1e-3 ps\"", 1.0),
            ("\" 2. fs \"", 2.0),
            ("\"0.25\"", 0.25),
        ] {
            assert_eq!(timestep(text), Some(value), "{text}");
        }
        for text in [
            "\"fs\"",
            "\"1 parsec\"",
            "\"\"",
            "-1",
            "0",
            "true",
            "[1]",
            "nan",
            "inf",
            "\"1 fs 2\"",
            "\"inf fs\"",
            "\"1e400 fs\"",
        ] {
            assert_eq!(timestep(text), None, "{text}");
        }
    }

    #[test]
    fn messages_name_file_line_key_value_and_what_is_accepted() {
        let message = |text: &str| {
            let result = reader(text).and_then(|reader| reader.quantity("dynamics", "timestep"));
            result.unwrap_err().to_string()
        };
        assert_eq!(
            message("\n[dynamics]\ntimestep = \"0.5 parsec\"\n"),
            "a.toml:3: dynamics.timestep = \"0.5 parsec\" is not accepted; give a number above zero in fs, or a string \
             with a unit (fs, as, ps, ns, us, µs) such as \"1 fs\""
        );
        assert!(message("[dynamics]\ntimestp = 1\n").starts_with(
            "a.toml:2: dynamics.timestp = 1 is not a known key; did you mean dynamics.timestep? [dynamics] takes "
        ));
        assert!(message("timestep = 1\n").contains("did you mean dynamics.timestep"));
        assert!(message("[dynamic]\ntimestep = 1\n").contains("did you mean [dynamics]?"));
        assert!(message("dynamics = 3\n").contains("write [dynamics] above its keys"));
        assert_eq!(
            message("[[output.extra]]\nfile = \"a.dcd\"\n\n[[output.extra]]\nfile = \"b.dcd\"\natom = \"O\"\n"),
            "a.toml:6: output.extra.atom = \"O\" is not a known key; did you mean output.extra.atoms? [[output.extra]] \
             takes file, interval, atoms, wrap, velocities, forces"
        );
        assert_eq!(
            message("[output.extra]\nfile = \"a.dcd\"\n"),
            "a.toml:1: there can be several of output.extra: write [[output.extra]] above its keys, not [output.extra]"
        );
        assert!(message("[output]\nextra = 3\n").ends_with("write [[output.extra]] above its keys"));
        assert!(message("[output]\nextra = [3]\n").ends_with("write [[output.extra]] above the keys of each"));
        assert!(message("[dynamics]\nsteps = 1\nsteps = 2\n").starts_with("a.toml:3: this is not valid TOML: "));
    }

    #[test]
    fn overrides_win_and_say_where_they_come_from() {
        let mut root = node::parse("a.toml", "[dynamics]\ntimestep = 1\nsteps = 3\n").unwrap();
        node::merge(&mut root, node::parse_override("dynamics.timestep=2fs").unwrap());
        let reader = Reader::new(root).unwrap();
        assert_eq!(reader.quantity("dynamics", "timestep").unwrap().unwrap().value, 2.0);
        assert_eq!(reader.integer("dynamics", "steps").unwrap().unwrap().value, 3);
        let mut root = node::parse("a.toml", "").unwrap();
        node::merge(&mut root, node::parse_override("dynamics.steps=many").unwrap());
        let error = Reader::new(root).unwrap().integer("dynamics", "steps").unwrap_err();
        assert!(error.to_string().starts_with("--set dynamics.steps=many: dynamics.steps = \"many\" is not accepted"));
    }
}
