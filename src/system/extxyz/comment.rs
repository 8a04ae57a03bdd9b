//! The second line of a frame: `key=value` pairs.

use super::Value;
use std::fmt::Write;

/// Splits the line into keys and the text of their values; `None` for a key without a value.
///
/// A comment that was meant for people never fails, it just gives strange keys.
pub(super) fn entries(line: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (key, after) = key(rest);
        rest = after.trim_start();
        let mut text = None;
        if let Some(after) = rest.strip_prefix('=') {
            let (value, after) = value(after.trim_start());
            text = Some(value);
            rest = after.trim_start();
        }
        if !key.is_empty() {
            found.push((key, text));
        }
    }
    found
}

/// The key at the beginning of `text`, and what follows it.
fn key(text: &str) -> (String, &str) {
    quoted(text).unwrap_or_else(|| {
        let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
        (text[..end].to_owned(), &text[end..])
    })
}

/// The value at the beginning of `text`, and what follows it.
fn value(text: &str) -> (String, &str) {
    quoted(text).or_else(|| bracketed(text)).unwrap_or_else(|| {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        (text[..end].to_owned(), &text[end..])
    })
}

/// A text in single or double quotes, or `None` when there is no quote or it is never closed.
///
/// A backslash before anything but a quote, a backslash, `n` or `r` stands for itself: ASE does not escape backslashes.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next()?.1 {
                'n' => content.push('\n'),
                'r' => content.push('\r'),
                c @ ('\\' | '"' | '\'') => content.push(c),
                c => content.extend(['\\', c]),
            },
            c if c == quote => return Some((content, &text[at + 1..])),
            c => content.push(c),
        }
    }
    None
}

/// A text in square or curly brackets, or `None` when there is no bracket or it is never closed. An array of arrays of
/// numbers loses its inner brackets.
fn bracketed(text: &str) -> Option<(String, &str)> {
    let open = text.chars().next()?;
    let close = match open {
        '[' => ']',
        '{' => '}',
        _ => return None,
    };
    let mut depth = 0;
    let end = text.find(|c: char| {
        depth += i32::from(c == open) - i32::from(c == close);
        depth == 0
    })?;
    let content = &text[1..end];
    let flat = content.replace([open, close], " ");
    let is_array = !matches!(Value::parse(&flat), Value::Text(_));
    Some((if is_array { flat } else { content.to_owned() }, &text[end + 1..]))
}

impl Value {
    /// The value that a text stands for: numbers or logicals, separated by white space or commas, else the text itself.
    pub(super) fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()).collect();
        /// All words through one parser, or none.
        fn all<T>(words: &[&str], parser: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
            words.iter().map(|word| parser(word)).collect()
        }
        if words.is_empty() {
            return Value::Text(text.to_owned());
        }
        if let Some(values) = all(&words, |word| word.parse().ok()) {
            return if let [value] = values[..] { Value::Integer(value) } else { Value::Integers(values) };
        }
        if let Some(values) = all(&words, real) {
            return if let [value] = values[..] { Value::Real(value) } else { Value::Reals(values) };
        }
        if let Some(values) = all(&words, logical) {
            return if let [value] = values[..] { Value::Logical(value) } else { Value::Logicals(values) };
        }
        Value::Text(text.to_owned())
    }

    /// Appends the value as the format writes it.
    pub(super) fn write(&self, line: &mut String) {
        match self {
            Value::Real(value) => write_real(line, *value),
            Value::Integer(value) => append(line, value),
            Value::Logical(value) => line.push(letter(*value)),
            Value::Text(text) => write_text(line, text),
            Value::Reals(values) => write_array(line, values, |line, &value| write_real(line, value)),
            Value::Integers(values) => write_array(line, values, |line, value| append(line, value)),
            Value::Logicals(values) => write_array(line, values, |line, &value| line.push(letter(value))),
        }
    }
}

/// A real number, also with Fortran's exponent letter (`1.0D+00`). That needs a point or a sign, of which Fortran always
/// writes one: a name like `12d5` is no number.
pub(super) fn real(word: &str) -> Option<f64> {
    let fortran = || word.contains(['.', '+', '-']).then(|| word.replace(['D', 'd'], "e").parse().ok()).flatten();
    word.parse().ok().or_else(fortran)
}

/// A logical value.
pub(super) fn logical(word: &str) -> Option<bool> {
    match word {
        "T" | "True" | "true" | "TRUE" => Some(true),
        "F" | "False" | "false" | "FALSE" => Some(false),
        _ => None,
    }
}

/// How a logical is written.
pub(super) fn letter(value: bool) -> char {
    if value { 'T' } else { 'F' }
}

/// The shortest decimal number with the same bits, recognisable as a real.
pub(super) fn write_real(line: &mut String, value: f64) {
    write!(line, "{value:?}").expect("writing to a string cannot fail");
}

/// Appends anything that can be displayed.
pub(super) fn append(line: &mut String, value: impl std::fmt::Display) {
    write!(line, "{value}").expect("writing to a string cannot fail");
}

/// Values in quotes, separated by blanks.
pub(super) fn write_array<T>(line: &mut String, values: &[T], mut write: impl FnMut(&mut String, &T)) {
    line.push('"');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        write(line, value);
    }
    line.push('"');
}

/// A key or a text, in quotes where it needs them.
pub(super) fn write_text(line: &mut String, text: &str) {
    let special = |c: char| c.is_whitespace() || c.is_control() || "\"'\\=,[]{}".contains(c);
    if !text.is_empty() && !text.contains(special) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            _ => line.push(character),
        }
    }
    line.push('"');
}
